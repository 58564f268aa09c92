//! The upper bounds of this machine: it times loads alone and stores alone, and has the fastest copy from memory to
//! memory that is known. Benches show them beside the rates of copies.

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

/// A copy of the caller's own memory by non-temporal stores, without a fence. The ranges do not overlap, begin on line
/// boundaries, and are a multiple of 64 bytes long.
pub type Copying = unsafe fn(dst: usize, src: usize, len: usize);

/// The fastest one that is known for this CPU, if that is not this package's own. It bears no fault and does not count.
pub fn copying() -> Option<Copying> {
    native::copying()
}

/// Memory of its own, and [`copying`] to copy one half of it to the other.
pub struct LeastCopy {
    memory: Vec<Block>,
    copying: Copying,
}

impl LeastCopy {
    /// For `nbytes`, rounded up to whole blocks. `None` if no such copy is known, or if there is not enough memory.
    pub fn new(nbytes: usize) -> Option<Self> {
        let copying = copying()?;
        let memory = filled(nbytes.div_ceil(BLOCK).max(1).checked_mul(2)?, Block([1; BLOCK]))?;
        Some(Self { memory, copying })
    }

    /// Copies it once, in pieces of `nbytes`, rounded up to whole blocks, with a fence behind each.
    pub fn run(&mut self, nbytes: usize) {
        let (len, src) = (self.memory.len() / 2 * BLOCK, self.memory.as_mut_ptr().expose_provenance());
        let piece = nbytes.clamp(1, len).next_multiple_of(BLOCK);
        for at in (0..len).step_by(piece) {
            // SAFETY: the piece lies in the first half of `memory` and goes to the second; no reference to either
            // exists meanwhile. They are whole, aligned `Block`s. `native::copying` chose a routine that this CPU can
            // run.
            unsafe { (self.copying)(src + len + at, src + at, piece.min(len - at)) };
            store_fence();
        }
    }
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
    let mut memory = filled(blocks, Block([1; BLOCK]))?;
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

/// So many of an element, on huge pages where they are to be had. `None` if there is not enough memory.
pub(crate) fn filled<T: Copy>(count: usize, element: T) -> Option<Vec<T>> {
    let mut memory: Vec<T> = Vec::new();
    memory.try_reserve_exact(count).ok()?;
    on_huge_pages(memory.as_mut_ptr().expose_provenance(), count * size_of::<T>());
    memory.resize(count, element);
    Some(memory)
}

/// Asks for huge pages, as the benches do for the memory that they copy: on small pages, page walks set the rate. A
/// refusal changes the rate alone.
fn on_huge_pages(addr: usize, len: usize) {
    const HUGE: usize = 2 << 20;
    let start = addr.next_multiple_of(HUGE);
    let end = (addr + len) / HUGE * HUGE;
    if start < end {
        // SAFETY: this advice changes neither the contents of memory nor how it may be accessed, whatever the range.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Block, LeastCopy, copying, measure, native};

    #[test]
    fn every_size_can_be_measured() {
        for nbytes in [0, 1, BLOCK, BLOCK + 1, 100_000] {
            let Some(limits) = measure(nbytes) else { continue };
            assert!([limits.read, limits.write, limits.stream].iter().all(|rate| *rate > 0.0), "{limits:?}");
        }
    }

    #[test]
    fn the_fastest_copy_copies_every_byte_and_nothing_else() {
        let Some(copying) = copying() else { return };
        for blocks in [1, 3, (4 << 20) / BLOCK, (5 << 20) / BLOCK] {
            let source: Vec<Block> =
                (0..blocks).map(|block| Block([u8::try_from(block % 251).unwrap(); BLOCK])).collect();
            let mut memory = vec![Block([255; BLOCK]); blocks + 2];
            let (to, len) = (memory.as_mut_ptr().expose_provenance() + BLOCK, blocks * BLOCK);
            // SAFETY: the source and the blocks between the first and the last, two vectors of this test.
            unsafe { copying(to, source.as_ptr().expose_provenance(), len) };
            crate::arch::store_fence();
            let copied = memory[1..=blocks].iter().map(|block| block.0);
            assert!(copied.eq(source.iter().map(|block| block.0)), "{blocks}");
            assert!([0, blocks + 1].iter().all(|edge| memory[*edge].0 == [255; BLOCK]), "{blocks}");
        }
    }

    #[test]
    fn the_least_copy_fills_its_second_half() {
        let Some(mut least) = LeastCopy::new(3 * BLOCK - 1) else { return };
        assert_eq!(least.memory.len(), 6);
        for (piece, number) in [(0, 7), (2 * BLOCK, 8), (usize::MAX, 9)] {
            least.memory[..3].fill(Block([number; BLOCK]));
            least.run(piece);
            assert!(least.memory.iter().all(|block| block.0 == [number; BLOCK]), "{piece}");
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
