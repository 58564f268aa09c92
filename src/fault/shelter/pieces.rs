//! What is mapped now where extents were put under zeroes.
//!
//! Code in a guard's block may lock a part of a mapping, protect it, unmap it or map something else there. Each splits
//! the zeroes, and only what is still zeroes of a guard may be mapped over.

use super::extents::{self, Extent};
use super::turn::{InTurn, Turn, text};
use crate::memory::Segment;
use crate::sys::maps::{List, Mapping};
use crate::sys::remap;

/// The process's mappings, for whoever has the turn.
pub(super) struct Pieces<'t> {
    turn: &'t mut Turn,
    /// Opened when it is first asked.
    list: Option<Result<List, i32>>,
    /// Whether all mappings were looked through for zeroes that are in no extent's place.
    is_looked_through: bool,
}

impl InTurn for Pieces<'_> {}

/// A part of an extent that is still under its zeroes.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) seg: Segment,
    /// How far the mapping that it is in goes on behind it.
    pub(super) rest: usize,
}

fn is_of_zeroes(mapping: &Mapping<'_>) -> bool {
    mapping.is_called(remap::ZEROES) && mapping.offset == mapping.seg.addr as u64
}

impl<'t> Pieces<'t> {
    pub(super) fn new(turn: &'t mut Turn) -> Self {
        Self { turn, list: None, is_looked_through: false }
    }

    pub(super) fn turn(&self) -> &Turn {
        self.turn
    }

    /// The mapping that an address is in, or else the next one. An error if `/proc` does not tell.
    fn from(&mut self, address: usize) -> Result<Option<Mapping<'_>>, i32> {
        let list = self.list.get_or_insert_with(List::kept_open).as_mut().map_err(|errno| *errno)?;
        list.from(address, text(self.turn))
    }

    /// The mapping that an address is in.
    pub(super) fn at(&mut self, address: usize) -> Option<Mapping<'_>> {
        self.from(address).ok().flatten().filter(|mapping| mapping.seg.addr <= address)
    }

    /// The first part of an extent, from an address on, that is under its zeroes. An error if that is not known.
    pub(super) fn next(&mut self, extent: &Extent, mut from: usize) -> Result<Option<Piece>, i32> {
        if !extent.is_marked {
            return Err(libc::ENOENT);
        }
        let end = extent.seg.end();
        while from < end {
            let Some(mapping) = self.from(from)? else { break };
            let (start, stop) = (mapping.seg.addr.max(from), mapping.seg.end());
            if start < end && is_of_zeroes(&mapping) {
                let seg = Segment::new(start, stop.min(end) - start);
                return Ok(Some(Piece { seg, rest: stop - seg.end() }));
            }
            from = stop;
        }
        Ok(None)
    }

    /// Whether something else than an extent's zeroes is known to be mapped at an address in it.
    pub(super) fn is_replaced(&mut self, extent: &Extent, address: usize) -> bool {
        let is_there = |piece: Piece| piece.seg.addr <= address;
        extent.is_replaced || self.next(extent, address).is_ok_and(|piece| !piece.is_some_and(is_there))
    }

    /// How many bytes of zeroes are in no extent's place: the block moved their mapping (`mremap`). Once; then 0.
    pub(super) fn elsewhere(&mut self) -> Result<usize, i32> {
        let (mut bytes, mut from) = (0, 0);
        while !self.is_looked_through
            && let Some(mapping) = self.from(from)?
        {
            let (seg, is_in_place) = (mapping.seg, is_of_zeroes(&mapping));
            // One that was not stored to has its new address for an offset.
            let is_called_so = mapping.is_called(remap::ZEROES) && mapping.offset != 0;
            if is_called_so && !(is_in_place && extents::is_any_in(seg, self.turn)) {
                bytes += seg.len;
            }
            from = seg.end();
        }
        self.is_looked_through = true;
        Ok(bytes)
    }
}
