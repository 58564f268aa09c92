//! Damage: bits that change, headers and superblocks that are lost, memory that cannot be written.

use super::*;
use crate::copy::sums::self_summed;
use crate::log::format::{LAST_UPDATE, MAX_EXTENTS, Superblock};
use crate::log::header::Header;
use crate::log::ring::Extent;

#[test]
fn every_bit_of_the_last_record_is_noticed_in_every_lap() {
    for lap in 0..2 {
        let log = create(SIZE);
        for step in 0..lap * 40 {
            append(&log, &data(step, 100)).unwrap();
            log.discard_before(step + 1).unwrap();
        }
        let first = append(&log, &data(0, 40)).unwrap();
        let last = append(&log, &data(1, 70)).unwrap();
        let (good, start) = (image(&log), log.record(last).unwrap().offset - 64);
        for bit in (0..(64 + 70) * 8).step_by(3) {
            let mut flipped = good.clone();
            flipped[start + bit / 8] ^= 1 << (bit % 8);
            let log = open(&flipped);
            let numbers = log.numbers().unwrap();
            assert_eq!((numbers.first.max(first), numbers.end), (first, last), "lap {lap} bit {bit}");
            assert!(log.recovered() > 0, "lap {lap} bit {bit}");
            assert_eq!(read(&log, first).unwrap(), data(0, 40));
        }
    }
}

/// Changes the stored header of a record, which gets the right sum of its own.
fn with_header(log: &Log, sequence: u64, change: impl Fn(&mut Header)) -> Vec<u8> {
    let (mut bytes, at) = (image(log), log.record(sequence).unwrap().offset - 64);
    let mut header = Header::decode(bytes[at..at + 64].try_into().unwrap()).unwrap();
    change(&mut header);
    bytes[at..at + 64].copy_from_slice(&header.encode());
    bytes
}

#[test]
fn each_of_the_two_sums_of_the_data_is_checked() {
    let log = create(SIZE);
    for step in 0..3 {
        append(&log, &data(step, 100)).unwrap();
    }
    let second = |header: &mut Header| header.sums.crc64 ^= 1;
    for damaged in [with_header(&log, 1, |header| header.sums.crc32c ^= 1), with_header(&log, 1, second)] {
        for log in [reader(&damaged), open(&damaged)] {
            let expected = [Some(data(0, 100)), None, Some(data(2, 100))];
            assert_eq!(records(&log), (0..3).zip(expected).collect());
            assert!(matches!(log.check(1), Err(Failure::Corrupt { sequence: 1, .. })));
        }
    }
    let last = open(&with_header(&log, 2, second));
    assert_eq!((last.numbers().unwrap().end, last.recovered()), (2, 192), "it is a torn tail");
}

#[test]
fn a_record_without_a_second_sum_is_read_as_versions_before_it_read_it() {
    let log = create(SIZE);
    append(&log, &data(0, 100)).unwrap();
    append(&log, &self_summed(1, 1, 64)).unwrap();
    let earlier = with_header(&log, 1, |header| header.sums.crc64 = 0);
    for log in [reader(&earlier), open(&earlier)] {
        assert_eq!(read(&log, 1).unwrap(), self_summed(1, 1, 64));
    }
    let mut flipped = earlier.clone();
    flipped[log.record(1).unwrap().offset] ^= 1;
    assert_eq!(open(&flipped).recovered(), 128);
    // What the second sum is for.
    let mut mixed = earlier;
    let at = log.record(1).unwrap().offset;
    mixed[at..at + 64].copy_from_slice(&self_summed(2, 1, 64));
    assert_eq!(read(&open(&mixed), 1).unwrap(), self_summed(2, 1, 64));
}

#[test]
fn damage_before_good_records_is_told_of_that_record_alone() {
    let log = create(SIZE);
    for step in 0..5 {
        append(&log, &data(step, 100)).unwrap();
    }
    let good = image(&log);
    let start = log.record(2).unwrap().offset - 64;
    for byte in 0..64 + 100 {
        let mut damaged = good.clone();
        damaged[start + byte] ^= 0x40;
        let log = open(&damaged);
        let found = records(&log);
        for (sequence, record) in found {
            let expected = (sequence != 2).then(|| data(sequence, 100));
            assert_eq!(record, expected, "byte {byte} record {sequence}");
        }
        assert_eq!(log.numbers().unwrap().end, 5);
        assert_eq!(append(&log, b"next").unwrap(), 5);
        log.discard_before(3).unwrap();
        assert_eq!(open(&image(&log)).numbers().unwrap().first, 3);
    }
}

