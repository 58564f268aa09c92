//! Small values in both directions: sizes, directions, user ranges, records.

use super::buffer::ArgName;
use super::names::names;
use crate::abi::Direction;
use crate::error::Error;
use crate::fault::map::{Access, Range};
use crate::fault::shelter::Report;
use crate::fault::{Cause, Fault, Origin, Side};
use crate::iter::PageSpan;
use crate::log::Record;
use crate::memory::Segment;
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::{PyBool, PyInt, PyIterator, PyList, PyString, PyTuple, PyType};
use pyo3::{PyClass, ffi};
use std::fmt::Display;
use std::sync::atomic::{AtomicPtr, Ordering};

/// What an exception calls an object of the wrong type.
pub(super) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

/// "`argument`: `expected` is expected, not …".
#[cold]
pub(super) fn wrong_type(argument: impl Display, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("{argument}: {expected} is expected, not {}", type_name(value)))
}

/// A number for an exception, cut if it is absurd.
#[cold]
fn shown(value: &Bound<'_, PyAny>) -> String {
    const DIGITS: usize = 80;
    match value.cast_exact::<PyInt>() {
        // The interpreter itself refuses to write out thousands of digits.
        Ok(int) => match int.str() {
            Ok(text) if text.len().is_ok_and(|digits| digits <= DIGITS) => text.to_string(),
            _ => "an int of many digits".to_owned(),
        },
        Err(_) => format!("this {}", type_name(value)),
    }
}

/// A size or offset: an int in `0..2**64`. The exception names the argument.
pub(super) fn size(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    value.extract::<usize>().map_err(|error| no_size(argument, value, error))
}

#[cold]
fn no_size(argument: &'static str, value: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    not_an_int(argument, value)
        .or_else(|| {
            let is_overflow = error.is_instance_of::<PyOverflowError>(value.py());
            is_overflow.then(|| Error::invalid(argument, shown(value), "0 or more, less than 2**64").into())
        })
        .unwrap_or(error)
}

/// The refusal of what is no int. `None`: it is one, and whatever its `__index__` raised is for the caller to see.
fn not_an_int(argument: impl Display, value: &Bound<'_, PyAny>) -> Option<PyErr> {
    // SAFETY: attached; only looks at the type.
    let is_int = unsafe { ffi::PyIndex_Check(value.as_ptr()) } != 0;
    (!is_int).then(|| wrong_type(argument, "an int", value))
}

/// As [`size`], with a default for `None`.
pub(super) fn size_or(argument: &'static str, value: Option<&Bound<'_, PyAny>>, default: usize) -> PyResult<usize> {
    value.map_or(Ok(default), |value| size(argument, value))
}

/// As [`size`], absent for `None`.
pub(super) fn optional_size(argument: &'static str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    value.map(|value| size(argument, value)).transpose()
}

/// A number of 32 bits, 0 by default.
pub(super) fn word(argument: &'static str, value: Option<&Bound<'_, PyAny>>) -> PyResult<u32> {
    value.map_or(Ok(0), |value| narrow(argument, value, "0 or more, less than 2**32"))
}

/// The flags of a system call.
pub(super) fn flags(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    narrow("flags", value, "-2**31 or more, less than 2**31")
}

/// The flags of a system call that knows no negative ones.
pub(super) fn unsigned_flags(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    narrow("flags", value, "0 or more, less than 2**32")
}

/// The number of a process.
pub(super) fn pid(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    narrow("pid", value, "-2**31 or more, less than 2**31")
}

/// An int that has limits. The exception names the argument, the value and them.
pub(super) fn narrow<'a, 'py, T: FromPyObject<'a, 'py, Error = PyErr>>(
    argument: &'static str,
    value: &'a Bound<'py, PyAny>,
    expected: &'static str,
) -> PyResult<T> {
    value.extract::<T>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            return Error::invalid(argument, shown(value), expected).into();
        }
        not_an_int(argument, value).unwrap_or(error)
    })
}

