//! Counts given to Python: an int that is given again and again is made once.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use std::cell::Cell;
use std::convert::Infallible;

/// A number of bytes.
pub(super) struct Count(pub(super) usize);

/// Ints below are the interpreter's own.
const MADE_FROM: usize = 257;

thread_local! {
    static LAST: Cell<(usize, *mut ffi::PyObject)> = const { Cell::new((0, std::ptr::null_mut())) };
    static INT: Int = const { Int(Cell::new(None)) };
}

/// What the pointer in `LAST` points to.
struct Int(Cell<Option<Py<PyInt>>>);

impl Drop for Int {
    fn drop(&mut self) {
        LAST.set((0, std::ptr::null_mut()));
    }
}

impl<'py> IntoPyObject<'py> for Count {
    type Target = PyInt;
    type Output = Bound<'py, PyInt>;
    type Error = Infallible;

    #[inline]
    fn into_pyobject(self, py: Python<'py>) -> Result<Bound<'py, PyInt>, Infallible> {
        if self.0 < MADE_FROM {
            return self.0.into_pyobject(py);
        }
        let (last, int) = LAST.get();
        if self.0 != last {
            return Ok(make(py, self.0));
        }
        // SAFETY: attached; a number this large is there only beside its int, which `INT` holds.
        let int = unsafe { Bound::from_borrowed_ptr(py, int) };
        // SAFETY: it was stored as an int.
        Ok(unsafe { int.cast_into_unchecked() })
    }
}

fn make(py: Python<'_>, count: usize) -> Bound<'_, PyInt> {
    let Ok(int) = count.into_pyobject(py);
    let kept = int.clone().unbind();
    let before = INT.try_with(|slot| {
        LAST.set((count, int.as_ptr()));
        slot.0.replace(Some(kept))
    });
    drop(before);
    int
}
