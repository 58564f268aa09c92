//! From which length on a copy is non-temporal: what the last cache cannot hold.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Of a long copy the chunks that are long enough themselves: below, the lines at both ends and the reads that wait for
/// nothing outweigh it.
const CHUNK: usize = 1 << 10;

/// What the last cache holds where the CPU does not tell.
const USUAL_CACHE: usize = 32 << 20;

/// The length of copies that go past the caches from there on; 0 until it is first needed.
static COPIES_FROM: AtomicUsize = AtomicUsize::new(0);

/// From which length on a chunk of a copy of `nbytes` goes past the caches; `usize::MAX` if none does.
#[inline]
pub fn chunks_from(nbytes: usize) -> usize {
    let from = copies_from();
    if nbytes < from { usize::MAX } else { CHUNK.min(from) }
}

/// From which length on copies go past the caches: three quarters of the last one. What was written first is no longer
/// there at the end.
#[inline]
pub(super) fn copies_from() -> usize {
    match COPIES_FROM.load(Ordering::Relaxed) {
        0 => detect(),
        from => from,
    }
}

/// Lets copies of at least `nbytes` go past the caches from now on, in all threads.
pub fn use_from(nbytes: usize) {
    COPIES_FROM.store(nbytes.max(1), Ordering::Relaxed);
}

#[cold]
fn detect() -> usize {
    use_from(super::native::last_cache().unwrap_or(USUAL_CACHE) / 4 * 3);
    COPIES_FROM.load(Ordering::Relaxed)
}
