//! 64 MiB in shuffled segments over 256 MiB: one call for all, against one persist a segment.

use crate::memory::{Arena, Broom, flat};
use crate::race::{Case, Contestant, Report};
use crate::rivals::Libpmem;
use _core::abi::Direction;
use _core::copy::flushcache;
use _core::iter::IovIter;
use _core::memory::Segment;

const ARENA: usize = 256 << 20;
const TOTAL: usize = 64 << 20;

/// Numbers below a limit, in an order of their own.
pub(crate) fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 7_u64;
    for at in (1..count).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(at, (state >> 33) as usize % (at + 1));
    }
    order
}

/// Segments of one size, in the order of the flat memory.
struct Scattered {
    segs: Vec<Segment>,
    len: usize,
    total: usize,
}

impl Scattered {
    fn iterator(&self, direction: Direction) -> IovIter {
        IovIter::kvec(direction, self.segs.iter().map(|seg| flat(seg.addr, seg.len)).collect(), None).unwrap()
    }

    fn gather(&self, pmem: &Libpmem, report: &Report, line: &Arena, broom: &Broom, at: usize) {
        let iterator = self.iterator(Direction::Source);
        let dst = line.at(at);
        let ours = |_| {
            flushcache::copy_from_iter_flushcache(flat(dst, self.total), &mut iterator.clone(), self.total).unwrap();
        };
        let each = |_| {
            for (number, seg) in self.segs.iter().enumerate() {
                pmem.persist(dst + number * self.len, seg.addr, self.len);
            }
        };
        let once = |_| {
            for (number, seg) in self.segs.iter().enumerate() {
                pmem.nodrain(dst + number * self.len, seg.addr, self.len);
            }
            pmem.drain();
        };
        let title = format!("gather, {} x {} B to + {at}", self.segs.len(), self.len);
        self.race(
            report,
            title,
            broom,
            [
                Contestant::new("copy_from_iter_flushcache", ours),
                Contestant::new(EACH, each),
                Contestant::new(ONCE, once),
            ],
        );
    }

    fn scatter(&self, pmem: &Libpmem, report: &Report, line: &Arena, broom: &Broom) {
        let iterator = self.iterator(Direction::Dest);
        let src = line.at(0);
        let ours = |_| {
            flushcache::copy_to_iter_flushcache(flat(src, self.total), &mut iterator.clone(), self.total).unwrap();
        };
        let each = |_| {
            for (number, seg) in self.segs.iter().enumerate() {
                pmem.persist(seg.addr, src + number * self.len, self.len);
            }
        };
        let once = |_| {
            for (number, seg) in self.segs.iter().enumerate() {
                pmem.nodrain(seg.addr, src + number * self.len, self.len);
            }
            pmem.drain();
        };
        let title = format!("scatter, {} x {} B", self.segs.len(), self.len);
        self.race(
            report,
            title,
            broom,
            [
                Contestant::new("copy_to_iter_flushcache", ours),
                Contestant::new(EACH, each),
                Contestant::new(ONCE, once),
            ],
        );
    }

    /// A call moves all of the segments; an operation is one of them.
    fn race(&self, report: &Report, title: String, broom: &Broom, mut list: [Contestant; 3]) {
        let case = Case { title, bytes: self.len, calls: 1, ops: self.segs.len(), rounds: 15 };
        report.race(&case, &mut list, || broom.sweep());
    }
}

const EACH: &str = "pmem_memcpy_persist each";
const ONCE: &str = "pmem_memcpy_nodrain each, 1 drain";

/// All of them.
pub(crate) fn run(pmem: &Libpmem, report: &Report) {
    let (arena, line, broom) = (Arena::new(ARENA), Arena::new(TOTAL + 64), Broom::new());
    for len in [64, 512, 4 << 10, 64 << 10, 1 << 20] {
        let total = if report.is_quick { len * 4 } else { TOTAL };
        let slots = shuffled(ARENA / len);
        let segs = slots[..total / len].iter().map(|slot| Segment::new(arena.at(slot * len), len)).collect();
        let them = Scattered { segs, len, total };
        for at in [0, 20] {
            them.gather(pmem, report, &line, &broom, at);
        }
        them.scatter(pmem, report, &line, &broom);
    }
}
