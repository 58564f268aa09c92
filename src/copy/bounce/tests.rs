//! Overlap in every shape, in every way a copy can be made, with and without a fault: against a model that knows slices
//! alone.

use crate::abi::{Direction, PAGE_SIZE};
use crate::arch;
use crate::arch::setting::Setting;
use crate::copy::chunk::POISON;
use crate::copy::flushcache::{
    copy_from_iter_flushcache, copy_from_iter_nocache, copy_to_iter_flushcache, memcpy_flushcache, memcpy_nocache,
};
use crate::copy::mcsafe::{copy_to_iter_mcsafe, memcpy_mcsafe};
use crate::copy::{
    BlockCopy, Outcome, copy_from_iter, copy_iter, copy_to_iter, csum_and_copy_from_iter, csum_and_copy_to_iter, memcpy,
};
use crate::error::Result;
use crate::fault::arm::{self, Path};
use crate::fault::map::shared::KnownBad;
use crate::iter::IovIter;
use crate::memory::{Backing, Memories, Memory, Segment};

/// Anonymous pages, of which the last cannot be accessed.
struct Pages {
    start: usize,
    len: usize,
}

impl Pages {
    fn new(pages: usize) -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let len = pages * PAGE_SIZE;
        // SAFETY: a new anonymous mapping; the result is checked.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len + PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: the last page of the mapping just made.
        assert_eq!(unsafe { libc::mprotect(start.wrapping_byte_add(len), PAGE_SIZE, libc::PROT_NONE) }, 0);
        Self { start: start.expose_provenance(), len }
    }

    fn set(&self, contents: &[u8]) {
        // SAFETY: the accessible pages, which nobody else uses.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(self.start).copy_from(contents.as_ptr(), self.len) };
    }

    fn get(&self) -> Vec<u8> {
        // SAFETY: the accessible pages, which nobody changes meanwhile.
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(self.start), self.len) }.to_vec()
    }

    /// A range, which may leave the accessible pages.
    fn at(&self, at: usize, len: usize) -> Memory {
        // SAFETY: a range of the mapping, which stays; no reference is made to it while a copy runs.
        unsafe { Memory::new(Segment::new(self.start + at, len), Backing::Mapping) }
    }

    /// The same in three segments, one of them empty.
    fn in_segments(&self, at: usize, len: usize) -> Memories {
        let part = len / 3;
        [self.at(at, part), self.at(at + part, 0), self.at(at + part, len - part)].into_iter().collect()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.start), self.len + PAGE_SIZE) };
    }
}

/// Memory that is one range, or several.
enum Shape {
    Flat,
    Segments,
}

impl Shape {
    fn over(&self, pages: &Pages, direction: Direction, at: usize, len: usize) -> IovIter {
        match self {
            Self::Flat => IovIter::ubuf(direction, pages.at(at, len), None),
            Self::Segments => IovIter::iovec(direction, pages.in_segments(at, len), None),
        }
        .unwrap()
    }
}

/// A map that knows nothing of these pages, and one that looks into every copy all the same.
struct Suspicious;

impl KnownBad for Suspicious {
    fn is_empty(&self) -> bool {
        false
    }

    fn is_clear(&self, _asked: [(Segment, crate::fault::map::Access); 2]) -> bool {
        false
    }

    fn first_bad(&self, _seg: Segment, _access: crate::fault::map::Access) -> Option<Segment> {
        None
    }
}

type ToIter = fn(Memory, &mut IovIter, usize) -> Result<usize>;
type FromIter = fn(Memory, &mut IovIter, usize) -> Result<usize>;
type Flat = fn(Memory, Memory) -> Result<Outcome>;

fn by_blocks(src: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    let mut copy = BlockCopy::new(src, i, nbytes, "test")?;
    let mut block = [0; 100];
    while copy.left() != 0 {
        copy.next(&mut block)?;
    }
    Ok(copy.done())
}

