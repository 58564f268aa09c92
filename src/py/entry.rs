//! The short way into the copy functions.
//!
//! What PyO3 puts around a function to take its arguments apart costs as much as what a copy of 64 bytes does. So `f(addr, i)`,
//! `f(addr, i, nbytes)`, `f(addr, i, nbytes=nbytes)` and, where there is one keyword more, the first two with it, come in here
//! over anything and an iterator and go straight to the function; every other call, right or wrong, goes through PyO3's wrapper of the same function, whose exceptions it then gets.

use super::iter::{InUse, IovIter};
use pyo3::exceptions::PyRuntimeError;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{BoundObject, PyTypeCheck, ffi, intern};
use std::any::Any;
use std::convert::Infallible;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// A function of `(addr, i, nbytes=None)` and perhaps keywords that have defaults.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) function: ffi::PyCFunctionFastWithKeywords,
    /// PyO3's wrapper of it.
    pub(super) general: &'static PyOnceLock<Py<PyAny>>,
}

/// An [`Entry`] for a function in scope, which may take one keyword more, of a class of ours.
macro_rules! entry {
    ($function:ident) => {
        entry!(@ $function, pyo3::PyAny, None, |addr, i, nbytes, _more: Option<&_>| $function(addr, i, nbytes))
    };
    ($function:ident, $keyword:literal: $class:ty) => {
        entry!(@ $function, $class, Some($keyword), |addr, i, nbytes, more| $function(addr, i, nbytes, more))
    };
    (@ $function:ident, $class:ty, $keyword:expr, $call:expr) => {{
        static GENERAL: pyo3::sync::PyOnceLock<pyo3::Py<pyo3::PyAny>> = pyo3::sync::PyOnceLock::new();
        static KEYWORD: crate::py::entry::Keyword = crate::py::entry::Keyword::new($keyword);
        unsafe extern "C" fn enter(
            _module: *mut pyo3::ffi::PyObject,
            args: *const *mut pyo3::ffi::PyObject,
            nargs: pyo3::ffi::Py_ssize_t,
            kwnames: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: the interpreter calls it, as its flags say.
            unsafe { crate::py::entry::enter::<_, $class>((args, nargs, kwnames), &KEYWORD, &GENERAL, $call) }
        }
        crate::py::entry::Entry { name: stringify!($function), function: enter, general: &GENERAL }
    }};
}
pub(super) use entry;

/// Has the functions of the module be entered here.
pub(super) fn open(module: &Bound<'_, PyModule>, entries: impl IntoIterator<Item = Entry>) -> PyResult<()> {
    let py = module.py();
    for entry in entries {
        let general = module.getattr(entry.name)?;
        let signature: String = general.getattr("__text_signature__")?.extract()?;
        let text: String = general.getattr("__doc__")?.extract()?;
        let definition = ffi::PyMethodDef {
            ml_name: CString::new(entry.name)?.into_raw(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: entry.function },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            // In front of a text the interpreter finds the signature, as PyO3 puts it there.
            ml_doc: CString::new(format!("{}{signature}\n--\n\n{text}", entry.name))?.into_raw(),
        };
        // The function refers to its definition for as long as it lives, and nobody knows how long that is.
        let definition = Box::leak(Box::new(definition));
        // SAFETY: attached; the definition stays, and its flags tell the function's type.
        let function = unsafe { ffi::PyCFunction_NewEx(definition, module.as_ptr(), module.name()?.as_ptr()) };
        // SAFETY: a new reference, or null with an exception set.
        let function = unsafe { Bound::from_owned_ptr_or_err(py, function) }?;
        // A second interpreter's wrapper is as good as the first's, which stays.
        let _ = entry.general.set(py, general.unbind());
        module.setattr(entry.name, function)?;
    }
    Ok(())
}

/// A keyword's interned name, which is that of every call that is written out.
pub(super) struct Keyword {
    name: Option<&'static str>,
    interned: PyOnceLock<Py<PyString>>,
}

impl Keyword {
    pub(super) const fn new(name: Option<&'static str>) -> Self {
        Self { name, interned: PyOnceLock::new() }
    }

    fn is(&self, py: Python<'_>, object: *mut ffi::PyObject) -> bool {
        self.name.is_some_and(|name| {
            self.interned.get_or_init(py, || PyString::intern(py, name).unbind()).as_ptr() == object
        })
    }
}

/// What a function with `METH_FASTCALL | METH_KEYWORDS` is called with: arguments, how many of them have no name, and the names.
type Given = (*const *mut ffi::PyObject, ffi::Py_ssize_t, *mut ffi::PyObject);

