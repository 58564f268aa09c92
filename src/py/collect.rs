//! Python objects as segments.

use super::buffer::{Access, Acquired, Named, Owners, held_by};
use super::values::{Lengths, user_range};
use crate::abi::Direction;
use crate::fault::engine::Care;
use crate::import::check_range;
use crate::segment::{Held, Segment, Trust};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// Segments from Python objects and what holds their memory.
pub(super) struct Collected {
    pub(super) segs: Vec<Segment>,
    pub(super) owners: Owners,
    /// The first segment that must not be written to.
    pub(super) readonly: Option<usize>,
    wild: bool,
    care: Care,
    access: Access,
}

impl Collected {
    pub(super) fn new(direction: Direction, capacity: usize) -> Self {
        let access = if direction == Direction::Dest { Access::Write } else { Access::Read };
        let owners = Owners::with_capacity(capacity);
        Self { segs: Vec::with_capacity(capacity), owners, readonly: None, wild: false, care: Care::Settled, access }
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
            self.wild = true;
            return Ok(());
        }
        self.add_buffer(object).map(|_| ())
    }

    /// Adds a buffer: its whole memory, which the caller may narrow.
    pub(super) fn add_buffer(&mut self, object: &Bound<'_, PyAny>) -> PyResult<Segment> {
        let index = self.segs.len();
        let Acquired { seg, readonly, care } = self.owners.acquire(object, self.access, Named::Segment(index))?;
        self.care = self.care.max(care);
        if readonly && self.readonly.is_none() {
            self.readonly = Some(index);
        }
        self.segs.push(seg);
        Ok(seg)
    }

    /// The promise for what are all buffers.
    pub(super) fn held(&self) -> Held {
        held_by(&self.owners, self.care)
    }

    /// How far all of it together can be trusted.
    pub(super) fn trust(&self) -> Trust {
        if self.wild { Trust::Wild } else { Trust::Held(self.held()) }
    }

    /// Refuses a range outside user space.
    pub(super) fn check_ranges(&self) -> PyResult<()> {
        let ranges = self.segs.iter().enumerate();
        Ok(ranges.filter(|_| self.wild).try_for_each(|(index, seg)| check_range(index, *seg))?)
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
