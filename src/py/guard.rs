//! `guard`: code that is not ours over memory that may go away.

use super::buffer::{ArgName, Exports};
use super::errors::guard_error;
use super::exception::{Int, Text, exception};
use super::names::names;
use super::results::to_fault;
use super::values::{Lengths, user_range};
use crate::error::{Error, Excerpt, try_push};
use crate::fault::shelter::{self, Range};
use crate::sys::lock::Lock;
use pyo3::exceptions::{PyBaseException, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The result of `guard`: a context manager for one block.
#[pyclass(module = "iovec_rs", frozen, weakref)]
pub(super) struct Guard {
    /// From the call on until the block ends.
    exports: Lock<Exports>,
    /// `None`: every mapped file.
    ranges: Option<Vec<Range>>,
    raises: bool,
    is_taken: AtomicBool,
    /// Once it is entered.
    entered: OnceLock<shelter::Guard>,
}

fn misused(what: &str) -> PyErr {
    exception::<PyRuntimeError>(format!("a guard is for one block, and this one {what}"))
}

impl Guard {
    /// Ends it if it was entered and has not ended: what it met. What it held goes afterwards, with nothing locked.
    fn leave(&self) -> Option<&shelter::Report> {
        let report = self.entered.get()?.end()?;
        let exports = std::mem::take(&mut *self.exports.lock());
        drop(exports);
        Some(report)
    }
}

#[pymethods]
impl Guard {
    fn __enter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        if slf.is_taken.swap(true, Ordering::SeqCst) {
            return Err(misused("was entered before"));
        }
        // SAFETY: the caller of `guard` wants bad pages of these buffers, or of the files it has mapped, to read as
        // zeroes; no Rust object lies in either. `exports` keeps what is said to be pinned from being unmapped.
        match unsafe { shelter::Guard::begin(slf.ranges.as_deref()) } {
            Ok(guard) => drop(slf.entered.set(guard)),
            Err(error) => {
                slf.is_taken.store(false, Ordering::SeqCst);
                return Err(error.into());
            }
        }
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
        if !this.raises || report.places == 0 {
            return Ok(());
        }
        let raised = guard_error(py, report, slf.as_any());
        // Whatever else somebody passes is no exception to be told of.
        if error.is_instance_of::<PyBaseException>() {
            raised.value(py).setattr(&names(py).context, error)?;
        }
        Err(raised)
    }

    /// The faults of other code in the block, in order; adjacent extents with the same properties are one. `offset` is
    /// 0, `address` and `length` are those of the pages, and `side` is "destination" for a store. `MemoryError` if the
    /// list cannot be allocated, or could not at the end of the block.
    #[getter]
    fn faults<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let Some(entered) = self.entered.get() else { return Ok(list) };
        let now;
        let report = if let Some(report) = entered.ended() {
            report
        } else {
            now = py.detach(|| entered.report());
            &now
        };
        for fault in report.faults()? {
            list.append(to_fault(py, &fault)?)?;
        }
        Ok(list)
    }

    /// Bytes that read as zeroes, and stores to which are lost: whole pages, the sum of the faults' lengths.
    #[getter]
    fn lost(&self, py: Python<'_>) -> Int {
        Int(self.entered.get().map_or(0, |entered| py.detach(|| entered.lost())))
    }

    /// Bytes that still read as zeroes after the block, until their mapping is closed. It is 0 unless the kernel cannot
    /// put such pages back (of files before Linux 5.13, huge pages), or the block moved its mapping (`mremap`).
    #[getter]
    fn not_restored(&self) -> Int {
        Int(self.entered.get().and_then(shelter::Guard::ended).map_or(0, |report| report.left))
    }

    fn __repr__(&self, py: Python<'_>) -> Text<String> {
        let state = match self.entered.get().map(shelter::Guard::ended) {
            None => "not entered",
            Some(None) => "entered",
            Some(Some(_)) => "left",
        };
        Text(format!("<Guard {state} lost={}>", self.lost(py).0))
    }
}

impl Drop for Guard {
    /// A block that was never left (a generator that nobody goes on with): the mappings are put back now, and nobody
    /// can be told but whoever reads what cannot be raised.
    fn drop(&mut self) {
        let Some(report) = self.leave() else { return };
        if self.raises && report.places != 0 {
            let _ = Python::try_attach(|py| guard_error(py, report, py.None().bind(py)).write_unraisable(py, None));
        }
    }
}

/// Returns a context manager. In its block no bad page of these buffers kills the process, whatever code accesses it:
/// the page reads as zeroes, and stores to it are lost. At the end of the block the mappings are restored. If a bad
/// page was accessed, `FaultError` is raised: `.fault` is the first fault, `.guard` the `Guard`, and an exception of
/// the block its `__context__`. With `on_fault="record"` faults are only recorded.
///
/// A buffer may have any strides, and stays exported until the block ends. Whole pages are guarded. Without a buffer,
/// every mapped file is guarded, for faults of this thread only. Other threads that read the ranges during the block
/// get zeroes, too, without an error unless they have a guard of their own. `RuntimeError` on entering if the handler
/// cannot be used: SIGBUS is blocked in this thread, or the mode is "syscall". `TypeError` and `BufferError` name the
/// argument; `ValueError` for another `on_fault`.
#[pyfunction]
#[pyo3(signature = (*buffers, on_fault="raise"))]
pub(super) fn guard(buffers: &Bound<'_, PyTuple>, on_fault: &str) -> PyResult<Guard> {
    let raises = match on_fault {
        "raise" => true,
        "record" => false,
        _ => return Err(Error::invalid("on_fault", Excerpt(on_fault), "\"raise\" or \"record\"").into()),
    };
    let mut exports = Exports::default();
    let mut range = |(index, buffer): (usize, Bound<'_, PyAny>)| -> PyResult<Range> {
        if let Some(seg) = user_range(&buffer, Lengths::Strict, ArgName::Buffer(index))? {
            return Ok(Range { seg, is_writable: false, is_pinned: false });
        }
        let held = exports.acquire_strided(&buffer, ArgName::Buffer(index))?;
        Ok(Range { seg: held.seg, is_writable: !held.readonly, is_pinned: true })
    };
    let mut ranges = Vec::new();
    for each in buffers.iter().enumerate() {
        try_push(&mut ranges, range(each)?)?;
    }
    let ranges = (!buffers.is_empty()).then_some(ranges);
    Ok(Guard {
        exports: Lock::new(exports),
        ranges,
        raises,
        is_taken: AtomicBool::new(false),
        entered: OnceLock::new(),
    })
}
