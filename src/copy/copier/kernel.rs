//! Copies that the kernel makes, where the CPU must not touch the memory: there is no handler that would recover a
//! fault.

use super::Copier;
use crate::fault::Fault;
use crate::fault::shelter::Mark;
use crate::memory::Segment;
use crate::sys::memory;
use std::mem::MaybeUninit;

/// Zeroes that the kernel copies from where the CPU must not touch the destination.
pub(super) static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Overlapping ranges pass through a buffer of so many bytes where the kernel copies them.
const KERNEL_BLOCK: usize = 4096;

impl Copier {
    /// The kernel copies in an order of its own, so that overlapping ranges, which go to a lower address, pass through
    /// a buffer block by block.
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
            // SAFETY: `block` is where `buffer` is, which has `KERNEL_BLOCK` bytes, `size` or more, and which lives as
            // long as this function's frame: the source, memory of the caller's, does not overlap it.
            let read = size - unsafe { self.copy_apart_by_kernel(block, src.wrapping_add(done), size) };
            // SAFETY: `read` is at most `size`, which is what is left of the destination that the caller of
            // `copy_by_kernel` promises; the source is `buffer`, which does not overlap it.
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
        // More may have come under zeroes meanwhile.
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