const TO_ITER: [(&str, ToIter); 6] = [
    ("copy_to_iter", copy_to_iter),
    ("copy_to_iter_flushcache", copy_to_iter_flushcache),
    ("copy_to_iter_mcsafe", |src, i, n| copy_to_iter_mcsafe(src, i, n, None::<&Suspicious>)),
    ("copy_to_iter_mcsafe, suspicious", |src, i, n| copy_to_iter_mcsafe(src, i, n, Some(&Suspicious))),
    ("csum_and_copy_to_iter", |src, i, n| csum_and_copy_to_iter(src, i, n, 0, 0).map(|(done, _)| done)),
    ("in blocks", by_blocks),
];

const FROM_ITER: [(&str, FromIter); 4] = [
    ("copy_from_iter", copy_from_iter),
    ("copy_from_iter_nocache", copy_from_iter_nocache),
    ("copy_from_iter_flushcache", copy_from_iter_flushcache),
    ("csum_and_copy_from_iter", |dst, i, n| csum_and_copy_from_iter(dst, i, n, 0).map(|(done, _)| done)),
];

const FLAT: [(&str, Flat); 5] = [
    ("memcpy", memcpy),
    ("memcpy_nocache", memcpy_nocache),
    ("memcpy_flushcache", memcpy_flushcache),
    ("memcpy_mcsafe", |dst, src| memcpy_mcsafe(dst, src, None::<&Suspicious>)),
    ("memcpy_mcsafe, suspicious", |dst, src| memcpy_mcsafe(dst, src, Some(&Suspicious))),
];

/// Copies that flush are refused where no instruction writes lines back.
fn can_run(name: &str) -> bool {
    arch::write_back().is_some() || !name.ends_with("_flushcache")
}

/// Moves `len` bytes from one place to another in every way there is; `check` is told the way and the count.
fn every_way(pages: &Pages, dst: usize, src: usize, len: usize, mut check: impl FnMut(&str, usize)) {
    for shape in [Shape::Flat, Shape::Segments] {
        for (name, copy) in TO_ITER.into_iter().filter(|(name, _)| can_run(name)) {
            let mut i = shape.over(pages, Direction::Dest, dst, len);
            let done = copy(pages.at(src, len), &mut i, len).unwrap();
            assert_eq!((i.count(), i.fault.is_some()), (len - done, done < len), "{name}");
            check(name, done);
        }
        for (name, copy) in FROM_ITER.into_iter().filter(|(name, _)| can_run(name)) {
            let mut i = shape.over(pages, Direction::Source, src, len);
            let done = copy(pages.at(dst, len), &mut i, len).unwrap();
            assert_eq!((i.count(), i.fault.is_some()), (len - done, done < len), "{name}");
            check(name, done);
        }
        let mut to = shape.over(pages, Direction::Dest, dst, len);
        let mut from = shape.over(pages, Direction::Source, src, len);
        let done = copy_iter(&mut to, &mut from, len).unwrap();
        assert_eq!((to.count(), from.count(), to.fault.is_some()), (len - done, len - done, done < len));
        check("copy_iter", done);
    }
    for (name, copy) in FLAT.into_iter().filter(|(name, _)| can_run(name)) {
        let (done, fault) = copy(pages.at(dst, len), pages.at(src, len)).unwrap();
        assert_eq!(fault.is_some(), done < len, "{name}");
        check(name, done);
    }
}

/// This thread with the signals of bad memory blocked, so that no fault is recovered in it, until this is dropped.
struct Blocked;

impl Blocked {
    fn new() -> Self {
        change_signals(libc::SIG_BLOCK);
        Self
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        change_signals(libc::SIG_UNBLOCK);
    }
}

/// Blocks or unblocks the signals of bad memory in this thread.
fn change_signals(how: i32) {
    // SAFETY: a sigset is plain bits, for which zeroes are valid.
    let mut signals: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        // SAFETY: the set is ours, and the signal exists.
        unsafe { libc::sigaddset(&raw mut signals, signal) };
    }
    // SAFETY: the set was filled above; the old one is not asked for.
    assert_eq!(unsafe { libc::pthread_sigmask(how, &raw const signals, std::ptr::null_mut()) }, 0);
    arm::invalidate_all();
}

