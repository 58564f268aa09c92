//! Small values in both directions: sizes, directions, user ranges, records.

use super::count::Count;
use crate::abi::Direction;
use crate::error::Error;
use crate::fault::shelter::Report;
use crate::fault::{Cause, Fault, Origin, Side};
use crate::iter::PageSpan;
use crate::memory::Segment;
use crate::structure::can_have;
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyInt, PyTuple, PyType};
use pyo3::{ffi, intern};
use std::convert::Infallible;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A class of `iovec_rs._types`, looked up once.
macro_rules! python_class {
    ($function:ident, $name:literal) => {
        pub(super) fn $function(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
            static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
            CLASS.import(py, "iovec_rs._types", $name)
        }
    };
}
python_class!(user_range_class, "UserRange");
python_class!(page_span_class, "PageSpan");
python_class!(fault_class, "Fault");
python_class!(direction_class, "Direction");
python_class!(kind_class, "IterKind");
python_class!(fault_error_class, "FaultError");
python_class!(fault_range_class, "FaultRange");
python_class!(mc_result_class, "McResult");

/// A size or offset: an int in `0..2**64`. The exception names the argument.
pub(super) fn size(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    match value.extract::<usize>() {
        Ok(size) => Ok(size),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            Err(Error::invalid(argument, value.str()?, "0 or more, less than 2**64").into())
        }
        Err(error) => Err(with_argument(argument, &error, value)),
    }
}

fn with_argument(argument: &str, error: &PyErr, value: &Bound<'_, PyAny>) -> PyErr {
    if error.is_instance_of::<PyTypeError>(value.py()) {
        PyTypeError::new_err(format!("{argument}: {}", error.value(value.py())))
    } else {
        error.clone_ref(value.py())
    }
}

/// As [`size`], with a default for `None`.
pub(super) fn size_or(argument: &'static str, value: Option<&Bound<'_, PyAny>>, default: usize) -> PyResult<usize> {
    value.map_or(Ok(default), |value| size(argument, value))
}