/// The items of an iterable. What its own code raises comes out as it is.
pub(super) fn iterate<'py>(
    argument: impl Display,
    expected: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyIterator>> {
    value.try_iter().map_err(|error| {
        let has = |method: &str| value.get_type().hasattr(method).unwrap_or(true);
        if has("__iter__") || has("__getitem__") { error } else { wrong_type(argument, expected, value) }
    })
}

/// The first items of an iterable, at most so many. How many there are shows when it ends: what it says before is not
/// asked for.
pub(super) fn few(items: Bound<'_, PyIterator>, most: usize) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let mut found = Vec::with_capacity(most);
    for item in items {
        found.push(item?);
        if found.len() == most {
            break;
        }
    }
    Ok(found)
}

/// An instance of a class of ours.
pub(super) fn instance<'a, T: PyClass<Frozen = True> + Sync>(
    argument: &'static str,
    expected: &str,
    value: &'a Bound<'_, PyAny>,
) -> PyResult<&'a T> {
    value.cast::<T>().map(Bound::get).map_err(|_| wrong_type(argument, expected, value))
}

/// A `str`.
pub(super) fn text<'a>(argument: &'static str, value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    value.cast::<PyString>().map_err(|_| wrong_type(argument, "a str", value))?.to_str()
}

/// A `bool`, or numpy's.
pub(super) fn flag(argument: &'static str, value: Option<&Bound<'_, PyAny>>, default: bool) -> PyResult<bool> {
    let Some(value) = value else { return Ok(default) };
    match value.cast::<PyBool>() {
        Ok(value) => Ok(value.is_true()),
        Err(_) if matches!(type_name(value).as_str(), "bool" | "bool_") => value.is_truthy(),
        Err(_) => Err(wrong_type(argument, "a bool", value)),
    }
}

/// `[offset, offset + length)` of a range; to its end by default.
pub(super) fn part(
    whole: Segment,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
) -> PyResult<Segment> {
    let offset = offset.map_or(Ok(0), |offset| size("offset", offset))?;
    if offset > whole.len {
        return Err(Error::invalid("offset", offset, format!("at most {}, the buffer's length", whole.len)).into());
    }
    let rest = whole.skip(offset);
    match optional_size("length", length)? {
        Some(length) if length > rest.len => {
            let most = format!("at most {}, what the buffer has from offset {offset}", rest.len);
            Err(Error::invalid("length", length, most).into())
        }
        length => Ok(rest.take(length.unwrap_or(rest.len))),
    }
}

/// `DEST` (`READ`) or `SOURCE` (`WRITE`), as a `Direction` or an int.
pub(super) fn direction(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Direction> {
    let invalid = || Error::invalid(argument, shown(value), "DEST or READ (0), SOURCE or WRITE (1)").into();
    match value.extract::<i64>() {
        Ok(0) => Ok(Direction::Dest),
        Ok(1) => Ok(Direction::Source),
        Ok(_) => Err(invalid()),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Err(invalid()),
        Err(error) if not_an_int(argument, value).is_none() => Err(error),
        Err(_) => Err(wrong_type(argument, "a Direction, DEST or SOURCE,", value)),
    }
}

/// What becomes of a length outside `0..2**63`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lengths {
    /// As the kernel reads a vector: it is negative, its top bit set, and for the import to refuse.
    Signed,
    /// As the kernel reads a single range: a huge one is cut there, a negative one cannot be.
    Cut,
    /// Refused.
    Strict,
}

/// The class, once one was met: asking for it takes as long as the rest of what is asked of an argument.
static USER_RANGE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// Whether it is a `UserRange` for certain.
#[inline]
pub(super) fn is_user_range(value: &Bound<'_, PyAny>) -> bool {
    value.get_type_ptr() == USER_RANGE.load(Ordering::Relaxed)
}

