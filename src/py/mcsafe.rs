//! Copies that stop before memory that is known to be bad, and survive memory that turns out to be.

use super::buffer::Access;
use super::fastcall::{add_functions, fast_function, install};
use super::fault_map::FaultMap;
use super::iter_arg::IterArg;
use super::run::{between, run};
use super::values::instance;
use crate::copy::{copy_to_iter, mcsafe};
use crate::fault::map::shared::SharedMap;
use pyo3::prelude::*;

/// The map that the argument `fault_map` is.
pub(super) fn known<'a>(fault_map: Option<&'a Bound<'_, PyAny>>) -> PyResult<Option<&'a SharedMap>> {
    fault_map.map(|map| Ok(&instance::<FaultMap>("fault_map", "a FaultMap", map)?.0)).transpose()
}

/// Adds the functions to the module. Those that programs call for a few bytes at a time get a fast entry.
pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    add_functions!(module, copy_to_iter_mcsafe, memcpy_mcsafe);
    install(module, [fast_function!(copy_to_iter_mcsafe, "fault_map")])
}

/// `copy_to_iter` that survives bad memory on either side (`copy_mc_to_iter`, `copy_to_iter_mcsafe`). It stops before a
/// range in `fault_map`, at the byte where the kernel's machine-check-safe copy would stop, and at memory that faults,
/// which it adds to the map. For every kind, the count is short then, the iterator advances by the bytes copied, and
/// `i.fault` says why.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, *, fault_map=None))]
#[inline(always)]
#[allow(clippy::inline_always)] // as the plain copy, which it takes no longer than
pub(super) fn copy_to_iter_mcsafe(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    fault_map: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    // Without a map the plain copy does the same, and costs no more.
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

/// Copies `src` to `dst`, which has the same length, and survives bad memory on either side. Returns an `McResult`.
///
/// Only whole pages fault. In the page in which a mapped file ends, bytes behind the end are read as zeroes and
/// counted; bytes written there are counted, too, and never reach the file. `PmemRegion.read_into` and `write` stop at
/// the end of the file.
#[pyfunction]
#[pyo3(signature = (dst, src, *, fault_map=None))]
pub(super) fn memcpy_mcsafe<'py>(
    dst: &Bound<'py, PyAny>,
    src: &Bound<'py, PyAny>,
    fault_map: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let map = known(fault_map)?;
    between(dst, src, false, |dst, src| {
        let (copied, fault) = mcsafe::memcpy_mcsafe(dst, src, map)?;
        if let (Some(map), Some(found)) = (map, fault.as_deref().and_then(mcsafe::learned)) {
            map.record(found);
        }
        Ok((copied, fault))
    })
}
