//! What `iovec_rs.pmem.PmemRegion` is made of: the file, and its mapping. Python looks up what the system knows about
//! both.

use super::buffer::{Access, ArgName, Call};
use super::detach::transfer;
use super::errors::{fault_error, summed_fault_error, trusted_fault};
use super::exception::{Text, exception};
use super::fault_map::FaultMap;
use super::iter::IovIter;
use super::region_file::{RegionFile, with_path};
use super::results::to_mc_result;
use super::run::Copied;
use super::values::{few, flag, instance, iterate, optional_size, size, word};
use crate::error::{Result, try_push};
use crate::memory::Segment;
use crate::pmem::{self, Granularity, Mapping, Piece};
use crate::sys::lock::generation;
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A mapped file or DAX device: the part of `iovec_rs.pmem.PmemRegion` that looks for nothing in the system.
#[pyclass(module = "iovec_rs._core", name = "MappedRegion", frozen, weakref, subclass)]
pub(super) struct MappedRegion {
    state: Mutex<State>,
    path: Py<PyAny>,
    fault_map: Py<FaultMap>,
    size: usize,
    offset: usize,
    granularity: Granularity,
    is_map_sync: bool,
    writable: bool,
    /// The process that opened it.
    process: u32,
}

struct State {
    /// Shared with the copies that run; `None` once closed.
    mapping: Option<Arc<Mapping>>,
    /// Views that Python holds.
    exports: usize,
}

impl MappedRegion {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mapping(&self) -> PyResult<Arc<Mapping>> {
        self.lock().mapping.clone().ok_or_else(closed)
    }

    /// Counts one more view; `None` once it is closed.
    fn export(&self) -> Option<Segment> {
        let mut state = self.lock();
        let seg = state.mapping.as_ref()?.seg();
        state.exports += 1;
        Some(seg)
    }

    /// Runs what may wait for a device without the interpreter.
    fn durable<T: Send>(&self, py: Python<'_>, nbytes: usize, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
        let may_wait = self.granularity == Granularity::Page;
        if may_wait { Ok(py.detach(work)?) } else { transfer(py, nbytes, work) }
    }
}

impl MappedRegion {
    /// What `write` does, and the fault it raises.
    fn store(
        &self,
        py: Python<'_>,
        offset: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        crc: Option<&mut u32>,
    ) -> PyResult<Copied<usize>> {
        let mapping = self.mapping()?;
        let offset = size("offset", offset)?;
        if let Ok(i) = data.cast::<IovIter>() {
            let mut i = i.get().lock(py)?;
            let core = &mut i.core;
            let copied = self.durable(py, core.count(), || mapping.write_from(offset, core, crc))?;
            return Ok((copied, trusted_fault(core)));
        }
        let mut call = Call::new();
        let src = call.acquire(data, Access::Read, ArgName::Argument("data"))?;
        self.durable(py, src.len(), || mapping.write(offset, src, crc))
    }

    /// What `read_into` does.
    fn load<'py>(
        &self,
        py: Python<'py>,
        offset: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
        crc: Option<&mut u32>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mapping = self.mapping()?;
        let offset = size("offset", offset)?;
        let map = &self.fault_map.get().0;
        if let Ok(i) = dst.cast::<IovIter>() {
            let mut i = i.get().lock(py)?;
            let core = &mut i.core;
            let nbytes = core.count();
            let copied = transfer(py, nbytes, || mapping.read_into(offset, core, map, crc))?;
            if let Some(found) = core.fault.as_deref().and_then(|fault| mapping.damage(fault)) {
                map.record(found);
            }
            let fault = core.fault.clone();
            drop(i);
            return to_mc_result(py, copied, nbytes, fault.as_deref());
        }
        let mut call = Call::new();
        let target = call.acquire(dst, Access::Write, ArgName::Argument("dst"))?;
        let nbytes = target.len();
        let (copied, fault) = transfer(py, nbytes, || mapping.read(offset, target, map, crc))?;
        if let Some(found) = fault.as_deref().and_then(|fault| mapping.damage(fault)) {
            map.record(found);
        }
        to_mc_result(py, copied, nbytes, fault.as_deref())
    }
}

