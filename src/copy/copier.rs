//! How one chunk is copied, and what stopped it: by the CPU under the fault handler, or by the kernel where there is no
//! handler.

mod kernel;
mod line_store;
mod spans;

use super::chunk::{CopyChunk, NONTEMPORAL_FROM, PREFETCH_CHUNK};
use super::nontemporal::{self, Flush};
use crate::arch::guard::{self, Interrupted};
use crate::arch::{self, LINE, Primitives, tuning};
use crate::error::Result;
use crate::fault::Fault;
use crate::fault::arm::{self, Path, RECHECK_EVERY};
use crate::fault::shelter::Mark;
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};

/// Copies chunks through the caches, or past them if they are long chunks of a long copy, and remembers the fault that
/// stopped it.
///
/// Its address is not taken where a copy is short: it stays in registers there. See [`Copier::out_of_line`].
pub(super) struct Copier {
    set: &'static Primitives,
    path: Path,
    /// The least safe backing of what it copies between.
    backing: Backing,
    /// Chunks of so many bytes and more may go past the caches; `usize::MAX` if none does.
    nontemporal_from: usize,
    /// Bytes that the copy is about.
    expected: usize,
    /// A source to prefetch while the one before it goes past the caches.
    next_source: Segment,
    /// What stopped it. The offset and the reach are filled in at the end.
    fault: Option<Box<Fault>>,
}

/// Of a next source that is longer than this, only the first lines are prefetched: the hardware's own prefetcher sees
/// to the rest.
const PREFETCH_UP_TO: usize = 16 << 10;

impl Copier {
    /// A copier between all of these. Arms this thread if the CPU is to touch them under the fault handler.
    #[inline(always)]
    #[allow(clippy::inline_always)] // returned by value it would be copied right after it was written
    pub(super) fn new(flats: &[Memory], iters: &[&IovIter]) -> Result<Self> {
        let mut backing = Backing::Heap;
        for flat in flats {
            backing = backing.max(flat.backing());
        }
        for i in iters {
            backing = backing.max(i.backing());
        }
        let path = arm::arm(backing)?;
        Ok(Self {
            set: arch::primitives(),
            path,
            backing,
            nontemporal_from: usize::MAX,
            expected: 0,
            next_source: Segment::default(),
            fault: None,
        })
    }

    /// Says how many bytes the copy is about: if that is more than the caches could keep, long chunks go past them.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per call
    pub(super) fn expect(&mut self, nbytes: usize) {
        self.nontemporal_from = tuning::chunks_from(nbytes);
        self.expected = nbytes;
    }

    /// Whether chunks may go past the caches, as [`Self::expect`] has found.
    pub(super) fn is_nontemporal(&self) -> bool {
        self.nontemporal_from != usize::MAX
    }

    /// Whether a range may be touched by the CPU in one go. A longer one is touched in spans, between which it is asked
    /// again whether the handler is still ours.
    #[inline]
    fn fits_one_span(&self, len: usize) -> bool {
        len <= RECHECK_EVERY && !matches!(self.path, Path::Syscalls)
    }

    /// # Safety
    /// As for [`CopyChunk::copy`].
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
    unsafe fn copy_through_caches(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if self.fits_one_span(len) {
            // SAFETY: the caller of `copy_through_caches` promises it.
            unsafe { self.copy_directly(dst, src, len) }
        } else {
            // SAFETY: the caller of `copy_through_caches` promises it.
            self.out_of_line(|copier| unsafe { copier.copy_rechecking(dst, src, len) })
        }
    }

    /// Runs an uncommon path on a copy of `self`: taking the address of `self` would force its fields out of registers
    /// on the common path, too.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as its callers are
    pub(super) fn out_of_line<R>(&mut self, run: impl FnOnce(&mut Self) -> R) -> R {
        let path = std::mem::replace(&mut self.path, Path::Syscalls);
        // The set is read anew, so that it need not be kept at hand for this. If another was chosen meanwhile, that one
        // does as well.
        let mut spilled = Self { set: arch::primitives(), path, fault: self.fault.take(), ..*self };
        let result = run(&mut spilled);
        // What `into_fault` goes by, the fence among it, comes back.
        (self.nontemporal_from, self.expected) = (spilled.nontemporal_from, spilled.expected);
        (self.path, self.fault) = (spilled.path, spilled.fault);
        result
    }

