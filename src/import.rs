//! Importing user vectors: the kernel's checks, in the kernel's order (Linux 6.4 and later), with the kernel's errnos.
//! The order is part of the interface, since it decides which of several faults in a vector is reported.
//!
//! 1. With no segments the array is not read. More than [`UIO_MAXIOV`] segments are EINVAL, before the array is read.
//! 2. An array outside user space is EFAULT. Then the elements are read in order: an unreadable one is EFAULT, a
//!    negative length is EINVAL, and the first of these is reported.
//! 3. The segments are then checked in order: a range outside user space, by its length as given, is EFAULT. After its
//!    check a segment is truncated to what the running total leaves of [`MAX_RW_COUNT`]; so one segment is shortened
//!    and those after it become empty.
//!
//! A vector of one segment becomes a UBUF, and its length is truncated *before* its range is checked.

use crate::abi::{Direction, MAX_RW_COUNT, UIO_MAXIOV};
use crate::copy;
use crate::error::{Error, Result, reserve};
use crate::iter::IovIter;
use crate::memory::{Backing, Memories, Memory, Segment};
use crate::sys::memory;
use std::mem::MaybeUninit;

/// The layout of an array element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// `struct iovec`: an 8-byte address and an 8-byte length.
    Native,
    /// `struct compat_iovec` of 32-bit processes: a 4-byte address and a signed 4-byte length.
    Compat,
}

impl Layout {
    /// The size of an element in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Native => 16,
            Self::Compat => 8,
        }
    }

    fn is_negative(self, len: usize) -> bool {
        match self {
            Self::Native => isize::try_from(len).is_err(),
            Self::Compat => i32::try_from(len).is_err(),
        }
    }
}

/// The vector to import.
#[derive(Clone, Copy)]
pub struct Source<'a>(Form<'a>);

#[derive(Clone, Copy)]
enum Form<'a> {
    Ranges(&'a Memories),
    /// The packed array.
    Array(Memory),
    /// The address of a packed array, which may be unreadable.
    Address(usize),
}

impl<'a> Source<'a> {
    /// Ranges that the caller collected one by one. Their lengths are not checked yet: a negative length has its top
    /// bit set.
    pub fn ranges(ranges: &'a Memories) -> Self {
        Self(Form::Ranges(ranges))
    }

    /// A packed array with at least as many elements as `nr_segs` will say.
    ///
    /// # Safety
    /// The ranges that the array names satisfy the conditions of [`Memory::new`] for [`Backing::Unchecked`].
    pub unsafe fn packed(array: Memory) -> Self {
        Self(Form::Array(array))
    }

    /// The address of a packed array, which may be unreadable.
    ///
    /// # Safety
    /// If an array can be read at the address, it satisfies the condition of [`Self::packed`].
    pub unsafe fn address(addr: usize) -> Self {
        Self(Form::Address(addr))
    }

    fn backing(self) -> Backing {
        match self.0 {
            Form::Ranges(ranges) => ranges.backing(),
            Form::Array(_) | Form::Address(_) => Backing::Unchecked,
        }
    }

    /// Vouches for `segs`, which are ranges that [`Self::read`] returned, or parts of them.
    fn vouch(self, segs: Vec<Segment>) -> Memories {
        // SAFETY: these are parts of ranges that were vouched for: by the maker of `ranges`, or, for those that an
        // array names, by the caller of `packed` or `address`.
        unsafe { Memories::new(segs, self.backing()) }
    }

    /// The first `nr_segs` elements, none of them with a negative length (`copy_iovec_from_user`), with its errnos.
    fn read(self, nr_segs: usize, layout: Layout) -> Result<Vec<Segment>> {
        let segs = self.readable(nr_segs, layout).map_err(|error| match error {
            // A text that tells their number would have to be allocated now.
            Error::NoMemory(_) => Error::os(libc::ENOMEM, "no memory for the segments"),
            error => error,
        })?;
        if let Some(index) = negative(&segs, layout) {
            return Err(Error::os(libc::EINVAL, format!("segment {index}: the length does not fit a signed word")));
        }
        if segs.len() < nr_segs {
            return Err(efault(format!("segment {} of {nr_segs} of the array cannot be read", segs.len())));
        }
        Ok(segs)
    }

