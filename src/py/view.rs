//! Memory handed out to Python: a memoryview that keeps what it shows exported.

use super::exception::exception;
use crate::memory::{Owner, Segment};
use crate::structure::can_have;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMemoryView};
use pyo3::{PyTraverseError, PyVisit};
use std::ffi::c_int;

/// The exporter behind such a memoryview.
#[pyclass(module = "iovec_rs._core", frozen)]
pub(super) struct Span {
    seg: Segment,
    readonly: bool,
    /// Held until the last memoryview is gone.
    owner: ViewOwner,
}

/// What keeps memory that is handed out.
pub(super) enum ViewOwner {
    /// An object, which the collector is shown.
    Object(Py<PyAny>),
    /// A page's owner. Copies that run without the interpreter share it, so what it holds is not the collector's to
    /// count.
    Page(#[allow(dead_code)] Owner), // held, not read
}

#[pymethods]
impl Span {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.owner {
            ViewOwner::Object(object) => visit.call(object),
            ViewOwner::Page(_) => Ok(()),
        }
    }

    /// # Safety
    /// Called by the interpreter with a record to fill.
    #[allow(clippy::needless_pass_by_value)] // the slot's signature
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (seg, readonly) = (slf.get().seg, slf.get().readonly);
        let len =
            ffi::Py_ssize_t::try_from(seg.len).map_err(|_| exception::<PyBufferError>("longer than any buffer"))?;
        // SAFETY: `view` is the interpreter's; the memory stays while `slf` does, to which the filled record holds a
        // reference.
        let done = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), seg.as_mut_ptr().cast(), len, c_int::from(readonly), flags)
        };
        if done == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// Makes the class: once, when the module is imported, as [`super::names`] says.
pub(super) fn init(py: Python<'_>) {
    py.get_type::<Span>();
}

/// A memoryview of `seg`, which `owner` keeps.
pub(super) fn memoryview(
    py: Python<'_>,
    seg: Segment,
    readonly: bool,
    owner: ViewOwner,
) -> PyResult<Bound<'_, PyMemoryView>> {
    let span = Bound::new(py, Span { seg, readonly, owner })?;
    PyMemoryView::from(span.as_any())
}

/// A list of what `make` makes of each item. There may be any number of them: `MemoryError`, where Python's own
/// constructors of small objects would only panic in this binding.
pub(super) fn list_of<'py, T>(
    py: Python<'py>,
    items: Vec<T>,
    mut make: impl FnMut(T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    /// The interpreter takes memory for small objects by the MiB, for some thousands of them.
    const ARENA: usize = 2 << 20;
    const OBJECTS: usize = 256;
    let list = PyList::empty(py);
    for (index, item) in items.into_iter().enumerate() {
        if index % OBJECTS == OBJECTS - 1 {
            can_have(ARENA)?;
        }
        list.append(make(item)?)?;
    }
    Ok(list)
}
