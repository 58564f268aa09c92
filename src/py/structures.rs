//! `PipeRing`, `XArray` and `FolioQueue`.

use super::buffer::{Access, Call, Named, page};
use super::values::{fault_error, optional_size, size, size_or};
use super::view::memoryview;
use crate::abi::PAGE_SIZE;
use crate::copy::{Outcome, memcpy, read_into};
use crate::error::Error;
use crate::fault::Fault;
use crate::memory::{Memory, Page};
use crate::structure::{self, CAN_MERGE, FOLIOS_PER_NODE, PIPE_SLOTS, Ring, Slot};
use pyo3::exceptions::{PyBlockingIOError, PyOSError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMapping, PyMemoryView, PyTuple};
use std::sync::Arc;

fn show<'py>(py: Python<'py>, page: &Page, readonly: bool) -> PyResult<Bound<'py, PyMemoryView>> {
    memoryview(py, page.seg(), readonly, Arc::clone(page.owner()))
}

/// A pipe's ring of page slots (`struct pipe_inode_info`): filled through `IovIter.pipe`, drained by `read` and `splice`.
#[pyclass(module = "iovec_rs", name = "PipeRing", frozen)]
pub(super) struct PipeRing(pub(super) Arc<structure::PipeRing>);

/// The bytes of a ring's slots are taken under its lock; pages are released after it.
impl PipeRing {
    /// Consumes `nbytes` bytes, which the ring is known to have held, or what is left of them.
    fn consume(&self, mut nbytes: usize) {
        let mut released = Vec::new();
        let mut ring = self.0.lock();
        while nbytes > 0 {
            let Some(oldest) = ring.iter().next().map(|slot| slot.len) else { break };
            released.extend(ring.consume(nbytes));
            nbytes = nbytes.saturating_sub(oldest);
        }
        drop(ring);
    }

    fn slots_for(&self, nbytes: usize) -> Vec<Slot> {
        let mut left = nbytes;
        let take = |slot: &Slot| {
            let taken = Slot { len: slot.len.min(left), ..slot.clone() };
            left -= taken.len;
            taken
        };
        self.0.lock().iter().map(take).take_while(|slot| slot.len > 0).collect()
    }
}

/// The bytes of the slots, up to the first that cannot be read.
fn copy_out(slots: &[Slot]) -> Result<(Vec<u8>, Option<Box<Fault>>), Error> {
    let total = slots.iter().map(|slot| slot.len).sum();
    let mut bytes: Vec<u8> = Vec::new();
    bytes.try_reserve_exact(total).map_err(|_| Error::NoMemory(total))?;
    for slot in slots {
        let (done, fault) = read_into(bytes.spare_capacity_mut(), slot.memory())?;
        // SAFETY: the capacity covers all slots' lengths; `done` bytes behind the initialised ones have just been written.
        unsafe { bytes.set_len(bytes.len() + done) };
        if fault.is_some() {
            return Ok((bytes, fault));
        }
    }
    Ok((bytes, None))
}

#[pymethods]
impl PipeRing {
    #[new]
    #[pyo3(signature = (slots=None, max_usage=None))]
    fn new(slots: Option<&Bound<'_, PyAny>>, max_usage: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let (slots, max_usage) = (size_or("slots", slots, PIPE_SLOTS)?, optional_size("max_usage", max_usage)?);
        Ok(Self(Arc::new(structure::PipeRing::new(slots, max_usage)?)))
    }

    /// Slots in use.
    #[getter]
    fn used(&self) -> usize {
        self.0.lock().used()
    }

    /// Whether no slot is left for a user.
    #[getter]
    fn full(&self) -> bool {
        self.0.lock().free() == 0
    }

