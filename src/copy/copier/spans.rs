//! Long copies are made in spans. Between two spans the copier rechecks that our signal handler is still installed.

use super::Copier;
use crate::fault::arm::{self, Path, RECHECK_EVERY};

impl Copier {
    /// Calls `span` for each span of `len` bytes, with its offset and its length. `span` returns how many of its bytes
    /// it did not do; the first that are not all done end the copy. Returns the bytes not done.
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

    /// Whether the CPU may access the memory after `done` bytes. Once it may not, the kernel copies the rest.
    pub(super) fn may_touch(&mut self, done: usize) -> bool {
        if matches!(self.path, Path::Direct(_)) && self.backing.may_vanish() && done != 0 && !arm::recheck() {
            self.path = Path::Syscalls;
            arm::invalidate();
        }
        !matches!(self.path, Path::Syscalls)
    }

    /// Rechecks that the handler is still installed, in a copy of many chunks as often as in one long copy. `done`
    /// bytes have been copied, `since` of them since the last call of this function.
    #[inline]
    pub(in crate::copy) fn recheck(&mut self, done: usize, since: usize) {
        if done / RECHECK_EVERY != (done - since) / RECHECK_EVERY {
            self.out_of_line(|copier| copier.may_touch(done));
        }
    }
}
