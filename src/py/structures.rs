//! The structures that PIPE, XARRAY and FOLIOQ iterators run over: `PipeRing`, `XArray` and `FolioQueue`.

use super::buffer::{Access, ArgName, Call, page};
use super::collect::segments_of;
use super::descriptor::{Descriptor, os_error};
use super::detach::transfer;
use super::drive::torn_error;
use super::errors::fault_error;
use super::exception::{Int, Text, os_exception};
use super::names::names;
use super::results::{int, tuple};
use super::values::{optional_size, size, size_or, wrong_type};
use super::view::{ViewOwner, list_of, memoryview};
use crate::abi::PAGE_SIZE;
use crate::error::Error;
use crate::memory::{Backing, Memory, Page, Segment};
use crate::structure::{self, FOLIOS_PER_NODE, PIPE_SLOTS, Reader, headroom};
use crate::{
    copy,
    io::{self, Failure},
};
use pyo3::exceptions::PyBlockingIOError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyMemoryView};
use std::sync::Arc;

fn show<'py>(py: Python<'py>, page: &Page, readonly: bool) -> PyResult<Bound<'py, PyMemoryView>> {
    memoryview(py, page.seg(), readonly, ViewOwner::Page(Arc::clone(page.owner())))
}

/// A pipe's ring of page slots (`struct pipe_inode_info`). Iterators of `IovIter.pipe` fill it; `read` and `splice`
/// drain it.
///
/// Several threads may fill it, taking turns page by page. Only one call of `read` or `splice` at a time takes its
/// oldest bytes; others wait. A forked child gets a ring of its own with the bytes that were in it, but without those
/// that other threads were copying into it at that moment.
#[pyclass(module = "iovec_rs", name = "PipeRing", frozen)]
pub(super) struct PipeRing(pub(super) Arc<structure::PipeRing>);

impl PipeRing {
    /// Takes the reading end. While it waits, other threads run and signals are handled. No Python code runs while it
    /// is held.
    fn reader(&self, py: Python<'_>) -> PyResult<Reader<'_>> {
        loop {
            match self.0.read() {
                Ok(reader) => return Ok(reader),
                Err(turn) => py.detach(|| self.0.wait(turn)),
            }
            py.check_signals()?;
        }
    }
}

/// Converts a number of bytes. Any number below 0 means all bytes.
fn bytes_or_all(nbytes: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    let Some(nbytes) = nbytes.filter(|nbytes| !nbytes.is_none()) else { return Ok(usize::MAX) };
    if nbytes.cast::<PyInt>().is_ok_and(|number| number.lt(0).unwrap_or(false)) {
        return Ok(usize::MAX);
    }
    size("nbytes", nbytes)
}

/// Makes a `bytes` of `len` uninitialised bytes, and returns it with its memory. The caller fills it before any other
/// code sees it.
pub(super) fn new_bytes(py: Python<'_>, len: usize) -> PyResult<(Bound<'_, PyBytes>, Memory)> {
    let size = ffi::Py_ssize_t::try_from(len).map_err(|_| Error::NoMemory(len))?;
    // SAFETY: `py` proves that this thread is attached. With a null pointer the call makes an object of that size
    // without filling it, or sets an exception.
    let bytes = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), size) };
    // SAFETY: the call returned a new reference, or null with an exception set.
    let bytes = unsafe { Bound::from_owned_ptr_or_err(py, bytes) }?.cast_into::<PyBytes>()?;
    // SAFETY: the call above made a bytes object, which owns its memory and does not move it.
    let start = unsafe { ffi::PyBytes_AsString(bytes.as_ptr()) };
    let seg = Segment::new(start.expose_provenance(), len);
    // SAFETY: the caller has the only reference to the new object, and keeps it until it has filled the memory, so
    // nobody reads a byte before that.
    Ok((bytes, unsafe { Memory::new(seg, Backing::Heap) }))
}

#[pymethods]
impl PipeRing {
    #[new]
    #[pyo3(signature = (slots=None, max_usage=None), text_signature = "(slots=16, max_usage=None)")]
    fn new(slots: Option<&Bound<'_, PyAny>>, max_usage: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let (slots, max_usage) = (size_or("slots", slots, PIPE_SLOTS)?, optional_size("max_usage", max_usage)?);
        Ok(Self(Arc::new(structure::PipeRing::new(slots, max_usage)?)))
    }

