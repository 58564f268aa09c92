//! The steps that copy: what is done with each chunk an iterator is walked over.

use super::chunk::CopyChunk;
use super::copier::Copier;
use crate::iter::{IovIter, Step, Touch};
use crate::memory::Segment;

/// From flat memory to the iterator's.
pub(super) struct ToIter<'m, C = Copier> {
    src: usize,
    copier: &'m mut C,
}

impl<'m, C: CopyChunk> ToIter<'m, C> {
    /// # Safety
    /// As many bytes from `src` on as are walked over are a source that [`CopyChunk::copy`] accepts, and so is the
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
        // SAFETY: `addr` is in the iterator's memory, and `progress + len` is no more than is walked over: the promise
        // of `new`.
        unsafe { self.copier.copy(addr, self.src + progress, len) }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch(&mut self, next: Segment) {
        self.copier.prefetch_destination(next);
    }
}

/// From the iterator's memory to flat memory.
pub(super) struct FromIter<'m, C = Copier> {
    dst: usize,
    copier: &'m mut C,
}

impl<'m, C: CopyChunk> FromIter<'m, C> {
    /// # Safety
    /// As many bytes from `dst` on as are walked over are a destination that [`CopyChunk::copy`] accepts, and the
    /// iterator's memory is a source.
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
        // SAFETY: `addr` is in the iterator's memory, and `progress + len` is no more than is walked over: the promise
        // of `new`.
        unsafe { self.copier.copy(self.dst + progress, addr, len) }
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
        // SAFETY: the promise of `new`.
        unsafe { self.0.zero(addr, len) }
    }
}

/// From one iterator's memory to another's: a chunk of the source is a flat copy to the destination.
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
        // SAFETY: the `len` bytes at `addr` are the source's: the promise of `new`.
        let mut step = unsafe { ToIter::new(addr, self.copier) };
        len - self.dst.walk(len, &mut step)
    }
}
