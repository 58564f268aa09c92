//! `FaultMap`.

use super::buffer::{Access as BufferAccess, Call};
use super::copy::flat_side;
use super::values::{fault_range_class, part, size};
use crate::copy::mcsafe::{KnownBad, Touch};
use crate::error::Error;
use crate::fault::formats::{badblocks, mapfile, ndctl};
use crate::fault::map::shared::{Locked, SharedMap};
use crate::fault::map::{self, Access, Range};
use crate::memory::Segment;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyType};

impl KnownBad for SharedMap {
    #[inline]
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    #[inline]
    fn is_clear(&self, asked: [(Segment, Touch); 2]) -> bool {
        asked.iter().all(|(seg, _)| self.is_beside(*seg)) || {
            let map = self.lock();
            !asked.iter().any(|(seg, touch)| map.meets(seg.addr, seg.len as u128, access_of(*touch)))
        }
    }

    fn first_bad(&self, seg: Segment, touch: Touch) -> Option<Segment> {
        let found = self.lock().first_in(seg.addr, seg.len as u128, access_of(touch))?;
        Some(Segment::new(found.start, usize::try_from(found.length()).unwrap_or(usize::MAX)))
    }
}

/// Adds what a copy has run into.
pub(super) fn record(map: &SharedMap, (seg, touch): (Segment, Touch)) {
    let room = (usize::MAX - seg.addr) as u128 + 1;
    // Cut to the end of the address space, so that it cannot be refused.
    let _ = map.lock().add(seg.addr, room.min(seg.len as u128), access_of(touch));
}

fn access_of(touch: Touch) -> Access {
    match touch {
        Touch::Read => Access::Read,
        Touch::Write => Access::Write,
        Touch::Any => Access::Both,
    }
}

fn parse_access(name: &str) -> PyResult<Access> {
    match name {
        "read" => Ok(Access::Read),
        "write" => Ok(Access::Write),
        "both" => Ok(Access::Both),
        _ => Err(Error::invalid("access", format!("{name:?}"), "\"read\", \"write\" or \"both\"").into()),
    }
}

fn to_range<'py>(py: Python<'py>, range: &Range, base: usize) -> PyResult<Bound<'py, PyAny>> {
    let access = match range.access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Both => "both",
    };
    fault_range_class(py)?.call1((range.start - base, range.length(), access))
}

/// Byte ranges that must not be touched, of the address space or of any other line of bytes: sorted, merged, not overlapping.
///
/// A copy given one stops before them and adds what it runs into. A range takes some 40 bytes of memory, two thirds more if it is neither to be
/// read nor written.
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

/// A length: an int in `0..=2**64`.
fn length(value: &Bound<'_, PyAny>) -> PyResult<u128> {
    match value.extract::<u128>() {
        Ok(length) => Ok(length),
        Err(_) => Ok(size("length", value)? as u128),
    }
}

