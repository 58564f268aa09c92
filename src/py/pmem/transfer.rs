//! Copies to and from a mapped region.

use super::MappedRegion;
use crate::error::Result;
use crate::pmem::{Caller, Granularity};
use crate::py::buffer::{Access, ArgName, Call, is_buffer};
use crate::py::data::{destination, from_data};
use crate::py::detach::transfer;
use crate::py::errors::{fault_error, fault_error_of, trusted_fault, with_crc32c};
use crate::py::iter::IovIter;
use crate::py::results::to_mc_result;
use crate::py::run::Copied;
use crate::py::values::{optional_size, size, word};
use pyo3::prelude::*;

impl MappedRegion {
    /// Runs work that may wait for a device, detached from the interpreter.
    fn durable<T: Send>(&self, py: Python<'_>, nbytes: usize, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
        let may_wait = self.granularity == Granularity::Page;
        if may_wait { Ok(py.detach(work)?) } else { transfer(py, nbytes, work) }
    }

    /// Writes for `write` and its variants. Returns the result and the fault to raise.
    fn store(
        &self,
        py: Python<'_>,
        offset: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        crc: Option<&mut u32>,
    ) -> PyResult<Copied<usize>> {
        let mapping = self.mapping.get()?;
        let offset = size("offset", offset)?;
        if is_buffer(data) {
            let mut call = Call::new();
            let src = call.acquire(data, Access::Read, ArgName::Argument("data"))?;
            return self.durable(py, src.len(), || mapping.write(offset, src, crc));
        }
        from_data(data, |core| {
            let copied = self.durable(py, core.count(), || mapping.write_from(offset, core, crc))?;
            Ok((copied, trusted_fault(core)))
        })
    }

    /// Reads for `read_into` and its variant.
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
        let target = destination(&mut call, dst)?;
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
    /// Copies a buffer, buffers in order, or the rest of an iterator to `offset`, with one fence. Returns the number
    /// of bytes copied, which are durable then.
    ///
    /// If memory is bad, the bytes before it are copied and durable. Over user memory (UBUF, IOVEC) the count is short
    /// then, and `data.fault` says why; otherwise it is a `FaultError`, with `.copied`. A file that was truncated is
    /// bad memory from its end on. OSError if the kernel cannot make the bytes durable (msync): then none counts, an
    /// iterator is where it was, and the bytes must be written again, since a second msync would not write them. With
    /// granularity "page", if any write-back of the file fails, whoever the kernel reported it to, the bytes are stored
    /// and synced again, up to three times, so that the good part of a failing medium stays writable; a source that
    /// overlaps its destination is stored only once. ValueError if `data` does not fit into the region, BufferError if
    /// it is read-only: then nothing was stored.
    fn write(&self, py: Python<'_>, offset: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        match self.store(py, offset, data, None)? {
            (copied, Some(fault)) => Err(fault_error(py, &fault, copied)),
            (copied, None) => Ok(copied),
        }
    }

    /// `write` that also adds the bytes copied to a CRC-32C. Returns `(copied, crc)`. `FaultError` has the sum in
    /// `.crc32c`.
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
            (copied, Some(fault)) => Err(with_crc32c(py, fault_error(py, &fault, copied), crc)),
            (copied, None) => Ok((copied, crc)),
        }
    }

    /// Copies from `offset` on into a buffer or the rest of an iterator. Stops before a range in `fault_map` and at
    /// memory that faults; poison in the region is added to the map. Bad memory raises no exception. Returns an
    /// `McResult`.
    fn read_into<'py>(
        &self,
        py: Python<'py>,
        offset: &Bound<'_, PyAny>,
        dst: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.load(py, offset, dst, None)
    }

    /// `read_into` that also adds the bytes copied to a CRC-32C. Returns `(McResult, crc)`.
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

    /// Makes the stores to `length` bytes (by default all the rest) from `offset` on durable: by a fence, by flushing
    /// cache lines, or by msync, depending on `granularity`. `FaultError` if the memory is bad, or if the file was
    /// truncated before their end. OSError if the kernel cannot write them, or has failed to write back any of the
    /// region since this thread last called `persist` on it, whoever that was reported to: then everything that the
    /// thread has stored to the region since its last successful `persist` must be stored again. A failure is reported
    /// once to each thread.
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
        fault.map_or(Ok(()), |fault| Err(fault_error_of(py, &fault, done, "to be made durable")))
    }
}
