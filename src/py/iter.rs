//! `IovIter` and `IterState`.

use super::array::IovecArray;
use super::buffer::Exports;
use super::collect::{Collected, SegmentList, collect, segments_of};
use super::copy::{raise, trusted_fault};
use super::detach::transfer;
use super::in_use::{Cursor, InUse, Shared};
use super::iterate::iterate_and_advance;
use super::kept::Kept;
use super::names::names;
use super::structures::{FolioQueue, PipeRing, XArray};
use super::values::{
    Lengths, instance, int, optional_size, size, size_or, to_fault, to_page_span, to_user_range, wrong_type,
};
use super::view::{Keeper, list_of, memoryview};
use crate::abi::{Direction, Kind};
use crate::copy;
use crate::error::{Error, try_push};
use crate::iter::{self, KeptPiece};
use crate::memory::{Backing, Segment};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMemoryView, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};
use std::sync::Arc;

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
    pub(super) fn beside(core: iter::IovIter, keeper: Py<PyAny>, readonly: Option<usize>) -> Self {
        Self { shared: Shared::new(core, readonly), kept: Kept::shared(keeper) }
    }

    /// The cursor, for one call. `RuntimeError` while another has it.
    #[inline]
    pub(super) fn lock(&self) -> PyResult<InUse<'_>> {
        self.shared.lock()
    }
}

impl Cursor {
    /// Refuses memory that no memoryview can show.
    fn require_views(&self, operation: &str) -> PyResult<()> {
        let kind = self.core.kind();
        if kind.is_destination_only() {
            return Err(PyTypeError::new_err(format!(
                "{operation}: no memory lies ahead of an iterator of kind {kind}"
            )));
        }
        if kind.is_user_backed() && self.core.backing() == Backing::Unchecked {
            return Err(PyTypeError::new_err(format!("{operation}: a UserRange cannot be shown as a memoryview")));
        }
        Ok(())
    }

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
    /// One range of user memory (`iov_iter_ubuf`). `count` may be less than the buffer holds.
    #[classmethod]
    #[pyo3(signature = (direction, buffer, count=None))]
    fn ubuf(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        buffer: &Bound<'_, PyAny>,
        count: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        let count = optional_size("count", count)?;
        let mut collected = Collected::new(direction);
        collected.add(buffer, Some(Lengths::Strict))?;
        collected.check_ranges()?;
        let held = collected.finish();
        let core = iter::IovIter::ubuf(direction, held.only()?, count)?;
        Ok(Self::over(core, held.exports, held.readonly))
    }

    /// Ranges of user memory (`iov_iter_init`): buffers and `UserRange`s.
    #[classmethod]
    #[pyo3(signature = (direction, segments, count=None))]
    fn iovec(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        segments: &Bound<'_, PyAny>,
        count: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        let count = optional_size("count", count)?;
        if let Ok(array) = segments.cast::<IovecArray>() {
            return IovecArray::iterator(array, direction, count);
        }
        let collected = collect(direction, segments, Some(Lengths::Strict))?;
        collected.check_ranges()?;
        let SegmentList { memories, exports, readonly } = collected.finish();
        let core = iter::IovIter::iovec(direction, memories, count)?;
        Ok(Self::over(core, exports, readonly))
    }

    /// Ranges of trusted memory (`iov_iter_kvec`): buffers only.
    #[classmethod]
    #[pyo3(signature = (direction, segments, count=None))]
    fn kvec(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        segments: &Bound<'_, PyAny>,
        count: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        let count = optional_size("count", count)?;
        let collected = collect(direction, segments, None)?;
        let SegmentList { memories, exports, readonly } = collected.finish();
        let core = iter::IovIter::kvec(direction, memories, count)?;
        Ok(Self::over(core, exports, readonly))
    }

