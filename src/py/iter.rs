//! `IovIter`: its attributes, the methods that move it, and its release. The other methods are in files by subject.

mod make;
mod queries;
mod state;
mod views;

pub(super) use state::IterState;

use super::buffer::Exports;
use super::detach::transfer;
use super::errors::{raise, trusted_fault};
use super::exception::{Int, Text, add_note};
use super::in_use::{Cursor, InUse, Shared};
use super::kept::Kept;
use super::names::names;
use super::results::to_fault;
use super::values::{instance, optional_size, size};
use crate::abi::Kind;
use crate::copy;
use crate::error::Error;
use crate::iter;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

/// A cursor over scattered memory: Linux's `struct iov_iter`.
///
/// There is a class method for each kind of memory, which makes an iterator, and `import_iovec` and its family make
/// some, too. `len()` is `count`, the number of bytes that remain. The memory stays exported while the iterator lives.
/// A call that raises leaves the iterator as it was.
#[pyclass(module = "iovec_rs", name = "IovIter", frozen, weakref)]
pub(super) struct IovIter {
    shared: Shared,
    kept: Kept,
}

impl IovIter {
    fn bare(core: iter::IovIter) -> Self {
        Self::over(core, Exports::default(), None)
    }

    /// Makes an iterator that keeps its memory exported itself.
    pub(super) fn over(core: iter::IovIter, exports: Exports, readonly: Option<usize>) -> Self {
        Self { shared: Shared::new(core, readonly), kept: Kept::own(exports) }
    }

    /// Makes an iterator over memory that another object keeps.
    pub(super) fn beside(core: iter::IovIter, owner: Py<PyAny>, readonly: Option<usize>) -> Self {
        Self { shared: Shared::new(core, readonly), kept: Kept::shared(owner) }
    }

    /// Locks the iterator for one call. `RuntimeError` while another call uses it.
    #[inline]
    pub(super) fn lock<'py>(&self, py: Python<'py>) -> PyResult<InUse<'_, 'py>> {
        self.shared.lock(py)
    }

    /// As `lock`, for a call that does not let other code run while it holds the iterator, or calls `show` before it
    /// does.
    #[inline]
    pub(super) fn lock_unseen<'py>(&self, py: Python<'py>) -> PyResult<InUse<'_, 'py>> {
        self.shared.lock_unseen(py)
    }

    /// What kind of memory it runs over.
    pub(super) fn kind(&self) -> Kind {
        self.shared.kind()
    }
}

impl Cursor {
    /// Refuses to zero read-only memory. `zero` writes to the memory of either direction.
    fn require_writable(&self) -> PyResult<()> {
        match self.readonly {
            Some(index) => Err(Error::ReadOnly { what: "segment", index }.into()),
            None => Ok(()),
        }
    }
}

#[pymethods]
impl IovIter {
    /// The kind of memory that the iterator runs over: an `IterKind`.
    #[getter]
    #[pyo3(name = "kind")]
    fn kind_of(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.shared.require_alive(py)?;
        Ok(names(py).kind(self.kind()).clone_ref(py))
    }

    /// Whether the iterator is the destination or the source of transfers: a `Direction`.
    #[getter]
    fn direction(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.shared.require_alive(py)?;
        Ok(names(py).direction(self.shared.direction()).clone_ref(py))
    }

    /// The number of bytes that remain to be transferred.
    #[getter]
    fn count(&self, py: Python<'_>) -> PyResult<Int> {
        self.shared.require_alive(py)?;
        Ok(Int(self.shared.state(py).count))
    }

    /// The number of bytes consumed of the current segment. For UBUF and XARRAY it is that of all bytes, and for PIPE
    /// the offset in its page at which the newest slot ends.
    #[getter]
    fn iov_offset(&self, py: Python<'_>) -> PyResult<Int> {
        self.shared.require_alive(py)?;
        Ok(Int(self.shared.state(py).iov_offset))
    }

    /// The number of segments that remain, including the current one; 0 for kinds that do not count segments.
    #[getter]
    fn nr_segs(&self, py: Python<'_>) -> PyResult<Int> {
        self.shared.require_alive(py)?;
        Ok(Int(self.shared.state(py).nr_segs))
    }

