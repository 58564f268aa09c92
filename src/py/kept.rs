//! Keeps an iterator's memory until the iterator, its duplicates and its views are all gone.

use super::buffer::Exports;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Exports that several objects share.
#[pyclass(module = "iovec_rs._core", frozen)]
struct SharedExports(OnceLock<Exports>);

#[pymethods]
impl SharedExports {
    /// Shows the collector the cycles through the memory. There is no `__clear__`, for the reason that `IovIter` gives.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.get().map_or(Ok(()), |exports| exports.traverse(&visit))
    }
}

/// Makes the class when the module is imported, for the reason that [`super::names`] gives.
pub(super) fn init(py: Python<'_>) {
    py.get_type::<SharedExports>();
}

enum State {
    /// Exports that only the iterator has.
    Own(Exports),
    /// An object that has the exports and that others may share.
    Shared(Py<PyAny>),
}

/// What keeps one iterator's memory. No Python code runs while the lock is held.
pub(super) struct Kept(Mutex<State>);

impl Kept {
    pub(super) fn own(exports: Exports) -> Self {
        Self(Mutex::new(State::Own(exports)))
    }

    pub(super) fn shared(owner: Py<PyAny>) -> Self {
        Self(Mutex::new(State::Shared(owner)))
    }

    /// An object that keeps the memory as long as it lives. It is made at the first call, since most iterators never
    /// need one.
    pub(super) fn owner(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let State::Shared(owner) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(owner.clone_ref(py));
        }
        // Making an object may run the garbage collector, and with it any code, including this function. So the exports
        // are moved into the object after it is made.
        let owner = Bound::new(py, SharedExports(OnceLock::new()))?;
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Own(exports) = &mut *state {
            // `set` cannot fail, since the object is new.
            let _ = owner.get().0.set(std::mem::take(exports));
            *state = State::Shared(owner.clone().into_any().unbind());
        }
        let State::Shared(first) = &*state else { return Ok(owner.into_any().unbind()) };
        let first = first.clone_ref(py);
        drop(state);
        Ok(first)
    }

    /// Gives up the memory. Buffers that nobody else shares are released.
    pub(super) fn release(&self) {
        let released = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, State::Own(Exports::default()))
        };
        drop(released);
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // If another thread holds the lock, the collector misses the exports this time. This thread cannot hold it,
        // since no Python code runs under the lock.
        let Ok(state) = self.0.try_lock() else { return Ok(()) };
        match &*state {
            State::Own(exports) => exports.traverse(visit),
            State::Shared(owner) => visit.call(owner),
        }
    }
}
