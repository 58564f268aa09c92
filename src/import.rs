//! Importing user vectors: the kernel's checks, in the kernel's order (6.4 and later), with the kernel's errnos.
//!
//! 1. No segments: nothing is read. More than [`UIO_MAXIOV`]: EINVAL, before anything is read.
//! 2. The array's own range: EFAULT. Then element by element: unreadable is EFAULT, a negative length EINVAL; the first
//!    wins.
//! 3. Per segment, in order: a range outside user space is EFAULT, with the length as given; then the running total is
//!    cut at [`MAX_RW_COUNT`], which shortens one segment and empties those after it.
//!
//! A single segment takes another way: it becomes a UBUF, and its length is cut *before* its range is checked.

use crate::abi::{Direction, MAX_RW_COUNT, UIO_MAXIOV};
use crate::copy;
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::memory::{Backing, Memories, Memory, Segment};
use crate::sys::memory;
use std::mem::MaybeUninit;

/// How an element of a packed array is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// `struct iovec`: an 8-byte address and an 8-byte length.
    Native,
    /// `struct compat_iovec`: 4 bytes each, the length signed.
    Compat,
}

impl Layout {
    /// Bytes of an element.
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

/// Where a vector comes from.
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
    /// Ranges collected one by one. Lengths are as given: a negative one has its top bit set.
    pub fn ranges(ranges: &'a Memories) -> Self {
        Self(Form::Ranges(ranges))
    }

    /// A packed array of at least as many elements as are asked for.
    ///
    /// # Safety
    /// The ranges that the array names are memory of [`Backing::Unchecked`], as [`Memory::new`] asks for.
    pub unsafe fn packed(array: Memory) -> Self {
        Self(Form::Array(array))
    }

    /// The address of a packed array, which may be unreadable.
    ///
    /// # Safety
    /// As for [`Self::packed`], if there is an array.
    pub unsafe fn address(addr: usize) -> Self {
        Self(Form::Address(addr))
    }

    fn backing(self) -> Backing {
        match self.0 {
            Form::Ranges(ranges) => ranges.backing(),
            Form::Array(_) | Form::Address(_) => Backing::Unchecked,
        }
    }

    /// The ranges at `segs`, which are those that [`Self::read`] returned, or parts of them.
    fn vouch(self, segs: Vec<Segment>) -> Memories {
        // SAFETY: parts of ranges that the maker of `ranges` promised, or of those an array named, which the caller of
        // `packed` or `address` promised.
        unsafe { Memories::new(segs, self.backing()) }
    }

    /// The first `nr_segs` elements, none of them with a negative length (`copy_iovec_from_user`).
    fn read(self, nr_segs: usize, layout: Layout) -> Result<Vec<Segment>> {
        let nbytes = nr_segs * layout.size();
        let array = match self.0 {
            Form::Ranges(ranges) => {
                let ranges = &ranges.segs()[..nr_segs];
                check_lengths(ranges, layout)?;
                return Ok(ranges.to_vec());
            }
            Form::Array(array) => array.take(nbytes),
            // SAFETY: it is only read from, which is survived wherever it is.
            Form::Address(addr) => unsafe { Memory::new(Segment::new(addr, nbytes), Backing::Unchecked) },
        };
        let start = array.seg().addr;
        if !memory::is_user_range(array.seg()) {
            return Err(efault(format!("the array of {nr_segs} segments at {start:#x} is not in user space")));
        }
        let (mut segs, whole) = match layout {
            Layout::Native => read_native(array, nr_segs)?,
            Layout::Compat => read_compat(array)?,
        };
        segs.truncate(whole);
        check_lengths(&segs, layout)?;
        if whole < nr_segs {
            return Err(efault(format!("segment {whole} of the array at {start:#x} cannot be read")));
        }
        Ok(segs)
    }
}

fn efault(context: String) -> Error {
    Error::os(libc::EFAULT, context)
}