/// # Safety
/// Called by the interpreter as a function with `METH_FASTCALL | METH_KEYWORDS` is.
#[inline(always)]
#[allow(clippy::inline_always)] // once in each function that the interpreter calls
pub(super) unsafe fn enter<'py, T: IntoPyObject<'py, Error = Infallible>, K: PyTypeCheck>(
    given: Given,
    keyword: &Keyword,
    general: &PyOnceLock<Py<PyAny>>,
    function: impl for<'a> FnOnce(
        &'a Bound<'py, PyAny>,
        InUse<'a>,
        Option<&'a Bound<'py, PyAny>>,
        Option<&'a Bound<'py, K>>,
    ) -> PyResult<T>,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls functions attached. PyO3 is not told, so to it this is code that has to attach before it
    // touches an object without a token; it does, also where a copy runs detached.
    let py = unsafe { Python::assume_attached() };
    let run = || {
        // SAFETY: the caller's promise.
        if let Some((addr, i, nbytes, more)) = unsafe { simple::<K>(py, given, keyword) }
            && let Ok(i) = InUse::try_from(&*i)
        {
            return match function(&addr, i, nbytes.as_deref(), more.as_deref()) {
                Ok(value) => {
                    let Ok(value) = value.into_pyobject(py);
                    value.into_any().into_bound().into_ptr()
                }
                Err(error) => raise(py, error),
            };
        }
        // SAFETY: as above.
        unsafe { by_wrapper(py, given, general) }.map_or_else(|error| raise(py, error), Bound::into_ptr)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| raise(py, panicked(payload.as_ref())))
}

type Simple<'a, 'py, K> = (
    Borrowed<'a, 'py, PyAny>,
    Borrowed<'a, 'py, IovIter>,
    Option<Borrowed<'a, 'py, PyAny>>,
    Option<Borrowed<'a, 'py, K>>,
);

/// The arguments of a call that needs nobody to take it apart.
///
/// # Safety
/// As for [`enter`].
#[inline(always)]
#[allow(clippy::inline_always)]
unsafe fn simple<'a, 'py, K: PyTypeCheck>(
    py: Python<'py>,
    given: Given,
    keyword: &Keyword,
) -> Option<Simple<'a, 'py, K>> {
    let (_, nargs, kwnames) = given;
    // SAFETY: the caller's promise.
    let all = unsafe { arguments(given) };
    let (addr, i, nbytes, more) = if kwnames.is_null() {
        match *all {
            [addr, i] => (addr, i, None, None),
            [addr, i, nbytes] => (addr, i, Some(nbytes), None),
            _ => return None,
        }
    } else {
        // SAFETY: a tuple that is not empty. Names that are written in a call are interned; another is for the wrapper to compare.
        let name = unsafe { ffi::PyTuple_GetItem(kwnames, 0) };
        let is_nbytes = name == intern!(py, "nbytes").as_ptr();
        match (all, nargs) {
            (&[addr, i, nbytes], 2) if is_nbytes => (addr, i, Some(nbytes), None),
            (&[addr, i, more], 2) if keyword.is(py, name) => (addr, i, None, Some(more)),
            (&[addr, i, nbytes, more], 3) if keyword.is(py, name) => (addr, i, Some(nbytes), Some(more)),
            _ => return None,
        }
    };
    // SAFETY: an argument, borrowed for the length of the call.
    let borrow = |argument| unsafe { Borrowed::from_ptr(py, argument) };
    let i = borrow(i);
    if !i.is_exact_instance_of::<IovIter>() {
        return None;
    }
    // SAFETY: it is one.
    let i = unsafe { i.cast_unchecked::<IovIter>() };
    let more = match more.map(borrow).filter(|more| !more.is_none()) {
        Some(more) => Some(more.cast::<K>().ok()?),
        None => None,
    };
    Some((borrow(addr), i, nbytes.map(borrow).filter(|nbytes| !nbytes.is_none()), more))
}

/// All arguments, the named ones last.
///
/// # Safety
/// As for [`enter`].
unsafe fn arguments<'a>((args, nargs, kwnames): Given) -> &'a [*mut ffi::PyObject] {
    // SAFETY: it is a tuple if it is there.
    let named = if kwnames.is_null() { 0 } else { unsafe { ffi::PyTuple_Size(kwnames) } };
    // SAFETY: there are so many; where there are none the pointer may be null.
    if args.is_null() { &[] } else { unsafe { slice::from_raw_parts(args, (nargs + named).unsigned_abs()) } }
}

/// # Safety
/// As for [`enter`].
#[cold]
unsafe fn by_wrapper<'py>(
    py: Python<'py>,
    given: Given,
    general: &PyOnceLock<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (_, nargs, kwnames) = given;
    let early = || PyRuntimeError::new_err("called before its module was ready");
    let general = general.get(py).ok_or_else(early)?.bind(py);
    // SAFETY: the caller's promise.
    let given = unsafe { arguments(given) };
    // SAFETY: an argument, borrowed for the length of the call.
    let given = given.iter().map(|argument| unsafe { Borrowed::from_ptr(py, *argument) });
    let positional = PyTuple::new(py, given.clone().take(nargs.unsigned_abs()).collect::<Vec<_>>())?;
    // SAFETY: a tuple or null, borrowed.
    let Some(names) = (unsafe { Bound::from_borrowed_ptr_or_opt(py, kwnames) }) else {
        return general.call1(positional);
    };
    let keywords = PyDict::new(py);
    for (name, value) in names.cast_into::<PyTuple>()?.iter().zip(given.skip(nargs.unsigned_abs())) {
        keywords.set_item(name, value)?;
    }
    general.call(positional, Some(&keywords))
}

#[cold]
fn raise(py: Python<'_>, error: PyErr) -> *mut ffi::PyObject {
    error.restore(py);
    std::ptr::null_mut()
}

/// As PyO3 tells of a panic.
#[cold]
fn panicked(payload: &(dyn Any + Send)) -> PyErr {
    let message = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref().copied());
    PanicException::new_err(message.unwrap_or("panic from Rust code").to_owned())
}
