//! Detached from the interpreter, and attached to it.

use crate::error::Result;
use crate::fault::arm;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;
use std::sync::LazyLock;

/// From this size on a copy lets other threads run meanwhile, if there are any.
const DETACH_FROM: usize = 8 << 10;
/// From this size on it does in any case: a thread may turn up, and the price, 50 to 100 nanoseconds, is nothing beside
/// such a copy.
const DETACH_ALWAYS_FROM: usize = 256 << 10;

/// Whether a copy of so many bytes may run without the interpreter.
#[inline]
pub(super) fn may_detach(nbytes: usize) -> bool {
    nbytes >= DETACH_FROM
}

/// Runs a copy of about `nbytes`, without the interpreter if that is enough.
#[inline(always)]
#[allow(clippy::inline_always)] // what the work has captured would be moved, right after it was written
pub(super) fn transfer<T: Send>(py: Python<'_>, nbytes: usize, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    Ok(perhaps_detached(py, nbytes, work)?)
}

/// The same, for callers that have something to give back before they make an exception of an error.
#[inline(always)]
#[allow(clippy::inline_always)] // what the work has captured would be moved, right after it was written
pub(super) fn perhaps_detached<R: Send>(py: Python<'_>, nbytes: usize, work: impl FnOnce() -> R + Send) -> R {
    if !may_detach(nbytes) {
        return work();
    }
    // A longer copy has put the interpreter's own data out of the first cache, so that the way back and here again
    // takes longer.
    arm::extend();
    let result = if nbytes >= DETACH_ALWAYS_FROM || !is_alone(py) { py.detach(work) } else { work() };
    arm::extend();
    result
}

/// Runs what may drop a reference without a token: it is given back at once, and with it those that were put aside
/// before.
#[cold]
pub(super) fn attached<T>(run: impl FnOnce() -> T) -> T {
    Python::attach(|_| run())
}

/// Where the interpreter lists its threads: functions for debuggers, which every `CPython` exports, outside the stable
/// ABI.
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

/// Finds them: once, when the module is imported, as [`super::names`] says.
pub(super) fn init() {
    LazyLock::force(&THREADS);
}

fn function(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name is a terminated string.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

/// Whether the interpreter has no thread but this. One that starts at this moment waits for a short copy.
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
