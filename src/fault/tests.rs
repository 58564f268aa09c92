//! Faults in every guarded routine, at every distance from its start and on either side, recovered by the handler.

mod teed;
mod vanishing;

use super::arm::{self, Path};
use super::{Cause, Fault, Side};
use crate::abi::{Direction, PAGE_SIZE};
use crate::arch::setting::{Setting, stream_everything};
use crate::arch::tuning::{self, Tuning};
use crate::arch::{self, guard};
use crate::copy;
use crate::iter::IovIter;
use crate::memory::{Backing, Memories, Memory, Segment};

const PAGES: usize = 3;

/// Accessible pages, followed by one that cannot be accessed.
struct Edge(usize);

impl Edge {
    fn new(fill: u8) -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let length = (PAGES + 1) * PAGE_SIZE;
        // SAFETY: maps new anonymous memory at an address that the kernel chooses; the result is checked.
        let addr =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert_ne!(addr, libc::MAP_FAILED);
        // SAFETY: `addr` is the start of the mapping made above, which is writable and `length` bytes long.
        unsafe { addr.cast::<u8>().write_bytes(fill, length) };
        // SAFETY: the range is the last page of the mapping made above, to which nobody refers.
        let result = unsafe { libc::mprotect(addr.wrapping_byte_add(PAGES * PAGE_SIZE), PAGE_SIZE, libc::PROT_NONE) };
        assert_eq!(result, 0);
        Self(addr.expose_provenance())
    }

    fn end(&self) -> usize {
        self.0 + PAGES * PAGE_SIZE
    }

    fn byte(&self, at: usize) -> u8 {
        // SAFETY: every caller stays below the end of the accessible pages.
        unsafe { std::ptr::with_exposed_provenance::<u8>(self.0 + at).read_volatile() }
    }

    fn fill(&self, from: usize, len: usize, byte: u8) {
        // SAFETY: every caller stays below the end of the accessible pages.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(self.0 + from).write_bytes(byte, len) };
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.0), (PAGES + 1) * PAGE_SIZE) };
    }
}

/// Every distance within three lines, and the start of every line of two iterations of the longest loop.
fn distances() -> impl Iterator<Item = usize> {
    (0..200).chain((256..=896).step_by(arch::LINE)).chain([255, 257, 319, 600, 4095, 4096, 4097])
}

/// How far a copy was to go on behind the fault: less, and more, than its longest loop needs.
const BEYOND: [usize; 2] = [100, 700];

const SKEWS: [usize; 6] = [0, 1, 7, 33, 40, 63];

/// Arms this thread for memory that may vanish. `None` if the instruction set does not recover faults.
fn armed() -> Option<Path> {
    let path = arm::arm(Backing::Mapping).unwrap();
    assert_eq!(matches!(path, Path::Direct(_)), arch::RECOVERS);
    arch::RECOVERS.then_some(path)
}

#[test]
fn a_source_that_ends_is_copied_to_its_last_byte_and_no_further() {
    let Some(_path) = armed() else { return };
    let source = Edge::new(7);
    let target = Edge::new(0);
    for set in arch::available() {
        for (before, beyond) in distances().flat_map(|before| BEYOND.map(|beyond| (before, beyond))) {
            for skew in SKEWS {
                target.fill(0, before + skew + beyond + 100, 0);
                // SAFETY: the destination lies in a mapping of this test, to which no reference exists; the caller's
                // `armed` path holds the handler in place for bad memory on either side.
                let stop = unsafe { guard::copy(set, target.0 + skew, source.end() - before, before + beyond) };
                let case = (set.name, before, beyond, skew);
                let stop = stop.expect("the page behind is protected");
                let expected = (target.0 + skew + before, source.end(), beyond, 0, false);
                assert_eq!((stop.dst, stop.src, stop.left, stop.readable, stop.is_store), expected, "{case:?}");
                assert!((skew..skew + before).all(|at| target.byte(at) == 7), "{case:?}");
                assert!((skew + before..skew + before + beyond).all(|at| target.byte(at) == 0), "{case:?}");
                let fault = Fault::from_signal(&stop.trap, false, stop.dst, stop.src);
                assert_eq!((fault.side, fault.cause(), fault.address), (Side::Source, Cause::Protection, source.end()));
            }
        }
    }
}

