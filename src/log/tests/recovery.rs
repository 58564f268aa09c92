//! What is taken for a record, for damage and for a torn tail when a log is opened.

use super::*;
use crate::log::format::{LAST_UPDATE, Superblock};
use crate::log::header::Header;
use crate::log::ring::Extent;

/// A log whose records lie in its second lap, behind older ones: the numbers of the two that it has, of 100 bytes.
fn in_the_second_lap(size: usize) -> (Log, [u64; 2]) {
    let log = create(size);
    while log.lock().unwrap().chain.end.position < (size - RING) as u64 {
        append(&log, &data(9, 100)).unwrap();
        log.discard_before(log.numbers().unwrap().end).unwrap();
    }
    let numbers = [1, 2].map(|seed| append(&log, &data(seed, 100)).unwrap());
    log.discard_before(numbers[0]).unwrap();
    (log, numbers)
}

/// The header that the next record would have, and where it would be in the region.
fn next_header(log: &Log, data: &[u8]) -> (Header, usize) {
    let state = log.lock().unwrap();
    let end = state.chain.end;
    let header = Header {
        generation: state.superblock.generation,
        sequence: end.sequence,
        length: data.len() as u64,
        position: end.position,
        previous: end.position,
        sums: Sums::of_bytes(data),
    };
    (header, Log::region_offset(&state.ring, end.position))
}

fn with_bytes(image: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = image.to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    changed
}

/// Each with the right sum of its own, as the data of an application may have in them.
#[test]
fn a_header_that_cannot_be_that_of_the_next_record_is_none() {
    let (log, [_, last]) = in_the_second_lap(SIZE);
    let (bytes, data) = (image(&log), data(3, 64));
    let (right, at) = next_header(&log, &data);
    let found = |header: Header, at: usize| {
        let stored = [&header.encode()[..], &data].concat();
        let ends = [open, reader].map(|open| open(&with_bytes(&bytes, at, &stored)).numbers().unwrap().end);
        assert_eq!(ends[0], ends[1]);
        ends[0]
    };
    assert_eq!(found(right, at), last + 2);
    let (rest, room) = ((SIZE - at - 64) as u64, log.numbers().unwrap().free);
    assert!(rest < 4096 - 64 && room > 64);
    for (what, wrong) in [
        ("another log's", Header { generation: right.generation ^ 1, ..right }),
        ("another place's", Header { position: right.position + 64, ..right }),
        ("another lap's", Header { position: right.position - (SIZE - RING) as u64, ..right }),
        ("an older record's", Header { sequence: last, ..right }),
        ("a later record's, for which there is no room between", Header { sequence: last + 2, ..right }),
        ("of a record longer than the rest of the lap", Header { length: rest + 1, ..right }),
        ("of a record longer than the log", Header { length: 1 << 40, ..right }),
        ("of a record whose length overflows", Header { length: u64::MAX, ..right }),
    ] {
        assert_eq!(found(wrong, at), last + 1, "{what}");
    }
}

/// The first record is near the end of the lap, so that there is room in this lap, but not for that.
#[test]
fn a_record_that_would_reach_into_the_first_one_is_none() {
    let log = create(SIZE);
    let first = append(&log, &data(0, 2000)).unwrap() + 1;
    append(&log, &data(1, 1000)).unwrap();
    log.discard_before(first).unwrap();
    append(&log, &data(2, 800)).unwrap();
    let (right, at) = next_header(&log, b"");
    let bytes = image(&log);
    let end = |length: u64| {
        let sums = Sums::of_bytes(&bytes[at + 64..][..length as usize]);
        let header = Header { length, sums, ..right };
        open(&with_bytes(&bytes, at, &header.encode())).numbers().unwrap().end
    };
    let free = log.numbers().unwrap().free;
    assert_eq!(end(free), 4);
    assert!(at + 64 + free as usize + 64 < SIZE, "it is the first record that limits the room");
    assert_eq!(end(free + 1), 3);
}

#[test]
fn no_record_is_found_in_a_bad_extent() {
    let log = create(SIZE);
    append(&log, &data(0, 100)).unwrap();
    let (right, at) = next_header(&log, b"next");
    let bad = (right.position, right.position + 256);
    let superblock =
        Superblock { bad: vec![Extent { start: bad.0, end: bad.1 }], ..log.lock().unwrap().superblock.clone() };
    let bytes = with_bytes(&image(&log), 0, &[superblock.encode(), superblock.encode()].concat());
    let bytes = with_bytes(&bytes, at, &[&right.encode()[..], b"next"].concat());
    for log in [open(&bytes), reader(&bytes)] {
        assert_eq!(log.numbers().unwrap().end, 1);
    }
    let opened = open(&bytes);
    assert_eq!(opened.recovered(), 0);
    assert_eq!(image(&opened)[at..], bytes[at..], "nothing is stored in a bad extent");
}

/// A torn record in the second lap, behind one that was durable before and whose header is damaged now.
#[test]
fn a_torn_tail_is_cut_behind_a_damaged_record_too() {
    let (log, [_, last]) = in_the_second_lap(SIZE);
    let log = open(&image(&log));
    let torn = append(&log, &data(3, 200)).unwrap();
    let [damaged, at] = [last, torn].map(|sequence| log.record(sequence).unwrap().offset - 64);
    let mut bytes = image(&log);
    bytes[damaged] ^= 1;
    bytes[at] ^= 1;
    let log = open(&bytes);
    assert_eq!((log.numbers().unwrap().end, log.recovered()), (torn, 64 + 256));
    assert_eq!(records(&log).get(&last), Some(&None));
}

