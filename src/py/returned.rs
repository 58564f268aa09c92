//! What the copy functions return, as Python objects.

use super::in_use::TAKES_TURNS;
use super::results::{int, summed};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBool;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A value that becomes a Python object. If there is no memory for the object, that is an exception; PyO3's own
/// conversion of a number panics.
pub(super) trait Returned<'py> {
    fn returned(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;
}

impl<'py> Returned<'py> for usize {
    #[inline]
    fn returned(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        LAST.int(py, self)
    }
}

/// Keeps the int that was returned last. Programs often copy pieces of one length, and an int that the interpreter does
/// not keep takes 4 ns to make and to free.
struct LastInt {
    value: AtomicUsize,
    /// An owned reference to the int; null until there is one.
    object: AtomicPtr<ffi::PyObject>,
}

static LAST: LastInt = LastInt { value: AtomicUsize::new(0), object: AtomicPtr::new(std::ptr::null_mut()) };

impl LastInt {
    #[inline]
    fn int<'py>(&self, py: Python<'py>, value: usize) -> PyResult<Bound<'py, PyAny>> {
        if value <= KEPT_BY_INTERPRETER || !TAKES_TURNS {
            return int(py, value);
        }
        let last = self.object.load(Ordering::Relaxed);
        if value == self.value.load(Ordering::Relaxed) && !last.is_null() {
            // SAFETY: the object is alive: only `replace` drops this reference, in an attached thread. This thread was
            // attached before the load, and attached threads take turns.
            return Ok(unsafe { Bound::from_borrowed_ptr(py, last) });
        }
        self.replace(py, value)
    }

    #[cold]
    fn replace<'py>(&self, py: Python<'py>, value: usize) -> PyResult<Bound<'py, PyAny>> {
        let int = int(py, value)?;
        self.value.store(value, Ordering::Relaxed);
        let last = self.object.swap(int.clone().into_ptr(), Ordering::Relaxed);
        // SAFETY: `last` is null or the reference that `self.object` owned. Freeing an int runs no Python code.
        drop(unsafe { Bound::from_owned_ptr_or_opt(py, last) });
        Ok(int)
    }
}

/// The greatest int that the interpreter makes once and keeps.
const KEPT_BY_INTERPRETER: usize = 256;

impl<'py> Returned<'py> for bool {
    #[inline]
    fn returned(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyBool::new(py, self).to_owned().into_any())
    }
}

impl<'py> Returned<'py> for (usize, u32) {
    fn returned(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        summed(LAST.int(py, self.0)?, self.1)
    }
}

impl<'py> Returned<'py> for Bound<'py, PyAny> {
    #[inline]
    fn returned(self, _py: Python<'py>) -> PyResult<Self> {
        Ok(self)
    }
}
