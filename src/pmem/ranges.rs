//! `copy_ranges` whose destinations may need an msync.

use super::flushcache::{Destination, may_need_msync};
use super::summed::durable_part;
use crate::copy::ranges::{self, How, Outcomes, Short};
use crate::error::Result;
use crate::fault::Fault;
use crate::fault::map::shared::KnownBad;
use crate::memory::Memories;

/// `copy_ranges` for any destination: with `how.flush`, the bytes it counts are durable. An error if an msync fails:
/// then no byte counts.
pub fn copy_ranges<K: KnownBad + ?Sized>(
    dst: &Memories,
    src: &Memories,
    how: How<'_, K>,
    on_fault: impl FnMut(&Fault),
) -> Result<Outcomes> {
    let mut destination = Destination::default();
    if how.flush && may_need_msync() {
        for (index, seg) in dst.segs().iter().enumerate() {
            destination.push_to(index, 0, *seg)?;
        }
    }
    let mut outcomes = ranges::copy_ranges(dst, src, how, on_fault)?;
    destination.write_out(|index| outcomes.of(index, dst.segs()[index].len).0)?;
    for piece in &destination.pieces {
        let index = piece.range;
        let (counted, _) = outcomes.of(index, dst.segs()[index].len);
        let (Some(lost), Some(memory)) = (piece.lost(counted)?, dst.get(index)) else { continue };
        let mut crc = how.sums.then_some(0);
        let durable = durable_part(memory, counted, (lost.offset, Some(Box::new(lost))), crc, crc.as_mut())?;
        if let (copied, Some(fault)) = durable {
            outcomes.shorten(counted, Short { index, copied, fault }, crc.unwrap_or(0))?;
        }
    }
    Ok(outcomes)
}
