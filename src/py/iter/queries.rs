//! Queries about the rest of an iterator: segments, alignment and pages.

use super::IovIter;
use crate::py::exception::Int;
use crate::py::results::to_page_span;
use crate::py::values::size;
use pyo3::prelude::*;

#[pymethods]
impl IovIter {
    /// The bytes left in the current segment (`iov_iter_single_seg_count`). It may be 0 although more segments follow.
    fn single_seg_count(&self, py: Python<'_>) -> PyResult<Int> {
        Ok(Int(self.lock(py)?.core.single_seg_count()))
    }

    /// The bitwise OR of the addresses and lengths of all remaining segments (`iov_iter_alignment`).
    fn alignment(&self, py: Python<'_>) -> PyResult<Int> {
        Ok(Int(self.lock(py)?.core.alignment()))
    }

    /// Whether no address has a bit in common with `addr_mask` and no length one with `len_mask`
    /// (`iov_iter_is_aligned`).
    fn is_aligned(&self, py: Python<'_>, addr_mask: &Bound<'_, PyAny>, len_mask: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (addr_mask, len_mask) = (size("addr_mask", addr_mask)?, size("len_mask", len_mask)?);
        Ok(self.lock(py)?.core.is_aligned(addr_mask, len_mask))
    }

    /// The bitwise OR of the boundaries between the segments of an IOVEC (`iov_iter_gap_alignment`); 0 if they join
    /// without gaps. UBUF gives 0, and any other kind 0xffffffff.
    fn gap_alignment(&self, py: Python<'_>) -> PyResult<Int> {
        Ok(Int(self.lock(py)?.core.gap_alignment()))
    }

    /// The number of pages that the remaining memory touches, at most `maxpages` (`iov_iter_npages`).
    fn npages(&self, py: Python<'_>, maxpages: &Bound<'_, PyAny>) -> PyResult<Int> {
        let maxpages = size("maxpages", maxpages)?;
        Ok(Int(self.lock(py)?.core.npages(maxpages)))
    }

    /// The pages of the next bytes, at most `maxsize` bytes and `maxpages` pages, as a `PageSpan`
    /// (`iov_iter_get_pages2`). Advances the iterator by their bytes.
    fn get_pages<'py>(
        &self,
        py: Python<'py>,
        maxsize: &Bound<'_, PyAny>,
        maxpages: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (maxsize, maxpages) = (size("maxsize", maxsize)?, size("maxpages", maxpages)?);
        let span = self.lock(py)?.core.get_pages(maxsize, maxpages)?;
        to_page_span(py, span)
    }

    /// The pages of the next bytes as by `get_pages`, without taking references to them (`iov_iter_extract_pages`).
    /// Advances the iterator by their bytes.
    fn extract_pages<'py>(
        &self,
        py: Python<'py>,
        maxsize: &Bound<'_, PyAny>,
        maxpages: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (maxsize, maxpages) = (size("maxsize", maxsize)?, size("maxpages", maxpages)?);
        let span = self.lock(py)?.core.extract_pages(maxsize, maxpages)?;
        to_page_span(py, span)
    }

    /// Faults in the next `nbytes` bytes for reading, and returns how many could not be faulted in
    /// (`fault_in_iov_iter_readable`).
    fn fault_in_readable(&self, py: Python<'_>, nbytes: &Bound<'_, PyAny>) -> PyResult<Int> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(Int(self.lock(py)?.core.fault_in(nbytes, false)))
    }

    /// Faults in the next `nbytes` bytes for writing, without changing them, and returns how many could not be faulted
    /// in (`fault_in_iov_iter_writeable`).
    fn fault_in_writeable(&self, py: Python<'_>, nbytes: &Bound<'_, PyAny>) -> PyResult<Int> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(Int(self.lock(py)?.core.fault_in(nbytes, true)))
    }
}
