//! `IovIter` and `IterState`.

use super::buffer::Owners;
use super::collect::{Collected, SegmentList, collect};
use super::copy::raise_if_trusted;
use super::import::IovecArray;
use super::iterate::iterate_and_advance;
use super::structures::{FolioQueue, PipeRing, XArray};
use super::transfer::transfer;
use super::values::{
    Lengths, direction_class, kind_class, optional_size, size, size_or, to_fault, to_page_span, to_user_range,
};
use super::view::{list_of, memoryview};
use crate::abi::{Direction, Kind};
use crate::copy;
use crate::error::Error;
use crate::import::check_range;
use crate::iter::{self, KeptPiece};
use crate::memory::{Backing, Owner, Segment};
use pyo3::PyClassGuardMut;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PyMemoryView, PyType};
use std::sync::Arc;

/// A cursor over scattered memory: Linux's `struct iov_iter`.
///
/// Made by one class method per kind of memory, or by `import_iovec` and its family. `len()` is `count`, the bytes that remain. The
/// memory stays exported while the iterator lives. Every refused operation leaves the iterator as it was.
#[pyclass(module = "iovec_rs", name = "IovIter", weakref)]
pub(super) struct IovIter {
    pub(super) core: iter::IovIter,
    pub(super) owners: Option<Arc<Owners>>,
    /// The first segment that `zero` must not write to.
    pub(super) readonly: Option<usize>,
}

/// An iterator while one call uses it: another call meanwhile is refused.
pub(super) type InUse<'a> = PyClassGuardMut<'a, IovIter>;

impl IovIter {
    fn bare(core: iter::IovIter) -> Self {
        Self { core, owners: None, readonly: None }
    }