    /// The number of slots in use. Bytes that another thread is copying are in use when that copy is done.
    #[getter]
    fn used(&self) -> Int {
        Int(self.0.lock().used())
    }

    /// Whether all slots that users may fill are in use.
    #[getter]
    fn full(&self) -> bool {
        self.0.lock().is_full()
    }

    /// The slots in use, oldest first, as `(page, offset, length, flags)`. Each page is a read-only memoryview.
    #[getter]
    fn slots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        list_of(py, self.0.slots()?, |slot| {
            let numbers = [slot.offset, slot.len, slot.flags as usize].map(|number| int(py, number));
            let page = show(py, &slot.page, true)?.into_any();
            tuple(py, [Ok(page)].into_iter().chain(numbers).collect::<Vec<_>>().into_iter())
        })
    }

    /// Takes up to `nbytes` bytes (all by default) out of the ring, up to the first that cannot be read; `FaultError`
    /// if that is the very first. Waits for another thread's `read` or `splice`. If it raises, nothing was taken.
    #[pyo3(signature = (nbytes=None), text_signature = "($self, nbytes=-1)")]
    fn read<'py>(&self, py: Python<'py>, nbytes: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyBytes>> {
        let nbytes = bytes_or_all(nbytes)?;
        let there = usize::try_from(self.0.lock().bytes()).unwrap_or(usize::MAX);
        let (bytes, memory) = new_bytes(py, nbytes.min(there))?;
        let reader = self.reader(py)?;
        let slots = reader.peek(memory.len(), usize::MAX)?;
        let (copied, fault) = transfer(py, memory.len(), || copy::ring::copy_out(memory, &slots))?;
        if let (0, Some(fault)) = (copied, fault) {
            return Err(fault_error(py, &fault, 0));
        }
        let bytes = if copied == memory.len() {
            bytes
        } else {
            // The bytes were fewer because of bad memory, or of another reader while this one waited.
            let (shorter, prefix) = new_bytes(py, copied)?;
            copy::memcpy(prefix, memory.take(copied))?;
            shorter
        };
        reader.consume(&slots, copied);
        // Dropping the pages may run Python code, which may read the ring, so it comes last.
        drop(reader);
        drop(slots);
        Ok(bytes)
    }

    /// Writes to the pipe as `write` does: it fills up the newest slot if that may be merged with, then new slots.
    /// Returns the number of bytes written, which is less than all if the ring is full. `FaultError` (with `.copied`)
    /// if `data` is bad memory.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let mut call = Call::new();
        let flat = call.acquire(data, Access::Read, ArgName::Argument("data"))?;
        let (written, fault) = transfer(data.py(), flat.len(), || copy::ring::write(&self.0, flat))?;
        fault.map_or(Ok(written), |fault| Err(fault_error(data.py(), &fault, written)))
    }

    /// Moves up to `nbytes` bytes (all by default) into a pipe, socket or file, and returns how many it took. It takes
    /// fewer if it has no room, or after an error, which the next call then raises. The ring keeps the bytes that were
    /// not taken, whatever is raised.
    ///
    /// Other threads run meanwhile. A signal handler that raises ends a call that waits. `BlockingIOError` if the file
    /// takes no bytes now. `OSError` EMSGSIZE, with nothing taken, if the bytes do not fit into one message of a
    /// socket.
    #[pyo3(signature = (fd, nbytes=None), text_signature = "($self, fd, nbytes=-1)")]
    fn splice(&self, py: Python<'_>, fd: &Bound<'_, PyAny>, nbytes: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let nbytes = bytes_or_all(nbytes)?;
        let descriptor = Descriptor::new(fd)?;
        let (fd, mut done) = (descriptor.fd, 0);
        while done < nbytes {
            match descriptor.require_own() {
                Err(_) if done > 0 => break,
                own => own?,
            }
            let reader = self.reader(py)?;
            let (written, slots) = py.detach(|| io::splice(&reader, fd, nbytes - done))?;
            // Dropping the pages may run Python code, which may read the ring, so it comes last.
            drop(reader);
            drop(slots);
            match written {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(Failure::Errno(libc::EINTR)) => {}
                Err(Failure::Torn(torn)) => return Err(torn_error(py, &torn, done)),
                Err(_) if done > 0 => break,
                Err(Failure::Errno(libc::EAGAIN)) => {
                    return Err(os_exception::<PyBlockingIOError>(libc::EAGAIN, "the file takes no bytes now", None));
                }
                Err(Failure::Errno(errno)) => return Err(os_error(errno)),
                Err(Failure::Refused(error)) => return Err(error.into()),
                Err(Failure::Fault(fault)) => return Err(fault_error(py, &fault, 0)),
            }
            // A signal may have interrupted the call.
            py.check_signals()?;
        }
        Ok(done)
    }

    fn __repr__(&self) -> Text<String> {
        let ring = self.0.lock();
        Text(format!("<PipeRing used={} free={} bytes={}>", ring.used(), ring.free(), ring.bytes()))
    }
}

