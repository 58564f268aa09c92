//! Many ranges of memory, which are copied to or from together.

use super::{Backing, Memory, Segment};
use crate::abi::UIO_FASTIOV;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An array of segments: a few in place, or shared with whoever else keeps it alive.
#[derive(Clone)]
pub enum Segments {
    /// Up to eight, with no allocation.
    Inline([Segment; UIO_FASTIOV], usize),
    /// Any number; freed when the last iterator or array object over it is gone.
    Shared(Arc<Vec<Segment>>),
}

impl Segments {
    /// As a slice. (It covers this array, not the memory its elements point to.)
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

/// Ranges of memory in order, which fail in the same way.
#[derive(Clone)]
pub struct Memories {
    segs: Segments,
    backing: Backing,
}

impl Memories {
    /// Vouches for every range of an array.
    ///
    /// # Safety
    /// As for [`Memory::new`], of each of them.
    pub unsafe fn new(segs: impl Into<Segments>, backing: Backing) -> Self {
        Self { segs: segs.into(), backing }
    }

    /// Where they are.
    #[inline]
    pub fn segs(&self) -> &[Segment] {
        self.segs.as_slice()
    }

    /// How they may fail: as the least safe of them.
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

/// The least safe backing of all memory that was ever added to a structure that threads share.
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
