//! Shows an iterator's remaining memory as ranges and as memoryviews, and walks over it with Python functions. A
//! memoryview stays valid after the iterator has moved on or is gone.

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
    /// Refuses an iterator whose memory cannot be shown as a memoryview.
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

/// What memoryviews of an iterator's memory have in common.
struct Shows {
    owner: Py<PyAny>,
    readonly: bool,
}

impl Shows {
    /// Makes a memoryview of a piece. The owner of its page keeps it or, where there are no pages, the objects that the
    /// iterator was made of.
    fn view<'py>(&self, py: Python<'py>, piece: KeptPiece) -> PyResult<Bound<'py, PyMemoryView>> {
        let KeptPiece { seg, page } = piece;
        match page {
            // A read-only page may have been added after the iterator was made.
            Some(page) => {
                let owner = ViewOwner::Page(Arc::clone(page.owner()));
                memoryview(py, seg, self.readonly || !page.writable(), owner)
            }
            None => memoryview(py, seg, self.readonly, ViewOwner::Object(self.owner.clone_ref(py))),
        }
    }
}

impl IovIter {
    /// What memoryviews of the iterator need. They stay valid when it is released.
    fn shows(slf: &Bound<'_, Self>) -> PyResult<Shows> {
        let this = slf.get();
        Ok(Shows { owner: this.kept.owner(slf.py())?, readonly: this.shared.direction() == Direction::Source })
    }
}

#[pymethods]
impl IovIter {
    /// The memory that remains, clipped to `count`: a list with a `UserRange` for each non-empty segment, for each page
    /// of an XArray up to the first hole, or for each folio.
    fn ranges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let this = self.lock(py)?;
        let pieces = this.core.kept_pieces(this.core.count(), usize::MAX);
        drop(this);
        list_of(py, pieces?, |piece| to_user_range(py, piece.seg))
    }

    /// The memory that remains as a list of memoryviews, of at most `maxsegs` segments and `nbytes` bytes. They are
    /// writable if the iterator is a destination and the page is not read-only. They keep the memory exported.
    /// TypeError over a `UserRange`, PIPE or DISCARD.
    #[pyo3(signature = (maxsegs=None, nbytes=None))]
    fn views<'py>(
        slf: &Bound<'py, Self>,
        maxsegs: Option<&Bound<'py, PyAny>>,
        nbytes: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (maxsegs, nbytes) = (size_or("maxsegs", maxsegs, usize::MAX)?, size_or("nbytes", nbytes, usize::MAX)?);
        let this = slf.get().lock(slf.py())?;
        this.require_views("views")?;
        let shows = Self::shows(slf)?;
        let pieces = this.core.kept_pieces(nbytes, maxsegs);
        drop(this);
        list_of(slf.py(), pieces?, |piece| Ok(shows.view(slf.py(), piece)?.into_any()))
    }

    /// Calls `step(view, progress)` with a memoryview of each contiguous chunk of the next `nbytes` bytes (clipped to
    /// `count`). Advances by the bytes that the steps processed, and returns their number. It is the kernel's
    /// `iterate_and_advance`; use it to write copies of your own.
    ///
    /// `progress` is the number of bytes in the chunks before. A chunk is a segment, or a page of kinds that have
    /// pages. Its view is read-only if the iterator is a source, and is released after the step. The step returns how
    /// many bytes of its chunk it did not process, None for 0; any but 0 ends the walk. ValueError if the number is
    /// more than the chunk has. If a step raises, the iterator has moved by what earlier steps processed. Any use of
    /// the iterator by a step is a `RuntimeError`. `TypeError` over a `UserRange`, PIPE or DISCARD.
    fn iterate_and_advance(
        slf: &Bound<'_, Self>,
        nbytes: &Bound<'_, PyAny>,
        step: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let nbytes = size("nbytes", nbytes)?;
        let mut this = slf.get().lock(slf.py())?;
        this.require_views("iterate_and_advance")?;
        if this.core.direction() == Direction::Dest {
            this.core.require_writable(nbytes)?;
        }
        let shows = Self::shows(slf)?;
        iterate_and_advance(&mut this.core, nbytes, step, |py, chunk| shows.view(py, chunk))
    }

    /// The rest of the current segment, clipped to `count`, as a `UserRange` (`iter_iov_addr`, `iter_iov_len`). For an
    /// XARRAY it is the rest of the current page, for a FOLIOQ of the current folio. It is empty if the position is at
    /// the end of a segment and more segments follow; `advance(0)` moves to the next. None at the end of the iterator,
    /// at a hole, and for PIPE and DISCARD.
    fn segment<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let segment = self.lock(py)?.core.segment();
        segment.map(|seg| to_user_range(py, seg)).transpose()
    }

    /// Calls `callback` with a memoryview of each piece of the next `nbytes` bytes, and returns what the last call
    /// returned, 0 for `None` (`iov_iter_for_each_range`). It does not move the iterator and does not clip to `count`.
    /// Kernel-backed kinds only.
    fn for_each_range<'py>(
        slf: &Bound<'py, Self>,
        nbytes: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let nbytes = size("nbytes", nbytes)?;
        // The iterator is unlocked before the callbacks, which may use it.
        let this = slf.get().lock(slf.py())?;
        let (pieces, shows) = (this.core.callback_ranges(nbytes)?, Self::shows(slf)?);
        drop(this);
        let mut last = slf.py().None().into_bound(slf.py());
        for piece in pieces {
            last = callback.call1((shows.view(slf.py(), piece)?,))?;
        }
        if last.is_none() { int(slf.py(), 0) } else { Ok(last) }
    }
}
