//! What keeps an iterator's memory, until the last of those that rely on it is gone: the iterator, its duplicates, its
//! views.

use super::buffer::Exports;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Exports that several objects rely on.
#[pyclass(module = "iovec_rs._core", frozen)]
struct SharedExports(OnceLock<Exports>);

#[pymethods]
impl SharedExports {
    /// A cycle through the memory is found by the collector and broken elsewhere: see `IovIter`.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.get().map_or(Ok(()), |exports| exports.traverse(&visit))
    }
}

/// Makes the class: once, when the module is imported, as [`super::names`] says.
pub(super) fn init(py: Python<'_>) {
    py.get_type::<SharedExports>();
}

enum State {
    /// Exports that only the iterator relies on.
    Own(Exports),
    /// An object that others rely on, too.
    Shared(Py<PyAny>),
}

/// An iterator's hold on its memory. The lock is held for no Python code.
pub(super) struct Kept(Mutex<State>);

impl Kept {
    pub(super) fn own(exports: Exports) -> Self {
        Self(Mutex::new(State::Own(exports)))
    }

    pub(super) fn shared(owner: Py<PyAny>) -> Self {
        Self(Mutex::new(State::Shared(owner)))
    }

    /// An object that keeps the memory for whoever holds it. Most iterators never need one.
    pub(super) fn owner(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let State::Shared(owner) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(owner.clone_ref(py));
        }
        // Making an object may run the collector and with it anything, this function included. So the exports move
        // last.
        let owner = Bound::new(py, SharedExports(OnceLock::new()))?;
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Own(exports) = &mut *state {
            // The object is new: nobody has filled it.
            let _ = owner.get().0.set(std::mem::take(exports));
            *state = State::Shared(owner.clone().into_any().unbind());
        }
        let State::Shared(first) = &*state else { return Ok(owner.into_any().unbind()) };
        let first = first.clone_ref(py);
        drop(state);
        Ok(first)
    }

    /// Lets go of the memory. Buffers that nobody else relies on are given back here.
    pub(super) fn release(&self) {
        let released = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, State::Own(Exports::default()))
        };
        drop(released);
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever holds the lock runs no Python code, so the collector does not run there.
        let Ok(state) = self.0.try_lock() else { return Ok(()) };
        match &*state {
            State::Own(exports) => exports.traverse(visit),
            State::Shared(owner) => visit.call(owner),
        }
    }
}