fn closed() -> PyErr {
    exception::<PyValueError>("the region is closed")
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
            process: generation(),
            state: Mutex::new(State { mapping: Some(Arc::new(mapping)), exports: 0 }),
        })
    }

    /// The number of the character device that is mapped; `None` for a file.
    #[getter]
    fn _character_device(&self) -> PyResult<Option<u64>> {
        Ok(self.mapping()?.opened().character_device())
    }

    /// The file's descriptor, which is open until the region is closed.
    fn _fileno(&self) -> PyResult<RawFd> {
        Ok(self.mapping()?.opened().fd())
    }

    /// Has `fault_map` hold what is known of the file's bytes, and nothing else.
    fn _set_known_bad(&self, bad: &Bound<'_, FaultMap>) -> PyResult<()> {
        let known = self.mapping()?.known_bad(&bad.get().lock().try_clone()?)?;
        *self.fault_map.get().lock() = known;
        Ok(())
    }

    /// msync and fsync of all of it, with the errors of `deep_flush`.
    fn _sync_all(&self, py: Python<'_>) -> PyResult<()> {
        let mapping = self.mapping()?;
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
        self.lock().mapping.is_none()
    }

    /// The addresses in it that are known to be bad: from the system's list when it was opened or refreshed, and the
    /// poison in it that `read_into` ran into since. Not what a file lacks that was cut: it may grow again. A page with
    /// a bad block in it cannot be mapped, so all of it is in there; of a device only the blocks are.
    #[getter]
    fn fault_map(&self, py: Python<'_>) -> PyResult<Py<FaultMap>> {
        self.mapping()?;
        Ok(self.fault_map.clone_ref(py))
    }

    /// Copies all of a buffer, or all that is left of an iterator, to `offset`; returns the bytes copied, which are
    /// durable.
    ///
    /// Bad memory: what was written before it is durable, too. Over user memory (UBUF, IOVEC) the count is short and
    /// `data.fault` says why; otherwise `FaultError`, with `.copied`. If the kernel cannot make it durable (msync):
    /// OSError, nothing counts, and an iterator is back where it was; the bytes are to be written again, as a second
    /// msync would not find them. With granularity "page" a write-back of the file that fails anywhere, whoever was
    /// told of it, has the bytes stored and synced again, up to three times, so that the good part of a failing medium
    /// stays writable; a source that overlaps its destination is stored once. A file that has become shorter is bad
    /// memory from its end on. ValueError if `data` leaves the region, BufferError if it is read-only: then nothing was
    /// stored.
    fn write(&self, py: Python<'_>, offset: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        match self.store(py, offset, data, None)? {
            (copied, Some(fault)) => Err(fault_error(py, &fault, copied)),
            (copied, None) => Ok(copied),
        }
    }

    /// `write` that adds the bytes copied to a CRC-32C on their way: `(copied, crc)`. `FaultError` has it in `.crc32c`.
    #[pyo3(signature = (offset, data, crc=None), text_signature = "($self, offset, data, crc=0)")]
    fn write_crc32c(
        &self,
        py: Python<'_>,
        offset: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        crc: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(usize, u32)> {
        let mut crc = word("crc", crc)?;
        match self.store(py, offset, data, Some(&mut crc))? {
            (copied, Some(fault)) => Err(summed_fault_error(py, &fault, copied, crc)),
            (copied, None) => Ok((copied, crc)),
        }
    }

    /// Fills a buffer, or all that is left of an iterator, from `offset` on. It stops before what `fault_map` knows and
    /// at what turns out to be bad; poison in the region is added to it. Never an exception for bad memory. Returns an
    /// `McResult`.
    fn read_into<'py>(
        &self,
        py: Python<'py>,
        offset: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.load(py, offset, dst, None)
    }

    /// `read_into` that adds the bytes copied to a CRC-32C on their way: `(McResult, crc)`.
    #[pyo3(signature = (offset, dst, crc=None), text_signature = "($self, offset, dst, crc=0)")]
    fn read_into_crc32c<'py>(
        &self,
        py: Python<'py>,
        offset: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
        crc: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, u32)> {
        let mut crc = word("crc", crc)?;
        Ok((self.load(py, offset, dst, Some(&mut crc))?, crc))
    }

    /// Makes what was stored to `length` bytes (all the rest by default) from `offset` on durable: by a fence, by
    /// flushing lines, or by msync, as `granularity` asks for. `FaultError` if the memory is bad, or the file has
    /// become too short to hold them. OSError if the kernel cannot, or could not at any time since this thread last
    /// called `persist` on this region, whoever was told of it then: what the thread has stored to the region since
    /// `persist` last succeeded is to be stored again. A failure is reported once to each thread.
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

    /// Unmaps it. BufferError while views of it, iterators over it or copies are alive. Stores that were not made
    /// durable are left to the kernel.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.lock();
        if let Some(mapping) = &state.mapping {
            // The copies of a parent's threads never end in a forked child.
            let copies = if self.process == generation() { Arc::strong_count(mapping) - 1 } else { 0 };
            if state.exports + copies > 0 {
                let message = format!("the region is in use: {} views, {copies} running calls", state.exports);
                return Err(exception::<PyBufferError>(message));
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

    /// Closes it. If it cannot be closed: BufferError, or a note to the exception that the block ends with.
    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match self.close(py) {
            Err(refused) if !error.is_none() && refused.is_instance_of::<PyBufferError>(py) => {
                let note = format!("{} stays open: {}", self.__repr__(py)?.0, refused.value(py));
                error.call_method1("add_note", (note,)).map(drop)
            }
            closed => closed,
        }
    }

    fn __len__(&self) -> PyResult<usize> {
        self.mapping().map(|mapping| mapping.seg().len)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<Text<String>> {
        let path = self.path.bind(py).repr()?;
        if self.lock().mapping.is_none() {
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
        let Some(seg) = this.export() else {
            // SAFETY: `view` is the interpreter's, which wants to see that it was not filled.
            unsafe { (*view).obj = std::ptr::null_mut() };
            return Err(closed());
        };
        let (start, readonly) = (seg.as_mut_ptr().cast(), c_int::from(!this.writable));
        // A refusal makes an exception, which may run the collector and with it anything: nothing is locked here.
        // SAFETY: `view` is the interpreter's; the memory stays mapped while `exports` counts the record, and no length
        // passes isize.
        if unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, seg.len.cast_signed(), readonly, flags) } != 0 {
            this.lock().exports -= 1;
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
    }

    /// # Safety
    /// Called by the interpreter with a record that `__getbuffer__` filled.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.lock().exports -= 1;
    }
}

