//! The compiled part of `iovec_rs.pmem.PmemRegion`: the file and its mapping. Python code looks up what the system
//! knows about them.

mod transfer;

use super::closable::{Closable, end_block};
use super::errors::fault_error_of;
use super::exception::{Int, Text};
use super::fault_map::FaultMap;
use super::region_file::{RegionFile, with_path};
use super::values::flag;
use crate::pmem::{Granularity, Mapping};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::os::fd::RawFd;

/// A mapped file or DAX device, the base class of `iovec_rs.pmem.PmemRegion`. It reads nothing of sysfs.
#[pyclass(module = "iovec_rs._core", name = "MappedRegion", frozen, weakref, subclass)]
pub(super) struct MappedRegion {
    mapping: Closable<Mapping>,
    path: Py<PyAny>,
    fault_map: Py<FaultMap>,
    size: usize,
    offset: usize,
    granularity: Granularity,
    is_map_sync: bool,
    writable: bool,
}

#[pymethods]
impl MappedRegion {
    /// Maps a file whose room was allocated. `bad` are its known-bad bytes; `caches_persist` says that the CPU's caches
    /// survive a loss of power.
    #[new]
    fn new(
        py: Python<'_>,
        file: &Bound<'_, RegionFile>,
        bad: &Bound<'_, FaultMap>,
        caches_persist: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let caches_persist = flag("caches_persist", Some(caches_persist), false)?;
        let file = file.get();
        let (opened, part) = file.take()?;
        let writable = opened.writable();
        let mapping = py.detach(|| Mapping::new(opened, part, caches_persist));
        let mapping = mapping.map_err(|error| with_path(error, file.path().bind(py)))?;
        let known = mapping.known_bad(&bad.get().lock())?;
        Ok(Self {
            path: file.path().clone_ref(py),
            fault_map: Py::new(py, FaultMap::of(known))?,
            size: mapping.seg().len,
            offset: file.offset(),
            granularity: mapping.granularity(),
            is_map_sync: mapping.is_sync(),
            writable,
            mapping: Closable::new("region", mapping),
        })
    }

    /// The device number of the character device that is mapped; `None` for a file.
    #[getter]
    fn _character_device(&self) -> PyResult<Option<u64>> {
        Ok(self.mapping.get()?.opened().character_device())
    }

    /// The file's descriptor, which stays open until the region is closed.
    fn _fileno(&self) -> PyResult<RawFd> {
        Ok(self.mapping.get()?.opened().fd())
    }

    /// Replaces the contents of `fault_map` by the bad bytes of the file that are known.
    fn _set_known_bad(&self, bad: &Bound<'_, FaultMap>) -> PyResult<()> {
        let known = self.mapping.get()?.known_bad(&bad.get().lock().try_clone()?)?;
        *self.fault_map.get().lock() = known;
        Ok(())
    }

    /// Calls msync and fsync for the whole region, with the errors of `deep_flush`.
    fn _sync_all(&self, py: Python<'_>) -> PyResult<()> {
        let mapping = self.mapping.get()?;
        let fault = py.detach(|| mapping.sync_all())?;
        fault.map_or(Ok(()), |fault| Err(fault_error_of(py, &fault, fault.offset, "to be made durable")))
    }

    /// The path by which it was opened.
    #[getter]
    fn path(&self, py: Python<'_>) -> Py<PyAny> {
        self.path.clone_ref(py)
    }

    /// Its length in bytes.
    #[getter]
    fn size(&self) -> Int {
        Int(self.size)
    }

    /// The offset in the file of its first byte.
    #[getter]
    fn offset(&self) -> Int {
        Int(self.offset)
    }

    /// What makes a store durable: with `"byte"`, becoming visible; with `"cache_line"`, leaving the CPU's caches; with
    /// `"page"`, an msync.
    #[getter]
    fn granularity(&self) -> Text<&'static str> {
        Text(self.granularity.name())
    }

    /// Whether it is mapped with `MAP_SYNC`, for which the kernel guarantees that bytes that have left the CPU's caches
    /// need no msync.
    #[getter]
    fn is_map_sync(&self) -> bool {
        self.is_map_sync
    }

    /// Whether it may be written to.
    #[getter]
    fn writable(&self) -> bool {
        self.writable
    }

    /// Whether it is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.mapping.is_closed()
    }

    /// The addresses in the region that are known to be bad: those of the system's list when it was opened or
    /// refreshed, and poison that `read_into` has found since. Pages behind the end of a truncated file are not in it,
    /// since the file may grow again. For a file the whole page of a bad block is listed, because such a page cannot be
    /// mapped; for a device only the block is.
    #[getter]
    fn fault_map(&self, py: Python<'_>) -> PyResult<Py<FaultMap>> {
        self.mapping.get()?;
        Ok(self.fault_map.clone_ref(py))
    }

    /// Unmaps the region. BufferError while views of it, iterators over it or copies are alive. Stores that were not
    /// made durable are left to the kernel.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.mapping.close(py, drop)
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        slf.mapping.get()?;
        Ok(slf)
    }

    /// Closes the region. If that is not possible, raises BufferError, or adds a note to the exception that ended the
    /// block.
    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        end_block(self.close(py), error, || Ok(self.__repr__(py)?.0))
    }

    fn __len__(&self) -> PyResult<usize> {
        self.mapping.get().map(|mapping| mapping.seg().len)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<Text<String>> {
        let path = self.path.bind(py).repr()?;
        if self.mapping.is_closed() {
            return Ok(Text(format!("<PmemRegion {path} closed>")));
        }
        let (size, offset, granularity) = (self.size, self.offset, self.granularity.name());
        let mode = if self.writable { "" } else { " read-only" };
        Ok(Text(format!("<PmemRegion {path} size={size} offset={offset} granularity={granularity}{mode}>")))
    }

    /// # Safety
    /// Called by the interpreter with a record to fill.
    #[allow(clippy::needless_pass_by_value)] // the slot's signature
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let shown = |mapping: &Mapping| (mapping.seg(), this.writable);
        // SAFETY: by the contract `view` is a record of the interpreter to be filled; the mapping stays mapped until it
        // is dropped.
        unsafe { this.mapping.fill(&slf, view, flags, shown) }
    }

    /// # Safety
    /// Called by the interpreter with a record that `__getbuffer__` filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.mapping.release();
    }
}
