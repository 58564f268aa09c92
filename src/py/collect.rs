//! Python objects as segments.

use super::buffer::{Access, Acquired, Named, Owners};
use super::values::{Lengths, user_range};
use crate::abi::Direction;
use crate::import::check_range;
use crate::memory::{Backing, Memories, Memory, Segment};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use std::sync::Arc;

/// Segments from Python objects and what holds their memory.
pub(super) struct Collected {
    pub(super) segs: Vec<Segment>,
    pub(super) owners: Owners,
    /// The first segment that must not be written to.
    pub(super) readonly: Option<usize>,
    /// As that of the least safe segment.
    backing: Backing,
    access: Access,
}

impl Collected {
    pub(super) fn new(direction: Direction, capacity: usize) -> Self {
        let access = if direction == Direction::Dest { Access::Write } else { Access::Read };
        let owners = Owners::with_capacity(capacity);
        Self { segs: Vec::with_capacity(capacity), owners, readonly: None, backing: Backing::Heap, access }
    }

    /// Adds a segment that is a buffer or, where `ranges` says how to read one, a `UserRange`.
    pub(super) fn add(&mut self, object: &Bound<'_, PyAny>, ranges: Option<Lengths>) -> PyResult<()> {
        let index = self.segs.len();
        if let Some(seg) = user_range(object, ranges.unwrap_or(Lengths::Signed), index)? {
            if ranges.is_none() {
                let message = format!("segment {index}: a UserRange is not trusted memory; a buffer is expected");
                return Err(PyTypeError::new_err(message));
            }
            self.segs.push(seg);
            self.backing = Backing::Unchecked;
            return Ok(());
        }
        self.add_buffer(object).map(|_| ())
    }

    /// Adds a buffer: its whole memory, which the caller may narrow.
    pub(super) fn add_buffer(&mut self, object: &Bound<'_, PyAny>) -> PyResult<Segment> {
        let index = self.segs.len();
        let Acquired { seg, readonly, care } = self.owners.acquire(object, self.access, Named::Segment(index))?;
        self.backing = self.backing.max(care);
        if readonly && self.readonly.is_none() {
            self.readonly = Some(index);
        }
        self.segs.push(seg);
        Ok(seg)
    }

    /// The segments as memory, beside the owners that keep it.
    pub(super) fn finish(self) -> SegmentList {
        // SAFETY: a segment is a part of a buffer, which `owners` keep exported, writable if the direction asks for it, or a range
        // that the program named itself. `IovIter::over` and `IovecArray` hold the memory together with the owners.
        let memories = unsafe { Memories::new(self.segs, self.backing) };
        SegmentList { memories, owners: Arc::new(self.owners), readonly: self.readonly }
    }

    /// Refuses a range outside user space.
    pub(super) fn check_ranges(&self) -> PyResult<()> {
        let ranges = self.segs.iter().enumerate();
        Ok(ranges
            .filter(|_| self.backing == Backing::Unchecked)
            .try_for_each(|(index, seg)| check_range(index, *seg))?)
    }
}

/// Collected memory and what holds it.
pub(super) struct SegmentList {
    pub(super) memories: Memories,
    pub(super) owners: Arc<Owners>,
    /// The first segment that must not be written to.
    pub(super) readonly: Option<usize>,
}

impl SegmentList {
    /// The only segment.
    pub(super) fn only(&self) -> PyResult<Memory> {
        self.memories.get(0).ok_or_else(|| PyTypeError::new_err("one segment is expected"))
    }
}

/// Collects an iterable of segments.
pub(super) fn collect(
    direction: Direction,
    segments: &Bound<'_, PyAny>,
    ranges: Option<Lengths>,
) -> PyResult<Collected> {
    let mut collected = Collected::new(direction, segments.len().unwrap_or(0));
    for object in segments.try_iter()? {
        collected.add(&object?, ranges)?;
    }
    collected.segs.shrink_to_fit();
    collected.owners.shrink();
    Ok(collected)
}
