//! Walks over an iterator's memory with a Python function: the kernel's `iterate_and_advance`.

use super::exception::exception;
use super::names::names;
use super::values::{shown, type_name};
use crate::iter::{IovIter, KeptPiece};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

/// Calls `step(view, progress)` with each chunk of the next `nbytes` bytes, and advances the iterator after each step
/// by what it processed. Returns the sum. If a step raises, the iterator stays where the steps before it left it.
pub(super) fn iterate_and_advance<'py>(
    core: &mut IovIter,
    nbytes: usize,
    step: &Bound<'py, PyAny>,
    show: impl Fn(Python<'py>, KeptPiece) -> PyResult<Bound<'py, PyMemoryView>>,
) -> PyResult<usize> {
    let py = step.py();
    let mut progress = 0;
    while let Some(chunk) = core.next_chunk(nbytes - progress) {
        let len = chunk.seg.len;
        let view = show(py, chunk)?;
        let processed = step.call1((&view, progress)).and_then(|left| processed(&left, len));
        let released = view.call_method0(names(py).release.bind(py));
        let processed = processed?;
        core.pass(processed)?;
        progress += processed;
        // Releasing fails if the step kept something made from the view, which then keeps the memory exported. The
        // bytes processed count all the same, so this comes after `pass`.
        released?;
        if processed < len {
            break;
        }
    }
    Ok(progress)
}

/// How many of the `len` bytes of a chunk were processed, by what its step returned.
fn processed(left: &Bound<'_, PyAny>, len: usize) -> PyResult<usize> {
    if left.is_none() {
        return Ok(len);
    }
    // `__index__` tells ints from other objects. A negative or huge int fails below, with another message.
    let number = left.call_method0(names(left.py()).index.bind(left.py())).map_err(|_| {
        exception::<PyTypeError>(format!("step: an int or None is expected of it, not {}", type_name(left)))
    })?;
    number.extract::<usize>().ok().and_then(|left| len.checked_sub(left)).ok_or_else(|| {
        let number = shown(&number);
        exception::<PyValueError>(format!("step returned {number}: expected 0 to {len}, the bytes it did not process"))
    })
}
