//! Turns Python objects into segments.

use super::buffer::{Access, ArgName, Exported, Exports, refuse_single};
use super::exception::exception;
use super::values::{Lengths, iterate, user_range};
use crate::abi::Direction;
use crate::error::try_push;
use crate::import::check_range;
use crate::memory::{Backing, Memories, Memory, Segment};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// Builds a [`SegmentList`]: the segments collected so far, and the exports that keep their memory.
pub(super) struct SegmentListBuilder {
    pub(super) segs: Vec<Segment>,
    exports: Exports,
    /// The index of the first read-only segment.
    readonly: Option<usize>,
    /// The backing of the least safe segment.
    backing: Backing,
    access: Access,
    /// Names a segment in an exception, by its index.
    name: fn(usize) -> ArgName,
}

impl SegmentListBuilder {
    pub(super) fn new(direction: Direction) -> Self {
        let access = if direction == Direction::Dest { Access::Write } else { Access::Read };
        let (segs, exports) = (Vec::new(), Exports::default());
        Self { segs, exports, readonly: None, backing: Backing::Heap, access, name: ArgName::Segment }
    }

    /// As `new`, with another way to name a segment in an exception.
    pub(super) fn named(direction: Direction, name: fn(usize) -> ArgName) -> Self {
        Self { name, ..Self::new(direction) }
    }

    /// Adds a segment: a buffer or a `UserRange`. `ranges` says how a range's length is read; if it is `None`, ranges
    /// are refused.
    pub(super) fn add(&mut self, object: &Bound<'_, PyAny>, ranges: Option<Lengths>) -> PyResult<()> {
        let index = self.segs.len();
        if let Some(seg) = user_range(object, ranges.unwrap_or(Lengths::Signed), (self.name)(index))? {
            if ranges.is_none() {
                let name = (self.name)(index);
                let message = format!("{name}: a UserRange is not trusted memory; a buffer is expected");
                return Err(exception::<PyTypeError>(message));
            }
            try_push(&mut self.segs, seg)?;
            self.backing = Backing::Unchecked;
            return Ok(());
        }
        self.add_buffer(object).map(|_| ())
    }

    /// Adds a buffer. Its segment is all of its memory, which the caller may narrow.
    pub(super) fn add_buffer(&mut self, object: &Bound<'_, PyAny>) -> PyResult<Segment> {
        let index = self.segs.len();
        let Exported { seg, readonly, backing } = self.exports.acquire(object, self.access, (self.name)(index))?;
        self.backing = self.backing.max(backing);
        if readonly && self.readonly.is_none() {
            self.readonly = Some(index);
        }
        try_push(&mut self.segs, seg)?;
        Ok(seg)
    }

    /// Makes memory of the segments, together with the exports that keep it.
    pub(super) fn finish(mut self) -> SegmentList {
        self.segs.shrink_to_fit();
        self.exports.shrink();
        // SAFETY: `add_buffer` made each segment of a buffer that `exports` keep exported, requested writable by the
        // direction, and callers only narrow it; or `add` read it from a `UserRange`, whose maker vouches for it.
        // `IovIter::over` and `IovecArray` hold the memory together with the exports.
        let memories = unsafe { Memories::new(self.segs, self.backing) };
        SegmentList { memories, exports: self.exports, readonly: self.readonly }
    }

    /// Refuses a segment that lies outside user space.
    pub(super) fn check_ranges(&self) -> PyResult<()> {
        let ranges = self.segs.iter().enumerate();
        Ok(ranges
            .filter(|_| self.backing == Backing::Unchecked)
            .try_for_each(|(index, seg)| check_range(index, *seg))?)
    }
}

/// Memory that was collected, and the exports that keep it.
pub(super) struct SegmentList {
    pub(super) memories: Memories,
    pub(super) exports: Exports,
    /// The index of the first read-only segment.
    pub(super) readonly: Option<usize>,
}

impl SegmentList {
    /// The segment of a list that has one.
    pub(super) fn only(&self) -> PyResult<Memory> {
        self.memories.get(0).ok_or_else(|| exception::<PyTypeError>("one segment is expected"))
    }
}

/// Collects an iterable of segments. Nothing is allocated by its length hint, which may be wrong.
pub(super) fn collect(
    direction: Direction,
    segments: &Bound<'_, PyAny>,
    ranges: Option<Lengths>,
) -> PyResult<SegmentListBuilder> {
    let mut collected = SegmentListBuilder::new(direction);
    for object in segments_of("segments", segments)? {
        collected.add(&object?, ranges)?;
    }
    Ok(collected)
}

/// Iterates over an argument that should be an iterable of segments.
pub(super) fn segments_of<'py>(
    argument: &'static str,
    segments: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, pyo3::types::PyIterator>> {
    const EXPECTED: &str = "an iterable of buffers";
    refuse_single(argument, EXPECTED, segments)?;
    iterate(argument, EXPECTED, segments)
}
