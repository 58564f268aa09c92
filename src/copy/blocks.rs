//! Copies in blocks, each of which passes through a stage of our own: what a fold or a hash is shown is what was
//! written, whoever changes the source meanwhile, and no reference ever covers memory that is not ours.
//!
//! [`scatter`] and [`gather`] run a whole copy, for a fold that is Rust (`crc32c_and_copy_to_iter`). [`BlockCopy`] is
//! stepped from outside, for one that is Python and runs between two blocks (`hash_and_copy_to_iter`). The sum of
//! [`super::checksum`] has a step of its own: there the kernel counts a chunk that fails anywhere as failed whole.

mod pass;
mod stepped;

pub(super) use pass::{Flat, pass_by_stage, pass_to_flat, pass_to_iter};
pub use stepped::BlockCopy;

#[cfg(doc)]
use super::chunk::CopyChunk;
use super::chunk::{BLOCK, poison};
use super::copier::Copier;
use crate::abi::PAGE_SIZE;
use crate::arch::{self, LINE};
use crate::iter::IovIter;
use crate::memory::Segment;
use pass::pass_from_iter;
use std::mem::MaybeUninit;
use std::ops::Range;

/// How far ahead, in bytes, the source is prefetched where the blocks are stored non-temporally or pass through the
/// stage alone. There the hardware prefetcher does not follow loads that stop at each block: without this, 64 MiB take
/// two to three times as long on Zen 5. Where they go to both places at once, through the caches, it does follow, and
/// 64 KiB of cold memory that are prefetched as well take a quarter longer.
pub(super) const AHEAD: usize = 4 << 10;

/// Where a block, or several, are between their load and their store. Not initialised: to zero it would take longer
/// than most copies.
#[repr(align(64))]
pub(super) struct StagingBuffer<const N: usize>(pub(super) [MaybeUninit<u8>; N]);

impl<const N: usize> StagingBuffer<N> {
    /// Nothing is in it. A constant: what a function returned would be moved, which takes longer than most copies.
    pub(super) const EMPTY: Self = Self([const { MaybeUninit::uninit() }; N]);

    pub(super) fn addr(&mut self) -> usize {
        self.0.as_mut_ptr().expose_provenance()
    }

    /// These of its bytes.
    ///
    /// # Safety
    /// They were written since the stage was made.
    pub(super) unsafe fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        let staged = &mut self.0[range];
        // SAFETY: `staged` is borrowed mutably for as long as the result, and the caller of `bytes` promises that it is
        // initialised.
        unsafe { std::slice::from_raw_parts_mut(staged.as_mut_ptr().cast(), staged.len()) }
    }
}

/// Where the blocks of a copy end: at lines of its destination, so that no line is stored to in two blocks.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    /// Where the first byte goes, and how many bytes go there in one piece, as far as that is known.
    to: Segment,
    /// Whether the destination is stored to non-temporally, whatever the length of the copy.
    is_streamed: bool,
}

impl Blocks {
    pub(super) fn new(to: Segment) -> Self {
        Self { to, is_streamed: false }
    }

    /// Those of a copy into an iterator, at lines of its next segment.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per call
    pub(super) fn scattered(i: &IovIter, nbytes: usize) -> Self {
        Self::new(if nbytes <= BLOCK - LINE { Segment::default() } else { next_segment(i) })
    }

    /// The same of a destination that is stored to non-temporally, if `is_streamed`.
    pub(super) fn streamed(self, is_streamed: bool) -> Self {
        Self { is_streamed, ..self }
    }

    /// Whether the source, and the pages of the destination, are prefetched.
    fn are_prefetched(self, copier: &Copier) -> bool {
        let is_staged = self.to.len < BLOCK;
        is_staged || self.is_streamed || copier.may_stream()
    }

    /// The most bytes of the block that begins `done` bytes behind the first byte: [`BLOCK`] or fewer.
    fn most(self, done: usize) -> usize {
        BLOCK - self.to.addr.wrapping_add(done) % LINE
    }
}

/// The rest of the segment that the next byte of an iterator is in; empty if that is not known.
#[inline(never)]
fn next_segment(i: &IovIter) -> Segment {
    i.segment().unwrap_or_default()
}

/// Prefetches the block that is [`AHEAD`] bytes behind the start of a range, as far as it lies in the range.
#[inline]
pub(super) fn prefetch_ahead(range: Segment, len: usize) {
    if range.len > AHEAD {
        prefetch(range.skip(AHEAD).take(len));
    }
}

