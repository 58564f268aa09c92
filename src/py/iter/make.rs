//! Constructors of `IovIter`: one class method for each kind of memory.

use super::IovIter;
use crate::abi::{Direction, Kind};
use crate::error::{Error, try_push};
use crate::iter;
use crate::memory::Segment;
use crate::py::array::IovecArray;
use crate::py::collect::{SegmentList, SegmentListBuilder, collect, segments_of};
use crate::py::exception::exception;
use crate::py::structures::{FolioQueue, PipeRing, XArray};
use crate::py::values::{self, Lengths, instance, optional_size, size, wrong_type};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::sync::Arc;

#[pymethods]
impl IovIter {
    /// Raises a TypeError: iterators are made by the class methods, one for each kind of memory.
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

    /// Makes an iterator over one range of user memory (`iov_iter_ubuf`). `count` may be less than the buffer's length.
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
        let mut collected = SegmentListBuilder::new(direction);
        collected.add(buffer, Some(Lengths::Strict))?;
        collected.check_ranges()?;
        let held = collected.finish();
        let core = iter::IovIter::ubuf(direction, held.only()?, count)?;
        Ok(Self::over(core, held.exports, held.readonly))
    }

    /// Makes an iterator over ranges of user memory, buffers and `UserRange`s (`iov_iter_init`).
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

    /// Makes an iterator over ranges of trusted memory, buffers only (`iov_iter_kvec`).
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

    /// Makes an iterator over ranges in pages (`iov_iter_bvec`). Each is `(page, offset, length)`; `page` is a buffer,
    /// which may be longer than one page.
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
        let mut collected = SegmentListBuilder::new(direction);
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

    /// Makes an iterator that fills a pipe (`iov_iter_pipe`). `count` may exceed the room in the pipe: copies are short
    /// when it is full.
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

    /// Makes an iterator over the pages of an `XArray`, from byte position `start` on (`iov_iter_xarray`). A transfer
    /// ends at a hole.
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

    /// Makes an iterator over a `FolioQueue`, from byte `offset` of folio `first_slot` on (`iov_iter_folio_queue`). A
    /// transfer ends at the end of the queue.
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

    /// Makes an iterator that counts the bytes copied to it and discards them (`iov_iter_discard`).
    #[classmethod]
    fn discard(_class: &Bound<'_, PyType>, direction: &Bound<'_, PyAny>, count: &Bound<'_, PyAny>) -> PyResult<Self> {
        let direction = values::direction("direction", direction)?;
        Ok(Self::bare(iter::IovIter::discard(direction, size("count", count)?)?))
    }
}