#[test]
fn what_is_read_to_find_the_records_behind_damaged_headers_does_not_grow_with_their_number() {
    let log = create(RING + 4096 * 64);
    for step in 0..2048 {
        append(&log, &data(step, 40)).unwrap();
    }
    let mut damaged = image(&log);
    for header in damaged[RING..].chunks_exact_mut(256) {
        header[5] ^= 1;
    }
    let log = PmemLog::open(Fake::new(&damaged), Open::Read).unwrap();
    assert_eq!(records(&log).into_iter().filter(|(_, record)| record.is_some()).count(), 1024);
    let log = PmemLog::open(Fake::new(&damaged), Open::Read).unwrap();
    assert!(log.medium().read.get() < 16 * damaged.len(), "{} bytes of {}", log.medium().read.get(), damaged.len());
}

#[test]
fn either_superblock_may_be_lost() {
    let log = create(SIZE);
    append(&log, b"one").unwrap();
    append(&log, b"two").unwrap();
    log.discard_before(1).unwrap();
    for slot in 0..2 {
        let mut damaged = image(&log);
        damaged[slot * 4096..(slot + 1) * 4096].fill(0xff);
        let log = open(&damaged);
        assert_eq!(records(&log), BTreeMap::from([(1, Some(b"two".to_vec()))]));
        // It is written again.
        let mut other = image(&log);
        other[(1 - slot) * 4096..(2 - slot) * 4096].fill(0xff);
        assert_eq!(records(&open(&other)).len(), 1);
    }
    let mut damaged = image(&log);
    damaged[100] ^= 1;
    damaged[4096 + 100] ^= 1;
    assert!(PmemLog::open(Fake::new(&damaged), Open::Write).is_err());
    assert!(PmemLog::open(Fake::new(&damaged), Open::Create).is_err());
}

#[test]
fn a_log_goes_on_behind_memory_that_cannot_be_written() {
    let log = create(RING + 8 * 4096);
    append(&log, b"before").unwrap();
    let (at, before) = (RING + 4096, image(&log));
    log.medium().memory.borrow_mut().fail_from(at);
    *log.medium().bad.borrow_mut() = Some((at, at + 4096));
    assert!(matches!(append(&log, &data(7, 5000)), Err(Failure::Fault(..))));
    log.medium().memory.borrow_mut().fail_from(usize::MAX);
    assert_eq!(&image(&log)[RING..], &before[RING..], "nothing of it is left");
    assert_eq!(append(&log, &data(8, 5000)).unwrap(), 1);
    assert!(log.record(1).unwrap().offset >= at + 4096);
    assert_eq!(append(&log, b"after").unwrap(), 2);
    let again = open(&image(&log));
    assert_eq!(again.recovered(), 0);
    let expected = [b"before".to_vec(), data(8, 5000), b"after".to_vec()];
    assert_eq!(records(&again), (0..3).zip(expected.map(Some)).collect());
}

/// Appends a record, and then one over a line that turns out bad.
fn append_and_meet_a_bad_line(log: &Log, seed: u64) -> Failure {
    let sequence = append(log, &data(seed, 40)).unwrap();
    let behind = log.record(sequence).unwrap().offset + 64;
    log.medium().memory.borrow_mut().fail_from(behind);
    *log.medium().bad.borrow_mut() = Some((behind, behind + 64));
    let failure = append(log, b"over a bad line").unwrap_err();
    log.medium().memory.borrow_mut().fail_from(usize::MAX);
    failure
}

