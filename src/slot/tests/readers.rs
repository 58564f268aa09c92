//! A reader beside a writer, and publications and readers that cannot do what was asked.

use super::*;
use crate::abi::PAGE_SIZE;
use crate::arch::guard::witness::{Place, places, watch};
use crate::error::Error;
use crate::memory::Page;
use crate::slot::header::Header;
use crate::structure::XArray;
use std::sync::Arc;

/// Images of a slot after each of so many publications of 200 bytes, the first of them empty.
fn history(publications: u64) -> Vec<Vec<u8>> {
    let slot = empty();
    let publish = |number| {
        super::publish(&slot, &data(number, 200)).unwrap();
        image(&slot)
    };
    std::iter::once(image(&slot)).chain((1..=publications).map(publish)).collect()
}

/// The header of one image over the data of a later one, in the same buffer.
fn overtaken(history: &[Vec<u8>], number: usize) -> Vec<u8> {
    [&history[number][..LINE], &history[number + 2][LINE..]].concat()
}

#[test]
fn a_writer_that_changes_the_header_each_time_is_followed_for_longer_than_damaged_data_are_read() {
    let history = history(14);
    let slot = slot(&history[1]);
    *slot.medium.2.before.borrow_mut() = (1..11).map(|number| overtaken(&history, number)).collect();
    *slot.medium.2.behind.borrow_mut() = (2..12).map(|number| history[number].clone()).collect();
    assert_eq!(consume(&slot, 0).unwrap(), (data(11, 200), 11));
    assert!(slot.medium.1.get() > super::super::SAME);
}

/// The other buffer may have been filled since, but this one only behind the next publication.
#[test]
fn data_count_if_the_header_behind_them_is_theirs_or_the_next() {
    let history = history(4);
    let read = |behind: &[u8]| {
        let slot = slot(&history[1]);
        slot.medium.2.behind.borrow_mut().push_back(behind.to_vec());
        consume(&slot, 0)
    };
    assert_eq!(read(&history[1]).unwrap(), (data(1, 200), 1));
    assert_eq!(read(&history[2]).unwrap(), (data(1, 200), 1));
    for number in [3, 4] {
        let found = read(&history[number as usize]).unwrap();
        assert_eq!(found, (data(number, 200), number), "its data may be those of a publication in the same buffer");
    }
    let mut torn = history[3].clone();
    torn[9] ^= 1;
    assert!(matches!(read(&torn), Err(Failure::Torn)));
}

/// A slot that is evicted as a whole before the header is read, and one that is too long for that. Lines that were
/// loaded again before the header was read may be older than it, so further attempts evict them behind it.
#[test]
fn data_are_evicted_in_each_attempt_and_behind_the_header_in_all_but_the_first() {
    for (capacity, first) in [(CAPACITY, [true, false]), (20_000, [false, true])] {
        let memory = vec![0; size_for(capacity).unwrap()];
        let slot = Slot::over(Fake(RefCell::new(Recorded::new(&memory)), Cell::new(0), Beside::default()), capacity);
        publish(&slot, &data(1, 300)).unwrap();
        let mut damaged = image(&slot);
        damaged[slot.offset(1)] ^= 1;
        *slot.medium.0.borrow_mut() = Recorded::new(&damaged);
        assert!(matches!(consume(&slot, 0), Err(Failure::Torn)));
        let expected: Vec<_> = std::iter::once(first).chain([[false, true]; super::super::SAME - 1]).collect();
        assert_eq!(*slot.medium.2.were_evicted.borrow(), expected, "{capacity} bytes");
    }
}

#[test]
fn a_publication_that_is_not_newer_is_none_whatever_its_number() {
    let slot = slot(&history(4)[4]);
    for newer_than in [4, 5, u64::MAX] {
        assert_eq!(consume(&slot, newer_than).unwrap(), (vec![], newer_than));
    }
}

#[test]
fn a_header_whose_data_would_lie_outside_the_slot_is_refused() {
    let bytes = empty();
    let size = size_for(CAPACITY).unwrap();
    for (offset, length) in [(size - 299, 300), (usize::MAX - 10, 300), (LINE, usize::MAX), (usize::MAX, usize::MAX)] {
        let mut image = image(&bytes);
        image[..LINE].copy_from_slice(&Header::of_data_at(offset, 1, length, Sums::of_bytes(b"")).encode());
        let refused = consume(&slot(&image), 0);
        assert!(matches!(refused, Err(Failure::Refused(Error::Invalid { .. }))), "{offset} {length}: {refused:?}");
    }
}

