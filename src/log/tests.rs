//! What a log is worth after a loss of power: its own code over a recorder of lines and fences, and every image that
//! may be on the medium then.

use super::format::{Line, RING};
use super::recover::Source;
use super::{Failure, Medium, Open, PmemLog};
use crate::abi::Direction;
use crate::copy::framed::recorded::{Event, Recorded, images};
use crate::copy::{Outcome, crc32c};
use crate::error::Result;
use crate::fault::{Fault, Side};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A ring of 16 lines behind the superblocks.
const SIZE: usize = super::format::SMALLEST;

/// Memory whose stores are recorded. What cannot be written to is remembered as damage of so many bytes.
struct Fake {
    memory: RefCell<Recorded>,
    bad: RefCell<Option<(usize, usize)>>,
    /// What a writer makes of it meanwhile: after so many reads it holds something else.
    meanwhile: RefCell<Option<(usize, Vec<u8>)>>,
}

impl Fake {
    fn new(image: &[u8]) -> Self {
        let memory = RefCell::new(Recorded::new(image));
        Self { memory, bad: RefCell::default(), meanwhile: RefCell::default() }
    }
}

fn fault(is_whole: bool) -> Option<Box<Fault>> {
    (!is_whole).then(|| Box::new(Fault::cut(Side::Destination, Segment::new(0, 1), 0)))
}

impl Source for Fake {
    fn read(&self, offset: usize, own: &mut [u8]) -> Result<Outcome> {
        if let Some((left, image)) = &mut *self.meanwhile.borrow_mut() {
            if *left == 0 {
                *self.memory.borrow_mut() = Recorded::new(image);
            }
            *left = left.wrapping_sub(1);
        }
        own.copy_from_slice(&self.memory.borrow().contents()[offset..offset + own.len()]);
        Ok((own.len(), None))
    }
}

impl Medium for Fake {
    fn size(&self) -> usize {
        self.memory.borrow().contents().len()
    }

    fn write(&self, offset: usize, own: &[u8]) -> Result<Outcome> {
        let done = self.memory.borrow_mut().write(offset, own);
        Ok((done, fault(done == own.len())))
    }

    fn write_framed(&self, offset: usize, len: usize, i: &mut IovIter, line: &dyn Fn(u32) -> Line) -> Result<Outcome> {
        let before = i.count();
        let is_whole = self.memory.borrow_mut().write_framed(offset, i, line);
        if !is_whole {
            i.take_back(before - i.count())?;
        }
        Ok((if is_whole { len } else { 0 }, fault(is_whole)))
    }

    fn damage(&self, _fault: &Fault) -> Option<(usize, usize)> {
        *self.bad.borrow()
    }

    fn is_writer(&self) -> bool {
        true
    }
}

type Log = PmemLog<Fake>;

fn create(size: usize) -> Log {
    PmemLog::open(Fake::new(&vec![0; size]), Open::Create).unwrap()
}

fn open(image: &[u8]) -> Log {
    PmemLog::open(Fake::new(image), Open::Write).unwrap()
}

fn image(log: &Log) -> Vec<u8> {
    log.medium().memory.borrow().contents().to_vec()
}

fn over(bytes: &mut [u8], direction: Direction) -> IovIter {
    let seg = Segment::new(bytes.as_mut_ptr().expose_provenance(), bytes.len());
    // SAFETY: the callers keep the bytes, and do not look at them, until they are done with the iterator.
    IovIter::ubuf(direction, unsafe { Memory::new(seg, Backing::Heap) }, None).unwrap()
}

fn append(log: &Log, data: &[u8]) -> std::result::Result<u64, Failure> {
    let mut bytes = data.to_vec();
    log.append(&mut over(&mut bytes, Direction::Source))
}

fn read(log: &Log, sequence: u64) -> std::result::Result<Vec<u8>, Failure> {
    let record = log.record(sequence)?;
    let mut bytes = vec![0; record.length];
    log.read_into(&record, &mut over(&mut bytes, Direction::Dest))?;
    Ok(bytes)
}

