//! `IovIter`: what it says of itself, where it stands, and its end. The rest of its methods stand by subject in files
//! of their own.

mod make;
mod queries;
mod state;
mod views;

pub(super) use state::IterState;

use super::buffer::Exports;
use super::detach::transfer;
use super::errors::{raise, trusted_fault};
use super::exception::{Int, Text};
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
/// Made by one class method per kind of memory, or by `import_iovec` and its family. `len()` is `count`, the bytes that
/// remain. The memory stays exported while the iterator lives. Every refused operation leaves the iterator as it was.
#[pyclass(module = "iovec_rs", name = "IovIter", frozen, weakref)]
pub(super) struct IovIter {
    shared: Shared,
    kept: Kept,
}

impl IovIter {
    fn bare(core: iter::IovIter) -> Self {
        Self::over(core, Exports::default(), None)
    }

    /// An iterator that keeps its memory itself.
    pub(super) fn over(core: iter::IovIter, exports: Exports, readonly: Option<usize>) -> Self {
        Self { shared: Shared::new(core, readonly), kept: Kept::own(exports) }
    }

    /// An iterator over memory that another object keeps.
    pub(super) fn beside(core: iter::IovIter, owner: Py<PyAny>, readonly: Option<usize>) -> Self {
        Self { shared: Shared::new(core, readonly), kept: Kept::shared(owner) }
    }

    /// The cursor, for one call. `RuntimeError` while another has it.
    #[inline]
    pub(super) fn lock<'py>(&self, py: Python<'py>) -> PyResult<InUse<'_, 'py>> {
        self.shared.lock(py)
    }

    /// The same, for a call that shows it before others can look.
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
    /// Zero goes by the memory, not by the direction.
    fn require_writable(&self) -> PyResult<()> {
        match self.readonly {
            Some(index) => Err(Error::ReadOnly { what: "segment", index }.into()),
            None => Ok(()),
        }
    }
}

#[pymethods]
impl IovIter {
    /// What kind of memory it runs over: an `IterKind`.
    #[getter]
    #[pyo3(name = "kind")]
    fn kind_of(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.shared.require_alive(py)?;
        Ok(names(py).kind(self.kind()).clone_ref(py))
    }

    /// What it is in a transfer: a `Direction`.
    #[getter]
    fn direction(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.shared.require_alive(py)?;
        Ok(names(py).direction(self.shared.direction()).clone_ref(py))
    }

    /// Bytes that remain to be transferred.
    #[getter]
    fn count(&self, py: Python<'_>) -> PyResult<Int> {
        self.shared.require_alive(py)?;
        Ok(Int(self.shared.state(py).count))
    }

    /// Bytes consumed of the current segment; of all for UBUF and XARRAY; PIPE: where the newest slot ends in its page.
    #[getter]
    fn iov_offset(&self, py: Python<'_>) -> PyResult<Int> {
        self.shared.require_alive(py)?;
        Ok(Int(self.shared.state(py).iov_offset))
    }

    /// Segments that remain, the current one included; 0 for the kinds that do not count them.
    #[getter]
    fn nr_segs(&self, py: Python<'_>) -> PyResult<Int> {
        self.shared.require_alive(py)?;
        Ok(Int(self.shared.state(py).nr_segs))
    }

    /// Why the last copy through this iterator came out short: a `Fault`, or `None` if bad memory was not the reason.
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

    /// Gives its buffers back now, instead of when the iterator is collected; views of them and duplicates of the
    /// iterator keep what they need. Any later use of it: ValueError. Once more: nothing. `RuntimeError` while a call
    /// uses the iterator.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        if !self.shared.is_released() {
            let core = self.shared.retire(py)?;
            // Both may run Python code, which finds it released.
            drop(core);
            self.kept.release();
        }
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().shared.require_alive(slf.py())?;
        Ok(slf)
    }

    /// Releases it. If a call of another thread uses it: `RuntimeError`, or a note to the exception that the block ends
    /// with.
    #[pyo3(signature = (*exc), text_signature = "($self, *exc)")]
    fn __exit__(&self, exc: &Bound<'_, PyTuple>) -> PyResult<()> {
        match (self.release(exc.py()), exc.get_item(1)) {
            (Err(refused), Ok(own)) if own.is_instance_of::<PyBaseException>() => {
                let note = format!("{} is not released: {}", self.__repr__(exc.py()).0, refused.value(exc.py()));
                own.call_method1("add_note", (note,)).map(drop)
            }
            (released, _) => released,
        }
    }

    /// A cycle through the memory is found by the collector, and broken elsewhere: there is no `__clear__`, since an
    /// iterator whose memory was given back could not be told from one over it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.kept.traverse(&visit)
    }

    /// Moves on by `nbytes`, at most to the end (`iov_iter_advance`). Steps over empty segments, also when `nbytes` is
    /// 0.
    fn advance(&self, py: Python<'_>, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(self.lock(py)?.core.advance(nbytes)?)
    }

    /// Moves back by `nbytes` (`iov_iter_revert`). ValueError before the start. On a PIPE the bytes are gone.
    fn revert(&self, py: Python<'_>, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(self.lock(py)?.core.revert(nbytes)?)
    }

    /// Lowers `count` to the given one if it is above (`iov_iter_truncate`). The position stays.
    fn truncate(&self, py: Python<'_>, count: &Bound<'_, PyAny>) -> PyResult<()> {
        let count = size("count", count)?;
        self.lock(py)?.core.truncate(count);
        Ok(())
    }

    /// Sets `count`, to give back what a truncation took (`iov_iter_reexpand`). ValueError beyond the segments.
    fn reexpand(&self, py: Python<'_>, count: &Bound<'_, PyAny>) -> PyResult<()> {
        let count = size("count", count)?;
        Ok(self.lock(py)?.core.reexpand(count)?)
    }

    /// The position, to come back to (`iov_iter_save_state`).
    fn save_state(&self, py: Python<'_>) -> PyResult<IterState> {
        Ok(IterState(self.lock(py)?.core.save_state()))
    }

    /// Goes to a saved position, backwards or forwards (`iov_iter_restore`). UBUF, IOVEC, KVEC and BVEC only.
    fn restore(&self, py: Python<'_>, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let state = instance::<IterState>("state", "an IterState", state)?;
        Ok(self.lock(py)?.core.restore(state.0)?)
    }

    /// A second cursor over the same memory from here on (`dup_iter`). It cannot be reverted to before this point.
    fn dup(slf: &Bound<'_, Self>) -> PyResult<Self> {
        let this = slf.get().lock(slf.py())?;
        Ok(Self::beside(this.core.dup()?, slf.get().kept.owner(slf.py())?, this.readonly))
    }

    /// Zeroes the next `nbytes` (all by default) and returns how many (`iov_iter_zero`). Goes by the memory, not by the
    /// direction: the source of a WRITE iterator is zeroed too, unless it is read-only.
    #[pyo3(signature = (nbytes=None))]
    fn zero(&self, py: Python<'_>, nbytes: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let nbytes = optional_size("nbytes", nbytes)?;
        let mut this = self.lock(py)?;
        this.require_writable()?;
        let core = &mut this.core;
        let nbytes = nbytes.unwrap_or(core.count());
        // SAFETY: `require_writable` refused memory that is not to be written to.
        let zeroed = transfer(py, nbytes.min(core.count()), || unsafe { copy::zero(core, nbytes) })?;
        let fault = trusted_fault(core);
        drop(this);
        raise(py, fault, zeroed)?;
        Ok(zeroed)
    }
}
