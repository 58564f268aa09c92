//! Every instruction set runs the same cases: all small sizes at all alignments, block boundaries, `rep movsb`.

mod lists;
mod teed;

use super::guard::{self, Instruction, Interrupted, Trap, find};
use super::setting::Setting;
use super::tuning::{self, Tuning};
use super::{LINE, Primitives, RECOVERS, available, cache_line_size, choose, portable, primitives, store_fence};
use std::path::Path;

const RED: u8 = 0xA5;
const ZONE: usize = 128;

fn sets() -> impl Iterator<Item = &'static Primitives> {
    available().chain([&portable::SCALAR])
}

/// Runs a test twice: without `rep movsb`, and with it for every copy of lines.
fn with_and_without_strings(test: impl Fn()) {
    let _setting = Setting::keep();
    for from in [usize::MAX, 0] {
        tuning::set(Tuning { strings_from: from, strings_any_from: from, ..tuning::current() });
        test();
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8)) as u8 | 1).collect()
}

fn lengths() -> impl Iterator<Item = usize> {
    (0..300).chain([511, 512, 513, 575, 1023, 1024, 1100, 4095, 4096, 4097, 8191])
}

fn check_copy(set: &Primitives, len: usize, src_at: usize, dst_at: usize) {
    let source = pattern(src_at + len);
    let mut dest = vec![RED; ZONE + dst_at + len + ZONE];
    let to = ZONE + dst_at;
    // SAFETY: both ranges lie inside the vectors just made, which do not overlap.
    let stop = unsafe {
        guard::copy(set, dest.as_mut_ptr().expose_provenance() + to, source.as_ptr().expose_provenance() + src_at, len)
    };
    assert!(stop.is_none());
    let case = (set.name, len, src_at, dst_at);
    assert_eq!(dest[to..to + len], source[src_at..], "{case:?}");
    assert!(dest[..to].iter().chain(&dest[to + len..]).all(|b| *b == RED), "outside touched: {case:?}");
}

#[test]
fn copies_every_length_at_every_alignment() {
    with_and_without_strings(|| {
        for set in sets() {
            for len in lengths() {
                for (src_at, dst_at) in [(0, 0), (1, 0), (0, 1), (7, 3), (3, 17), (63, 1), (1, 63), (32, 32), (40, 8)] {
                    check_copy(set, len, src_at, dst_at);
                }
            }
            for dst_at in 0..64 {
                check_copy(set, 200, 5, dst_at);
                check_copy(set, 63, dst_at, 11);
            }
        }
    });
}

#[test]
fn long_copies_are_exact_congruent_or_not() {
    with_and_without_strings(|| {
        for set in sets() {
            let around = (0..2700).step_by(97).map(|more| (32 << 10) - 64 + more);
            for len in around.chain([(32 << 10) - 1, 32 << 10, (32 << 10) + 1, 100_003]) {
                for at in [0, 1, 63] {
                    check_copy(set, len, at, at);
                    check_copy(set, len, at, at + 64);
                    check_copy(set, len, at, at + 1);
                }
            }
        }
    });
}

fn check_nontemporal(set: &Primitives, len: usize, src_at: usize, dst_at: usize) {
    let source = pattern(src_at + len);
    let mut dest = vec![RED; ZONE + LINE + dst_at + len + ZONE];
    let base = dest.as_mut_ptr().expose_provenance();
    let to = (base + ZONE).next_multiple_of(LINE) - base + dst_at;
    // SAFETY: both ranges lie inside the vectors just made, which do not overlap.
    let stop = unsafe { guard::copy_nontemporal(set, base + to, source.as_ptr().expose_provenance() + src_at, len) };
    store_fence();
    let case = (set.name, len, src_at, dst_at);
    assert!(stop.is_none(), "{case:?}");
    assert_eq!(dest[to..to + len], source[src_at..], "{case:?}");
    assert!(dest[..to].iter().chain(&dest[to + len..]).all(|b| *b == RED), "outside touched: {case:?}");
}

