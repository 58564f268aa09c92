//! Makes results: numbers, texts, lists, and the named tuples of `iovec_rs._types`. Each function raises a
//! `MemoryError` if there is no memory; PyO3's own conversions would panic.

use super::names::names;
use crate::fault::map::{Access, Range};
use crate::fault::{Cause, Fault, Origin, Side, arm};
use crate::iter::PageSpan;
use crate::log::Record;
use crate::memory::Segment;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyType};

/// A `UserRange` for a segment.
pub(super) fn to_user_range(py: Python<'_>, seg: Segment) -> PyResult<Bound<'_, PyAny>> {
    new_tuple(&names(py).user_range, [int(py, seg.addr)?, int(py, seg.len)?])
}

/// A `PageSpan`.
pub(super) fn to_page_span(py: Python<'_>, span: PageSpan) -> PyResult<Bound<'_, PyAny>> {
    let pages = tuple(py, span.pages.into_iter().map(|page| int(py, page)))?;
    new_tuple(&names(py).page_span, [pages, int(py, span.offset0)?, int(py, span.nbytes)?])
}

/// A `FaultRange`, its start counted from `base`.
pub(super) fn to_fault_range<'py>(py: Python<'py>, range: &Range, base: usize) -> PyResult<Bound<'py, PyAny>> {
    new_tuple(&names(py).fault_range, range_fields(py, range, base)?)
}

/// A plain tuple with the fields of a `FaultRange`, which pickles to fewer bytes.
pub(super) fn to_plain_range<'py>(py: Python<'py>, range: &Range) -> PyResult<Bound<'py, PyAny>> {
    tuple(py, range_fields(py, range, 0)?.into_iter().map(Ok))
}

fn range_fields<'py>(py: Python<'py>, range: &Range, base: usize) -> PyResult<[Bound<'py, PyAny>; 3]> {
    let access = match range.access {
        Access::Read => &names(py).read,
        Access::Write => &names(py).write,
        Access::Both => &names(py).both,
    };
    let length = match usize::try_from(range.length()) {
        Ok(length) => int(py, length)?,
        // 2**64 bytes, the whole address space, do not fit into a usize.
        Err(_) => int(py, 1)?.lshift(64)?,
    };
    let access = access.bind(py).to_owned().into_any();
    Ok([int(py, range.start - base)?, length, access])
}

/// A `Fault`.
pub(super) fn to_fault<'py>(py: Python<'py>, fault: &Fault) -> PyResult<Bound<'py, PyAny>> {
    let names = names(py);
    let side = match fault.side {
        Side::Source => &names.source,
        Side::Destination => &names.destination,
    };
    let cause = match fault.cause() {
        Cause::Poison => &names.poison,
        Cause::Gone => &names.gone,
        Cause::Protection => &names.protection,
        Cause::Unmapped => &names.unmapped,
        Cause::BadAddress => &names.bad_address,
        Cause::Unknown => &names.unknown,
    };
    let origin = match fault.origin {
        Origin::Map => &names.map,
        Origin::Signal => &names.signal,
        Origin::Syscall => &names.syscall,
    };
    let string = |string: &Py<PyString>| string.bind(py).to_owned().into_any();
    let fields = [
        string(side),
        int(py, fault.offset)?,
        int(py, fault.address)?,
        int(py, fault.length)?,
        string(cause),
        string(origin),
        small_int(py, fault.signo.into())?,
        small_int(py, fault.si_code.into())?,
        small_int(py, fault.lsb.into())?,
    ];
    new_tuple(&names.fault, fields)
}

/// An int.
pub(super) fn int(py: Python<'_>, value: usize) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: `py` proves that this thread is attached, which is all that the call requires.
    let int = unsafe { ffi::PyLong_FromSize_t(value) };
    // SAFETY: the call returned a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, int) }
}

