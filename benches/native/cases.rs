//! The jobs.

use crate::memory::{Arena, Broom, flat, held, touch};
use crate::race::{Contestant, race};
use crate::rivals::{self, Libpmem};
use _core::copy::{self, durable, mcsafe};
use _core::iter::{Direction, IovIter};
use _core::segment::Segment;

type Case = fn(&Libpmem, bool);

/// All of them, by name.
pub(crate) const ALL: [(&str, Case); 4] =
    [("flat", flats), ("append", appends), ("vectored", vectored), ("careful", careful)];

const ARENA: usize = 256 << 20;

fn ours(dst: usize, src: usize, len: usize) {
    let done = durable::memcpy_flushcache(flat(dst, len), flat(src, len));
    debug_assert_eq!(done.map(|(done, _)| done), Ok(len));
}

fn contestants<'a>(
    pmem: &'a Libpmem,
    place: impl Fn(usize) -> (usize, usize) + Copy + 'a,
    len: usize,
) -> Vec<Contestant<'a>> {
    let with = move |copy: fn(usize, usize, usize)| {
        move |op: usize| {
            let (dst, src) = place(op);
            copy(dst, src, len);
        }
    };
    vec![
        Contestant::new("memcpy_flushcache", with(ours)),
        Contestant::new("pmem_memcpy_persist", move |op| {
            let (dst, src) = place(op);
            pmem.persist(dst, src, len);
        }),
        Contestant::new("memcpy + write-back", with(rivals::memcpy_write_back)),
        Contestant::new("memcpy (not durable)", with(rivals::memcpy)),
    ]
}

const OFFSETS: [(usize, usize); 5] = [(0, 0), (0, 4), (1, 0), (0, 1), (3, 17)];

/// Flat copies to cold lines of their own, from a source that is cached or not.
fn flats(pmem: &Libpmem, quick: bool) {
    let (source, target, broom) = (Arena::new(ARENA), Arena::new(ARENA), Broom::new());
    let sizes: &[usize] = if quick {
        &[0, 8, 64, 100, 256, 4096]
    } else {
        &[
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
        ]
    };
    for &len in sizes {
        for (src_at, dst_at) in OFFSETS {
            if dst_at == 4 && len > 4096 {
                continue;
            }
            for cold in [false, true] {
                if cold && len < 2048 || !cold && len > 4 << 20 {
                    continue;
                }
                let stride = (len + dst_at).next_multiple_of(64) + 64;
                let slots = (ARENA - 128) / stride;
                let ops = (slots / 7).clamp(1, ((16 << 20) / len.max(64)).max(1)).min(20_000);
                let rounds = if quick { 3 } else { 21 };
                let mut turn = 0;
                let cursor = std::cell::Cell::new(0);
                let place = |op: usize| {
                    let slot = (cursor.get() + op) % slots;
                    let from = if cold { slot * stride } else { 0 };
                    (target.at(slot * stride + dst_at), source.at(from + src_at))
                };
                let mut list = contestants(pmem, place, len);
                let name = if cold { "cold" } else { "hot" };
                race(
                    &format!("{len} B, {name} source + {src_at}, cold destination + {dst_at}"),
                    len,
                    ops,
                    rounds,
                    &mut list,
                    || {
                        turn += 1;
                        cursor.set(turn * ops % slots);
                        broom.sweep();
                        if !cold {
                            touch(source.at(0), len + src_at);
                        }
                    },
                );
            }
        }
    }
}

/// One record after the other, lines shared.
fn appends(pmem: &Libpmem, quick: bool) {
    let (source, target, broom) = (Arena::new(1 << 20), Arena::new(ARENA), Broom::new());
    for len in [8, 16, 24, 40, 64, 100, 200, 500] {
        let ops = 20_000.min(ARENA / len / 8);
        let slots = ARENA / len - 1;
        let mut turn = 0;
        let cursor = std::cell::Cell::new(0);
        let place = |op: usize| (target.at((cursor.get() + op) % slots * len), source.at(0));
        let mut list = contestants(pmem, place, len);
        race(&format!("appends of {len} B"), len, ops, if quick { 3 } else { 31 }, &mut list, || {
            turn += 1;
            cursor.set(turn * ops % slots);
            broom.sweep();
            touch(source.at(0), len);
        });
    }
}