#[test]
fn no_record_is_lost_between_more_bad_extents_than_a_superblock_lists() {
    let log = create(RING + 64 * 4096);
    let count = MAX_EXTENTS as u64;
    for seed in 0..=count {
        assert!(matches!(append_and_meet_a_bad_line(&log, seed), Failure::Fault(..)), "{seed}");
    }
    // The last of them could not be noted, and the record over it not erased.
    assert!(matches!(append(&log, b"next"), Err(Failure::Refused(Error::Os { errno: libc::EIO, .. }))));
    let all = |from: u64, to: u64| (from..to).map(|seed| (seed, Some(data(seed, 40)))).collect::<BTreeMap<_, _>>();
    assert_eq!(records(&log), all(0, count + 1));
    let log = open(&image(&log));
    assert_eq!(records(&log), all(0, count + 1));
    // The gaps between those that lie in free space can be merged.
    log.discard_before(count / 2).unwrap();
    for seed in count + 1..2 * count {
        append_and_meet_a_bad_line(&log, seed);
        log.discard_before(seed - count / 2).unwrap();
    }
    let expected = all(2 * count - 1 - count / 2, 2 * count);
    assert_eq!(records(&log), expected);
    assert_eq!(records(&open(&image(&log))), expected);
}

/// The damage that a fault shows is a page or a huge page. The records in it are still found, in each lap.
#[test]
fn records_in_a_page_that_turns_bad_under_the_next_append_stay() {
    // The header of the next append, or its data alone.
    for (laps, bad) in (0..3).flat_map(|laps| [2 * 576, 2 * 576 + 128].map(|bad| (laps, bad))) {
        let log = create(RING + 8 * 4096);
        for lap in 0..laps {
            for _ in 0..8 {
                append(&log, &data(lap, 4096 - 64)).unwrap();
            }
            log.discard_before(log.numbers().unwrap().end).unwrap();
        }
        let first = append(&log, &data(1, 500)).unwrap();
        append(&log, &data(2, 500)).unwrap();
        log.medium().memory.borrow_mut().fail_from(RING + bad);
        *log.medium().bad.borrow_mut() = Some((RING, RING + 4096));
        assert!(matches!(append(&log, &data(3, 500)), Err(Failure::Fault(..))));
        log.medium().memory.borrow_mut().fail_from(usize::MAX);
        assert_eq!(append(&log, &data(4, 500)).unwrap(), first + 2);
        assert!(log.record(first + 2).unwrap().offset >= RING + 4096);
        let again = open(&image(&log));
        let expected = [data(1, 500), data(2, 500), data(4, 500)];
        assert_eq!(records(&again), (first..first + 3).zip(expected.map(Some)).collect(), "{laps} laps");
        assert_eq!(again.lock().unwrap().ring.bad(), [Extent { start: 2 * 576, end: 4096 }]);
    }
}

#[test]
fn records_whose_headers_are_damaged_are_discarded_one_by_one() {
    let log = create(SIZE);
    for step in 0..6 {
        append(&log, &data(step, 100)).unwrap();
    }
    log.close().unwrap();
    let mut damaged = image(&log);
    damaged[RING..].fill(0);
    let mut image = damaged;
    for first in 0..=6 {
        let log = open(&image);
        let expected: BTreeMap<_, _> = (first..6).map(|sequence| (sequence, None)).collect();
        assert_eq!((records(&log), log.numbers().unwrap().end), (expected, 6));
        if first < 6 {
            log.discard_before(first + 1).unwrap();
        }
        image = super::image(&log);
    }
    assert_eq!(append(&open(&image), b"next").unwrap(), 6);
}

