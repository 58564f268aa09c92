//! Every way to copy between two ranges of the same pages.

use crate::abi::{Direction, PAGE_SIZE};
use crate::arch;
use crate::copy::flushcache::{
    copy_from_iter_flushcache, copy_from_iter_nocache, copy_to_iter_flushcache, memcpy_flushcache, memcpy_nocache,
};
use crate::copy::mcsafe::{copy_to_iter_mcsafe, memcpy_mcsafe};
use crate::copy::{
    BlockCopy, Outcome, copy_from_iter, copy_iter, copy_to_iter, csum_and_copy_from_iter, csum_and_copy_to_iter, memcpy,
};
use crate::error::Result;
use crate::fault::map::Access;
use crate::fault::map::shared::KnownBad;
use crate::iter::IovIter;
use crate::memory::{Backing, Memories, Memory, Segment};

/// Anonymous pages. The last one cannot be accessed.
pub(super) struct Pages {
    start: usize,
    pub(super) len: usize,
}

impl Pages {
    pub(super) fn new(pages: usize) -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let len = pages * PAGE_SIZE;
        // SAFETY: maps new anonymous memory at an address that the kernel chooses; the result is checked.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len + PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: the range is the last page of the mapping made above, to which nobody refers.
        assert_eq!(unsafe { libc::mprotect(start.wrapping_byte_add(len), PAGE_SIZE, libc::PROT_NONE) }, 0);
        Self { start: start.expose_provenance(), len }
    }

    pub(super) fn set(&self, contents: &[u8]) {
        // SAFETY: the range is the accessible pages of the mapping, which only this test uses.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(self.start).copy_from(contents.as_ptr(), self.len) };
    }

    pub(super) fn get(&self) -> Vec<u8> {
        // SAFETY: the range is the accessible pages of the mapping; no copy runs while the slice exists.
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(self.start), self.len) }.to_vec()
    }

    /// A range of the pages, which may extend into the inaccessible one.
    fn at(&self, at: usize, len: usize) -> Memory {
        // SAFETY: the range lies in the mapping, which stays until `self` is dropped; no reference to it exists while a
        // copy runs.
        unsafe { Memory::new(Segment::new(self.start + at, len), Backing::Mapping) }
    }

    /// A range of the pages in three segments, of which one is empty.
    fn in_segments(&self, at: usize, len: usize) -> Memories {
        let part = len / 3;
        [self.at(at, part), self.at(at + part, 0), self.at(at + part, len - part)].into_iter().collect()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping made in `new`, to which nothing refers any more.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.start), self.len + PAGE_SIZE) };
    }
}

/// Whether an iterator's memory is one range or several.
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

/// A map in which no memory is bad, but which says that it is neither empty nor clear, so that copies use it.
struct Suspicious;

impl KnownBad for Suspicious {
    fn is_empty(&self) -> bool {
        false
    }

    fn is_clear(&self, _asked: [(Segment, Access); 2]) -> bool {
        false
    }

    fn first_bad(&self, _seg: Segment, _access: Access) -> Option<Segment> {
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

/// Whether this way of copying can run: those that flush are refused if no instruction writes cache lines back.
fn can_run(name: &str) -> bool {
    arch::write_back().is_some() || !name.ends_with("_flushcache")
}

/// Moves `len` bytes from one place to another in every way, and passes the name of the way and the count to `check`.
pub(super) fn every_way(pages: &Pages, dst: usize, src: usize, len: usize, mut check: impl FnMut(&str, usize)) {
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