/// Prefetches a line of the page that begins in those `len` bytes of a destination that are [`AHEAD`] bytes behind its
/// start. The line is of no use, but the page's translation is: the first store to the page would wait for it, and the
/// sums of later blocks for that store. Without this, 64 MiB of 4 KiB pages take 4.8 ms on Zen 5, not 2.9.
#[inline]
pub(super) fn prefetch_page_ahead(to: Segment, len: usize) {
    const { assert!(BLOCK <= PAGE_SIZE) }; // so that no more than one page begins in a block
    let coming = to.skip(AHEAD).take(len);
    let page = coming.end().wrapping_sub(1) & !(PAGE_SIZE - 1);
    if coming.len != 0 && page >= coming.addr {
        arch::prefetch(page, 1);
    }
}

/// [`prefetch_ahead`] for an iterator, of which `left` bytes are still to be copied.
#[inline]
pub(super) fn prefetch_ahead_of(i: &IovIter, left: usize, len: usize) {
    if left > AHEAD {
        prefetch_ahead(next_segment(i), len);
    }
}

/// Prefetches all lines of a range.
#[inline]
pub(super) fn prefetch(range: Segment) {
    for at in (0..range.len).step_by(LINE) {
        arch::prefetch(range.addr + at, 1);
    }
}

/// Copies from flat memory in blocks. `pass` is given a block, the address of the stage, and how many bytes were copied
/// before it. It copies the block to its place and leaves it in the stage, and returns how many of its bytes it copied;
/// those are lent to `fold`. The first block that is not copied whole is the last. Returns the bytes copied.
///
/// # Safety
/// `pass` leaves as many bytes in the stage as it says.
pub(super) unsafe fn scatter(
    copier: &mut Copier,
    src: Segment,
    blocks: Blocks,
    mut pass: impl FnMut(&mut Copier, Segment, usize, usize) -> usize,
    mut fold: impl FnMut(&mut [u8]),
) -> usize {
    let mut stage = StagingBuffer::<BLOCK>::EMPTY;
    poison(&mut stage.0);
    let (is_ahead, mut done) = (blocks.are_prefetched(copier), 0);
    loop {
        let rest = src.skip(done);
        let block = rest.take(blocks.most(done));
        if is_ahead {
            prefetch_ahead(rest, block.len);
            prefetch_page_ahead(blocks.to.skip(done), block.len);
        }
        let count = pass(copier, block, stage.addr(), done);
        // SAFETY: `scatter`'s caller promises it of `pass`.
        fold(unsafe { stage.bytes(0..count) });
        done += count;
        if count < block.len || done == src.len {
            return done;
        }
    }
}

/// Copies the next `nbytes` of an iterator in blocks to flat memory, or only reads them if there is none. Those copied
/// are lent to `fold`. The iterator moves by what was read, the result is what was copied.
///
/// # Safety
/// [`CopyChunk::copy`] of this copier accepts the iterator's memory as a source, and `nbytes` at `to` as a destination.
pub(super) unsafe fn gather(
    copier: &mut Copier,
    i: &mut IovIter,
    nbytes: usize,
    to: Option<Flat>,
    mut fold: impl FnMut(&mut [u8]),
) -> usize {
    let mut stage = StagingBuffer::<BLOCK>::EMPTY;
    poison(&mut stage.0);
    let blocks = Blocks::new(to.map_or(Segment::default(), |to| Segment::new(to.addr, nbytes)));
    let is_streamed = to.is_some_and(|to| to.flush.is_some());
    let (is_ahead, mut done) = (blocks.streamed(is_streamed).are_prefetched(copier), 0);
    loop {
        let (own, wanted) = (stage.addr(), (nbytes - done).min(blocks.most(done)));
        if is_ahead {
            prefetch_ahead_of(i, nbytes - done, wanted);
            prefetch_page_ahead(blocks.to.skip(done), wanted);
        }
        let to = to.map(|to| to.skip(done));
        // SAFETY: the stage has room for `wanted` bytes, as `Blocks::most` gives no more; the caller of `gather`
        // promises the source and the destination.
        let count = unsafe { pass_from_iter(copier, i, wanted, own, to) };
        // SAFETY: `pass_from_iter` leaves as many bytes in the stage. (It reads nothing over DISCARD, but
        // `IovIter::require` lets none be a source.)
        fold(unsafe { stage.bytes(0..count) });
        done += count;
        if count < wanted || done == nbytes {
            return done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Blocks};
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
        for first in [0, 1, 32, 63] {
            assert_eq!(ends(Blocks::new(Segment::new(first, 0)), first), [0; 4]);
            // SAFETY: nothing is copied.
            let memory = unsafe { Memory::new(Segment::new(0x1000 + first, 1 << 20), Backing::Heap) };
            let i = IovIter::whole(Direction::Dest, memory);
            assert_eq!(ends(Blocks::scattered(&i, 1 << 20), first), [0; 4]);
        }
    }
}
