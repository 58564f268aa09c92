//! Losses of power: every image of an append, torn tails, and how much room there is.

use super::changes::changing;
use super::*;
use crate::copy::sums::self_summed;

/// Appends through three laps, and looks at every image that each append may leave: what a writer finds there, and
/// readers that were there before and that come then.
fn append_and_look_at_every_image(data: impl Fn(u64, &Log) -> Vec<u8>) {
    let log = create(SIZE);
    let mut known = BTreeMap::new();
    let mut step = 0;
    while log.lock().unwrap().chain.end.position < 3 * (SIZE - RING) as u64 {
        let data = data(step, &log);
        // A record without data needs room for its header, which `free` does not count.
        while log.numbers().unwrap().free < data.len().max(1) as u64 {
            let first = log.numbers().unwrap().first;
            log.discard_before(first + 1).unwrap();
            known.remove(&first);
        }
        let before = image(&log);
        log.medium().memory.borrow_mut().take_events();
        let sequence = append(&log, &data).unwrap();
        let events = log.medium().memory.borrow_mut().take_events();
        assert_eq!(events.iter().filter(|event| **event == Event::Fence).count(), 1, "one fence an append");
        let mut after = known.clone();
        after.insert(sequence, Some(data));
        let mut seen = [false; 2];
        images(&before, &events, |image| {
            let there = reader(&before);
            *there.medium().memory.borrow_mut() = Recorded::new(image);
            for reader in [there, reader(image)] {
                let found = records(&reader);
                assert!(found == known || found == after, "step {step}: a reader finds {:?}", found.keys());
            }
            let log = open(image);
            let found = records(&log);
            assert!(found == known || found == after, "step {step}: {:?}", found.keys());
            let is_torn = found == known && image != before;
            assert!(is_torn || log.recovered() == 0, "step {step}: {} bytes of a torn tail", log.recovered());
            seen[usize::from(found == after)] = true;
            // What was cut does not come back, whatever is appended in its place.
            if found == known && log.numbers().unwrap().free >= 64 {
                append(&log, b"another").unwrap();
                let again = records(&open(&super::image(&log)));
                assert_eq!(again.get(&sequence), Some(&Some(b"another".to_vec())));
            }
        });
        assert_eq!(seen, [true; 2]);
        known = after;
        step += 1;
    }
}

#[test]
fn whatever_reaches_the_medium_an_append_is_there_whole_or_not_at_all() {
    let lengths = [0, 1, 64, 200, 30, 128, 300, 65];
    append_and_look_at_every_image(|step, _| data(step, lengths[step as usize % 8]));
}

/// Records of one size: where one of them goes, there are those of earlier laps, whose units have the same CRC-32C.
#[test]
fn an_append_is_there_whole_or_not_at_all_if_its_data_end_in_a_crc32c_of_their_own() {
    for (units, len) in [(1, 60), (1, 64), (3, 64), (12, 16), (1, 448)] {
        append_and_look_at_every_image(|step, _| self_summed(step, units, len));
    }
}

/// The data are the newest record of the same log, and end in its header: such a line ends in a CRC-32C of its own.
#[test]
fn an_append_is_there_whole_or_not_at_all_if_its_data_are_a_record_of_the_log() {
    append_and_look_at_every_image(|step, log| match log.numbers().unwrap() {
        numbers if numbers.first < numbers.end => {
            let record = log.record(numbers.end - 1).unwrap();
            let header = &image(log)[record.offset - 64..record.offset];
            [&data(step, 64), header, header].concat()
        }
        _ => data(step, 192),
    });
}

#[test]
fn a_header_that_is_fenced_before_its_data_would_be_seen() {
    // The order that the log does not need, but that a log without a sum of its data would: the proof above has to
    // notice the difference.
    let log = create(SIZE);
    let before = image(&log);
    log.medium().memory.borrow_mut().take_events();
    append(&log, &data(1, 128)).unwrap();
    let events = log.medium().memory.borrow_mut().take_events();
    let mut torn = 0;
    images(&before, &events, |image| {
        let header: &Line = image[RING..RING + 64].try_into().unwrap();
        let is_whole = crc32c::of_bytes(&image[RING + 64..RING + 192]) == crc32c::of_bytes(&data(1, 128));
        torn += usize::from(crate::log::header::Header::decode(header).is_some() && !is_whole);
    });
    assert_eq!(torn, 3, "of the eight images three have the header without all of the data");
}

#[test]
fn an_image_torn_at_any_byte_loses_the_last_record_alone() {
    let log = create(SIZE);
    for step in 0..3 {
        append(&log, &data(step, 100)).unwrap();
    }
    let before = image(&log);
    append(&log, &data(3, 150)).unwrap();
    let after = image(&log);
    let start = log.record(3).unwrap().offset - 64;
    for cut in start..start + 64 + 150 {
        let mut torn = before.clone();
        torn[start..cut].copy_from_slice(&after[start..cut]);
        let log = open(&torn);
        assert_eq!(log.numbers().unwrap().end, 3, "cut at {cut}");
        assert_eq!(log.recovered() == 0, cut == start, "cut at {cut}");
        assert_eq!(append(&log, b"next").unwrap(), 3);
    }
    assert_eq!(open(&after).numbers().unwrap().end, 4);
}

