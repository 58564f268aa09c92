//! The short way into the copy functions.
//!
//! What PyO3 puts around a function to take its arguments apart costs as much as what a copy of 64 bytes does. So
//! `f(addr, i)`, `f(addr, i, nbytes)`, `f(addr, i, nbytes=nbytes)` and, where there is one keyword more, the first two
//! with it, come in here over anything and an iterator and go straight to the function. Every other call, right or
//! wrong, goes through PyO3's wrapper of the same function, whose exceptions it then gets.
//!
//! PyO3 counts who is attached to the interpreter, and does not count a call that comes in here. A reference without a
//! token (`Py`, and every `PyErr`) that is dropped meanwhile is put aside until somebody attaches, which a program that
//! calls nothing but these functions never would. So nothing of that sort is dropped where a copy goes as usual, and
//! whatever makes an exception runs [`attached`].

use super::detach::attached;
use super::exception::exception;
use super::iter::IovIter;
use super::iter_arg::IterArg;
use super::names::names;
use super::returned::Returned;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::any::Any;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

/// A function of `(addr, i, nbytes=None)` and perhaps a keyword that has a default.
pub(super) struct FastFunction {
    pub(super) name: &'static str,
    pub(super) function: ffi::PyCFunctionFastWithKeywords,
    pub(super) wrapper: &'static Wrapper,
}

/// PyO3's wrapper of such a function, and the name of its own keyword.
pub(super) struct Wrapper {
    pub(super) keyword: Option<&'static str>,
    /// Interned, as the names in every call that is written out are.
    interned: PyOnceLock<Py<PyString>>,
    function: PyOnceLock<Py<PyAny>>,
}

/// A [`FastFunction`] for a function in scope, which may take one keyword more.
macro_rules! fast_function {
    ($function:ident) => {
        fast_function!(@ $function, None, |addr, i, nbytes, _| $function(addr, i, nbytes))
    };
    ($function:ident, $keyword:literal) => {
        fast_function!(@ $function, Some($keyword), |addr, i, nbytes, keyword| $function(addr, i, nbytes, keyword))
    };
    (@ $function:ident, $keyword:expr, $call:expr) => {{
        static WRAPPER: crate::py::fastcall::Wrapper = crate::py::fastcall::Wrapper::new($keyword);
        unsafe extern "C" fn fast(
            _module: *mut pyo3::ffi::PyObject,
            args: *const *mut pyo3::ffi::PyObject,
            nargs: pyo3::ffi::Py_ssize_t,
            kwnames: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: `install` is the only one to hand this function out, to the interpreter, with the flags that
            // `call` asks for.
            unsafe { crate::py::fastcall::call((args, nargs, kwnames), &WRAPPER, $call) }
        }
        crate::py::fastcall::FastFunction { name: stringify!($function), function: fast, wrapper: &WRAPPER }
    }};
}
pub(super) use fast_function;

/// Adds functions in scope to a module, each by its name.
macro_rules! add_functions {
    ($module:ident, $($function:ident),* $(,)?) => {
        $( $module.add_function(pyo3::wrap_pyfunction!($function, $module)?)?; )*
    };
}
pub(super) use add_functions;

impl Wrapper {
    pub(super) const fn new(keyword: Option<&'static str>) -> Self {
        Self { keyword, interned: PyOnceLock::new(), function: PyOnceLock::new() }
    }

    fn is_keyword(&self, py: Python<'_>, name: *mut ffi::PyObject) -> bool {
        self.interned.get(py).is_some_and(|interned| interned.as_ptr() == name)
    }
}