    /// The `Fault` that made the last copy through this iterator short; `None` if bad memory was not the reason.
    #[getter]
    fn fault<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.shared.require_alive(py)?;
        self.shared.fault(py).map(|fault| to_fault(py, &fault)).transpose()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.count(py)?.0)
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.count(py)?.0 != 0)
    }

    fn __repr__(&self, py: Python<'_>) -> Text<String> {
        if self.shared.is_released() {
            return Text("<IovIter released>".to_owned());
        }
        Text(self.shared.state(py).to_string())
    }

    /// Releases the iterator's buffers now, and not only when it is collected. Views of them and duplicates of the
    /// iterator keep what they need. Any later use of the iterator is a ValueError, but another `release` does nothing.
    /// `RuntimeError` while a call uses the iterator.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        if !self.shared.is_released() {
            let core = self.shared.retire(py)?;
            // Both drops may run Python code, which finds the iterator released.
            drop(core);
            self.kept.release();
        }
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().shared.require_alive(slf.py())?;
        Ok(slf)
    }

    /// Releases the iterator. If another thread's call uses it, raises `RuntimeError`, or adds a note to the exception
    /// that ended the block.
    #[pyo3(signature = (*exc), text_signature = "($self, *exc)")]
    fn __exit__(&self, exc: &Bound<'_, PyTuple>) -> PyResult<()> {
        match (self.release(exc.py()), exc.get_item(1)) {
            (Err(refused), Ok(own)) if own.is_instance_of::<PyBaseException>() => {
                let note = format!("{} is not released: {}", self.__repr__(exc.py()).0, refused.value(exc.py()));
                add_note(&own, &note)
            }
            (released, _) => released,
        }
    }

    /// Shows the collector the cycles through the memory. There is no `__clear__`: a cycle is broken at another object,
    /// since an iterator without its memory would look like one with it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.kept.traverse(&visit)
    }

    /// Moves forward by `nbytes` bytes, at most to the end (`iov_iter_advance`). Steps over empty segments, even if
    /// `nbytes` is 0.
    fn advance(&self, py: Python<'_>, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(self.lock(py)?.core.advance(nbytes)?)
    }

    /// Moves back by `nbytes` bytes (`iov_iter_revert`). ValueError if that is before the start. On a PIPE the bytes
    /// are removed.
    fn revert(&self, py: Python<'_>, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(self.lock(py)?.core.revert(nbytes)?)
    }

    /// Lowers `count` to this number if it is more (`iov_iter_truncate`). The position does not change.
    fn truncate(&self, py: Python<'_>, count: &Bound<'_, PyAny>) -> PyResult<()> {
        let count = size("count", count)?;
        self.lock(py)?.core.truncate(count);
        Ok(())
    }

    /// Sets `count`, to undo a truncation (`iov_iter_reexpand`). ValueError if the segments have fewer bytes.
    fn reexpand(&self, py: Python<'_>, count: &Bound<'_, PyAny>) -> PyResult<()> {
        let count = size("count", count)?;
        Ok(self.lock(py)?.core.reexpand(count)?)
    }

    /// Saves the position, for `restore` (`iov_iter_save_state`).
    fn save_state(&self, py: Python<'_>) -> PyResult<IterState> {
        Ok(IterState(self.lock(py)?.core.save_state()))
    }

    /// Moves to a saved position, backwards or forwards (`iov_iter_restore`). UBUF, IOVEC, KVEC and BVEC only.
    fn restore(&self, py: Python<'_>, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let state = instance::<IterState>("state", "an IterState", state)?;
        Ok(self.lock(py)?.core.restore(state.0)?)
    }

    /// Makes a second iterator over the rest of the memory (`dup_iter`). It cannot be moved back beyond this position.
    fn dup(slf: &Bound<'_, Self>) -> PyResult<Self> {
        let this = slf.get().lock(slf.py())?;
        Ok(Self::beside(this.core.dup()?, slf.get().kept.owner(slf.py())?, this.readonly))
    }

    /// Zeroes the next `nbytes` bytes (all by default) and returns their number (`iov_iter_zero`). It writes to the
    /// memory whatever the direction, so that of a WRITE iterator, too, unless it is read-only.
    #[pyo3(signature = (nbytes=None))]
    fn zero(&self, py: Python<'_>, nbytes: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let nbytes = optional_size("nbytes", nbytes)?;
        let mut this = self.lock(py)?;
        this.require_writable()?;
        let core = &mut this.core;
        let nbytes = nbytes.unwrap_or(core.count());
        // SAFETY: `require_writable` has refused read-only memory, so this memory may be written to, also of a source.
        let zeroed = transfer(py, nbytes.min(core.count()), || unsafe { copy::zero(core, nbytes) })?;
        let fault = trusted_fault(core);
        drop(this);
        raise(py, fault, zeroed)?;
        Ok(zeroed)
    }
}