    /// Those of the first `nr_segs` elements that lie before one that cannot be read.
    fn readable(self, nr_segs: usize, layout: Layout) -> Result<Vec<Segment>> {
        let nbytes = nr_segs * layout.size();
        let array = match self.0 {
            Form::Ranges(ranges) => return collected(ranges.segs()[..nr_segs].iter().copied()),
            Form::Array(array) => array.take(nbytes),
            // SAFETY: the range is only read, and a read with this backing survives any fault.
            Form::Address(addr) => unsafe { Memory::new(Segment::new(addr, nbytes), Backing::Unchecked) },
        };
        let start = array.seg().addr;
        if !memory::is_user_range(array.seg()) {
            return Err(efault(format!("the array of {nr_segs} segments at {start:#x} is not in user space")));
        }
        match layout {
            Layout::Native => read_native(array, nr_segs),
            Layout::Compat => read_compat(array),
        }
    }
}

fn efault(context: String) -> Error {
    Error::os(libc::EFAULT, context)
}

/// The first segment whose length is negative.
fn negative(segs: &[Segment], layout: Layout) -> Option<usize> {
    // One pass without branches decides the usual case. The index is looked for only if a length is negative.
    let bits = segs.iter().fold(0, |bits, seg| bits | seg.len);
    if layout.is_negative(bits) { segs.iter().position(|seg| layout.is_negative(seg.len)) } else { None }
}

/// Reads the array; returns the elements that were readable to their last byte.
fn read_native(array: Memory, nr_segs: usize) -> Result<Vec<Segment>> {
    const { assert!(size_of::<Segment>() == Layout::Native.size()) };
    let mut segs: Vec<Segment> = Vec::new();
    segs.try_reserve_exact(nr_segs).map_err(|_| Error::NoMemory(array.len()))?;
    let got = copy::read_into(as_bytes(segs.spare_capacity_mut()), array)?.0 / Layout::Native.size();
    // SAFETY: capacity was reserved for nr_segs >= got elements, of which the first `got` were just filled; a Segment
    // is two words (repr(C), laid out as struct iovec), any bits of which are valid.
    unsafe { segs.set_len(got) };
    Ok(segs)
}

fn read_compat(array: Memory) -> Result<Vec<Segment>> {
    const { assert!(size_of::<[u32; 2]>() == Layout::Compat.size()) };
    let mut words = [const { MaybeUninit::new([0_u32; 2]) }; UIO_MAXIOV];
    debug_assert!(array.len() <= size_of_val(&words));
    let got = copy::read_into(as_bytes(&mut words), array)?.0 / Layout::Compat.size();
    let segment = |word: &MaybeUninit<[u32; 2]>| {
        // SAFETY: every element was initialised above, and any bits are valid in their place.
        let [addr, len] = unsafe { word.assume_init() };
        Segment::new(addr as usize, len as usize)
    };
    collected(words[..got].iter().map(segment))
}

fn collected(segs: impl ExactSizeIterator<Item = Segment>) -> Result<Vec<Segment>> {
    let mut found = Vec::new();
    reserve(&mut found, segs.len())?;
    found.extend(segs);
    Ok(found)
}

/// Views elements that may be uninitialised as bytes that may be uninitialised.
fn as_bytes<T>(elements: &mut [MaybeUninit<T>]) -> &mut [MaybeUninit<u8>] {
    let len = size_of_val(elements);
    // SAFETY: the same memory, borrowed for as long; bytes have no alignment and need not be initialised.
    unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), len) }
}