/// Runs `test` under the handler with every instruction set, and where there is no handler for this thread.
fn every_mode(test: impl Fn(&str)) {
    let setting = Setting::keep();
    for set in arch::available() {
        // Tests that keep no setting may run with it meanwhile: it changes no result.
        arch::choose(set.name);
        test(set.name);
    }
    drop(setting);
    let _blocked = Blocked::new();
    assert!(matches!(arm::arm(Backing::Mapping), Ok(Path::Syscalls)));
    test("system calls");
}

/// Bytes of which none is what scratch memory is poisoned with.
fn contents(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 131 + at / 251) % 160) as u8).collect()
}

const DISTANCES: [usize; 17] = [0, 1, 2, 7, 8, 13, 31, 33, 63, 64, 65, 127, 300, 999, 1000, 1500, 4096];

#[test]
fn the_source_reads_as_if_first_at_every_distance() {
    let pages = Pages::new(4);
    let original = contents(pages.len);
    every_mode(|mode| {
        for distance in DISTANCES {
            for (dst, src) in [(1000, 1000 + distance), (1003 + distance, 1003)] {
                for len in [1, 100, 1000, 5000] {
                    let mut expected = original.clone();
                    expected.copy_within(src..src + len, dst);
                    pages.set(&original);
                    every_way(&pages, dst, src, len, |name, done| {
                        assert_eq!(done, len, "{name} {mode} {dst} <- {src}");
                        assert!(pages.get() == expected, "{name} {mode} {len} bytes {dst} <- {src}");
                        pages.set(&original);
                    });
                }
            }
        }
    });
}

/// Whole chunks are given up where a sum is made of them, so there the count may be less than could be copied.
fn is_by_chunks(name: &str) -> bool {
    name.starts_with("csum")
}

#[test]
fn what_could_not_be_read_is_neither_counted_nor_made_up() {
    let pages = Pages::new(4);
    let original = contents(pages.len);
    assert!(!original.contains(&POISON));
    every_mode(|mode| {
        for distance in DISTANCES {
            for (before, gap) in [0, 1, 5, 64, 700, 3000].into_iter().flat_map(|before| [(before, 500), (before, 1)]) {
                // The source leaves the accessible pages after `before` bytes.
                let (src, len) = (pages.len - before, before + 500);
                let dst = src - distance - gap;
                pages.set(&original);
                every_way(&pages, dst, src, len, |name, done| {
                    let case = format!("{name} {mode} {dst} <- {src}, {before} of {len}");
                    assert!(done == before || is_by_chunks(name) && done <= before, "{case}: {done}");
                    let mut expected = original.clone();
                    let written = if is_by_chunks(name) { before } else { done };
                    let now = pages.get();
                    expected.copy_within(src..src + done, dst);
                    assert!(now[..dst + done] == expected[..dst + done], "{case}");
                    assert!(
                        now[dst + written..] == original[dst + written..] || written > 0 && is_by_chunks(name),
                        "{case}"
                    );
                    assert!(!now.contains(&POISON), "{case}");
                    pages.set(&original);
                });
            }
        }
    });
}

#[test]
fn what_could_not_be_written_is_taken_back() {
    let pages = Pages::new(4);
    let original = contents(pages.len);
    every_mode(|mode| {
        for distance in DISTANCES {
            for before in [0, 1, 5, 64, 700, 3000] {
                // The destination leaves the accessible pages after `before` bytes; the source is below it.
                let (dst, len) = (pages.len - before, before + 500);
                let src = dst - 500 - distance;
                pages.set(&original);
                every_way(&pages, dst, src, len, |name, done| {
                    let case = format!("{name} {mode} {dst} <- {src}, {before} of {len}");
                    assert!(done == before || is_by_chunks(name) && done <= before, "{case}: {done}");
                    let mut expected = original.clone();
                    expected.copy_within(src..src + before, dst);
                    let now = pages.get();
                    assert!(now[..dst + done] == expected[..dst + done], "{case}");
                    assert!(is_by_chunks(name) || now == expected, "{case}");
                    assert!(!now.contains(&POISON), "{case}");
                    pages.set(&original);
                });
            }
        }
    });
}
