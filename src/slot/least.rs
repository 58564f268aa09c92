//! The least that a publication and its reading take: the stores, the evictions, the loads, the fences and the two
//! sums, by the same library, over memory of our own. Nothing is staged, because nobody else can change that memory; it
//! bears no fault, and the sums are compared with nothing. Benches show it beside a slot, which has to do more.

use super::DROPPED_WHOLE;
use crate::arch::guard;
use crate::arch::limits::on_huge_pages;
use crate::arch::{self, LINE, WriteBack};
use crate::copy::crc32c;
use std::hint::black_box;

/// How many bytes are copied before they are summed by the first sum, and how many before they are by the second.
const BLOCK: usize = 1536;
const PIECE: usize = 4 * BLOCK;
/// How far ahead evicted memory is prefetched, in bytes.
const AHEAD: usize = 8 << 10;

/// Lines of our own.
struct Lines {
    memory: Vec<u8>,
    /// Where the first line begins.
    start: usize,
}

impl Lines {
    /// So many bytes in whole lines. `None` if there is not enough memory.
    fn new(len: usize) -> Option<Self> {
        let room = len.checked_add(LINE)?;
        let mut memory: Vec<u8> = Vec::new();
        memory.try_reserve_exact(room).ok()?;
        on_huge_pages(memory.as_mut_ptr().expose_provenance(), room);
        memory.resize(room, 1);
        let start = memory.as_ptr().align_offset(LINE);
        Some(Self { memory, start })
    }

    fn bytes(&mut self) -> &mut [u8] {
        let len = self.memory.len() - LINE;
        &mut self.memory[self.start..][..len]
    }
}

/// Memory of its own: what is published, a header line and its data, and where a reader copies them to.
pub struct LeastSlot {
    source: Lines,
    slot: Lines,
    target: Lines,
    eviction: &'static WriteBack,
}

impl LeastSlot {
    /// For `nbytes`, rounded up to whole lines. `None` if this CPU cannot evict lines, or if there is not enough
    /// memory.
    pub fn new(nbytes: usize) -> Option<Self> {
        let len = nbytes.max(1).checked_next_multiple_of(LINE)?;
        let (source, target) = (Lines::new(len)?, Lines::new(len)?);
        Some(Self { source, slot: Lines::new(len.checked_add(LINE)?)?, target, eviction: arch::evict()? })
    }

    /// Stores the data, fences, stores a line with their sums, and fences.
    pub fn publish(&mut self) {
        let set = arch::primitives();
        let (line, data) = self.slot.bytes().split_at_mut(LINE);
        let stream = |to: &mut [u8], from: &[u8]| {
            let (dst, src) = (to.as_mut_ptr().expose_provenance(), from.as_ptr().expose_provenance());
            // SAFETY: the two are slices of memory of our own, which stays accessible, of one length, which is not 0.
            let stop = unsafe { guard::copy_nontemporal(set, dst, src, to.len().min(from.len())) };
            debug_assert!(stop.is_none());
        };
        // The sums of the parts are not even combined.
        let mut sums = (0, 0);
        for (to, from) in data.chunks_mut(PIECE).zip(self.source.bytes().chunks(PIECE)) {
            for (to, from) in to.chunks_mut(BLOCK).zip(from.chunks(BLOCK)) {
                stream(to, from);
                sums.0 ^= crc32c::of_bytes(from);
            }
            sums.1 ^= crc_fast::crc64_nvme(from);
        }
        arch::store_fence();
        let mut header = [0; LINE];
        header[..4].copy_from_slice(&sums.0.to_le_bytes());
        header[4..12].copy_from_slice(&sums.1.to_le_bytes());
        stream(line, &header);
        arch::store_fence();
    }

    /// Evicts the line and reads it, evicts the data with it, copies and sums them, and reads the line again. If it is
    /// no longer than a slot that is evicted as a whole, it evicts once.
    pub fn consume(&mut self) {
        let (set, eviction) = (arch::primitives(), self.eviction);
        let slot = self.slot.bytes();
        let evict = |bytes: &mut [u8]| {
            // SAFETY: these bytes are memory of our own, which stays accessible.
            let stop = unsafe { guard::write_back(eviction, bytes.as_mut_ptr().expose_provenance(), bytes.len()) };
            debug_assert!(stop.is_none());
            arch::full_fence();
        };
        let copy = |to: &mut [u8], from: &[u8]| {
            let (dst, src) = (to.as_mut_ptr().expose_provenance(), from.as_ptr().expose_provenance());
            // SAFETY: the two are slices of memory of our own, which stays accessible, of one length.
            let stop = unsafe { guard::copy(set, dst, src, to.len().min(from.len())) };
            debug_assert!(stop.is_none());
        };
        let mut header = [0; LINE];
        if slot.len() > DROPPED_WHOLE {
            evict(&mut slot[..LINE]);
            copy(&mut header, &slot[..LINE]);
        }
        evict(slot);
        copy(&mut header, &slot[..LINE]);
        let data = &slot[LINE..];
        prefetch(data, 0, AHEAD);
        let (mut sums, mut at) = ((0, 0), 0);
        for (to, from) in self.target.bytes().chunks_mut(PIECE).zip(data.chunks(PIECE)) {
            for (to, from) in to.chunks_mut(BLOCK).zip(from.chunks(BLOCK)) {
                prefetch(data, at + AHEAD, from.len());
                copy(to, from);
                sums.0 ^= crc32c::of_bytes(from);
                at += from.len();
            }
            sums.1 ^= crc_fast::crc64_nvme(from);
        }
        copy(&mut header, &slot[..LINE]);
        black_box((sums, header));
    }
}

/// Prefetches `len` bytes from `at` on, as far as there are so many.
fn prefetch(bytes: &[u8], at: usize, len: usize) {
    let ahead = bytes.get(at..).unwrap_or_default();
    for line in ahead[..len.min(ahead.len())].chunks(LINE) {
        arch::prefetch(line.as_ptr().addr(), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE, LeastSlot, PIECE};

    #[test]
    fn what_is_published_is_consumed() {
        for nbytes in [0, 1, LINE, 4096, PIECE + LINE + 1, 5 * PIECE] {
            let Some(mut least) = LeastSlot::new(nbytes) else { return };
            let len = least.source.bytes().len();
            assert_eq!(len, nbytes.max(1).next_multiple_of(LINE));
            for number in [7, 8] {
                least.source.bytes().fill(number);
                least.publish();
                assert!(least.slot.bytes()[LINE..].iter().all(|byte| *byte == number));
                let header = least.slot.bytes()[..LINE].to_vec();
                assert_ne!(header, [1; LINE], "the line was stored");
                least.consume();
                assert_eq!(least.target.bytes(), vec![number; len]);
                assert_eq!(least.slot.bytes()[..LINE], header);
            }
        }
    }
}