#[test]
fn a_destination_that_ends_is_written_to_its_last_byte() {
    let Some(_path) = armed() else { return };
    let source = Edge::new(7);
    let target = Edge::new(0);
    for set in arch::available() {
        for (before, beyond) in distances().flat_map(|before| BEYOND.map(|beyond| (before, beyond))) {
            for skew in SKEWS {
                let start = PAGES * PAGE_SIZE - before;
                target.fill(start, before, 0);
                // SAFETY: the destination lies in a mapping of this test, to which no reference exists; the caller's
                // `armed` path holds the handler in place for bad memory on either side.
                let stop = unsafe { guard::copy(set, target.end() - before, source.0 + skew, before + beyond) };
                let case = (set.name, before, beyond, skew);
                let stop = stop.expect("the page behind is protected");
                let expected = (target.end(), source.0 + skew + before, beyond, 0, true);
                assert_eq!((stop.dst, stop.src, stop.left, stop.readable, stop.is_store), expected, "{case:?}");
                assert!((start..start + before).all(|at| target.byte(at) == 7), "{case:?}");
                target.fill(start, before, 9);
                // SAFETY: the destination lies in a mapping of this test, to which no reference exists; the caller's
                // `armed` path holds the handler in place for bad memory on either side.
                let stop = unsafe { guard::zero(set, target.end() - before, before + beyond) };
                assert_eq!(stop.map(|stop| (stop.dst, stop.left)), Some((target.end(), beyond)), "zero {case:?}");
                assert!((start..start + before).all(|at| target.byte(at) == 0), "zero {case:?}");
            }
        }
    }
}

#[test]
fn a_stream_that_faults_is_exact_at_every_place_in_a_line() {
    let Some(_path) = armed() else { return };
    let (source, target) = (Edge::new(7), Edge::new(0));
    for (set, before) in arch::available().flat_map(|set| distances().map(move |before| (set, before))) {
        for (skew, beyond) in (0..arch::LINE).flat_map(|skew| [1, 2, 3, 100].map(|beyond| (skew, beyond))) {
            let (len, case) = (before + beyond, (set.name, before, skew, beyond));
            target.fill(0, skew + len, 0);
            // SAFETY: the destination lies in a mapping of this test, to which no reference exists; the caller's
            // `armed` path holds the handler in place for bad memory on either side.
            let stop = unsafe { guard::copy_nontemporal(set, target.0 + skew, source.end() - before, len) };
            arch::store_fence();
            let stop = stop.expect("the page behind is protected");
            let done = len - stop.left;
            assert!(!stop.is_store && done + stop.readable == before, "{case:?}");
            assert_eq!((stop.dst, stop.src), (target.0 + skew + done, source.end() - stop.readable), "{case:?}");
            let expected = |at| if (skew..skew + done).contains(&at) { 7 } else { 0 };
            assert!((0..skew + len).all(|at| target.byte(at) == expected(at)), "{case:?}");

            let mut written = PAGES * PAGE_SIZE - before..PAGES * PAGE_SIZE;
            target.fill(written.start, before, 0);
            // SAFETY: the destination lies in a mapping of this test and in the inaccessible page behind it; the
            // `armed` path holds the handler in place.
            let stop = unsafe { guard::copy_nontemporal(set, target.end() - before, source.0 + skew, len) };
            arch::store_fence();
            let stop = stop.expect("the page behind is protected");
            let expected = (target.end(), source.0 + skew + before, beyond, true);
            assert_eq!((stop.dst, stop.src, stop.left, stop.is_store), expected, "{case:?}");
            assert!(written.all(|at| target.byte(at) == 7), "{case:?}");

            // SAFETY: the destination lies in a mapping of this test, to which no reference exists; the caller's
            // `armed` path holds the handler in place for bad memory on either side.
            let stop = unsafe { guard::copy_nontemporal(set, target.end() + skew, source.0, len) }
                .expect("nothing can be written");
            assert_eq!((stop.dst, stop.src, stop.left), (target.end() + skew, source.0, len), "{case:?}");
        }
    }
}

#[test]
fn long_copies_that_fault_are_exact_strings_or_not() {
    let Some(_path) = armed() else { return };
    let _setting = Setting::keep();
    tuning::set(Tuning { far_from: usize::MAX, unaided_from: 0, ..tuning::current() });
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let length = 1 << 20;
    // SAFETY: maps new anonymous memory at an address that the kernel chooses; the result is checked.
    let addr = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert_ne!(addr, libc::MAP_FAILED);
    let source = addr.expose_provenance();
    let mut target = vec![0_u8; length + 128];
    let target = target.as_mut_ptr().expose_provenance().next_multiple_of(64);
    for bad in [9, 17, 160] {
        let hole = addr.wrapping_byte_add(bad * PAGE_SIZE);
        // SAFETY: the range is a page of the mapping made above, to which nobody refers.
        assert_eq!(unsafe { libc::mprotect(hole, PAGE_SIZE, libc::PROT_NONE) }, 0);
        for set in arch::available() {
            for (from, to) in [(0, 0), (0, 17), (5, 0), (64, 64), (63, 62)] {
                let (done, case) = (bad * PAGE_SIZE - from, (set.name, bad, from, to));
                let expected = (target + to + done, source + from + done, length - 64 - done, false);
                // SAFETY: the destination lies in a mapping of this test, to which no reference exists; the caller's
                // `armed` path holds the handler in place for bad memory on either side.
                let stop = unsafe { guard::copy(set, target + to, source + from, length - 64) };
                let stop = stop.expect("protected");
                assert_eq!((stop.dst, stop.src, stop.left, stop.is_store), expected, "copy {case:?}");
                // SAFETY: as the copy just made, and by the same handler.
                let stop = unsafe { guard::copy_nontemporal(set, target + to, source + from, length - 64) };
                arch::store_fence();
                let stop = stop.expect("protected");
                let more = stop.readable;
                let reached = (stop.dst + more, stop.src + more, stop.left - more, stop.is_store);
                assert_eq!(reached, expected, "stream {case:?}");
            }
        }
        // SAFETY: the destination lies in a mapping of this test, to which no reference exists; the caller's `armed`
        // path holds the handler in place for bad memory on either side.
        assert_eq!(unsafe { libc::mprotect(hole, PAGE_SIZE, libc::PROT_READ) }, 0);
    }
    // SAFETY: the range is the mapping made above, which is not used any more.
    unsafe { libc::munmap(addr, length) };
}

