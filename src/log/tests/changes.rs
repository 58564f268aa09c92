//! Changes of the superblock: one of the two is whole on the medium, whatever becomes of the last change.

use super::*;

/// The stores that change anything, and the fences: a superblock is 64 lines, most of which stay as they are.
pub(super) fn changing(before: &[u8], events: Vec<Event>) -> Vec<Event> {
    let mut settled = before.to_vec();
    let changes = |event: &Event| match event {
        Event::Store(at, bytes) if settled[*at..*at + bytes.len()] == **bytes => false,
        Event::Store(at, bytes) => {
            settled[*at..*at + bytes.len()].copy_from_slice(bytes);
            true
        }
        Event::Fence => true,
    };
    events.into_iter().filter(changes).collect()
}

#[test]
fn a_discard_is_done_or_not_and_its_space_is_not_used_before_it_is() {
    let log = create(SIZE);
    for step in 0..5 {
        append(&log, &data(step, 100)).unwrap();
    }
    let before = image(&log);
    log.medium().memory.borrow_mut().take_events();
    log.discard_before(3).unwrap();
    let events = log.medium().memory.borrow_mut().take_events();
    let changing = changing(&before, events);
    let mut seen = std::collections::BTreeSet::new();
    images(&before, &changing, |image| {
        let log = open(image);
        let numbers = log.numbers().unwrap();
        seen.insert(numbers.first);
        assert_eq!(numbers.end, 5);
        for sequence in numbers.first..5 {
            assert_eq!(read(&log, sequence).unwrap(), data(sequence, 100));
        }
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 3]);
}

/// The first changes of a log with ten records, each of which discards one: what each stores before its first fence, in
/// one superblock, and behind it, in the other.
fn discards() -> (Log, Vec<u8>, Vec<[Vec<Event>; 2]>) {
    let log = create(SIZE);
    for step in 0..10 {
        append(&log, &data(step, 100)).unwrap();
    }
    let before = image(&log);
    log.medium().memory.borrow_mut().take_events();
    let change = |first| {
        log.discard_before(first).unwrap();
        let events = log.medium().memory.borrow_mut().take_events();
        let mut writes = events.split(|event| *event == Event::Fence).map(<[Event]>::to_vec);
        [writes.next().unwrap(), writes.next().unwrap()]
    };
    let changes = (1..5).map(change).collect();
    (log, before, changes)
}

