//! Making stores durable in any memory, by the step that each part of it needs.

use super::mapping::{beside_guards, msync_failed};
use crate::copy::{Outcome, flushcache};
use crate::error::Result;
use crate::fault::shelter::Mark;
use crate::fault::{Fault, Side};
use crate::memory::{Memory, Segment};
use crate::sys::shared_mapping::{self, Caller};

/// Whether [`persist`] blocks on a medium, because a part of the range is in a region that needs an msync. `true` also
/// if there is no memory to find out.
pub fn needs_msync(range: Memory) -> bool {
    shared_mapping::overlapping(range.seg()).map_or(true, |found| found.iter().any(|mapping| mapping.needs_msync()))
}

/// Makes the stores to a range durable: with an msync where it lies in a region that needs one, and by writing back
/// cache lines elsewhere. Returns how many bytes from its start on are durable, with the fault if not all are. An error
/// if a write-back of such a region has failed that this function has not reported to this thread yet.
pub fn persist(range: Memory) -> Result<Outcome> {
    let mark = Mark::now();
    Ok(beside_guards(mark, range.seg(), persist_parts(range)?))
}

fn persist_parts(range: Memory) -> Result<Outcome> {
    let whole = range.seg();
    let mut mappings = shared_mapping::overlapping(whole)?;
    mappings.retain(|mapping| mapping.needs_msync());
    for mapping in &mappings {
        let part = mapping.part_of(whole);
        mapping.sync(Caller::PmemPersist, part).map_err(|errno| msync_failed(part.len, errno))?;
        let held = mapping.held_by_file(part).map_err(|errno| msync_failed(part.len, errno))?;
        if held < part.len {
            let done = part.addr + held - whole.addr;
            let lost = Segment::new(part.addr + held, part.len - held);
            return Ok((done, Some(Box::new(Fault::truncated(Side::Destination, lost, done)))));
        }
    }
    for part in shared_mapping::outside(whole, &mappings) {
        let at = part.addr - whole.addr;
        let (done, fault) = flushcache::persist(range.skip(at).take(part.len))?;
        if let Some(mut fault) = fault {
            fault.offset += at;
            return Ok((at + done, Some(fault)));
        }
    }
    Ok((whole.len, None))
}