/// An imported vector.
pub struct Imported {
    /// The iterator over it.
    pub iter: IovIter,
    /// The validated and truncated copy of the vector; `None` if it fits the caller's fast array.
    pub array: Option<Memories>,
}

fn check_number(nr_segs: usize) -> Result<()> {
    if nr_segs > UIO_MAXIOV {
        return Err(Error::os(libc::EINVAL, format!("nr_segs is {nr_segs}: at most {UIO_MAXIOV} (UIO_MAXIOV)")));
    }
    Ok(())
}

pub(crate) fn check_range(index: usize, seg: Segment) -> Result<()> {
    if memory::is_user_range(seg) {
        return Ok(());
    }
    let limit = memory::user_limit();
    Err(efault(format!(
        "segment {index}: {} bytes at {:#x} leave user space, which ends at {limit:#x}",
        seg.len, seg.addr
    )))
}

/// Whether all ranges lie in user space and their total is at most [`MAX_RW_COUNT`]. Then no segment is refused or
/// truncated.
fn all_good(segs: &[Segment]) -> bool {
    let limit = memory::user_limit();
    let mut total = 0_usize;
    let mut beyond = false;
    for seg in segs {
        beyond |= (seg.addr > limit) | (seg.len > limit.wrapping_sub(seg.addr));
        total = total.saturating_add(seg.len);
    }
    !beyond && total <= MAX_RW_COUNT
}

/// Validates a vector and builds the iterator over it (`import_iovec`, `__import_iovec`).
pub fn import_iovec(
    direction: Direction,
    source: Source<'_>,
    nr_segs: usize,
    fast_segs: usize,
    layout: Layout,
) -> Result<Imported> {
    check_number(nr_segs)?;
    let mut segs = if nr_segs == 0 { Vec::new() } else { source.read(nr_segs, layout)? };
    if let [only] = &mut segs[..] {
        only.len = only.len.min(MAX_RW_COUNT);
    }
    if !all_good(&segs) {
        let mut total = 0;
        for (index, seg) in segs.iter_mut().enumerate() {
            check_range(index, *seg)?;
            *seg = seg.take(MAX_RW_COUNT - total);
            total += seg.len;
        }
    }
    let ranges = source.vouch(segs);
    let array = (nr_segs > fast_segs).then(|| ranges.clone());
    let iter = match (ranges.segs().len(), ranges.get(0)) {
        (1, Some(only)) => IovIter::ubuf(direction, only, None)?,
        _ => IovIter::iovec(direction, ranges, None)?,
    };
    Ok(Imported { iter, array })
}

/// Reads a vector and checks its lengths. It neither checks the ranges nor truncates (`iovec_from_user`).
pub fn iovec_from_user(source: Source<'_>, nr_segs: usize, layout: Layout) -> Result<Memories> {
    check_number(nr_segs)?;
    let segs = if nr_segs == 0 { Vec::new() } else { source.read(nr_segs, layout)? };
    Ok(source.vouch(segs))
}

/// Reads an array of any number of ranges and checks its lengths. `copy_ranges` takes its arguments this way; an error
/// names `argument`.
pub fn ranges_from_user(argument: &'static str, source: Source<'_>, nr_segs: usize) -> Result<Memories> {
    let segs = if nr_segs == 0 { Vec::new() } else { source.readable(nr_segs, Layout::Native)? };
    if let Some(index) = negative(&segs, Layout::Native) {
        return Err(Error::RangeLength { argument, index, length: segs[index].len });
    }
    if segs.len() < nr_segs {
        return Err(efault(format!("{argument}[{}] of {nr_segs} cannot be read", segs.len())));
    }
    Ok(source.vouch(segs))
}

/// Truncates one range to [`MAX_RW_COUNT`] bytes, then checks it (`import_ubuf`, `import_single_range`).
pub fn import_ubuf(direction: Direction, range: Memory) -> Result<IovIter> {
    let range = range.take(MAX_RW_COUNT);
    check_range(0, range.seg())?;
    IovIter::ubuf(direction, range, None)
}
