//! Copies made by the kernel, when the CPU must not access the memory because no handler would recover a fault.

use super::Copier;
use crate::fault::Fault;
use crate::fault::shelter::Mark;
use crate::memory::Segment;
use crate::sys::memory;
use std::mem::MaybeUninit;

/// The source from which the kernel copies zeroes to a destination that the CPU must not access.
pub(super) static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// The size of the buffer through which the kernel copies overlapping ranges.
const KERNEL_BLOCK: usize = 4096;

impl Copier {
    /// Copies by a system call; returns the bytes not copied. The kernel may copy in any order, so ranges that overlap,
    /// with the destination below the source, are copied through a buffer block by block.
    ///
    /// # Safety
    /// The destination is one that [`CopyChunk::copy`](crate::copy::chunk::CopyChunk::copy) accepts. The source may be
    /// anything.
    pub(super) unsafe fn copy_by_kernel(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if src.wrapping_sub(dst) >= len {
            // SAFETY: the ranges do not overlap, as was just compared; the caller of `copy_by_kernel` promises the
            // destination.
            return unsafe { self.copy_apart_by_kernel(dst, src, len) };
        }
        let mut buffer = [const { MaybeUninit::<u8>::uninit() }; KERNEL_BLOCK];
        let block = buffer.as_mut_ptr().expose_provenance();
        let mut done = 0;
        while done < len {
            let size = (len - done).min(KERNEL_BLOCK);
            // SAFETY: `block` is the address of `buffer`, a local with `KERNEL_BLOCK` bytes, and `size` is at most
            // that. The source, memory of the caller, does not overlap this local.
            let read = size - unsafe { self.copy_apart_by_kernel(block, src.wrapping_add(done), size) };
            // SAFETY: `read` is at most `size`, and `done + size` at most `len`, so this is a part of the destination
            // that the caller of `copy_by_kernel` promises; the source is `buffer`, a local, which does not overlap it.
            let left = unsafe { self.copy_apart_by_kernel(dst.wrapping_add(done), block, read) };
            done += read - left;
            if read - left < size {
                break;
            }
        }
        len - done
    }

    /// # Safety
    /// As for [`Self::copy_by_kernel`]; the ranges do not overlap.
    unsafe fn copy_apart_by_kernel(&mut self, dst: usize, src: usize, len: usize) -> usize {
        let mark = Mark::now();
        let clear = |len: usize| mark.clear(Segment::new(src, len)).min(mark.clear(Segment::new(dst, len)));
        // SAFETY: the caller of `copy_apart_by_kernel` promises that the destination may be written to.
        let done = unsafe { memory::copy(dst, src, clear(len)) };
        // A guard may have replaced more pages by zeroes meanwhile, so the result is cleared again.
        let done = clear(done);
        if done < len {
            let (dst, src) = (dst.wrapping_add(done), src.wrapping_add(done));
            self.fault = Some(Box::new(mark.fault_at(dst, src).unwrap_or_else(|| Fault::diagnose(dst, src))));
        }
        len - done
    }

    /// # Safety
    /// As for [`Self::copy_by_kernel`].
    pub(super) unsafe fn zero_by_kernel(&mut self, dst: usize, len: usize) -> usize {
        let mut done = 0;
        while done < len {
            let part = ZEROES.len().min(len - done);
            // SAFETY: `done + part` is at most `len`, so this is a part of the destination that the caller of
            // `zero_by_kernel` promises; the source is a constant, which nothing overlaps.
            let left = unsafe { self.copy_apart_by_kernel(dst + done, ZEROES.as_ptr().expose_provenance(), part) };
            done += part - left;
            if left != 0 {
                break;
            }
        }
        len - done
    }
}
