//! Copies in blocks, each of which passes through a stage of our own: what a fold or a hash is shown is what was
//! written, whoever changes the source meanwhile, and no reference ever covers memory that is not ours.
//!
//! [`scatter`] and [`gather`] run a whole copy, for a fold that is Rust (`crc32c_and_copy_to_iter`). [`BlockCopy`] is
//! stepped from outside, for one that is Python and runs between two blocks (`hash_and_copy_to_iter`). The sum of
//! [`super::checksum`] has a step of its own: there the kernel counts a chunk that fails anywhere as failed whole.

mod stepped;

pub use stepped::BlockCopy;

use super::chunk::{CopyChunk, poison};
use super::copier::Copier;
use super::nontemporal::LineStore;
use super::step::FromIter;
use crate::arch::{self, LINE};
use crate::iter::IovIter;
use crate::memory::Segment;
use std::mem::MaybeUninit;

/// Bytes that pass through the stage at a time on their way through the caches. A sum handles 384 bytes at once on a
/// CPU with AVX-512, and what is left over one word at a time: in blocks of eight times that, 64 KiB take 980 ns to
/// sum, in blocks of 2 KiB 1350 (Zen 5).
const BLOCK: usize = 3 << 10;

/// The same on their way past the caches: so few that the stores of one block drain, and the CPU's own prefetcher
/// loads the next, while it is summed. Of 64 MiB the sum takes 2 to 10% with 1.5 KiB, 15 to 180% with 2 or 3 KiB,
/// whatever the offsets (Zen 5; prefetching the next block in software changes none of it for the better).
const NONTEMPORAL_BLOCK: usize = BLOCK / 2;

/// How far ahead, in bytes, a source is prefetched that was just dropped from the caches: 64 KiB are consumed from a
/// slot in 7.3 microseconds, not 9.6. One that is in the caches would take a sixth longer (Zen 5).
const AHEAD: usize = 8 << 10;

/// Where a block is between its load and its store. Not initialised: to zero it would take longer than most copies.
#[repr(align(64))]
struct StagingBuffer([MaybeUninit<u8>; BLOCK]);

impl StagingBuffer {
    /// Nothing is in it. A constant: what a function returned would be moved, which takes longer than most copies.
    const EMPTY: Self = Self([const { MaybeUninit::uninit() }; BLOCK]);

    fn addr(&mut self) -> usize {
        self.0.as_mut_ptr().expose_provenance()
    }

    /// Its first `len` bytes.
    ///
    /// # Safety
    /// They were written since the stage was made.
    unsafe fn bytes(&mut self, len: usize) -> &mut [u8] {
        let staged = &mut self.0[..len];
        // SAFETY: `staged` is borrowed mutably for as long as the result, and the caller of `bytes` promises that it is
        // initialised.
        unsafe { std::slice::from_raw_parts_mut(staged.as_mut_ptr().cast(), staged.len()) }
    }
}

/// Where the blocks of a copy end: at lines of an address that the first byte is taken to be at, its destination, so
/// that no line is stored to in two blocks.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    len: usize,
    first: usize,
    /// How far ahead of them the source is prefetched.
    ahead: usize,
}

impl Blocks {
    /// For a copy that goes through the caches or past them as the copier was told to expect.
    pub(super) fn of(copier: &Copier, first: usize) -> Self {
        Self { len: if copier.is_nontemporal() { NONTEMPORAL_BLOCK } else { BLOCK }, first, ahead: 0 }
    }

    /// The same into an iterator, at lines of its next segment.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per call
    pub(super) fn scattered(copier: &Copier, i: &IovIter, nbytes: usize) -> Self {
        if nbytes <= NONTEMPORAL_BLOCK - LINE {
            Self { len: BLOCK, first: 0, ahead: 0 }
        } else {
            Self::of(copier, next_addr(i))
        }
    }

    /// For a copy that goes past the caches, however short it is.
    pub(super) fn nontemporal(first: usize) -> Self {
        Self { len: NONTEMPORAL_BLOCK, first, ahead: 0 }
    }

    /// The same of a source that is in no cache.
    pub(super) fn uncached(self) -> Self {
        Self { ahead: AHEAD, ..self }
    }

    /// The most bytes of the block that begins `done` bytes behind the first byte: [`BLOCK`] or fewer.
    fn most(self, done: usize) -> usize {
        self.len - self.first.wrapping_add(done) % LINE
    }
}

/// Where the next byte of an iterator is, as far as that is known.
#[inline(never)]
fn next_addr(i: &IovIter) -> usize {
    i.segment().map_or(0, |segment| segment.addr)
}

/// Prefetches all lines of a source.
#[inline]
fn prefetch(source: Segment) {
    for at in (0..source.len).step_by(LINE) {
        arch::prefetch(source.addr + at, 1);
    }
}

/// A copier that only loads: into the stage, through the caches, however long the whole copy is.
struct Loader<'m>(&'m mut Copier);

impl CopyChunk for Loader<'_> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        // SAFETY: `LineStore::load` asks for what the caller of `copy` promises of the source, and for room at `dst`.
        unsafe { self.0.load(dst, src, len) }
    }
}

