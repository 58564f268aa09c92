//! Copies to a destination and to a buffer of ours at once, which load each byte once where a copy through the buffer
//! loads it twice.

use super::Copier;
use crate::arch::{LINE, guard, tuning};
use crate::copy::nontemporal::{Flush, LineStore};

/// A shorter block takes no longer through the buffer.
pub(in crate::copy) const TEE_FROM: usize = 256;

/// How far [`Copier::tee`] came with a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::copy) struct Teed {
    /// The number of bytes that are at the destination and in the buffer.
    pub(in crate::copy) done: usize,
    /// How many of the bytes behind those can still be copied, through the buffer.
    pub(in crate::copy) readable: usize,
}

impl Copier {
    /// Copies a block to `dst` and to a buffer of ours at `own`, non-temporally if `flush` or [`Copier::expect`] says
    /// so. It copies whole lines of the destination, of a block that is long enough and does not overlap it, if the CPU
    /// may access both and the instruction set has the routine. All else is left to the caller, as readable.
    ///
    /// It is inlined, as everything is that a copy does once per block but the routine and the sum: what a call puts on
    /// the stack goes into a store queue that the block has filled. With five calls 64 KiB in the second-level cache
    /// take 1.87 us on Zen 5, not 1.58.
    ///
    /// # Safety
    /// As for [`CopyChunk::copy`](crate::copy::chunk::CopyChunk::copy); and the buffer has room for `len` bytes.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per block, see `tee`
    pub(in crate::copy) unsafe fn tee(
        &mut self,
        flush: Option<Flush>,
        dst: usize,
        src: usize,
        len: usize,
        own: usize,
    ) -> Teed {
        if len < TEE_FROM {
            return Teed { done: 0, readable: len };
        }
        // SAFETY: `tee_lines` has the same contract, which `tee`'s caller upholds.
        unsafe { self.tee_lines(flush, dst, src, len, own) }
    }

    /// [`Self::tee`] of a block of at least [`TEE_FROM`] bytes.
    ///
    /// # Safety
    /// As for [`Self::tee`].
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per block, see `tee`
    unsafe fn tee_lines(&mut self, flush: Option<Flush>, dst: usize, src: usize, len: usize, own: usize) -> Teed {
        let (lines, untouched) = (len - len % LINE, Teed { done: 0, readable: len });
        let fits = (dst | own).is_multiple_of(LINE) && dst.abs_diff(src) >= len;
        let Some(tee) = self.set.tee.filter(|_| fits) else { return untouched };
        let streams = match flush {
            None => lines >= self.nontemporal_from && tuning::is_streamed(dst, lines, self.expected),
            Some(flush) if self.can_bypass(flush) => true,
            Some(_) => return untouched,
        };
        if !self.fits_this_span(lines) {
            return untouched;
        }
        let routine = if streams { tee.nontemporal } else { tee.copy };
        // SAFETY: by `tee_lines`'s contract `CopyChunk::copy` accepts the ranges: they are parts of `Memory`, whose
        // maker lets the destination be written to. Either they are `Backing::Heap`, which stays accessible, or the
        // path, `Direct` as `fits_this_span` says, holds an `Armed`, which `arm::arm` gives while the handler is
        // installed. The routine is of a set in use; `fits` has compared the addresses, and `lines` is at least
        // `TEE_FROM`.
        match unsafe { guard::tee(routine, dst, src, lines, own) } {
            None if self.is_undisturbed() => Teed { done: lines, readable: len - lines },
            stop => self.out_of_line(|copier| match copier.rest_of(stop.as_ref(), dst, src, lines) {
                None => Teed { done: lines, readable: len - lines },
                Some(rest) => Teed { done: lines - rest.len, readable: rest.readable },
            }),
        }
    }
}
