//! Conversions of arguments that are iterators.

use super::buffer::is_buffer;
use super::exception::exception;
use super::iter::IovIter;
use super::values::{type_name, wrong_type};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use std::ops::Deref;

/// The argument `i` of a copy function. The function locks the iterator after it has converted the other arguments,
/// because converting those may run Python code that uses it.
#[derive(Clone, Copy)]
pub(super) struct IterArg<'a>(pub(super) &'a IovIter);

impl Deref for IterArg<'_> {
    type Target = IovIter;

    #[inline]
    fn deref(&self) -> &IovIter {
        self.0
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for IterArg<'a> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        iterator("i", object).map(Self)
    }
}

/// The argument `i` of a function that locks the iterator several times.
#[derive(Clone, Copy)]
pub(super) struct BoundIter<'a, 'py>(Borrowed<'a, 'py, IovIter>);

impl<'py> Deref for BoundIter<'_, 'py> {
    type Target = Bound<'py, IovIter>;

    fn deref(&self) -> &Bound<'py, IovIter> {
        &self.0
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for BoundIter<'a, 'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        object.cast::<IovIter>().map(Self).map_err(|_| no_iterator("i", &object))
    }
}

/// The iterator that an argument is; TypeError for anything else.
pub(super) fn iterator<'a>(argument: &'static str, object: Borrowed<'a, '_, PyAny>) -> PyResult<&'a IovIter> {
    object.cast::<IovIter>().map(Borrowed::get).map_err(|_| no_iterator(argument, &object))
}

#[cold]
fn no_iterator(argument: &'static str, object: &Bound<'_, PyAny>) -> PyErr {
    if argument == "i" && is_buffer(object) {
        let message = format!("i: an IovIter is expected, not {}: the buffer comes first", type_name(object));
        return exception::<PyTypeError>(message);
    }
    wrong_type(argument, "an IovIter", object)
}
