//! The unit of every copy: a chunk that is contiguous on both sides. And the buffers of our own that chunks pass
//! through.

use crate::arch;
use crate::memory::Segment;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// Destinations shorter than this that may leave partial lines in the cache go there whole: two edge lines would be
/// most of them. In bytes.
pub(super) const NONTEMPORAL_FROM: usize = 256;

/// How many bytes of the next source are prefetched at a time while another one is copied past the caches.
pub(super) const PREFETCH_CHUNK: usize = 1 << 10;

/// Something that copies chunks.
pub(super) trait CopyChunk {
    /// Copies; returns the bytes **not** copied. The ranges may overlap only if `dst` is not above `src`.
    ///
    /// # Safety
    /// Each range is a part of the [`Memory`](crate::memory::Memory) that the copier was made for, or of a buffer of
    /// our own that stays where it is until the copier is done.
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize;

    /// May prefetch a source that will be copied from soon.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch_source(&mut self, next: Segment) {
        arch::prefetch(next.addr, next.len);
    }

    /// May prefetch a destination that will be copied to soon.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch_destination(&mut self, next: Segment) {
        arch::prefetch(next.addr, next.len);
    }
}

/// What [`poison`] fills buffers with.
pub(super) const POISON: u8 = 0xa5;

/// Fills a buffer that is about to be used uninitialised, so that a byte which was counted but never read shows in a
/// test: in debug builds, and where `IOVEC_RS_POISON` is set in the environment.
pub(super) fn poison(buffer: &mut [MaybeUninit<u8>]) {
    if is_poison_asked_for() {
        buffer.fill(MaybeUninit::new(POISON));
    }
}

/// Whether buffers are to be poisoned.
pub(super) fn is_poison_asked_for() -> bool {
    static ASKED_FOR: OnceLock<bool> = OnceLock::new();
    cfg!(debug_assertions) || *ASKED_FOR.get_or_init(|| std::env::var_os("IOVEC_RS_POISON").is_some())
}
