//! What the calls themselves decide: whether stores leave the caches, and that a fence is behind them. It is seen by
//! what they call the routines for.

use super::at;
use crate::abi::Direction;
use crate::arch::guard::witness::{Place, Seen, places, watch};
use crate::arch::setting::{Setting, stream_everything};
use crate::arch::{self, LINE};
use crate::copy::chunk::BLOCK;
use crate::copy::flushcache::{self, memcpy_flushcache, memcpy_nocache};
use crate::copy::framed::{copy_framed_from_iter, copy_published_from_iter};
use crate::copy::ranges::{How, copy_ranges};
use crate::copy::sums::Sums;
use crate::copy::uncached::copy_uncached_to_iter;
use crate::copy::{copy_from_iter, copy_to_iter, crc32c, memcpy};
use crate::fault::map::shared::SharedMap;
use crate::iter::IovIter;
use crate::memory::Memory;

const LENS: [usize; 9] = [1, 63, 64, 100, 255, 256, 300, BLOCK + 1, 4 * BLOCK + 65];

fn whole(direction: Direction, memory: Memory) -> IovIter {
    IovIter::whole(direction, memory)
}

type Copy = fn(Memory, Memory) -> usize;

fn ranges(dst: Memory, src: Memory, flush: bool, sums: bool) -> usize {
    let parts = |memory: Memory| {
        let middle = memory.len() / 3;
        [memory.take(middle), memory.skip(middle)].into_iter().collect()
    };
    let how = How { flush, map: None::<&SharedMap>, sums };
    copy_ranges(&parts(dst), &parts(src), how, |_| ()).unwrap().copied
}

/// The copies after which every byte has left the caches.
const DURABLE: [(&str, Copy); 7] = [
    ("memcpy_flushcache", |dst, src| memcpy_flushcache(dst, src).unwrap().0),
    ("copy_from_iter_flushcache", |dst, src| {
        flushcache::copy_from_iter_flushcache(dst, &mut whole(Direction::Source, src), src.len()).unwrap()
    }),
    ("copy_to_iter_flushcache", |dst, src| {
        flushcache::copy_to_iter_flushcache(src, &mut whole(Direction::Dest, dst), src.len()).unwrap()
    }),
    ("crc32c::memcpy_flushcache", |dst, src| crc32c::memcpy_flushcache(dst, src, &mut 0).unwrap().0),
    ("crc32c::copy_from_iter_flushcache", |dst, src| {
        crc32c::copy_from_iter_flushcache(dst, &mut whole(Direction::Source, src), src.len(), &mut 0).unwrap()
    }),
    ("copy_ranges", |dst, src| ranges(dst, src, true, false)),
    ("copy_ranges with sums", |dst, src| ranges(dst, src, true, true)),
];

/// Those that may store past the caches, which then fence.
const OTHERS: [(&str, Copy); 11] = [
    ("memcpy", |dst, src| memcpy(dst, src).unwrap().0),
    ("copy_from_iter", |dst, src| copy_from_iter(dst, &mut whole(Direction::Source, src), src.len()).unwrap()),
    ("copy_to_iter", |dst, src| copy_to_iter(src, &mut whole(Direction::Dest, dst), src.len()).unwrap()),
    ("memcpy_nocache", |dst, src| memcpy_nocache(dst, src).unwrap().0),
    ("crc32c::memcpy", |dst, src| crc32c::memcpy(dst, src, &mut 0).unwrap().0),
    ("crc32c::memcpy_nocache", |dst, src| crc32c::memcpy_nocache(dst, src, &mut 0).unwrap().0),
    ("crc32c::copy_from_iter_nocache", |dst, src| {
        crc32c::copy_from_iter_nocache(dst, &mut whole(Direction::Source, src), src.len(), &mut 0).unwrap()
    }),
    ("crc32c::copy_to_iter", |dst, src| {
        crc32c::copy_to_iter(src, &mut whole(Direction::Dest, dst), src.len(), &mut 0).unwrap()
    }),
    ("copy_uncached_to_iter", |dst, src| {
        copy_uncached_to_iter(src, &mut whole(Direction::Dest, dst), src.len()).unwrap().0
    }),
    ("copy_ranges", |dst, src| ranges(dst, src, false, false)),
    ("copy_ranges with sums", |dst, src| ranges(dst, src, false, true)),
];