#[test]
fn copies_nontemporally_every_length_to_every_address() {
    let _setting = Setting::keep();
    for (far_from, unaided_from) in [(usize::MAX, usize::MAX), (usize::MAX, 0), (0, usize::MAX)] {
        tuning::set(Tuning { far_from, unaided_from, ..tuning::current() });
        for set in sets() {
            for dst_at in 0..LINE {
                for len in 1..400 {
                    check_nontemporal(set, len, (dst_at + len) * 5 % 67, dst_at);
                }
                for len in (960..1600).step_by(60) {
                    check_nontemporal(set, len, len % 61, dst_at);
                    check_nontemporal(set, 8 * len, 0, dst_at);
                }
            }
            // Long enough for a prefetch of later pages.
            for more in (0..8500).step_by(391) {
                check_nontemporal(set, (256 << 10) - 64 + more, more % 61, more % LINE);
            }
        }
    }
}

#[test]
fn zeroes_every_length_and_nothing_else() {
    for set in sets() {
        for len in lengths() {
            for dst_at in [0, 1, 7, 17, 63] {
                let mut dest = vec![RED; ZONE + dst_at + len + ZONE];
                let to = ZONE + dst_at;
                // SAFETY: the range lies inside the vector just made.
                let stop = unsafe { guard::zero(set, dest.as_mut_ptr().expose_provenance() + to, len) };
                assert!(stop.is_none());
                assert!(dest[to..to + len].iter().all(|b| *b == 0), "{} {len} {dst_at}", set.name);
                assert!(dest[..to].iter().chain(&dest[to + len..]).all(|b| *b == RED), "{} {len}", set.name);
            }
        }
    }
}

#[test]
fn a_set_can_be_chosen_by_name_and_only_if_it_exists() {
    let _setting = Setting::keep();
    for set in available() {
        assert_eq!(choose(set.name).map(|s| s.name), Some(set.name));
        assert_eq!(primitives().name, set.name);
    }
    assert!(choose("mmx").is_none());
    assert!(cache_line_size().is_power_of_two());
}

/// For a string instruction only the reported address tells which side faulted. Poison is reported with an extent of a
/// page or more, so the address may be anywhere in that.
#[test]
fn poison_in_a_string_is_on_the_side_whose_extent_holds_it() {
    let (dst, src, left) = (0x70_0000_0840, 0x50_0000_0840, 0x9000);
    let side = |addr: usize, lsb: u16| {
        let info = Trap::encode(libc::SIGBUS, false, libc::BUS_MCEERR_AR, lsb, Instruction::String as i32);
        let stop = Interrupted::new(Trap { addr, info, dst, src, reached: 0 }, left);
        assert_eq!((stop.dst, stop.src, stop.left), (dst, src, left));
        stop.is_store
    };
    for (at, lsb) in [(0, 0), (0x8fff, 0), (0, 12), (0x1000, 12), (0x8fff, 12), (0x4000, 21)] {
        let reported = |start: usize| (start + at) >> lsb << lsb;
        assert!(!side(reported(src), lsb), "{at:#x} {lsb}");
        assert!(side(reported(dst), lsb), "{at:#x} {lsb}");
    }
    assert!(side(src + left, 0) && side(src - 1, 0), "no byte of the source");
}

/// If the ranges overlap, the address does not tell whether the load or the store failed. The page fault's error code
/// does.
#[test]
fn a_store_in_a_string_over_itself_is_the_destinations() {
    let (at, left) = (0x50_0000_0840, 0x9000);
    let is_store = |is_write| {
        let info = Trap::encode(libc::SIGSEGV, is_write, 2, 0, Instruction::String as i32);
        Interrupted::new(Trap { addr: at + 0x1000, info, dst: at, src: at, reached: 0 }, left).is_store
    };
    assert!(is_store(true) && !is_store(false));
}

