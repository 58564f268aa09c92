//! Questions about what remains: segments, alignment and pages.

use super::IovIter;
use crate::py::exception::Int;
use crate::py::results::to_page_span;
use crate::py::values::size;
use pyo3::prelude::*;

#[pymethods]
impl IovIter {
    /// Bytes before the end of the current segment (`iov_iter_single_seg_count`). May be 0 with more to come.
    fn single_seg_count(&self, py: Python<'_>) -> PyResult<Int> {
        Ok(Int(self.lock(py)?.core.single_seg_count()))
    }

    /// The OR of every address and length to be transferred (`iov_iter_alignment`).
    fn alignment(&self, py: Python<'_>) -> PyResult<Int> {
        Ok(Int(self.lock(py)?.core.alignment()))
    }

    /// Whether no address has a bit of `addr_mask` and no length one of `len_mask` (`iov_iter_is_aligned`).
    fn is_aligned(&self, py: Python<'_>, addr_mask: &Bound<'_, PyAny>, len_mask: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (addr_mask, len_mask) = (size("addr_mask", addr_mask)?, size("len_mask", len_mask)?);
        Ok(self.lock(py)?.core.is_aligned(addr_mask, len_mask))
    }

    /// The OR of an IOVEC's inner boundaries (`iov_iter_gap_alignment`): 0 if it joins without gaps. 0xffffffff for
    /// other kinds but UBUF.
    fn gap_alignment(&self, py: Python<'_>) -> PyResult<Int> {
        Ok(Int(self.lock(py)?.core.gap_alignment()))
    }

    /// Pages that the remaining pieces touch, at most `maxpages` (`iov_iter_npages`).
    fn npages(&self, py: Python<'_>, maxpages: &Bound<'_, PyAny>) -> PyResult<Int> {
        let maxpages = size("maxpages", maxpages)?;
        Ok(Int(self.lock(py)?.core.npages(maxpages)))
    }

    /// The pages under the next bytes; the iterator moves on (`iov_iter_get_pages2`). Returns a `PageSpan`.
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

    /// The pages under the next bytes, listed without taking them; the iterator moves on (`iov_iter_extract_pages`).
    /// Returns a `PageSpan`.
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

    /// Bytes of the next `nbytes` that could not be faulted in to be read (`fault_in_iov_iter_readable`).
    fn fault_in_readable(&self, py: Python<'_>, nbytes: &Bound<'_, PyAny>) -> PyResult<Int> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(Int(self.lock(py)?.core.fault_in(nbytes, false)))
    }

    /// Bytes of the next `nbytes` that could not be faulted in to be written (`fault_in_iov_iter_writeable`). Contents
    /// stay.
    fn fault_in_writeable(&self, py: Python<'_>, nbytes: &Bound<'_, PyAny>) -> PyResult<Int> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(Int(self.lock(py)?.core.fault_in(nbytes, true)))
    }
}
