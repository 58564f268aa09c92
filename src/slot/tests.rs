//! What readers may find of a publication: the slot's own code over a recorder of lines and fences, and every image
//! that a reader without coherence may see, or that a killed writer may leave.

use super::header::{self, INLINE, Line};
use super::{Failure, Medium, Slot, size_for};
use crate::abi::Direction;
use crate::arch::LINE;
use crate::copy::framed::recorded::{Event, Recorded, images};
use crate::copy::sums::{Sums, self_summed};
use crate::copy::{Outcome, uncached};
use crate::error::Result;
use crate::fault::{Fault, Side};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

mod readers;

/// Buffers of eleven lines.
const CAPACITY: usize = 11 * LINE;

/// Memory whose stores are recorded, how often data were read from it, and what happens beside.
struct Fake(RefCell<Recorded>, Cell<usize>, Beside);

/// What a writer makes of the memory meanwhile, and which of it was evicted.
#[derive(Default)]
struct Beside {
    /// What the memory is before data are read, and what it is behind that, each time.
    before: RefCell<VecDeque<Vec<u8>>>,
    behind: RefCell<VecDeque<Vec<u8>>>,
    /// The range evicted before the header was read the last time, and the one since.
    evicted: Cell<[(usize, usize); 2]>,
    /// Whether data were in each of those, for each time that they were read.
    were_evicted: RefCell<Vec<[bool; 2]>>,
}

impl Fake {
    fn becomes(&self, images: &RefCell<VecDeque<Vec<u8>>>) {
        if let Some(image) = images.borrow_mut().pop_front() {
            *self.0.borrow_mut() = Recorded::new(&image);
        }
    }

    fn outcome(done: usize, len: usize) -> Outcome {
        let fault = || Box::new(Fault::truncated(Side::Destination, Segment::new(0, 1), 0));
        (if done == len { len } else { 0 }, (done != len).then(fault))
    }
}

impl Medium for Fake {
    fn size(&self) -> usize {
        self.0.borrow().contents().len()
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn reload(&self, len: usize, line: &mut Line) -> Result<Outcome> {
        self.2.evicted.set([(0, len), (0, 0)]);
        Ok((len + self.read_line(line)?.0, None))
    }

    fn invalidate(&self, offset: usize, len: usize) -> Result<Outcome> {
        self.2.evicted.set([self.2.evicted.get()[0], (offset, offset + len)]);
        Ok((LINE + len, None))
    }

    fn read_line(&self, line: &mut Line) -> Result<Outcome> {
        line.copy_from_slice(&self.0.borrow().contents()[..LINE]);
        Ok((LINE, None))
    }

    fn read_line_again(&self, line: &mut Line) -> Result<Outcome> {
        self.read_line(line)
    }

    fn write_line(&self, line: &Line) -> Result<Outcome> {
        Ok(Self::outcome(self.0.borrow_mut().write(0, line), LINE))
    }

    fn read(&self, offset: usize, len: usize, i: &mut IovIter) -> Result<(usize, Sums)> {
        self.1.set(self.1.get() + 1);
        let covers = |(start, end)| start <= offset && offset + len <= end;
        self.2.were_evicted.borrow_mut().push(self.2.evicted.get().map(covers));
        self.becomes(&self.2.before);
        let mut bytes = self.0.borrow().contents()[offset..offset + len].to_vec();
        self.becomes(&self.2.behind);
        uncached::copy_uncached_to_iter(over(&mut bytes), i, len)
    }

    fn write(&self, offset: usize, i: &mut IovIter, line: &dyn Fn(Sums) -> Line) -> Result<Outcome> {
        let before = i.count();
        let is_whole = self.0.borrow_mut().write_published(offset, i, line);
        if !is_whole {
            i.take_back(before - i.count())?;
        }
        Ok(Self::outcome(if is_whole { before } else { 0 }, before))
    }
}

fn over(bytes: &mut [u8]) -> Memory {
    let seg = Segment::new(bytes.as_mut_ptr().expose_provenance(), bytes.len());
    // SAFETY: the tests keep the bytes, and do not look at them while they are copied.
    unsafe { Memory::new(seg, Backing::Heap) }
}

fn slot(image: &[u8]) -> Slot<Fake> {
    Slot::over(Fake(RefCell::new(Recorded::new(image)), Cell::new(0), Beside::default()), CAPACITY)
}

fn empty() -> Slot<Fake> {
    slot(&vec![0; size_for(CAPACITY).unwrap()])
}

fn image(slot: &Slot<Fake>) -> Vec<u8> {
    slot.medium.0.borrow().contents().to_vec()
}

fn publish(slot: &Slot<Fake>, data: &[u8]) -> std::result::Result<u64, Failure> {
    let mut bytes = data.to_vec();
    slot.publish(&mut IovIter::whole(Direction::Source, over(&mut bytes)))
}

fn consume(slot: &Slot<Fake>, newer_than: u64) -> std::result::Result<(Vec<u8>, u64), Failure> {
    let mut bytes = vec![0; CAPACITY];
    let mut i = IovIter::whole(Direction::Dest, over(&mut bytes));
    let (len, sequence) = slot.consume(&mut i, newer_than)?;
    bytes.truncate(len);
    Ok((bytes, sequence))
}

fn data(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed * 101 + at * 7 + at / 64 * 3) as u8 | 1).collect()
}

