//! What `iovec_rs.pmem.PmemRegion` is made of: the file, and its mapping. Python looks up what the system knows about
//! both.

mod transfer;

use super::closable::{Closable, end_block};
use super::errors::fault_error;
use super::exception::{Int, Text};
use super::fault_map::FaultMap;
use super::region_file::{RegionFile, with_path};
use super::values::flag;
use crate::pmem::{Granularity, Mapping};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::os::fd::RawFd;

/// A mapped file or DAX device: the part of `iovec_rs.pmem.PmemRegion` that looks for nothing in the system.
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
    /// Maps a file that was given room. `bad` are its bytes that are known to be bad; `caches_persist` says that the
    /// caches above its memory outlive a loss of power.
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

    /// The number of the character device that is mapped; `None` for a file.
    #[getter]
    fn _character_device(&self) -> PyResult<Option<u64>> {
        Ok(self.mapping.get()?.opened().character_device())
    }

    /// The file's descriptor, which is open until the region is closed.
    fn _fileno(&self) -> PyResult<RawFd> {
        Ok(self.mapping.get()?.opened().fd())
    }

    /// Has `fault_map` hold what is known of the file's bytes, and nothing else.
    fn _set_known_bad(&self, bad: &Bound<'_, FaultMap>) -> PyResult<()> {
        let known = self.mapping.get()?.known_bad(&bad.get().lock().try_clone()?)?;
        *self.fault_map.get().lock() = known;
        Ok(())
    }

    /// msync and fsync of all of it, with the errors of `deep_flush`.
    fn _sync_all(&self, py: Python<'_>) -> PyResult<()> {
        let mapping = self.mapping.get()?;
        let fault = py.detach(|| mapping.sync_all())?;
        fault.map_or(Ok(()), |fault| Err(fault_error(py, &fault, fault.offset)))
    }

    /// The path it was opened by.
    #[getter]
    fn path(&self, py: Python<'_>) -> Py<PyAny> {
        self.path.clone_ref(py)
    }

    /// Its length in bytes.
    #[getter]
    fn size(&self) -> Int {
        Int(self.size)
    }

    /// Where in the file its first byte is.
    #[getter]
    fn offset(&self) -> Int {
        Int(self.offset)
    }

    /// What makes a store durable: `"byte"` its becoming visible, `"cache_line"` leaving the caches, `"page"` an msync.
    #[getter]
    fn granularity(&self) -> Text<&'static str> {
        Text(self.granularity.name())
    }

    /// Whether the kernel promised (`MAP_SYNC`) that what has left the caches needs no msync to be found again.
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

    /// The addresses in it that are known to be bad: from the system's list when it was opened or refreshed, and the
    /// poison in it that `read_into` ran into since. Not what a file lacks that was cut: it may grow again. A page with
    /// a bad block in it cannot be mapped, so all of it is in there; of a device only the blocks are.
    #[getter]
    fn fault_map(&self, py: Python<'_>) -> PyResult<Py<FaultMap>> {
        self.mapping.get()?;
        Ok(self.fault_map.clone_ref(py))
    }

    /// Unmaps it. BufferError while views of it, iterators over it or copies are alive. Stores that were not made
    /// durable are left to the kernel.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.mapping.close(py, drop)
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        slf.mapping.get()?;
        Ok(slf)
    }

    /// Closes it. If it cannot be closed: BufferError, or a note to the exception that the block ends with.
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
        // SAFETY: `view` is the interpreter's; the mapping is unmapped when it is dropped.
        unsafe { this.mapping.fill(&slf, view, flags, shown) }
    }

    /// # Safety
    /// Called by the interpreter with a record that `__getbuffer__` filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.mapping.release();
    }
}
