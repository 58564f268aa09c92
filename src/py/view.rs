//! Memoryviews of memory that an iterator or another object runs over. Each keeps that memory exported.

use super::exception::exception;
use crate::memory::{Owner, Segment};
use crate::structure::can_have;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMemoryView};
use pyo3::{PyTraverseError, PyVisit};
use std::ffi::c_int;

/// The exporter behind such a memoryview, of which it is the `obj`.
#[pyclass(module = "iovec_rs._core", frozen)]
pub(super) struct Span {
    seg: Segment,
    readonly: bool,
    /// Keeps the memory until the last memoryview is gone.
    owner: ViewOwner,
}

/// The owner of memory that a memoryview shows.
pub(super) enum ViewOwner {
    /// A Python object, which the garbage collector visits.
    Object(Py<PyAny>),
    /// The owner of a page. The collector does not visit it: copies that run without the interpreter share it, so the
    /// reference is not this object's alone.
    Page(#[allow(dead_code)] Owner), // only kept alive
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
    /// `view` is a record that may be written to; the interpreter passes one.
    #[allow(clippy::needless_pass_by_value)] // the slot's signature
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (seg, readonly) = (slf.get().seg, slf.get().readonly);
        let len =
            ffi::Py_ssize_t::try_from(seg.len).map_err(|_| exception::<PyBufferError>("longer than any buffer"))?;
        // SAFETY: by the contract `view` may be written to. The memory stays as long as `owner`, and so as long as
        // `slf`, to which the filled record holds a reference.
        let done = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), seg.as_mut_ptr().cast(), len, c_int::from(readonly), flags)
        };
        if done == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// Makes the class when the module is imported, for the reason that [`super::names`] gives.
pub(super) fn init(py: Python<'_>) {
    py.get_type::<Span>();
}

/// Makes a memoryview of `seg`, which `owner` keeps.
pub(super) fn memoryview(
    py: Python<'_>,
    seg: Segment,
    readonly: bool,
    owner: ViewOwner,
) -> PyResult<Bound<'_, PyMemoryView>> {
    let span = Bound::new(py, Span { seg, readonly, owner })?;
    PyMemoryView::from(span.as_any())
}

/// Makes a list of what `make` returns for each item, of which there may be any number. `MemoryError` if there is no
/// memory: it looks for memory ahead of the small objects, whose constructors would panic in PyO3.
pub(super) fn list_of<'py, T>(
    py: Python<'py>,
    items: Vec<T>,
    mut make: impl FnMut(T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    /// The interpreter allocates memory for small objects 1 MiB at a time, which is enough for thousands of them. So it
    /// is sufficient to check for 2 MiB once for every 256 objects.
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
