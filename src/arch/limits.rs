//! What this machine does at most: loads alone and stores alone, timed. For benches, which draw it beside what copies
//! do.

use super::{native, store_fence};
use std::time::Instant;

/// Bytes in a nanosecond.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// Loaded.
    pub read: f64,
    /// Stored, through the caches.
    pub write: f64,
    /// Stored past them.
    pub stream: f64,
}

/// Bytes of a turn of the accesses.
const TURN: usize = 256;

/// Bytes of a round, at the least: so that the clock's own time is nothing.
const ROUND: usize = 4 << 20;
const ROUNDS: usize = 7;

#[derive(Clone, Copy)]
#[repr(align(256))]
struct Turn(#[allow(dead_code)] [u8; TURN]); // the accesses take its address

/// Over so many bytes, again and again: in whichever cache keeps them. `None` where the instructions are not known, or
/// there is no memory for it.
pub fn measure(nbytes: usize) -> Option<Limits> {
    let accesses = native::accesses()?;
    let turns = nbytes.div_ceil(TURN).max(1);
    let mut memory: Vec<Turn> = Vec::new();
    memory.try_reserve_exact(turns).ok()?;
    memory.resize(turns, Turn([1; TURN]));
    let (addr, len) = (memory.as_mut_ptr().expose_provenance(), turns * TURN);
    let repeats = ROUND.div_ceil(len);
    let best = accesses.map(|access| {
        let round = || {
            let start = Instant::now();
            for _ in 0..repeats {
                // SAFETY: the memory is this function's own, not referred to meanwhile, and whole turns at a turn's
                // boundary; the CPU was asked which instructions it has.
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

#[cfg(test)]
mod tests {
    use super::{TURN, measure, native};

    #[test]
    fn every_size_can_be_measured() {
        for nbytes in [0, 1, TURN, TURN + 1, 100_000] {
            let Some(limits) = measure(nbytes) else { continue };
            assert!([limits.read, limits.write, limits.stream].iter().all(|rate| *rate > 0.0), "{limits:?}");
        }
    }

    #[test]
    fn the_accesses_stay_within_their_memory() {
        let Some(accesses) = native::accesses() else { return };
        let mut memory = vec![7_u8; 5 * TURN];
        let base = memory.as_mut_ptr().expose_provenance();
        let at = base.next_multiple_of(TURN) - base + TURN;
        for access in accesses {
            // SAFETY: two turns, at a turn's boundary, in memory of this test's own.
            unsafe { access(base + at, 2 * TURN) };
        }
        assert!(memory[..at].iter().chain(&memory[at + 2 * TURN..]).all(|byte| *byte == 7));
    }
}
