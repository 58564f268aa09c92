//! The pass of one block from its source to its destination, after which the stage has what was copied.
//!
//! A block that is contiguous on both sides is copied to both at once ([`Copier::tee`]), as far as that goes. Any other
//! is loaded into the stage and copied from there.

use crate::abi::Kind;
use crate::copy::chunk::CopyChunk;
use crate::copy::copier::{Copier, TEE_FROM};
use crate::copy::nontemporal::{self, Flush, LineStore};
use crate::copy::step::{FromIter, ToIter};
use crate::iter::{IovIter, Run, Step, one_by_one};
use crate::memory::Segment;

/// A flat destination.
#[derive(Clone, Copy)]
pub(in crate::copy) struct Flat {
    pub(in crate::copy) addr: usize,
    /// How the stores go past the caches, if they do.
    pub(in crate::copy) flush: Option<Flush>,
}

impl Flat {
    pub(super) fn skip(self, nbytes: usize) -> Self {
        Self { addr: self.addr.wrapping_add(nbytes), ..self }
    }

    /// Copies from the stage. Returns the bytes copied.
    ///
    /// # Safety
    /// [`CopyChunk::copy`] of this copier accepts the destination, and the stage has `len` bytes at `own`.
    unsafe fn store(self, copier: &mut Copier, own: usize, len: usize) -> usize {
        let left = match self.flush {
            // SAFETY: the caller of `store` promises the destination and the source, a buffer of ours.
            None => unsafe { copier.copy(self.addr, own, len) },
            // SAFETY: the caller of `store` promises the destination and the source, a buffer of ours.
            Some(flush) => unsafe { nontemporal::copy(copier, flush, self.addr, own, len) },
        };
        len - left
    }
}

/// Passes a block through the stage: loads it, and hands what could be read to `write`, which returns how many bytes of
/// it were written.
///
/// # Safety
/// [`CopyChunk::copy`] of this copier accepts the block as a source, and the stage at `own` has room for it.
pub(in crate::copy) unsafe fn pass_by_stage(
    copier: &mut Copier,
    block: Segment,
    own: usize,
    write: impl FnOnce(&mut Copier, Segment) -> usize,
) -> usize {
    // SAFETY: the caller of `pass_by_stage` promises the source and the room that `LineStore::load` asks for.
    let read = block.len - unsafe { copier.load(own, block.addr, block.len) };
    write(copier, Segment::new(own, read))
}

/// Passes a block to flat memory.
///
/// # Safety
/// [`CopyChunk::copy`] of this copier accepts the block as a source, and as many bytes at `to` as a destination. The
/// stage at `own` has room for it.
#[inline(always)]
#[allow(clippy::inline_always)] // once per block, see `Copier::tee`
pub(in crate::copy) unsafe fn pass_to_flat(copier: &mut Copier, block: Segment, own: usize, to: Flat) -> usize {
    // SAFETY: `tee` asks for what the caller of `pass_to_flat` promises.
    let teed = unsafe { copier.tee(to.flush, to.addr, block.addr, block.len, own) };
    let (rest, to) = (block.skip(teed.done).take(teed.readable), to.skip(teed.done));
    if rest.len == 0 {
        return teed.done;
    }
    // SAFETY: the stage has the bytes that it was loaded with; the caller of `pass_to_flat` promises the destination.
    let write = |copier: &mut Copier, staged: Segment| unsafe { to.store(copier, staged.addr, staged.len) };
    // SAFETY: the rest is a part of the block, for which the caller of `pass_to_flat` promises the source and the room.
    teed.done + unsafe { pass_by_stage(copier, rest, own + teed.done, write) }
}

/// Passes a block into an iterator, which moves by what was written.
///
/// # Safety
/// [`CopyChunk::copy`] of this copier accepts the block as a source, and the iterator's memory as a destination. The
/// stage at `own` has room for the block.
#[inline(always)]
#[allow(clippy::inline_always)] // once per block, see `Copier::tee`
pub(in crate::copy) unsafe fn pass_to_iter(copier: &mut Copier, block: Segment, own: usize, i: &mut IovIter) -> usize {
    // No step is made over DISCARD, which has no memory, so nothing else would read the block.
    if block.len < TEE_FROM || i.kind() == Kind::Discard {
        let write = |copier: &mut Copier, staged: Segment| {
            // SAFETY: the source is the stage; the caller of `pass_to_iter` promises the iterator's memory.
            let mut step = unsafe { ToIter::new(staged.addr, copier) };
            i.walk(staged.len, &mut step)
        };
        // SAFETY: `pass_by_stage` asks for what the caller of `pass_to_iter` promises.
        return unsafe { pass_by_stage(copier, block, own, write) };
    }
    i.walk(block.len, &mut ToBoth { copier, block, own, read: None })
}