/// Puts the functions into the module, in place of their wrappers.
pub(super) fn install(module: &Bound<'_, PyModule>, functions: impl IntoIterator<Item = FastFunction>) -> PyResult<()> {
    let py = module.py();
    for FastFunction { name, function, wrapper } in functions {
        let general = module.getattr(name)?;
        let signature: String = general.getattr("__text_signature__")?.extract()?;
        let text: String = general.getattr("__doc__")?.extract()?;
        let definition = ffi::PyMethodDef {
            ml_name: CString::new(name)?.into_raw(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            // In front of a text the interpreter finds the signature, as PyO3 puts it there.
            ml_doc: CString::new(format!("{name}{signature}\n--\n\n{text}"))?.into_raw(),
        };
        // The function refers to its definition for as long as it lives, and nobody knows how long that is.
        let definition = Box::leak(Box::new(definition));
        // SAFETY: `py` proves that this thread is attached; the definition is leaked, so it stays, and its flags are
        // those of the type of `function`.
        let function = unsafe { ffi::PyCFunction_NewEx(definition, module.as_ptr(), module.name()?.as_ptr()) };
        // SAFETY: `PyCFunction_NewEx` returns a new reference, or null with an exception set.
        let function = unsafe { Bound::from_owned_ptr_or_err(py, function) }?;
        // A second interpreter's wrapper is as good as the first's, which stays.
        let _ = wrapper.function.set(py, general.unbind());
        if let Some(keyword) = wrapper.keyword {
            let _ = wrapper.interned.set(py, PyString::intern(py, keyword).unbind());
        }
        module.setattr(name, function)?;
    }
    Ok(())
}

/// What a function with `METH_FASTCALL | METH_KEYWORDS` is called with: arguments, how many of them have no name, and
/// the names.
type RawArgs = (*const *mut ffi::PyObject, ffi::Py_ssize_t, *mut ffi::PyObject);

/// An argument that may be left out.
type Maybe<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// # Safety
/// Called by the interpreter as a function with `METH_FASTCALL | METH_KEYWORDS` is.
#[inline(always)]
#[allow(clippy::inline_always)] // once in each function that the interpreter calls
pub(super) unsafe fn call<'py, T: Returned<'py>>(
    args: RawArgs,
    wrapper: &Wrapper,
    function: impl for<'a> FnOnce(&'a Bound<'py, PyAny>, IterArg<'a>, Maybe<'a, 'py>, Maybe<'a, 'py>) -> PyResult<T>,
) -> *mut ffi::PyObject {
    // SAFETY: the caller of `call` promises that the interpreter calls, which it does attached.
    let py = unsafe { Python::assume_attached() };
    let run = || {
        // SAFETY: the arguments are those that `call` was called with, by the interpreter.
        if let Some(Args { addr, i, nbytes, keyword }) = unsafe { parse(py, args, wrapper) } {
            return match function(&addr, i, nbytes.as_deref(), keyword.as_deref()) {
                Ok(value) => value.returned(py).map_or_else(|error| raise(py, error), Bound::into_ptr),
                Err(error) => raise(py, error),
            };
        }
        // SAFETY: the arguments are those that `call` was called with, by the interpreter.
        unsafe { call_wrapper(py, args, wrapper) }.map_or_else(|error| raise(py, error), Bound::into_ptr)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| raise(py, panicked(payload.as_ref())))
}

/// The arguments of a call that needs nobody to take it apart.
struct Args<'a, 'py> {
    addr: Borrowed<'a, 'py, PyAny>,
    i: IterArg<'a>,
    nbytes: Option<Borrowed<'a, 'py, PyAny>>,
    keyword: Option<Borrowed<'a, 'py, PyAny>>,
}

