//! What a frame stores, byte by byte, and in which order.

use super::recorded::{Event, Recorded};
use super::{BLOCK, SMALL, SUMMED_AT_ONCE, copy_framed_from_iter, copy_published_from_iter};
use crate::abi::{Direction, PAGE_SIZE};
use crate::arch::LINE;
use crate::copy::sums::Sums;
use crate::error::Error;
use crate::fault::Side;
use crate::iter::IovIter;
use crate::memory::{Backing, Memories, Memory, Page, Segment};
use crate::structure::XArray;
use std::sync::Arc;

/// Lengths at which a line, a block or a buffer is full, and those around them.
fn lengths() -> impl Iterator<Item = usize> {
    [1, LINE, SMALL, SMALL + LINE, BLOCK, SUMMED_AT_ONCE, SUMMED_AT_ONCE + BLOCK, 2 * SUMMED_AT_ONCE]
        .into_iter()
        .flat_map(|full| full - 1..=full + 1)
}

/// A header line of these sums.
fn line(sums: Sums) -> [u8; LINE] {
    let mut line = [0xbb; LINE];
    line[..4].copy_from_slice(&sums.crc32c.to_le_bytes());
    line[4..12].copy_from_slice(&sums.crc64.to_le_bytes());
    line
}

fn over(bytes: &mut [u8]) -> Memory {
    let seg = Segment::new(bytes.as_mut_ptr().expose_provenance(), bytes.len());
    // SAFETY: the tests keep the bytes, and do not look at them while they are copied.
    unsafe { Memory::new(seg, Backing::Heap) }
}

/// A source in three pieces, of which the first is shorter than a block.
fn in_pieces(source: &mut [u8]) -> IovIter {
    let whole = over(source);
    let (first, second) = (whole.len().min(100), whole.len() / 2);
    let parts = [whole.take(first), whole.take(second.max(first)).skip(first), whole.skip(second.max(first))];
    IovIter::kvec(Direction::Source, parts.into_iter().collect::<Memories>(), None).unwrap()
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 37 % 251) as u8).collect()
}

const BEFORE: u8 = 0xee;

/// Where the line and the data are in the memory of these tests: one right behind the other, or apart.
const PLACES: [(usize, usize); 2] = [(LINE, 2 * LINE), (0, 3 * LINE)];

fn write((line_at, data_at): (usize, usize), memory: &mut Recorded, i: &mut IovIter) -> bool {
    match line_at {
        0 => memory.write_published(data_at, i, &line),
        _ => memory.write_framed(line_at, i, &line),
    }
}

#[test]
fn a_frame_is_its_line_its_data_and_zeroes_to_the_end_of_the_last_line_and_nothing_else() {
    for len in lengths() {
        let mut source = data(len);
        let (expected_line, padded) = (line(Sums::of_bytes(&source)), len.next_multiple_of(LINE));
        for place @ (line_at, data_at) in PLACES {
            let mut expected = vec![BEFORE; padded + 5 * LINE];
            let mut memory = Recorded::new(&expected);
            assert!(write(place, &mut memory, &mut in_pieces(&mut source)), "{len} bytes");
            expected[line_at..line_at + LINE].copy_from_slice(&expected_line);
            expected[data_at..data_at + padded].fill(0);
            expected[data_at..data_at + len].copy_from_slice(&source);
            assert!(memory.contents() == expected, "{len} bytes, the line at {line_at}");
        }
    }
}

#[test]
fn a_record_is_fenced_once_and_a_publication_before_its_line_too() {
    for len in lengths() {
        for place @ (line_at, _) in PLACES {
            let mut memory = Recorded::new(&vec![BEFORE; len + 6 * LINE]);
            assert!(write(place, &mut memory, &mut in_pieces(&mut data(len))));
            let events = memory.take_events();
            let is_of_line = |event: &Event| matches!(event, Event::Store(at, _) if *at == line_at);
            let stores = |event: &&Event| **event != Event::Fence;
            let case = format!("{len} bytes, the line at {line_at}");
            assert_eq!(events.last(), Some(&Event::Fence), "{case}");
            assert_eq!(events.iter().filter(|event| is_of_line(event)).count(), 1, "{case}");
            assert_eq!(events.iter().filter(stores).count(), 1 + len.div_ceil(LINE), "{case}: each line once");
            let fences = events.iter().filter(|event| **event == Event::Fence).count();
            match line_at {
                0 if len != 0 => {
                    assert_eq!(fences, 2, "{case}");
                    let before = events.iter().rposition(is_of_line).unwrap() - 1;
                    assert_eq!((before, &events[before]), (events.len() - 3, &Event::Fence), "{case}");
                }
                _ => assert_eq!(fences, 1, "{case}"),
            }
        }
    }
}

