//! Memory to copy over: anonymous, on huge pages where they are to be had.

use _core::memory::{Backing, Memory, Segment};

/// A mapping, filled so that no page is missing.
pub(crate) struct Arena {
    base: usize,
    pub(crate) len: usize,
}

/// What an arena lies on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Huge ones, where they are to be had.
    Huge,
    /// Those of 4 KiB.
    Small,
}

impl Pages {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Huge => "huge pages",
            Self::Small => "4 KiB pages",
        }
    }
}

impl Arena {
    pub(crate) fn new(len: usize) -> Self {
        Self::on(Pages::Huge, len)
    }

    pub(crate) fn on(pages: Pages, len: usize) -> Self {
        const HUGE: usize = 2 << 20;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let size = len + HUGE;
        // SAFETY: a new anonymous mapping, nobody's memory before.
        let mapped =
            unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert_ne!(mapped, libc::MAP_FAILED, "no memory for {len} bytes");
        let base = mapped.expose_provenance().next_multiple_of(HUGE);
        let advice = match pages {
            Pages::Huge => libc::MADV_HUGEPAGE,
            Pages::Small => libc::MADV_NOHUGEPAGE,
        };
        // SAFETY: the range lies in the mapping just made; advice changes no contents.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(base), len, advice) };
        for at in (0..len).step_by(8) {
            // SAFETY: at + 8 <= len rounded up to 8, within the mapping's slack.
            unsafe { std::ptr::with_exposed_provenance_mut::<usize>(base + at).write(at.wrapping_mul(0x9E37_79B9)) };
        }
        Self { base, len }
    }

    /// The address `at` bytes in.
    pub(crate) fn at(&self, at: usize) -> usize {
        debug_assert!(at <= self.len);
        self.base + at
    }
}

/// Drops what earlier contestants left in the caches: what they left dirty would be written back on another's time.
pub(crate) struct Broom(Arena);

impl Broom {
    pub(crate) fn new() -> Self {
        Self(Arena::new(96 << 20))
    }

    pub(crate) fn sweep(&self) {
        touch(self.0.at(0), self.0.len);
    }
}

/// Brings memory into the caches, as far as they take it.
pub(crate) fn touch(addr: usize, len: usize) {
    for at in (0..len).step_by(64) {
        // SAFETY: the callers pass ranges of arenas.
        unsafe { std::ptr::with_exposed_provenance::<u8>(addr + at).read_volatile() };
    }
}

/// A range of an arena.
pub(crate) fn flat(addr: usize, len: usize) -> Memory {
    // SAFETY: arenas are never unmapped, and no reference is made to what is in them.
    unsafe { Memory::new(Segment::new(addr, len), Backing::Heap) }
}
