//! Copies of memory that was just evicted from the caches, with both sums of what was copied: what a reader of a slot
//! gets.
//!
//! Each block passes through a buffer of ours, as in [`super::blocks`]. The buffer has room for several, of which the
//! CRC-64 is computed at once, as in [`super::framed`]. The blocks are prefetched from the first on.

use super::blocks::{AHEAD, StagingBuffer, pass_to_iter, prefetch, prefetch_ahead, prefetch_page_ahead};
use super::bounce;
use super::chunk::{BLOCK, SUMMED_AT_ONCE, poison};
use super::copier::Copier;
use super::sums::{Summing, Sums};
use crate::arch::LINE;
use crate::error::Result;
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};

/// `copy_to_iter` of a source that was just evicted, with the sums of what it copies.
pub(crate) fn copy_uncached_to_iter(src: Memory, i: &mut IovIter, nbytes: usize) -> Result<(usize, Sums)> {
    let mut sums = Summing::new();
    let done = bounce::to_iter(src, i, nbytes, "consume", |copier, i, src| {
        copier.expect(src.len);
        // SAFETY: `bounce::to_iter` made the copier for the source and the iterator.
        unsafe { copy(copier, src, i, &mut sums) }
    })?;
    Ok((done, sums.finish()))
}

/// Copies a range to the iterator, adds what was copied to the sums, and returns its length.
///
/// # Safety
/// [`CopyChunk::copy`](super::chunk::CopyChunk::copy) of this copier accepts the source, and the iterator's memory as a
/// destination.
unsafe fn copy(copier: &mut Copier, src: Segment, i: &mut IovIter, sums: &mut Summing) -> usize {
    let mut stage = StagingBuffer::<SUMMED_AT_ONCE>::EMPTY;
    poison(&mut stage.0);
    let to = i.segment().unwrap_or_default();
    // The bytes from `first` to `filled` of the buffer are not yet in the CRC-64. A block has the same place in a line
    // of the buffer as in one of the destination, and all blocks but the last end at lines.
    let mut first = to.addr % LINE;
    let (mut filled, mut done) = (first, 0);
    prefetch(src.take(AHEAD));
    loop {
        let rest = src.skip(done);
        let block = rest.take(BLOCK - filled % BLOCK);
        prefetch_ahead(rest, block.len);
        prefetch_page_ahead(to.skip(done), block.len);
        let own = stage.addr() + filled;
        // SAFETY: the block is a part of `src`, for which the caller of `copy` promises it, as for the iterator's
        // memory; it ends at the latest where a block of the buffer does.
        let written = unsafe { pass_to_iter(copier, block, own, i) };
        done += written;
        let is_last = written < block.len || done == src.len;
        let from = filled - first;
        filled += written;
        // SAFETY: these bytes were written by `pass_to_iter` in this round and in those since `filled` was `first`.
        let staged = unsafe { stage.bytes(first..filled) };
        let is_full = filled == SUMMED_AT_ONCE;
        if is_full || is_last {
            sums.add_crc64(staged);
        }
        // This may change the last block, and no other.
        sums.add_crc32c(&mut staged[from..]);
        if is_last {
            return done;
        }
        if is_full {
            (first, filled) = (0, 0);
        } else if from == 0 {
            sums.carry_crc64(staged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, SUMMED_AT_ONCE, copy_uncached_to_iter};
    use crate::abi::{Direction, PAGE_SIZE};
    use crate::arch::LINE;
    use crate::copy::sums::Sums;
    use crate::iter::IovIter;
    use crate::memory::{Backing, Memory, Page, Segment};
    use crate::structure::XArray;
    use std::sync::Arc;

    fn over(bytes: &mut [u8]) -> Memory {
        let seg = Segment::new(bytes.as_mut_ptr().expose_provenance(), bytes.len());
        // SAFETY: the tests keep the bytes, and do not look at them while they are copied.
        unsafe { Memory::new(seg, Backing::Heap) }
    }

    /// Lengths at which a block or the buffer is full, and those around them.
    fn lengths() -> impl Iterator<Item = usize> {
        [0, LINE, BLOCK, SUMMED_AT_ONCE, 2 * SUMMED_AT_ONCE]
            .into_iter()
            .flat_map(|full| full.saturating_sub(1)..=full + 1)
    }

    #[test]
    fn wherever_it_goes_every_byte_is_copied_and_is_in_both_sums() {
        let mut source: Vec<u8> = (0..=2 * SUMMED_AT_ONCE as u32).map(|at| (at * 37 % 251) as u8).collect();
        for len in lengths() {
            let src = over(&mut source).take(len);
            for phase in [0, 1, 32, 63] {
                // In one piece, and in three, of which the first is shorter than a block.
                for cuts in [[0, 0], [len.min(100), len / 2]] {
                    let mut target = vec![0; len + 2 * LINE];
                    let whole = over(&mut target);
                    let at = (phase + LINE - whole.seg().addr % LINE) % LINE;
                    let [first, second] = cuts;
                    let to = whole.skip(at).take(len);
                    let parts =
                        vec![to.take(first), to.take(second.max(first)).skip(first), to.skip(second.max(first))];
                    let mut i = IovIter::kvec(Direction::Dest, parts.into_iter().collect(), None).unwrap();
                    let (done, sums) = copy_uncached_to_iter(src, &mut i, len).unwrap();
                    assert_eq!((done, i.count()), (len, 0), "{len} bytes, {phase} into a line");
                    assert_eq!(sums, Sums::of_bytes(&source[..len]), "{len} bytes, {phase} into a line");
                    assert_eq!(target[at..at + len], source[..len], "{len} bytes, {phase} into a line");
                    assert!(target[..at].iter().chain(&target[at + len..]).all(|byte| *byte == 0));
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_neither_counted_nor_summed() {
        let mut source: Vec<u8> = (0..2 * SUMMED_AT_ONCE as u32).map(|at| (at * 41 % 253) as u8).collect();
        for len in lengths() {
            let mut target = vec![0; len];
            let mut i = IovIter::whole(Direction::Dest, over(&mut target));
            let (done, sums) = copy_uncached_to_iter(over(&mut source), &mut i, 2 * SUMMED_AT_ONCE).unwrap();
            let copied = len.min(source.len());
            assert_eq!((done, sums), (copied, Sums::of_bytes(&source[..copied])), "{len} bytes");
        }
    }

    /// A page is missing in the middle of a block. What was copied before it counts, and is in both sums.
    #[test]
    fn where_a_hole_ends_it_every_byte_before_is_copied_and_in_both_sums() {
        let mut source: Vec<u8> = (0..2 * SUMMED_AT_ONCE as u32).map(|at| (at * 43 % 247) as u8).collect();
        let mut pages = vec![0_u8; 3 * PAGE_SIZE];
        let start = pages.as_mut_ptr().expose_provenance().next_multiple_of(PAGE_SIZE);
        for there in 0..3 {
            let array = Arc::new(XArray::default());
            for page in 0..there {
                // SAFETY: the page lies in `pages`, which outlives the copy and is not looked at meanwhile.
                let memory = unsafe { Memory::new(Segment::new(start + page * PAGE_SIZE, PAGE_SIZE), Backing::Heap) };
                array.store(page, Page::new(memory, true, Arc::new(()))).unwrap();
            }
            for skipped in [0, 1, LINE, BLOCK, PAGE_SIZE - 1] {
                let mut i = IovIter::xarray(Direction::Dest, Arc::clone(&array), skipped, 2 * SUMMED_AT_ONCE).unwrap();
                let (done, sums) = copy_uncached_to_iter(over(&mut source), &mut i, 2 * SUMMED_AT_ONCE).unwrap();
                let expected = (there * PAGE_SIZE).saturating_sub(skipped);
                assert_eq!(
                    (done, 2 * SUMMED_AT_ONCE - i.count()),
                    (expected, expected),
                    "{there} pages, {skipped} skipped"
                );
                assert_eq!(sums, Sums::of_bytes(&source[..expected]), "{there} pages, {skipped} skipped");
            }
        }
    }
}