    /// Overlapping ranges go through the cache: the loads fetch the destination's lines anyway. So do short ones that
    /// are not whole lines.
    ///
    /// # Safety
    /// As for [`CopyChunk::copy`].
    #[inline(never)]
    unsafe fn copy_nontemporal(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if dst.abs_diff(src) < len || !tuning::is_streamed(dst, len, self.expected) {
            // SAFETY: the caller of `copy_nontemporal` promises it.
            return unsafe { self.copy_through_caches(dst, src, len) };
        }
        let next = std::mem::take(&mut self.next_source);
        let mut done = 0;
        while done < len {
            // Each piece but the last ends at a line of the destination, and none is too short to be streamed.
            let is_last = next.len == 0 || len - done < PREFETCH_CHUNK + NONTEMPORAL_FROM;
            let end = if is_last { len } else { done + PREFETCH_CHUNK - (dst + done) % LINE };
            let prefetched = next.skip(done).take(end - done);
            arch::prefetch_far(prefetched.addr, prefetched.len);
            // SAFETY: the caller of `copy_nontemporal` promises it of the whole range, of which this is a part.
            let left = unsafe { nontemporal::copy(self, Flush::None, dst + done, src + done, end - done) };
            if left != 0 {
                return len - end + left;
            }
            done = end;
        }
        0
    }

    /// # Safety
    /// As for [`CopyChunk::copy`], and the path is [`Path::Direct`].
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
    unsafe fn copy_directly(&mut self, dst: usize, src: usize, len: usize) -> usize {
        debug_assert!(dst <= src || dst - src >= len, "{len} bytes are moved up by {}", dst - src);
        // SAFETY: the caller of `copy_directly` promises ranges that `CopyChunk::copy` accepts: parts of `Memory`,
        // whose maker lets the destination be written to. Either they are `Backing::Heap`, which stays accessible, or
        // `Path::Direct`, the caller's other promise, holds an `Armed`, which `arm::arm` gives while the handler is
        // installed.
        match unsafe { guard::copy(self.set, dst, src, len) } {
            None if self.is_undisturbed() => 0,
            stop => self.out_of_line(|copier| copier.count(stop.as_ref(), dst, src, len)),
        }
    }

    /// Records a fault that a signal reported; returns the bytes not done. A later fault replaces an earlier one: it is
    /// met in bytes before the first, which could still be read.
    #[cold]
    #[inline(never)]
    fn stopped(&mut self, stop: &Interrupted) -> usize {
        arm::invalidate();
        let (dst, src) = (stop.dst + stop.readable, stop.src.wrapping_add(stop.readable));
        self.fault = Some(Box::new(Fault::from_signal(&stop.trap, stop.is_store, dst, src)));
        stop.left
    }

