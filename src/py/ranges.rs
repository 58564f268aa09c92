//! `copy_ranges`: many copies between pairs of ranges in one call.

use super::array::IovecArray;
use super::buffer::{Access, ArgName, Call, is_buffer, require_pairs};
use super::collect::{SegmentList, SegmentListBuilder};
use super::detach::transfer;
use super::exception::{Text, exception};
use super::mcsafe::known;
use super::names::names;
use super::results::{int, list, to_mc_result};
use super::values::{Lengths, flag, iterate, wrong_type};
use crate::abi::Direction;
use crate::copy::mcsafe::learned;
use crate::copy::ranges::{How, Outcomes, Short};
use crate::error::Error;
use crate::import::{self, Layout, Source};
use crate::memory::Memories;
use crate::pmem;
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PySlice};
use std::ops::Range;

/// What an argument of ranges may be, as an exception says it.
const EXPECTED: &str = "a sequence of buffers and UserRanges, or a packed array of struct iovec,";

/// The ranges of one side, together with what keeps their memory during the call.
enum Ranges<'py> {
    Objects(SegmentList),
    Packed(Memories),
    Imported(Bound<'py, IovecArray>),
}

impl<'py> Ranges<'py> {
    fn new(
        direction: Direction,
        object: &Bound<'py, PyAny>,
        argument: &'static str,
        name: fn(usize) -> ArgName,
    ) -> PyResult<Self> {
        if let Ok(array) = object.cast::<IovecArray>()
            && (direction == Direction::Source || array.get().0.readonly.is_none())
        {
            return Ok(Self::Imported(array.clone()));
        }
        if is_buffer(object) {
            return Self::packed(object, argument);
        }
        let mut collected = SegmentListBuilder::named(direction, name);
        for item in iterate(argument, EXPECTED, object)? {
            collected.add(&item?, Some(Lengths::Strict))?;
        }
        Ok(Self::Objects(collected.finish()))
    }

    fn packed(object: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<Self> {
        let size = Layout::Native.size();
        require_pairs(argument, size / 2, object)?;
        let mut call = Call::new();
        let array = call.acquire(object, Access::Read, ArgName::Argument(argument))?;
        let nbytes = array.len();
        if nbytes % size != 0 {
            let expected = format!("a multiple of {size}, the size of a struct iovec");
            return Err(Error::invalid(argument, format!("{nbytes} bytes"), expected).into());
        }
        // SAFETY: whoever packs ranges into an array vouches for them, as the maker of a `UserRange` does.
        let source = unsafe { Source::packed(array) };
        Ok(Self::Packed(import::ranges_from_user(argument, source, nbytes / size)?))
    }

    fn memories(&self) -> &Memories {
        match self {
            Self::Objects(held) => &held.memories,
            Self::Packed(memories) => memories,
            Self::Imported(array) => &array.get().0.memories,
        }
    }
}

/// Copies range k of `src` to range k of `dst`, for every k in order, in one call that releases the interpreter once
/// and fences once. Each range is copied as by `memcpy_mcsafe`; with `flush`, by non-temporal stores and durably. A
/// range that has bad memory, or memory in `fault_map`, is copied up to there; the others are copied all the same.
/// Memory that faults is added to the map. Returns a `RangeResults`.
///
/// Each side is a sequence of buffers and `UserRange`s, or a packed array of `struct iovec`: a buffer with 16 bytes for
/// each range, its address and its length, such as a numpy array of uint64 pairs. Nothing is copied if the sides differ
/// in their number of ranges or in a length (ValueError), if a destination is read-only (BufferError), or if an item is
/// no buffer (TypeError); the error names the index. Nor is anything copied if a packed array has elements of other
/// types, such as floats or integers of 4 bytes (TypeError), or rows that are no pairs (ValueError). OSError if
/// an msync fails that `flush` needs: then no byte counts.
#[pyfunction]
#[pyo3(
    signature = (dst, src, *, flush=None, fault_map=None, crc32c=None),
    text_signature = "(dst, src, *, flush=False, fault_map=None, crc32c=False)"
)]
pub(super) fn copy_ranges(
    dst: &Bound<'_, PyAny>,
    src: &Bound<'_, PyAny>,
    flush: Option<&Bound<'_, PyAny>>,
    fault_map: Option<&Bound<'_, PyAny>>,
    crc32c: Option<&Bound<'_, PyAny>>,
) -> PyResult<RangeResults> {
    let map = known(fault_map)?;
    let how = How { flush: flag("flush", flush, false)?, map, sums: flag("crc32c", crc32c, false)? };
    let to = Ranges::new(Direction::Dest, dst, "dst", |index| ArgName::Item("dst", index))?;
    let from = Ranges::new(Direction::Source, src, "src", |index| ArgName::Item("src", index))?;
    let (targets, sources) = (to.memories(), from.memories());
    let met = |fault: &crate::fault::Fault| {
        if let (Some(map), Some(found)) = (map, learned(fault)) {
            map.record(found);
        }
    };
    let total = sources.segs().iter().fold(0_usize, |total, seg| total.saturating_add(seg.len));
    let work = || pmem::ranges::copy_ranges(targets, sources, how, met);
    let may_wait = how.flush && pmem::flushcache::may_need_msync();
    let outcomes = if may_wait { dst.py().detach(work)? } else { transfer(dst.py(), total, work)? };
    Ok(RangeResults { ranges: targets.clone(), outcomes })
}