/// What a map says about `(from, to, length)` stretches of the bytes it speaks of, by where they are in others.
/// Incomplete if the map is, or if `incomplete` says that other stretches belong to those bytes, too, and are not
/// known.
#[pyfunction]
#[pyo3(signature = (map, pieces, incomplete=None), text_signature = "(map, pieces, incomplete=False)")]
pub(super) fn fault_map_moved(
    map: &Bound<'_, PyAny>,
    pieces: &Bound<'_, PyAny>,
    incomplete: Option<&Bound<'_, PyAny>>,
) -> PyResult<FaultMap> {
    let map = instance::<FaultMap>("map", "a FaultMap", map)?;
    let incomplete = flag("incomplete", incomplete, false)?;
    let mut found = Vec::new();
    for (index, item) in iterate("pieces", "an iterable of (from, to, length)", pieces)?.enumerate() {
        let (item, name) = (item?, format!("pieces[{index}]"));
        let parts = few(iterate(&name, "(from, to, length)", &item)?, 4)?;
        let [from, to, len] = &parts[..] else {
            return Err(exception::<PyTypeError>(format!("{name}: (from, to, length) is expected")));
        };
        try_push(&mut found, Piece { from: size("from", from)?, to: size("to", to)?, len: size("length", len)? })?;
    }
    let map = map.lock().try_clone()?;
    let mut moved = pmem::moved(&map, found)?;
    if incomplete {
        moved.set_incomplete();
    }
    Ok(FaultMap::of(moved))
}
