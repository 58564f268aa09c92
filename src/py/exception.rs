//! Exceptions, made when it is known what they say.
//!
//! PyO3 would make them later, on the way into the interpreter, where it aborts the process if there is no memory for
//! the text. Here a `MemoryError`, of which the interpreter keeps a few, takes the exception's place.

use super::results::{int, string};
use pyo3::PyTypeInfo;
use pyo3::prelude::*;

/// A text that a method returns, which PyO3 would panic over where there is no room for it.
pub(super) struct Text<S>(pub(super) S);

impl<'py, S: AsRef<str>> IntoPyObject<'py> for Text<S> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        string(py, self.0.as_ref())
    }
}

/// An exception that says something.
pub(super) fn exception<T: PyTypeInfo>(message: impl AsRef<str>) -> PyErr {
    Python::attach(|py| made(string(py, message.as_ref()).and_then(|message| T::type_object(py).call1((message,)))))
}

/// An `OSError` of the type: errno, what happened, and what its type takes besides.
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

fn made(exception: PyResult<Bound<'_, PyAny>>) -> PyErr {
    exception.map_or_else(|instead| instead, PyErr::from_value)
}
