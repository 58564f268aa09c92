//! Overlapping sources and destinations: every transfer ends as if the source had been read before anything was written.

use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::memory::Segment;

/// Memory of our own to read ahead into. Never initialised: only what was read into it is read from it.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn new(len: usize) -> Result<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(len).map_err(|_| Error::NoMemory(len))?;
        Ok(Self(memory))
    }

    pub(super) fn addr(&mut self) -> usize {
        self.0.as_mut_ptr().expose_provenance()
    }
}

/// Whether copying between `flat` and the next bytes of `i` could overwrite a source byte before it is read. One front-to-back copy to a
/// lower address cannot.
#[inline]
pub(super) fn must_read_ahead(i: &IovIter, flat: Segment, direction: Direction) -> bool {
    i.overlaps(flat, flat.len) && !is_one_range_moved_down(i, flat, direction)
}

#[cold]
fn is_one_range_moved_down(i: &IovIter, flat: Segment, direction: Direction) -> bool {
    match (i.kind(), i.hull(), direction) {
        (Kind::Ubuf, Some(seg), Direction::Dest) => seg.addr + i.iov_offset() <= flat.addr,
        (Kind::Ubuf, Some(seg), Direction::Source) => flat.addr <= seg.addr + i.iov_offset(),
        _ => false,
    }
}

/// Whether the next `nbytes` bytes of the two have a byte in common.
pub(super) fn shared(a: &IovIter, b: &IovIter, nbytes: usize) -> bool {
    if let (Some(a), Some(b)) = (a.hull(), b.hull())
        && !a.overlaps(b)
    {
        return false;
    }
    let ends = |i: &IovIter, owner: bool| {
        let mut pieces = Vec::new();
        i.pieces(nbytes, |piece| {
            pieces.push((piece.seg, owner));
            std::ops::ControlFlow::Continue(())
        });
        pieces
    };
    let mut pieces = ends(a, true);
    pieces.extend(ends(b, false));
    pieces.sort_unstable_by_key(|(seg, _)| seg.addr);
    let mut reach = [0_usize; 2];
    pieces.iter().any(|(seg, owner)| {
        let met = seg.addr < reach[usize::from(!owner)];
        let mine = &mut reach[usize::from(*owner)];
        *mine = (*mine).max(seg.end());
        met
    })
}