    /// The slots in use, oldest first: `(page, offset, length, flags)`. Pages are shown read-only.
    #[getter]
    fn slots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let slots: Vec<Slot> = self.0.lock().iter().cloned().collect();
        let shown: PyResult<Vec<_>> =
            slots.iter().map(|slot| Ok((show(py, &slot.page, true)?, slot.offset, slot.len, slot.flags))).collect();
        PyList::new(py, shown?)
    }

    /// Takes up to `nbytes` bytes (all by default) out of the ring.
    #[pyo3(signature = (nbytes=-1), text_signature = "($self, nbytes=-1)")]
    fn read<'py>(&self, py: Python<'py>, nbytes: i64) -> PyResult<Bound<'py, PyBytes>> {
        let slots = self.slots_for(usize::try_from(nbytes).unwrap_or(usize::MAX));
        let (bytes, fault) = copy_out(&slots)?;
        if let (0, Some(fault)) = (bytes.len(), fault) {
            return Err(fault_error(py, &fault, 0));
        }
        self.consume(bytes.len());
        Ok(PyBytes::new(py, &bytes))
    }

    /// An ordinary write into the pipe: fills up a last slot that may be merged with, then takes slots of its own. Returns the bytes
    /// written, fewer when the ring is full.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let mut call = Call::new();
        let flat = call.acquire(data, Access::Read, Named::Argument("data"))?;
        let (written, fault) = append(&mut self.0.lock(), flat)?;
        fault.map_or(Ok(written), |fault| Err(fault_error(data.py(), &fault, written)))
    }

    /// Moves up to `nbytes` bytes (all by default) into a pipe, socket or file and returns how many: fewer when it takes no more.
    #[pyo3(signature = (fd, nbytes=-1), text_signature = "($self, fd, nbytes=-1)")]
    fn splice(&self, py: Python<'_>, fd: &Bound<'_, PyAny>, nbytes: i64) -> PyResult<usize> {
        // SAFETY: attached; the argument is an object.
        let fd = unsafe { ffi::PyObject_AsFileDescriptor(fd.as_ptr()) };
        if fd < 0 {
            return Err(PyErr::fetch(py));
        }
        let nbytes = usize::try_from(nbytes).unwrap_or(usize::MAX);
        let mut done = 0;
        while done < nbytes {
            let slots = self.slots_for(nbytes - done);
            let offered: usize = slots.iter().take(crate::abi::UIO_MAXIOV).map(|slot| slot.len).sum();
            if offered == 0 {
                break;
            }
            match py.detach(|| write_slots(fd, &slots)) {
                Ok(written) => {
                    self.consume(written);
                    done += written;
                    if written < offered {
                        break;
                    }
                }
                Err(libc::EINTR) => py.check_signals()?,
                Err(_) if done > 0 => break,
                Err(libc::EAGAIN) => {
                    return Err(PyBlockingIOError::new_err((libc::EAGAIN, "the file takes no bytes now")));
                }
                Err(errno) => {
                    return Err(PyOSError::new_err((errno, std::io::Error::from_raw_os_error(errno).to_string())));
                }
            }
        }
        Ok(done)
    }

    fn __repr__(&self) -> String {
        let ring = self.0.lock();
        let bytes: usize = ring.iter().map(|slot| slot.len).sum();
        format!("<PipeRing used={} free={} bytes={bytes}>", ring.used(), ring.free())
    }
}