/// What was stored by a publication, and the fences between.
fn events_of(slot: &Slot<Fake>, data: &[u8]) -> Vec<Event> {
    slot.medium.0.borrow_mut().take_events();
    publish(slot, data).unwrap();
    slot.medium.0.borrow_mut().take_events()
}

const LENGTHS: [usize; 8] = [0, 1, INLINE, INLINE + 1, 64, 65, 300, CAPACITY];

#[test]
fn whatever_has_left_the_caches_a_reader_gets_the_last_publication_or_the_one_before_whole() {
    let slot = empty();
    let mut known = (vec![], 0);
    for step in 0..40 {
        let len = LENGTHS[step as usize * 5 % 8];
        let before = image(&slot);
        let events = events_of(&slot, &data(step, len));
        let fences = events.iter().filter(|event| **event == Event::Fence).count();
        assert_eq!(fences, if len <= INLINE { 1 } else { 2 }, "{len} bytes");
        assert_eq!(events.last(), Some(&Event::Fence), "the header has left the caches when it returns");
        let after = (data(step, len), step + 1);
        let mut seen = [false; 2];
        images(&before, &events, |image| {
            let found = consume(&self::slot(image), 0).unwrap();
            assert!(found == known || found == after, "step {step}: publication {}", found.1);
            seen[usize::from(found == after)] = true;
        });
        assert_eq!(seen, [true; 2]);
        known = after;
    }
}

/// The order broken on purpose: the same stores, but for the fence between the data and the header.
fn publish_with_one_fence(data: impl Fn(u64) -> Vec<u8>) {
    let slot = empty();
    for step in 0..2 {
        publish(&slot, &data(step)).unwrap();
    }
    let before = image(&slot);
    let mut events = events_of(&slot, &data(2));
    let first = events.iter().position(|event| *event == Event::Fence).unwrap();
    events.remove(first);
    let (mut torn, mut whole) = (0, 0);
    images(&before, &events, |image| match consume(&self::slot(image), 2) {
        Err(Failure::Torn) => torn += 1,
        Ok((found, sequence)) => whole += usize::from(sequence == 3 && found == data(2)),
        Err(failure) => panic!("{failure:?}"),
    });
    // The header with some of the four lines of data, but not all: half of the images but one. At the fence behind, all
    // are there.
    assert_eq!((torn, whole), (15, 2));
}

#[test]
fn a_header_that_may_leave_before_its_data_is_noticed() {
    publish_with_one_fence(|step| data(step, 200));
}

#[test]
fn it_is_noticed_too_if_the_data_end_in_a_crc32c_of_their_own() {
    publish_with_one_fence(|step| self_summed(step, 4, 64));
    publish_with_one_fence(|step| self_summed(step, 1, 200));
}

#[test]
fn a_writer_that_stops_anywhere_before_its_header_leaves_the_publication_before() {
    let slot = empty();
    for sequence in 1..5 {
        publish(&slot, &data(sequence, 100)).unwrap();
    }
    let mut bytes = image(&slot);
    let next = slot.offset(5);
    bytes[next..next + CAPACITY].fill(0xee);
    let slot = self::slot(&bytes);
    assert_eq!(consume(&slot, 0).unwrap(), (data(4, 100), 4));
    assert_eq!(publish(&slot, &data(5, 30)).unwrap(), 5);
    assert_eq!(consume(&slot, 4).unwrap(), (data(5, 30), 5));
    assert_eq!(consume(&slot, 5).unwrap(), (vec![], 5));
}

#[test]
fn a_header_torn_at_any_words_is_no_publication_and_the_numbers_go_on_behind_it() {
    let slot = empty();
    for step in 0..6 {
        publish(&slot, &data(step, 20)).unwrap();
    }
    let before = image(&slot);
    publish(&slot, &data(6, 200)).unwrap();
    let after = image(&slot);
    for chosen in 0..256_u32 {
        let mut torn = after.clone();
        for word in (0..8).filter(|word| chosen >> word & 1 == 0) {
            torn[word * 8..word * 8 + 8].copy_from_slice(&before[word * 8..word * 8 + 8]);
        }
        let slot = self::slot(&torn);
        let line: Line = torn[..LINE].try_into().unwrap();
        let last = header::last_sequence(&line, 0).unwrap();
        assert!(last == 6 || last == 7, "words {chosen:b}");
        match consume(&slot, 0) {
            Ok(found) => assert!(found == (data(5, 20), 6) || found == (data(6, 200), 7), "words {chosen:b}"),
            Err(failure) => assert!(matches!(failure, Failure::Torn), "words {chosen:b}"),
        }
        assert_eq!(publish(&slot, &data(7, 300)).unwrap(), last + 1);
        assert_eq!(consume(&slot, 6).ok(), if last == 6 { Some((data(7, 300), 7)) } else { Some((data(7, 300), 8)) });
    }
}