/// The range a `UserRange` names; `None` for anything else.
pub(super) fn user_range(value: &Bound<'_, PyAny>, lengths: Lengths, name: ArgName) -> PyResult<Option<Segment>> {
    if !is_user_range(value) {
        let class = names(value.py()).user_range.bind(value.py());
        if !value.is_instance(class)? {
            return Ok(None);
        }
        USER_RANGE.store(class.as_type_ptr(), Ordering::Relaxed);
    }
    let tuple = value.cast::<PyTuple>()?;
    let (address, length) = (tuple.get_item(0)?, tuple.get_item(1)?);
    let named = |field: &str| format!("{name}: {field}");
    let beyond = |field: &str, value: &Bound<'_, PyAny>, limit: &str| {
        PyValueError::new_err(format!("{} is {}: expected 0 or more, less than {limit}", named(field), shown(value)))
    };
    let is_beyond = |error: &PyErr| error.is_instance_of::<PyOverflowError>(value.py());
    let addr = match address.extract::<usize>() {
        Ok(addr) => addr,
        Err(error) if is_beyond(&error) => return Err(beyond("address", &address, "2**64")),
        Err(error) => return Err(not_an_int(named("address"), &address).unwrap_or(error)),
    };
    let len = match length.extract::<isize>() {
        Ok(len) if len >= 0 || lengths == Lengths::Signed => len.cast_unsigned(),
        Err(error) if !is_beyond(&error) => return Err(not_an_int(named("length"), &length).unwrap_or(error)),
        Err(_) if lengths == Lengths::Signed || (lengths == Lengths::Cut && length.gt(0)?) => usize::MAX,
        _ => return Err(beyond("length", &length, "2**63")),
    };
    Ok(Some(Segment::new(addr, len)))
}

/// A `UserRange` for a segment.
pub(super) fn to_user_range(py: Python<'_>, seg: Segment) -> PyResult<Bound<'_, PyAny>> {
    new_tuple(&names(py).user_range, [int(py, seg.addr)?, int(py, seg.len)?])
}

/// A `PageSpan`.
pub(super) fn to_page_span(py: Python<'_>, span: PageSpan) -> PyResult<Bound<'_, PyAny>> {
    let pages = tuple(py, span.pages.into_iter().map(|page| int(py, page)))?;
    new_tuple(&names(py).page_span, [pages, int(py, span.offset0)?, int(py, span.nbytes)?])
}

/// A `FaultRange`, its start told from `base` on.
pub(super) fn to_fault_range<'py>(py: Python<'py>, range: &Range, base: usize) -> PyResult<Bound<'py, PyAny>> {
    new_tuple(&names(py).fault_range, range_fields(py, range, base)?)
}

/// The same as a plain tuple, which takes less to pickle.
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
        // The whole line.
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

/// An int. No memory for it is an exception here; PyO3's own conversions panic.
pub(super) fn int(py: Python<'_>, value: usize) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: attached.
    let int = unsafe { ffi::PyLong_FromSize_t(value) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, int) }
}

/// As [`int`], for numbers that may be negative.
fn small_int(py: Python<'_>, value: i64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: attached.
    let int = unsafe { ffi::PyLong_FromLongLong(value) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, int) }
}

/// A `str`. No memory for it is an exception.
pub(super) fn string<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; the text is valid UTF-8, and no str is longer than isize::MAX.
    let made = unsafe { ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed()) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, made) }
}

/// A list of however many items there are. No memory for it is an exception.
pub(super) fn list<'py>(
    py: Python<'py>,
    items: impl IntoIterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    items.into_iter().try_for_each(|item| list.append(item?))?;
    Ok(list)
}

/// A tuple of however many items there are. No memory for it is an exception.
pub(super) fn tuple<'py>(
    py: Python<'py>,
    items: impl ExactSizeIterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; no vector is longer than isize::MAX.
    let tuple = unsafe { ffi::PyTuple_New(items.len().cast_signed()) };
    // SAFETY: a new reference, or null with an exception set.
    let tuple = unsafe { Bound::from_owned_ptr_or_err(py, tuple) }?;
    fill_tuple(&tuple, items)?;
    Ok(tuple)
}

