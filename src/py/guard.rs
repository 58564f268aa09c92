//! `guard`: code that is not ours over memory that may go away.

use super::buffer::{ArgName, Exports};
use super::errors::guard_error;
use super::exception::{Text, exception};
use super::results::to_fault;
use super::values::{Lengths, user_range};
use crate::error::Error;
use crate::fault::shelter::{self, Range, Report};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What `guard` returns: a context manager, for one block.
#[pyclass(module = "iovec_rs", frozen, weakref)]
pub(super) struct Guard {
    state: Mutex<State>,
    /// `None`: every mapped file.
    ranges: Option<Vec<Range>>,
    raises: bool,
}

enum State {
    /// Not entered yet; the exports last from the call on.
    New(Exports),
    Entered(shelter::Guard, Exports),
    Left(Report),
}

fn misused(what: &str) -> PyErr {
    exception::<PyRuntimeError>(format!("a guard is for one block, and this one {what}"))
}

impl Guard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> Report {
        match &*self.lock() {
            State::New(_) => Report::default(),
            State::Entered(guard, _) => guard.report(),
            State::Left(report) => report.clone(),
        }
    }

    /// Ends it if it was entered and has not ended. What it held goes afterwards, with nothing locked.
    fn leave(&self) -> Option<Report> {
        let (report, exports) = {
            let mut state = self.lock();
            match std::mem::replace(&mut *state, State::Left(Report::default())) {
                State::Entered(guard, exports) => {
                    let report = guard.end();
                    *state = State::Left(report.clone());
                    (report, exports)
                }
                other => {
                    *state = other;
                    return None;
                }
            }
        };
        drop(exports);
        Some(report)
    }
}

#[pymethods]
impl Guard {
    fn __enter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        let mut state = slf.lock();
        match std::mem::replace(&mut *state, State::Left(Report::default())) {
            State::New(exports) => match shelter::Guard::begin(slf.ranges.as_deref()) {
                Ok(guard) => *state = State::Entered(guard, exports),
                Err(error) => {
                    *state = State::New(exports);
                    return Err(error.into());
                }
            },
            other => {
                *state = other;
                return Err(misused("was entered before"));
            }
        }
        drop(state);
        Ok(slf)
    }

    fn __exit__(
        slf: &Bound<'_, Self>,
        _kind: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let report = if shelter::is_idle() { this.leave() } else { py.detach(|| this.leave()) };
        let report = report.ok_or_else(|| misused("was not entered"))?;
        if !this.raises || report.faults.is_empty() {
            return Ok(());
        }
        let raised = guard_error(py, &report, slf.as_any());
        if !error.is_none() {
            raised.value(py).setattr("__context__", error)?;
        }
        Err(raised)
    }

    /// What other code met in the block so far, in the order in which it was met; extents that touch and are alike are one. `offset` is 0, `address`
    /// and `length` are those of the pages, `side` is "destination" if it was a store.
    #[getter]
    fn faults<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let report = py.detach(|| self.report());
        let faults: Vec<_> = report.faults.iter().map(|fault| to_fault(py, fault)).collect::<PyResult<_>>()?;
        PyList::new(py, faults)
    }

    /// Bytes that read as zeroes, or whose stores went nowhere: whole pages, the sum of the faults' lengths.
    #[getter]
    fn lost(&self, py: Python<'_>) -> usize {
        py.detach(|| self.report()).lost
    }

    /// How many of those the mapping still lacks after the block, until it is closed: 0, unless the kernel cannot put such pages back (of files
    /// before Linux 5.13, huge pages).
    #[getter]
    fn not_restored(&self, py: Python<'_>) -> usize {
        py.detach(|| self.report()).left
    }

    fn __repr__(&self, py: Python<'_>) -> Text<String> {
        let state = match &*self.lock() {
            State::New(_) => "not entered",
            State::Entered(..) => "entered",
            State::Left(_) => "left",
        };
        Text(format!("<Guard {state} lost={}>", self.lost(py)))
    }
}

impl Drop for Guard {
    /// A block that was never left (a generator that nobody goes on with): the mappings are put back now, and nobody can be told but
    /// whoever reads what cannot be raised.
    fn drop(&mut self) {
        let Some(report) = self.leave() else { return };
        if self.raises && !report.faults.is_empty() {
            let _ = Python::try_attach(|py| guard_error(py, &report, py.None().bind(py)).write_unraisable(py, None));
        }
    }
}

/// Inside the block no bad page of these buffers kills the process, whatever code touches it: it reads as zeroes, and stores to it are
/// lost. At the end the mappings are what they were; if a bad page was met, `FaultError` is raised (`.fault` the first, `.guard` the
/// `Guard`; an exception of the block is its `__context__`), or with `on_fault="record"` only recorded.
///
/// A buffer may have any strides; it is held exported until the block ends. Whole pages are guarded. With no buffer: every mapped file, for
/// faults of this thread only. Other threads that read these ranges during the block get zeroes, too, without a guard of their own to
/// tell them. `RuntimeError` on entering where the handler cannot be had: SIGBUS is blocked in this thread, the mode is "syscall".
/// `TypeError` and `BufferError` name the argument; `ValueError`: another `on_fault`.
#[pyfunction]
#[pyo3(signature = (*buffers, on_fault="raise"))]
pub(super) fn guard(buffers: &Bound<'_, PyTuple>, on_fault: &str) -> PyResult<Guard> {
    let raises = match on_fault {
        "raise" => true,
        "record" => false,
        _ => return Err(Error::invalid("on_fault", format!("{on_fault:?}"), "\"raise\" or \"record\"").into()),
    };
    let mut exports = Exports::default();
    let range = |(index, buffer): (usize, Bound<'_, PyAny>)| {
        if let Some(seg) = user_range(&buffer, Lengths::Strict, ArgName::Buffer(index))? {
            return Ok(Range { seg, is_writable: false });
        }
        let held = exports.acquire_strided(&buffer, ArgName::Buffer(index))?;
        Ok(Range { seg: held.seg, is_writable: !held.readonly })
    };
    let ranges: Vec<_> = buffers.iter().enumerate().map(range).collect::<PyResult<_>>()?;
    let ranges = (!buffers.is_empty()).then_some(ranges);
    Ok(Guard { state: Mutex::new(State::New(exports)), ranges, raises })
}
