//! Lists of bad memory as other programs write them, read and written.

use super::FaultMap;
use crate::fault::formats::{badblocks, mapfile, ndctl};
use crate::py::results::string;
use crate::py::values::{size, size_or, text};
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The sector that lists of bad blocks count in unless they say otherwise, in bytes.
const SECTOR: usize = 512;

#[pymethods]
impl FaultMap {
    /// From the text of a `badblocks` file: `start length` in sectors, a line each. ValueError with line and column.
    /// Incomplete if the kernel had more to say: 512 extents are all its list has room for, 4095 characters all a read
    /// of sysfs returns (a last line cut there is left out), and one empty line is what a device without a list says.
    #[classmethod]
    #[pyo3(
        signature = (source, *, base=None, sector_size=None),
        text_signature = "(source, *, base=0, sector_size=512)"
    )]
    fn from_badblocks(
        _class: &Bound<'_, PyType>,
        source: &Bound<'_, PyAny>,
        base: Option<&Bound<'_, PyAny>>,
        sector_size: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let (base, sector_size) = (size_or("base", base, 0)?, size_or("sector_size", sector_size, SECTOR)?);
        Ok(Self::of(badblocks::parse(text("source", source)?, base, sector_size)?))
    }

    /// The text of a `badblocks` file: every range from `base` on, whatever its access, in sectors of `sector_size`
    /// bytes that are bad if a byte of them is. What lies before `base` is left out. Such a text cannot say that a map
    /// is incomplete, unless nothing is in it.
    #[pyo3(signature = (*, base=None, sector_size=None), text_signature = "($self, *, base=0, sector_size=512)")]
    fn to_badblocks<'py>(
        &self,
        py: Python<'py>,
        base: Option<&Bound<'_, PyAny>>,
        sector_size: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (base, sector_size) = (size_or("base", base, 0)?, size_or("sector_size", sector_size, SECTOR)?);
        let written = badblocks::write(&self.lock(), base, sector_size)?;
        string(py, &written)
    }

    /// From the JSON of `ndctl list -N -M`: of the namespace or region of that name, or of every namespace. A region
    /// counts from its own start, so it is taken by its name only. Incomplete if more blocks are counted than listed.
    /// ValueError if it is no such list.
    #[classmethod]
    #[pyo3(signature = (source, *, base=None, namespace=None), text_signature = "(source, *, base=0, namespace=None)")]
    fn from_ndctl(
        _class: &Bound<'_, PyType>,
        source: &Bound<'_, PyAny>,
        base: Option<&Bound<'_, PyAny>>,
        namespace: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let base = size_or("base", base, 0)?;
        let namespace = namespace.map(|namespace| text("namespace", namespace)).transpose()?;
        Ok(Self::of(ndctl::parse(text("source", source)?, base, namespace)?))
    }

    /// From the text of a GNU ddrescue mapfile: bad, non-trimmed and non-scraped blocks. ValueError with line and
    /// column.
    #[classmethod]
    #[pyo3(signature = (source, *, base=None), text_signature = "(source, *, base=0)")]
    fn from_mapfile(
        _class: &Bound<'_, PyType>,
        source: &Bound<'_, PyAny>,
        base: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let base = size_or("base", base, 0)?;
        Ok(Self::of(mapfile::parse(text("source", source)?, base)?))
    }

    /// The text of a mapfile of `size` bytes from `base` on: unreadable bytes as bad sectors, the rest as finished.
    #[pyo3(signature = (size, *, base=None), text_signature = "($self, size, *, base=0)")]
    fn to_mapfile<'py>(
        &self,
        py: Python<'py>,
        size: &Bound<'_, PyAny>,
        base: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (base, size) = (size_or("base", base, 0)?, self::size("size", size)?);
        let written = mapfile::write(&self.lock(), base, size)?;
        string(py, &written)
    }
}
