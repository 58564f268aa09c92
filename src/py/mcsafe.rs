//! The copies that stop before memory known to be bad.

use super::buffer::Access;
use super::copy::{between, run};
use super::count::Count;
use super::entry::{Entry, entry};
use super::fault_map::{FaultMap, record};
use super::iter::InUse;
use crate::copy::{copy_to_iter, mcsafe};
use pyo3::prelude::*;

/// The function here that is called for every few bytes.
pub(super) fn entries() -> [Entry; 1] {
    [entry!(copy_to_iter_mcsafe, "fault_map": FaultMap)]
}

/// `copy_to_iter` that survives bad memory on either side: it stops before what `fault_map` knows, where the kernel's careful copy
/// would, and at what it runs into, which is added to the map. Every kind comes short and advances by the bytes copied;
/// `i.fault` says why (`copy_mc_to_iter`, `copy_to_iter_mcsafe`).
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, *, fault_map=None))]
pub(super) fn copy_to_iter_mcsafe(
    addr: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    fault_map: Option<&Bound<'_, FaultMap>>,
) -> PyResult<Count> {
    // Without a map it is the plain copy, and takes no longer.
    let copied = match fault_map.map(|map| &map.get().0) {
        None => run(addr, &mut i, nbytes, Access::Read, copy_to_iter),
        Some(map) => {
            let copied = run(addr, &mut i, nbytes, Access::Read, |flat, core, nbytes| {
                mcsafe::copy_to_iter_mcsafe(flat, core, nbytes, Some(map))
            });
            if let (Ok(_), Some(found)) = (&copied, i.core.fault.as_deref().and_then(mcsafe::learned)) {
                record(map, found);
            }
            copied
        }
    };
    copied.map(|(_, copied)| Count(copied))
}

/// A flat copy that survives bad memory on either side. `dst` and `src` are of one length. Returns an `McResult`.
#[pyfunction]
#[pyo3(signature = (dst, src, *, fault_map=None))]
pub(super) fn memcpy_mcsafe<'py>(
    dst: &Bound<'py, PyAny>,
    src: &Bound<'py, PyAny>,
    fault_map: Option<&Bound<'py, FaultMap>>,
) -> PyResult<Bound<'py, PyAny>> {
    let map = fault_map.map(|map| &map.get().0);
    between(dst, src, |dst, src| {
        let (copied, fault) = mcsafe::memcpy_mcsafe(dst, src, map)?;
        if let (Some(map), Some(found)) = (map, fault.as_deref().and_then(mcsafe::learned)) {
            record(map, found);
        }
        Ok((copied, fault))
    })
}