fn at(memory: &mut [u8], len: usize) -> Segment {
    Segment::new(memory[..len].as_mut_ptr().expose_provenance(), len)
}

#[test]
fn a_copy_too_long_for_the_caches_stops_at_the_exact_byte() {
    let _setting = Setting::keep();
    // Tests that run at the same time may see this setting; it changes no result.
    stream_everything();
    let source = Edge::new(7);
    for set in arch::available() {
        arch::choose(set.name);
        for before in (0..130).chain([1000, 1023, 1024, 1100, 4095, 4097, 8000]) {
            for skew in [0, 1, 4, 33, 63] {
                let mut arena = vec![0_u8; 12_000];
                let wanted = before + 2000;
                let out = arena.as_ptr().align_offset(64) + skew;
                // SAFETY: the range lies in an arena of this test, which stays mapped until the copy is done.
                let target = unsafe { Memory::new(at(&mut arena[out..], wanted), Backing::Heap) };
                // SAFETY: the range lies in a vector of this test, which outlives the copy; the copy only reads it.
                let wild = unsafe { Memory::new(Segment::new(source.end() - before, wanted), Backing::Unchecked) };
                let mut to = IovIter::ubuf(Direction::Dest, target, None).unwrap();
                assert_eq!(copy::copy_to_iter(wild, &mut to, wanted), Ok(before), "{} {before} {skew}", set.name);
                assert_eq!(to.fault.as_ref().map(|fault| fault.offset), Some(before));
                assert!(arena[out..out + before].iter().all(|byte| *byte == 7), "{} {before} {skew}", set.name);
                assert_eq!(arena.iter().filter(|byte| **byte != 0).count(), before, "{} {before} {skew}", set.name);
            }
        }
    }
}

/// Long segments, of which the next is prefetched in parts while one is copied.
#[test]
fn a_gather_too_long_for_the_caches_stops_at_the_exact_byte_of_a_segment() {
    let _setting = Setting::keep();
    stream_everything();
    let source = Edge::new(0);
    let byte = |at: usize| (at * 7 + at / 256) as u8 | 1;
    (0..PAGES * PAGE_SIZE).for_each(|at| source.fill(at, 1, byte(at)));
    for set in arch::available() {
        arch::choose(set.name);
        for (before, skew) in
            [0, 1, 63, 1000, 1023, 1024, 1100, 2050, 4097].into_iter().flat_map(|b| [0, 1, 33, 63].map(|s| (b, s)))
        {
            let end = PAGES * PAGE_SIZE;
            let places = [(8000, 2500), (end - before, before + 3000), (5, 3000), (4001, 1100), (3000, 2000)];
            let segs = places.map(|(at, len)| Segment::new(source.0 + at, len));
            let wanted: usize = places.iter().map(|(_, len)| len).sum();
            let good: Vec<u8> = (8000..8000 + 2500).chain(end - before..end).map(byte).collect();
            let mut arena = vec![0_u8; wanted + 200];
            let out = arena.as_ptr().align_offset(64) + skew;
            // SAFETY: the range lies in an arena of this test, which stays mapped until the copy is done.
            let target = unsafe { Memory::new(at(&mut arena[out..], wanted), Backing::Heap) };
            // SAFETY: the copy only reads from them.
            let segs = unsafe { Memories::new(segs.as_slice(), Backing::Unchecked) };
            let mut from = IovIter::iovec(Direction::Source, segs, None).unwrap();
            let case = (set.name, before, skew);
            assert_eq!(copy::copy_from_iter(target, &mut from, wanted), Ok(good.len()), "{case:?}");
            assert_eq!(from.fault.as_ref().map(|fault| fault.offset), Some(good.len()), "{case:?}");
            assert_eq!(arena[out..out + good.len()], good, "{case:?}");
            assert_eq!(arena.iter().filter(|byte| **byte != 0).count(), good.len(), "{case:?}");
        }
    }
}
