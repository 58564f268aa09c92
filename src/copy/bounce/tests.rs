//! Overlap in every shape, with every way to copy, with and without faults, compared with a model over slices.

mod ways;

use crate::arch;
use crate::arch::setting::Setting;
use crate::copy::chunk::POISON;
use crate::fault::arm::{self, Path};
use crate::memory::Backing;
use ways::{Pages, every_way};

/// Blocks SIGBUS and SIGSEGV in this thread until it is dropped, so that the handler recovers no fault and the kernel
/// makes the copies.
struct Blocked;

impl Blocked {
    fn new() -> Self {
        change_signals(libc::SIG_BLOCK);
        Self
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        change_signals(libc::SIG_UNBLOCK);
    }
}

/// Blocks or unblocks SIGBUS and SIGSEGV in this thread.
fn change_signals(how: i32) {
    // SAFETY: a `sigset_t` is an array of integers, for which all zeroes are valid.
    let mut signals: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        // SAFETY: `set` is a local, and both signals exist.
        unsafe { libc::sigaddset(&raw mut signals, signal) };
    }
    // SAFETY: `set` was filled above; a null old set is not filled.
    assert_eq!(unsafe { libc::pthread_sigmask(how, &raw const signals, std::ptr::null_mut()) }, 0);
    arm::invalidate_all();
}

/// Runs `test` with the handler and every instruction set, and once without a handler for this thread.
fn every_mode(test: impl Fn(&str)) {
    let setting = Setting::keep();
    for set in arch::available() {
        // Tests that run at the same time may see this setting; it changes no result.
        arch::choose(set.name);
        test(set.name);
    }
    drop(setting);
    let _blocked = Blocked::new();
    assert!(matches!(arm::arm(Backing::Mapping), Ok(Path::Syscalls)));
    test("system calls");
}

/// Test bytes, of which none equals the byte that scratch memory is filled with.
fn contents(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 131 + at / 251) % 160) as u8).collect()
}

const DISTANCES: [usize; 17] = [0, 1, 2, 7, 8, 13, 31, 33, 63, 64, 65, 127, 300, 999, 1000, 1500, 4096];

#[test]
fn the_source_reads_as_if_first_at_every_distance() {
    let pages = Pages::new(4);
    let original = contents(pages.len);
    every_mode(|mode| {
        for distance in DISTANCES {
            for (dst, src) in [(1000, 1000 + distance), (1003 + distance, 1003)] {
                for len in [1, 100, 1000, 5000] {
                    let mut expected = original.clone();
                    expected.copy_within(src..src + len, dst);
                    pages.set(&original);
                    every_way(&pages, dst, src, len, |name, done| {
                        assert_eq!(done, len, "{name} {mode} {dst} <- {src}");
                        assert!(pages.get() == expected, "{name} {mode} {len} bytes {dst} <- {src}");
                        pages.set(&original);
                    });
                }
            }
        }
    });
}

/// Whether this way of copying gives up whole chunks, as a checksum does. Then its count may be less than what could be
/// copied.
fn is_by_chunks(name: &str) -> bool {
    name.starts_with("csum")
}

#[test]
fn what_could_not_be_read_is_neither_counted_nor_made_up() {
    let pages = Pages::new(4);
    let original = contents(pages.len);
    assert!(!original.contains(&POISON));
    every_mode(|mode| {
        for distance in DISTANCES {
            for (before, gap) in [0, 1, 5, 64, 700, 3000].into_iter().flat_map(|before| [(before, 500), (before, 1)]) {
                // The source leaves the accessible pages after `before` bytes.
                let (src, len) = (pages.len - before, before + 500);
                let dst = src - distance - gap;
                pages.set(&original);
                every_way(&pages, dst, src, len, |name, done| {
                    let case = format!("{name} {mode} {dst} <- {src}, {before} of {len}");
                    assert!(done == before || is_by_chunks(name) && done <= before, "{case}: {done}");
                    let mut expected = original.clone();
                    let written = if is_by_chunks(name) { before } else { done };
                    let now = pages.get();
                    expected.copy_within(src..src + done, dst);
                    assert!(now[..dst + done] == expected[..dst + done], "{case}");
                    assert!(
                        now[dst + written..] == original[dst + written..] || written > 0 && is_by_chunks(name),
                        "{case}"
                    );
                    assert!(!now.contains(&POISON), "{case}");
                    pages.set(&original);
                });
            }
        }
    });
}

#[test]
fn what_could_not_be_written_is_taken_back() {
    let pages = Pages::new(4);
    let original = contents(pages.len);
    every_mode(|mode| {
        for distance in DISTANCES {
            for before in [0, 1, 5, 64, 700, 3000] {
                // The destination leaves the accessible pages after `before` bytes; the source is below it.
                let (dst, len) = (pages.len - before, before + 500);
                let src = dst - 500 - distance;
                pages.set(&original);
                every_way(&pages, dst, src, len, |name, done| {
                    let case = format!("{name} {mode} {dst} <- {src}, {before} of {len}");
                    assert!(done == before || is_by_chunks(name) && done <= before, "{case}: {done}");
                    let mut expected = original.clone();
                    expected.copy_within(src..src + before, dst);
                    let now = pages.get();
                    assert!(now[..dst + done] == expected[..dst + done], "{case}");
                    assert!(is_by_chunks(name) || now == expected, "{case}");
                    assert!(!now.contains(&POISON), "{case}");
                    pages.set(&original);
                });
            }
        }
    });
}
