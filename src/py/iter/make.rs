//! Constructors: a class method for each kind of memory.

use super::IovIter;
use crate::abi::{Direction, Kind};
use crate::error::{Error, try_push};
use crate::iter;
use crate::memory::Segment;
use crate::py::array::IovecArray;
use crate::py::collect::{Collected, SegmentList, collect, segments_of};
use crate::py::exception::exception;
use crate::py::structures::{FolioQueue, PipeRing, XArray};
use crate::py::values::{self, Lengths, instance, optional_size, size, wrong_type};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::sync::Arc;

#[pymethods]
impl IovIter {
    /// `IovIter()` itself makes none: there is a class method for each kind of memory.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(*args, **kwargs)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let kinds = Kind::ALL.map(Kind::name);
        let (last, others) = kinds.split_last().expect("there are kinds");
        Err(exception::<PyTypeError>(format!(
            "IovIter() makes no iterator: IovIter.{} and {last} do, one for each kind of memory, and import_iovec",
            others.join(", ")
        )))
    }

    /// One range of user memory (`iov_iter_ubuf`). `count` may be less than the buffer holds.
    #[classmethod]
    #[pyo3(signature = (direction, buffer, count=None))]
    fn ubuf(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        buffer: &Bound<'_, PyAny>,
        count: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let direction = values::direction("direction", direction)?;
        let count = optional_size("count", count)?;
        let mut collected = Collected::new(direction);
        collected.add(buffer, Some(Lengths::Strict))?;
        collected.check_ranges()?;
        let held = collected.finish();
        let core = iter::IovIter::ubuf(direction, held.only()?, count)?;
        Ok(Self::over(core, held.exports, held.readonly))
    }

    /// Ranges of user memory (`iov_iter_init`): buffers and `UserRange`s.
    #[classmethod]
    #[pyo3(signature = (direction, segments, count=None))]
    fn iovec(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        segments: &Bound<'_, PyAny>,
        count: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let direction = values::direction("direction", direction)?;
        let count = optional_size("count", count)?;
        if let Ok(array) = segments.cast::<IovecArray>() {
            return IovecArray::iterator(array, direction, count);
        }
        let collected = collect(direction, segments, Some(Lengths::Strict))?;
        collected.check_ranges()?;
        let SegmentList { memories, exports, readonly } = collected.finish();
        let core = iter::IovIter::iovec(direction, memories, count)?;
        Ok(Self::over(core, exports, readonly))
    }

    /// Ranges of trusted memory (`iov_iter_kvec`): buffers only.
    #[classmethod]
    #[pyo3(signature = (direction, segments, count=None))]
    fn kvec(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        segments: &Bound<'_, PyAny>,
        count: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let direction = values::direction("direction", direction)?;
        let count = optional_size("count", count)?;
        let collected = collect(direction, segments, None)?;
        let SegmentList { memories, exports, readonly } = collected.finish();
        let core = iter::IovIter::kvec(direction, memories, count)?;
        Ok(Self::over(core, exports, readonly))
    }

    /// Ranges in pages (`iov_iter_bvec`): `(page, offset, length)` each; `offset + length` may pass one page of the
    /// buffer.
    #[classmethod]
    #[pyo3(signature = (direction, bvecs, count=None))]
    fn bvec(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        bvecs: &Bound<'_, PyAny>,
        count: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let direction = values::direction("direction", direction)?;
        let count = optional_size("count", count)?;
        let mut collected = Collected::new(direction);
        let mut offsets = Vec::new();
        for (index, element) in segments_of("bvecs", bvecs)?.enumerate() {
            let element = element?;
            let (page, offset, length) = element
                .extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)>()
                .map_err(|_| wrong_type(format_args!("bvecs[{index}]"), "(page, offset, length)", &element))?;
            let (offset, nbytes) = (size("offset", &offset)?, size("length", &length)?);
            let whole = collected.add_buffer(&page)?;
            if offset.checked_add(nbytes).is_none_or(|end| end > whole.len) {
                return Err(Error::BeyondPage { offset, nbytes, len: whole.len }.into());
            }
            collected.segs[index] = Segment::new(whole.addr + offset, nbytes);
            try_push(&mut offsets, offset)?;
        }
        let SegmentList { memories, exports, readonly } = collected.finish();
        let core = iter::IovIter::bvec(direction, memories, offsets, count)?;
        Ok(Self::over(core, exports, readonly))
    }

    /// A pipe to fill (`iov_iter_pipe`). `count` may be more than it can take: copies come out short when it is full.
    #[classmethod]
    fn pipe(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        pipe: &Bound<'_, PyAny>,
        count: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let direction = values::direction("direction", direction)?;
        Ok(Self::bare(iter::IovIter::pipe(
            direction,
            Arc::clone(&instance::<PipeRing>("pipe", "a PipeRing", pipe)?.0),
            size("count", count)?,
        )?))
    }

    /// The pages of an `XArray` from byte position `start` on (`iov_iter_xarray`). A hole ends a transfer.
    #[classmethod]
    fn xarray(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        xarray: &Bound<'_, PyAny>,
        start: &Bound<'_, PyAny>,
        count: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let direction = values::direction("direction", direction)?;
        let (start, count) = (size("start", start)?, size("count", count)?);
        let core = iter::IovIter::xarray(
            direction,
            Arc::clone(&instance::<XArray>("xarray", "an XArray", xarray)?.0),
            start,
            count,
        )?;
        if direction == Direction::Dest {
            core.require_writable(count)?;
        }
        Ok(Self::bare(core))
    }

    /// A `FolioQueue` from `offset` bytes into folio `first_slot` on (`iov_iter_folio_queue`). The end of the queue
    /// ends a transfer.
    #[classmethod]
    fn folioq(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        queue: &Bound<'_, PyAny>,
        first_slot: &Bound<'_, PyAny>,
        offset: &Bound<'_, PyAny>,
        count: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let direction = values::direction("direction", direction)?;
        let (slot, offset, count) = (size("first_slot", first_slot)?, size("offset", offset)?, size("count", count)?);
        let core = iter::IovIter::folioq(
            direction,
            Arc::clone(&instance::<FolioQueue>("queue", "a FolioQueue", queue)?.0),
            slot,
            offset,
            count,
        )?;
        if direction == Direction::Dest {
            core.require_writable(count)?;
        }
        Ok(Self::bare(core))
    }

    /// Counts what it is given and drops it (`iov_iter_discard`).
    #[classmethod]
    fn discard(_class: &Bound<'_, PyType>, direction: &Bound<'_, PyAny>, count: &Bound<'_, PyAny>) -> PyResult<Self> {
        let direction = values::direction("direction", direction)?;
        Ok(Self::bare(iter::IovIter::discard(direction, size("count", count)?)?))
    }
}
