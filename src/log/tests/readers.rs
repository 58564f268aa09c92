//! Readers beside a writer that goes on.

use super::*;
use crate::copy::sums::self_summed;

#[test]
fn a_reader_follows_through_laps_and_is_told_when_it_was_overtaken() {
    let log = create(SIZE);
    append(&log, b"first").unwrap();
    let reader = super::reader(&image(&log));
    let update = |log: &Log| {
        let image = image(log);
        *reader.medium().memory.borrow_mut() = Recorded::new(&image);
    };
    assert_eq!(read(&reader, 0).unwrap(), b"first");
    for step in 1..60 {
        append(&log, &data(step, 150)).unwrap();
        update(&log);
        assert_eq!(read(&reader, step).unwrap(), data(step, 150), "{step}");
        log.discard_before(step).unwrap();
    }
    assert!(matches!(read(&reader, 0), Err(Failure::Missing { .. })));
    assert!(reader.append(&mut over(&mut [1], Direction::Source)).is_err());
    // A reader that looks again after everything that it knew is gone.
    for step in 60..90 {
        append(&log, &data(step, 150)).unwrap();
        log.discard_before(step).unwrap();
    }
    update(&log);
    assert_eq!(records(&reader), records(&log));
}

/// Data that end in their own CRC-32C all have one sum, which cannot tell the later record from the earlier one.
#[test]
fn a_reader_that_was_overtaken_takes_no_later_record_for_its_own_though_the_sums_agree() {
    let unit = |seed| self_summed(seed, 1, 64);
    let log = create(SIZE);
    append(&log, &unit(0)).unwrap();
    let reader = super::reader(&image(&log));
    let stale = reader.record(0).unwrap();
    let later = (1..1000).find(|number| {
        append(&log, &unit(*number)).unwrap();
        log.discard_before(*number).unwrap();
        log.record(*number).unwrap().offset == stale.offset
    });
    let now = log.record(later.unwrap()).unwrap().sums;
    assert_eq!(now.crc32c, stale.sums.crc32c);
    assert_ne!(now.crc64, stale.sums.crc64);
    *reader.medium().memory.borrow_mut() = Recorded::new(&image(&log));
    let mut bytes = vec![0; stale.length];
    let mut i = over(&mut bytes, Direction::Dest);
    let late = reader.read_into(&stale, &mut i);
    assert!(matches!(late, Err(Failure::Missing { sequence: 0, .. })), "{late:?}");
    assert_eq!(i.count(), stale.length);
}

/// A reader that saw a record of `seen` bytes whose msync failed, and the log, in which the record is erased and its
/// number is given to another one, of `instead` bytes.
fn withdrawn(seen: usize, instead: usize) -> (Log, Log) {
    let log = create(SIZE);
    append(&log, b"first").unwrap();
    let without = image(&log);
    append(&log, &data(1, seen)).unwrap();
    let reader = super::reader(&image(&log));
    assert_eq!(read(&reader, 1).unwrap(), data(1, seen));
    let log = open(&without);
    append(&log, &data(2, instead)).unwrap();
    (reader, log)
}

#[test]
fn a_reader_that_saw_a_record_which_was_withdrawn_follows_the_one_in_its_place() {
    for (seen, instead) in [(300, 10), (10, 300), (64, 64)] {
        let (reader, log) = withdrawn(seen, instead);
        let stale = reader.record(1).unwrap();
        append(&log, &data(3, 100)).unwrap();
        *reader.medium().memory.borrow_mut() = Recorded::new(&image(&log));
        let mut bytes = vec![0; seen];
        let late = reader.read_into(&stale, &mut over(&mut bytes, Direction::Dest));
        assert!(matches!(late, Err(Failure::Changed)), "{late:?}");
        assert_eq!(records(&reader), records(&log), "{seen} {instead}");
    }
}

#[test]
fn a_reader_that_saw_a_record_which_was_withdrawn_follows_though_the_one_in_its_place_is_discarded() {
    for (seen, instead) in [(300, 10), (10, 300), (64, 64)] {
        let (reader, log) = withdrawn(seen, instead);
        log.discard_before(2).unwrap();
        for step in 2..4 {
            append(&log, &data(step, 100)).unwrap();
            *reader.medium().memory.borrow_mut() = Recorded::new(&image(&log));
            assert_eq!(records(&reader), records(&log), "{seen} {instead}");
        }
    }
}

/// The medium refuses the new superblock, so that the old one is written again. In between, readers see the new one.
#[test]
fn a_reader_that_saw_a_discard_which_was_taken_back_finds_each_record_under_its_number() {
    for discarded in 1..=5 {
        let log = create(SIZE);
        for step in 0..5 {
            append(&log, &data(step, 100)).unwrap();
        }
        let before = image(&log);
        let reader = super::reader(&before);
        log.discard_before(discarded).unwrap();
        *reader.medium().memory.borrow_mut() = Recorded::new(&image(&log));
        assert_eq!(reader.numbers().unwrap().first, discarded);
        let log = open(&before);
        log.medium().unsynced.set(1);
        assert!(log.discard_before(discarded).is_err());
        *reader.medium().memory.borrow_mut() = Recorded::new(&image(&log));
        assert_eq!(records(&reader), (0..5).map(|step| (step, Some(data(step, 100)))).collect(), "{discarded}");
    }
}

#[test]
fn a_reader_that_is_overtaken_between_any_two_looks_tells_of_no_damage() {
    for steps in [1, 3, 8, 30] {
        let log = create(SIZE);
        for step in 0..5 {
            append(&log, &data(step, 300)).unwrap();
        }
        let before = image(&log);
        for step in 5..5 + steps {
            log.discard_before(step - 2).unwrap();
            append(&log, &data(step, 300 + step as usize)).unwrap();
        }
        let after = image(&log);
        for left in 0..60 {
            let medium = Fake::new(&before);
            *medium.meanwhile.borrow_mut() = Some((left, after.clone()));
            let reader = PmemLog::open(medium, Open::Read).unwrap();
            let damaged = || reader.lock().unwrap().chain.damaged().count();
            assert_eq!(damaged(), 0, "{steps} steps, after {left} reads: when it was opened");
            let is_overtaken = || reader.medium().meanwhile.borrow().as_ref().unwrap().0 > left;
            let was_overtaken = is_overtaken();
            let numbers = reader.numbers().unwrap();
            let ends = if was_overtaken { vec![5 + steps] } else { vec![5, 5 + steps] };
            assert!(ends.contains(&numbers.end), "{steps} steps, after {left} reads: the end is {}", numbers.end);
            if is_overtaken() {
                assert_eq!(reader.numbers().unwrap().end, 5 + steps);
            }
            assert_eq!(damaged(), 0, "{steps} steps, after {left} reads: when it followed");
            for sequence in numbers.first..numbers.end {
                match read(&reader, sequence) {
                    Ok(_) | Err(Failure::Missing { .. } | Failure::Changed) => {}
                    Err(failure) => panic!("{steps} steps, after {left} reads, record {sequence}: {failure:?}"),
                }
            }
        }
    }
}
