//! `IovecArray`: the array of segments that `import_iovec` and `iovec_from_user` make.

use super::collect::SegmentList;
use super::exception::{Text, exception};
use super::iter::IovIter;
use super::names::names;
use super::results::{list, to_user_range};
use super::values::wrong_type;
use crate::abi::{Direction, Kind};
use crate::error::Error;
use crate::import::check_range;
use crate::iter;
use crate::memory::Segment;
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PySlice;
use pyo3::{PyTraverseError, PyVisit};

/// The validated and truncated copy of a user vector, as a sequence of `UserRange`. The iterator made with it walks
/// over the same array. The buffers that it names stay exported while it lives.
#[pyclass(module = "iovec_rs", name = "IovecArray", frozen, sequence)]
pub(super) struct IovecArray(pub(super) SegmentList);

impl IovecArray {
    fn segs(&self) -> &[Segment] {
        self.0.memories.segs()
    }

    /// The indexes at which a range occurs. A value that is not a range occurs nowhere.
    fn places(&self, value: &Bound<'_, PyAny>) -> PyResult<impl Iterator<Item = usize>> {
        let py = value.py();
        let wanted = match value.extract::<(usize, usize)>() {
            Ok((addr, len)) => Some(Segment::new(addr, len)),
            Err(error) if error.is_instance_of::<PyTypeError>(py) || error.is_instance_of::<PyOverflowError>(py) => {
                None
            }
            Err(error) if error.is_instance_of::<PyValueError>(py) => None,
            Err(error) => return Err(error),
        };
        let found = self.segs().iter().enumerate().filter(move |(_, seg)| wanted == Some(**seg));
        Ok(found.map(|(index, _)| index))
    }

    /// Makes an iterator over an imported array. The array keeps the memory for both.
    pub(super) fn iterator(slf: &Bound<'_, Self>, direction: Direction, count: Option<usize>) -> PyResult<IovIter> {
        let SegmentList { memories, readonly, .. } = &slf.get().0;
        if let (Direction::Dest, Some(index)) = (direction, *readonly) {
            return Err(Error::ReadOnly { what: "segment", index }.into());
        }
        memories.segs().iter().enumerate().try_for_each(|(index, seg)| check_range(index, *seg))?;
        let core = iter::IovIter::iovec(direction, memories.clone(), count)?;
        debug_assert_eq!(core.kind(), Kind::Iovec);
        Ok(IovIter::beside(core, slf.clone().into_any().unbind(), *readonly))
    }
}

#[pymethods]
impl IovecArray {
    fn __len__(&self) -> usize {
        self.segs().len()
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = index.py();
        let segs = self.segs();
        if let Ok(slice) = index.cast::<PySlice>() {
            let indices = slice.indices(segs.len().cast_signed())?;
            let at = |n: usize| segs[(indices.start + n.cast_signed() * indices.step).cast_unsigned()];
            return Ok(list(py, (0..indices.slicelength).map(|n| to_user_range(py, at(n))))?.into_any());
        }
        let beyond = |shown: &dyn std::fmt::Display| {
            exception::<PyIndexError>(format!("index {shown} is out of range of {} segments", segs.len()))
        };
        let index = match index.extract::<isize>() {
            Ok(index) => index,
            Err(error) if error.is_instance_of::<PyOverflowError>(py) => return Err(beyond(&"of many digits")),
            Err(error) if index.hasattr(&names(index.py()).index)? => return Err(error),
            Err(_) => return Err(wrong_type("index", "an int or a slice", index)),
        };
        let at = if index < 0 { index + segs.len().cast_signed() } else { index };
        match usize::try_from(at).ok().and_then(|at| segs.get(at)) {
            Some(seg) => to_user_range(py, *seg),
            None => Err(beyond(&index)),
        }
    }

    /// The number of times that a range occurs.
    fn count(&self, value: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(self.places(value)?.count())
    }

    /// The index at which a range occurs first. ValueError if it does not occur.
    fn index(&self, value: &Bound<'_, PyAny>) -> PyResult<usize> {
        let found = self.places(value)?.next();
        found.ok_or_else(|| exception::<PyValueError>("this range is not in the array"))
    }

    fn __contains__(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.places(value)?.next().is_some())
    }

    fn __repr__(&self) -> Text<String> {
        Text(format!("<IovecArray of {} segments>", self.segs().len()))
    }

    /// Shows the collector the cycles through the memory. There is no `__clear__`: as with an iterator, a cycle is
    /// broken at another object, since an array whose memory was given back would still look whole.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.exports.traverse(&visit)
    }
}
