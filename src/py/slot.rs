//! `Slot`: publications in shared memory.

use super::buffer::{ArgName, page};
use super::data::{from_data, to_destination};
use super::detach::transfer;
use super::errors::fault_error;
use super::exception::{Text, exception};
use super::names::names;
use super::results::{int, string, tuple};
use super::values::{optional_size, size};
use crate::error::Error;
use crate::fault::arm;
use crate::slot::{self, Failure};
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// Publications in shared memory, by one writer to any number of readers, in other processes or on hosts that share the
/// memory.
///
/// `region` is a `PmemRegion` or any buffer, which stays exported as long as the slot lives; a reader's may be
/// read-only. `offset` is a multiple of 64. `capacity` is the most bytes of a publication, by default as many as fit; a
/// reader's is the writer's or more. A slot takes `size_for(capacity)` bytes: a header line, and two buffers that are
/// used in turn. They must be zero before the first publication.
#[pyclass(module = "iovec_rs", frozen, weakref)]
pub(super) struct Slot(slot::Slot);

fn raised(py: Python<'_>, failure: Failure) -> PyErr {
    match failure {
        Failure::Refused(error) => error.into(),
        Failure::Fault(fault, done) => fault_error(py, &fault, done),
        Failure::Torn => {
            let message = "the publication was changed each time it was read, or is damaged";
            let build = || {
                let (errno, message) = (int(py, libc::EAGAIN.unsigned_abs() as usize)?, string(py, message)?);
                names(py).torn_error.bind(py).call1((errno, message))
            };
            build().map_or_else(|error| error, PyErr::from_value)
        }
    }
}

#[pymethods]
impl Slot {
    #[new]
    #[pyo3(signature = (region, offset=None, capacity=None), text_signature = "(region, offset=0, capacity=None)")]
    fn new(
        region: &Bound<'_, PyAny>,
        offset: Option<&Bound<'_, PyAny>>,
        capacity: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let (offset, capacity) = (optional_size("offset", offset)?.unwrap_or(0), optional_size("capacity", capacity)?);
        let page = page(region, ArgName::Argument("region"))?;
        Ok(Self(slot::Slot::new(&page, offset, capacity)?))
    }

    /// The number of bytes that a slot takes for publications of up to `capacity` bytes.
    #[classmethod]
    fn size_for<'py>(class: &Bound<'py, PyType>, capacity: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let capacity = size("capacity", capacity)?;
        let size = slot::size_for(capacity);
        int(class.py(), size.ok_or_else(|| Error::invalid("capacity", capacity, "less than 2**63"))?)
    }

    /// The most bytes of a publication.
    #[getter]
    fn capacity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        int(py, self.0.capacity())
    }

    /// Publishes a buffer, an iterable of buffers, or the rest of an iterator. Returns the publication's number,
    /// counted from 1. When it returns, first the data and then the header have left the caches. ValueError for more
    /// than `capacity` bytes, BufferError if the memory is read-only, `FaultError` if it or the data are bad: then the
    /// last publication is still there, and an iterator is where it was.
    fn publish<'py>(&self, py: Python<'py>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let published = from_data(data, |core| transfer(py, core.count(), || Ok(self.0.publish(core))))?;
        let published = published.map_err(|failure| match failure {
            // Of data, read-only memory is never refused.
            Failure::Refused(Error::ReadOnly { .. }) => {
                exception::<PyBufferError>("region: read-only memory cannot be published in")
            }
            failure => raised(py, failure),
        });
        let number = int(py, published? as usize);
        arm::extend();
        number
    }

    /// Copies one publication, whole and checked, into a buffer or the rest of an iterator. Returns its length and
    /// its number, or `(0, newer_than)` if none is newer. `TornError` if the writer kept changing it, or if it is
    /// damaged: then the contents of `dst` are unspecified, and an iterator is where it was. ValueError if `dst` is
    /// too small, or if the publication ends behind this slot, whose `capacity` is less than the writer's: then
    /// nothing was written. `FaultError` if memory is bad.
    #[pyo3(signature = (dst, *, newer_than=None), text_signature = "($self, dst, *, newer_than=0)")]
    fn consume<'py>(
        &self,
        py: Python<'py>,
        dst: &Bound<'py, PyAny>,
        newer_than: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let newer_than = optional_size("newer_than", newer_than)?.unwrap_or(0) as u64;
        let consumed = to_destination(dst, |core| {
            let nbytes = core.count().min(self.0.capacity());
            transfer(py, nbytes, || Ok(self.0.consume(core, newer_than)))
        })?;
        let (length, sequence) = consumed.map_err(|failure| raised(py, failure))?;
        tuple(py, [int(py, length), int(py, sequence as usize)].into_iter())
    }

    fn __repr__(&self) -> Text<String> {
        Text(format!("<Slot capacity={}>", self.0.capacity()))
    }
}