/// The step of [`pass_to_iter`]: a block that the iterator takes as one chunk goes to both places at once. For any
/// other the first chunk loads it into the stage.
struct ToBoth<'m> {
    copier: &'m mut Copier,
    block: Segment,
    own: usize,
    /// How many bytes of the block were loaded into the stage, if it was.
    read: Option<usize>,
}

impl ToBoth<'_> {
    /// Loads the block into the stage, unless it was. Returns how many bytes could be read.
    #[inline]
    fn read(&mut self) -> usize {
        let Segment { addr, len } = self.block;
        // SAFETY: `pass_to_iter`'s caller promises the source and the room that `LineStore::load` asks for.
        *self.read.get_or_insert_with(|| len - unsafe { self.copier.load(self.own, addr, len) })
    }
}

impl Step for ToBoth<'_> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per block, see `Copier::tee`
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize {
        if len == self.block.len {
            let to = Flat { addr, flush: None };
            // SAFETY: `walk` passes `len` bytes of the iterator's memory at `addr`; the caller of `pass_to_iter`
            // promises the rest.
            return len - unsafe { pass_to_flat(self.copier, self.block, self.own, to) };
        }
        let part = len.min(self.read().saturating_sub(progress));
        // SAFETY: the stage has `progress + part` bytes, those read; `walk` passes memory that the caller of
        // `pass_to_iter` promises.
        let mut step = unsafe { ToIter::new(self.own, &mut *self.copier) };
        len - part + if part == 0 { 0 } else { step.step(addr, progress, part) }
    }

    #[inline]
    fn run(&mut self, run: &Run<'_>, progress: usize) -> (usize, usize) {
        if self.read() < self.block.len {
            return one_by_one(self, run, progress);
        }
        // SAFETY: the stage has the whole block; a run has segments of the iterator's memory, for which the caller of
        // `pass_to_iter` promises it.
        let mut step = unsafe { ToIter::new(self.own, &mut *self.copier) };
        step.run(run, progress)
    }

    #[inline]
    fn prefetch(&mut self, next: Segment) {
        self.copier.prefetch_destination(next);
    }
}

/// Passes the next `wanted` bytes of an iterator to flat memory, or only into the stage. The iterator moves by what was
/// read.
///
/// # Safety
/// [`CopyChunk::copy`] of this copier accepts the iterator's memory as a source, and `wanted` bytes at `to` as a
/// destination. The stage at `own` has room for them.
#[inline(always)]
#[allow(clippy::inline_always)] // once per block, see `Copier::tee`
pub(super) unsafe fn pass_from_iter(
    copier: &mut Copier,
    i: &mut IovIter,
    wanted: usize,
    own: usize,
    to: Option<Flat>,
) -> usize {
    let mut loader = Loader { copier, wanted, to: to.filter(|_| wanted >= TEE_FROM), teed: 0 };
    // SAFETY: the stage has room for `wanted` bytes; the caller of `pass_from_iter` promises that the copier, and so
    // the loader over it, accepts the iterator's memory as a source.
    let mut step = unsafe { FromIter::new(own, &mut loader) };
    let (read, teed) = (i.walk(wanted, &mut step), loader.teed);
    match to {
        // SAFETY: the walk has read `read` bytes into the stage; the caller of `pass_from_iter` promises the
        // destination.
        Some(to) if read != teed => teed + unsafe { to.skip(teed).store(copier, own + teed, read - teed) },
        Some(_) | None => read,
    }
}

/// A copier into the stage, through the caches however long the whole copy is; and, if a block is one chunk, to its
/// destination at once.
struct Loader<'m> {
    copier: &'m mut Copier,
    wanted: usize,
    /// The destination, if a block of so many bytes may go there at once.
    to: Option<Flat>,
    /// The number of bytes, at the start of the block, that have reached the destination.
    teed: usize,
}

impl CopyChunk for Loader<'_> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    unsafe fn copy(&mut self, own: usize, src: usize, len: usize) -> usize {
        let Some(to) = self.to.filter(|_| len == self.wanted) else {
            // SAFETY: `LineStore::load` asks for what the caller of `copy` promises of the source, and for room at
            // `own`.
            return unsafe { self.copier.load(own, src, len) };
        };
        // SAFETY: `pass_from_iter`'s caller promises the destination and the room, and the caller of `copy` the source.
        let teed = unsafe { self.copier.tee(to.flush, to.addr, src, len, own) };
        self.teed = teed.done;
        let left = if teed.readable == 0 {
            0
        } else {
            // SAFETY: this is a part of the chunk, for which the caller of `copy` promises what `LineStore::load` asks
            // for.
            unsafe { self.copier.load(own + teed.done, src + teed.done, teed.readable) }
        };
        len - teed.done - teed.readable + left
    }
}
