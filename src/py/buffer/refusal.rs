//! What is wrong with an object that is no buffer, or not such a one.

use super::record::{OBJECTS, release, request};
use super::{Access, ArgName, is_buffer};
use crate::py::exception::exception;
use crate::py::values::{type_name, wrong_type};
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

/// Refuses a buffer where an iterable of buffers is meant. Its items would be copies of its elements, or plain numbers.
/// But an array of several dimensions is an iterable of its rows, which are parts of its memory.
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

/// Exporters refuse a request with BufferError or ValueError. All else has another reason, which is not ours to
/// swallow.
fn drop_unless_refusal(error: PyErr, py: Python<'_>) -> PyResult<()> {
    if is_refusal(&error, py) { Ok(()) } else { Err(error) }
}

fn is_refusal(error: &PyErr, py: Python<'_>) -> bool {
    let class = error.get_type(py);
    class.is(py.get_type::<PyBufferError>()) || class.is(py.get_type::<PyValueError>())
}

/// Says what about a buffer is wrong that the exporter refused with `error`, which it chains. What else an exporter
/// raises comes out as it is, and one that is written in Python is not asked a second time.
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
        // Closed or released, or failing for a reason of its own, which was told before.
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

/// Whether the object's class exports by a method in Python (3.12 and later).
fn is_python_exporter(object: &Bound<'_, PyAny>) -> bool {
    // An older interpreter asks no such method, which a class may have for its other callers.
    object.py().version_info() >= (3, 12)
        && object.get_type().getattr("__buffer__").is_ok_and(|method| !type_name(&method).ends_with("_descriptor"))
}