/// What a copy came to and the sum of its bytes: a tuple.
pub(super) fn summed(copy: Bound<'_, PyAny>, sum: u32) -> PyResult<Bound<'_, PyAny>> {
    let py = copy.py();
    tuple(py, [Ok(copy), int(py, sum as usize)].into_iter())
}

/// An int that may be negative.
pub(super) fn small_int(py: Python<'_>, value: i64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: `py` proves that this thread is attached, which is all that the call requires.
    let int = unsafe { ffi::PyLong_FromLongLong(value) };
    // SAFETY: the call returned a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, int) }
}

/// A `bytes` with a copy of these bytes.
pub(super) fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `py` proves that this thread is attached; a slice is no longer than isize::MAX.
    let made = unsafe { ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len().cast_signed()) };
    // SAFETY: the call returned a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, made) }
}

/// A `str`.
pub(super) fn string<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `py` proves that this thread is attached; a `str` is valid UTF-8 and no longer than isize::MAX.
    let made = unsafe { ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed()) };
    // SAFETY: the call returned a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, made) }
}

/// A list of any number of items.
pub(super) fn list<'py>(
    py: Python<'py>,
    items: impl IntoIterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    items.into_iter().try_for_each(|item| list.append(item?))?;
    Ok(list)
}

/// A tuple of any number of items.
pub(super) fn tuple<'py>(
    py: Python<'py>,
    items: impl ExactSizeIterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `py` proves that this thread is attached; a negative size, which no iterator over memory has, is refused.
    let tuple = unsafe { ffi::PyTuple_New(items.len().cast_signed()) };
    // SAFETY: the call returned a new reference, or null with an exception set.
    let tuple = unsafe { Bound::from_owned_ptr_or_err(py, tuple) }?;
    fill_tuple(&tuple, items)?;
    arm::extend();
    Ok(tuple)
}

/// A named tuple, made by the allocator of `tuple`, which its class inherits. The class's own constructor is written in
/// Python, and takes as long as a small copy.
fn new_tuple<'py, const N: usize>(class: &Py<PyType>, fields: [Bound<'py, PyAny>; N]) -> PyResult<Bound<'py, PyAny>> {
    let py = fields[0].py();
    // SAFETY: `class` is a named tuple, one of those in `Names`: a subclass of `tuple` that adds no fields to its
    // layout.
    let tuple = unsafe { ffi::PyType_GenericAlloc(class.bind(py).as_type_ptr(), N.cast_signed()) };
    // SAFETY: the call returned a new reference, or null with an exception set.
    let tuple = unsafe { Bound::from_owned_ptr_or_err(py, tuple) }?;
    fill_tuple(&tuple, fields.into_iter().map(Ok))?;
    arm::extend();
    Ok(tuple)
}

/// Fills a new tuple, which has a place for each item and which no other code refers to yet.
fn fill_tuple<'py>(
    tuple: &Bound<'py, PyAny>,
    items: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<()> {
    for (index, item) in items.enumerate() {
        // SAFETY: `tuple` is new, with no other reference, as the callers made it just now. The call takes over the
        // reference to the item; for an index beyond the end it fails, drops the item and changes nothing.
        unsafe { ffi::PyTuple_SetItem(tuple.as_ptr(), index.cast_signed(), item?.into_ptr()) };
    }
    Ok(())
}

/// An `McResult` for a copy of `nbytes`.
pub(super) fn to_mc_result<'py>(
    py: Python<'py>,
    copied: usize,
    nbytes: usize,
    fault: Option<&Fault>,
) -> PyResult<Bound<'py, PyAny>> {
    let fault = fault.map_or_else(|| Ok(py.None().into_bound(py)), |fault| to_fault(py, fault))?;
    new_tuple(&names(py).mc_result, [int(py, copied)?, int(py, nbytes - copied)?, fault])
}

/// A `Record` of a log.
pub(super) fn to_record<'py>(py: Python<'py>, record: &Record) -> PyResult<Bound<'py, PyAny>> {
    let fields = [record.sequence as usize, record.offset, record.length, record.sums.crc32c as usize];
    let [sequence, offset, length, crc] = fields.map(|field| int(py, field));
    new_tuple(&names(py).record, [sequence?, offset?, length?, crc?])
}