    /// Whether no guard has put anything under zeroes since the copy began.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn is_undisturbed(&self) -> bool {
        matches!(&self.path, Path::Direct(armed) if armed.is_current())
    }

    /// Counts what the CPU did of a chunk; returns the bytes not done. Bytes that may have been a guard's zeroes are
    /// none of those that were done: the source was not read, or what was stored is lost.
    #[cold]
    #[inline(never)]
    fn count(&mut self, stop: Option<&Interrupted>, dst: usize, src: usize, len: usize) -> usize {
        let done = len - stop.map_or(0, |stop| self.stopped(stop));
        let Path::Direct(armed) = &self.path else { return len - done };
        if armed.is_current() {
            return len - done;
        }
        let mark = Mark::since(armed.epoch());
        // More may come. The kernel does the rest, piece by piece, and it is looked at before and after each.
        self.path = Path::Syscalls;
        let clear = mark.clear(Segment::new(src, done)).min(mark.clear(Segment::new(dst, done)));
        if clear < done {
            self.fault = mark.fault_at(dst.wrapping_add(clear), src.wrapping_add(clear)).map(Box::new);
        }
        len - clear
    }

    /// Zeroes; returns the bytes **not** zeroed.
    ///
    /// # Safety
    /// The range is a destination that [`CopyChunk::copy`] accepts.
    pub(super) unsafe fn zero(&mut self, dst: usize, len: usize) -> usize {
        self.in_spans(len, |copier, at, size| {
            let dst = dst.wrapping_add(at);
            if copier.may_touch(at) {
                // SAFETY: the caller of `zero` promises it of the whole range, of which this is a part.
                unsafe { copier.zero_directly(dst, size) }
            } else {
                // SAFETY: the caller of `zero` promises it of the whole range, of which this is a part.
                unsafe { copier.zero_by_kernel(dst, size) }
            }
        })
    }

    /// # Safety
    /// As for [`Self::zero`], and the path is [`Path::Direct`].
    unsafe fn zero_directly(&mut self, dst: usize, len: usize) -> usize {
        // SAFETY: the caller of `zero_directly` promises a destination that `CopyChunk::copy` accepts: a part of
        // `Memory`, whose maker lets it be written to. Either it is `Backing::Heap`, which stays accessible, or
        // `Path::Direct`, the caller's other promise, holds an `Armed`, which `arm::arm` gives while the handler is
        // installed.
        let stop = unsafe { guard::zero(self.set, dst, len) };
        self.count(stop.as_ref(), dst, dst, len)
    }

    /// Ends one of several copies, which came to `copied` of `wanted` bytes: what stopped that one.
    pub(super) fn take_fault(&mut self, copied: usize, wanted: usize) -> Option<Box<Fault>> {
        self.out_of_line(|copier| copier.fault.take()).map(|fault| Box::new(placed(*fault, copied, wanted)))
    }

    /// Ends a copy that came to `copied` of `wanted` bytes: what stopped it.
    #[inline(always)]
    #[allow(clippy::inline_always)] // taken by value it would be copied for the sake of looking at one field
    pub(super) fn into_fault(self, copied: usize, wanted: usize) -> Option<Box<Fault>> {
        if self.nontemporal_from != usize::MAX {
            arch::store_fence();
        }
        if self.backing.may_vanish() {
            arm::finish();
        }
        // What a copy ran into and got past, because the page had come back, did not stop it.
        self.fault.filter(|_| copied < wanted).map(|fault| Box::new(placed(*fault, copied, wanted)))
    }
}

/// The fault of a copy that came to `copied` of `wanted` bytes.
#[cold]
fn placed(mut fault: Fault, copied: usize, wanted: usize) -> Fault {
    fault.offset = copied;
    fault.reach(wanted - copied)
}

impl CopyChunk for Copier {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if len < self.nontemporal_from {
            // SAFETY: the caller of `copy` promises it.
            unsafe { self.copy_through_caches(dst, src, len) }
        } else {
            // SAFETY: the caller of `copy` promises it.
            unsafe { self.copy_nontemporal(dst, src, len) }
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch_source(&mut self, next: Segment) {
        if next.len < self.nontemporal_from || next.len > PREFETCH_UP_TO || next.len < PREFETCH_CHUNK {
            arch::prefetch(next.addr, next.len);
        } else {
            self.next_source = next;
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch_destination(&mut self, next: Segment) {
        if next.len < self.nontemporal_from || !tuning::is_streamed(next.addr, next.len, self.expected) {
            arch::prefetch(next.addr, next.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Copier;

    /// The fence at the end of a copy goes by it, also where all of the copy ran out of line.
    #[test]
    fn what_is_expected_out_of_line_is_still_expected_at_the_end() {
        let mut copier = Copier::new(&[], &[]).unwrap();
        copier.out_of_line(|copier| copier.expect(usize::MAX));
        let at_the_end = copier.nontemporal_from;
        copier.expect(usize::MAX);
        assert_eq!(at_the_end, copier.nontemporal_from);
        assert_ne!(at_the_end, usize::MAX);
    }
}
