//! Whether other threads run during a copy.

use crate::error::Result;
use pyo3::prelude::*;

/// From this size on a copy lets other threads run meanwhile.
const DETACH_FROM: usize = 8 << 10;

/// Runs a copy of about `nbytes`, without the interpreter if that is enough.
#[inline]
pub(super) fn transfer<T: Send>(py: Python<'_>, nbytes: usize, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    Ok(if nbytes >= DETACH_FROM { py.detach(work) } else { work() }?)
}