/// Numbers below a limit, in an order of their own.
fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 7_u64;
    for at in (1..count).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(at, (state >> 33) as usize % (at + 1));
    }
    order
}

/// 64 MiB in shuffled segments over 256 MiB: one call for all, against one persist a segment.
fn vectored(pmem: &Libpmem, quick: bool) {
    const TOTAL: usize = 64 << 20;
    let (arena, line, broom) = (Arena::new(ARENA), Arena::new(TOTAL + 64), Broom::new());
    for len in [64, 512, 4 << 10, 64 << 10, 1 << 20] {
        let total = if quick { len * 4 } else { TOTAL };
        let count = total / len;
        let segs: Vec<Segment> =
            shuffled(ARENA / len)[..count].iter().map(|slot| Segment::new(arena.at(slot * len), len)).collect();
        let rounds = if quick { 1 } else { 15 };
        let iterator = |direction| IovIter::kvec(direction, segs.clone().into(), held(), None).unwrap();
        let (from, to) = (iterator(Direction::Source), iterator(Direction::Dest));
        for (dst_at, name) in [(0, "aligned"), (20, "+ 20")] {
            let mut list = vec![
                Contestant::new("copy_from_iter_flushcache", |_| {
                    durable::copy_from_iter_flushcache(flat(line.at(dst_at), total), &mut from.clone(), total).unwrap();
                }),
                Contestant::new("pmem_memcpy_persist each", |_| {
                    for (at, seg) in segs.iter().enumerate() {
                        pmem.persist(line.at(dst_at + at * len), seg.addr, len);
                    }
                }),
                Contestant::new("pmem_memcpy_nodrain each, 1 drain", |_| {
                    for (at, seg) in segs.iter().enumerate() {
                        pmem.nodrain(line.at(dst_at + at * len), seg.addr, len);
                    }
                    pmem.drain();
                }),
            ];
            race(&format!("gather of {count} x {len} B, {name}"), total, 1, rounds, &mut list, || broom.sweep());
        }
        let mut list = vec![
            Contestant::new("copy_to_iter_flushcache", |_| {
                durable::copy_to_iter_flushcache(flat(line.at(0), total), &mut to.clone(), total).unwrap();
            }),
            Contestant::new("pmem_memcpy_persist each", |_| {
                for (at, seg) in segs.iter().enumerate() {
                    pmem.persist(seg.addr, line.at(at * len), len);
                }
            }),
            Contestant::new("pmem_memcpy_nodrain each, 1 drain", |_| {
                for (at, seg) in segs.iter().enumerate() {
                    pmem.nodrain(seg.addr, line.at(at * len), len);
                }
                pmem.drain();
            }),
        ];
        race(&format!("scatter of {count} x {len} B"), total, 1, rounds, &mut list, || broom.sweep());
    }
}

const NO_MAP: Option<&dyn mcsafe::KnownBad> = None;

/// Copies ready for bad memory, hot, against the C library's, which is not.
fn careful(_: &Libpmem, quick: bool) {
    let arena = Arena::new(8 << 20);
    let (from, to) = (arena.at(0), arena.at(4 << 20));
    for len in [64, 4 << 10, 64 << 10, 1 << 20] {
        let iterator = || IovIter::ubuf(Direction::Dest, Segment::new(to, len), flat(to, len).trust, None).unwrap();
        let (mut first, mut second) = (iterator(), iterator());
        let mut list = vec![
            Contestant::new("copy_to_iter_mcsafe", |_| {
                mcsafe::copy_to_iter_mcsafe(flat(from, len), &mut first, len, NO_MAP).unwrap();
                first.revert(len).unwrap();
            }),
            Contestant::new("copy_to_iter", |_| {
                copy::copy_to_iter(flat(from, len), &mut second, len).unwrap();
                second.revert(len).unwrap();
            }),
            Contestant::new("memcpy_mcsafe", |_| {
                mcsafe::memcpy_mcsafe(flat(to, len), flat(from, len), NO_MAP).unwrap();
            }),
            Contestant::new("memcpy", |_| rivals::memcpy(to, from, len)),
        ];
        let ops = if quick { 10 } else { ((64 << 20) / len).min(100_000) };
        race(&format!("{len} B, hot, ready for bad memory"), len, ops, if quick { 3 } else { 51 }, &mut list, || {});
    }
}
