//! The kinds: how each of them implements the operations of every iterator. A new kind is one more variant, and the
//! compiler then names every place to complete: no `match` here has a wildcard arm.
//!
//! The parameter `offset` is the iterator's field: the bytes consumed of the current segment, or, for UBUF and XARRAY,
//! since the start.

mod folioq;
mod pipe;
mod vector;
mod xarray;

pub(in crate::iter) use pipe::PipeCursor;
pub(in crate::iter) use vector::Vector;

use crate::abi::Kind;
use crate::error::{Error, Result};
use crate::iter::pieces::Piece;
use crate::iter::walk::Step;
use crate::memory::{Backing, Memory, Segment};
use folioq::FolioCursor;
use xarray::XarrayCursor;

/// The memory of an iterator, by kind. `repr` keeps the kind in a byte of its own. Otherwise the compiler would encode
/// it in unused values of a field, and each of a call's three matches would take three instructions more.
#[derive(Clone)]
#[repr(u8)]
pub(in crate::iter) enum Body {
    Ubuf(Memory),
    Vector(Vector),
    Pipe(PipeCursor),
    Xarray(XarrayCursor),
    Folioq(FolioCursor),
    Discard,
}

impl From<Vector> for Body {
    fn from(vector: Vector) -> Self {
        Self::Vector(vector)
    }
}

impl From<PipeCursor> for Body {
    fn from(pipe: PipeCursor) -> Self {
        Self::Pipe(pipe)
    }
}

impl From<XarrayCursor> for Body {
    fn from(xarray: XarrayCursor) -> Self {
        Self::Xarray(xarray)
    }
}

impl From<FolioCursor> for Body {
    fn from(folioq: FolioCursor) -> Self {
        Self::Folioq(folioq)
    }
}

/// Properties of a kind's memory.
impl Body {
    pub(in crate::iter) fn kind(&self) -> Kind {
        match self {
            Self::Ubuf(_) => Kind::Ubuf,
            Self::Vector(vector) => vector.kind(),
            Self::Pipe(_) => Kind::Pipe,
            Self::Xarray(_) => Kind::Xarray,
            Self::Folioq(_) => Kind::Folioq,
            Self::Discard => Kind::Discard,
        }
    }

    pub(in crate::iter) fn nr_segs(&self) -> usize {
        match self {
            Self::Ubuf(_) => 1,
            Self::Vector(vector) => vector.nr_segs(),
            Self::Pipe(_) | Self::Xarray(_) | Self::Folioq(_) | Self::Discard => 0,
        }
    }

    pub(in crate::iter) fn backing(&self) -> Backing {
        match self {
            Self::Ubuf(memory) => memory.backing(),
            Self::Vector(vector) => vector.backing(),
            Self::Xarray(xarray) => xarray.backing(),
            Self::Folioq(folioq) => folioq.backing(),
            // A pipe writes only into pages the ring allocated; DISCARD touches no memory.
            Self::Pipe(_) | Self::Discard => Backing::Heap,
        }
    }

    /// The memory ahead, for the kinds where it is one range.
    #[inline]
    pub(in crate::iter) fn one_range(&self, offset: usize) -> Option<Segment> {
        match self {
            Self::Ubuf(memory) => Some(memory.seg().skip(offset)),
            Self::Vector(_) | Self::Pipe(_) | Self::Xarray(_) | Self::Folioq(_) | Self::Discard => None,
        }
    }

    /// A range that covers all of its memory, for the kinds that know one without a search.
    #[inline]
    pub(in crate::iter) fn hull(&self) -> Option<Segment> {
        match self {
            Self::Ubuf(memory) => Some(memory.seg()),
            Self::Vector(vector) => Some(vector.hull()),
            Self::Pipe(_) | Self::Xarray(_) | Self::Folioq(_) | Self::Discard => None,
        }
    }

    /// The length that bounds `iov_iter_single_seg_count`: the rest of the current segment, or the whole current folio.
    /// `None` where only `count` bounds it.
    pub(in crate::iter) fn current_segment(&self, offset: usize) -> Option<usize> {
        match self {
            Self::Vector(vector) => (vector.nr_segs() > 1).then(|| vector.left_of_current(offset)),
            Self::Folioq(folioq) => Some(folioq.current_size()),
            Self::Ubuf(_) | Self::Pipe(_) | Self::Xarray(_) | Self::Discard => None,
        }
    }

    /// The address or position whose low bits decide the alignment; `None` for vectors, where each segment has its own.
    pub(in crate::iter) fn place(&self, offset: usize) -> Option<usize> {
        match self {
            Self::Ubuf(memory) => Some(memory.seg().addr + offset),
            Self::Xarray(xarray) => Some(xarray.start.wrapping_add(offset)),
            Self::Folioq(_) => Some(offset),
            Self::Pipe(pipe) => Some(pipe.0.free_slots().1),
            Self::Vector(_) | Self::Discard => None,
        }
    }

    /// Whether it walks over the pages of a structure that other threads may change at the same time.
    #[inline]
    pub(in crate::iter) fn has_changing_pages(&self) -> bool {
        match self {
            Self::Xarray(_) | Self::Folioq(_) => true,
            Self::Ubuf(_) | Self::Vector(_) | Self::Pipe(_) | Self::Discard => false,
        }
    }

    pub(in crate::iter) fn as_vector(&self) -> Option<&Vector> {
        match self {
            Self::Vector(vector) => Some(vector),
            Self::Ubuf(_) | Self::Pipe(_) | Self::Xarray(_) | Self::Folioq(_) | Self::Discard => None,
        }
    }

    pub(in crate::iter) fn as_vector_mut(&mut self) -> Option<&mut Vector> {
        match self {
            Self::Vector(vector) => Some(vector),
            Self::Ubuf(_) | Self::Pipe(_) | Self::Xarray(_) | Self::Folioq(_) | Self::Discard => None,
        }
    }

