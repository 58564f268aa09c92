//! A raw range of memory, and the two rules for touching it.
//!
//! 1. **No references.** Memory that belongs to Python, to another process or to nobody at all may change or vanish
//!    while it is copied, so no `&[u8]` or `&mut [u8]` ever covers it: an address and a length do.
//! 2. **One door.** Only the primitives in [`crate::arch`] and the system calls in [`crate::sys`] read or write
//!    through a `Segment`. Everything else does arithmetic.

use crate::fault::engine::Care;

/// An address range `[addr, addr + len)`: the `struct iovec` of this crate.
///
/// Holding one says nothing about the memory behind it. Whoever builds a segment over memory that is to be touched
/// directly keeps that memory alive beside it (see [`Keeper`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Segment {
    /// First byte's address.
    pub addr: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Segment {
    /// The range of `len` bytes at `addr`.
    pub const fn new(addr: usize, len: usize) -> Self {
        Self { addr, len }
    }

    /// The first `len` bytes, or all of it if it is shorter.
    #[must_use]
    pub fn take(self, len: usize) -> Self {
        Self { addr: self.addr, len: self.len.min(len) }
    }

    /// What is left after the first `nbytes`; empty at the end if there are fewer.
    #[must_use]
    pub fn skip(self, nbytes: usize) -> Self {
        let nbytes = nbytes.min(self.len);
        Self { addr: self.addr.wrapping_add(nbytes), len: self.len - nbytes }
    }

    /// One past the last byte. Wraps for a range that no address space can hold, as nothing else checks it here.
    pub fn end(self) -> usize {
        self.addr.wrapping_add(self.len)
    }

    /// Whether the two ranges share a byte.
    pub fn overlaps(self, other: Self) -> bool {
        self.len != 0 && other.len != 0 && self.addr < other.end() && other.addr < self.end()
    }

    /// The start as a pointer to read from.
    pub fn as_ptr(self) -> *const u8 {
        std::ptr::with_exposed_provenance(self.addr)
    }

    /// The start as a pointer to write to.
    pub fn as_mut_ptr(self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.addr)
    }
}

/// A promise about memory, made by whoever hands its address over: it belongs to whoever uses it, and its owner neither unmaps,
/// resizes nor protects it for as long as anything built with the promise may touch it. Contents may change at any time, and
/// memory of [`Care::Prone`] may be gone all the same: its file truncated, its device failing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held(Care);

impl Held {
    /// Makes the promise.
    ///
    /// # Safety
    /// It is kept, until the last use of what is built with it.
    pub const unsafe fn promise(care: Care) -> Self {
        Self(care)
    }

    /// How settled the memory is.
    pub fn care(self) -> Care {
        self.0
    }
}

/// How far a range can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Its owner keeps it.
    Held(Held),
    /// Any address at all: touched only where a fault is survived.
    Wild,
}

impl Trust {
    /// How settled the memory is.
    pub fn care(self) -> Care {
        match self {
            Self::Held(held) => held.care(),
            Self::Wild => Care::Prone,
        }
    }
}

/// A range beside an iterator: the other end of a copy.
#[derive(Clone, Copy, Debug)]
pub struct Flat {
    /// Where it is.
    pub seg: Segment,
    /// How far it can be trusted.
    pub trust: Trust,
}

/// Whatever must stay alive for as long as the segments that point into it: exported Python buffers, an own page.
///
/// Dropping the last one may run Python code (releasing a buffer), so nothing drops one while it holds a lock.
pub type Keeper = std::sync::Arc<dyn std::any::Any + Send + Sync>;

/// A piece of memory that belongs to a structure of pages: a page of an XArray, a folio, a pipe slot's page.
#[derive(Clone)]
pub struct Page {
    /// Where it is.
    pub seg: Segment,
    /// Whether it may be a destination.
    pub writable: bool,
    /// What keeps it there.
    pub keeper: Keeper,
    /// That the keeper does.
    pub held: Held,
}

#[cfg(test)]
mod tests {
    use super::Segment;

    #[test]
    fn take_and_skip_never_leave_the_range() {
        let s = Segment::new(100, 10);
        assert_eq!((s.take(4), s.take(11)), (Segment::new(100, 4), s));
        assert_eq!(
            (s.skip(4), s.skip(10), s.skip(11)),
            (Segment::new(104, 6), Segment::new(110, 0), Segment::new(110, 0))
        );
    }

    #[test]
    fn ranges_overlap_only_when_they_share_a_byte() {
        let s = Segment::new(100, 10);
        for (other, shared) in
            [((90, 10), false), ((90, 11), true), ((109, 1), true), ((110, 5), false), ((105, 0), false)]
        {
            assert_eq!(s.overlaps(Segment::new(other.0, other.1)), shared, "{other:?}");
        }
    }
}