/// A named tuple, made as its class inherits to be made: the class's own constructor is Python, and takes as long as a
/// copy.
fn new_tuple<'py, const N: usize>(class: &Py<PyType>, fields: [Bound<'py, PyAny>; N]) -> PyResult<Bound<'py, PyAny>> {
    let py = fields[0].py();
    // SAFETY: a class that adds nothing to what a tuple is.
    let tuple = unsafe { ffi::PyType_GenericAlloc(class.bind(py).as_type_ptr(), N.cast_signed()) };
    // SAFETY: a new reference, or null with an exception set.
    let tuple = unsafe { Bound::from_owned_ptr_or_err(py, tuple) }?;
    fill_tuple(&tuple, fields.into_iter().map(Ok))?;
    Ok(tuple)
}

/// Fills a new tuple that has a place for each item, and that nobody else knows.
fn fill_tuple<'py>(
    tuple: &Bound<'py, PyAny>,
    items: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<()> {
    for (index, item) in items.enumerate() {
        // SAFETY: a place in a new tuple, which takes over the reference; beyond its places the call fails and changes
        // nothing.
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
    let fields = [record.sequence as usize, record.offset, record.length, record.crc as usize];
    let [sequence, offset, length, crc] = fields.map(|field| int(py, field));
    new_tuple(&names(py).record, [sequence?, offset?, length?, crc?])
}

/// A `FaultError`: its errno by the cause.
pub(super) fn fault_error(py: Python<'_>, fault: &Fault, copied: usize) -> PyErr {
    let message = |shown: &Bound<'_, PyAny>| {
        let (side, cause) = (shown.getattr("side")?, shown.getattr("cause")?);
        Ok(format!("bad memory at {:#x} ({cause}), the {side} of a copy, after {copied} bytes", fault.address))
    };
    raised(py, fault, copied, message).map_or_else(|error| error, PyErr::from_value)
}

/// The `FaultError` of a copy that summed what it copied.
pub(super) fn summed_fault_error(py: Python<'_>, fault: &Fault, copied: usize, crc: u32) -> PyErr {
    let error = fault_error(py, fault, copied);
    match error.value(py).setattr("crc32c", crc) {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// The `FaultError` of a guard that has met something.
pub(super) fn guard_error(py: Python<'_>, report: &Report, guard: &Bound<'_, PyAny>) -> PyErr {
    let Some(first) = report.faults.first() else { return PyRuntimeError::new_err("the guard has met nothing") };
    let message = |shown: &Bound<'_, PyAny>| {
        let (lost, places) = (report.lost, report.faults.len());
        let stuck = match report.left {
            0 => String::new(),
            left => format!(
                "; {left} bytes stay zeroes until their mapping is closed: this kernel cannot put such pages back (of files \
                 before Linux 5.13, huge pages)"
            ),
        };
        Ok(format!(
            "bad memory at {:#x} ({}) under a guard: {lost} bytes in {places} places read as zeroes or were not stored to; do \
             not use what was computed{stuck}",
            first.address,
            shown.getattr("cause")?
        ))
    };
    let build = || {
        let error = raised(py, first, 0, message)?;
        error.setattr("guard", guard)?;
        Ok(error)
    };
    build().map_or_else(|error: PyErr| error, PyErr::from_value)
}

fn raised<'py>(
    py: Python<'py>,
    fault: &Fault,
    copied: usize,
    message: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<String>,
) -> PyResult<Bound<'py, PyAny>> {
    let errno = match fault.cause() {
        Cause::Poison => libc::EHWPOISON,
        Cause::Gone => libc::EIO,
        Cause::Protection => libc::EACCES,
        Cause::Unmapped | Cause::BadAddress | Cause::Unknown => libc::EFAULT,
    };
    let shown = to_fault(py, fault)?;
    let error = names(py).fault_error.bind(py).call1((errno, message(&shown)?))?;
    error.setattr("copied", copied)?;
    error.setattr("fault", shown)?;
    Ok(error)
}
