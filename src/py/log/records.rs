//! The records of a log, one by one.

use super::{MappedLog, missing, raised};
use crate::abi::Direction;
use crate::iter;
use crate::log::{Failure, Numbers};
use crate::py::data::to_destination;
use crate::py::errors::fault_error;
use crate::py::results::{to_mc_result, to_record};
use crate::py::structures::new_bytes;
use crate::py::values::{shown, size};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::atomic::{AtomicU64, Ordering};

impl MappedLog {
    /// The number of a record: any that there cannot be is an `IndexError`.
    fn sequence(&self, value: &Bound<'_, PyAny>) -> PyResult<u64> {
        match size("sequence", value) {
            Ok(sequence) => Ok(sequence as u64),
            Err(error) if error.is_instance_of::<PyValueError>(value.py()) => {
                let Numbers { first, end, .. } = self.numbers(value.py())?;
                Err(missing(&shown(value), first, end))
            }
            Err(error) => Err(error),
        }
    }
}

#[pymethods]
impl MappedLog {
    /// Returns a record's data. `IndexError` if there is no such record, `CorruptError` if its bytes differ from those
    /// appended, `FaultError`, with the number of readable bytes in `.copied`, if its memory is bad.
    fn read<'py>(&self, py: Python<'py>, sequence: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let log = self.log.get()?;
        let sequence = self.sequence(sequence)?;
        loop {
            let record = self.run(py, 0, || log.record(sequence))?;
            let (bytes, memory) = new_bytes(py, record.length)?;
            let mut i = iter::IovIter::whole(Direction::Dest, memory);
            match self.attempt(py, record.length, || log.read_into(&record, &mut i))? {
                Ok((_, None)) => return Ok(bytes),
                Ok((copied, Some(fault))) => return Err(fault_error(py, &fault, copied)),
                Err(Failure::Changed) => {}
                Err(failure) => return Err(raised(py, failure)),
            }
        }
    }

    /// Copies a record's data into a buffer or the rest of an iterator, which may be longer. Returns an `McResult` for
    /// the record's bytes, short if memory is bad. `IndexError` and `CorruptError` as in `read`: then the destination
    /// may hold anything, and an iterator has not moved. ValueError if the record does not fit: then nothing was
    /// written.
    fn read_into<'py>(
        &self,
        py: Python<'py>,
        sequence: &Bound<'py, PyAny>,
        dst: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let log = self.log.get()?;
        let sequence = self.sequence(sequence)?;
        loop {
            let record = self.run(py, 0, || log.record(sequence))?;
            let length = record.length;
            match to_destination(dst, |core| self.attempt(py, length, || log.read_into(&record, core)))? {
                Ok((copied, fault)) => return to_mc_result(py, copied, length, fault.as_deref()),
                Err(Failure::Changed) => {}
                Err(failure) => return Err(raised(py, failure)),
            }
        }
    }

    /// The place of a record. `IndexError` and `CorruptError` as in `read`, for its header only.
    fn record<'py>(&self, py: Python<'py>, sequence: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let log = self.log.get()?;
        let sequence = self.sequence(sequence)?;
        to_record(py, &self.run(py, 0, || log.record(sequence))?)
    }

    fn __iter__(slf: &Bound<'_, Self>) -> PyResult<LogRecords> {
        slf.get().log.get()?;
        Ok(LogRecords { log: slf.clone().unbind(), next: AtomicU64::new(0) })
    }
}

/// An iterator over the records of a log, oldest first, including those appended meanwhile. After its end it can be
/// asked again, and then goes on with what was appended since. Threads may share it: each record is given to one of
/// them.
#[pyclass(module = "iovec_rs._core", frozen)]
pub(in crate::py) struct LogRecords {
    log: Py<MappedLog>,
    next: AtomicU64,
}

#[pymethods]
impl LogRecords {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mapped = self.log.get();
        let log = mapped.log.get()?;
        loop {
            let next = self.next.load(Ordering::Relaxed);
            let Some(record) = mapped.run(py, 0, || Ok(log.record_from(next)?))? else { return Ok(None) };
            // Another thread may have been given the record while this one looked it up.
            let behind = record.sequence + 1;
            if self.next.compare_exchange(next, behind, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return to_record(py, &record).map(Some);
            }
        }
    }
}
