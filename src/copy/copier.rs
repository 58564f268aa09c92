//! Copies one chunk, and records the fault that stopped it. The CPU copies if the fault handler can recover a fault,
//! otherwise the kernel does.

mod chunks;
mod kernel;
mod line_store;
mod runs;
mod spans;
mod tee;

pub(super) use tee::TEE_FROM;

#[cfg(doc)]
use super::chunk::CopyChunk;
use super::chunk::{NONTEMPORAL_FROM, PREFETCH_CHUNK};
use super::nontemporal::{self, Flush};
use crate::arch::guard::{self, Interrupted};
use crate::arch::{self, LINE, Primitives, tuning};
use crate::error::Result;
use crate::fault::Fault;
use crate::fault::arm::{self, Path, RECHECK_EVERY};
use crate::fault::shelter::Mark;
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};

/// Copies chunks, through the caches or, for long chunks of a long copy, with non-temporal stores. Records the fault
/// that stopped it.
///
/// On the short path nothing takes the copier's address, so its fields stay in registers; see [`Copier::out_of_line`]
/// for the long one.
pub(super) struct Copier {
    set: &'static Primitives,
    path: Path,
    /// The least safe backing of all memory that it copies between.
    backing: Backing,
    /// Chunks of at least this many bytes may be stored non-temporally; `usize::MAX` if none may.
    nontemporal_from: usize,
    /// The bytes of the whole copy, as [`Copier::expect`] was told.
    expected: usize,
    /// The bytes that the CPU may still touch before the copier rechecks the handler (see the module `spans`).
    span_left: usize,
    /// The source of the next chunk, to be prefetched while this one is stored non-temporally.
    next_source: Segment,
    /// The fault that stopped it. Its offset and its extent are completed at the end of the copy.
    fault: Option<Box<Fault>>,
}

impl Copier {
    /// Makes a copier between all of these. Arms this thread if the CPU will access them under the fault handler.
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
            span_left: RECHECK_EVERY,
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

    /// Whether chunks may be stored non-temporally, as [`Copier::expect`] was told how many bytes the copy is about.
    pub(super) fn may_stream(&self) -> bool {
        self.nontemporal_from != usize::MAX
    }

    /// # Safety
    /// As for [`CopyChunk::copy`].
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
    unsafe fn copy_through_caches(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if self.fits_this_span(len) {
            // SAFETY: `copy_through_caches` has the contract of `CopyChunk::copy`, which this requires; the path is
            // `Direct`, as `fits_this_span` says.
            unsafe { self.copy_directly(dst, src, len) }
        } else {
            // SAFETY: `copy_through_caches` has the same contract, which its caller upholds.
            self.out_of_line(|copier| unsafe { copier.copy_rechecking(dst, src, len) })
        }
    }

    /// Runs an uncommon path on a copy of `self`: taking the address of `self` would force its fields out of registers
    /// on the common path, too.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as its callers are
    pub(super) fn out_of_line<R>(&mut self, run: impl FnOnce(&mut Self) -> R) -> R {
        let path = std::mem::replace(&mut self.path, Path::Syscalls);
        // The set is read again, so that the common path need not keep it in a register for this. If another set was
        // chosen meanwhile, that works as well.
        let mut spilled = Self { set: arch::primitives(), path, fault: self.fault.take(), ..*self };
        let result = run(&mut spilled);
        // `into_fault` fences if the first was set, so both must be copied back.
        (self.nontemporal_from, self.expected) = (spilled.nontemporal_from, spilled.expected);
        self.span_left = spilled.span_left;
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
            // SAFETY: `copy_nontemporal` has the same contract, which its caller upholds.
            return unsafe { self.copy_through_caches(dst, src, len) };
        }
        let next = std::mem::take(&mut self.next_source);
        let mut done = 0;
        while done < len {
            // Each piece but the last ends at a line boundary of the destination, and none is shorter than
            // NONTEMPORAL_FROM.
            let is_last = next.len == 0 || len - done < PREFETCH_CHUNK + NONTEMPORAL_FROM;
            let end = if is_last { len } else { done + PREFETCH_CHUNK - (dst + done) % LINE };
            let prefetched = next.skip(done).take(end - done);
            arch::prefetch_far(prefetched.addr, prefetched.len);
            // SAFETY: this is a part of the range for which the caller of `copy_nontemporal` upholds the same contract.
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
        // SAFETY: by `copy_directly`'s contract `CopyChunk::copy` accepts the ranges: they are parts of `Memory`, whose
        // maker lets the destination be written to. Either they are `Backing::Heap`, which stays accessible, or the
        // path, `Path::Direct` by the contract, holds an `Armed`, which `arm::arm` gives while the handler is
        // installed.
        match unsafe { guard::copy(self.set, dst, src, len) } {
            None if self.is_undisturbed() => 0,
            stop => self.out_of_line(|copier| copier.count(stop.as_ref(), dst, src, len)),
        }
    }

