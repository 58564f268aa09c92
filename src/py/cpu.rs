//! What the CPU has and which of it is used.

use crate::arch;
use crate::error::Error;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The CPU features this package looks at, and whether they are there.
#[pyfunction]
pub(super) fn cpu_features(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let features = PyDict::new(py);
    for (name, there) in arch::features() {
        features.set_item(name, there)?;
    }
    Ok(features)
}

/// The instruction set in use.
#[pyfunction]
pub(super) fn isa() -> &'static str {
    arch::primitives().name
}

/// The instruction sets this CPU has, the best one last.
#[pyfunction]
pub(super) fn isas() -> Vec<&'static str> {
    arch::available().map(|set| set.name).collect()
}

/// Uses the named instruction set from now on.
#[pyfunction]
pub(super) fn use_isa(name: &str) -> PyResult<()> {
    match arch::choose(name) {
        Some(_) => Ok(()),
        None => Err(Error::invalid("name", name, format!("one of {}", isas().join(", "))).into()),
    }
}