/// Each unit is a word or two of the line, so that a line torn between them has the CRC-32C of either publication.
#[test]
fn a_header_torn_at_any_words_is_no_publication_if_its_data_end_in_a_crc32c_of_their_own() {
    for (units, len) in [(4, 8), (2, 16), (1, 32)] {
        let slot = empty();
        for step in 0..6 {
            publish(&slot, &self_summed(step, units, len)).unwrap();
        }
        let before = image(&slot);
        publish(&slot, &self_summed(6, units, len)).unwrap();
        let after = image(&slot);
        let mut torn = 0;
        for chosen in 0..256_u32 {
            let mut bytes = after.clone();
            for word in (0..8).filter(|word| chosen >> word & 1 == 0) {
                bytes[word * 8..word * 8 + 8].copy_from_slice(&before[word * 8..word * 8 + 8]);
            }
            torn += usize::from(header::Header::decode(bytes[..LINE].try_into().unwrap()).is_some());
            match consume(&self::slot(&bytes), 0) {
                Ok(found) => {
                    let is_whole = [6, 7].map(|number| (self_summed(number - 1, units, len), number)).contains(&found);
                    assert!(is_whole, "words {chosen:b}: publication {}", found.1);
                }
                Err(failure) => assert!(matches!(failure, Failure::Torn), "words {chosen:b}"),
            }
        }
        assert!(torn > 4, "of the torn headers, {torn} have the right sum of their own");
    }
}

/// A header as an earlier version stores it, or with sums that are wrong.
#[test]
fn the_second_sum_is_checked_where_there_is_one() {
    for len in [0, 1, INLINE, INLINE + 1, 300] {
        let slot = empty();
        publish(&slot, &data(1, len)).unwrap();
        let with = |change: fn(&mut header::Header)| {
            let mut bytes = image(&slot);
            let mut header = header::Header::decode(bytes[..LINE].try_into().unwrap()).unwrap();
            change(&mut header);
            bytes[..LINE].copy_from_slice(&header.encode());
            consume(&self::slot(&bytes), 0)
        };
        assert_eq!(with(|header| header.sums.crc64 = 0).unwrap(), (data(1, len), 1), "{len} bytes");
        assert!(matches!(with(|header| header.sums.crc64 ^= 2), Err(Failure::Torn)), "{len} bytes");
        assert!(matches!(with(|header| header.sums.crc32c ^= 2), Err(Failure::Torn)), "{len} bytes");
    }
}

#[test]
fn memory_that_cannot_be_written_leaves_the_publication_before_unless_it_is_the_header() {
    let slot = empty();
    publish(&slot, &data(1, 200)).unwrap();
    for from in [slot.offset(2), slot.offset(2) + 64, slot.offset(2) + 192] {
        slot.medium.0.borrow_mut().fail_from(from);
        assert!(matches!(publish(&slot, &data(2, 200)), Err(Failure::Fault(..))));
        assert_eq!(consume(&slot, 0).unwrap(), (data(1, 200), 1));
    }
    slot.medium.0.borrow_mut().fail_from(usize::MAX);
    assert_eq!(publish(&slot, &data(2, 200)).unwrap(), 2);
    assert_eq!(consume(&slot, 0).unwrap(), (data(2, 200), 2));
}

#[test]
fn damaged_data_are_read_a_few_times_and_no_more() {
    let slot = empty();
    publish(&slot, &data(1, 300)).unwrap();
    let mut bytes = image(&slot);
    bytes[slot.offset(1) + 77] ^= 4;
    let slot = self::slot(&bytes);
    assert!(matches!(consume(&slot, 0), Err(Failure::Torn)));
    assert_eq!(slot.medium.1.get(), super::SAME);
}

#[test]
fn the_last_number_there_is_is_refused() {
    let mut line = header::Header { sequence: u64::MAX - 1, length: 0, sums: Sums::of_bytes(b""), data: [0; INLINE] }
        .encode()
        .to_vec();
    line.resize(size_for(CAPACITY).unwrap(), 0);
    let slot = self::slot(&line);
    assert_eq!(publish(&slot, b"last").unwrap(), u64::MAX);
    assert!(matches!(publish(&slot, b"none"), Err(Failure::Refused(_))));
    assert_eq!(consume(&slot, 7).unwrap(), (b"last".to_vec(), u64::MAX));
}
