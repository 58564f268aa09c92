//! `FaultMap`. Its conversions from and to the lists of other programs are in `lists.rs`.

mod lists;
mod moved;

pub(super) use moved::fault_map_moved;

use super::buffer::{Access as BufferAccess, Call};
use super::exception::{Text, exception};
use super::results::{list, to_fault_range, to_plain_range};
use super::run::flat_side;
use super::values::{few, flag, iterate, part, size, text};
use crate::error::{Error, Excerpt, try_push};
use crate::fault::map::shared::{Locked, SharedMap};
use crate::fault::map::{self, Access};
use crate::memory::Segment;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyType};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The access that an argument names; "read" by default.
fn access(value: Option<&Bound<'_, PyAny>>) -> PyResult<Access> {
    let Some(value) = value else { return Ok(Access::Read) };
    match text("access", value)? {
        "read" => Ok(Access::Read),
        "write" => Ok(Access::Write),
        "both" => Ok(Access::Both),
        name => Err(Error::invalid("access", Excerpt(name), "\"read\", \"write\" or \"both\"").into()),
    }
}

/// Ranges of bad bytes, in the address space or in anything else with up to 2**64 bytes. They are sorted, merged, and
/// do not overlap.
///
/// A copy that gets a map stops before its ranges, and adds memory that faults. A range takes 16 to 32 bytes of memory,
/// and twice that if it is bad both to read and to write. `MemoryError` if there is no memory: then the map is
/// unchanged.
#[pyclass(module = "iovec_rs", name = "FaultMap", frozen)]
pub(super) struct FaultMap(pub(super) SharedMap);

impl FaultMap {
    pub(super) fn of(map: map::FaultMap) -> Self {
        Self(SharedMap::new(map))
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        self.0.lock()
    }
}

/// Makes the iterator's class when the module is imported, for the reason that [`super::names`] gives.
pub(super) fn init(py: Python<'_>) {
    py.get_type::<FaultMapIterator>();
}

/// The number of all bytes.
const LINE_SIZE: u128 = 1 << 64;

/// A length: an int in `0..=2**64`.
fn length(value: &Bound<'_, PyAny>) -> PyResult<u128> {
    length_of("length", value)
}