/// A map from index to page (`struct xarray`), over which `IovIter.xarray` runs. A page has exactly `PAGE_SIZE` bytes.
#[pyclass(module = "iovec_rs", name = "XArray", frozen)]
pub(super) struct XArray(pub(super) Arc<structure::XArray>);

#[pymethods]
impl XArray {
    #[new]
    #[pyo3(signature = (pages=None))]
    fn new(pages: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let array = Self(Arc::default());
        if let Some(pages) = pages {
            // This does not check for `Mapping`, since the first such check imports that class.
            let Some(items) = pages.getattr_opt(&names(pages.py()).items)? else {
                return Err(wrong_type("pages", "a mapping of indexes to pages", pages));
            };
            for item in items.call0()?.try_iter()? {
                let (index, page): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item?.extract()?;
                array.store(&index, &page)?;
            }
        }
        Ok(array)
    }

    /// Stores a page at `index`, in place of any that was there. Iterators see it from their next operation on.
    fn store(&self, index: &Bound<'_, PyAny>, page: &Bound<'_, PyAny>) -> PyResult<()> {
        let index = size("index", index)?;
        headroom()?;
        let stored = super::buffer::page(page, ArgName::Argument("page"))?;
        if stored.seg().len != PAGE_SIZE {
            return Err(Error::invalid("page", format!("{} bytes", stored.seg().len), "PAGE_SIZE (4096) bytes").into());
        }
        drop(self.0.store(index, stored)?);
        Ok(())
    }

    /// The page at `index`, or `None` for a hole.
    fn load<'py>(&self, py: Python<'py>, index: &Bound<'_, PyAny>) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        let tree = self.0.snapshot();
        tree.load(size("index", index)?).map(|page| show(py, page, !page.writable())).transpose()
    }

    /// Removes the page at `index`, which leaves a hole.
    fn erase(&self, index: &Bound<'_, PyAny>) -> PyResult<()> {
        drop(self.0.erase(size("index", index)?)?);
        Ok(())
    }
}

/// A queue of folios (`struct folio_queue`), over which `IovIter.folioq` runs. A folio is any buffer that is not empty.
#[pyclass(module = "iovec_rs", name = "FolioQueue", frozen)]
pub(super) struct FolioQueue(pub(super) Arc<structure::FolioQueue>);

#[pymethods]
impl FolioQueue {
    #[new]
    #[pyo3(signature = (folios=None, slots_per_node=None), text_signature = "(folios=(), slots_per_node=31)")]
    fn new(folios: Option<&Bound<'_, PyAny>>, slots_per_node: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let slots_per_node = size_or("slots_per_node", slots_per_node, FOLIOS_PER_NODE)?;
        if slots_per_node == 0 {
            return Err(Error::invalid("slots_per_node", 0, "1 or more").into());
        }
        let queue = Self(Arc::new(structure::FolioQueue::new(slots_per_node)));
        if let Some(folios) = folios {
            for (index, folio) in segments_of("folios", folios)?.enumerate() {
                queue.push(&folio?, ArgName::Segment(index))?;
            }
        }
        Ok(queue)
    }

    /// Adds a folio at the end. Iterators see it from their next operation on.
    fn append(&self, folio: &Bound<'_, PyAny>) -> PyResult<()> {
        self.push(folio, ArgName::Argument("folio"))
    }
}

impl FolioQueue {
    fn push(&self, folio: &Bound<'_, PyAny>, name: ArgName) -> PyResult<()> {
        headroom()?;
        let folio = page(folio, name)?;
        if folio.seg().len == 0 {
            return Err(Error::invalid("folio", "empty", "1 byte or more").into());
        }
        Ok(self.0.append(folio)?)
    }
}
