//! The copies that stop before memory known to be bad.

use super::buffer::Access;
use super::fastcall::{add_functions, fast_function, install};
use super::fault_map::FaultMap;
use super::iter_arg::IterArg;
use super::run::{between, run};
use super::values::instance;
use crate::copy::{copy_to_iter, mcsafe};
use crate::fault::map::shared::SharedMap;
use pyo3::prelude::*;

/// The map that is an argument.
pub(super) fn known<'a>(fault_map: Option<&'a Bound<'_, PyAny>>) -> PyResult<Option<&'a SharedMap>> {
    fault_map.map(|map| Ok(&instance::<FaultMap>("fault_map", "a FaultMap", map)?.0)).transpose()
}

/// Adds the functions to the module: those that are called for every few bytes with a short way in.
pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    add_functions!(module, copy_to_iter_mcsafe, memcpy_mcsafe);
    install(module, [fast_function!(copy_to_iter_mcsafe, "fault_map")])
}

/// `copy_to_iter` that survives bad memory on either side: it stops before what `fault_map` knows, where the kernel's
/// careful copy would, and at what it runs into, which is added to the map. Every kind comes short and advances by the
/// bytes copied; `i.fault` says why (`copy_mc_to_iter`, `copy_to_iter_mcsafe`).
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, *, fault_map=None))]
pub(super) fn copy_to_iter_mcsafe(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    fault_map: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    // Without a map it is the plain copy, and takes no longer.
    let copied = match known(fault_map)? {
        None => run(addr, i, nbytes, Access::Read, copy_to_iter),
        Some(map) => run(addr, i, nbytes, Access::Read, |flat, core, nbytes| {
            let copied = mcsafe::copy_to_iter_mcsafe(flat, core, nbytes, Some(map))?;
            if let Some(found) = core.fault.as_deref().and_then(mcsafe::learned) {
                map.record(found);
            }
            Ok(copied)
        }),
    };
    copied.map(|(copied, _)| copied)
}

/// A flat copy that survives bad memory on either side. `dst` and `src` are of one length. Returns an `McResult`.
///
/// It knows pages, not where a file ends: in the page that a mapped file ends in, the bytes behind the end are read as
/// zeroes and counted, and bytes written there are counted and never reach the file. `PmemRegion.read_into` and
/// `write` stop at the end.
#[pyfunction]
#[pyo3(signature = (dst, src, *, fault_map=None))]
pub(super) fn memcpy_mcsafe<'py>(
    dst: &Bound<'py, PyAny>,
    src: &Bound<'py, PyAny>,
    fault_map: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let map = known(fault_map)?;
    between(dst, src, |dst, src| {
        let (copied, fault) = mcsafe::memcpy_mcsafe(dst, src, map)?;
        if let (Some(map), Some(found)) = (map, fault.as_deref().and_then(mcsafe::learned)) {
            map.record(found);
        }
        Ok((copied, fault))
    })
}
