//! What `iovec_rs.pmem.PmemLog` is made of.

mod records;

pub(super) use records::LogRecords;

use super::closable::{Closable, end_block};
use super::data::from_data;
use super::detach::transfer;
use super::errors::fault_error;
use super::exception::{Int, Text, exception};
use super::fault_map::FaultMap;
use super::names::names;
use super::region_file::{RegionFile, with_path};
use super::results::{int, list, string, to_fault};
use super::values::size;
use crate::error::Error;
use crate::log::region::Region;
use crate::log::{Failure, Numbers, Open, PmemLog};
use crate::pmem::{Granularity, Mapping};
use pyo3::exceptions::{PyBufferError, PyIndexError};
use pyo3::prelude::*;
use pyo3::types::PyList;

/// A log in a mapped file: `iovec_rs.pmem.PmemLog` without the look-ups in sysfs.
#[pyclass(module = "iovec_rs._core", frozen, weakref, subclass)]
pub(super) struct MappedLog {
    log: Closable<PmemLog<Region>>,
    path: Py<PyAny>,
    size: usize,
    granularity: Granularity,
    recovered: u64,
    writable: bool,
}

/// What a failure is in Python. `path` names the log.
fn raised(py: Python<'_>, failure: Failure) -> PyErr {
    match failure {
        Failure::Refused(Error::ReadOnlyRegion) => {
            exception::<PyBufferError>("the log is read-only: it was opened with writable=False")
        }
        Failure::Refused(error) => error.into(),
        Failure::Fault(fault, copied) => fault_error(py, &fault, copied),
        Failure::Missing { sequence, first, end } => missing(&sequence, first, end),
        Failure::Changed => Error::os(libc::EAGAIN, "the record was withdrawn while it was read").into(),
        Failure::Corrupt { sequence, offset, what, .. } => {
            let message = format!("record {sequence} at offset {offset} is not what was appended: {what}");
            let build = || {
                let names = names(py);
                let (errno, message) = (int(py, libc::EBADMSG.unsigned_abs() as usize)?, string(py, &message)?);
                let error = names.corrupt_error.bind(py).call1((errno, message))?;
                error.setattr(&names.sequence, int(py, sequence as usize)?)?;
                Ok(error)
            };
            build().map_or_else(|error: PyErr| error, PyErr::from_value)
        }
    }
}

fn missing(sequence: &dyn std::fmt::Display, first: u64, end: u64) -> PyErr {
    exception::<PyIndexError>(match first {
        first if first == end => format!("sequence is {sequence}: the log is empty, the next record is {end}"),
        first => format!("sequence is {sequence}: the log has the records {first} to {}", end - 1),
    })
}

impl MappedLog {
    /// Runs what may wait for a device, or for somebody who does, without the interpreter.
    fn attempt<T: Send>(
        &self,
        py: Python<'_>,
        nbytes: usize,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> PyResult<Result<T, Failure>> {
        if self.granularity == Granularity::Page { Ok(py.detach(work)) } else { transfer(py, nbytes, || Ok(work())) }
    }

    /// The same, where no iterator is in use that an exception's making could want.
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        nbytes: usize,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> PyResult<T> {
        self.attempt(py, nbytes, work)?.map_err(|failure| raised(py, failure))
    }

    fn numbers(&self, py: Python<'_>) -> PyResult<Numbers> {
        let log = self.log.get()?;
        self.run(py, 0, || Ok(log.numbers()?))
    }
}

#[pymethods]
impl MappedLog {
    /// Opens the log in a file that was claimed and given room, or makes one. `bad` are the file's bytes that are known
    /// to be bad; `caches_persist` says that the caches above its memory outlive a loss of power.
    #[new]
    fn new(
        py: Python<'_>,
        file: &Bound<'_, RegionFile>,
        bad: &Bound<'_, FaultMap>,
        caches_persist: bool,
        create: bool,
    ) -> PyResult<Self> {
        let file = file.get();
        let claim = file.take_claim()?;
        let (opened, part) = file.take()?;
        let (writable, bad) = (opened.writable(), bad.get().lock().try_clone()?);
        let how = match (writable, create) {
            (false, _) => Open::Read,
            (true, false) => Open::Write,
            (true, true) => Open::Create,
        };
        let opened = py.detach(|| {
            let mapping = Mapping::new(opened, part, caches_persist)?;
            PmemLog::open(Region::new(mapping, claim, &bad)?, how)
        });
        let log = opened.map_err(|failure| match failure {
            Failure::Refused(error) => with_path(error, file.path().bind(py)),
            failure => raised(py, failure),
        })?;
        let mapping = log.medium().mapping();
        Ok(Self {
            path: file.path().clone_ref(py),
            size: mapping.seg().len,
            granularity: mapping.granularity(),
            recovered: log.recovered(),
            writable,
            log: Closable::new("log", log),
        })
    }