    /// Ranges in pages (`iov_iter_bvec`): `(page, offset, length)` each; `offset + length` may pass one page of the
    /// buffer.
    #[classmethod]
    #[pyo3(signature = (direction, bvecs, count=None))]
    fn bvec(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        bvecs: &Bound<'_, PyAny>,
        count: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        let count = optional_size("count", count)?;
        let mut collected = Collected::new(direction);
        let mut offsets = Vec::new();
        for (index, element) in segments_of("bvecs", bvecs)?.enumerate() {
            let element = element?;
            let (page, offset, length) = element
                .extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)>()
                .map_err(|_| wrong_type(format_args!("bvecs[{index}]"), "(page, offset, length)", &element))?;
            let (offset, nbytes) = (size("offset", &offset)?, size("length", &length)?);
            let whole = collected.add_buffer(&page)?;
            if offset.checked_add(nbytes).is_none_or(|end| end > whole.len) {
                return Err(Error::BeyondPage { offset, nbytes, len: whole.len }.into());
            }
            collected.segs[index] = Segment::new(whole.addr + offset, nbytes);
            try_push(&mut offsets, offset)?;
        }
        let SegmentList { memories, exports, readonly } = collected.finish();
        let core = iter::IovIter::bvec(direction, memories, offsets, count)?;
        Ok(Self::over(core, exports, readonly))
    }

    /// A pipe to fill (`iov_iter_pipe`). `count` may be more than it can take: copies come out short when it is full.
    #[classmethod]
    fn pipe(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        pipe: &Bound<'_, PyAny>,
        count: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        Ok(Self::bare(iter::IovIter::pipe(
            direction,
            Arc::clone(&instance::<PipeRing>("pipe", "a PipeRing", pipe)?.0),
            size("count", count)?,
        )?))
    }

    /// The pages of an `XArray` from byte position `start` on (`iov_iter_xarray`). A hole ends a transfer.
    #[classmethod]
    fn xarray(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        xarray: &Bound<'_, PyAny>,
        start: &Bound<'_, PyAny>,
        count: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        let (start, count) = (size("start", start)?, size("count", count)?);
        let core = iter::IovIter::xarray(
            direction,
            Arc::clone(&instance::<XArray>("xarray", "an XArray", xarray)?.0),
            start,
            count,
        )?;
        if direction == Direction::Dest {
            core.require_writable(count)?;
        }
        Ok(Self::bare(core))
    }

    /// A `FolioQueue` from `offset` bytes into folio `first_slot` on (`iov_iter_folio_queue`). The end of the queue
    /// ends a transfer.
    #[classmethod]
    fn folioq(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        queue: &Bound<'_, PyAny>,
        first_slot: &Bound<'_, PyAny>,
        offset: &Bound<'_, PyAny>,
        count: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        let (slot, offset, count) = (size("first_slot", first_slot)?, size("offset", offset)?, size("count", count)?);
        let core = iter::IovIter::folioq(
            direction,
            Arc::clone(&instance::<FolioQueue>("queue", "a FolioQueue", queue)?.0),
            slot,
            offset,
            count,
        )?;
        if direction == Direction::Dest {
            core.require_writable(count)?;
        }
        Ok(Self::bare(core))
    }

    /// Counts what it is given and drops it (`iov_iter_discard`).
    #[classmethod]
    fn discard(_class: &Bound<'_, PyType>, direction: &Bound<'_, PyAny>, count: &Bound<'_, PyAny>) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        Ok(Self::bare(iter::IovIter::discard(direction, size("count", count)?)?))
    }

    /// What kind of memory it runs over: an `IterKind`.
    #[getter]
    #[pyo3(name = "kind")]
    fn kind_of(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.shared.require_alive()?;
        Ok(names(py).kind(self.kind()).clone_ref(py))
    }

    /// What it is in a transfer: a `Direction`.
    #[getter]
    fn direction(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.shared.require_alive()?;
        Ok(names(py).direction(self.shared.direction()).clone_ref(py))
    }

    /// Bytes that remain to be transferred.
    #[getter]
    fn count(&self) -> PyResult<usize> {
        self.shared.require_alive()?;
        Ok(self.shared.state().count)
    }

    /// Bytes consumed of the current segment; of all for UBUF and XARRAY; PIPE: where the newest slot ends in its page.
    #[getter]
    fn iov_offset(&self) -> PyResult<usize> {
        self.shared.require_alive()?;
        Ok(self.shared.state().iov_offset)
    }

    /// Segments that remain, the current one included; 0 for the kinds that do not count them.
    #[getter]
    fn nr_segs(&self) -> PyResult<usize> {
        self.shared.require_alive()?;
        Ok(self.shared.state().nr_segs)
    }

    /// Why the last copy through this iterator came out short: a `Fault`, or `None` if bad memory was not the reason.
    #[getter]
    fn fault<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.shared.require_alive()?;
        self.shared.fault().map(|fault| to_fault(py, &fault)).transpose()
    }

    fn __len__(&self) -> PyResult<usize> {
        self.count()
    }

    fn __bool__(&self) -> PyResult<bool> {
        Ok(self.count()? != 0)
    }

    /// `IovIter()` itself makes none: there is a class method for each kind of memory.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(*args, **kwargs)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Err(PyTypeError::new_err(
            "IovIter() makes no iterator: IovIter.ubuf, iovec, kvec, bvec, pipe, xarray, folioq and discard do, one for each \
             kind of memory, and import_iovec",
        ))
    }

    fn __repr__(&self) -> String {
        if self.shared.is_released() {
            return "<IovIter released>".to_owned();
        }
        self.shared.state().to_string()
    }

    /// Gives its buffers back now, instead of when the iterator is collected; views of them and duplicates of the
    /// iterator keep what they need. Any later use of it: ValueError. Once more: nothing. `RuntimeError` while a call
    /// uses the iterator.
    fn release(&self) -> PyResult<()> {
        if !self.shared.is_released() {
            let core = self.shared.retire()?;
            // Both may run Python code, which finds it released.
            drop(core);
            self.kept.release();
        }
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().shared.require_alive()?;
        Ok(slf)
    }

    /// Releases it.
    #[pyo3(signature = (*_exc), text_signature = "($self, *exc)")]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.release()
    }

    /// A cycle through the memory is found by the collector, and broken elsewhere: there is no `__clear__`, since an
    /// iterator whose memory was given back could not be told from one over it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.kept.traverse(&visit)
    }

    /// Moves on by `nbytes`, at most to the end (`iov_iter_advance`). Steps over empty segments, also when `nbytes` is
    /// 0.
    fn advance(&self, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(self.lock()?.core.advance(nbytes)?)
    }

    /// Moves back by `nbytes` (`iov_iter_revert`). ValueError before the start. On a PIPE the bytes are gone.
    fn revert(&self, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(self.lock()?.core.revert(nbytes)?)
    }

    /// Lowers `count` to the given one if it is above (`iov_iter_truncate`). The position stays.
    fn truncate(&self, count: &Bound<'_, PyAny>) -> PyResult<()> {
        let count = size("count", count)?;
        self.lock()?.core.truncate(count);
        Ok(())
    }

    /// Sets `count`, to give back what a truncation took (`iov_iter_reexpand`). ValueError beyond the segments.
    fn reexpand(&self, count: &Bound<'_, PyAny>) -> PyResult<()> {
        let count = size("count", count)?;
        Ok(self.lock()?.core.reexpand(count)?)
    }

    /// The position, to come back to (`iov_iter_save_state`).
    fn save_state(&self) -> PyResult<IterState> {
        Ok(IterState(self.lock()?.core.save_state()))
    }

    /// Goes to a saved position, backwards or forwards (`iov_iter_restore`). UBUF, IOVEC, KVEC and BVEC only.
    fn restore(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let state = instance::<IterState>("state", "an IterState", state)?;
        Ok(self.lock()?.core.restore(state.0)?)
    }

    /// A second cursor over the same memory from here on (`dup_iter`). It cannot be reverted to before this point.
    fn dup(slf: &Bound<'_, Self>) -> PyResult<Self> {
        let this = slf.get().lock()?;
        Ok(Self::beside(this.core.dup()?, slf.get().kept.keeper(slf.py())?, this.readonly))
    }

    /// Zeroes the next `nbytes` (all by default) and returns how many (`iov_iter_zero`). Goes by the memory, not by the
    /// direction: the source of a WRITE iterator is zeroed too, unless it is read-only.
    #[pyo3(signature = (nbytes=None))]
    fn zero(&self, py: Python<'_>, nbytes: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let nbytes = optional_size("nbytes", nbytes)?;
        let mut this = self.lock()?;
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

    /// Bytes before the end of the current segment (`iov_iter_single_seg_count`). May be 0 with more to come.
    fn single_seg_count(&self) -> PyResult<usize> {
        Ok(self.lock()?.core.single_seg_count())
    }

    /// The OR of every address and length to be transferred (`iov_iter_alignment`).
    fn alignment(&self) -> PyResult<usize> {
        Ok(self.lock()?.core.alignment())
    }

    /// Whether no address has a bit of `addr_mask` and no length one of `len_mask` (`iov_iter_is_aligned`).
    fn is_aligned(&self, addr_mask: &Bound<'_, PyAny>, len_mask: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (addr_mask, len_mask) = (size("addr_mask", addr_mask)?, size("len_mask", len_mask)?);
        Ok(self.lock()?.core.is_aligned(addr_mask, len_mask))
    }

    /// The OR of an IOVEC's inner boundaries (`iov_iter_gap_alignment`): 0 if it joins without gaps. 0xffffffff for
    /// other kinds but UBUF.
    fn gap_alignment(&self) -> PyResult<usize> {
        Ok(self.lock()?.core.gap_alignment())
    }

    /// Pages that the remaining pieces touch, at most `maxpages` (`iov_iter_npages`).
    fn npages(&self, maxpages: &Bound<'_, PyAny>) -> PyResult<usize> {
        let maxpages = size("maxpages", maxpages)?;
        Ok(self.lock()?.core.npages(maxpages))
    }

    /// The pages under the next bytes; the iterator moves on (`iov_iter_get_pages2`). Returns a `PageSpan`.
    fn get_pages<'py>(
        &self,
        py: Python<'py>,
        maxsize: &Bound<'_, PyAny>,
        maxpages: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (maxsize, maxpages) = (size("maxsize", maxsize)?, size("maxpages", maxpages)?);
        let span = self.lock()?.core.get_pages(maxsize, maxpages)?;
        to_page_span(py, span)
    }

    /// The pages under the next bytes, listed without taking them; the iterator moves on (`iov_iter_extract_pages`).
    /// Returns a `PageSpan`.
    fn extract_pages<'py>(
        &self,
        py: Python<'py>,
        maxsize: &Bound<'_, PyAny>,
        maxpages: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (maxsize, maxpages) = (size("maxsize", maxsize)?, size("maxpages", maxpages)?);
        let span = self.lock()?.core.extract_pages(maxsize, maxpages)?;
        to_page_span(py, span)
    }

    /// Bytes of the next `nbytes` that could not be faulted in to be read (`fault_in_iov_iter_readable`).
    fn fault_in_readable(&self, nbytes: &Bound<'_, PyAny>) -> PyResult<usize> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(self.lock()?.core.fault_in(nbytes, false))
    }

    /// Bytes of the next `nbytes` that could not be faulted in to be written (`fault_in_iov_iter_writeable`). Contents
    /// stay.
    fn fault_in_writeable(&self, nbytes: &Bound<'_, PyAny>) -> PyResult<usize> {
        let nbytes = size("nbytes", nbytes)?;
        Ok(self.lock()?.core.fault_in(nbytes, true))
    }

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

