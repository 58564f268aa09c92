//! Copies into a mapped region and out of it.

use super::MappedRegion;
use crate::error::Result;
use crate::pmem::{Caller, Granularity};
use crate::py::buffer::{Access, ArgName, Call};
use crate::py::detach::transfer;
use crate::py::errors::{fault_error, summed_fault_error, trusted_fault};
use crate::py::iter::IovIter;
use crate::py::results::to_mc_result;
use crate::py::run::Copied;
use crate::py::values::{optional_size, size, word};
use pyo3::prelude::*;

impl MappedRegion {
    /// Runs what may wait for a device without the interpreter.
    fn durable<T: Send>(&self, py: Python<'_>, nbytes: usize, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
        let may_wait = self.granularity == Granularity::Page;
        if may_wait { Ok(py.detach(work)?) } else { transfer(py, nbytes, work) }
    }

    /// What `write` does, and the fault it raises.
    fn store(
        &self,
        py: Python<'_>,
        offset: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        crc: Option<&mut u32>,
    ) -> PyResult<Copied<usize>> {
        let mapping = self.mapping.get()?;
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
        let mapping = self.mapping.get()?;
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

#[pymethods]
impl MappedRegion {
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
        let mapping = self.mapping.get()?;
        let offset = optional_size("offset", offset)?.unwrap_or(0);
        let length = optional_size("length", length)?.unwrap_or(self.size.saturating_sub(offset));
        let (done, fault) = self.durable(py, length, || mapping.persist(Caller::Persist, offset, length))?;
        fault.map_or(Ok(()), |fault| Err(fault_error(py, &fault, done)))
    }
}