/// # Safety
/// As for [`call`].
#[inline(always)]
#[allow(clippy::inline_always)]
unsafe fn parse<'a, 'py>(py: Python<'py>, args: RawArgs, wrapper: &Wrapper) -> Option<Args<'a, 'py>> {
    let (_, nargs, kwnames) = args;
    // SAFETY: the caller of `parse` promises that these are the arguments of a call by the interpreter.
    let all = unsafe { arguments(args) };
    let (addr, i, nbytes, keyword) = if kwnames.is_null() {
        match *all {
            [addr, i] => (addr, i, None, None),
            [addr, i, nbytes] => (addr, i, Some(nbytes), None),
            _ => return None,
        }
    } else {
        // SAFETY: where there are names, the interpreter passes a tuple of at least one. Names that are written in a
        // call are interned; another is for the wrapper to compare.
        let name = unsafe { ffi::PyTuple_GetItem(kwnames, 0) };
        let is_nbytes = name == names(py).nbytes.as_ptr();
        match (all, nargs) {
            (&[addr, i, nbytes], 2) if is_nbytes => (addr, i, Some(nbytes), None),
            (&[addr, i, keyword], 2) if wrapper.is_keyword(py, name) => (addr, i, None, Some(keyword)),
            (&[addr, i, nbytes, keyword], 3) if wrapper.is_keyword(py, name) => (addr, i, Some(nbytes), Some(keyword)),
            _ => return None,
        }
    };
    // SAFETY: an argument is an object that the interpreter keeps during the call, for which it is borrowed.
    let borrow = |argument| unsafe { Borrowed::from_ptr(py, argument) };
    let i: Borrowed<'a, 'py, PyAny> = borrow(i);
    if !i.is_exact_instance_of::<IovIter>() {
        return None;
    }
    // SAFETY: `is_exact_instance_of` said so.
    let i = IterArg(unsafe { i.cast_unchecked::<IovIter>() }.get());
    let given = |argument: Option<_>| argument.map(borrow).filter(|argument| !argument.is_none());
    Some(Args { addr: borrow(addr), i, nbytes: given(nbytes), keyword: given(keyword) })
}

/// All arguments, the named ones last.
///
/// # Safety
/// As for [`call`].
unsafe fn arguments<'a>((args, nargs, kwnames): RawArgs) -> &'a [*mut ffi::PyObject] {
    // SAFETY: the names are null, excluded here, or a tuple, which the interpreter keeps during the call.
    let named = if kwnames.is_null() { 0 } else { unsafe { ffi::PyTuple_Size(kwnames) } };
    // SAFETY: the calling convention: at `args` are `nargs` arguments and then one for each name, all alive during the
    // call. A pointer that is null, where there are none, is excluded.
    if args.is_null() { &[] } else { unsafe { slice::from_raw_parts(args, (nargs + named).unsigned_abs()) } }
}

/// # Safety
/// As for [`call`].
#[cold]
unsafe fn call_wrapper<'py>(py: Python<'py>, args: RawArgs, wrapper: &Wrapper) -> PyResult<Bound<'py, PyAny>> {
    let (_, nargs, kwnames) = args;
    let early = || exception::<PyRuntimeError>("called before its module was ready");
    let general = wrapper.function.get(py).ok_or_else(early)?.bind(py);
    // SAFETY: the caller of `call_wrapper` promises that these are the arguments of a call by the interpreter.
    let args = unsafe { arguments(args) };
    // SAFETY: an argument is an object that the interpreter keeps during the call, for which it is borrowed.
    let args = args.iter().map(|argument| unsafe { Borrowed::from_ptr(py, *argument) });
    let positional = PyTuple::new(py, args.clone().take(nargs.unsigned_abs()).collect::<Vec<_>>())?;
    // SAFETY: the interpreter passes a tuple or null, and keeps it during the call.
    let Some(names) = (unsafe { Bound::from_borrowed_ptr_or_opt(py, kwnames) }) else {
        return general.call1(positional);
    };
    let keywords = PyDict::new(py);
    for (name, value) in names.cast_into::<PyTuple>()?.iter().zip(args.skip(nargs.unsigned_abs())) {
        keywords.set_item(name, value)?;
    }
    general.call(positional, Some(&keywords))
}

#[cold]
fn raise(py: Python<'_>, error: PyErr) -> *mut ffi::PyObject {
    attached(|| error.restore(py));
    std::ptr::null_mut()
}

/// As PyO3 tells of a panic.
#[cold]
fn panicked(payload: &(dyn Any + Send)) -> PyErr {
    let message = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref().copied());
    exception::<PanicException>(message.unwrap_or("panic from Rust code"))
}