fn check_lengths(segs: &[Segment], layout: Layout) -> Result<()> {
    // One pass with no exits settles the usual case; which one it was matters only if there is one.
    let bits = segs.iter().fold(0, |bits, seg| bits | seg.len);
    if !layout.is_negative(bits) {
        return Ok(());
    }
    match segs.iter().position(|seg| layout.is_negative(seg.len)) {
        None => Ok(()),
        Some(index) => Err(Error::os(libc::EINVAL, format!("segment {index}: the length does not fit a signed word"))),
    }
}

/// The array's elements and how many of them were readable to their last byte.
fn read_native(array: Memory, nr_segs: usize) -> Result<(Vec<Segment>, usize)> {
    const { assert!(size_of::<Segment>() == Layout::Native.size()) };
    let mut segs: Vec<Segment> = Vec::new();
    segs.try_reserve_exact(nr_segs)
        .map_err(|_| Error::os(libc::ENOMEM, format!("no memory for {nr_segs} segments")))?;
    let got = copy::read_into(as_bytes(segs.spare_capacity_mut()), array)?.0 / Layout::Native.size();
    // SAFETY: capacity was reserved for nr_segs >= got elements, of which the first `got` were just filled; a Segment
    // is two words (repr(C), laid out as struct iovec), any bits of which are valid.
    unsafe { segs.set_len(got) };
    Ok((segs, got))
}

fn read_compat(array: Memory) -> Result<(Vec<Segment>, usize)> {
    const { assert!(size_of::<[u32; 2]>() == Layout::Compat.size()) };
    let mut words = [const { MaybeUninit::new([0_u32; 2]) }; UIO_MAXIOV];
    debug_assert!(array.len() <= size_of_val(&words));
    let got = copy::read_into(as_bytes(&mut words), array)?.0 / Layout::Compat.size();
    let segment = |word: &MaybeUninit<[u32; 2]>| {
        // SAFETY: every element was initialised above, and any bits are valid in their place.
        let [addr, len] = unsafe { word.assume_init() };
        Segment::new(addr as usize, len as usize)
    };
    Ok((words[..got].iter().map(segment).collect(), got))
}

/// The memory of elements that may be uninitialised, as bytes that may be.
fn as_bytes<T>(elements: &mut [MaybeUninit<T>]) -> &mut [MaybeUninit<u8>] {
    let len = size_of_val(elements);
    // SAFETY: the same memory, borrowed for as long; bytes have no alignment and need not be initialised.
    unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), len) }
}

/// An imported vector.
pub struct Imported {
    /// The iterator over it.
    pub iter: IovIter,
    /// The validated and truncated copy, if it did not fit the caller's fast array.
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

/// Whether all ranges are in user space and come to no more than [`MAX_RW_COUNT`] together: nothing to refuse, nothing
/// to cut.
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

/// Reads a vector and checks its lengths: no ranges, no truncation (`iovec_from_user`).
pub fn iovec_from_user(source: Source<'_>, nr_segs: usize, layout: Layout) -> Result<Memories> {
    check_number(nr_segs)?;
    let segs = if nr_segs == 0 { Vec::new() } else { source.read(nr_segs, layout)? };
    Ok(source.vouch(segs))
}

/// Reads a vector of any number of ranges and checks its lengths: what `copy_ranges` is given.
pub fn ranges_from_user(source: Source<'_>, nr_segs: usize) -> Result<Memories> {
    let segs = if nr_segs == 0 { Vec::new() } else { source.read(nr_segs, Layout::Native)? };
    Ok(source.vouch(segs))
}

/// One range, cut to [`MAX_RW_COUNT`] and then checked (`import_ubuf`, `import_single_range`).
pub fn import_ubuf(direction: Direction, range: Memory) -> Result<IovIter> {
    let range = range.take(MAX_RW_COUNT);
    check_range(0, range.seg())?;
    IovIter::ubuf(direction, range, None)
}