    /// Records a fault that a signal reported; returns the bytes not done. A later fault replaces an earlier one,
    /// because it is nearer to the start: it happened in the readable bytes before the first fault's line.
    #[cold]
    #[inline(never)]
    fn stopped(&mut self, stop: &Interrupted) -> usize {
        arm::invalidate();
        let (dst, src) = (stop.dst + stop.readable, stop.src.wrapping_add(stop.readable));
        self.fault = Some(Box::new(Fault::from_signal(&stop.trap, stop.is_store, dst, src)));
        stop.left
    }

    /// Whether no guard has replaced any pages by zeroes since the copy began.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn is_undisturbed(&self) -> bool {
        matches!(&self.path, Path::Direct(armed) if armed.is_current())
    }

    /// Counts what the CPU did of a chunk; returns the bytes not done. Bytes that may have been a guard's zeroes do not
    /// count as done: as a source they were not the real bytes, and as a destination they are lost.
    #[cold]
    #[inline(never)]
    fn count(&mut self, stop: Option<&Interrupted>, dst: usize, src: usize, len: usize) -> usize {
        let done = len - stop.map_or(0, |stop| self.stopped(stop));
        let Path::Direct(armed) = &self.path else { return len - done };
        if armed.is_current() {
            return len - done;
        }
        let mark = Mark::since(armed.epoch());
        // More pages may be replaced by zeroes. So the kernel copies the rest in pieces, with a check before and after
        // each piece.
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
            if copier.may_touch(size) {
                // SAFETY: this is a part of the range for which the caller of `zero` upholds the same contract, and the
                // path is `Direct`, as `may_touch` says.
                unsafe { copier.zero_directly(dst, size) }
            } else {
                // SAFETY: this is a part of the range for which the caller of `zero` upholds the same contract.
                unsafe { copier.zero_by_kernel(dst, size) }
            }
        })
    }

    /// # Safety
    /// As for [`Self::zero`], and the path is [`Path::Direct`].
    unsafe fn zero_directly(&mut self, dst: usize, len: usize) -> usize {
        // SAFETY: by `zero_directly`'s contract `CopyChunk::copy` accepts the destination: it is a part of `Memory`,
        // whose maker lets it be written to. Either it is `Backing::Heap`, which stays accessible, or the path,
        // `Path::Direct` by the contract, holds an `Armed`, which `arm::arm` gives while the handler is installed.
        let stop = unsafe { guard::zero(self.set, dst, len) };
        self.count(stop.as_ref(), dst, dst, len)
    }

    /// Ends one of several copies, which copied `copied` of `wanted` bytes. Returns the fault that stopped it.
    pub(super) fn take_fault(&mut self, copied: usize, wanted: usize) -> Option<Box<Fault>> {
        self.out_of_line(|copier| copier.fault.take()).map(|fault| Box::new(placed(*fault, copied, wanted)))
    }

    /// Ends a copy, which copied `copied` of `wanted` bytes. Fences if any chunk may have been stored non-temporally.
    /// Returns the fault that stopped the copy.
    #[inline(always)]
    #[allow(clippy::inline_always)] // out of line, all of it would be copied to read one field
    pub(super) fn into_fault(self, copied: usize, wanted: usize) -> Option<Box<Fault>> {
        if self.may_stream() {
            arch::store_fence();
        }
        if self.backing.may_vanish() {
            arm::finish();
        }
        // A fault after which the copy continued, because the page was back, did not stop it.
        self.fault.filter(|_| copied < wanted).map(|fault| Box::new(placed(*fault, copied, wanted)))
    }
}

/// Completes the fault of a copy of `wanted` bytes that copied `copied`: its offset and its extent.
#[cold]
fn placed(mut fault: Fault, copied: usize, wanted: usize) -> Fault {
    fault.offset = copied;
    fault.reach(wanted - copied)
}

#[cfg(test)]
mod tests {
    use super::Copier;

    /// `into_fault` decides by this field whether to fence, so what `out_of_line` sets must not get lost.
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
