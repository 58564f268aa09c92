//! The unit of every copy, a chunk that is contiguous on both sides; and the poisoning of buffers that chunks pass
//! through.

use crate::arch;
use crate::iter::Run;
use crate::memory::Segment;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// In bytes. A destination shorter than this, whose partial lines may stay in the cache, is stored through the cache as
/// a whole: few of its lines would be whole.
pub(super) const NONTEMPORAL_FROM: usize = 256;

/// While one source is copied with non-temporal stores, the next one is prefetched this many bytes at a time.
pub(super) const PREFETCH_CHUNK: usize = 1 << 10;

/// A copy that sums goes through a buffer in blocks of this many bytes. Each is summed without waiting for the sum of
/// those before it.
///
/// A sum handles 384 bytes at once on a CPU with AVX-512, and what is left over one word at a time. With four times
/// that, the stores of one block drain while the next is loaded and summed. With longer blocks, the stores to the
/// buffer and to the destination fill the store queue of a Zen 5.
pub(crate) const BLOCK: usize = 1536;

/// Where the CRC-64 is computed as well, it is of this many bytes at once, four blocks. A call costs 11 ns besides 15
/// ns a KiB on Zen 5, and is longer than the CPU looks ahead, so that it delays the stores behind it.
pub(crate) const SUMMED_AT_ONCE: usize = 4 * BLOCK;

/// Copies chunks.
pub(super) trait CopyChunk {
    /// Copies; returns the bytes **not** copied. The ranges may overlap only if `dst` is not above `src`.
    ///
    /// # Safety
    /// Each range is a part of the [`Memory`](crate::memory::Memory) that the copier was made for, or of a buffer of
    /// ours that stays where it is until the copier is done.
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize;

    /// Copies between the segments of a run and flat memory, in turn. Returns how many segments it took, at least one,
    /// and how many bytes of the last of them it did **not** copy. It may end before the run does. If it `GATHERS`, the
    /// segments are the sources and `flat` is the destination of the first, otherwise it is the other way round.
    ///
    /// `None`, with nothing copied, if each segment has to be copied as a chunk of its own.
    ///
    /// # Safety
    /// As for [`CopyChunk::copy`], for each segment of the run with its part of the flat memory.
    #[inline(always)]
    #[allow(clippy::inline_always)] // a constant
    unsafe fn copy_run<const GATHERS: bool>(&mut self, _run: &Run<'_>, _flat: usize) -> Option<(usize, usize)> {
        None
    }

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

/// The byte that [`poison`] fills buffers with.
pub(super) const POISON: u8 = 0xa5;

/// Fills a buffer that would be used uninitialised, so that tests see a byte that was counted but never read. Does so
/// in debug builds, and if `IOVEC_RS_POISON` is set in the environment.
pub(super) fn poison(buffer: &mut [MaybeUninit<u8>]) {
    if is_poison_asked_for() {
        buffer.fill(MaybeUninit::new(POISON));
    }
}

/// Whether [`poison`] fills buffers.
pub(super) fn is_poison_asked_for() -> bool {
    static ASKED_FOR: OnceLock<bool> = OnceLock::new();
    cfg!(debug_assertions) || *ASKED_FOR.get_or_init(|| std::env::var_os("IOVEC_RS_POISON").is_some())
}