#[test]
fn a_long_torn_tail_is_erased_with_a_few_waits_for_the_medium() {
    let log = create(4 << 20);
    let len = 3 << 20;
    append(&log, &data(0, len)).unwrap();
    let mut torn = image(&log);
    torn[RING] ^= 1;
    let log = open(&torn);
    assert_eq!(log.recovered() as usize, len + 64);
    let fences = log.medium().memory.borrow_mut().take_events().into_iter().filter(|event| *event == Event::Fence);
    // Two superblocks, and pieces of a MiB that end where those of the region do.
    assert_eq!(fences.count(), 2 + 4);
    assert!(image(&log)[RING..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_torn_tail_behind_bad_memory_in_the_same_page_is_erased() {
    let log = create(SIZE);
    let superblock =
        Superblock { bad: vec![Extent { start: 1024, end: 2048 }], ..log.lock().unwrap().superblock.clone() };
    let mut bytes = image(&log);
    bytes[..RING].copy_from_slice(&[superblock.encode(), superblock.encode()].concat());
    let log = open(&bytes);
    append(&log, &data(0, 500)).unwrap();
    let last = append(&log, &data(1, 600)).unwrap();
    let at = log.record(last).unwrap().offset;
    assert_eq!(at, RING + 2048 + 64, "there is too little room before the bad memory");
    let mut torn = image(&log);
    torn[at] ^= 1;
    let log = open(&torn);
    assert_eq!((log.numbers().unwrap().end, log.recovered()), (last, 2048 + 64 + 640 - 576));
    assert!(image(&log)[at - 64..].iter().all(|byte| *byte == 0));
    assert_eq!(open(&image(&log)).recovered(), 0);
}

#[test]
fn a_log_that_was_cut_and_grown_is_told_from_one_whose_making_was_interrupted() {
    let medium = Fake::new(&[0; SIZE]);
    let log = PmemLog::open(medium, Open::Create).unwrap();
    let mut making = vec![0; SIZE];
    for event in log.medium().memory.borrow_mut().take_events() {
        if let Event::Store(at, bytes) = event {
            making[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        let again = PmemLog::open(Fake::new(&making), Open::Create).unwrap();
        assert_eq!(append(&again, b"first").unwrap(), 0);
    }
    append(&log, b"acknowledged").unwrap();
    for cut in 32..4092 {
        let mut grown = image(&log);
        grown[cut..].fill(0);
        let refused = PmemLog::open(Fake::new(&grown), Open::Create).err();
        assert!(matches!(refused, Some(Failure::Refused(_))), "cut to {cut} bytes");
    }
}

#[test]
fn a_superblock_at_its_last_update_is_not_written_again() {
    let log = create(SIZE);
    append(&log, b"first").unwrap();
    let mut bytes = image(&log);
    let last = Superblock { update: LAST_UPDATE, ..log.lock().unwrap().superblock.clone() };
    for slot in 0..2 {
        bytes[slot * 4096..(slot + 1) * 4096].copy_from_slice(&last.encode());
    }
    assert!(PmemLog::open(Fake::new(&bytes), Open::Write).is_err());
    let reader = super::reader(&bytes);
    assert_eq!(read(&reader, 0).unwrap(), b"first");
}

#[test]
fn a_discard_that_fails_frees_nothing_or_ends_the_appending() {
    for (failing, is_undone) in [(1, true), (2, false)] {
        let log = create(SIZE);
        for step in 0..4 {
            append(&log, &data(step, 100)).unwrap();
        }
        let before = records(&log);
        let reader = super::reader(&image(&log));
        log.medium().unsynced.set(failing);
        assert!(log.discard_before(2).is_err());
        assert_eq!(records(&log), before);
        *reader.medium().memory.borrow_mut() = Recorded::new(&image(&log));
        if is_undone {
            assert_eq!(records(&reader), before);
            assert_eq!(records(&open(&image(&log))), before);
            assert_eq!(append(&log, b"next").unwrap(), 4);
        } else {
            assert!(matches!(append(&log, b"next"), Err(Failure::Refused(Error::Os { errno: libc::EIO, .. }))));
        }
        log.discard_before(3).unwrap();
        let reopened = open(&image(&log));
        *reader.medium().memory.borrow_mut() = Recorded::new(&image(&log));
        assert_eq!(records(&reopened), records(&log));
        assert_eq!(records(&reader), records(&log));
        assert_eq!(reader.numbers().unwrap().first, 3);
    }
}

#[test]
fn memory_that_was_away_for_a_moment_is_used_again() {
    let log = create(RING + 8 * 4096);
    append(&log, b"before").unwrap();
    log.medium().memory.borrow_mut().fail_from(RING + 2 * 4096);
    assert!(append(&log, &data(1, 20_000)).is_err());
    // It could not be erased, and might be taken for the record that comes next.
    assert!(matches!(append(&log, b"next"), Err(Failure::Refused(Error::Os { errno: libc::EIO, .. }))));
    let log = open(&image(&log));
    assert_eq!(log.lock().unwrap().ring.bad(), []);
    assert_eq!(append(&log, &data(1, 20_000)).unwrap(), 1);
}