#[test]
fn every_table_is_filled_and_resumes_in_its_own_routine() {
    for set in super::SETS {
        let [lists, tees] = [set.lines.is_some(), set.tee.is_some()].map(|has| if has { 2 } else { 0 });
        assert_eq!(set.tables.len(), if RECOVERS { 3 + lists + tees } else { 0 });
        // The first three have many branches, the others a single loop.
        for (routine, table) in set.tables.iter().enumerate() {
            let entries: Vec<_> = table.entries().collect();
            assert!(entries.len() >= if routine < 3 { 11 } else { 3 }, "{}", set.name);
            for entry in &entries {
                assert!(entry.start < entry.end && entry.end - entry.start < 100, "{entry:?}");
                assert!(entry.fixup > entry.start && entry.fixup - entry.start < 4096, "{entry:?}");
                assert!(
                    (1..=4).contains(&(entry.meta & 0xff)) && entry.meta >> 8 & 0xfff < 256 && entry.meta >> 20 < 256,
                    "{entry:?}"
                );
                assert_eq!(find(entry.end - 1).map(|found| found.start), Some(entry.start));
            }
            assert!(
                entries.windows(2).all(|pair| pair[0].end <= pair[1].start),
                "{}: not in the order of the code",
                set.name
            );
            assert!(find(entries[0].fixup).is_none());
        }
    }
    assert!(find(0).is_none() && find(usize::MAX).is_none());
}

/// The contract of both copies: the ranges may overlap if the destination is below the source.
#[test]
fn overlapping_ranges_are_moved_down_by_every_routine() {
    with_and_without_strings(|| {
        let original: Vec<u8> = (0..3000_usize).map(|at| (at * 7 + at / 256) as u8).collect();
        for set in sets() {
            for distance in (1..140).chain([191, 192, 193, 255, 256, 257, 320, 511, 1000]) {
                for (dst, len) in [(0, 1), (3, 100), (17, 256), (63, 700), (64, 1024), (1, 1900)] {
                    let mut expected = original.clone();
                    expected.copy_within(dst + distance..dst + distance + len, dst);
                    for routine in [guard::copy, guard::copy_nontemporal] {
                        // The memory starts on a line boundary, so that `dst` is an offset into a line.
                        let mut memory = vec![0_u8; original.len() + LINE];
                        let start = memory.as_ptr().align_offset(LINE);
                        memory[start..start + original.len()].copy_from_slice(&original);
                        let to = memory[start..].as_mut_ptr().expose_provenance() + dst;
                        // SAFETY: both ranges lie inside the vector just made, to which there is no other reference.
                        let stop = unsafe { routine(set, to, to + distance, len) };
                        store_fence();
                        assert!(stop.is_none());
                        let moved = &memory[start..start + original.len()];
                        assert!(moved == expected, "{} {distance} {dst} {len}", set.name);
                    }
                }
            }
        }
    });
}

/// An architecture is one folder of `arch/`. Any other file that named one would have to be changed for the next.
#[test]
fn nothing_else_knows_an_instruction_set() {
    let names = [
        concat!("x", "86"),
        concat!("aarch", "64"),
        concat!("REG", "_"),
        concat!("_", "mm_"),
        concat!("as", "m!"),
        concat!("rd", "tsc"),
    ];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let theirs = [names[0].to_owned() + "_64", names[1].to_owned()].map(|name| source.join("arch").join(name));
    let (mut folders, mut files) = (vec![source.clone()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((!theirs.contains(&path)).then_some(path));
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let found = text.lines().filter(|line| names.iter().any(|name| line.contains(name)));
                // `arch/mod.rs` chooses the architecture.
                let allowed = if path == source.join("arch/mod.rs") { 11 } else { 0 };
                assert_eq!(found.count(), allowed, "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 50, "{files} files were looked at");
}
