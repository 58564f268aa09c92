//! Memory handed out to Python: a memoryview that keeps what it shows exported.

use crate::memory::{Owner, Segment};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use std::ffi::c_int;

/// The exporter behind such a memoryview.
#[pyclass(module = "iovec_rs._core", frozen)]
pub(super) struct Span {
    seg: Segment,
    readonly: bool,
    /// Held until the last memoryview is gone.
    _owner: Owner,
}

#[pymethods]
impl Span {
    /// # Safety
    /// Called by the interpreter with a record to fill.
    #[allow(clippy::needless_pass_by_value)] // the slot's signature
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (seg, readonly) = (slf.get().seg, slf.get().readonly);
        let len = ffi::Py_ssize_t::try_from(seg.len).map_err(|_| PyBufferError::new_err("longer than any buffer"))?;
        // SAFETY: `view` is the interpreter's; the memory stays while `slf` does, to which the filled record holds a reference.
        let done = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), seg.as_mut_ptr().cast(), len, c_int::from(readonly), flags)
        };
        if done == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// A memoryview of `seg`, which `owner` keeps.
pub(super) fn memoryview(
    py: Python<'_>,
    seg: Segment,
    readonly: bool,
    owner: Owner,
) -> PyResult<Bound<'_, PyMemoryView>> {
    let span = Bound::new(py, Span { seg, readonly, _owner: owner })?;
    PyMemoryView::from(span.as_any())
}