/// Data that end at a missing page, anywhere in a block: they are not a whole frame, so there is no line.
#[test]
fn data_that_cannot_all_be_read_get_no_line() {
    let mut pages = vec![0_u8; 2 * PAGE_SIZE];
    let start = pages.as_mut_ptr().expose_provenance().next_multiple_of(PAGE_SIZE);
    let array = Arc::new(XArray::default());
    // SAFETY: the page lies in `pages`, which outlives the copies.
    let memory = unsafe { Memory::new(Segment::new(start, PAGE_SIZE), Backing::Heap) };
    array.store(0, Page::new(memory, true, Arc::new(()))).unwrap();
    for len in [PAGE_SIZE + 1, PAGE_SIZE + 1000, 2 * PAGE_SIZE] {
        for skipped in [0, 1, BLOCK, PAGE_SIZE - LINE, PAGE_SIZE - 1] {
            for place in PLACES {
                let before = vec![BEFORE; 3 * PAGE_SIZE];
                let mut memory = Recorded::new(&before);
                let mut i = IovIter::xarray(Direction::Source, Arc::clone(&array), skipped, len - skipped).unwrap();
                assert!(!write(place, &mut memory, &mut i), "{len} bytes but {skipped}");
                assert!(memory.contents()[place.0..place.0 + LINE] == before[..LINE], "{len} bytes but {skipped}");
            }
            let mut bytes = vec![BEFORE; 3 * PAGE_SIZE];
            let dst = over(&mut bytes);
            let at = dst.seg().addr.wrapping_neg() % LINE;
            let dst = dst.skip(at).take(LINE + (len - skipped).next_multiple_of(LINE));
            let mut i = IovIter::xarray(Direction::Source, Arc::clone(&array), skipped, len - skipped).unwrap();
            assert_eq!(copy_framed_from_iter(dst, &mut i, false, line), Ok((0, None)), "{len} bytes but {skipped}");
            assert_eq!(i.count(), len - skipped, "the iterator is where it was");
            assert!(bytes[at..at + LINE] == [BEFORE; LINE], "{len} bytes but {skipped}");
        }
    }
}

/// Nothing of a frame counts without its line, though the data may all be written, or be none.
#[test]
fn a_line_that_cannot_be_written_is_a_fault_at_the_start_of_the_frame() {
    // SAFETY: nothing is mapped there, which the copies survive.
    let header = unsafe { Memory::new(Segment::new(PAGE_SIZE, LINE), Backing::Unchecked) };
    for len in [0, 100] {
        let (mut source, mut bytes) = (data(len), vec![BEFORE; 2 * LINE]);
        let mut i = in_pieces(&mut source);
        let (done, fault) = copy_published_from_iter(header, over(&mut bytes), &mut i, line).unwrap();
        let fault = fault.unwrap();
        assert_eq!((done, fault.side, fault.offset), (0, Side::Destination, 0), "{len} bytes");
        assert_eq!((fault.address, fault.length), (PAGE_SIZE, PAGE_SIZE), "{len} bytes");
        assert_eq!(i.count(), len, "the iterator is where it was");
    }
}

#[test]
fn memory_of_another_length_is_refused_and_nothing_is_changed() {
    let mut arena = vec![BEFORE; 8 * LINE];
    let start = arena.as_mut_ptr().expose_provenance().next_multiple_of(LINE);
    // SAFETY: the ranges lie in `arena`, which outlives the copies and is not looked at meanwhile.
    let at = |offset, len| unsafe { Memory::new(Segment::new(start + offset, len), Backing::Heap) };
    let frame = |dst| copy_framed_from_iter(dst, &mut in_pieces(&mut data(100)), false, line);
    for dst in [at(0, 2 * LINE), at(0, 4 * LINE), at(0, LINE + 100), at(1, 3 * LINE)] {
        assert!(matches!(frame(dst), Err(Error::BeyondBuffer { nbytes: 100, .. })), "{dst:?}");
    }
    let publish = |header, room| copy_published_from_iter(header, room, &mut in_pieces(&mut data(100)), line);
    for (header, room) in [(at(0, LINE - 1), at(LINE, 2 * LINE)), (at(0, LINE), at(LINE, 100))] {
        assert!(matches!(publish(header, room), Err(Error::BeyondBuffer { nbytes: 100, .. })), "{header:?} {room:?}");
    }
    let mut bytes = data(100);
    let mut dest = IovIter::whole(Direction::Dest, over(&mut bytes));
    assert!(matches!(copy_framed_from_iter(at(0, 3 * LINE), &mut dest, false, line), Err(Error::Direction { .. })));
    assert!(arena.iter().all(|byte| *byte == BEFORE));
    assert_eq!(frame(at(0, 3 * LINE)), Ok((3 * LINE, None)));
}
