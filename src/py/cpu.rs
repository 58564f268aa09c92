//! What the CPU can do, and which of its instructions are in use: the functions behind `iovec_rs.cpu`.

use super::exception::{Text, exception};
use crate::arch;
use crate::copy::crc32c::least::LeastSum as LeastOfSum;
use crate::error::{Error, Excerpt};
use crate::slot::least::LeastSlot as LeastOfSlot;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::{Mutex, PoisonError};

/// The CPU features that this package makes use of, each with whether the CPU has it.
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
pub(super) fn isa() -> Text<&'static str> {
    Text(arch::primitives().name)
}

/// The instruction sets that this CPU can run, the widest one last.
#[pyfunction]
pub(super) fn isas() -> Vec<&'static str> {
    arch::available().map(|set| set.name).collect()
}

/// Uses the named instruction set from now on, in all threads. ValueError if the CPU has no such set.
#[pyfunction]
pub(super) fn use_isa(name: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = super::values::text("name", name)?;
    match arch::choose(name) {
        Some(_) => Ok(()),
        None => Err(Error::invalid("name", Excerpt(name), format!("one of {}", isas().join(", "))).into()),
    }
}

/// Measures how fast this machine loads and stores over `nbytes` of memory, in bytes per nanosecond: reads, writes, and
/// non-temporal writes. `None` if that cannot be measured.
#[pyfunction]
pub(super) fn machine_limits(py: Python<'_>, nbytes: u64) -> Option<(f64, f64, f64)> {
    let limits = py.detach(|| arch::limits::measure(usize::try_from(nbytes).ok()?))?;
    Some((limits.read, limits.write, limits.stream))
}

/// Memory of its own, half of which is copied to the other half by the fastest way that is known for this CPU. Benches
/// show it beside copies that have to do more.
#[pyclass(module = "iovec_rs._core", frozen)]
pub(super) struct LeastCopy(Mutex<arch::limits::LeastCopy>);

#[pymethods]
impl LeastCopy {
    /// Copies it once, in pieces of `nbytes`.
    fn run(&self, py: Python<'_>, nbytes: u64) {
        let piece = usize::try_from(nbytes).unwrap_or(usize::MAX);
        py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).run(piece));
    }
}

/// A copy of `nbytes`. `None` if no way is known that is faster than this package's, or if there is not enough memory.
#[pyfunction]
pub(super) fn least_copy(py: Python<'_>, nbytes: u64) -> Option<LeastCopy> {
    py.detach(|| Some(LeastCopy(Mutex::new(arch::limits::LeastCopy::new(usize::try_from(nbytes).ok()?)?))))
}

/// Memory of its own in which something is published and consumed with the least work that this takes. Benches show it
/// beside a `Slot`, which has to do more.
#[pyclass(module = "iovec_rs._core", frozen)]
pub(super) struct LeastSlot(Mutex<LeastOfSlot>);

#[pymethods]
impl LeastSlot {
    /// Publishes once.
    fn publish(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).publish();
    }

    /// Consumes once.
    fn consume(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).consume();
    }
}

/// For `nbytes`. `None` if this CPU cannot evict lines, or if there is not enough memory.
#[pyfunction]
pub(super) fn least_slot(nbytes: u64) -> Option<LeastSlot> {
    Some(LeastSlot(Mutex::new(LeastOfSlot::new(usize::try_from(nbytes).ok()?)?)))
}

/// Memory of its own, which is copied and summed, one place after the other, with the least work that this takes.
/// Benches show it beside copies that have to do more.
#[pyclass(module = "iovec_rs._core", frozen)]
pub(super) struct LeastSum(Mutex<LeastOfSum>);

#[pymethods]
impl LeastSum {
    /// Copies and sums once, at the next place.
    fn run(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).run();
    }
}

/// Copies of `nbytes` at so many places. `None` if the instruction set in use has no routine for it, or if there is not
/// enough memory.
#[pyfunction]
pub(super) fn least_sum(nbytes: u64, places: u64) -> Option<LeastSum> {
    let (nbytes, places) = (usize::try_from(nbytes).ok()?, usize::try_from(places).ok()?);
    Some(LeastSum(Mutex::new(LeastOfSum::new(nbytes, places)?)))
}

/// The lengths from which copies use another method, as a text that `use_tuning` accepts.
#[pyfunction]
pub(super) fn tuning() -> Text<String> {
    Text(arch::tuning::current().text())
}

/// Uses the lengths that a text names from now on, in all threads. ValueError says what is wrong with the text.
#[pyfunction]
pub(super) fn use_tuning(name: &Bound<'_, PyAny>) -> PyResult<()> {
    let text = super::values::text("name", name)?;
    arch::tuning::choose(text).map_err(|why| exception::<PyValueError>(format!("name is {}: {why}", Excerpt(text))))
}

/// The instruction that writes cache lines back, or `None` if this CPU has none.
#[pyfunction]
pub(super) fn flush_instruction() -> Option<&'static str> {
    arch::write_back().map(|instruction| instruction.name)
}

/// The write-back instructions that this CPU has, the best one last.
#[pyfunction]
pub(super) fn flush_instructions() -> Vec<&'static str> {
    arch::write_backs().map(|instruction| instruction.name).collect()
}

/// Writes cache lines back with the named instruction from now on, in all threads. ValueError if the CPU does not have
/// it.
#[pyfunction]
pub(super) fn use_flush_instruction(name: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = super::values::text("name", name)?;
    match arch::choose_write_back(name) {
        Some(_) => Ok(()),
        None => {
            Err(Error::invalid("name", Excerpt(name), format!("one of {}", flush_instructions().join(", "))).into())
        }
    }
}