impl IovIter {
    /// How its memory is shown, also when it has been released since.
    fn shows(slf: &Bound<'_, Self>) -> PyResult<Shows> {
        let this = slf.get();
        Ok(Shows { keeper: this.kept.keeper(slf.py())?, readonly: this.shared.direction() == Direction::Source })
    }

    /// What kind of memory it runs over.
    pub(super) fn kind(&self) -> Kind {
        self.shared.kind()
    }
}

/// How an iterator's memory is shown.
struct Shows {
    keeper: Py<PyAny>,
    readonly: bool,
}

impl Shows {
    /// A memoryview of a piece, kept by its page or by what the iterator was made over.
    fn view<'py>(&self, py: Python<'py>, piece: KeptPiece) -> PyResult<Bound<'py, PyMemoryView>> {
        let KeptPiece { seg, page } = piece;
        match page {
            // A page may have come after the iterator was made, and be read-only.
            Some(page) => {
                let keeper = Keeper::Page(Arc::clone(page.owner()));
                memoryview(py, seg, self.readonly || !page.writable(), keeper)
            }
            None => memoryview(py, seg, self.readonly, Keeper::Object(self.keeper.clone_ref(py))),
        }
    }
}

/// A saved position (`struct iov_iter_state`).
#[pyclass(module = "iovec_rs", name = "IterState", frozen, eq)]
#[derive(Clone, PartialEq, Eq)]
pub(super) struct IterState(iter::IterState);

#[pymethods]
impl IterState {
    /// Offset in the segment that was current.
    #[getter]
    fn iov_offset(&self) -> usize {
        self.0.iov_offset
    }

    /// Bytes that remained.
    #[getter]
    fn count(&self) -> usize {
        self.0.count
    }

    /// Segments that remained.
    #[getter]
    fn nr_segs(&self) -> usize {
        self.0.nr_segs
    }

    fn __repr__(&self) -> String {
        let iter::IterState { iov_offset, count, nr_segs } = self.0;
        format!("IterState(iov_offset={iov_offset}, count={count}, nr_segs={nr_segs})")
    }
}
