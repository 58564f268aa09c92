//! The least that a publication and its reading take: the stores, the evictions, the loads, the fences and the two
//! sums, by the same library, over memory of our own. Each byte that somebody else may change is loaded once, so that
//! the sums are of the bytes stored. It bears no fault, and the sums are neither combined nor compared with anything.
//! Benches show it beside a slot, which has to do more.

use super::DROPPED_WHOLE;
use crate::arch::guard;
use crate::arch::limits::filled;
use crate::arch::{self, LINE, Primitives, WriteBack};
use crate::copy::{BLOCK, SUMMED_AT_ONCE, crc32c};
use std::hint::black_box;

/// How far ahead evicted memory is prefetched, in bytes. Without a buffer between, 4 KiB take up to 7 % longer.
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
        let memory = filled(len.checked_add(LINE)?, 1_u8)?;
        let start = memory.as_ptr().align_offset(LINE);
        Some(Self { memory, start })
    }

    fn bytes(&mut self) -> &mut [u8] {
        let len = self.memory.len() - LINE;
        &mut self.memory[self.start..][..len]
    }
}

/// Memory of its own: what is published, where it is between its load and its store, a header line and its data, and
/// where a reader copies them to.
pub struct LeastSlot {
    source: Lines,
    stage: Lines,
    slot: Lines,
    target: Lines,
    eviction: &'static WriteBack,
}

impl LeastSlot {
    /// For `nbytes`, rounded up to whole lines. `None` if this CPU cannot evict lines, or if there is not enough
    /// memory.
    pub fn new(nbytes: usize) -> Option<Self> {
        let len = nbytes.max(1).checked_next_multiple_of(LINE)?;
        let (source, stage, target) = (Lines::new(len)?, Lines::new(SUMMED_AT_ONCE)?, Lines::new(len)?);
        Some(Self { source, stage, slot: Lines::new(len.checked_add(LINE)?)?, target, eviction: arch::evict()? })
    }

    /// Stores the data, fences, stores a line with their sums, and fences. The data are taken to be in the caches.
    pub fn publish(&mut self) {
        let set = arch::primitives();
        let (line, data) = self.slot.bytes().split_at_mut(LINE);
        let stream = |to: &mut [u8], from: &[u8]| {
            let (dst, src) = (to.as_mut_ptr().expose_provenance(), from.as_ptr().expose_provenance());
            // SAFETY: the two are slices of memory of our own, which stays accessible, of one length, which is not 0.
            let stop = unsafe { guard::copy_nontemporal(set, dst, src, to.len().min(from.len())) };
            debug_assert!(stop.is_none());
        };
        let mut sums = (0, 0);
        for (to, from) in data.chunks_mut(SUMMED_AT_ONCE).zip(self.source.bytes().chunks(SUMMED_AT_ONCE)) {
            let stage = &mut self.stage.bytes()[..from.len()];
            for ((to, from), own) in to.chunks_mut(BLOCK).zip(from.chunks(BLOCK)).zip(stage.chunks_mut(BLOCK)) {
                copy(set, own, from);
                stream(to, own);
                sums.0 ^= crc32c::of_bytes(own);
            }
            sums.1 ^= crc_fast::crc64_nvme(stage);
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
        let mut header = [0; LINE];
        if slot.len() > DROPPED_WHOLE {
            evict(&mut slot[..LINE]);
            copy(set, &mut header, &slot[..LINE]);
        }
        evict(slot);
        copy(set, &mut header, &slot[..LINE]);
        let data = &slot[LINE..];
        prefetch(data, 0, AHEAD);
        let (mut sums, mut at) = ((0, 0), 0);
        for (to, from) in self.target.bytes().chunks_mut(SUMMED_AT_ONCE).zip(data.chunks(SUMMED_AT_ONCE)) {
            for (to, from) in to.chunks_mut(BLOCK).zip(from.chunks(BLOCK)) {
                prefetch(data, at + AHEAD, from.len());
                copy(set, to, from);
                sums.0 ^= crc32c::of_bytes(to);
                at += from.len();
            }
            sums.1 ^= crc_fast::crc64_nvme(to);
        }
        copy(set, &mut header, &slot[..LINE]);
        black_box((sums, header));
    }
}

/// Copies through the caches.
#[inline(always)]
#[allow(clippy::inline_always)] // once per block
fn copy(set: &Primitives, to: &mut [u8], from: &[u8]) {
    let (dst, src) = (to.as_mut_ptr().expose_provenance(), from.as_ptr().expose_provenance());
    // SAFETY: the two are slices of memory of our own, which stays accessible, and do not overlap.
    let stop = unsafe { guard::copy(set, dst, src, to.len().min(from.len())) };
    debug_assert!(stop.is_none());
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
    use super::{LINE, LeastSlot, SUMMED_AT_ONCE};

    #[test]
    fn what_is_published_is_consumed() {
        for nbytes in [0, 1, LINE, 4096, SUMMED_AT_ONCE + LINE + 1, 5 * SUMMED_AT_ONCE] {
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
