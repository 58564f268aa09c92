//! The least that a copy with its sum takes: one load and two stores of each line, by the routine that this package
//! uses, and the sum of each block, by the same library, over memory of our own. It has no iterator, bears no fault,
//! counts nothing, and does not combine the sums of the blocks. Benches show it beside copies that have to do more.

use crate::arch::limits::filled;
use crate::arch::{self, LINE, Tee, guard, tuning};
use crate::copy::blocks::{StagingBuffer, prefetch_ahead, prefetch_page_ahead};
use crate::copy::chunk::BLOCK;
use crate::memory::Segment;
use std::hint::black_box;

/// A line of our own.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; LINE]); // read and written through its address only

/// Memory of its own, so many places to copy from and as many to copy to.
pub struct LeastSum {
    source: Vec<Line>,
    target: Vec<Line>,
    /// In lines, of one place.
    len: usize,
    /// The line at which the next copy begins.
    next: usize,
    tee: Tee,
}

impl LeastSum {
    /// For copies of `nbytes`, rounded up to whole lines, at `places` places in turn. `None` if the instruction set in
    /// use has no routine for it, or if there is not enough memory.
    pub fn new(nbytes: usize, places: usize) -> Option<Self> {
        let tee = arch::primitives().tee?;
        let len = nbytes.div_ceil(LINE).max(1);
        let total = len.checked_mul(places.max(1))?;
        let (source, target) = (filled(total, Line([1; LINE]))?, filled(total, Line([1; LINE]))?);
        Some(Self { source, target, len, next: 0, tee })
    }

    /// Copies and sums once, at the next place.
    pub fn run(&mut self) {
        let place = self.next..self.next + self.len;
        self.next = if place.end == self.source.len() { 0 } else { place.end };
        let nbytes = self.len * LINE;
        let src = Segment::new(self.source[place.clone()].as_ptr().expose_provenance(), nbytes);
        let dst = Segment::new(self.target[place].as_mut_ptr().expose_provenance(), nbytes);
        let streams = tuning::chunks_from(nbytes) != usize::MAX && tuning::is_streamed(dst.addr, BLOCK, nbytes);
        let routine = if streams { self.tee.nontemporal } else { self.tee.copy };
        let mut stage = StagingBuffer::<BLOCK>::EMPTY;
        let (own, mut sum) = (stage.addr(), 0);
        for done in (0..nbytes).step_by(BLOCK) {
            let (rest, to) = (src.skip(done), dst.skip(done));
            let block = rest.take(BLOCK);
            if streams {
                prefetch_ahead(rest, block.len);
                prefetch_page_ahead(to, block.len);
            }
            // SAFETY: the block is whole lines of one vector, its destination as many of another, and the stage has
            // room for it. All of it is our own memory, which stays accessible, and no reference to it exists
            // meanwhile. The routine is one of the set in use.
            let stop = unsafe { guard::tee(routine, to.addr, block.addr, block.len, own) };
            debug_assert!(stop.is_none());
            // SAFETY: `guard::tee` has just written these bytes.
            sum ^= super::of_bytes(unsafe { stage.bytes(0..block.len) });
        }
        if streams {
            arch::store_fence();
        }
        black_box(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE, LeastSum, Line};

    #[test]
    fn every_place_is_copied_in_turn() {
        const PLACES: usize = 3;
        for nbytes in [0, 1, LINE, 4096, 1536 + LINE + 1] {
            let Some(mut least) = LeastSum::new(nbytes, PLACES) else { return };
            assert_eq!(least.len, nbytes.max(1).div_ceil(LINE));
            for number in 2..2 + 2 * PLACES as u8 {
                least.source.fill(Line([number; LINE]));
                least.run();
            }
            // The last round's numbers.
            for (place, number) in least.target.chunks(least.len).zip(2 + PLACES as u8..) {
                assert!(place.iter().all(|line| line.0 == [number; LINE]), "{nbytes} {number}");
            }
        }
    }
}
