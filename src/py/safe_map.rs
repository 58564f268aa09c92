//! What `SafeMap` is made of: a mapping of a file, as a buffer.

use super::errors::fault_error;
use super::exception::{Text, exception};
use super::values::{narrow, optional_size, size, text};
use crate::error::Error;
use crate::fault::shelter::Mark;
use crate::fault::{Fault, Side};
use crate::memory::Segment;
use crate::sys::file_mapping::{FileMapping, Stores};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A mapped part of a file: the part of `SafeMap` that is a buffer.
#[pyclass(module = "iovec_rs._core", frozen, weakref, subclass)]
pub(super) struct MappedFile {
    state: Mutex<State>,
    size: usize,
    mode: &'static str,
}

struct State {
    /// Shared with a sync that runs; `None` once closed.
    mapping: Option<Arc<FileMapping>>,
    /// Views that Python holds.
    exports: usize,
}

const MODES: [(&str, Stores); 3] = [("r", Stores::Refused), ("r+", Stores::Shared), ("c", Stores::Private)];

fn closed() -> PyErr {
    exception::<PyValueError>("the map is closed")
}

/// What of `nbytes` bytes from `offset` on is not the file's: behind the `held` bytes of them that it holds, or under
/// the zeroes of a guard.
fn lost(mapping: &FileMapping, mark: Mark, offset: usize, nbytes: usize, held: usize) -> Option<Fault> {
    let part = mapping.seg().skip(offset).take(nbytes);
    mark.fault(part.take(held), Side::Destination)
        .or_else(|| (held < part.len).then(|| Fault::cut(Side::Destination, part.skip(held), held)))
}

impl MappedFile {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more view; `None` once it is closed.
    fn export(&self) -> Option<(Segment, Stores)> {
        let mut state = self.lock();
        let mapping = state.mapping.as_ref()?;
        let shown = (mapping.seg(), mapping.stores());
        state.exports += 1;
        Some(shown)
    }
}

#[pymethods]
impl MappedFile {
    #[new]
    #[pyo3(signature = (file, mode, offset, length))]
    fn new(
        py: Python<'_>,
        file: &Bound<'_, PyAny>,
        mode: &Bound<'_, PyAny>,
        offset: &Bound<'_, PyAny>,
        length: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mode = text("mode", mode)?;
        let Some((mode, stores)) = MODES.into_iter().find(|(known, _)| *known == mode) else {
            return Err(Error::invalid("mode", format!("{mode:?}"), "\"r\", \"r+\" or \"c\"").into());
        };
        let (offset, length) = (size("offset", offset)?, optional_size("length", length)?);
        let file: RawFd = narrow("path", file, "a descriptor")?;
        if file < 0 {
            return Err(Error::invalid("path", file, "a path or a descriptor").into());
        }
        // SAFETY: the caller passed an open descriptor, and does not close it meanwhile; one that is not open fails to
        // be duplicated.
        let file = unsafe { BorrowedFd::borrow_raw(file) };
        let mapping = py.detach(|| FileMapping::new(file, stores, offset, length))?;
        let size = mapping.seg().len;
        Ok(Self { state: Mutex::new(State { mapping: Some(Arc::new(mapping)), exports: 0 }), size, mode })
    }

    /// Its length in bytes.
    #[getter]
    fn size(&self) -> usize {
        self.size
    }

    /// `"r"`: read only. `"r+"`: stores change the file. `"c"`: stores are this map's own.
    #[getter]
    fn mode(&self) -> Text<&'static str> {
        Text(self.mode)
    }

    /// Whether it is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.lock().mapping.is_none()
    }

    /// Has the file hold what was stored (msync); nothing in the modes "r" and "c". `OSError` if the kernel cannot:
    /// then what was stored since the last flush is to be stored again. `FaultError`, with `.copied`, if not all of it
    /// is the file any more: what was stored behind the end of one that was cut is lost, and to a guard's zeroes, too.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let mapping = self.lock().mapping.clone().ok_or_else(closed)?;
        if mapping.stores() != Stores::Shared {
            return Ok(());
        }
        let mark = Mark::now();
        let held = py.detach(|| mapping.sync().and_then(|()| mapping.held_by_file(0, self.size)))?;
        lost(&mapping, mark, 0, self.size, held).map_or(Ok(()), |fault| Err(fault_error(py, &fault, fault.offset)))
    }

    /// Raises if not all of `nbytes` bytes from `offset` on, which were just stored, are the file's: `FaultError`, with
    /// `.copied`.
    fn _require_held(&self, py: Python<'_>, offset: &Bound<'_, PyAny>, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        let (offset, nbytes) = (size("offset", offset)?, size("nbytes", nbytes)?);
        let mapping = self.lock().mapping.clone().ok_or_else(closed)?;
        let held = mapping.held_by_file(offset, nbytes)?;
        let lost = lost(&mapping, Mark::now(), offset, nbytes, held);
        lost.map_or(Ok(()), |fault| Err(fault_error(py, &fault, fault.offset)))
    }

    /// Unmaps it. `BufferError` while views of it, arrays or iterators over it or guards are alive.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock();
        let in_use = state.exports + state.mapping.as_ref().map_or(0, |mapping| Arc::strong_count(mapping) - 1);
        if state.mapping.is_some() && in_use > 0 {
            return Err(exception::<PyBufferError>(format!(
                "the map is in use: {in_use} views, guards or running calls"
            )));
        }
        let mapping = state.mapping.take();
        drop(state);
        py.detach(|| drop(mapping));
        Ok(())
    }

    fn __len__(&self) -> usize {
        self.size
    }

    /// # Safety
    /// Called by the interpreter with a record to fill.
    #[allow(clippy::needless_pass_by_value)] // the slot's signature
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let Some((seg, stores)) = this.export() else {
            // SAFETY: `view` is the interpreter's, which wants to see that it was not filled.
            unsafe { (*view).obj = std::ptr::null_mut() };
            return Err(closed());
        };
        let (start, readonly) = (seg.as_mut_ptr().cast(), c_int::from(stores == Stores::Refused));
        // A refusal makes an exception, which may run the collector and with it anything: nothing is locked here.
        // SAFETY: `view` is the interpreter's; the memory stays mapped while `exports` counts the record, and no length
        // passes isize.
        if unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, seg.len.cast_signed(), readonly, flags) } != 0 {
            this.lock().exports -= 1;
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
    }

    /// # Safety
    /// Called by the interpreter with a record that `__getbuffer__` filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.lock().exports -= 1;
    }
}
