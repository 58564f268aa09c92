//! The compiled part of `SafeMap`: a mapping of a file, as a buffer.

use super::closable::Closable;
use super::errors::fault_error_of;
use super::exception::{Int, Text};
use super::values::{narrow, optional_size, size, text};
use crate::error::{Error, Excerpt};
use crate::fault::shelter::Mark;
use crate::fault::{Fault, Side};
use crate::sys::file_mapping::{FileMapping, Stores};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::os::fd::{BorrowedFd, RawFd};

/// A mapped part of a file, the base class of `SafeMap`.
#[pyclass(module = "iovec_rs._core", frozen, weakref, subclass)]
pub(super) struct MappedFile {
    mapping: Closable<FileMapping>,
    size: usize,
    mode: &'static str,
}

const MODES: [(&str, Stores); 3] = [("r", Stores::Refused), ("r+", Stores::Shared), ("c", Stores::Private)];

/// The first part of `nbytes` bytes from `offset` on that is not the file's: bytes that a guard has replaced by zeroes,
/// or those behind the first `held` bytes, which are all that the file has.
fn lost(mapping: &FileMapping, mark: Mark, offset: usize, nbytes: usize, held: usize) -> Option<Fault> {
    let part = mapping.seg().skip(offset).take(nbytes);
    mark.fault(part.take(held), Side::Destination)
        .or_else(|| (held < part.len).then(|| Fault::truncated(Side::Destination, part.skip(held), held)))
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
            return Err(Error::invalid("mode", Excerpt(mode), "\"r\", \"r+\" or \"c\"").into());
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
        Ok(Self { mapping: Closable::new("map", mapping), size, mode })
    }

    /// Its length in bytes.
    #[getter]
    fn size(&self) -> Int {
        Int(self.size)
    }

    /// The mode. `"r"` is read-only, with `"r+"` stores change the file, and with `"c"` they stay private to this map.
    #[getter]
    fn mode(&self) -> Text<&'static str> {
        Text(self.mode)
    }

    /// Whether it is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.mapping.is_closed()
    }

    /// Writes everything that was stored to the file (msync); does nothing in the modes "r" and "c". `OSError` if the
    /// kernel cannot: then everything stored since the last flush must be stored again. `FaultError`, with `.copied`,
    /// if part of the mapping is not the file's any more: bytes that were stored behind the end of a truncated file, or
    /// to a guard's zeroes, are lost.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let mapping = self.mapping.get()?;
        if mapping.stores() != Stores::Shared {
            return Ok(());
        }
        let mark = Mark::now();
        let held = py.detach(|| mapping.sync().and_then(|()| mapping.held_by_file(0, self.size)))?;
        lost(&mapping, mark, 0, self.size, held)
            .map_or(Ok(()), |fault| Err(fault_error_of(py, &fault, fault.offset, "to be written to the file")))
    }

    /// Checks that all of `nbytes` bytes from `offset` on, which were just stored, are the file's. `FaultError`, with
    /// `.copied`, if not.
    fn _require_held(&self, py: Python<'_>, offset: &Bound<'_, PyAny>, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        let (offset, nbytes) = (size("offset", offset)?, size("nbytes", nbytes)?);
        let mapping = self.mapping.get()?;
        let held = mapping.held_by_file(offset, nbytes)?;
        let lost = lost(&mapping, Mark::now(), offset, nbytes, held);
        lost.map_or(Ok(()), |fault| Err(fault_error_of(py, &fault, fault.offset, "to be written to the file")))
    }

    /// Unmaps the file. `BufferError` while views of the map, arrays or iterators over it, or guards are alive.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.mapping.close(py, drop)
    }

    fn __len__(&self) -> usize {
        self.size
    }

    /// # Safety
    /// Called by the interpreter with a record to fill.
    #[allow(clippy::needless_pass_by_value)] // the slot's signature
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let shown = |mapping: &FileMapping| (mapping.seg(), mapping.stores() != Stores::Refused);
        // SAFETY: by the contract `view` is a record of the interpreter to be filled; the mapping stays mapped until it
        // is dropped.
        unsafe { slf.get().mapping.fill(&slf, view, flags, shown) }
    }

    /// # Safety
    /// Called by the interpreter with a record that `__getbuffer__` filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.mapping.release();
    }
}
