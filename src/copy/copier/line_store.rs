//! The copier as a [`LineStore`]: it stores non-temporally, and writes cache lines back.

use super::Copier;
use super::kernel::ZEROES;
use crate::arch::guard::{self, Interrupted};
use crate::arch::{self, WriteBack};
use crate::copy::nontemporal::{Flush, LineStore, Remainder};
use crate::fault::Fault;
use crate::fault::arm::Path;
use crate::fault::shelter::{self, Mark};
use crate::memory::Segment;
use crate::sys::{maps, shared_mapping};

#[allow(clippy::inline_always)] // a call's own stores would delay the fence behind the copy
impl LineStore for Copier {
    #[inline(always)]
    fn can_bypass(&self, flush: Flush) -> bool {
        !matches!(self.path, Path::Syscalls) && (arch::NONTEMPORAL_BYPASSES || flush == Flush::None)
    }

    #[inline(always)]
    unsafe fn load(&mut self, own: usize, src: usize, len: usize) -> usize {
        // SAFETY: `load` has the same contract, which its caller upholds.
        unsafe { self.copy_through_caches(own, src, len) }
    }

    #[inline(always)]
    unsafe fn store(&mut self, dst: usize, src: usize, len: usize) -> usize {
        // SAFETY: `store` has the same contract, which its caller upholds.
        unsafe { self.copy_through_caches(dst, src, len) }
    }

    #[inline(always)]
    unsafe fn nontemporal(
        &mut self,
        dst: usize,
        src: usize,
        len: usize,
        finish: impl FnOnce(&mut Self, &Remainder) -> usize,
    ) -> usize {
        let rest = if self.fits_this_span(len) {
            // SAFETY: `nontemporal` has the same contract, which its caller upholds, and the path is `Direct`, as
            // `fits_this_span` says.
            match unsafe { self.nontemporal_directly(dst, src, len) } {
                None if self.is_undisturbed() => return 0,
                stop => self.out_of_line(|copier| copier.rest_of(stop.as_ref(), dst, src, len)),
            }
        } else {
            // SAFETY: `nontemporal` has the same contract, which its caller upholds.
            self.out_of_line(|copier| unsafe { copier.nontemporal_rechecking(dst, src, len) })
        };
        rest.map_or(0, |rest| self.out_of_line(|copier| finish(copier, &rest)))
    }

    #[inline(always)]
    unsafe fn write_back(&mut self, dst: usize, len: usize) -> usize {
        match arch::write_back() {
            // SAFETY: `write_back` has the same contract, which its caller upholds.
            Some(instruction) => unsafe { self.over_lines(instruction, dst, len) },
            None => len,
        }
    }

    #[inline(always)]
    fn claim(&mut self, dst: usize, len: usize) {
        arch::prefetch_to_write(dst, len);
    }

    #[inline(always)]
    fn fence(&mut self) {
        arch::store_fence();
    }
}

impl Copier {
    /// # Safety
    /// As for [`LineStore::nontemporal`], and the path is [`Path::Direct`].
    #[inline(always)]
    #[allow(clippy::inline_always)] // a part of `nontemporal`
    unsafe fn nontemporal_directly(&self, dst: usize, src: usize, len: usize) -> Option<Interrupted> {
        debug_assert!(dst <= src || dst - src >= len, "{len} bytes are moved up by {}", dst - src);
        // SAFETY: by the contract of `LineStore::nontemporal` the ranges are parts of `Memory`, whose maker lets the
        // destination be written to, and `len` is not 0. The memory is `Backing::Heap`, which stays accessible, or
        // `Path::Direct` holds an `Armed`, which `arm::arm` gives while the handler is installed.
        unsafe { guard::copy_nontemporal(self.set, dst, src, len) }
    }

    /// The part that a non-temporal copy left, if it left any.
    #[cold]
    pub(super) fn rest_of(
        &mut self,
        stop: Option<&Interrupted>,
        dst: usize,
        src: usize,
        len: usize,
    ) -> Option<Remainder> {
        let left = self.count(stop, dst, src, len);
        let done = len - left;
        // If a guard's zeroes made the count shorter, the bytes behind are not to be read.
        let readable = stop.filter(|stop| stop.left == left).map_or(0, |stop| stop.readable);
        (left != 0).then_some(Remainder { dst: dst + done, src: src.wrapping_add(done), len: left, readable })
    }