/// Every record, by its number: `None` where it is corrupt.
fn records(log: &Log) -> BTreeMap<u64, Option<Vec<u8>>> {
    let numbers = log.numbers().unwrap();
    let look = |sequence| match read(log, sequence) {
        Ok(data) => (sequence, Some(data)),
        Err(Failure::Corrupt { .. }) => (sequence, None),
        Err(failure) => panic!("record {sequence}: {failure:?}"),
    };
    (numbers.first..numbers.end).map(look).collect()
}

fn data(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed * 101 + at * 7 + at / 64 * 3) as u8 | 1).collect()
}

#[test]
fn whatever_reaches_the_medium_an_append_is_there_whole_or_not_at_all() {
    let log = create(SIZE);
    let mut known = BTreeMap::new();
    for step in 0..40_u64 {
        let len = [0, 1, 64, 200, 30, 128, 300, 65][step as usize % 8];
        while log.numbers().unwrap().free < len as u64 {
            let first = log.numbers().unwrap().first;
            log.discard_before(first + 1).unwrap();
            known.remove(&first);
        }
        let before = image(&log);
        log.medium().memory.borrow_mut().take_events();
        let sequence = append(&log, &data(step, len)).unwrap();
        let events = log.medium().memory.borrow_mut().take_events();
        assert_eq!(events.iter().filter(|event| **event == Event::Fence).count(), 1, "one fence an append");
        let mut after = known.clone();
        after.insert(sequence, Some(data(step, len)));
        let mut seen = [false; 2];
        images(&before, &events, |image| {
            let log = open(image);
            let found = records(&log);
            assert!(found == known || found == after, "step {step}: {:?}", found.keys());
            seen[usize::from(found == after)] = true;
            // What was cut does not come back, whatever is appended in its place.
            if found == known && log.numbers().unwrap().free >= 64 {
                append(&log, b"another").unwrap();
                let again = records(&open(&super::tests::image(&log)));
                assert_eq!(again.get(&sequence), Some(&Some(b"another".to_vec())));
            }
        });
        assert_eq!(seen, [true; 2]);
        known = after;
    }
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
        torn += usize::from(super::header::Header::decode(header).is_some() && !is_whole);
    });
    assert_eq!(torn, 3, "of the eight images three have the header without all of the data");
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
    // A superblock is 64 lines, most of which never change: only those that do can tell images apart.
    let mut settled = before.clone();
    let mut changing = Vec::new();
    for event in events {
        match &event {
            Event::Store(at, bytes) if settled[*at..*at + bytes.len()] == **bytes => {}
            Event::Store(at, bytes) => {
                settled[*at..*at + bytes.len()].copy_from_slice(bytes);
                changing.push(event);
            }
            Event::Fence => changing.push(event),
        }
    }
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
fn a_reader_follows_through_laps_and_is_told_when_it_was_overtaken() {
    let log = create(SIZE);
    append(&log, b"first").unwrap();
    let reader = PmemLog::open(Fake::new(&image(&log)), Open::Read).unwrap();
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

#[test]
fn a_reader_that_saw_a_record_which_was_withdrawn_follows_the_one_in_its_place() {
    for (seen, instead) in [(300, 10), (10, 300), (64, 64)] {
        let log = create(SIZE);
        append(&log, b"first").unwrap();
        let without = image(&log);
        append(&log, &data(1, seen)).unwrap();
        let reader = PmemLog::open(Fake::new(&image(&log)), Open::Read).unwrap();
        let stale = reader.record(1).unwrap();
        assert_eq!(read(&reader, 1).unwrap(), data(1, seen));
        // The msync failed: the record is erased, and its number is given to another one.
        let log = open(&without);
        append(&log, &data(2, instead)).unwrap();
        append(&log, &data(3, 100)).unwrap();
        *reader.medium().memory.borrow_mut() = Recorded::new(&image(&log));
        let mut bytes = vec![0; seen];
        let late = reader.read_into(&stale, &mut over(&mut bytes, Direction::Dest));
        assert!(matches!(late, Err(Failure::Changed)), "{late:?}");
        assert_eq!(records(&reader), records(&log), "{seen} {instead}");
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
        image = super::tests::image(&log);
    }
    assert_eq!(append(&open(&image), b"next").unwrap(), 6);
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
            let numbers = reader.numbers().unwrap();
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
