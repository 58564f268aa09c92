//! From which lengths the routines of `vector.rs` copy in another way, and how far ahead they prefetch. Those lengths
//! that depend on the CPU are set by `arch/tuning.rs`, and the assembly reads them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// `rep movsb` copies the lines if at least this many bytes are left: `STRING_FROM` if both addresses agree modulo a
/// line, `STRING_ANY_FROM`, which is not less, for any addresses. The assembly reads both. The rules are in
/// `arch/tuning.rs`.
pub(super) static STRING_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);
pub(super) static STRING_ANY_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Sets both thresholds.
pub(super) fn use_strings(from: usize, any_from: usize) {
    STRING_ANY_FROM.store(any_from, Ordering::Relaxed);
    STRING_FROM.store(from, Ordering::Relaxed);
}

/// A plain copy of at least this many bytes prefetches its source `AHEAD` bytes ahead, since no second-level cache
/// holds it. For shorter copies, whose source is in the second or third level, prefetching costs a sixth of the speed
/// on Zen 4.
pub(super) const AHEAD_MIN: usize = 2 << 20;
pub(super) const AHEAD: usize = 2 << 10;
/// A non-temporal copy longer than this prefetches this many bytes ahead, and as many at once before its first
/// iteration, because the hardware prefetcher needs several lines to detect the stream.
pub(super) const PREFETCH_AHEAD: usize = 1 << 10;

/// From `FAR_FROM` bytes on, it prefetches this many bytes ahead instead, into the second-level cache only. That cache
/// can wait for three times as many lines as the first, whose fill buffers the non-temporal stores need themselves.
pub(super) const FAR_AHEAD: usize = 4 << 10;

/// The length, in bytes, from which a non-temporal copy prefetches `FAR_AHEAD` bytes ahead. The assembly reads it. The
/// rule is in `arch/tuning.rs`.
pub(super) static FAR_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Sets `FAR_FROM`, to at least `2 * FAR_AHEAD`: the routine sets `FAR_AHEAD` bytes aside and must have more left for
/// its loop.
pub(super) fn use_far(from: usize) {
    FAR_FROM.store(from.max(2 * FAR_AHEAD), Ordering::Relaxed);
}

/// From this many bytes on, a non-temporal copy that does not prefetch far ahead leaves its source to the hardware
/// prefetcher, behind the first `PREFETCH_AHEAD` bytes, and copies line by line. The assembly reads it. The rule is in
/// `arch/tuning.rs`.
pub(super) static UNAIDED_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Sets it.
pub(super) fn use_unaided(from: usize) {
    UNAIDED_FROM.store(from, Ordering::Relaxed);
}

/// Such a copy of at least this many bytes also prefetches, `PAGES_AHEAD` bytes ahead, a line of each page of both
/// ranges, for the translation of the page's address.
pub(super) const PAGES_FROM: usize = 256 << 10;
pub(super) const PAGES_AHEAD: usize = 16 << 10;