/// An iterator over 20,000 bytes from `skipped` on, of which those of the first page alone are there.
fn with_a_hole(pages: &mut [u8], direction: Direction, skipped: usize, count: usize) -> IovIter {
    let start = pages.as_mut_ptr().expose_provenance().next_multiple_of(PAGE_SIZE);
    let array = Arc::new(XArray::default());
    // SAFETY: the callers keep the bytes, and do not look at them until they are done with the iterator.
    let memory = unsafe { Memory::new(Segment::new(start, PAGE_SIZE), Backing::Heap) };
    array.store(0, Page::new(memory, true, Arc::new(()))).unwrap();
    IovIter::xarray(direction, array, skipped, count).unwrap()
}

#[test]
fn what_a_hole_ends_is_neither_published_nor_consumed_and_the_iterator_stays() {
    let mut pages = vec![0; 2 * PAGE_SIZE];
    for len in [20, INLINE, 300] {
        let slot = empty();
        publish(&slot, &data(1, len)).unwrap();
        let before = image(&slot);
        let mut from = with_a_hole(&mut pages, Direction::Source, PAGE_SIZE - 10, len);
        assert!(slot.publish(&mut from).is_err(), "{len} bytes");
        assert_eq!((from.count(), &image(&slot)[..LINE]), (len, &before[..LINE]));
        let mut to = with_a_hole(&mut pages, Direction::Dest, PAGE_SIZE - 10, len);
        let stopped = slot.consume(&mut to, 0);
        assert!(matches!(stopped, Err(Failure::Refused(Error::BeyondSegments { .. }))), "{len} bytes: {stopped:?}");
        assert_eq!(to.count(), len);
        assert_eq!(consume(&slot, 0).unwrap(), (data(1, len), 1));
        assert_eq!(publish(&slot, &data(2, len)).unwrap(), 2);
    }
}

#[test]
fn a_line_that_cannot_be_written_is_a_fault_and_its_number_is_not_used_up() {
    let slot = empty();
    publish(&slot, &data(1, 20)).unwrap();
    slot.medium.0.borrow_mut().fail_from(0);
    let mut bytes = data(2, 20);
    let mut i = IovIter::whole(Direction::Source, over(&mut bytes));
    assert!(matches!(slot.publish(&mut i), Err(Failure::Fault(..))));
    assert_eq!(i.count(), 20);
    slot.medium.0.borrow_mut().fail_from(usize::MAX);
    assert_eq!(publish(&slot, &data(2, 20)).unwrap(), 2);
}

/// Over real memory: by what the calls ask the routines for.
#[test]
fn every_byte_of_a_publication_has_left_the_caches_when_it_returns() {
    if crate::arch::write_back().is_none() {
        return;
    }
    let mut pages = vec![0_u8; 3 * PAGE_SIZE];
    let start = pages.as_mut_ptr().expose_provenance().next_multiple_of(PAGE_SIZE);
    // SAFETY: the memory lies in `pages`, which outlives the slot and is not looked at meanwhile.
    let memory = unsafe { Memory::new(Segment::new(start, 2 * PAGE_SIZE), Backing::Heap) };
    let slot = Slot::new(&Page::new(memory, true, Arc::new(())), 0, None).unwrap();
    for (number, len) in (1..).zip([0, 1, INLINE, INLINE + 1, 64, 300, 4000]) {
        let mut bytes = data(number, len);
        let seen = watch(|| {
            slot.publish(&mut IovIter::whole(Direction::Source, over(&mut bytes))).unwrap();
        });
        let header = places(&seen, Segment::new(start, LINE));
        assert!(header.iter().all(|place| *place == Place::Out), "{len} bytes: {header:?}");
        let stored = if len <= INLINE { 0 } else { len.next_multiple_of(LINE) };
        let data = places(&seen, Segment::new(start + slot.offset(number), slot.capacity()));
        assert!(data[..stored].iter().all(|place| *place == Place::Out), "{len} bytes");
        assert!(data[stored..].iter().all(|place| *place == Place::Untouched), "{len} bytes");
    }
}
