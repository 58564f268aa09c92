//! The upper bounds of this machine: it times loads alone and stores alone. Benches show them beside the rates of
//! copies.

use super::{native, store_fence};
use std::time::Instant;

/// Rates in bytes per nanosecond.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// Of loads.
    pub read: f64,
    /// Of stores through the caches.
    pub write: f64,
    /// Of non-temporal stores.
    pub stream: f64,
}

/// The bytes that one loop iteration of an access routine touches.
const BLOCK: usize = 256;

/// A timed round touches at least this many bytes, so that reading the clock does not count.
const ROUND: usize = 4 << 20;
const ROUNDS: usize = 7;

#[derive(Clone, Copy)]
#[repr(align(256))]
struct Block(#[allow(dead_code)] [u8; BLOCK]); // read and written through its address only

/// Measures over a buffer of `nbytes`, rounded up to whole iterations. It passes over the buffer again and again, so
/// the rates are those of the smallest cache that holds it. `None` if this architecture has no access routines, or if
/// there is not enough memory.
pub fn measure(nbytes: usize) -> Option<Limits> {
    let accesses = native::accesses()?;
    let blocks = nbytes.div_ceil(BLOCK).max(1);
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(blocks).ok()?;
    on_huge_pages(memory.as_mut_ptr().expose_provenance(), blocks * BLOCK);
    memory.resize(blocks, Block([1; BLOCK]));
    let (addr, len) = (memory.as_mut_ptr().expose_provenance(), blocks * BLOCK);
    let repeats = ROUND.div_ceil(len);
    let best = accesses.map(|access| {
        let round = || {
            let start = Instant::now();
            for _ in 0..repeats {
                // SAFETY: the range is all of `memory`, a vector of this function to which no reference exists
                // meanwhile: whole, aligned `Block`s, at least one. `native::accesses` chose routines that this CPU can
                // run.
                unsafe { access(addr, len) };
            }
            store_fence();
            start.elapsed().as_secs_f64()
        };
        std::iter::repeat_with(round).take(ROUNDS).fold(f64::INFINITY, f64::min)
    });
    #[allow(clippy::cast_precision_loss)] // a few gigabytes
    let [read, write, stream] = best.map(|seconds| (repeats * len) as f64 / (seconds * 1e9).max(1.0));
    Some(Limits { read, write, stream })
}

/// Asks for huge pages, as the benches do for the memory that they copy: on small pages, page walks set the rate. A
/// refusal changes the rate alone.
fn on_huge_pages(addr: usize, len: usize) {
    const HUGE: usize = 2 << 20;
    let start = addr.next_multiple_of(HUGE);
    let end = (addr + len) / HUGE * HUGE;
    if start < end {
        // SAFETY: the range lies in a reservation that nobody uses yet; the advice changes no contents.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, measure, native};

    #[test]
    fn every_size_can_be_measured() {
        for nbytes in [0, 1, BLOCK, BLOCK + 1, 100_000] {
            let Some(limits) = measure(nbytes) else { continue };
            assert!([limits.read, limits.write, limits.stream].iter().all(|rate| *rate > 0.0), "{limits:?}");
        }
    }

    #[test]
    fn the_accesses_stay_within_their_memory() {
        let Some(accesses) = native::accesses() else { return };
        let mut memory = vec![7_u8; 5 * BLOCK];
        let base = memory.as_mut_ptr().expose_provenance();
        let at = base.next_multiple_of(BLOCK) - base + BLOCK;
        for access in accesses {
            // SAFETY: the range is two aligned blocks inside `memory`, a vector of this test.
            unsafe { access(base + at, 2 * BLOCK) };
        }
        assert!(memory[..at].iter().chain(&memory[at + 2 * BLOCK..]).all(|byte| *byte == 7));
    }
}
