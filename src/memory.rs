//! Memory that cannot be forged, and the rules for touching it.
//!
//! 1. **No references.** Memory that belongs to Python, to another process or to nobody at all may change or vanish
//!    while it is copied, so no `&[u8]` or `&mut [u8]` ever covers it: an address and a length do.
//! 2. **One door.** Only the primitives in [`crate::arch`] and the system calls in [`crate::sys`] access such memory.
//! 3. **One promise.** A [`Segment`] is a pair of numbers that anybody may write down. Nothing accepts it for memory to
//!    copy to or from: copies and iterators take [`Memory`] and [`Memories`], whose constructors are unsafe and whose
//!    safe operations only narrow the range.
//!
//! Safe code cannot make memory out of an address, neither by calling the constructor,
//!
//! ```compile_fail,E0133
//! use _core::memory::{Backing, Memory, Segment};
//! let immutable = Box::new(7_u64);
//! let address = Segment::new(&raw const *immutable as usize, 8);
//! let forged = Memory::new(address, Backing::Unchecked);
//! ```
//!
//! nor by naming the fields,
//!
//! ```compile_fail,E0451
//! use _core::memory::{Backing, Memory, Segment};
//! let forged = Memory { seg: Segment::new(4096, 8), backing: Backing::Unchecked };
//! ```
//!
//! nor by changing those of memory it was given,
//!
//! ```compile_fail,E0616
//! use _core::memory::Memory;
//! fn widened(mut memory: Memory) -> Memory {
//!     memory.seg.len += 1;
//!     memory
//! }
//! ```
//!
//! nor by handing an iterator the address itself.
//!
//! ```compile_fail,E0308
//! use _core::{abi::Direction, iter::IovIter, memory::Segment};
//! let forged = IovIter::ubuf(Direction::Dest, Segment::new(4096, 8), None);
//! ```
//!
//! Nor does anything else hand safe code a way to memory: only the crate itself walks over an iterator, since a step that
//! lied about what it processed would move the iterator off its memory,
//!
//! ```compile_fail,E0603
//! use _core::iter::Step;
//! ```
//!
//! ```compile_fail,E0624
//! use _core::iter::IovIter;
//! fn walked(i: &mut IovIter, step: &mut impl Sized) {
//!     i.walk(8, step);
//! }
//! ```
//!
//! only the signal handler puts a page under zeroes,
//!
//! ```compile_fail,E0603
//! use _core::fault::shelter::absorb;
//! ```
//!
//! and a guard, under which it does, is an unsafe promise.
//!
//! ```compile_fail,E0133
//! use _core::fault::shelter::{Guard, Range};
//! use _core::memory::Segment;
//! let heap = Box::new([0_u8; 4096]);
//! let seg = Segment::new(&raw const *heap as usize, 4096);
//! let guard = Guard::begin(Some(&[Range { seg, is_writable: true, is_pinned: true }]));
//! ```
//!
//! Whoever has memory to give vouches for it, once:
//!
//! ```
//! use _core::abi::Direction;
//! use _core::copy::copy_to_iter;
//! use _core::iter::IovIter;
//! use _core::memory::{Backing, Memory, Segment};
//! let mut numbers = [7_u64, 9];
//! let start = (&raw mut numbers).expose_provenance();
//! // SAFETY: the array is alive and not borrowed until the copy is done.
//! let [to, from] = [start, start + 8].map(|at| unsafe { Memory::new(Segment::new(at, 8), Backing::Heap) });
//! let mut i = IovIter::ubuf(Direction::Dest, to, None)?;
//! assert_eq!(copy_to_iter(from, &mut i, 8)?, 8);
//! assert_eq!(numbers, [9, 9]);
//! # Ok::<(), _core::error::Error>(())
//! ```

mod ranges;

pub(crate) use ranges::LeastSafe;
pub use ranges::{Memories, Segments};

use std::sync::Arc;