fn length_of(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<u128> {
    value.extract::<u128>().or_else(|_| Ok(size(argument, value)? as u128))
}

/// The addresses of the part of a buffer or a raw range that offset and length name.
fn addresses(
    buffer: &Bound<'_, PyAny>,
    offset: Option<&Bound<'_, PyAny>>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<Segment> {
    let mut call = Call::new();
    let whole = flat_side(&mut call, buffer, BufferAccess::Read, "buffer")?.seg();
    part(whole, offset, nbytes)
}

#[pymethods]
impl FaultMap {
    #[new]
    #[pyo3(signature = (ranges=None), text_signature = "(ranges=())")]
    fn new(ranges: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut map = map::FaultMap::new();
        let Some(ranges) = ranges else { return Ok(Self::of(map)) };
        for (index, item) in iterate("ranges", "an iterable of (start, length)", ranges)?.enumerate() {
            let item = item?;
            let name = format!("ranges[{index}]");
            // Reads one item more than is allowed, and no further.
            let parts = few(iterate(&name, "(start, length) or a FaultRange", &item)?, 4)?;
            let ([start, length], access) = match &parts[..] {
                [start, length] => ([start, length], None),
                [start, length, access] => ([start, length], Some(access)),
                _ => {
                    let message = format!("{name}: (start, length) or a FaultRange is expected");
                    return Err(exception::<PyTypeError>(message));
                }
            };
            map.add(size("start", start)?, self::length(length)?, self::access(access)?)?;
        }
        Ok(Self::of(map))
    }

    /// Whether more bytes may be bad than the map has, because the list that it was made from was full or truncated, or
    /// because there is no list.
    #[getter]
    fn incomplete(&self) -> bool {
        self.lock().is_incomplete()
    }

    /// Marks `length` bytes from `start` on as bad for `access`, in addition to what they are bad for already.
    #[pyo3(signature = (start, length, access=None), text_signature = "($self, start, length, access='read')")]
    fn add(
        &self,
        start: &Bound<'_, PyAny>,
        length: &Bound<'_, PyAny>,
        access: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (start, length, access) = (size("start", start)?, self::length(length)?, self::access(access)?);
        Ok(self.lock().add(start, length, access)?)
    }

    /// Marks `length` bytes from `start` on as good.
    fn clear(&self, start: &Bound<'_, PyAny>, length: &Bound<'_, PyAny>) -> PyResult<()> {
        let (start, length) = (size("start", start)?, self::length(length)?);
        Ok(self.lock().clear(start, length)?)
    }

    /// Marks `length` bytes (by default, the rest) of a buffer's memory from `offset` on as bad for `access`.
    #[pyo3(
        signature = (buffer, offset=None, length=None, access=None),
        text_signature = "($self, buffer, offset=0, length=None, access='read')"
    )]
    fn poison(
        &self,
        buffer: &Bound<'_, PyAny>,
        offset: Option<&Bound<'_, PyAny>>,
        length: Option<&Bound<'_, PyAny>>,
        access: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let access = self::access(access)?;
        let seg = addresses(buffer, offset, length)?;
        Ok(self.lock().add(seg.addr, seg.len as u128, access)?)
    }

    /// Marks `length` bytes (by default, the rest) of a buffer's memory from `offset` on as good.
    #[pyo3(signature = (buffer, offset=None, length=None), text_signature = "($self, buffer, offset=0, length=None)")]
    fn unpoison(
        &self,
        buffer: &Bound<'_, PyAny>,
        offset: Option<&Bound<'_, PyAny>>,
        length: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let seg = addresses(buffer, offset, length)?;
        Ok(self.lock().clear(seg.addr, seg.len as u128)?)
    }

    /// The first range that overlaps the given bytes and is bad for `access`, not clipped to them; None if there is
    /// none.
    #[pyo3(signature = (start, length, access=None), text_signature = "($self, start, length, access='read')")]
    fn first_in<'py>(
        &self,
        py: Python<'py>,
        start: &Bound<'_, PyAny>,
        length: &Bound<'_, PyAny>,
        access: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        // Converting an argument can run Python code, which may use this map, so the lock is taken after it.
        let (start, length, access) = (size("start", start)?, self::length(length)?, self::access(access)?);
        let found = self.lock().first_in(start, length, access);
        found.map(|range| to_fault_range(py, &range, 0)).transpose()
    }

    /// The bad parts of a buffer's memory, with starts relative to the buffer's.
    fn within<'py>(&self, py: Python<'py>, buffer: &Bound<'_, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let seg = addresses(buffer, None, None)?;
        let mut ranges = Vec::new();
        self.lock().within(seg.addr, seg.len as u128).try_for_each(|range| try_push(&mut ranges, range))?;
        list(py, ranges.iter().map(|range| to_fault_range(py, range, seg.addr)))
    }

    /// Iterates over the ranges in order. A change to the map is seen if the iteration has not passed it yet.
    fn __iter__(slf: &Bound<'_, Self>) -> FaultMapIterator {
        FaultMapIterator { map: slf.clone().unbind(), next: AtomicUsize::new(0), ended: AtomicBool::new(false) }
    }

    fn __len__(&self) -> usize {
        self.lock().len()
    }

    fn __contains__(&self, address: &Bound<'_, PyAny>) -> PyResult<bool> {
        let address = size("address", address)?;
        Ok(self.lock().contains(address))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| self.0.equals(&other.get().0))
    }

    /// A map of the bytes that are bad in either map. It is incomplete if either is.
    fn __or__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = other.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        // Only one map is locked at a time, since two threads may join the same maps in different orders, and a map may
        // be joined with itself.
        let mut joined = self.lock().try_clone()?;
        let other = other.get().lock().try_clone()?;
        joined.join(&other)?;
        Ok(Py::new(py, Self::of(joined))?.into_any())
    }

    /// A map in which the bytes of `[0, size)` that are in no range here are bad to read. It is incomplete if this one
    /// is.
    fn complement(&self, size: &Bound<'_, PyAny>) -> PyResult<Self> {
        let size = length_of("size", size)?;
        if size > LINE_SIZE {
            return Err(Error::invalid("size", size, "at most 2**64").into());
        }
        Ok(Self::of(self.lock().complement(size)?))
    }

    fn __copy__(&self) -> PyResult<Self> {
        Ok(Self::of(self.lock().try_clone()?))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> PyResult<Self> {
        self.__copy__()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (py, map) = (slf.py(), slf.get().lock().try_clone()?);
        let ranges = list(py, map.iter().map(|range| to_plain_range(py, &range)))?;
        Ok((slf.get_type(), (ranges,), map.is_incomplete().then_some(true)))
    }

    fn __setstate__(&self, incomplete: &Bound<'_, PyAny>) -> PyResult<()> {
        if flag("incomplete", Some(incomplete), false)? {
            self.lock().set_incomplete();
        }
        Ok(())
    }

    fn __repr__(&self) -> Text<String> {
        let map = self.lock();
        let incomplete = if map.is_incomplete() { ", incomplete" } else { "" };
        let (len, ranges) = (map.len(), if map.len() == 1 { "range" } else { "ranges" });
        Text(format!("<FaultMap of {len} {ranges}{incomplete}>"))
    }
}

/// How a map is pickled: its class, the arguments for that, and its state, if it has any.
type Reduced<'py> = (Bound<'py, PyType>, (Bound<'py, PyList>,), Option<bool>);

/// An iterator over the ranges of a map. It finds one range at a time, so it needs no memory for a list of them.
#[pyclass(module = "iovec_rs._core", frozen)]
pub(super) struct FaultMapIterator {
    map: Py<FaultMap>,
    /// The first byte behind the ranges returned so far.
    next: AtomicUsize,
    /// Whether the last address has been passed.
    ended: AtomicBool,
}

#[pymethods]
impl FaultMapIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.ended.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let found = self.map.get().lock().next_from(self.next.load(Ordering::Relaxed));
        let Some(range) = found else {
            self.ended.store(true, Ordering::Relaxed);
            return Ok(None);
        };
        let shown = to_fault_range(py, &range, 0)?;
        match range.last.checked_add(1) {
            Some(next) => self.next.store(next, Ordering::Relaxed),
            None => self.ended.store(true, Ordering::Relaxed),
        }
        Ok(Some(shown))
    }
}
