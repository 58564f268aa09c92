//! Exceptions, made as soon as their text is known.
//!
//! PyO3 would make them later, when it returns to the interpreter, and abort the process if there is no memory for the
//! text then. Made here, such an exception is replaced by a `MemoryError`, of which the interpreter keeps some in
//! reserve.

use super::names::names;
use super::results::{int, string};
use pyo3::PyTypeInfo;
use pyo3::prelude::*;

/// A text that a method returns. If there is no memory for it, its conversion raises; that of a `String` panics in
/// PyO3.
pub(super) struct Text<S>(pub(super) S);

/// A number that a method returns, which PyO3 would panic over where there is no room for it.
pub(super) struct Int(pub(super) usize);

impl<'py> IntoPyObject<'py> for Int {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        int(py, self.0)
    }
}

impl<'py, S: AsRef<str>> IntoPyObject<'py> for Text<S> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        string(py, self.0.as_ref())
    }
}

/// Makes an exception with a message.
pub(super) fn exception<T: PyTypeInfo>(message: impl AsRef<str>) -> PyErr {
    Python::attach(|py| made(string(py, message.as_ref()).and_then(|message| T::type_object(py).call1((message,)))))
}

/// Makes an `OSError` or an exception of a subclass, of an errno, a message, and perhaps the third argument of that
/// class.
pub(super) fn os_exception<T: PyTypeInfo>(errno: i32, message: impl AsRef<str>, more: Option<Py<PyAny>>) -> PyErr {
    Python::attach(|py| {
        let build = || {
            let (errno, message) = (int(py, errno.unsigned_abs() as usize)?, string(py, message.as_ref())?);
            match more {
                None => T::type_object(py).call1((errno, message)),
                Some(more) => T::type_object(py).call1((errno, message, more)),
            }
        };
        made(build())
    })
}

/// Adds a note to an exception.
pub(super) fn add_note(error: &Bound<'_, PyAny>, note: &str) -> PyResult<()> {
    let py = error.py();
    error.call_method1(&names(py).add_note, (string(py, note)?,)).map(drop)
}

fn made(exception: PyResult<Bound<'_, PyAny>>) -> PyErr {
    exception.map_or_else(|instead| instead, PyErr::from_value)
}