/// Runs a copy to and from every place in a line, with each instruction set, and gives `check` where its bytes are.
fn each_copy(copies: &[(&str, Copy)], check: impl Fn(&[Place], &str)) {
    let mut arena = vec![0_u8; 2 * (LENS[8] + 3 * LINE)];
    let line = arena.as_mut_ptr().expose_provenance().next_multiple_of(LINE);
    for set in arch::available() {
        arch::choose(set.name).unwrap();
        for (name, copy) in copies {
            for (len, first) in LENS.iter().flat_map(|len| [0, 1, 60].map(|first| (*len, first))) {
                let (dst, src) = (at(line + first, len), at(line + LENS[8] + 2 * LINE, len));
                let seen = watch(|| assert_eq!(copy(dst, src), len));
                check(&places(&seen, dst.seg()), &format!("{name} of {len} bytes, {first} into a line: {}", set.name));
            }
        }
    }
}

#[test]
fn every_byte_of_a_durable_copy_has_left_the_caches_before_it_returns() {
    let _setting = Setting::keep();
    if arch::write_back().is_some() {
        each_copy(&DURABLE, |places, case| {
            assert!(places.iter().all(|place| *place == Place::Out), "{case}: {places:?}");
        });
    }
}

#[test]
fn no_copy_returns_while_bytes_are_leaving_the_caches() {
    let _setting = Setting::keep();
    stream_everything();
    each_copy(&OTHERS, |places, case| {
        assert!(places.iter().all(|place| [Place::Cached, Place::Out].contains(place)), "{case}: {places:?}");
    });
}

/// A record and a publication, of which the first may also be one that an msync makes durable.
#[test]
fn every_byte_of_a_frame_has_left_the_caches_if_it_is_to() {
    let _setting = Setting::keep();
    if arch::write_back().is_none() {
        return;
    }
    let line = |_: Sums| [7; LINE];
    let mut arena = vec![0_u8; 2 * (LENS[8] + 4 * LINE)];
    let start = arena.as_mut_ptr().expose_provenance().next_multiple_of(LINE);
    for len in LENS {
        let (frame, src) = (at(start, LINE + len.next_multiple_of(LINE)), at(start + LENS[8] + 3 * LINE, len));
        let source = || whole(Direction::Source, src);
        for is_durable in [true, false] {
            let seen = watch(|| {
                let (done, fault) = copy_framed_from_iter(frame, &mut source(), is_durable, line).unwrap();
                assert_eq!((done, fault), (frame.len(), None));
            });
            let reached = places(&seen, frame.seg());
            let is_right = |place: &Place| *place == Place::Out || *place == Place::Cached && !is_durable;
            assert!(reached.iter().all(is_right), "a record of {len} bytes, durable {is_durable}: {reached:?}");
        }
        let seen = watch(|| {
            let (header, data) = (frame.take(LINE), frame.skip(LINE));
            let (done, fault) = copy_published_from_iter(header, data, &mut source(), line).unwrap();
            assert_eq!((done, fault), (len, None));
        });
        let reached = places(&seen, frame.seg());
        assert!(reached.iter().all(|place| *place == Place::Out), "a publication of {len} bytes: {reached:?}");
        let fence = seen.iter().position(|seen| *seen == Seen::Fence).unwrap();
        let before = places(&seen[..=fence], frame.seg());
        assert!(before[..LINE].iter().all(|place| *place == Place::Untouched), "the line of {len} bytes is behind");
        assert!(before[LINE..].iter().all(|place| *place == Place::Out), "the {len} bytes are in front");
    }
}
