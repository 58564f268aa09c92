//! Translating a list of bad bytes from one address space to another: from a device to a partition, to a file, to a
//! mapping.

use crate::error::{Error, Result};
use crate::fault::map::{Access, FaultMap};

/// A contiguous range of bytes that two address spaces share: a disk and a file on it, or a file and a mapping of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Their start in the address space that the map describes.
    pub from: usize,
    /// Their start in the other one.
    pub to: usize,
    /// Their number.
    pub len: usize,
}

/// The parts of the map that lie in the pieces, at the addresses of the other address space. Incomplete if the map is.
pub fn moved(map: &FaultMap, pieces: impl IntoIterator<Item = Piece>) -> Result<FaultMap> {
    let mut out = FaultMap::new();
    for Piece { from, to, len } in pieces {
        for range in map.within(from, len as u128) {
            let (start, length) = (to as u128 + (range.start - from) as u128, range.length());
            let start = usize::try_from(start).map_err(|_| Error::BeyondLine { start: to, length: len as u128 })?;
            out.add(start, length, range.access)?;
        }
    }
    if map.is_incomplete() {
        out.set_incomplete();
    }
    Ok(out)
}

/// The map with every range widened to whole granules, bad for reads and writes.
pub(super) fn widened(map: &FaultMap, granule: usize) -> Result<FaultMap> {
    let mut out = FaultMap::new();
    for range in map.iter() {
        let start = range.start - range.start % granule;
        let last = range.last - range.last % granule + (granule - 1);
        out.add(start, (last - start) as u128 + 1, Access::Both)?;
    }
    if map.is_incomplete() {
        out.set_incomplete();
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{Piece, moved, widened};
    use crate::fault::map::{Access, FaultMap};

    fn map(ranges: &[(usize, u128)]) -> FaultMap {
        let mut map = FaultMap::new();
        for (start, len) in ranges {
            map.add(*start, *len, Access::Read).unwrap();
        }
        map
    }

    #[test]
    fn ranges_are_cut_to_the_pieces_and_moved_with_them() {
        let device = map(&[(90, 20), (300, 5), (1000, 1)]);
        let pieces = [Piece { from: 100, to: 0, len: 50 }, Piece { from: 302, to: 50, len: 10 }];
        assert_eq!(moved(&device, pieces).unwrap(), map(&[(0, 10), (50, 3)]));
        assert_eq!(moved(&device, []).unwrap(), FaultMap::new());
    }

    #[test]
    fn two_pieces_may_share_a_stretch() {
        let pieces = [Piece { from: 0, to: 100, len: 10 }, Piece { from: 0, to: 500, len: 10 }];
        assert_eq!(moved(&map(&[(5, 2)]), pieces).unwrap(), map(&[(105, 2), (505, 2)]));
    }

    #[test]
    fn a_piece_that_would_end_past_the_last_address_is_refused() {
        let far = |to| moved(&map(&[(8, 4)]), [Piece { from: 0, to, len: 20 }]);
        assert!(far(usize::MAX - 11).is_ok());
        assert!(far(usize::MAX - 10).is_err());
        assert!(far(usize::MAX).is_err());
        assert!(moved(&map(&[(8, 1)]), [Piece { from: 0, to: usize::MAX - 7, len: 9 }]).is_err());
    }

    #[test]
    fn an_incomplete_list_stays_incomplete() {
        let mut device = map(&[(0, 1)]);
        device.set_incomplete();
        assert!(moved(&device, []).unwrap().is_incomplete());
        assert!(widened(&device, 4096).unwrap().is_incomplete());
    }

    #[test]
    fn whole_granules_are_bad_for_both_kinds_of_access() {
        let wide = widened(&map(&[(4095, 2), (9000, 1)]), 4096).unwrap();
        let mut expected = FaultMap::new();
        expected.add(0, 3 * 4096, Access::Both).unwrap();
        assert_eq!(wide, expected);
        let last = widened(&map(&[(usize::MAX, 1)]), 4096).unwrap();
        assert_eq!(last.iter().next().map(|range| range.last), Some(usize::MAX));
    }
}
