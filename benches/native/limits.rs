//! 64-byte segments through the caches, beside the least that any loop has to do for them: take an address from a list,
//! prefetch a segment ahead, load a line, store it. On huge pages and on small ones, at lines and between
//! them.

use crate::memory::{Arena, Broom, Pages, flat};
use crate::race::{Case, Contestant, Report};
use crate::rivals::{self, Libpmem};
use crate::vectored::shuffled;
use _core::abi::Direction;
use _core::copy;
use _core::iter::IovIter;
use _core::memory::Segment;

const LINE: usize = 64;
const ARENA: usize = 256 << 20;
/// Bytes of a call: fewer than go past the caches, and more.
const TOTALS: [usize; 2] = [8 << 20, 64 << 20];
/// How many segments ahead the loops prefetch: a page's worth of lines. With 16 or 32 they take up to half as long
/// again, with 128 or 256 as long.
const AHEAD: usize = 64;

/// Copies one line, in four registers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(clippy::inline_always)] // into the loop
fn line(dst: usize, src: usize, is_past_caches: bool) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128, _mm_stream_si128};
    let at = |addr: usize, part: usize| std::ptr::with_exposed_provenance_mut::<__m128i>(addr + part * 16);
    // SAFETY: the callers pass lines of arenas.
    let parts = [0, 1, 2, 3].map(|part| unsafe { _mm_loadu_si128(at(src, part)) });
    for (part, value) in parts.into_iter().enumerate() {
        if is_past_caches {
            // SAFETY: the callers pass lines of arenas, and a destination at a line's start.
            unsafe { _mm_stream_si128(at(dst, part), value) };
        } else {
            // SAFETY: the callers pass lines of arenas.
            unsafe { _mm_storeu_si128(at(dst, part), value) };
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn line(dst: usize, src: usize, _: bool) {
    rivals::memcpy(dst, src, LINE);
}

/// The loop over the scattered side's segments, which all have a line's length.
#[inline(always)]
#[allow(clippy::inline_always)] // once for each way to copy a line
fn each(segs: &[Segment], flat: usize, direction: Direction, prefetches: bool, line: impl Fn(usize, usize)) {
    for (number, seg) in segs.iter().enumerate() {
        if prefetches {
            _core::arch::prefetch(segs[(number + AHEAD).min(segs.len() - 1)].addr, LINE);
        }
        let other = flat + number * LINE;
        let (dst, src) = if direction == Direction::Source { (other, seg.addr) } else { (seg.addr, other) };
        line(dst, src);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn each_512(segs: &[Segment], flat: usize, direction: Direction) {
    use core::arch::x86_64::{_mm512_loadu_si512, _mm512_storeu_si512};
    each(segs, flat, direction, true, |dst, src| {
        // SAFETY: `least`'s callers pass lines of arenas.
        let value = unsafe { _mm512_loadu_si512(std::ptr::with_exposed_provenance(src)) };
        // SAFETY: `least`'s callers pass lines of arenas.
        unsafe { _mm512_storeu_si512(std::ptr::with_exposed_provenance_mut(dst), value) };
    });
}

/// The loop with the registers that suit this CPU best.
fn least(segs: &[Segment], flat: usize, direction: Direction, is_past_caches: bool) {
    #[cfg(target_arch = "x86_64")]
    if !is_past_caches && _core::arch::primitives().name == "avx512" {
        // SAFETY: a set is only in use if the CPU has its instructions.
        return unsafe { each_512(segs, flat, direction) };
    }
    let prefetches = direction == Direction::Source || !is_past_caches;
    each(segs, flat, direction, prefetches, |dst, src| line(dst, src, is_past_caches));
    if is_past_caches {
        _core::arch::store_fence();
    }
}

fn case(report: &Report, arena: &Arena, line: &Arena, broom: &Broom, pages: Pages, at: usize, total: usize) {
    let count = if report.is_quick { 64 } else { total / LINE };
    let slots = shuffled(ARENA / LINE - 1);
    let segs: Vec<_> = slots[..count].iter().map(|slot| Segment::new(arena.at(slot * LINE + at), LINE)).collect();
    let to = line.at(at);
    for direction in [Direction::Source, Direction::Dest] {
        let ranges = segs.iter().map(|seg| flat(seg.addr, seg.len)).collect();
        let iterator = IovIter::kvec(direction, ranges, None).unwrap();
        let ours = |_| {
            let mut i = iterator.clone();
            let whole = flat(to, count * LINE);
            match direction {
                Direction::Source => copy::copy_from_iter(whole, &mut i, count * LINE),
                Direction::Dest => copy::copy_to_iter(whole, &mut i, count * LINE),
            }
            .unwrap();
        };
        let mut list = vec![
            Contestant::new("iovec_rs", ours),
            Contestant::new("the least loop", |_| least(&segs, to, direction, false)),
            Contestant::new("memcpy each", |_| {
                for (number, seg) in segs.iter().enumerate() {
                    let other = to + number * LINE;
                    match direction {
                        Direction::Source => rivals::memcpy(other, seg.addr, LINE),
                        Direction::Dest => rivals::memcpy(seg.addr, other, LINE),
                    }
                }
            }),
        ];
        if at == 0 {
            let past = |_| least(&segs, to, direction, true);
            list.insert(2, Contestant::new("the least loop, past the caches", past));
        }
        let name = if direction == Direction::Source { "gather" } else { "scatter" };
        let title = format!("{name}, {} KiB x {LINE} B at + {at}, {}", (count * LINE) >> 10, pages.name());
        report.race(&Case { title, bytes: LINE, calls: 1, ops: count, rounds: 15 }, &mut list, || broom.sweep());
    }
}

/// All of them.
pub(crate) fn run(_: &Libpmem, report: &Report) {
    let broom = Broom::new();
    for pages in [Pages::Huge, Pages::Small] {
        let (arena, line) = (Arena::on(pages, ARENA), Arena::on(pages, (64 << 20) + LINE));
        for total in TOTALS {
            for at in [0, 16] {
                case(report, &arena, &line, &broom, pages, at, total);
            }
        }
    }
}