    pub(in crate::iter) fn as_pipe(&self) -> Option<&PipeCursor> {
        match self {
            Self::Pipe(pipe) => Some(pipe),
            Self::Ubuf(_) | Self::Vector(_) | Self::Xarray(_) | Self::Folioq(_) | Self::Discard => None,
        }
    }

    pub(in crate::iter) fn as_pipe_mut(&mut self) -> Option<&mut PipeCursor> {
        match self {
            Self::Pipe(pipe) => Some(pipe),
            Self::Ubuf(_) | Self::Vector(_) | Self::Xarray(_) | Self::Folioq(_) | Self::Discard => None,
        }
    }
}

/// Movement.
impl Body {
    /// Walks over the next `nbytes` (not 0) bytes; returns how many of them `step` processed.
    #[inline(always)]
    #[allow(clippy::inline_always)] // for a single range the walk is one call of the step
    pub(in crate::iter) fn walk<S: Step>(
        &mut self,
        offset: &mut usize,
        nbytes: usize,
        writes: bool,
        step: &mut S,
    ) -> usize {
        match self {
            Self::Ubuf(memory) => {
                let done = nbytes - step.step(memory.seg().addr + *offset, 0, nbytes);
                *offset += done;
                done
            }
            Self::Vector(vector) => vector.walk(offset, nbytes, step),
            Self::Pipe(pipe) => pipe.walk(nbytes, step),
            Self::Xarray(xarray) => xarray.walk(offset, nbytes, writes, step),
            Self::Folioq(folioq) => folioq.walk(offset, nbytes, writes, step),
            Self::Discard => nbytes,
        }
    }

    /// Moves forwards by `nbytes` of the `count` bytes that remain.
    pub(in crate::iter) fn advance(&mut self, offset: &mut usize, nbytes: usize, count: usize) -> Result<()> {
        match self {
            Self::Pipe(_) if nbytes > 0 => {
                return Err(Error::invalid("nbytes", nbytes, "0: no slots lie ahead of a pipe iterator"));
            }
            Self::Pipe(_) | Self::Discard => {}
            Self::Ubuf(_) | Self::Xarray(_) => *offset += nbytes,
            Self::Vector(_) | Self::Folioq(_) if count == 0 => {}
            Self::Vector(vector) => vector.advance(offset, nbytes),
            Self::Folioq(folioq) => folioq.advance(offset, nbytes).map_err(|available| {
                Error::invalid("nbytes", nbytes, format!("at most {available}, where the folio queue ends"))
            })?,
        }
        Ok(())
    }

    /// Moves backwards by `nbytes` (not 0); refused if fewer bytes were consumed, with their number.
    pub(in crate::iter) fn revert(&mut self, offset: &mut usize, nbytes: usize) -> Result<()> {
        let done = match self {
            Self::Discard => Ok(()),
            Self::Ubuf(_) | Self::Xarray(_) if nbytes > *offset => Err(*offset),
            Self::Ubuf(_) | Self::Xarray(_) => {
                *offset -= nbytes;
                Ok(())
            }
            Self::Vector(vector) => vector.revert(offset, nbytes),
            Self::Folioq(folioq) => folioq.revert(offset, nbytes),
            Self::Pipe(pipe) => pipe.0.revert(nbytes)?,
        };
        done.map_err(|consumed| Error::BeforeStart { nbytes, consumed })
    }

    /// The bytes from the position to the end of its memory; `usize::MAX` for memory without an end, or that may still
    /// grow.
    pub(in crate::iter) fn available(&self, offset: usize) -> usize {
        match self {
            Self::Ubuf(memory) => memory.len() - offset,
            Self::Vector(vector) => vector.available(offset),
            Self::Xarray(xarray) => usize::MAX - xarray.start - offset,
            Self::Pipe(_) | Self::Folioq(_) | Self::Discard => usize::MAX,
        }
    }

    /// Moves to byte `offset` of the segment at which `nr_segs` segments remain. `Some(false)` if there is no such
    /// place, or fewer than `count` bytes lie ahead of it; `None` for the kinds that cannot seek.
    pub(in crate::iter) fn seek(&mut self, nr_segs: usize, offset: usize, count: usize) -> Option<bool> {
        match self {
            Self::Ubuf(memory) => {
                let len = memory.len();
                Some(nr_segs == 1 && offset <= len && count <= len - offset)
            }
            Self::Vector(vector) => {
                let found = vector.seek(nr_segs, offset).filter(|found| count <= found.available(offset));
                Some(found.map(|found| *vector = found).is_some())
            }
            Self::Pipe(_) | Self::Xarray(_) | Self::Folioq(_) | Self::Discard => None,
        }
    }

    /// Calls `hand_out` with the pieces ahead, until it returns `false` or at least `limit` bytes were given.
    pub(in crate::iter) fn pieces(&self, offset: usize, limit: usize, mut hand_out: impl FnMut(Piece<'_>) -> bool) {
        match self {
            Self::Ubuf(memory) => {
                let seg = memory.seg().skip(offset);
                hand_out(Piece { seg, at: seg.addr, page: None });
            }
            Self::Vector(vector) => {
                for (seg, at) in vector.clipped(offset, limit) {
                    if !hand_out(Piece { seg, at, page: None }) {
                        break;
                    }
                }
            }
            Self::Xarray(xarray) => xarray.pages(offset, limit, |page, skip| hand_out(Piece::of_page(page, skip))),
            Self::Folioq(folioq) => folioq.folios(offset, |folio, skip| hand_out(Piece::of_page(folio, skip))),
            Self::Pipe(_) | Self::Discard => {}
        }
    }
}