/// As [`size`], absent for `None`.
pub(super) fn optional_size(argument: &'static str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    value.map(|value| size(argument, value)).transpose()
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

/// `READ` or `WRITE`, as a `Direction` or an int.
pub(super) fn direction(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Direction> {
    match value.extract::<i64>() {
        Ok(0) => Ok(Direction::Dest),
        Ok(1) => Ok(Direction::Source),
        Err(error) if !error.is_instance_of::<PyOverflowError>(value.py()) => {
            Err(with_argument(argument, &error, value))
        }
        _ => Err(Error::invalid(argument, value.str()?, "READ (0) or WRITE (1)").into()),
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
pub(super) fn user_range(value: &Bound<'_, PyAny>, lengths: Lengths, index: usize) -> PyResult<Option<Segment>> {
    if !is_user_range(value) {
        let class = user_range_class(value.py())?;
        if !value.is_instance(class)? {
            return Ok(None);
        }
        USER_RANGE.store(class.as_type_ptr(), Ordering::Relaxed);
    }
    let tuple = value.cast::<PyTuple>()?;
    let (address, length) = (tuple.get_item(0)?, tuple.get_item(1)?);
    let named = |field: &str, error: PyErr| {
        let message = format!("segment {index}: {field}: {}", error.value(value.py()));
        if error.is_instance_of::<PyTypeError>(value.py()) {
            PyTypeError::new_err(message)
        } else {
            PyValueError::new_err(message)
        }
    };
    let addr = size("address", &address).map_err(|error| named("UserRange", error))?;
    let len = match length.extract::<isize>() {
        Ok(len) if len >= 0 || lengths == Lengths::Signed => len.cast_unsigned(),
        Err(error) if !error.is_instance_of::<PyOverflowError>(value.py()) => return Err(named("length", error)),
        Err(_) if lengths == Lengths::Signed || (lengths == Lengths::Cut && length.gt(0)?) => usize::MAX,
        _ => {
            let message = format!("segment {index}: length is {length}: expected 0 or more, less than 2**63");
            return Err(PyValueError::new_err(message));
        }
    };
    Ok(Some(Segment::new(addr, len)))
}

/// A `UserRange` for a segment.
pub(super) fn to_user_range(py: Python<'_>, seg: Segment) -> PyResult<Bound<'_, PyAny>> {
    user_range_class(py)?.call1((seg.addr, seg.len))
}

/// A `PageSpan`.
pub(super) fn to_page_span(py: Python<'_>, span: PageSpan) -> PyResult<Bound<'_, PyAny>> {
    // A tuple of ints, each of which has 32 bytes.
    can_have(span.pages.len() * 48)?;
    page_span_class(py)?.call1((PyTuple::new(py, span.pages)?, span.offset0, span.nbytes))
}

/// A `Fault`.
pub(super) fn to_fault<'py>(py: Python<'py>, fault: &Fault) -> PyResult<Bound<'py, PyAny>> {
    let side = match fault.side {
        Side::Source => intern!(py, "source"),
        Side::Destination => intern!(py, "destination"),
    };
    let cause = match fault.cause() {
        Cause::Poison => intern!(py, "poison"),
        Cause::Gone => intern!(py, "gone"),
        Cause::Protection => intern!(py, "protection"),
        Cause::Unmapped => intern!(py, "unmapped"),
        Cause::BadAddress => intern!(py, "bad_address"),
        Cause::Unknown => intern!(py, "unknown"),
    };
    let origin = match fault.origin {
        Origin::Map => intern!(py, "map"),
        Origin::Signal => intern!(py, "signal"),
        Origin::Syscall => intern!(py, "syscall"),
    };
    let fields = [
        side.to_owned().into_any(),
        number(py, fault.offset),
        number(py, fault.address),
        number(py, fault.length),
        cause.to_owned().into_any(),
        origin.to_owned().into_any(),
        number(py, fault.signo),
        number(py, fault.si_code),
        number(py, fault.lsb),
    ];
    new_tuple(fault_class(py)?, fields)
}

fn number<'py>(
    py: Python<'py>,
    value: impl IntoPyObject<'py, Output = Bound<'py, PyInt>, Error = Infallible>,
) -> Bound<'py, PyAny> {
    let Ok(int) = value.into_pyobject(py);
    int.into_any()
}

/// A named tuple, made as its class inherits to be made: the class's own constructor is Python, and takes as long as a copy.
fn new_tuple<'py, const N: usize>(
    class: &Bound<'py, PyType>,
    fields: [Bound<'py, PyAny>; N],
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a class that adds nothing to what a tuple is.
    let tuple = unsafe { ffi::PyType_GenericAlloc(class.as_type_ptr(), N.cast_signed()) };
    // SAFETY: a new reference, or null with an exception set.
    let tuple = unsafe { Bound::from_owned_ptr_or_err(class.py(), tuple) }?;
    for (index, field) in fields.into_iter().enumerate() {
        // SAFETY: a place in a new tuple, which takes over the reference.
        unsafe { ffi::PyTuple_SetItem(tuple.as_ptr(), index.cast_signed(), field.into_ptr()) };
    }
    Ok(tuple)
}

/// An `McResult` for a copy of `nbytes`.
pub(super) fn to_mc_result<'py>(
    py: Python<'py>,
    copied: usize,
    nbytes: usize,
    fault: Option<&Fault>,
) -> PyResult<Bound<'py, PyAny>> {
    let fault = fault.map_or_else(|| Ok(py.None().into_bound(py)), |fault| to_fault(py, fault))?;
    let Ok(copied_int) = Count(copied).into_pyobject(py);
    new_tuple(mc_result_class(py)?, [copied_int.into_any(), number(py, nbytes - copied), fault])
}

/// A `FaultError`: its errno by the cause.
pub(super) fn fault_error(py: Python<'_>, fault: &Fault, copied: usize) -> PyErr {
    let message = |shown: &Bound<'_, PyAny>| {
        let (side, cause) = (shown.getattr("side")?, shown.getattr("cause")?);
        Ok(format!("bad memory at {:#x} ({cause}), the {side} of a copy, after {copied} bytes", fault.address))
    };
    raised(py, fault, copied, message).map_or_else(|error| error, PyErr::from_value)
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
    let error = fault_error_class(py)?.call1((errno, message(&shown)?))?;
    error.setattr("copied", copied)?;
    error.setattr("fault", shown)?;
    Ok(error)
}