/// An address range `[addr, addr + len)`: the `struct iovec` of this crate. It says nothing about the memory behind it.
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

/// How memory may fail while it is copied, the safest first: of several, the greatest decides how a copy touches all of
/// them.
///
/// As wide as the addresses it travels with. Padding beside a single byte is moved in pieces that overlap what was just
/// stored, and each such load waits for the store: 8 ns, several times a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(usize)]
pub enum Backing {
    /// Anonymous memory that its owner keeps mapped and accessible: only failing hardware can take it away.
    Heap,
    /// A mapping that its owner keeps, of something that may go away: a file that is truncated, a device that fails.
    Mapping,
    /// A raw address that nobody keeps. Any fault is survived, or the access is refused.
    Unchecked,
}

impl Backing {
    /// Whether an access may fault although hardware works: it is made under the fault handler or by a system call.
    pub fn may_vanish(self) -> bool {
        self != Self::Heap
    }
}

/// A range of memory that copies may touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    seg: Segment,
    backing: Backing,
}

impl Memory {
    /// Vouches for a range.
    ///
    /// # Safety
    /// Until the last use of the value, its copies and whatever is built from them:
    /// * Copying from the range, and to it wherever the value gets to be a destination, breaks nobody's assumptions: no
    ///   Rust reference, and no object that is taken for immutable, covers a byte of it. Others may change the contents
    ///   at any time.
    /// * [`Backing::Heap`]: every byte stays mapped and accessible for what is done to it.
    /// * [`Backing::Mapping`]: the same, but for pages that the object behind the mapping no longer has.
    /// * [`Backing::Unchecked`]: nothing more. The range may be unmapped, protected or outside user space.
    #[must_use]
    pub const unsafe fn new(seg: Segment, backing: Backing) -> Self {
        Self { seg, backing }
    }

    /// Where it is.
    #[inline]
    pub const fn seg(self) -> Segment {
        self.seg
    }

    /// How it may fail.
    #[inline]
    pub const fn backing(self) -> Backing {
        self.backing
    }

    /// Its length in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub const fn len(self) -> usize {
        self.seg.len
    }

    /// The first `len` bytes, or all of it if it is shorter.
    #[inline]
    #[must_use]
    pub fn take(self, len: usize) -> Self {
        Self { seg: self.seg.take(len), ..self }
    }

    /// What is left after the first `nbytes`; empty at the end if there are fewer.
    #[inline]
    #[must_use]
    pub fn skip(self, nbytes: usize) -> Self {
        Self { seg: self.seg.skip(nbytes), ..self }
    }

    /// The `len` bytes from `offset` on, if it has them.
    #[inline]
    pub fn range(self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.seg.len).then(|| self.skip(offset).take(len))
    }
}

/// Whatever must stay alive for as long as the memory it owns is used: exported Python buffers, an own page.
///
/// Dropping the last one may run Python code (releasing a buffer), so nothing drops one while it holds a lock.
pub type Owner = Arc<dyn std::any::Any + Send + Sync>;

/// A piece of memory that belongs to a structure of pages: a page of an XArray, a folio, a pipe slot's page.
///
/// The memory leaves this crate with its owner only: a copy of the [`Memory`] alone could outlive it.
#[derive(Clone)]
pub struct Page {
    memory: Memory,
    writable: bool,
    owner: Owner,
}

impl Page {
    /// A page in memory that `owner` keeps. One that is not `writable` is never a destination.
    pub fn new(memory: Memory, writable: bool, owner: Owner) -> Self {
        Self { memory, writable, owner }
    }

    /// Its memory, for as long as the page is held.
    #[inline]
    pub(crate) fn memory(&self) -> Memory {
        self.memory
    }

    /// Where it is.
    #[inline]
    pub fn seg(&self) -> Segment {
        self.memory.seg
    }

    /// Whether it may be a destination.
    #[inline]
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// What keeps it there.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

#[cfg(test)]
mod tests;
