//! The steps of copies: what a walk over an iterator does with each chunk.

use super::chunk::CopyChunk;
use super::copier::Copier;
use crate::iter::{IovIter, Run, Step, Touch, one_by_one};
use crate::memory::Segment;

/// Copies from flat memory to the iterator's.
pub(super) struct ToIter<'m, C = Copier> {
    src: usize,
    copier: &'m mut C,
}

impl<'m, C: CopyChunk> ToIter<'m, C> {
    /// # Safety
    /// [`CopyChunk::copy`] accepts as a source as many bytes from `src` on as are walked over, and as a destination the
    /// iterator's memory.
    #[inline(always)]
    #[allow(clippy::inline_always)] // returned by value it would be stored in pieces and loaded whole
    pub(super) unsafe fn new(src: usize, copier: &'m mut C) -> Self {
        Self { src, copier }
    }
}

impl<C: CopyChunk> Step for ToIter<'_, C> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize {
        // SAFETY: `walk` passes `len` bytes of the iterator's memory at `addr`, and `progress + len` is at most what is
        // walked over; `new`'s caller promises that `copy` accepts both ranges.
        unsafe { self.copier.copy(addr, self.src + progress, len) }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per run
    fn run(&mut self, run: &Run<'_>, progress: usize) -> (usize, usize) {
        let flat = self.src + progress;
        // SAFETY: a run has segments of the iterator's memory, which together are at most what is walked over; `new`'s
        // caller promises that `copy` accepts both sides.
        let done = unsafe { self.copier.copy_run::<false>(run, flat) };
        done.unwrap_or_else(|| one_by_one(self, run, progress))
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch(&mut self, next: Segment) {
        self.copier.prefetch_destination(next);
    }
}

/// Copies from the iterator's memory to flat memory.
pub(super) struct FromIter<'m, C = Copier> {
    dst: usize,
    copier: &'m mut C,
}

impl<'m, C: CopyChunk> FromIter<'m, C> {
    /// # Safety
    /// [`CopyChunk::copy`] accepts as a destination as many bytes from `dst` on as are walked over, and as a source the
    /// iterator's memory.
    #[inline(always)]
    #[allow(clippy::inline_always)] // returned by value it would be stored in pieces and loaded whole
    pub(super) unsafe fn new(dst: usize, copier: &'m mut C) -> Self {
        Self { dst, copier }
    }
}

impl<C: CopyChunk> Step for FromIter<'_, C> {
    const TOUCH: Touch = Touch::Reads;

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize {
        // SAFETY: `walk` passes `len` bytes of the iterator's memory at `addr`, and `progress + len` is at most what is
        // walked over; `new`'s caller promises that `copy` accepts both ranges.
        unsafe { self.copier.copy(self.dst + progress, addr, len) }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per run
    fn run(&mut self, run: &Run<'_>, progress: usize) -> (usize, usize) {
        let flat = self.dst + progress;
        // SAFETY: a run has segments of the iterator's memory, which together are at most what is walked over; `new`'s
        // caller promises that `copy` accepts both sides.
        let done = unsafe { self.copier.copy_run::<true>(run, flat) };
        done.unwrap_or_else(|| one_by_one(self, run, progress))
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch(&mut self, next: Segment) {
        self.copier.prefetch_source(next);
    }
}

/// Zeroes the iterator's memory.
pub(super) struct Zero<'m>(&'m mut Copier);

impl<'m> Zero<'m> {
    /// # Safety
    /// The iterator's memory is a destination that [`CopyChunk::copy`] accepts.
    pub(super) unsafe fn new(copier: &'m mut Copier) -> Self {
        Self(copier)
    }
}

impl Step for Zero<'_> {
    const TOUCH: Touch = Touch::Writes;

    fn step(&mut self, addr: usize, _progress: usize, len: usize) -> usize {
        // SAFETY: `walk` passes `len` bytes of the iterator's memory at `addr`, which `new`'s caller promises is a
        // destination.
        unsafe { self.0.zero(addr, len) }
    }
}

/// Copies from one iterator's memory to another's: each chunk of the source is copied as flat memory to the
/// destination.
pub(super) struct Across<'m, 'd> {
    dst: &'d mut IovIter,
    copier: &'m mut Copier,
}

impl<'m, 'd> Across<'m, 'd> {
    /// # Safety
    /// [`CopyChunk::copy`] accepts the memory of `dst` as a destination and that of the iterator walked over as a
    /// source.
    pub(super) unsafe fn new(dst: &'d mut IovIter, copier: &'m mut Copier) -> Self {
        Self { dst, copier }
    }
}

impl Step for Across<'_, '_> {
    fn step(&mut self, addr: usize, _progress: usize, len: usize) -> usize {
        // SAFETY: `walk` passes `len` bytes of the source's memory at `addr`; `new`'s caller promises that `copy`
        // accepts both iterators' memory.
        let mut step = unsafe { ToIter::new(addr, self.copier) };
        len - self.dst.walk(len, &mut step)
    }
}
