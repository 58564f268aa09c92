//! A copy as the interpreter sees it: what the fault engine can be told beforehand, and whether other threads run meanwhile.

use crate::error::Result;
use crate::fault::engine::{self, Care};
use crate::fault::handler::SIGNALS;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use pyo3::{IntoPyObjectExt, ffi};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// From this size on a copy lets other threads run meanwhile.
const DETACH_FROM: usize = 8 << 10;

/// Runs a copy of about `nbytes` of memory of this much care.
#[inline]
pub(super) fn transfer<T: Send>(
    py: Python<'_>,
    care: Care,
    nbytes: usize,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    Ok(vouched(py, care, || detached(py, nbytes, work))?)
}

/// Tells the fault engine what Python itself does about the two signals, for the length of one copy.
#[inline]
pub(super) fn vouched<T>(py: Python<'_>, care: Care, work: impl FnOnce() -> T) -> T {
    if care == Care::Settled {
        return work();
    }
    engine::vouch(python_handlers(py).unwrap_or(0));
    let done = work();
    // A copy that was refused has not looked at it, and the next one is not to.
    engine::vouch(0);
    done
}

/// Runs `work` without the interpreter if it is about enough bytes.
#[inline]
pub(super) fn detached<T: Send>(py: Python<'_>, nbytes: usize, work: impl FnOnce() -> T + Send) -> T {
    if nbytes >= DETACH_FROM { py.detach(work) } else { work() }
}

/// A number that changes whenever what Python itself does about the two signals is found to be something else than before: its own
/// handlers, and whether `faulthandler` is enabled.
fn python_handlers(py: Python<'_>) -> Option<usize> {
    static SIGNS: PyOnceLock<[Sign; 3]> = PyOnceLock::new();
    static GENERATION: AtomicUsize = AtomicUsize::new(0);
    let signs = SIGNS.get_or_try_init(py, || {
        let [bus, segv] = SIGNALS;
        let handler = |signal: i32| Sign::new(py, "_signal", "getsignal", Some(signal));
        Ok::<_, PyErr>([handler(bus)?, handler(segv)?, Sign::new(py, "faulthandler", "is_enabled", None)?])
    });
    for sign in signs.ok()? {
        if sign.has_changed(py).ok()? {
            GENERATION.fetch_add(1, Ordering::Relaxed);
        }
    }
    Some(GENERATION.load(Ordering::Relaxed))
}

/// A function of Python's that tells who handles a signal. It is called before every copy of memory that can go away: as what it is,
/// a C function of one argument or none.
struct Sign {
    callable: Py<PyAny>,
    argument: Option<Py<PyAny>>,
    function: Option<ffi::PyCFunction>,
    /// What it returned last. It is owned, so that no other object can be where it is.
    last: AtomicPtr<ffi::PyObject>,
}

impl Sign {
    fn new(py: Python<'_>, module: &str, name: &str, argument: Option<i32>) -> PyResult<Self> {
        let callable = py.import(module)?.getattr(name)?;
        let argument = argument.map(|number| number.into_py_any(py)).transpose()?;
        let convention = if argument.is_some() { ffi::METH_O } else { ffi::METH_NOARGS };
        let function = c_function(&callable, convention);
        Ok(Self { callable: callable.unbind(), argument, function, last: AtomicPtr::new(std::ptr::null_mut()) })
    }

    fn has_changed(&self, py: Python<'_>) -> PyResult<bool> {
        let now = self.call(py)?;
        if now.as_ptr() == self.last.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let before = self.last.swap(now.into_ptr(), Ordering::Relaxed);
        // SAFETY: attached; null, or the reference that `into_ptr` gave up when it was stored, taken out once.
        drop(unsafe { Bound::from_owned_ptr_or_opt(py, before) });
        Ok(true)
    }

    #[inline]
    fn call<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Some(function) = self.function else {
            let argument = self.argument.iter().map(|argument| argument.bind(py));
            return self.callable.bind(py).call1(PyTuple::new(py, argument)?);
        };
        // SAFETY: it is a builtin function.
        let itself = unsafe { ffi::PyCFunction_GetSelf(self.callable.as_ptr()) };
        let argument = self.argument.as_ref().map_or(std::ptr::null_mut(), Py::as_ptr);
        // SAFETY: attached; by its convention the function takes its own self and one object, or null for none.
        let result = unsafe { function(itself, argument) };
        // SAFETY: a C function returns a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, result) }
    }
}

/// The C function behind a builtin one of that calling convention.
fn c_function(callable: &Bound<'_, PyAny>, convention: i32) -> Option<ffi::PyCFunction> {
    // SAFETY: only looks at the type.
    if unsafe { ffi::PyCFunction_CheckExact(callable.as_ptr()) } == 0 {
        return None;
    }
    // SAFETY: it is a builtin function.
    let flags = unsafe { ffi::PyCFunction_GetFlags(callable.as_ptr()) };
    // SAFETY: as above.
    let function = unsafe { ffi::PyCFunction_GetFunction(callable.as_ptr()) };
    function.filter(|_| flags == convention)
}
