//! Memory that cannot be forged, and the rules for touching it.
//!
//! 1. **No references.** Memory of Python's, of another process or of no owner at all may change or vanish while it is
//!    copied. So no `&[u8]` or `&mut [u8]` ever covers it; an address and a length describe it.
//! 2. **One door.** Only the guarded primitives in [`crate::arch`] and the system calls in [`crate::sys`] access such
//!    memory.
//! 3. **One promise.** A [`Segment`] is a pair of numbers that safe code may make up. No copy and no iterator accepts
//!    one: they take [`Memory`] and [`Memories`], whose constructors are unsafe and whose safe operations only narrow
//!    the range.
//!
//! Safe code cannot turn an address into memory, neither by calling the constructor,
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
//! nor by changing the fields of a value that it was given,
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
//! Nothing else gives safe code access to memory either. Only the crate itself walks over an iterator, since a step
//! that returned a wrong residue would move the iterator off its memory,
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
//! only the signal handler replaces a page by zeroes,
//!
//! ```compile_fail,E0603
//! use _core::fault::shelter::absorb;
//! ```
//!
//! and to begin a guard, under which it does so, is unsafe.
//!
//! ```compile_fail,E0133
//! use _core::fault::shelter::{Guard, Range};
//! use _core::memory::Segment;
//! let heap = Box::new([0_u8; 4096]);
//! let seg = Segment::new(&raw const *heap as usize, 4096);
//! let guard = Guard::begin(Some(&[Range { seg, is_writable: true, is_pinned: true }]));
//! ```
//!
//! The code that knows the memory vouches for it, once:
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

/// An address range `[addr, addr + len)`: this crate's `struct iovec`. It makes no statement about the memory behind
/// the addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Segment {
    /// The first byte's address.
    pub addr: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Segment {
    /// The range of `len` bytes at `addr`.
    pub const fn new(addr: usize, len: usize) -> Self {
        Self { addr, len }
    }

    /// The first `len` bytes, or the whole range if it is shorter.
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

    /// One past the last byte. The addition wraps for a range that no address space can hold; such ranges are refused
    /// elsewhere.
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

/// How memory may fail while it is copied. The order is from safest to least safe: a copy over several ranges treats
/// all of them as the greatest of their backings.
///
/// It is as wide as the addresses beside it in [`Memory`]. With a one-byte discriminant the compiler moves the padding
/// in pieces that overlap the byte just stored; each such load waits for that store, which costs 8 ns several times per
/// call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(usize)]
pub enum Backing {
    /// Anonymous memory that its owner keeps mapped and accessible. Only failing hardware can take it away.
    Heap,
    /// A mapping that its owner keeps, of an object that may shrink or fail: a file that is truncated, a device that
    /// breaks.
    Mapping,
    /// A raw address that no owner keeps mapped. A copy survives any fault there, or is refused before it begins.
    Unchecked,
}

impl Backing {
    /// Whether an access may fault although the hardware works. Such an access is made under the fault handler or by a
    /// system call.
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
    /// These hold until the last use of the value, of its copies and of everything built from them:
    /// * Reading the range is sound, and so is writing to it where the value is used as a destination: no object that
    ///   others take for immutable covers a byte of it, and no Rust reference, but for one that the address was taken
    ///   from and that nobody uses meanwhile. Others may change the contents at any time.
    /// * [`Backing::Heap`]: every byte stays mapped and accessible for the reads and writes made.
    /// * [`Backing::Mapping`]: the same, except for pages that the mapped object no longer has.
    /// * [`Backing::Unchecked`]: no further condition. The range may be unmapped, protected or outside user space.
    #[must_use]
    pub const unsafe fn new(seg: Segment, backing: Backing) -> Self {
        Self { seg, backing }
    }

    /// Its address range.
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
    #[allow(clippy::len_without_is_empty)] // an is_empty would have no caller
    pub const fn len(self) -> usize {
        self.seg.len
    }

    /// The first `len` bytes, or the whole range if it is shorter.
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

    /// The `len` bytes from `offset` on; `None` if the range ends before them.
    #[inline]
    pub fn range(self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.seg.len).then(|| self.skip(offset).take(len))
    }
}

/// Keeps memory alive: exported Python buffers, or a page that this crate allocated. It lives for as long as the memory
/// is used.
///
/// Dropping the last clone may run Python code (the release of a buffer), so no code drops one while it holds a lock.
pub type Owner = Arc<dyn std::any::Any + Send + Sync>;

/// A page of an XArray, a folio of a queue or the page of a pipe slot: memory together with its owner.
///
/// Public functions return the memory only together with the owner, since a copy of the [`Memory`] alone could outlive
/// it.
#[derive(Clone)]
pub struct Page {
    memory: Memory,
    writable: bool,
    owner: Owner,
}

impl Page {
    /// A page in memory that `owner` keeps alive. A page that is not `writable` is never a destination.
    pub fn new(memory: Memory, writable: bool, owner: Owner) -> Self {
        Self { memory, writable, owner }
    }

    /// Its memory. The caller keeps the page for as long as it uses the result.
    #[inline]
    pub(crate) fn memory(&self) -> Memory {
        self.memory
    }

    /// Its address range.
    #[inline]
    pub fn seg(&self) -> Segment {
        self.memory.seg
    }

    /// Whether it may be a destination.
    #[inline]
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// What keeps the memory alive.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

#[cfg(test)]
mod tests;
