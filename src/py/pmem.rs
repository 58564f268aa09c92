//! `PmemRegion`, and what `iovec_rs.pmem` needs beside it.

use super::buffer::{Access, Call, Named};
use super::copy::raise_if_trusted;
use super::fault_map::{FaultMap, record};
use super::iter::IovIter;
use super::transfer::transfer;
use super::values::{fault_error, optional_size, size, to_mc_result};
use crate::copy::flushcache;
use crate::error::{Error, Result};
use crate::fault::map;
use crate::pmem::{self, Device, Granularity, Mapping, Opened, Piece, Purpose};
use pyo3::exceptions::{PyBufferError, PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PyType};
use std::ffi::c_int;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file or a DAX device mapped as persistent memory: a writable buffer, and a context manager that closes it.
///
/// `granularity` says what makes a store through a view durable: `"byte"` nothing more, `"cache_line"` a flush of its lines,
/// `"page"` an msync; `persist` does what it takes. `write` does it by itself.
#[pyclass(module = "iovec_rs.pmem", name = "PmemRegion", frozen, weakref)]
pub(super) struct PmemRegion {
    state: Mutex<State>,
    path: Py<PyAny>,
    fault_map: Py<FaultMap>,
    size: usize,
    offset: usize,
    granularity: Granularity,
    is_map_sync: bool,
    writable: bool,
}

struct State {
    /// Shared with the copies that run; `None` once closed.
    mapping: Option<Arc<Mapping>>,
    /// Views that Python holds.
    exports: usize,
}

/// A refusal while opening, which names the file.
fn with_path(error: Error, path: &Bound<'_, PyAny>) -> PyErr {
    match error {
        Error::Os { errno, context } => PyOSError::new_err((errno, context, path.clone().unbind())),
        other => other.into(),
    }
}

/// The sysfs of non-volatile memory is read in Python.
fn nvdimm<'py>(py: Python<'py>, function: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("iovec_rs._nvdimm")?.getattr(function)
}

/// The bytes of an open file that the system knows to be bad.
fn bad_in_file(py: Python<'_>, opened: &Opened) -> PyResult<map::FaultMap> {
    let found = py.import("iovec_rs._badblocks")?.getattr("of_descriptor")?.call1((opened.fd(),))?;
    let found = found.cast::<FaultMap>()?.get().lock().clone();
    Ok(found)
}

impl PmemRegion {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mapping(&self) -> PyResult<Arc<Mapping>> {
        self.lock().mapping.clone().ok_or_else(closed)
    }

    /// Runs what may wait for a device without the interpreter.
    fn durable<T: Send>(&self, py: Python<'_>, nbytes: usize, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
        let may_wait = self.granularity == Granularity::Page;
        if may_wait { Ok(py.detach(work)?) } else { transfer(py, nbytes, work) }
    }
}

fn closed() -> PyErr {
    PyValueError::new_err("the region is closed")
}