    pub(super) fn over(core: iter::IovIter, owners: Arc<Owners>, readonly: Option<usize>) -> Self {
        Self { core, owners: Some(owners), readonly }
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
        let mut collected = Collected::new(direction, 1);
        collected.add(buffer, Some(Lengths::Strict))?;
        collected.check_ranges()?;
        let held = collected.finish();
        let core = iter::IovIter::ubuf(direction, held.only()?, count)?;
        Ok(Self::over(core, held.owners, held.readonly))
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
            return array.get().iterator(direction, count);
        }
        let collected = collect(direction, segments, Some(Lengths::Strict))?;
        collected.check_ranges()?;
        let SegmentList { memories, owners, readonly } = collected.finish();
        let core = iter::IovIter::iovec(direction, memories, count)?;
        Ok(Self::over(core, owners, readonly))
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
        let SegmentList { memories, owners, readonly } = collected.finish();
        let core = iter::IovIter::kvec(direction, memories, count)?;
        Ok(Self::over(core, owners, readonly))
    }

    /// Ranges in pages (`iov_iter_bvec`): `(page, offset, length)` each; `offset + length` may pass one page of the buffer.
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
        let mut collected = Collected::new(direction, 0);
        let mut offsets: Vec<usize> = Vec::new();
        for (index, element) in bvecs.try_iter()?.enumerate() {
            let element = element?;
            let (page, offset, length): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) =
                element.extract().map_err(|_| {
                    PyTypeError::new_err(format!("bvecs[{index}]: expected (page, offset, length), not {element}"))
                })?;
            let (offset, nbytes) = (size("offset", &offset)?, size("length", &length)?);
            let whole = collected.add_buffer(&page)?;
            if offset.checked_add(nbytes).is_none_or(|end| end > whole.len) {
                return Err(Error::BeyondPage { offset, nbytes, len: whole.len }.into());
            }
            collected.segs[index] = Segment::new(whole.addr + offset, nbytes);
            offsets.try_reserve(1).map_err(|_| Error::NoMemory(offsets.len() * size_of::<usize>()))?;
            offsets.push(offset);
        }
        let SegmentList { memories, owners, readonly } = collected.finish();
        let core = iter::IovIter::bvec(direction, memories, offsets.into(), count)?;
        Ok(Self::over(core, owners, readonly))
    }

    /// A pipe to fill (`iov_iter_pipe`). `count` may be more than it can take: copies come out short when it is full.
    #[classmethod]
    fn pipe(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        pipe: &Bound<'_, PipeRing>,
        count: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        Ok(Self::bare(iter::IovIter::pipe(direction, Arc::clone(&pipe.get().0), size("count", count)?)?))
    }

    /// The pages of an `XArray` from byte position `start` on (`iov_iter_xarray`). A hole ends a transfer.
    #[classmethod]
    fn xarray(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        xarray: &Bound<'_, XArray>,
        start: &Bound<'_, PyAny>,
        count: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        let (start, count) = (size("start", start)?, size("count", count)?);
        let core = iter::IovIter::xarray(direction, Arc::clone(&xarray.get().0), start, count)?;
        if direction == Direction::Dest {
            core.require_writable(count)?;
        }
        Ok(Self::bare(core))
    }

    /// A `FolioQueue` from `offset` bytes into folio `first_slot` on (`iov_iter_folio_queue`). The end of the queue ends a transfer.
    #[classmethod]
    fn folioq(
        _class: &Bound<'_, PyType>,
        direction: &Bound<'_, PyAny>,
        queue: &Bound<'_, FolioQueue>,
        first_slot: &Bound<'_, PyAny>,
        offset: &Bound<'_, PyAny>,
        count: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let direction = super::values::direction("direction", direction)?;
        let (slot, offset, count) = (size("first_slot", first_slot)?, size("offset", offset)?, size("count", count)?);
        let core = iter::IovIter::folioq(direction, Arc::clone(&queue.get().0), slot, offset, count)?;
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
    fn kind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        kind_class(py)?.call1((self.core.kind().to_string(),))
    }

    /// What it is in a transfer: a `Direction`.
    #[getter]
    fn direction<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        direction_class(py)?.call1((self.core.direction() as u8,))
    }

    /// Bytes that remain to be transferred.
    #[getter]
    fn count(&self) -> usize {
        self.core.count()
    }

    /// Bytes consumed of the current segment; of all for UBUF and XARRAY; PIPE: where the newest slot ends in its page.
    #[getter]
    fn iov_offset(&self) -> usize {
        self.core.iov_offset()
    }

    /// Segments that remain, the current one included; 0 for the kinds that do not count them.
    #[getter]
    fn nr_segs(&self) -> usize {
        self.core.nr_segs()
    }

    /// Why the last copy through this iterator came out short: a `Fault`, or `None` if bad memory was not the reason.
    #[getter]
    fn fault<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.core.fault.as_deref().map(|fault| to_fault(py, fault)).transpose()
    }

    fn __len__(&self) -> usize {
        self.core.count()
    }

    fn __bool__(&self) -> bool {
        self.core.count() != 0
    }

    fn __repr__(&self) -> String {
        let direction = if self.core.direction() == Direction::Dest { "READ" } else { "WRITE" };
        let (kind, count) = (self.core.kind(), self.core.count());
        let (offset, nr_segs) = (self.core.iov_offset(), self.core.nr_segs());
        format!("<IovIter {kind} {direction} count={count} iov_offset={offset} nr_segs={nr_segs}>")
    }

    /// Moves on by `nbytes`, at most to the end (`iov_iter_advance`). Steps over empty segments, also when `nbytes` is 0.
    fn advance(&mut self, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        Ok(self.core.advance(size("nbytes", nbytes)?)?)
    }

    /// Moves back by `nbytes` (`iov_iter_revert`). ValueError before the start. On a PIPE the bytes are gone.
    fn revert(&mut self, nbytes: &Bound<'_, PyAny>) -> PyResult<()> {
        Ok(self.core.revert(size("nbytes", nbytes)?)?)
    }

    /// Lowers `count` to the given one if it is above (`iov_iter_truncate`). The position stays.
    fn truncate(&mut self, count: &Bound<'_, PyAny>) -> PyResult<()> {
        self.core.truncate(size("count", count)?);
        Ok(())
    }

    /// Sets `count`, to give back what a truncation took (`iov_iter_reexpand`). ValueError beyond the segments.
    fn reexpand(&mut self, count: &Bound<'_, PyAny>) -> PyResult<()> {
        Ok(self.core.reexpand(size("count", count)?)?)
    }

    /// The position, to come back to (`iov_iter_save_state`).
    fn save_state(&self) -> IterState {
        IterState(self.core.save_state())
    }

    /// Goes to a saved position, backwards or forwards (`iov_iter_restore`). UBUF, IOVEC, KVEC and BVEC only.
    fn restore(&mut self, state: &IterState) -> PyResult<()> {
        Ok(self.core.restore(state.0)?)
    }

    /// A second cursor over the same memory from here on (`dup_iter`). It cannot be reverted to before this point.
    fn dup(&self) -> PyResult<Self> {
        Ok(Self { core: self.core.dup()?, owners: self.owners.clone(), readonly: self.readonly })
    }

    /// Zeroes the next `nbytes` (all by default) and returns how many (`iov_iter_zero`). Goes by the memory, not by the direction: the
    /// source of a WRITE iterator is zeroed too, unless it is read-only.
    #[pyo3(signature = (nbytes=None))]
    fn zero(&mut self, py: Python<'_>, nbytes: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let nbytes = size_or("nbytes", nbytes, self.core.count())?;
        self.require_writable()?;
        let core = &mut self.core;
        // SAFETY: `require_writable` refused memory that is not to be written to.
        let zeroed = transfer(py, nbytes.min(core.count()), || unsafe { copy::zero(core, nbytes) })?;
        raise_if_trusted(py, core, zeroed)?;
        Ok(zeroed)
    }

    /// Bytes before the end of the current segment (`iov_iter_single_seg_count`). May be 0 with more to come.
    fn single_seg_count(&self) -> usize {
        self.core.single_seg_count()
    }

    /// The OR of every address and length to be transferred (`iov_iter_alignment`).
    fn alignment(&self) -> usize {
        self.core.alignment()
    }

    /// Whether no address has a bit of `addr_mask` and no length one of `len_mask` (`iov_iter_is_aligned`).
    fn is_aligned(&self, addr_mask: &Bound<'_, PyAny>, len_mask: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.core.is_aligned(size("addr_mask", addr_mask)?, size("len_mask", len_mask)?))
    }

    /// The OR of an IOVEC's inner boundaries (`iov_iter_gap_alignment`): 0 if it joins without gaps. 0xffffffff for other kinds but UBUF.
    fn gap_alignment(&self) -> usize {
        self.core.gap_alignment()
    }

    /// Pages that the remaining pieces touch, at most `maxpages` (`iov_iter_npages`).
    fn npages(&self, maxpages: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(self.core.npages(size("maxpages", maxpages)?))
    }

    /// The pages under the next bytes; the iterator moves on (`iov_iter_get_pages2`). Returns a `PageSpan`.
    fn get_pages<'py>(
        &mut self,
        py: Python<'py>,
        maxsize: &Bound<'_, PyAny>,
        maxpages: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        to_page_span(py, self.core.get_pages(size("maxsize", maxsize)?, size("maxpages", maxpages)?)?)
    }

    /// The pages under the next bytes, listed without taking them; the iterator moves on (`iov_iter_extract_pages`). Returns a
    /// `PageSpan`.
    fn extract_pages<'py>(
        &mut self,
        py: Python<'py>,
        maxsize: &Bound<'_, PyAny>,
        maxpages: &Bound<'_, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        to_page_span(py, self.core.extract_pages(size("maxsize", maxsize)?, size("maxpages", maxpages)?)?)
    }

    /// Bytes of the next `nbytes` that could not be faulted in to be read (`fault_in_iov_iter_readable`).
    fn fault_in_readable(&self, nbytes: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(self.core.fault_in(size("nbytes", nbytes)?, false))
    }

    /// Bytes of the next `nbytes` that could not be faulted in to be written (`fault_in_iov_iter_writeable`). Contents stay.
    fn fault_in_writeable(&self, nbytes: &Bound<'_, PyAny>) -> PyResult<usize> {
        Ok(self.core.fault_in(size("nbytes", nbytes)?, true))
    }

    /// What remains, clipped to `count`: a `UserRange` for each non-empty segment, page of an XArray (to the first hole) or folio.
    fn ranges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let pieces = self.core.kept_pieces(self.core.count(), usize::MAX)?;
        list_of(py, pieces, |piece| to_user_range(py, piece.seg))
    }

    /// What remains as memoryviews, at most the first `maxsegs` segments and `nbytes` bytes of it: writable for a destination,
    /// read-only over pages that are. They keep the memory exported. TypeError over a `UserRange`.
    #[pyo3(signature = (maxsegs=None, nbytes=None))]
    fn views<'py>(
        &self,
        py: Python<'py>,
        maxsegs: Option<&Bound<'py, PyAny>>,
        nbytes: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (maxsegs, nbytes) = (size_or("maxsegs", maxsegs, usize::MAX)?, size_or("nbytes", nbytes, usize::MAX)?);
        self.require_views("views")?;
        let shows = self.shows();
        list_of(py, self.core.kept_pieces(nbytes, maxsegs)?, |piece| Ok(shows.view(py, piece)?.into_any()))
    }

    /// Calls `step(view, progress)` with a memoryview of each contiguous chunk of the next `nbytes` bytes (clipped to `count`), and
    /// moves on by the bytes processed, which it returns: the kernel's `iterate_and_advance`, to write a copy of one's own.
    ///
    /// `progress` is how many bytes came before. A chunk is a segment; a page where memory comes in pages. It is read-only for a WRITE
    /// iterator, and released after the step. The step returns how many of its bytes it did not process (None: 0), which ends the walk;
    /// ValueError for a number outside the chunk. If it raises, the iterator has moved by what earlier steps processed. The iterator
    /// cannot be used meanwhile: `RuntimeError`. `TypeError` over a `UserRange`, PIPE or DISCARD.
    fn iterate_and_advance(
        slf: &Bound<'_, Self>,
        nbytes: &Bound<'_, PyAny>,
        step: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let nbytes = size("nbytes", nbytes)?;
        let mut this = slf.try_borrow_mut()?;
        this.require_views("iterate_and_advance")?;
        if this.core.direction() == Direction::Dest {
            this.core.require_writable(nbytes)?;
        }
        let shows = this.shows();
        iterate_and_advance(&mut this.core, nbytes, step, |py, chunk| shows.view(py, chunk))
    }

    /// What is left of the current segment (`iter_iov_addr`, `iter_iov_len`), clipped to `count`: a `UserRange`. Of an XARRAY it is the
    /// current page, of a FOLIOQ the folio. It is empty where the position rests at the end of a segment, with more to come: `advance(0)`
    /// steps over that. None at the end of all, at a hole, and for PIPE and DISCARD.
    fn segment<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.core.segment().map(|seg| to_user_range(py, seg)).transpose()
    }

    /// Calls `callback` with a memoryview of each piece of the next `nbytes` (`iov_iter_for_each_range`) and returns what the last call
    /// returned, 0 for `None`. Kernel-backed kinds; not clipped to `count`; does not move the iterator.
    fn for_each_range<'py>(
        slf: &Bound<'py, Self>,
        nbytes: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let nbytes = size("nbytes", nbytes)?;
        let (pieces, shows) = {
            // The callback may use the iterator: it is not borrowed meanwhile.
            let this = slf.try_borrow()?;
            (this.core.callback_ranges(nbytes)?, this.shows())
        };
        let mut last = py.None().into_bound(py);
        for piece in pieces {
            last = callback.call1((shows.view(py, piece)?,))?;
        }
        if last.is_none() { Ok(PyInt::new(py, 0).into_any()) } else { Ok(last) }
    }
}