/// The results of `copy_ranges`, one for each range: a sequence of `McResult`, which makes each when it is read.
#[pyclass(module = "iovec_rs", name = "RangeResults", frozen, sequence)]
pub(super) struct RangeResults {
    /// The destinations. Only their lengths are used.
    ranges: Memories,
    outcomes: Outcomes,
}

impl RangeResults {
    fn len(&self) -> usize {
        self.ranges.segs().len()
    }

    fn result<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyAny>> {
        let len = self.ranges.segs()[index].len;
        let (copied, fault) = self.outcomes.of(index, len);
        to_mc_result(py, copied, len, fault)
    }

    /// The indexes in `among` of the results that equal a value.
    fn places<'a>(
        &'a self,
        value: &'a Bound<'_, PyAny>,
        among: Range<usize>,
    ) -> impl Iterator<Item = PyResult<usize>> + 'a {
        let is_equal = move |index: usize| self.result(value.py(), index)?.eq(value);
        among.filter_map(move |index| match is_equal(index) {
            Ok(true) => Some(Ok(index)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

#[pymethods]
impl RangeResults {
    /// The bytes copied, of all ranges together.
    #[getter]
    fn copied(&self) -> usize {
        self.outcomes.copied
    }

    /// The indexes of the ranges that were not copied whole, in order.
    #[getter]
    fn failed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        list(py, self.outcomes.short.iter().map(|Short { index, .. }| int(py, *index)))
    }

    /// The CRC-32C of the bytes copied of each range; `None` unless `copy_ranges` was called with `crc32c=True`.
    #[getter]
    fn crc32c<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let sums = self.outcomes.crc32c.as_ref();
        sums.map(|sums| list(py, sums.iter().map(|sum| int(py, *sum as usize)))).transpose()
    }

    fn __len__(&self) -> usize {
        self.len()
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (py, len) = (index.py(), self.len());
        if let Ok(slice) = index.cast::<PySlice>() {
            let indices = slice.indices(len.cast_signed())?;
            let at = |n: usize| (indices.start + n.cast_signed() * indices.step).cast_unsigned();
            return Ok(list(py, (0..indices.slicelength).map(|n| self.result(py, at(n))))?.into_any());
        }
        let beyond = |shown: &dyn std::fmt::Display| {
            exception::<PyIndexError>(format!("index {shown} is out of range of {len} results"))
        };
        let index = match index.extract::<isize>() {
            Ok(index) => index,
            Err(error) if error.is_instance_of::<PyOverflowError>(py) => return Err(beyond(&"of many digits")),
            Err(error) if index.hasattr(&names(index.py()).index)? => return Err(error),
            Err(_) => return Err(wrong_type("index", "an int or a slice", index)),
        };
        let at = if index < 0 { index + len.cast_signed() } else { index };
        match usize::try_from(at).ok().filter(|at| *at < len) {
            Some(at) => self.result(py, at),
            None => Err(beyond(&index)),
        }
    }

    /// The number of results that equal a value.
    fn count(&self, value: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.places(value, 0..self.len()).try_fold(0, |count, place| place.map(|_| count + 1))
    }

    /// The index of the first result that equals a value, among those from `start` up to but not including `stop`.
    /// Negative limits count from the end. ValueError if there is none.
    #[pyo3(signature = (value, start=None, stop=None), text_signature = "($self, value, start=0, stop=None)")]
    fn index(
        &self,
        value: &Bound<'_, PyAny>,
        start: Option<&Bound<'_, PyAny>>,
        stop: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        let part = value.py().get_type::<PySlice>().call1((start, stop))?;
        let part = part.cast::<PySlice>()?.indices(self.len() as isize)?;
        let found = self.places(value, part.start as usize..part.stop as usize).next().transpose()?;
        found.ok_or_else(|| exception::<PyValueError>("no range has this result"))
    }

    fn __contains__(&self, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.places(value, 0..self.len()).next().transpose()?.is_some())
    }

    fn __repr__(&self) -> Text<String> {
        let (len, copied, failed) = (self.len(), self.outcomes.copied, self.outcomes.short.len());
        let ranges = if len == 1 { "range" } else { "ranges" };
        Text(format!("<RangeResults of {len} {ranges}, {copied} bytes copied, {failed} short>"))
    }
}
