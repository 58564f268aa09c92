//! Walking over an iterator's memory with a function of the caller's: the kernel's `iterate_and_advance`, in Python.

use super::exception::exception;
use super::names::names;
use crate::iter::{IovIter, KeptPiece};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

/// Calls `step(view, progress)` with each chunk of the next `nbytes` bytes, moves the iterator by what the steps
/// processed, and returns that. Whatever a step raises, those before it count.
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
        // The step has kept a part of the view. Its memory stays for as long as that does.
        released?;
        if processed < len {
            break;
        }
    }
    Ok(progress)
}

/// How many of `len` bytes a step has processed that returned `left`.
fn processed(left: &Bound<'_, PyAny>, len: usize) -> PyResult<usize> {
    if left.is_none() {
        return Ok(len);
    }
    // A negative number, or one beyond any size, is an int all the same.
    let number = left.call_method0(names(left.py()).index.bind(left.py())).map_err(|_| {
        let kind = left.get_type().name().map_or_else(|_| "this".to_owned(), |name| name.to_string());
        exception::<PyTypeError>(format!("step: an int or None is expected of it, not {kind}"))
    })?;
    number.extract::<usize>().ok().and_then(|left| len.checked_sub(left)).ok_or_else(|| {
        exception::<PyValueError>(format!("step returned {number}: expected 0 to {len}, the bytes it did not process"))
    })
}