#[test]
fn a_full_log_refuses_and_changes_nothing() {
    let log = create(SIZE);
    let free = log.numbers().unwrap().free as usize;
    assert_eq!(free, 4096 - 64);
    let before = image(&log);
    assert!(append(&log, &vec![1; free + 1]).is_err());
    assert_eq!(image(&log), before);
    assert_eq!(append(&log, &vec![1; free]).unwrap(), 0);
    assert_eq!(log.numbers().unwrap().free, 0);
    assert!(append(&log, b"").is_err());
    log.discard_before(1).unwrap();
    assert_eq!(append(&log, &vec![2; free]).unwrap(), 1);
    assert_eq!(records(&open(&image(&log))), BTreeMap::from([(1, Some(vec![2; free]))]));
}

#[test]
fn a_closed_log_says_where_it_ends() {
    let log = create(SIZE);
    append(&log, b"one").unwrap();
    log.close().unwrap();
    // Something that a search would find: what is not searched is not found.
    let mut bytes = image(&log);
    bytes[SIZE - 64] = 1;
    assert_eq!(open(&bytes).recovered(), 0);
    let log = open(&image(&log));
    let mut bytes = image(&log);
    bytes[SIZE - 64] = 1;
    assert!(open(&bytes).recovered() > 0);
}

#[test]
fn an_empty_log_has_room_for_whatever_a_new_one_has_room_for() {
    let log = create(SIZE);
    let most = log.numbers().unwrap().free as usize;
    for (step, len) in (0..).zip([2000, most, 100, most, 64, 3000, most]) {
        let before = image(&log);
        log.medium().memory.borrow_mut().take_events();
        assert_eq!(log.numbers().unwrap().free as usize, most);
        assert_eq!(append(&log, &data(step, len)).unwrap(), step);
        let events = log.medium().memory.borrow_mut().take_events();
        if len < 200 {
            images(&before, &changing(&before, events), |image| {
                let found = records(&open(image));
                assert!(found.is_empty() || found == BTreeMap::from([(step, Some(data(step, len)))]), "step {step}");
            });
        }
        assert_eq!(records(&open(&image(&log))), BTreeMap::from([(step, Some(data(step, len)))]));
        log.discard_before(step + 1).unwrap();
    }
}

#[test]
fn where_an_empty_log_starts_over_is_durable_before_a_record_is() {
    let log = create(SIZE);
    append(&log, &data(0, 3900)).unwrap();
    log.discard_before(1).unwrap();
    let before = image(&log);
    log.medium().memory.borrow_mut().take_events();
    append(&log, &data(1, 200)).unwrap();
    let events = log.medium().memory.borrow_mut().take_events();
    let mut seen = [false; 2];
    images(&before, &changing(&before, events), |image| {
        let log = open(image);
        let (numbers, found) = (log.numbers().unwrap(), records(&log));
        assert_eq!((numbers.first, numbers.end), (1, 1 + found.len() as u64));
        assert!(found.is_empty() || found == BTreeMap::from([(1, Some(data(1, 200)))]));
        seen[found.len()] = true;
    });
    assert_eq!(seen, [true; 2]);
}

/// Its writer may have been killed between its stores and their fence.
#[test]
fn the_last_record_is_stored_again_before_a_superblock_says_that_it_is_there() {
    for len in [0, 100, (1 << 20) + 5000] {
        let log = create(4 << 20);
        append(&log, b"first").unwrap();
        let start = log.record(append(&log, &data(1, len)).unwrap()).unwrap().offset - 64;
        let opened = open(&image(&log));
        let events = opened.medium().memory.borrow_mut().take_events();
        let is_of_superblock = |event: &Event| matches!(event, Event::Store(at, _) if *at < RING);
        let before = events.iter().take_while(|event| !is_of_superblock(event));
        let stored: Vec<_> = before
            .clone()
            .filter_map(|event| match event {
                Event::Store(at, bytes) => Some(*at..*at + bytes.len()),
                Event::Fence => None,
            })
            .collect();
        assert!((start..start + 64 + len).step_by(64).all(|line| stored.iter().any(|store| store.contains(&line))));
        assert_eq!(before.last(), Some(&Event::Fence), "{len} bytes");
        assert_eq!(records(&opened), records(&log));
        let again = open(&image(&opened));
        assert!(again.medium().memory.borrow_mut().take_events().iter().all(|event| match event {
            Event::Store(at, _) => !(start..start + 64 + len).contains(at),
            Event::Fence => true,
        }));
    }
}