/// Loads a block into a buffer of our own and hands what could be read to `write`, which returns how many bytes of it
/// were written.
///
/// # Safety
/// [`CopyChunk::copy`] of this copier accepts the block as a source, and the buffer at `own` has room for it.
unsafe fn pass(
    copier: &mut Copier,
    own: usize,
    block: Segment,
    write: impl FnOnce(&mut Copier, usize) -> usize,
) -> usize {
    // SAFETY: the caller of `pass` promises the source and the room that `LineStore::load` asks for.
    let read = block.len - unsafe { copier.load(own, block.addr, block.len) };
    write(copier, read)
}

/// Copies from flat memory in blocks. `write` is given a staged block and how many bytes were written before it, and
/// returns how many of its bytes it wrote; those are lent to `fold`. The first block that is not written whole is the
/// last. Returns the bytes written.
///
/// # Safety
/// [`CopyChunk::copy`] of this copier accepts `src` as a source.
pub(super) unsafe fn scatter(
    copier: &mut Copier,
    src: Segment,
    blocks: Blocks,
    mut write: impl FnMut(&mut Copier, Segment, usize) -> usize,
    mut fold: impl FnMut(&mut [u8]),
) -> usize {
    let mut stage = StagingBuffer::EMPTY;
    poison(&mut stage.0);
    let mut done = 0;
    prefetch(src.take(blocks.ahead));
    loop {
        let (own, block) = (stage.addr(), src.skip(done).take(blocks.most(done)));
        if blocks.ahead != 0 {
            prefetch(src.skip(done + blocks.ahead).take(block.len));
        }
        let write = |copier: &mut Copier, read| write(copier, Segment::new(own, read), done);
        // SAFETY: the block is a part of `src`, by `Segment::skip` and `Segment::take`; it is no longer than
        // `Blocks::most` says, which fits the stage.
        let written = unsafe { pass(copier, own, block, write) };
        // SAFETY: `pass` has read as many bytes into the stage as it gave `write`, which wrote no more than those.
        fold(unsafe { stage.bytes(written) });
        done += written;
        if written < block.len || done == src.len {
            return done;
        }
        copier.recheck(done, written);
    }
}

/// Copies the next `nbytes` of an iterator in blocks. `write` is given a staged block and how many bytes were written
/// before it, and returns how many of its bytes it wrote; those are lent to `fold`. The iterator moves by what was
/// read, the result is what was written.
///
/// # Safety
/// [`CopyChunk::copy`] of this copier accepts the iterator's memory as a source.
pub(super) unsafe fn gather(
    copier: &mut Copier,
    i: &mut IovIter,
    nbytes: usize,
    blocks: Blocks,
    mut write: impl FnMut(&mut Copier, Segment, usize) -> usize,
    mut fold: impl FnMut(&mut [u8]),
) -> usize {
    let mut stage = StagingBuffer::EMPTY;
    poison(&mut stage.0);
    let mut done = 0;
    loop {
        let (own, wanted) = (stage.addr(), (nbytes - done).min(blocks.most(done)));
        let mut loader = Loader(copier);
        // SAFETY: the stage has room for `wanted` bytes, as `Blocks::most` gives no more; the caller of `gather`
        // promises that the copier, and so the loader over it, accepts the iterator's memory as a source.
        let mut step = unsafe { FromIter::new(own, &mut loader) };
        let read = i.walk(wanted, &mut step);
        let written = write(copier, Segment::new(own, read), done);
        // SAFETY: the walk has read `read` bytes into the stage, of which `write` wrote no more. (It reads nothing over
        // DISCARD, but `IovIter::require` lets none be a source.)
        fold(unsafe { stage.bytes(written) });
        done += written;
        if written < wanted || done == nbytes {
            return done;
        }
        copier.recheck(done, written);
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Blocks, Copier};
    use crate::abi::Direction;
    use crate::arch::LINE;
    use crate::iter::IovIter;
    use crate::memory::{Backing, Memory, Segment};

    /// Where the first four blocks end, modulo a line of the address that `first` bytes behind a line begin.
    fn ends(blocks: Blocks, first: usize) -> Vec<usize> {
        let mut done = 0;
        let next = |_| {
            assert!(blocks.most(done) <= BLOCK);
            done += blocks.most(done);
            (first + done) % LINE
        };
        (0..4).map(next).collect()
    }

    #[test]
    fn blocks_end_at_lines_of_where_they_go() {
        let copier = Copier::new(&[], &[]).unwrap();
        for first in [0, 1, 32, 63] {
            assert_eq!(ends(Blocks::of(&copier, first), first), [0; 4]);
            assert_eq!(ends(Blocks::nontemporal(first), first), [0; 4]);
            // SAFETY: nothing is copied.
            let memory = unsafe { Memory::new(Segment::new(0x1000 + first, 1 << 20), Backing::Heap) };
            let i = IovIter::whole(Direction::Dest, memory);
            assert_eq!(ends(Blocks::scattered(&copier, &i, 1 << 20), first), [0; 4]);
        }
    }
}