    /// # Safety
    /// As for [`LineStore::nontemporal`].
    #[cold]
    unsafe fn nontemporal_rechecking(&mut self, dst: usize, src: usize, len: usize) -> Option<Remainder> {
        let mut rest = None;
        let left = self.in_spans(len, |copier, at, size| {
            let (dst, src) = (dst + at, src + at);
            rest = if copier.may_touch(size) {
                // SAFETY: the caller of `nontemporal_rechecking` promises it of the whole range, of which this is a
                // part that is not empty.
                let stop = unsafe { copier.nontemporal_directly(dst, src, size) };
                copier.rest_of(stop.as_ref(), dst, src, size)
            } else {
                // The handler is lost. All of the rest may be readable, so it is left to the kernel.
                Some(Remainder { dst, src, len: size, readable: len - at })
            };
            rest.map_or(0, |rest| rest.len)
        });
        rest.map(|rest| Remainder { len: left, ..rest })
    }

    /// Runs a write-back instruction over the lines of a range; returns the bytes of the range that it did not reach.
    ///
    /// # Safety
    /// The range is a part of the memory that the copier was made for.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per call
    pub(in crate::copy) unsafe fn over_lines(&mut self, instruction: &WriteBack, addr: usize, len: usize) -> usize {
        if self.fits_this_span(len) {
            // SAFETY: `over_lines` has the same contract, which its caller upholds, and the path is `Direct`, as
            // `fits_this_span` says.
            unsafe { self.over_lines_directly(instruction, addr, len) }
        } else {
            // SAFETY: `over_lines` has the same contract, which its caller upholds.
            self.out_of_line(|copier| unsafe { copier.over_lines_rechecking(instruction, addr, len) })
        }
    }

    /// # Safety
    /// As for [`Self::over_lines`].
    #[cold]
    unsafe fn over_lines_rechecking(&mut self, instruction: &WriteBack, addr: usize, len: usize) -> usize {
        self.in_spans(len, |copier, at, size| {
            let addr = addr + at;
            if copier.may_touch(size) {
                // SAFETY: this is a part of the range for which the caller of `over_lines_rechecking` upholds the same
                // contract.
                return unsafe { copier.over_lines_directly(instruction, addr, size) };
            }
            let mark = Mark::now();
            let there = shelter::fault_in(Segment::new(addr, size), false);
            // SAFETY: the caller of `over_lines_rechecking` promises it of the whole range, of which this is a part,
            // which was there just now.
            let left = unsafe { copier.over_lines_by_kernel(instruction, Segment::new(addr, there)) };
            let done = mark.clear(Segment::new(addr, there - left));
            if done < size && copier.fault.is_none() {
                let (at, readable) = (addr + done, ZEROES.as_ptr().addr());
                let met = mark.fault_at(at, readable).unwrap_or_else(|| Fault::diagnose(at, readable));
                copier.fault = Some(Box::new(met));
            }
            size - done
        })
    }

    /// Writes back a range when there is no handler to recover a fault. An msync writes back the pages of a file; other
    /// memory is not durable anywhere. Only memory of a device, which msync does not write back, is accessed by the
    /// instruction: it cannot be truncated.
    ///
    /// # Safety
    /// As for [`Self::over_lines`].
    unsafe fn over_lines_by_kernel(&mut self, instruction: &WriteBack, seg: Segment) -> usize {
        if seg.len == 0 {
            0
        } else if maps::is_device(seg.addr) {
            // SAFETY: the caller of `over_lines_by_kernel` promises it; `maps::is_device` says that it does not vanish.
            unsafe { self.over_lines_directly(instruction, seg.addr, seg.len) }
        } else if shared_mapping::sync(seg).is_ok() {
            0
        } else {
            seg.len
        }
    }

    /// # Safety
    /// As for [`Self::over_lines`], and the path is [`Path::Direct`] or the range cannot vanish.
    #[inline]
    unsafe fn over_lines_directly(&mut self, instruction: &WriteBack, addr: usize, len: usize) -> usize {
        // SAFETY: a write-back changes no contents. The range stays readable if it is `Backing::Heap` or a device's,
        // and for any other the handler is installed: `Path::Direct`.
        match unsafe { guard::write_back(instruction, addr, len) } {
            None if self.is_undisturbed() => 0,
            stop => self.out_of_line(|copier| copier.count(stop.as_ref(), addr, addr, len)),
        }
    }
}
