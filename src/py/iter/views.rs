//! What remains as ranges and as memoryviews, which may outlive the iterator's position, and walks over it in Python.

use super::IovIter;
use crate::abi::Direction;
use crate::iter::KeptPiece;
use crate::memory::Backing;
use crate::py::exception::exception;
use crate::py::in_use::Cursor;
use crate::py::iterate::iterate_and_advance;
use crate::py::results::{int, to_user_range};
use crate::py::values::{size, size_or};
use crate::py::view::{ViewOwner, list_of, memoryview};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMemoryView};
use std::sync::Arc;

impl Cursor {
    /// Refuses memory that no memoryview can show.
    fn require_views(&self, operation: &str) -> PyResult<()> {
        let kind = self.core.kind();
        if kind.is_destination_only() {
            return Err(exception::<PyTypeError>(format!(
                "{operation}: no memory lies ahead of an iterator of kind {kind}"
            )));
        }
        if kind.is_user_backed() && self.core.backing() == Backing::Unchecked {
            return Err(exception::<PyTypeError>(format!("{operation}: a UserRange cannot be shown as a memoryview")));
        }
        Ok(())
    }
}

/// How an iterator's memory is shown.
struct Shows {
    owner: Py<PyAny>,
    readonly: bool,
}

impl Shows {
    /// A memoryview of a piece, kept by its page or by what the iterator was made over.
    fn view<'py>(&self, py: Python<'py>, piece: KeptPiece) -> PyResult<Bound<'py, PyMemoryView>> {
        let KeptPiece { seg, page } = piece;
        match page {
            // A page may have come after the iterator was made, and be read-only.
            Some(page) => {
                let owner = ViewOwner::Page(Arc::clone(page.owner()));
                memoryview(py, seg, self.readonly || !page.writable(), owner)
            }
            None => memoryview(py, seg, self.readonly, ViewOwner::Object(self.owner.clone_ref(py))),
        }
    }
}

impl IovIter {
    /// How its memory is shown, also when it has been released since.
    fn shows(slf: &Bound<'_, Self>) -> PyResult<Shows> {
        let this = slf.get();
        Ok(Shows { owner: this.kept.owner(slf.py())?, readonly: this.shared.direction() == Direction::Source })
    }
}

#[pymethods]
impl IovIter {
    /// What remains, clipped to `count`: a `UserRange` for each non-empty segment, page of an XArray (to the first
    /// hole) or folio.
    fn ranges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let this = self.lock()?;
        let pieces = this.core.kept_pieces(this.core.count(), usize::MAX);
        drop(this);
        list_of(py, pieces?, |piece| to_user_range(py, piece.seg))
    }

    /// What remains as memoryviews, at most the first `maxsegs` segments and `nbytes` bytes of it: writable for a
    /// destination, read-only over pages that are. They keep the memory exported. TypeError over a `UserRange`.
    #[pyo3(signature = (maxsegs=None, nbytes=None))]
    fn views<'py>(
        slf: &Bound<'py, Self>,
        maxsegs: Option<&Bound<'py, PyAny>>,
        nbytes: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (maxsegs, nbytes) = (size_or("maxsegs", maxsegs, usize::MAX)?, size_or("nbytes", nbytes, usize::MAX)?);
        let this = slf.get().lock()?;
        this.require_views("views")?;
        let shows = Self::shows(slf)?;
        let pieces = this.core.kept_pieces(nbytes, maxsegs);
        drop(this);
        list_of(slf.py(), pieces?, |piece| Ok(shows.view(slf.py(), piece)?.into_any()))
    }

    /// Calls `step(view, progress)` with a memoryview of each contiguous chunk of the next `nbytes` bytes (clipped to
    /// `count`), and moves on by the bytes processed, which it returns: the kernel's `iterate_and_advance`, to write a
    /// copy of one's own.
    ///
    /// `progress` is how many bytes came before. A chunk is a segment; a page where memory comes in pages. It is
    /// read-only for a WRITE iterator, and released after the step. The step returns how many of its bytes it did not
    /// process (None: 0), which ends the walk; ValueError for a number outside the chunk. If it raises, the iterator
    /// has moved by what earlier steps processed. The iterator cannot be used meanwhile: `RuntimeError`. `TypeError`
    /// over a `UserRange`, PIPE or DISCARD.
    fn iterate_and_advance(
        slf: &Bound<'_, Self>,
        nbytes: &Bound<'_, PyAny>,
        step: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let nbytes = size("nbytes", nbytes)?;
        let mut this = slf.get().lock()?;
        this.require_views("iterate_and_advance")?;
        if this.core.direction() == Direction::Dest {
            this.core.require_writable(nbytes)?;
        }
        let shows = Self::shows(slf)?;
        iterate_and_advance(&mut this.core, nbytes, step, |py, chunk| shows.view(py, chunk))
    }

    /// What is left of the current segment (`iter_iov_addr`, `iter_iov_len`), clipped to `count`: a `UserRange`. Of an
    /// XARRAY it is the current page, of a FOLIOQ the folio. It is empty where the position rests at the end of a
    /// segment, with more to come: `advance(0)` steps over that. None at the end of all, at a hole, and for PIPE and
    /// DISCARD.
    fn segment<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let segment = self.lock()?.core.segment();
        segment.map(|seg| to_user_range(py, seg)).transpose()
    }

    /// Calls `callback` with a memoryview of each piece of the next `nbytes` (`iov_iter_for_each_range`) and returns
    /// what the last call returned, 0 for `None`. Kernel-backed kinds; not clipped to `count`; does not move the
    /// iterator.
    fn for_each_range<'py>(
        slf: &Bound<'py, Self>,
        nbytes: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let nbytes = size("nbytes", nbytes)?;
        // The callback may use the iterator, which is not locked meanwhile.
        let this = slf.get().lock()?;
        let (pieces, shows) = (this.core.callback_ranges(nbytes)?, Self::shows(slf)?);
        drop(this);
        let mut last = slf.py().None().into_bound(slf.py());
        for piece in pieces {
            last = callback.call1((shows.view(slf.py(), piece)?,))?;
        }
        if last.is_none() { int(slf.py(), 0) } else { Ok(last) }
    }
}