fn after(mut image: Vec<u8>, events: &[Event]) -> Vec<u8> {
    for event in events {
        if let Event::Store(at, bytes) = event {
            image[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
    }
    image
}

/// The second superblock of a change may be refused: the change has succeeded.
#[test]
fn a_superblock_is_whole_on_the_medium_though_the_last_change_wrote_only_one() {
    let (_, mut medium, changes) = discards();
    for (refused, [[written, other], [next, _]]) in (1..).zip(changes.array_windows()) {
        let missing = after(medium.clone(), written);
        images(&missing, &changing(&missing, next.clone()), |image| {
            let first = open(image).numbers().unwrap().first;
            assert!([refused, refused + 1].contains(&first), "discard {refused} is gone: {first}");
        });
        medium = after(missing, other);
    }
}

/// Of a superblock that is refused, any part may be on the medium when it is taken back.
#[test]
fn a_superblock_is_whole_on_the_medium_while_a_discard_is_taken_back() {
    for done in 0..3 {
        let (log, ..) = discards();
        log.discard_before(4 + done).unwrap();
        let before = image(&log);
        log.medium().memory.borrow_mut().take_events();
        log.medium().unsynced.set(1);
        assert!(log.discard_before(8).is_err());
        let mut events = log.medium().memory.borrow_mut().take_events();
        let refused = events.iter().position(|event| *event == Event::Fence).unwrap();
        events.remove(refused);
        images(&before, &changing(&before, events), |image| {
            let first = open(image).numbers().unwrap().first;
            assert!([4 + done, 8].contains(&first), "{done} {first}");
        });
    }
}

/// The writer is killed while it waits for its first superblock, and the power fails while the next one opens the log.
#[test]
fn a_superblock_is_whole_on_the_medium_though_the_last_writer_was_killed_before_its_own_was() {
    let (_, mut medium, changes) = discards();
    for (discarded, [stored, other]) in (1..).zip(changes) {
        let memory = after(medium.clone(), &stored);
        let opened = open(&memory);
        assert_eq!(opened.numbers().unwrap().first, discarded);
        let events = opened.medium().memory.borrow_mut().take_events();
        let events = [stored, events].concat();
        images(&medium.clone(), &changing(&medium, events), |image| {
            let first = open(image).numbers().unwrap().first;
            assert!([discarded - 1, discarded].contains(&first), "{discarded} {first}");
        });
        medium = after(memory, &other);
    }
}

/// One of the superblocks is damaged, and the power fails while the log is opened.
#[test]
fn a_superblock_is_whole_on_the_medium_though_one_was_damaged_before() {
    for slot in 0..2 {
        let (log, ..) = discards();
        let mut damaged = image(&log);
        damaged[slot * 4096 + 100] ^= 1;
        let opened = open(&damaged);
        let events = opened.medium().memory.borrow_mut().take_events();
        images(&damaged, &changing(&damaged, events), |image| {
            assert_eq!(open(image).numbers().unwrap().first, 4, "slot {slot}");
        });
    }
}

/// The second superblock of a change may be refused, so one has to do, also behind a change that was taken back.
#[test]
fn a_discard_counts_with_its_first_superblock_though_the_one_before_was_taken_back() {
    let (log, ..) = discards();
    log.medium().unsynced.set(1);
    assert!(log.discard_before(6).is_err());
    let before = image(&log);
    log.medium().memory.borrow_mut().take_events();
    log.discard_before(8).unwrap();
    let events = log.medium().memory.borrow_mut().take_events();
    let first = events.split(|event| *event == Event::Fence).next().unwrap();
    assert_eq!(open(&after(before, first)).numbers().unwrap().first, 8);
}

/// The last change wrote only one superblock. Of one behind it nothing was stored, and then the next is made.
#[test]
fn a_superblock_is_whole_on_the_medium_though_nothing_was_stored_of_the_last_change() {
    let (log, ..) = discards();
    let mut medium = image(&log);
    for first in [5, 7] {
        log.discard_before(first).unwrap();
        let events = log.medium().memory.borrow_mut().take_events();
        let missing = after(medium, events.split(|event| *event == Event::Fence).next().unwrap());
        log.medium().memory.borrow_mut().fail_from(0);
        assert!(log.discard_before(9).is_err());
        log.medium().memory.borrow_mut().fail_from(usize::MAX);
        log.medium().memory.borrow_mut().take_events();
        log.discard_before(first + 1).unwrap();
        let events = log.medium().memory.borrow_mut().take_events();
        let next = events.split(|event| *event == Event::Fence).next().unwrap().to_vec();
        images(&missing, &changing(&missing, next), |image| {
            let found = open(image).numbers().unwrap().first;
            assert!([first, first + 1].contains(&found), "discard {first} is gone: {found}");
        });
        medium = image(&log);
    }
}

#[test]
fn neither_a_writer_that_has_lost_its_lock_nor_a_reader_stores_anything() {
    let log = create(SIZE);
    for step in 0..3 {
        append(&log, &data(step, 100)).unwrap();
    }
    let reader = reader(&image(&log));
    log.medium().has_lock.set(false);
    for log in [log, reader] {
        log.medium().memory.borrow_mut().take_events();
        assert!(append(&log, b"next").is_err());
        assert!(log.discard_before(1).is_err());
        log.close().unwrap();
        assert_eq!(log.medium().memory.borrow_mut().take_events(), []);
    }
}

/// The second discard writes the first superblock first.
#[test]
fn a_discard_is_done_though_its_second_superblock_cannot_be_written() {
    let log = create(SIZE);
    for step in 0..3 {
        append(&log, &data(step, 100)).unwrap();
    }
    log.discard_before(1).unwrap();
    log.medium().memory.borrow_mut().fail_from(4096);
    log.discard_before(2).unwrap();
    assert_eq!(log.numbers().unwrap().first, 2);
    assert_eq!(open(&image(&log)).numbers().unwrap().first, 2);
}
