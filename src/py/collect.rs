//! Python objects as segments.

use super::buffer::{Access, ArgName, Exported, Exports, refuse_single};
use super::exception::exception;
use super::values::{Lengths, iterate, user_range};
use crate::abi::Direction;
use crate::error::try_push;
use crate::import::check_range;
use crate::memory::{Backing, Memories, Memory, Segment};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// Segments while they are collected, and what holds their memory.
pub(super) struct Collected {
    pub(super) segs: Vec<Segment>,
    exports: Exports,
    /// The first segment that must not be written to.
    readonly: Option<usize>,
    /// As that of the least safe segment.
    backing: Backing,
    access: Access,
    /// How an exception names a segment.
    name: fn(usize) -> ArgName,
}

impl Collected {
    pub(super) fn new(direction: Direction) -> Self {
        let access = if direction == Direction::Dest { Access::Write } else { Access::Read };
        let (segs, exports) = (Vec::new(), Exports::default());
        Self { segs, exports, readonly: None, backing: Backing::Heap, access, name: ArgName::Segment }
    }

    /// The same for segments that an exception names otherwise.
    pub(super) fn named(direction: Direction, name: fn(usize) -> ArgName) -> Self {
        Self { name, ..Self::new(direction) }
    }

    /// Adds a segment that is a buffer or, where `ranges` says how to read one, a `UserRange`.
    pub(super) fn add(&mut self, object: &Bound<'_, PyAny>, ranges: Option<Lengths>) -> PyResult<()> {
        let index = self.segs.len();
        if let Some(seg) = user_range(object, ranges.unwrap_or(Lengths::Signed), (self.name)(index))? {
            if ranges.is_none() {
                let message = format!("segment {index}: a UserRange is not trusted memory; a buffer is expected");
                return Err(exception::<PyTypeError>(message));
            }
            try_push(&mut self.segs, seg)?;
            self.backing = Backing::Unchecked;
            return Ok(());
        }
        self.add_buffer(object).map(|_| ())
    }

    /// Adds a buffer: its whole memory, which the caller may narrow.
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

    /// The segments as memory, beside the exports that keep it.
    pub(super) fn finish(mut self) -> SegmentList {
        self.segs.shrink_to_fit();
        self.exports.shrink();
        // SAFETY: a segment is a part of a buffer, which `exports` keep exported, writable if the direction asks for
        // it, or a range that the program named itself. `IovIter::over` and `IovecArray` hold the memory together with
        // the exports.
        let memories = unsafe { Memories::new(self.segs, self.backing) };
        SegmentList { memories, exports: self.exports, readonly: self.readonly }
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
    pub(super) exports: Exports,
    /// The first segment that must not be written to.
    pub(super) readonly: Option<usize>,
}

impl SegmentList {
    /// The only segment.
    pub(super) fn only(&self) -> PyResult<Memory> {
        self.memories.get(0).ok_or_else(|| exception::<PyTypeError>("one segment is expected"))
    }
}

/// Collects an iterable of segments. Its length hint is not trusted: only its end says how many there are.
pub(super) fn collect(
    direction: Direction,
    segments: &Bound<'_, PyAny>,
    ranges: Option<Lengths>,
) -> PyResult<Collected> {
    let mut collected = Collected::new(direction);
    for object in segments_of("segments", segments)? {
        collected.add(&object?, ranges)?;
    }
    Ok(collected)
}

/// The items of what is meant to be an iterable of segments.
pub(super) fn segments_of<'py>(
    argument: &'static str,
    segments: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, pyo3::types::PyIterator>> {
    const EXPECTED: &str = "an iterable of buffers";
    refuse_single(argument, EXPECTED, segments)?;
    iterate(argument, EXPECTED, segments)
}