#[test]
fn what_was_durable_stays_and_is_damaged_though_a_torn_tail_behind_it_is_cut() {
    let log = create(SIZE);
    for step in 0..3 {
        append(&log, &data(step, 100)).unwrap();
    }
    let log = open(&image(&log));
    append(&log, &data(3, 100)).unwrap();
    let [damaged, torn] = [2, 3].map(|sequence| log.record(sequence).unwrap().offset);
    let mut bytes = image(&log);
    bytes[damaged - 64] ^= 1;
    bytes[torn] ^= 1;
    let log = open(&bytes);
    let expected = [Some(data(0, 100)), Some(data(1, 100)), None];
    assert_eq!(records(&log), (0..3).zip(expected).collect());
    assert_eq!(append(&log, b"next").unwrap(), 3);
}

/// It was durable when the superblock was written, so it is no torn tail.
#[test]
fn the_last_record_is_damaged_and_not_torn_if_it_was_durable() {
    let log = create(SIZE);
    for step in 0..2 {
        append(&log, &data(step, 100)).unwrap();
    }
    let log = open(&image(&log));
    let offset = log.record(1).unwrap().offset;
    let flipped = |at: usize| with_bytes(&image(&log), at, &[image(&log)[at] ^ 1]);
    let of_data = open(&flipped(offset));
    let failure = read(&of_data, 1).unwrap_err();
    assert!(matches!(failure, Failure::Corrupt { sequence: 1, length: 100, .. }), "{failure:?}");
    let mut lost = image(&log);
    lost[RING..].fill(0);
    for (image, expected) in
        [(flipped(offset), Some(data(0, 100))), (flipped(offset - 64), Some(data(0, 100))), (lost, None)]
    {
        let log = open(&image);
        assert_eq!(log.recovered(), 0);
        assert_eq!(records(&log), BTreeMap::from([(0, expected), (1, None)]));
        assert_eq!(append(&log, b"next").unwrap(), 2);
    }
}

#[test]
fn a_closed_log_has_no_torn_tail_whatever_is_damaged() {
    let log = create(SIZE);
    for step in 0..2 {
        append(&log, &data(step, 100)).unwrap();
    }
    log.close().unwrap();
    let mut bytes = image(&log);
    bytes[log.record(1).unwrap().offset - 64] ^= 1;
    bytes[SIZE - 64] = 1;
    let opened = open(&bytes);
    assert_eq!((opened.numbers().unwrap().end, opened.recovered()), (2, 0));
    assert_eq!(image(&opened)[SIZE - 64], 1);
}

#[test]
fn a_reader_cuts_no_torn_tail_and_follows_when_it_has_become_a_record() {
    for (len, at) in [40, 300].into_iter().flat_map(|len| [0, 64].map(|at| (len, at))) {
        let log = create(SIZE);
        append(&log, b"first").unwrap();
        let reader = super::reader(&image(&log));
        append(&log, &data(1, len)).unwrap();
        let mut torn = image(&log);
        torn[log.record(1).unwrap().offset - 64 + at] ^= 1;
        assert_eq!(super::reader(&torn).recovered(), 0);
        *reader.medium().memory.borrow_mut() = Recorded::new(&torn);
        assert_eq!(records(&reader), BTreeMap::from([(0, Some(b"first".to_vec()))]));
        append(&log, &data(2, 100)).unwrap();
        *reader.medium().memory.borrow_mut() = Recorded::new(&image(&log));
        assert_eq!(records(&reader), records(&log), "{len} bytes, damaged at {at}");
    }
}

#[test]
fn a_file_with_anything_behind_its_first_page_is_no_log_that_was_never_made() {
    for at in [4096 + 70, RING + 70, SIZE - 1] {
        let bytes = with_bytes(&[0; SIZE], at, &[1]);
        let refused = PmemLog::open(Fake::new(&bytes), Open::Create).err();
        assert!(matches!(refused, Some(Failure::Refused(_))), "a byte at {at}");
    }
}

#[test]
fn the_last_number_of_an_update_is_used() {
    let log = create(SIZE);
    append(&log, b"first").unwrap();
    let superblock = Superblock { update: LAST_UPDATE - 1, ..log.lock().unwrap().superblock.clone() };
    let bytes = with_bytes(&image(&log), 0, &[superblock.encode(), superblock.encode()].concat());
    let log = open(&bytes);
    assert_eq!(records(&log), BTreeMap::from([(0, Some(b"first".to_vec()))]));
    assert!(log.discard_before(1).is_err());
}

/// A page of a torn tail cannot be erased, and what the fault shows is a line of it.
#[test]
fn what_could_not_be_erased_is_bad_as_a_whole() {
    let log = create(RING + 8 * 4096);
    append(&log, &data(0, 100)).unwrap();
    append(&log, &data(1, 10_000)).unwrap();
    let start = log.record(1).unwrap().offset - 64;
    let mut torn = image(&log);
    torn[start] ^= 1;
    let medium = Fake::new(&torn);
    let bad = RING + 2 * 4096 + 640;
    medium.memory.borrow_mut().fail_from(bad);
    *medium.bad.borrow_mut() = Some((bad, bad + 64));
    let log = PmemLog::open(medium, Open::Write).unwrap();
    // The line behind it cannot be erased either: the next record might begin there.
    let end = (start - RING + 64 + 10_000).next_multiple_of(64) as u64 + 64;
    assert_eq!(log.lock().unwrap().ring.bad(), [Extent { start: 2 * 4096, end }]);
}
