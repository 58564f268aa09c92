//! Compares the copy flavours with plain slices, over memory of the tests.

use super::{copy_from_iter, copy_iter, copy_to_iter, zero};
use crate::abi::Direction;
use crate::arch;
use crate::arch::setting::{Setting, stream_everything};
use crate::iter::IovIter;
use crate::memory::{Backing, Memories, Memory, Segment};

mod durable;

fn flat(memory: &mut [u8]) -> Memory {
    at(memory.as_mut_ptr().expose_provenance(), memory.len())
}

fn at(addr: usize, len: usize) -> Memory {
    // SAFETY: every test passes ranges of its vectors, which it neither moves, resizes nor refers to until its last
    // copy is done.
    unsafe { Memory::new(Segment::new(addr, len), Backing::Heap) }
}

fn all(segs: Vec<Segment>) -> Memories {
    segs.into_iter().map(|seg| at(seg.addr, seg.len)).collect()
}

/// Segments of the given lengths, `gap` bytes apart.
fn scattered(memory: &mut [u8], lens: &[usize], gap: usize) -> Vec<Segment> {
    let mut at = memory.as_mut_ptr().expose_provenance();
    let mut segs = Vec::new();
    for len in lens {
        segs.push(Segment::new(at, *len));
        at += len + gap;
    }
    segs
}

const LENS: [usize; 8] = [3, 0, 64, 1, 5000, 0, 129, 700];

#[test]
fn scatter_and_gather_are_inverse_and_touch_nothing_else() {
    let total: usize = LENS.iter().sum();
    let mut source: Vec<u8> = (0..total).map(|i| (i % 251) as u8 + 1).collect();
    let mut arena = vec![0_u8; 8192];
    let segs = scattered(&mut arena, &LENS, 7);
    let mut to = IovIter::kvec(Direction::Dest, all(segs.clone()), None).unwrap();
    assert_eq!(copy_to_iter(flat(&mut source), &mut to, total), Ok(total));
    assert_eq!((to.count(), to.nr_segs()), (0, 0));
    assert_eq!(arena.iter().filter(|b| **b != 0).count(), total, "gaps stay zero");
    let mut back = vec![0_u8; total];
    let mut from = IovIter::iovec(Direction::Source, all(segs), None).unwrap();
    for part in [1, 66, 4, total] {
        let at = total - from.count();
        let expected = part.min(from.count());
        assert_eq!(copy_from_iter(flat(&mut back[at..at + expected]), &mut from, expected), Ok(expected));
    }
    assert_eq!(back, source);
}

#[test]
fn overlap_in_any_shape_reads_the_source_first() {
    let original: Vec<u8> = (0..600_u32).map(|i| (i % 255) as u8).collect();
    for shift in [-200_isize, -64, -1, 0, 1, 63, 200] {
        for pieces in [1, 2, 5] {
            let mut arena = original.clone();
            let n = 200;
            let src = 200;
            let dst = 200_usize.wrapping_add_signed(shift);
            let mut expected = original.clone();
            expected.copy_within(src..src + n, dst);
            let base = arena.as_mut_ptr().expose_provenance();
            let cut = |at: usize| {
                (0..pieces).map(|k| Segment::new(base + at + k * n / pieces, n / pieces)).collect::<Vec<_>>()
            };
            let one = |offset: usize| at(base + offset, n);
            let mut to = IovIter::kvec(Direction::Dest, all(cut(dst)), None).unwrap();
            assert_eq!(copy_to_iter(one(src), &mut to, n), Ok(n));
            assert_eq!(arena, expected, "to_iter {shift} {pieces}");
            arena.copy_from_slice(&original);
            let mut from = IovIter::kvec(Direction::Source, all(cut(src)), None).unwrap();
            assert_eq!(copy_from_iter(one(dst), &mut from, n), Ok(n));
            assert_eq!(arena, expected, "from_iter {shift} {pieces}");
            arena.copy_from_slice(&original);
            let mut to = IovIter::kvec(Direction::Dest, all(cut(dst)), None).unwrap();
            let mut from = IovIter::kvec(Direction::Source, all(cut(src)), None).unwrap();
            assert_eq!(copy_iter(&mut to, &mut from, n), Ok(n));
            assert_eq!(arena, expected, "copy_iter {shift} {pieces}");
        }
    }
}

#[test]
fn zeroing_stays_within_the_segments() {
    let mut arena = vec![9_u8; 8192];
    let segs = scattered(&mut arena, &LENS, 7);
    let mut i = IovIter::kvec(Direction::Dest, all(segs), None).unwrap();
    let total = i.count();
    // SAFETY: the iterator is a destination, so its memory may be written to.
    assert_eq!(unsafe { zero(&mut i, total + 5) }, Ok(total));
    assert_eq!(arena.iter().filter(|b| **b != 9).count(), total);
    assert!(arena.iter().all(|b| *b == 0 || *b == 9));
}

#[test]
fn copies_too_long_for_the_caches_are_the_same() {
    let _setting = Setting::keep();
    // Tests that run at the same time may see this setting; it changes no result.
    stream_everything();
    let mut source: Vec<u8> = (0..9000_usize).map(|i| (i % 251) as u8 + 1).collect();
    for set in arch::available() {
        arch::choose(set.name);
        for (start, len) in (0..64).zip((1000..).step_by(37)) {
            let mut arena = vec![0_u8; 9000];
            let expected = source[64 - start..64 - start + len].to_vec();
            let mut to = IovIter::ubuf(Direction::Dest, flat(&mut arena[start..start + len]), None).unwrap();
            assert_eq!(copy_to_iter(flat(&mut source[64 - start..]), &mut to, len), Ok(len));
            assert!(arena[start..start + len] == expected, "{} {start} {len}", set.name);
            assert!(arena[..start].iter().chain(&arena[start + len..]).all(|byte| *byte == 0), "{start} {len}");
        }
        let lens = [1500, 3, 64, 1024, 2000, 129];
        let total = lens.iter().sum();
        let mut arena = vec![0_u8; 9000];
        let segs = scattered(&mut arena, &lens, 7);
        let mut to = IovIter::kvec(Direction::Dest, all(segs.clone()), None).unwrap();
        assert_eq!(copy_to_iter(flat(&mut source), &mut to, total), Ok(total));
        let mut back = vec![0_u8; total];
        let mut from = IovIter::iovec(Direction::Source, all(segs), None).unwrap();
        assert_eq!(copy_from_iter(flat(&mut back), &mut from, total), Ok(total));
        assert!(back == source[..total], "{}", set.name);
        assert_eq!(arena.iter().filter(|byte| **byte != 0).count(), total, "gaps stay zero");
    }
}