/// The part of a buffer's or a raw range's addresses that offset and length name.
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
    #[pyo3(signature = (ranges=None))]
    fn new(ranges: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut map = map::FaultMap::new();
        for (index, item) in ranges.map(PyAnyMethods::try_iter).transpose()?.into_iter().flatten().enumerate() {
            let item = item?;
            let parts: Vec<Bound<'_, PyAny>> = item.extract().unwrap_or_default();
            let access = match &parts[..] {
                [_, _] => Access::Read,
                [_, _, access] => parse_access(access.extract()?)?,
                _ => {
                    let message = format!("ranges[{index}]: expected (start, length) or a FaultRange, not {item}");
                    return Err(PyTypeError::new_err(message));
                }
            };
            map.add(size("start", &parts[0])?, length(&parts[1])?, access)?;
        }
        Ok(Self::of(map))
    }

    /// Whether more may be bad than the list it was made from could say: the kernel's list was full or cut, or there is no list at all.
    #[getter]
    fn incomplete(&self) -> bool {
        self.lock().is_incomplete()
    }

    /// Marks `length` bytes from `start` as bad for `access`, beside what they are already.
    #[pyo3(signature = (start, length, access="read"))]
    fn add(&self, start: &Bound<'_, PyAny>, length: &Bound<'_, PyAny>, access: &str) -> PyResult<()> {
        let access = parse_access(access)?;
        let (start, length) = (size("start", start)?, self::length(length)?);
        Ok(self.lock().add(start, length, access)?)
    }

    /// Marks `length` bytes from `start` as good.
    fn clear(&self, start: &Bound<'_, PyAny>, length: &Bound<'_, PyAny>) -> PyResult<()> {
        let (start, length) = (size("start", start)?, self::length(length)?);
        Ok(self.lock().clear(start, length)?)
    }

    /// Marks a part of a buffer's memory as bad (all of it by default).
    #[pyo3(signature = (buffer, offset=None, length=None, access="read"), text_signature = "($self, buffer, offset=0, length=None, access='read')")]
    fn poison(
        &self,
        buffer: &Bound<'_, PyAny>,
        offset: Option<&Bound<'_, PyAny>>,
        length: Option<&Bound<'_, PyAny>>,
        access: &str,
    ) -> PyResult<()> {
        let access = parse_access(access)?;
        let seg = addresses(buffer, offset, length)?;
        Ok(self.lock().add(seg.addr, seg.len as u128, access)?)
    }

    /// Marks a part of a buffer's memory as good (all of it by default).
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

    /// The first range that shares a byte with the given one and stands against `access`, whole; or `None`.
    #[pyo3(signature = (start, length, access="read"))]
    fn first_in<'py>(
        &self,
        py: Python<'py>,
        start: &Bound<'_, PyAny>,
        length: &Bound<'_, PyAny>,
        access: &str,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let access = parse_access(access)?;
        let found = self.lock().first_in(size("start", start)?, self::length(length)?, access);
        found.map(|range| to_range(py, &range, 0)).transpose()
    }

    /// The bad parts of a buffer's memory, their starts counted from the buffer's.
    fn within<'py>(&self, py: Python<'py>, buffer: &Bound<'_, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let seg = addresses(buffer, None, None)?;
        let ranges: Vec<Range> = self.lock().within(seg.addr, seg.len as u128).collect();
        let ranges: PyResult<Vec<_>> = ranges.iter().map(|range| to_range(py, range, seg.addr)).collect();
        PyList::new(py, ranges?)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let ranges: Vec<Range> = self.lock().iter().collect();
        let ranges: PyResult<Vec<_>> = ranges.iter().map(|range| to_range(py, range, 0)).collect();
        PyList::new(py, ranges?)?.try_iter()
    }

    fn __len__(&self) -> usize {
        self.lock().len()
    }

    fn __contains__(&self, address: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.lock().contains(size("address", address)?))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let Ok(other) = other.cast::<Self>() else { return false };
        let theirs = other.get().lock().clone();
        *self.lock() == theirs
    }

    fn __repr__(&self) -> String {
        let map = self.lock();
        let incomplete = if map.is_incomplete() { ", incomplete" } else { "" };
        format!("<FaultMap of {} ranges{incomplete}>", map.len())
    }

    /// From the text of a `badblocks` file: `start length` in sectors, a line each. ValueError with line and column. Incomplete if the kernel
    /// had more to say: 512 extents are all its list has room for, 4095 characters all a read of sysfs returns (a last line cut there is left
    /// out), and one empty line is what a device without a list says.
    #[classmethod]
    #[pyo3(signature = (source, *, base=None, sector_size=512), text_signature = "(source, *, base=0, sector_size=512)")]
    fn from_badblocks(
        _class: &Bound<'_, PyType>,
        source: &str,
        base: Option<&Bound<'_, PyAny>>,
        sector_size: usize,
    ) -> PyResult<Self> {
        Ok(Self::of(badblocks::parse(source, base.map_or(Ok(0), |base| size("base", base))?, sector_size)?))
    }

    /// From the JSON of `ndctl list -N -M`: of the namespace or region of that name, or of every namespace. A region counts from its own
    /// start, so it is taken by its name only. Incomplete if more blocks are counted than listed. ValueError if it is no such list.
    #[classmethod]
    #[pyo3(signature = (source, *, base=None, namespace=None), text_signature = "(source, *, base=0, namespace=None)")]
    fn from_ndctl(
        _class: &Bound<'_, PyType>,
        source: &str,
        base: Option<&Bound<'_, PyAny>>,
        namespace: Option<&str>,
    ) -> PyResult<Self> {
        Ok(Self::of(ndctl::parse(source, base.map_or(Ok(0), |base| size("base", base))?, namespace)?))
    }

    /// From the text of a GNU ddrescue mapfile: bad, non-trimmed and non-scraped blocks. ValueError with line and column.
    #[classmethod]
    #[pyo3(signature = (source, *, base=None), text_signature = "(source, *, base=0)")]
    fn from_mapfile(_class: &Bound<'_, PyType>, source: &str, base: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Ok(Self::of(mapfile::parse(source, base.map_or(Ok(0), |base| size("base", base))?)?))
    }

    /// The text of a mapfile of `size` bytes from `base` on: unreadable bytes as bad sectors, the rest as finished.
    #[pyo3(signature = (size, *, base=None), text_signature = "($self, size, *, base=0)")]
    fn to_mapfile(&self, size: &Bound<'_, PyAny>, base: Option<&Bound<'_, PyAny>>) -> PyResult<String> {
        let base = base.map_or(Ok(0), |base| self::size("base", base))?;
        Ok(mapfile::write(&self.lock(), base, self::size("size", size)?)?)
    }
}