fn write_slots(fd: i32, slots: &[Slot]) -> Result<usize, i32> {
    let vector: Vec<libc::iovec> = slots
        .iter()
        .take(crate::abi::UIO_MAXIOV)
        .map(|slot| libc::iovec { iov_base: slot.seg().as_mut_ptr().cast(), iov_len: slot.len })
        .collect();
    // SAFETY: each element is a slot's range, held by the clone in `slots`; the call only reads from it.
    let written = unsafe { libc::writev(fd, vector.as_ptr(), vector.len() as i32) };
    usize::try_from(written).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Writes into the ring what fits: the bytes, and what stopped them.
fn append(ring: &mut Ring, data: Memory) -> Result<Outcome, Error> {
    let mut done = 0;
    while done < data.len() {
        let rest = data.skip(done);
        let newest = ring.head().wrapping_sub(1);
        let open = ring.get(newest).filter(|slot| slot.own && slot.flags & CAN_MERGE != 0 && slot.end() < PAGE_SIZE);
        let open = open.map(Slot::end);
        let (counter, from) = match open {
            Some(end) => (newest, end),
            None if ring.push_own(0, CAN_MERGE) => (newest.wrapping_add(1), 0),
            None => break,
        };
        let Some(slot) = ring.get_mut(counter) else { break };
        let room = slot.page.memory().skip(from);
        let part = room.len().min(rest.len());
        let (copied, fault) = memcpy(room.take(part), rest.take(part))?;
        slot.len += copied;
        done += copied;
        if fault.is_some() {
            let is_empty = slot.len == 0;
            drop(is_empty.then(|| ring.pop_newest()));
            return Ok((done, fault));
        }
    }
    Ok((done, None))
}

/// Page index to page (`struct xarray`): what `IovIter.xarray` walks. A page has exactly `PAGE_SIZE` bytes.
#[pyclass(module = "iovec_rs", name = "XArray", frozen)]
pub(super) struct XArray(pub(super) Arc<structure::XArray>);

#[pymethods]
impl XArray {
    #[new]
    #[pyo3(signature = (pages=None))]
    fn new(pages: Option<&Bound<'_, PyMapping>>) -> PyResult<Self> {
        let array = Self(Arc::default());
        if let Some(pages) = pages {
            for item in pages.items()? {
                let item = item.cast::<PyTuple>()?;
                array.store(&item.get_item(0)?, &item.get_item(1)?)?;
            }
        }
        Ok(array)
    }

    /// Puts a page at `index` in place of what was there. Iterators see it from their next operation on.
    fn store(&self, index: &Bound<'_, PyAny>, page: &Bound<'_, PyAny>) -> PyResult<()> {
        let index = size("index", index)?;
        let stored = super::buffer::page(page, Named::Argument("page"))?;
        if stored.seg().len != PAGE_SIZE {
            return Err(Error::invalid("page", format!("{} bytes", stored.seg().len), "PAGE_SIZE (4096) bytes").into());
        }
        drop(self.0.store(index, stored));
        Ok(())
    }

    /// The page at `index`, or `None` for a hole.
    fn load<'py>(&self, py: Python<'py>, index: &Bound<'_, PyAny>) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        let tree = self.0.snapshot();
        tree.load(size("index", index)?).map(|page| show(py, page, !page.writable())).transpose()
    }

    /// Makes a hole at `index`.
    fn erase(&self, index: &Bound<'_, PyAny>) -> PyResult<()> {
        drop(self.0.erase(size("index", index)?));
        Ok(())
    }
}

/// Folios in order (`struct folio_queue`): what `IovIter.folioq` walks. A folio is any buffer that is not empty.
#[pyclass(module = "iovec_rs", name = "FolioQueue", frozen)]
pub(super) struct FolioQueue(pub(super) Arc<structure::FolioQueue>);

#[pymethods]
impl FolioQueue {
    #[new]
    #[pyo3(signature = (folios=None, slots_per_node=None))]
    fn new(folios: Option<&Bound<'_, PyAny>>, slots_per_node: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let slots_per_node = size_or("slots_per_node", slots_per_node, FOLIOS_PER_NODE)?;
        if slots_per_node == 0 {
            return Err(Error::invalid("slots_per_node", 0, "1 or more").into());
        }
        let queue = Self(Arc::new(structure::FolioQueue::new(slots_per_node)));
        if let Some(folios) = folios {
            for (index, folio) in folios.try_iter()?.enumerate() {
                queue.push(&folio?, Named::Segment(index))?;
            }
        }
        Ok(queue)
    }

    /// Adds a folio at the end. Iterators see it from their next operation on.
    fn append(&self, folio: &Bound<'_, PyAny>) -> PyResult<()> {
        self.push(folio, Named::Argument("folio"))
    }
}

impl FolioQueue {
    fn push(&self, folio: &Bound<'_, PyAny>, name: Named) -> PyResult<()> {
        let folio = page(folio, name)?;
        if folio.seg().len == 0 {
            return Err(Error::invalid("folio", "empty", "1 byte or more").into());
        }
        self.0.append(folio);
        Ok(())
    }
}
