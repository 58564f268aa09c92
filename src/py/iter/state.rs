//! `IterState`: a saved position.

use crate::iter;
use crate::py::exception::{Int, Text};
use pyo3::prelude::*;

/// A position that `save_state` saved and `restore` returns to (`struct iov_iter_state`).
#[pyclass(module = "iovec_rs", name = "IterState", frozen, eq)]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct IterState(pub(super) iter::IterState);

#[pymethods]
impl IterState {
    /// Bytes consumed of the segment that was current.
    #[getter]
    fn iov_offset(&self) -> Int {
        Int(self.0.iov_offset)
    }

    /// Bytes that remained.
    #[getter]
    fn count(&self) -> Int {
        Int(self.0.count)
    }

    /// Segments that remained.
    #[getter]
    fn nr_segs(&self) -> Int {
        Int(self.0.nr_segs)
    }

    fn __repr__(&self) -> Text<String> {
        let iter::IterState { iov_offset, count, nr_segs } = self.0;
        Text(format!("IterState(iov_offset={iov_offset}, count={count}, nr_segs={nr_segs})"))
    }
}
