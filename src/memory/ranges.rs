//! Several ranges of memory that one copy goes over.

use super::{Backing, Memory, Segment};
use crate::abi::UIO_FASTIOV;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An array of segments, in place if it is short, otherwise reference-counted.
#[derive(Clone)]
pub enum Segments {
    /// Up to eight segments, without an allocation.
    Inline([Segment; UIO_FASTIOV], usize),
    /// Any number of segments. The array is freed with the last iterator or array object that uses it.
    Shared(Arc<Vec<Segment>>),
}

impl Segments {
    /// The array as a slice, which covers the addresses and lengths, not the memory they name.
    #[inline]
    pub fn as_slice(&self) -> &[Segment] {
        match self {
            Self::Inline(array, len) => &array[..*len],
            Self::Shared(array) => array,
        }
    }
}

impl From<&[Segment]> for Segments {
    fn from(segs: &[Segment]) -> Self {
        if segs.len() > UIO_FASTIOV {
            return Self::Shared(Arc::new(segs.to_vec()));
        }
        let mut array = [Segment::default(); UIO_FASTIOV];
        array[..segs.len()].copy_from_slice(segs);
        Self::Inline(array, segs.len())
    }
}

impl From<Vec<Segment>> for Segments {
    fn from(segs: Vec<Segment>) -> Self {
        if segs.len() > UIO_FASTIOV { Self::Shared(Arc::new(segs)) } else { segs.as_slice().into() }
    }
}

/// Ranges of memory in order, with one backing for all.
#[derive(Clone)]
pub struct Memories {
    segs: Segments,
    backing: Backing,
}

impl Memories {
    /// Vouches for every range of an array.
    ///
    /// # Safety
    /// Each range satisfies the conditions of [`Memory::new`].
    pub unsafe fn new(segs: impl Into<Segments>, backing: Backing) -> Self {
        Self { segs: segs.into(), backing }
    }

    /// Their address ranges.
    #[inline]
    pub fn segs(&self) -> &[Segment] {
        self.segs.as_slice()
    }

    /// How they may fail: the backing of the least safe range.
    #[inline]
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// The range at `index`.
    pub fn get(&self, index: usize) -> Option<Memory> {
        let backing = self.backing;
        self.segs().get(index).map(|seg| Memory { seg: *seg, backing })
    }
}

impl FromIterator<Memory> for Memories {
    fn from_iter<T: IntoIterator<Item = Memory>>(ranges: T) -> Self {
        let mut backing = Backing::Heap;
        let each = |memory: Memory| {
            backing = backing.max(memory.backing);
            memory.seg
        };
        let segs: Vec<Segment> = ranges.into_iter().map(each).collect();
        Self { segs: segs.into(), backing }
    }
}

/// The least safe backing of all memory that was ever added to a structure. It only ever rises, so threads may share it
/// without a lock.
#[derive(Default)]
pub(crate) struct LeastSafe(AtomicUsize);

impl LeastSafe {
    pub(crate) fn add(&self, backing: Backing) {
        self.0.fetch_max(backing as usize, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Backing {
        match self.0.load(Ordering::Relaxed) {
            0 => Backing::Heap,
            1 => Backing::Mapping,
            _ => Backing::Unchecked,
        }
    }
}
