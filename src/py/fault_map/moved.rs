//! Translates maps to other addresses of the same bytes.

use super::FaultMap;
use crate::error::try_push;
use crate::pmem::{self, Piece};
use crate::py::exception::exception;
use crate::py::values::{few, flag, instance, iterate, size};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// Makes a map of the `pieces`, each `(from, to, length)`: the bad bytes of `length` bytes at `from` in the given map,
/// moved to `to`. It is incomplete if the given map is, or if `incomplete` says that there are pieces that are not
/// known.
#[pyfunction]
#[pyo3(signature = (map, pieces, incomplete=None), text_signature = "(map, pieces, incomplete=False)")]
pub(in crate::py) fn fault_map_moved(
    map: &Bound<'_, PyAny>,
    pieces: &Bound<'_, PyAny>,
    incomplete: Option<&Bound<'_, PyAny>>,
) -> PyResult<FaultMap> {
    let map = instance::<FaultMap>("map", "a FaultMap", map)?;
    let incomplete = flag("incomplete", incomplete, false)?;
    let mut found = Vec::new();
    for (index, item) in iterate("pieces", "an iterable of (from, to, length)", pieces)?.enumerate() {
        let (item, name) = (item?, format!("pieces[{index}]"));
        let parts = few(iterate(&name, "(from, to, length)", &item)?, 4)?;
        let [from, to, len] = &parts[..] else {
            return Err(exception::<PyTypeError>(format!("{name}: (from, to, length) is expected")));
        };
        try_push(&mut found, Piece { from: size("from", from)?, to: size("to", to)?, len: size("length", len)? })?;
    }
    let map = map.lock().try_clone()?;
    let mut moved = pmem::moved(&map, found)?;
    if incomplete {
        moved.set_incomplete();
    }
    Ok(FaultMap::of(moved))
}
