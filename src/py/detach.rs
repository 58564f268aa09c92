//! Runs copies detached from the interpreter, and other code attached to it.

use crate::error::Result;
use crate::fault::arm;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;
use std::sync::LazyLock;

/// A copy of at least this many bytes detaches, if the interpreter has other threads.
const DETACH_FROM: usize = 8 << 10;
/// A copy of at least this many bytes always detaches, since a thread may start during it. The 50 to 100 ns that this
/// takes are little beside such a copy.
const DETACH_ALWAYS_FROM: usize = 256 << 10;

/// Whether a copy of this many bytes may detach from the interpreter.
#[inline]
pub(super) fn may_detach(nbytes: usize) -> bool {
    nbytes >= DETACH_FROM
}

/// Runs a copy of about `nbytes` bytes, detached if it is long enough.
#[inline(always)]
#[allow(clippy::inline_always)] // out of line, the captures of `work` would be copied right after they were stored
pub(super) fn transfer<T: Send>(py: Python<'_>, nbytes: usize, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    Ok(perhaps_detached(py, nbytes, work)?)
}

/// As `transfer`, for callers that must unlock something before they make an exception of an error.
#[inline(always)]
#[allow(clippy::inline_always)] // out of line, the captures of `work` would be copied right after they were stored
pub(super) fn perhaps_detached<R: Send>(py: Python<'_>, nbytes: usize, work: impl FnOnce() -> R + Send) -> R {
    if !may_detach(nbytes) {
        return work();
    }
    // A long copy evicts the interpreter's data from the first-level cache, so that the way to the next copy takes
    // longer. Therefore the answer is extended before and after it.
    arm::extend();
    let result = if nbytes >= DETACH_ALWAYS_FROM || !is_alone(py) { py.detach(work) } else { work() };
    arm::extend();
    result
}

/// Runs code that may drop references (`Py`) without a token. Attached in PyO3's sense, it releases them at once,
/// together with any that were deferred before.
#[cold]
pub(super) fn attached<T>(run: impl FnOnce() -> T) -> T {
    Python::attach(|_| run())
}

/// The functions by which debuggers list the interpreter's threads. Every `CPython` exports them, but they are not in
/// the stable ABI.
struct Threads {
    head: Head,
    next: Next,
}

type Head = unsafe extern "C" fn(*mut ffi::PyInterpreterState) -> *mut ffi::PyThreadState;
type Next = unsafe extern "C" fn(*mut ffi::PyThreadState) -> *mut ffi::PyThreadState;

static THREADS: LazyLock<Option<Threads>> = LazyLock::new(|| {
    let head = function(c"PyInterpreterState_ThreadHead")?;
    let next = function(c"PyThreadState_Next")?;
    Some(Threads {
        // SAFETY: `PyInterpreterState_ThreadHead` is declared with the type `Head` in pystate.h of every version from
        // 3.11 on; a function pointer is as large as a data pointer.
        head: unsafe { std::mem::transmute::<NonNull<c_void>, Head>(head) },
        // SAFETY: `PyThreadState_Next` is declared with the type `Next` in pystate.h of every version from 3.11 on; a
        // function pointer is as large as a data pointer.
        next: unsafe { std::mem::transmute::<NonNull<c_void>, Next>(next) },
    })
});

/// Finds these functions when the module is imported, for the reason that [`super::names`] gives.
pub(super) fn init() {
    LazyLock::force(&THREADS);
}

fn function(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name is a null-terminated string; the call has no other preconditions.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

/// Whether this is the interpreter's only thread. A thread that starts at this moment waits for a short copy to end.
fn is_alone(_py: Python<'_>) -> bool {
    let Some(threads) = &*THREADS else { return false };
    // SAFETY: `_py` proves that this thread is attached, so that it has a state.
    let this = unsafe { ffi::PyThreadState_Get() };
    // SAFETY: `_py` proves that this thread is attached, so that it has an interpreter.
    let interpreter = unsafe { ffi::PyInterpreterState_Get() };
    // SAFETY: `interpreter` is the one this thread is attached to, so it is alive. The call reads one field of it, the
    // address of its newest thread, which is compared and not followed: that thread may be ending.
    let newest = unsafe { (threads.head)(interpreter) };
    // SAFETY: `this` is the state of the thread that runs this, so it is alive. The call reads one field of it, an
    // address that is compared and not followed.
    newest == this && unsafe { (threads.next)(this) }.is_null()
}
