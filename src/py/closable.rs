//! `Closable`: a mapping or a log that a Python object has open until it is closed. Running calls share it, and
//! Python's views show its memory.

use super::exception::{add_note, exception};
use crate::memory::Segment;
use crate::sys::lock::{Lock, generation};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::sync::Arc;

/// A resource that is open or has been closed.
pub(super) struct Closable<T> {
    /// Its name in messages.
    name: &'static str,
    /// The lock is held for a few lines only, which make no exception: making one may run the garbage collector, and
    /// with it any Python code.
    state: Lock<State<T>>,
    /// The process that opened it.
    process: u32,
}

struct State<T> {
    /// The resource, shared with the running calls; `None` once closed.
    open: Option<Arc<T>>,
    /// The number of views that Python has.
    exports: usize,
}

impl<T> Closable<T> {
    pub(super) fn new(name: &'static str, open: T) -> Self {
        let state = Lock::new(State { open: Some(Arc::new(open)), exports: 0 });
        Self { name, state, process: generation() }
    }

    fn closed(&self) -> PyErr {
        exception::<PyValueError>(format!("the {} is closed", self.name))
    }

    /// The resource for one call, during which it cannot be closed. ValueError if it is closed.
    pub(super) fn get(&self) -> PyResult<Arc<T>> {
        let open = self.state.lock().open.clone();
        open.ok_or_else(|| self.closed())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().open.is_none()
    }

    /// Closes the resource. BufferError if views or running calls use it. `end` does the closing; it runs detached from
    /// the interpreter.
    pub(super) fn close(&self, py: Python<'_>, end: impl FnOnce(Arc<T>) + Send) -> PyResult<()>
    where
        T: Send + Sync,
    {
        let taken = {
            let mut state = self.state.lock();
            // In a forked child the calls of the parent's threads do not exist, and never end.
            let shared = state.open.as_ref().filter(|_| self.process == generation());
            let calls = shared.map_or(0, |open| Arc::strong_count(open) - 1);
            if state.exports + calls == 0 { Ok(state.open.take()) } else { Err((state.exports, calls)) }
        };
        let open = taken.map_err(|(exports, calls)| {
            let (name, users) = (self.name, "views, iterators and slots over it");
            exception::<PyBufferError>(format!("the {name} is in use: {users}: {exports}, running calls: {calls}"))
        })?;
        py.detach(|| open.map(end));
        Ok(())
    }

    /// Fills a record for a view of `object`. `shown` returns its memory, and whether that may be written to.
    ///
    /// # Safety
    /// `view` is the record that the interpreter wants filled by `object`, which has this as its own. The memory stays
    /// mapped until this is dropped or closed.
    pub(super) unsafe fn fill(
        &self,
        object: &Bound<'_, PyAny>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
        shown: impl FnOnce(&T) -> (Segment, bool),
    ) -> PyResult<()> {
        let exported = {
            let mut state = self.state.lock();
            let shown = state.open.as_deref().map(shown);
            state.exports += usize::from(shown.is_some());
            shown
        };
        let Some((seg, is_writable)) = exported else {
            // SAFETY: the caller gives the interpreter's record, which wants to see that it was not filled.
            unsafe { (*view).obj = std::ptr::null_mut() };
            return Err(self.closed());
        };
        let (start, readonly) = (seg.as_mut_ptr().cast(), c_int::from(!is_writable));
        // SAFETY: the caller gives the interpreter's record; the memory stays mapped while `exports` counts it, and no
        // length passes isize.
        if unsafe { ffi::PyBuffer_FillInfo(view, object.as_ptr(), start, seg.len.cast_signed(), readonly, flags) } != 0
        {
            self.release();
            return Err(PyErr::fetch(object.py()));
        }
        Ok(())
    }

    /// A view that [`Self::fill`] has filled is gone.
    pub(super) fn release(&self) {
        self.state.lock().exports -= 1;
    }
}

/// The end of a block that `closed` is the closing of. Where it could not be closed, that is BufferError, or a note to
/// the exception that the block ends with, in which `what` stays open.
pub(super) fn end_block(
    closed: PyResult<()>,
    error: &Bound<'_, PyAny>,
    what: impl FnOnce() -> PyResult<String>,
) -> PyResult<()> {
    match closed {
        Err(refused) if !error.is_none() && refused.is_instance_of::<PyBufferError>(error.py()) => {
            let note = format!("{} stays open: {}", what()?, refused.value(error.py()));
            add_note(error, &note)
        }
        closed => closed,
    }
}
