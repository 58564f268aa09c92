//! The ring by itself: its counters, its limit, and a reader and writers at the same time.

use super::{CAN_MERGE, PipeRing};
use crate::abi::PAGE_SIZE;
use crate::structure::Writer;
use std::sync::Arc;

fn ring(slots: usize, max_usage: Option<usize>) -> Arc<PipeRing> {
    Arc::new(PipeRing::new(slots, max_usage).unwrap())
}

/// Puts `nbytes` zeroes into the ring as an iterator does; how many it took.
fn put(writer: &mut Writer, nbytes: usize) -> usize {
    let mut done = 0;
    while done < nbytes {
        let Some(place) = writer.reserve(nbytes - done) else { break };
        let part = place.seg().len;
        done += writer.commit(place, part);
    }
    done
}

fn lengths(ring: &PipeRing) -> Vec<usize> {
    ring.lock().iter().map(|slot| slot.len).collect()
}

fn used_and_unreserved(ring: &PipeRing) -> (usize, usize) {
    let ring = ring.lock();
    (ring.used(), ring.unreserved())
}

fn drain(ring: &PipeRing, nbytes: usize) {
    let reader = ring.read().ok().unwrap();
    let slots = reader.peek(nbytes, usize::MAX).unwrap();
    reader.consume(&slots, nbytes);
}

#[test]
fn counters_wrap_and_the_limit_holds() {
    let ring = ring(4, Some(3));
    ring.lock().tail = u32::MAX - 1;
    let mut writer = Writer::iterator(Arc::clone(&ring));
    assert_eq!(put(&mut writer, 5 * PAGE_SIZE), 3 * PAGE_SIZE, "max_usage is 3");
    assert_eq!(writer.revert(PAGE_SIZE + 1).unwrap(), Ok(()));
    assert_eq!(lengths(&ring), [PAGE_SIZE, PAGE_SIZE - 1]);
    drain(&ring, PAGE_SIZE + 1);
    assert_eq!(put(&mut writer, 2), 2, "into the page it wrote last, and a new one");
    assert_eq!(lengths(&ring), [PAGE_SIZE - 1, 1]);
    let ring = ring.lock();
    assert_eq!((ring.used(), ring.free(), ring.bytes(), ring.head()), (2, 1, PAGE_SIZE as u128, 1));
}

#[test]
fn a_page_that_is_being_filled_is_neither_used_nor_makes_the_ring_full() {
    let ring = ring(2, None);
    let mut writer = Writer::iterator(Arc::clone(&ring));
    assert_eq!(put(&mut writer, PAGE_SIZE), PAGE_SIZE);
    let place = writer.reserve(PAGE_SIZE).unwrap();
    let seen = |ring: &PipeRing| {
        let ring = ring.lock();
        (ring.used(), ring.free(), ring.is_full(), ring.unreserved())
    };
    assert_eq!(seen(&ring), (1, 1, false, 0));
    assert!(Writer::iterator(Arc::clone(&ring)).reserve(1).is_none(), "nobody else has the room");
    writer.commit(place, 1);
    assert_eq!(seen(&ring), (2, 0, true, 0));
}

#[test]
fn a_reused_slot_keeps_nothing_of_its_last_user() {
    let ring = ring(2, None);
    assert_eq!(put(&mut Writer::ordinary(Arc::clone(&ring)), PAGE_SIZE + 10), PAGE_SIZE + 10);
    assert!(ring.lock().iter().all(|slot| slot.flags == CAN_MERGE));
    drain(&ring, PAGE_SIZE + 10);
    assert_eq!(put(&mut Writer::iterator(Arc::clone(&ring)), 5), 5);
    assert_eq!(ring.lock().newest().map(|s| (s.flags, s.offset, s.len)), Some((0, 0, 5)));
}

#[test]
fn a_slot_that_is_drained_while_it_is_added_to_loses_nothing() {
    let ring = ring(1, None);
    let mut writer = Writer::iterator(Arc::clone(&ring));
    assert_eq!(put(&mut writer, 10), 10);
    let place = writer.reserve(20).unwrap();
    assert!(writer.reserve(1).is_none(), "one place at a time in a page, and no slot for another page");
    drain(&ring, 10);
    assert_eq!(used_and_unreserved(&ring), (0, 0), "the slot is kept for what is being copied");
    assert_eq!(writer.commit(place, 7), 7);
    assert_eq!(ring.lock().iter().map(|s| (s.offset, s.len)).collect::<Vec<_>>(), [(10, 7)]);
    assert_eq!(put(&mut writer, 1), 1);
    assert_eq!(lengths(&ring), [8]);
}

#[test]
fn a_place_becomes_no_more_of_the_pipe_than_it_has_room_for() {
    let ring = ring(4, None);
    let mut writer = Writer::ordinary(Arc::clone(&ring));
    for end in [100, 200] {
        let place = writer.reserve(100).unwrap();
        assert_eq!(writer.commit(place, 1 << 20), 100);
        assert_eq!((writer.end_offset(), ring.lock().bytes()), (end, end as u128));
    }
    assert_eq!(lengths(&ring), [200]);
}

#[test]
fn a_place_that_nothing_went_into_is_given_back() {
    let ring = ring(1, None);
    let mut writer = Writer::iterator(Arc::clone(&ring));
    for filled in [0, 3, 0] {
        let place = writer.reserve(9).unwrap();
        assert_eq!(writer.commit(place, filled), filled);
    }
    assert_eq!((lengths(&ring), used_and_unreserved(&ring)), (vec![3], (1, 0)));
    drain(&ring, 3);
    assert_eq!(used_and_unreserved(&ring), (0, 1));
}

#[test]
fn only_a_writer_takes_its_bytes_back_and_none_that_a_reader_is_looking_at() {
    let ring = ring(4, None);
    let (mut one, mut other) = (Writer::iterator(Arc::clone(&ring)), Writer::iterator(Arc::clone(&ring)));
    assert_eq!((put(&mut one, 10), put(&mut other, 5)), (10, 5));
    assert_eq!(one.revert(1).unwrap(), Err(0), "the newest bytes are another's");
    assert_eq!(other.revert(6).unwrap(), Err(5));
    let reader = ring.read().ok().unwrap();
    assert!(ring.read().is_err(), "one reader at a time");
    let slots = reader.peek(12, usize::MAX).unwrap();
    assert_eq!(slots.iter().map(|slot| slot.len).collect::<Vec<_>>(), [10, 2]);
    assert_eq!(other.revert(4).unwrap(), Err(3), "two bytes are on their way");
    assert_eq!(other.revert(3).unwrap(), Ok(()));
    reader.consume(&slots, 11);
    drop((reader, slots));
    assert_eq!(lengths(&ring), [1]);
    assert!(ring.read().is_ok());
}

#[test]
fn sizes_are_checked() {
    assert!(PipeRing::new(3, None).is_err());
    assert!(PipeRing::new(0, None).is_err());
    assert!(PipeRing::new(1 << 21, None).is_err());
    assert!(PipeRing::new(4, Some(5)).is_err());
    assert!(PipeRing::new(4, Some(0)).is_err());
}
