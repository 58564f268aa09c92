//! Reads and writes lists of bad memory in the formats of other programs.

use super::FaultMap;
use crate::fault::formats::{badblocks, mapfile, ndctl};
use crate::py::results::string;
use crate::py::values::{size, size_or, text};
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The size of a sector, in bytes, in which lists of bad blocks count by default.
const SECTOR: usize = 512;

#[pymethods]
impl FaultMap {
    /// Makes a map of the text of a `badblocks` file in sysfs: `start length` in sectors, one extent a line. ValueError
    /// gives line and column. The map is incomplete if the kernel may know more: its list has room for 512 extents, a
    /// read of the file returns at most 4095 characters (a last line that is cut there is left out), and a device
    /// without a list reads as one empty line.
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

    /// Returns the text of a `badblocks` file with every range from `base` on, whatever its access. A sector of
    /// `sector_size` bytes is listed if any byte of it is bad. Ranges before `base` are left out. Such a text can say
    /// that a map is incomplete only if the map is empty.
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

    /// Makes a map of the JSON of `ndctl list -N -M`: of the namespace or region named `namespace`, or of all
    /// namespaces. A region is used only if it is named, because its blocks count from its own start. The map is
    /// incomplete if the list counts more blocks than it shows. ValueError if it is no such list.
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

    /// Makes a map of the text of a GNU ddrescue mapfile, of its bad, non-trimmed and non-scraped blocks. ValueError
    /// gives line and column.
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

    /// Returns the text of a mapfile of `size` bytes from `base` on, in which unreadable bytes are bad sectors and all
    /// others are finished.
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