    /// The path it was opened by.
    #[getter]
    fn path(&self, py: Python<'_>) -> Py<PyAny> {
        self.path.clone_ref(py)
    }

    /// The size of its region in bytes, including the superblocks.
    #[getter]
    fn size(&self) -> Int {
        Int(self.size)
    }

    /// What makes a record durable: `"byte"` its becoming visible, `"cache_line"` leaving the caches, `"page"` an
    /// msync.
    #[getter]
    fn granularity(&self) -> Text<&'static str> {
        Text(self.granularity.name())
    }

    /// Whether it was opened for appending.
    #[getter]
    fn writable(&self) -> bool {
        self.writable
    }

    /// Whether it is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.log.is_closed()
    }

    /// The oldest record's number; `last + 1` if there is no record.
    #[getter]
    fn first<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        int(py, self.numbers(py)?.first as usize)
    }

    /// The newest record's number; `first - 1` if there is no record.
    #[getter]
    fn last<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        int(py, self.numbers(py)?.end as usize)?.sub(1)
    }

    /// Bytes in use by records, their headers and the gaps between them.
    #[getter]
    fn nbytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        int(py, self.numbers(py)?.used as usize)
    }

    /// The most bytes that the next append can store. It is also 0 if not even an empty record fits.
    #[getter]
    fn free<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        int(py, self.numbers(py)?.free as usize)
    }

    /// Bytes that opening has removed at the end: an interrupted append, or damage with no good record behind it. 0 for
    /// a reader, which removes nothing.
    #[getter]
    fn recovered<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        int(py, self.recovered as usize)
    }

    /// Appends a buffer, an iterable of buffers, or the rest of an iterator as one record, with one fence. Returns its
    /// number. When this returns, the record is complete and durable.
    ///
    /// OSError ENOSPC if it does not fit into `free`; `FaultError` if the data, or the log's memory, is bad; OSError if
    /// msync fails; `BlockingIOError` in a forked child; BufferError if the log was opened to be read. Then the record
    /// is not there, after a crash neither, and an iterator stands where it stood. What of the log turned out to be bad
    /// is not used again: the next append goes behind it.
    fn append<'py>(&self, py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let log = self.log.get()?;
        let appended = from_data(data, |core| self.attempt(py, core.count(), || log.append(core)))?;
        int(py, appended.map_err(|failure| raised(py, failure))? as usize)
    }

    /// Frees the space of every record before `sequence`, which may be at most `last + 1`. The change is durable when
    /// this returns. ValueError for a greater number; otherwise the errors of `append`, with nothing freed.
    fn discard_before(&self, py: Python<'_>, sequence: &Bound<'_, PyAny>) -> PyResult<()> {
        let log = self.log.get()?;
        let sequence = size("sequence", sequence)? as u64;
        self.run(py, 0, || log.discard_before(sequence))
    }

    /// Reads every record, surviving bad memory. Returns a `Fault` for each record that cannot be read, and one of
    /// cause "unknown" for each whose bytes differ from those appended. `offset` is the place in the region.
    fn verify<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let log = self.log.get()?;
        let found = py.detach(|| log.verify()).map_err(|failure| raised(py, failure))?;
        list(py, found.iter().map(|fault| to_fault(py, fault)))
    }

    /// Closes the log, so that another writer may open it. BufferError while calls run.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        // What it fails to note is looked for by whoever opens it next.
        self.log.close(py, |log| drop(log.close()))
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyResult<PyRef<'_, Self>> {
        slf.log.get()?;
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
        end_block(self.close(py), error, || Ok(format!("the log {}", self.path.bind(py).repr()?)))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<Text<String>> {
        let path = self.path.bind(py).repr()?;
        if self.log.is_closed() {
            return Ok(Text(format!("<PmemLog {path} closed>")));
        }
        let Numbers { first, end, free, .. } = self.numbers(py)?;
        let mode = if self.writable { "" } else { " read-only" };
        Ok(Text(format!("<PmemLog {path} first={first} last={} free={free}{mode}>", i128::from(end) - 1)))
    }
}