impl IovIter {
    /// Refuses memory that no memoryview can show.
    fn require_views(&self, operation: &str) -> PyResult<()> {
        match self.core.kind() {
            Kind::Pipe | Kind::Discard => Err(PyTypeError::new_err(format!(
                "{operation}: no memory lies ahead of a {} iterator",
                self.core.kind()
            ))),
            Kind::Ubuf | Kind::Iovec if self.core.backing() == Backing::Unchecked => {
                Err(PyTypeError::new_err(format!("{operation}: a UserRange cannot be shown as a memoryview")))
            }
            Kind::Ubuf | Kind::Iovec | Kind::Kvec | Kind::Bvec | Kind::Xarray | Kind::Folioq => Ok(()),
        }
    }

    fn shows(&self) -> Shows {
        Shows { owners: self.owners.clone(), readonly: self.core.direction() == Direction::Source }
    }
}

/// How an iterator's memory is shown.
struct Shows {
    owners: Option<Arc<Owners>>,
    readonly: bool,
}

impl Shows {
    /// A memoryview of a piece, kept by its page or by what the iterator was made over.
    fn view<'py>(&self, py: Python<'py>, piece: KeptPiece) -> PyResult<Bound<'py, PyMemoryView>> {
        let KeptPiece { seg, page } = piece;
        match (page, &self.owners) {
            // A page may have come after the iterator was made, and be read-only.
            (Some(page), _) => memoryview(py, seg, self.readonly || !page.writable(), Arc::clone(page.owner())),
            (None, Some(owners)) => memoryview(py, seg, self.readonly, Arc::clone(owners) as Owner),
            (None, None) => Err(PyTypeError::new_err("no memory to show")),
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

impl IovecArray {
    /// An iterator over an imported array, which both then own.
    fn iterator(&self, direction: Direction, count: Option<usize>) -> PyResult<IovIter> {
        if let (Direction::Dest, Some(index)) = (direction, self.readonly) {
            return Err(Error::ReadOnly { what: "segment", index }.into());
        }
        let memories = self.memories.clone();
        memories.segs().iter().enumerate().try_for_each(|(index, seg)| check_range(index, *seg))?;
        let core = iter::IovIter::iovec(direction, memories, count)?;
        debug_assert_eq!(core.kind(), Kind::Iovec);
        Ok(IovIter::over(core, Arc::clone(&self.owners), self.readonly))
    }
}
