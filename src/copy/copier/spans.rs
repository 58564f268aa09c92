//! The CPU touches memory in spans of at most [`RECHECK_EVERY`] bytes. Between two spans the copier rechecks that our
//! signal handler is still installed. A span is a long range or a part of it, or many short ranges: whatever touches
//! memory first takes its bytes from the span.

use super::Copier;
use crate::fault::arm::{self, Path, RECHECK_EVERY};

impl Copier {
    /// Whether the CPU may touch `len` bytes more in this span. If so, they are taken from it. Otherwise
    /// [`Self::may_touch`] decides.
    #[inline]
    pub(super) fn fits_this_span(&mut self, len: usize) -> bool {
        let fits = len <= self.span_left && !matches!(self.path, Path::Syscalls);
        if fits {
            self.span_left -= len;
        }
        fits
    }

    /// Whether the CPU may touch `len` bytes more, at most [`RECHECK_EVERY`]. They are taken from this span, or from a
    /// new one if this has fewer left. Once it may touch no more, the kernel copies the rest.
    pub(super) fn may_touch(&mut self, len: usize) -> bool {
        if len > self.span_left {
            self.begin_span();
        }
        self.span_left -= len;
        !matches!(self.path, Path::Syscalls)
    }

    /// Begins a new span if this one has fewer than `len` bytes left, which are at most [`RECHECK_EVERY`].
    #[inline]
    pub(super) fn make_room(&mut self, len: usize) {
        if len > self.span_left {
            self.out_of_line(Self::begin_span);
        }
    }

    /// Rechecks that the handler is installed. If it is not, the kernel copies from now on.
    #[cold]
    fn begin_span(&mut self) {
        if matches!(self.path, Path::Direct(_)) && self.backing.may_vanish() && !arm::recheck() {
            self.path = Path::Syscalls;
            arm::invalidate();
        }
        self.span_left = RECHECK_EVERY;
    }

    /// Calls `span` for each part of `len` bytes that fits a span, with its offset and its length. `span` returns how
    /// many of its bytes it did not do; the first that are not all done end the copy. Returns the bytes not done.
    pub(super) fn in_spans(&mut self, len: usize, mut span: impl FnMut(&mut Self, usize, usize) -> usize) -> usize {
        let mut done = 0;
        while done < len {
            let size = (len - done).min(RECHECK_EVERY);
            let left = span(self, done, size);
            done += size - left;
            if left != 0 {
                break;
            }
        }
        len - done
    }

    /// # Safety
    /// As for [`CopyChunk::copy`](crate::copy::chunk::CopyChunk::copy).
    #[cold]
    pub(super) unsafe fn copy_rechecking(&mut self, dst: usize, src: usize, len: usize) -> usize {
        self.in_spans(len, |copier, at, size| {
            let (to, from) = (dst.wrapping_add(at), src.wrapping_add(at));
            if copier.may_touch(size) {
                // SAFETY: this is a part of the range for which the caller of `copy_rechecking` upholds the same
                // contract, and the path is `Direct`, as `may_touch` says.
                unsafe { copier.copy_directly(to, from, size) }
            } else {
                // SAFETY: this is a part of the range for which the caller of `copy_rechecking` upholds the same
                // contract.
                unsafe { copier.copy_by_kernel(to, from, size) }
            }
        })
    }
}
