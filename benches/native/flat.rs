//! Flat copies to cold lines of their own, from a source that is cached or not.

use crate::memory::{Arena, Broom, flat, touch};
use crate::race::{Case, Contestant, Report};
use crate::rivals::{self, Libpmem};
use _core::arch::{self, limits};
use _core::copy::flushcache;
use std::cell::Cell;

const ARENA: usize = 256 << 20;

const SIZES: [usize; 19] = [
    0,
    8,
    16,
    32,
    64,
    100,
    128,
    200,
    256,
    512,
    1 << 10,
    2 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    16 << 20,
    128 << 20,
];
const QUICK_SIZES: [usize; 6] = [0, 8, 64, 100, 256, 4096];
const LARGEST: usize = 1 << 30;
/// Up to here the fence is most of it: a contestant shows what is left to be had.
const LEAST_UP_TO: usize = 64;
/// From here on memory is most of it: another shows the fastest copy that is known.
const LIMIT_FROM: usize = 64 << 10;

/// Of source and destination, from a cache line on.
const OFFSETS: [(usize, usize); 5] = [(0, 0), (0, 4), (1, 0), (0, 1), (3, 17)];

fn ours(dst: usize, src: usize, len: usize) {
    let done = flushcache::memcpy_flushcache(flat(dst, len), flat(src, len));
    debug_assert_eq!(done.map(|(done, _)| done), Ok(len));
}

/// Ours first. `place` tells destination and source of an operation.
pub(crate) fn contestants<'a>(
    pmem: &'a Libpmem,
    place: impl Fn(usize) -> (usize, usize) + Copy + 'a,
    len: usize,
) -> [Contestant<'a>; 5] {
    let with = move |copy: fn(usize, usize, usize)| {
        move |op: usize| {
            let (dst, src) = place(op);
            copy(dst, src, len);
        }
    };
    let persist = move |op: usize| {
        let (dst, src) = place(op);
        pmem.persist(dst, src, len);
    };
    [
        Contestant::new("memcpy_flushcache", with(ours)),
        Contestant::new("pmem_memcpy_persist", persist),
        Contestant::new("memcpy + write-back", with(rivals::memcpy_write_back)),
        Contestant::new("the same page by page", with(rivals::memcpy_write_back_pages)),
        Contestant::new("memcpy (not durable)", with(rivals::memcpy)),
    ]
}

struct Place {
    source: Arena,
    target: Arena,
    broom: Broom,
}

impl Place {
    fn new(len: usize) -> Self {
        Self { source: Arena::new(len), target: Arena::new(len), broom: Broom::new() }
    }

    fn case(&self, pmem: &Libpmem, report: &Report, len: usize, at: (usize, usize), is_cold: bool) {
        let stride = (len + at.1).next_multiple_of(64) + 64;
        let slots = (self.target.len - 128) / stride;
        let calls = (slots / 7).clamp(1, ((16 << 20) / len.max(64)).max(1)).min(20_000);
        let cursor = Cell::new(0);
        let place = |op: usize| {
            let slot = (cursor.get() + op) % slots;
            let from = if is_cold { slot * stride } else { 0 };
            (self.target.at(slot * stride + at.1), self.source.at(from + at.0))
        };
        let mut list: Vec<_> = contestants(pmem, place, len).into();
        if (1..=LEAST_UP_TO).contains(&len) && (at.0 | at.1).is_multiple_of(4) {
            list.push(Contestant::new("the least: stores, a fence", move |op| {
                let (dst, src) = place(op);
                rivals::store_past_caches(dst, src, len);
            }));
        }
        if let Some(copying) = limits::copying().filter(|_| len >= LIMIT_FROM && at == (0, 0)) {
            list.push(Contestant::new("limit: the fastest copy known", move |op| {
                let (dst, src) = place(op);
                // SAFETY: whole lines of two arenas, at line boundaries.
                unsafe { copying(dst, src, len) };
                arch::store_fence();
            }));
        }
        let name = if is_cold { "cold" } else { "hot" };
        let title = format!("flat, {len} B, {name} source + {}, cold destination + {}", at.0, at.1);
        // The least targets are 2 % apart, which a short race on a busy machine does not tell.
        let rounds = match len {
            ..=4096 => 41,
            LARGEST.. => 5,
            _ => 21,
        };
        let case = Case { title, bytes: len, calls, ops: 1, rounds };
        let mut turn = 0;
        report.race(&case, &mut list, || {
            turn += 1;
            cursor.set(turn * calls % slots);
            self.broom.sweep();
            if !is_cold {
                touch(self.source.at(0), len + at.0);
            }
        });
    }
}

/// All of them.
pub(crate) fn run(pmem: &Libpmem, report: &Report) {
    let place = Place::new(ARENA);
    for &len in if report.is_quick { &QUICK_SIZES[..] } else { &SIZES[..] } {
        for at in OFFSETS.into_iter().filter(|at| at.1 != 4 || len <= 4096) {
            if len <= 4 << 20 {
                place.case(pmem, report, len, at, false);
            }
            if len >= 2048 {
                place.case(pmem, report, len, at, true);
            }
        }
    }
    if !report.is_quick {
        let place = Place::new(LARGEST + 4096);
        for at in [(0, 0), (3, 17)] {
            place.case(pmem, report, LARGEST, at, true);
        }
    }
}
