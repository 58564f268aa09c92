//! Exceptions for objects that are not the buffer an argument needs.

use super::record::{OBJECTS, codes, release, request};
use super::{Access, ArgName, is_buffer};
use crate::error::{Error, Excerpt};
use crate::py::exception::exception;
use crate::py::names::names;
use crate::py::values::{type_name, wrong_type};
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::CStr;

/// Refuses a single buffer where an iterable of buffers is expected: iterating over it would give numbers or copies of
/// its elements. An array of two or more dimensions passes, since its items are its rows, which share its memory.
pub(in crate::py) fn refuse_single(argument: &str, expected: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
    if !is_buffer(object) {
        return Ok(());
    }
    let mut view = ffi::Py_buffer::new();
    let is_single = if request(object, ffi::PyBUF_FULL_RO, &mut view) {
        let dimensions = view.ndim;
        release(&mut view);
        dimensions < 2
    } else {
        drop_unless_refusal(PyErr::fetch(object.py()), object.py())?;
        true
    };
    if is_single {
        let name = type_name(object);
        let message = format!("{argument}: {expected} is expected, not a single {name}: put it in a list");
        return Err(exception::<PyTypeError>(message));
    }
    Ok(())
}

/// Refuses an array of other numbers where a packed array of addresses and lengths, of `word` bytes each, is expected:
/// their bits would be taken for addresses. So would lengths, if an array had all addresses in its first row and all
/// lengths in its second, so rows are pairs.
pub(in crate::py) fn require_pairs(argument: &'static str, word: usize, object: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut view = ffi::Py_buffer::new();
    if !request(object, ffi::PyBUF_ND | ffi::PyBUF_FORMAT, &mut view) {
        // The request without a format, which follows, succeeds or says why not.
        return drop_unless_refusal(PyErr::fetch(object.py()), object.py());
    }
    // Floats and complex numbers, booleans, characters, the other byte order, shorter integers.
    let refused: &[u8] = if word == 8 { b"efdgFDZ?uUw>!hHiI" } else { b"efdgFDZ?uUw>!hH" };
    let found = codes(&view).any(|code| refused.contains(&code));
    // SAFETY: `codes` found a character, so there is a format: a null-terminated string that the exporter keeps until
    // the record is released.
    let format = found.then(|| unsafe { CStr::from_ptr(view.format) }.to_bytes());
    let format = format.map(|format| String::from_utf8_lossy(&format[..format.len().min(4 * Excerpt::LONGEST)]));
    let message = format.map(|format| {
        let format = Excerpt(&format);
        format!("{argument}: a packed array has integers of {word} bytes, or bytes, not elements of {format}")
    });
    let row = row_of(&view);
    release(&mut view);
    match (message, row) {
        (Some(message), _) => Err(exception::<PyTypeError>(message)),
        (None, Some(row)) if row != 2 * word => {
            let expected = format!("rows of {} bytes, an address and a length", 2 * word);
            Err(Error::invalid(argument, format!("an array with rows of {row} bytes"), expected).into())
        }
        (None, Some(_) | None) => Ok(()),
    }
}

/// The length in bytes of the rows of an array of two or more dimensions.
fn row_of(view: &ffi::Py_buffer) -> Option<usize> {
    let last = usize::try_from(view.ndim.checked_sub(1)?).ok().filter(|last| *last > 0 && !view.shape.is_null())?;
    // SAFETY: `shape` is not null, and an exporter that fills it gives `ndim` lengths; `last` is less.
    let elements = unsafe { view.shape.wrapping_add(last).read() };
    Some(elements.unsigned_abs().saturating_mul(view.itemsize.unsigned_abs()))
}

/// Drops the exception of an exporter that refuses a request, which is a BufferError or a ValueError. Returns any
/// other, since it has a reason of its own.
fn drop_unless_refusal(error: PyErr, py: Python<'_>) -> PyResult<()> {
    if is_refusal(&error, py) { Ok(()) } else { Err(error) }
}

fn is_refusal(error: &PyErr, py: Python<'_>) -> bool {
    let class = error.get_type(py);
    class.is(py.get_type::<PyBufferError>()) || class.is(py.get_type::<PyValueError>())
}

/// Makes an exception that names the argument and says what is wrong with a buffer, of the `error` that its exporter
/// refused with; `error` becomes its cause. An `error` that is no refusal is returned as it is, and so is that of an
/// exporter written in Python, which is not called a second time.
#[cold]
pub(in crate::py) fn explain(object: &Bound<'_, PyAny>, error: PyErr, access: Access, name: ArgName) -> PyErr {
    let py = object.py();
    if !is_buffer(object) {
        return wrong_type(name, "a buffer", object);
    }
    if error.is_instance_of::<PyTypeError>(py) && error.value(py).str().is_ok_and(|message| message == OBJECTS) {
        return exception::<PyTypeError>(format!("{name}: {OBJECTS}"));
    }
    if !is_refusal(&error, py) || is_python_exporter(object) {
        return error;
    }
    let mut view = ffi::Py_buffer::new();
    if !request(object, ffi::PyBUF_FULL_RO, &mut view) {
        // The exporter refuses any request, for instance because it is closed. Its first error says why.
        drop(PyErr::take(py));
        return error;
    }
    let readonly = view.readonly != 0;
    // SAFETY: `request` returned true, so the record is filled, and it is not released yet.
    let contiguous = unsafe { ffi::PyBuffer_IsContiguous(&raw const view, b'C'.cast_signed()) } != 0;
    release(&mut view);
    let reason = match (access, readonly, contiguous) {
        (Access::Write, true, _) => "read-only memory cannot be a destination",
        (_, _, false) => "not C-contiguous",
        (_, _, true) => return error,
    };
    let explained = exception::<PyBufferError>(format!("{name}: {reason}"));
    explained.set_cause(py, Some(error));
    explained
}

/// Whether the object's class exports its buffer by a `__buffer__` written in Python (from 3.12 on).
fn is_python_exporter(object: &Bound<'_, PyAny>) -> bool {
    // An older interpreter does not call `__buffer__`, which a class may have all the same.
    object.py().version_info() >= (3, 12)
        && object
            .get_type()
            .getattr(&names(object.py()).buffer)
            .is_ok_and(|method| !type_name(&method).ends_with("_descriptor"))
}