#[pymethods]
impl PmemRegion {
    /// Maps `size` bytes (all the rest by default) of a file on any file system, or of a device-DAX character device.
    ///
    /// `create` makes the file if there is none, and makes it longer if it is too short for `size`. A writable file is given room
    /// for all of the region first, holes included: a full disk is an OSError here and never a fault later. ValueError: a size
    /// or an offset that the file has no bytes for, or that cannot be mapped. OSError: the file cannot be opened or mapped, or is no file.
    /// What is refused leaves the file's bytes and length as they were; holes that had got room by then may keep it.
    #[classmethod]
    #[pyo3(
        signature = (path, *, size=None, create=false, offset=None, writable=true),
        text_signature = "(path, *, size=None, create=False, offset=0, writable=True)"
    )]
    fn open(
        class: &Bound<'_, PyType>,
        path: &Bound<'_, PyAny>,
        size: Option<&Bound<'_, PyAny>>,
        create: bool,
        offset: Option<&Bound<'_, PyAny>>,
        writable: bool,
    ) -> PyResult<Self> {
        let py = class.py();
        let (size, offset) = (optional_size("size", size)?, optional_size("offset", offset)?.unwrap_or(0));
        let purpose = match (create, writable) {
            (true, false) => return Err(Error::invalid("create", "True", "False where writable is False").into()),
            (true, true) => Purpose::Create,
            (false, true) => Purpose::Write,
            (false, false) => Purpose::Read,
        };
        let path = py.import("os")?.getattr("fsdecode")?.call1((path,))?;
        let name: PathBuf = path.extract()?;
        if name.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(Error::invalid("path", path.repr()?, "a path without null bytes").into());
        }
        let mut opened = py.detach(|| Opened::new(&name, purpose)).map_err(|error| with_path(error, &path))?;
        let (kind, number) = opened.character_device().map_or(("block", opened.lies_on()), |number| ("char", number));
        let device = match kind {
            "char" => {
                let (size, align) = nvdimm(py, "dax_device")?.call1((number, &path))?.extract()?;
                Some(Device { size, align })
            }
            _ => None,
        };
        let part = loop {
            match py.detach(|| opened.reserve(size, offset, device)) {
                Err(Error::Os { errno: libc::EINTR, .. }) => py.check_signals()?,
                reserved => break reserved.map_err(|error| with_path(error, &path))?,
            }
        };
        let bad = bad_in_file(py, &opened)?;
        let caches_last = nvdimm(py, "caches_persist")?.call1((kind, number))?.extract()?;
        let mapping = py.detach(|| Mapping::new(opened, part, caches_last)).map_err(|error| with_path(error, &path))?;
        let fault_map = Py::new(py, FaultMap::of(mapping.known_bad(&bad)?))?;
        Ok(Self {
            path: path.unbind(),
            fault_map,
            size: mapping.seg().len,
            offset,
            granularity: mapping.granularity(),
            is_map_sync: mapping.is_sync(),
            writable,
            state: Mutex::new(State { mapping: Some(Arc::new(mapping)), exports: 0 }),
        })
    }

    /// The path it was opened by.
    #[getter]
    fn path(&self, py: Python<'_>) -> Py<PyAny> {
        self.path.clone_ref(py)
    }

    /// Its length in bytes.
    #[getter]
    fn size(&self) -> usize {
        self.size
    }

    /// Where in the file its first byte is.
    #[getter]
    fn offset(&self) -> usize {
        self.offset
    }

    /// What makes a store durable: `"byte"` its becoming visible, `"cache_line"` leaving the caches, `"page"` an msync.
    #[getter]
    fn granularity(&self) -> &'static str {
        self.granularity.name()
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
        self.lock().mapping.is_none()
    }

    /// The addresses in it that are known to be bad: from the system's list when it was opened or refreshed, and the poison in it that `read_into`
    /// ran into since. Not what a file lacks that was cut: it may grow again.
    /// A page with a bad block in it cannot be mapped, so all of it is in there; of a device only the blocks are.
    #[getter]
    fn fault_map(&self, py: Python<'_>) -> PyResult<Py<FaultMap>> {
        self.mapping()?;
        Ok(self.fault_map.clone_ref(py))
    }

    /// Makes `fault_map` say what the system's list says now, and returns it. What copies ran into is forgotten.
    fn refresh_badblocks(&self, py: Python<'_>) -> PyResult<Py<FaultMap>> {
        let mapping = self.mapping()?;
        let fresh = mapping.known_bad(&bad_in_file(py, mapping.opened())?)?;
        *self.fault_map.get().lock() = fresh;
        Ok(self.fault_map.clone_ref(py))
    }

    /// Copies all of a buffer, or all that is left of an iterator, to `offset`; returns the bytes copied, which are durable.
    ///
    /// Bad memory: what was written before it is durable, too. Over user memory (UBUF, IOVEC) the count is short and `data.fault` says
    /// why; otherwise `FaultError`, with `.copied`. If the kernel cannot make it durable (msync): OSError, nothing counts, and an
    /// iterator is back where it was; the bytes are to be written again, as a second msync would not find them. With granularity
    /// "page" a write-back of the file that fails anywhere, whoever was told of it, has the bytes stored and synced again, up to three
    /// times, so that the good part of a failing medium stays writable; a source that overlaps its destination is stored once.
    /// A file that has become shorter is bad memory from its end on.
    /// ValueError if `data` leaves the region, BufferError if it is read-only: then nothing was stored.
    fn write(&self, py: Python<'_>, offset: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let mapping = self.mapping()?;
        let offset = size("offset", offset)?;
        if let Ok(i) = data.cast::<IovIter>() {
            let mut i = i.try_borrow_mut()?;
            let core = &mut i.core;
            let copied = self.durable(py, core.count(), || mapping.write_from(offset, core))?;
            raise_if_trusted(py, core, copied)?;
            return Ok(copied);
        }
        let mut call = Call::new();
        let src = call.acquire(data, Access::Read, Named::Argument("data"))?;
        let (copied, fault) = self.durable(py, src.len(), || mapping.write(offset, src))?;
        fault.map_or(Ok(copied), |fault| Err(fault_error(py, &fault, copied)))
    }

    /// Fills a buffer, or all that is left of an iterator, from `offset` on. It stops before what `fault_map` knows and at what turns out to
    /// be bad; poison in the region is added to it. Never an exception for bad memory. Returns an `McResult`.
    fn read_into<'py>(
        &self,
        py: Python<'py>,
        offset: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mapping = self.mapping()?;
        let offset = size("offset", offset)?;
        let map = &self.fault_map.get().0;
        if let Ok(i) = dst.cast::<IovIter>() {
            let mut i = i.try_borrow_mut()?;
            let core = &mut i.core;
            let nbytes = core.count();
            let copied = transfer(py, nbytes, || mapping.read_into(offset, core, map))?;
            if let Some(found) = core.fault.as_deref().and_then(|fault| mapping.damage(fault)) {
                record(map, found);
            }
            return to_mc_result(py, copied, nbytes, core.fault.as_deref());
        }
        let mut call = Call::new();
        let target = call.acquire(dst, Access::Write, Named::Argument("dst"))?;
        let nbytes = target.len();
        let (copied, fault) = transfer(py, nbytes, || mapping.read(offset, target, map))?;
        if let Some(found) = fault.as_deref().and_then(|fault| mapping.damage(fault)) {
            record(map, found);
        }
        to_mc_result(py, copied, nbytes, fault.as_deref())
    }

    /// Makes what was stored to `length` bytes (all the rest by default) from `offset` on durable: by a fence, by flushing lines, or by
    /// msync, as `granularity` asks for. `FaultError` if the memory is bad, or the file has become too short to hold them. OSError if the
    /// kernel cannot, or could not at any time since this thread last called `persist` on this region, whoever was told of it then: what the
    /// thread has stored to the region since `persist` last succeeded is to be stored again. A failure is reported once to each thread.
    #[pyo3(signature = (offset=None, length=None), text_signature = "($self, offset=0, length=None)")]
    fn persist(
        &self,
        py: Python<'_>,
        offset: Option<&Bound<'_, PyAny>>,
        length: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let mapping = self.mapping()?;
        let offset = optional_size("offset", offset)?.unwrap_or(0);
        let length = optional_size("length", length)?.unwrap_or(self.size.saturating_sub(offset));
        let (done, fault) = self.durable(py, length, || mapping.persist(pmem::Caller::Persist, offset, length))?;
        fault.map_or(Ok(()), |fault| Err(fault_error(py, &fault, done)))
    }

    /// Has what is durable leave the last buffers before the medium, for the case that their protection fails: msync and fsync of a
    /// file, the memory regions' own deep flush of a DAX device (which takes root). OSError if that fails, or if a write-back of the file has
    /// failed since this thread last called it, as for `persist`.
    fn deep_flush(&self, py: Python<'_>) -> PyResult<()> {
        let mapping = self.mapping()?;
        match mapping.opened().character_device() {
            Some(number) => {
                flushcache::drain();
                nvdimm(py, "deep_flush")?.call1((number,)).map(|_| ())
            }
            None => Ok(py.detach(|| mapping.sync_all())?),
        }
    }

    /// Unmaps it. BufferError while views of it, iterators over it or copies are alive. Stores that were not made durable are left to the kernel.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock();
        if let Some(mapping) = &state.mapping {
            let copies = Arc::strong_count(mapping) - 1;
            if state.exports + copies > 0 {
                let message = format!("the region is in use: {} views, {copies} running calls", state.exports);
                return Err(PyBufferError::new_err(message));
            }
        }
        let mapping = state.mapping.take();
        drop(state);
        py.detach(|| drop(mapping));
        Ok(())
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        slf.mapping()?;
        Ok(slf)
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.close(py)
    }

    fn __len__(&self) -> PyResult<usize> {
        self.mapping().map(|mapping| mapping.seg().len)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let path = self.path.bind(py).repr()?;
        if self.lock().mapping.is_none() {
            return Ok(format!("<PmemRegion {path} closed>"));
        }
        let (size, offset, granularity) = (self.size, self.offset, self.granularity.name());
        let mode = if self.writable { "" } else { " read-only" };
        Ok(format!("<PmemRegion {path} size={size} offset={offset} granularity={granularity}{mode}>"))
    }

    /// A view of it, as type checkers look for one in a buffer; Python 3.12 and later has this of itself.
    fn __buffer__<'py>(slf: &Bound<'py, Self>, flags: c_int) -> PyResult<Bound<'py, PyMemoryView>> {
        if flags & ffi::PyBUF_WRITABLE != 0 && !slf.get().writable {
            return Err(Error::ReadOnlyRegion.into());
        }
        PyMemoryView::from(slf.as_any())
    }

    /// # Safety
    /// Called by the interpreter with a record to fill.
    #[allow(clippy::needless_pass_by_value)] // the slot's signature
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let mut state = this.lock();
        let Some(mapping) = &state.mapping else {
            // SAFETY: `view` is the interpreter's, which wants to see that it was not filled.
            unsafe { (*view).obj = std::ptr::null_mut() };
            return Err(closed());
        };
        let seg = mapping.seg();
        let (start, readonly) = (seg.as_mut_ptr().cast(), c_int::from(!this.writable));
        // SAFETY: `view` is the interpreter's; the memory stays mapped while `exports` counts the record, and no length passes isize.
        if unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, seg.len.cast_signed(), readonly, flags) } != 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        state.exports += 1;
        Ok(())
    }

    /// # Safety
    /// Called by the interpreter with a record that `__getbuffer__` filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.lock().exports -= 1;
    }
}

/// What a map says about `(from, to, length)` stretches of the bytes it speaks of, by where they are in others. Incomplete if the
/// map is, or if `incomplete` says that other stretches belong to those bytes, too, and are not known.
#[pyfunction]
#[pyo3(signature = (map, pieces, incomplete=false))]
pub(super) fn fault_map_moved(
    map: &Bound<'_, FaultMap>,
    pieces: Vec<(usize, usize, usize)>,
    incomplete: bool,
) -> PyResult<FaultMap> {
    let pieces = pieces.into_iter().map(|(from, to, len)| Piece { from, to, len });
    let map = map.get().lock().clone();
    let mut moved = pmem::moved(&map, pieces)?;
    if incomplete {
        moved.set_incomplete();
    }
    Ok(FaultMap::of(moved))
}
