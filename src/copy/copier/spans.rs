//! Long copies in spans, between which it is looked again whether the handler is still ours.

use super::Copier;
use crate::fault::arm::{self, Path, RECHECK_EVERY};

impl Copier {
    /// In spans, before each of which the handler may turn out to be lost. `span` is given where one begins and how
    /// long it is, and returns the bytes of it that are left.
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
            if copier.may_touch(at) {
                // SAFETY: the caller of `copy_rechecking` promises it of the whole range, of which this is a part.
                unsafe { copier.copy_directly(to, from, size) }
            } else {
                // SAFETY: the caller of `copy_rechecking` promises it of the whole range, of which this is a part.
                unsafe { copier.copy_by_kernel(to, from, size) }
            }
        })
    }

    /// Whether the CPU may go on after `done` bytes. Once it may not, the kernel does the rest.
    pub(super) fn may_touch(&mut self, done: usize) -> bool {
        if matches!(self.path, Path::Direct(_)) && self.backing.may_vanish() && done != 0 && !arm::recheck() {
            self.path = Path::Syscalls;
            arm::invalidate();
        }
        !matches!(self.path, Path::Syscalls)
    }

    /// For a copy in many chunks, of which `done` bytes are copied, the last `since` since this was called: looks
    /// again, as often as in one long copy, whether the handler is still ours.
    #[inline]
    pub(in crate::copy) fn recheck(&mut self, done: usize, since: usize) {
        if done / RECHECK_EVERY != (done - since) / RECHECK_EVERY {
            self.out_of_line(|copier| copier.may_touch(done));
        }
    }
}
