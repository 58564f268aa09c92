//! Against memory that really faults.

use super::{copy, fault_in, good_prefix, is_readable, is_user_range, relay, user_limit};
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;

/// Two pages, the second of them without any access.
struct Guarded(usize);

impl Guarded {
    fn new() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping; the result is checked.
        let addr = unsafe {
            libc::mmap(std::ptr::null_mut(), 2 * PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        assert_ne!(addr, libc::MAP_FAILED);
        // SAFETY: the second page of the mapping just made.
        assert_eq!(unsafe { libc::mprotect(addr.wrapping_byte_add(PAGE_SIZE), PAGE_SIZE, libc::PROT_NONE) }, 0);
        Self(addr.expose_provenance())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more.
        unsafe { libc::munmap(Segment::new(self.0, 0).as_mut_ptr().cast(), 2 * PAGE_SIZE) };
    }
}

#[test]
fn both_ways_stop_at_the_exact_byte_on_either_side() {
    let bad = Guarded::new();
    let good = vec![7_u8; 2 * PAGE_SIZE];
    let mut sink = vec![0_u8; 2 * PAGE_SIZE];
    let (good, sink_at) = (good.as_ptr().expose_provenance(), sink.as_mut_ptr().expose_provenance());
    for way in [copy, relay] {
        // SAFETY: every destination below is memory of this test, or none at all.
        let way = |dst, src, len| unsafe { way(dst, src, len) };
        for before in (0..130).chain([PAGE_SIZE]) {
            let edge = bad.0 + PAGE_SIZE - before;
            assert_eq!(way(edge, good, before + 100), before, "destination");
            assert_eq!(way(sink_at, edge, before + 100), before, "source");
        }
        assert_eq!(way(sink_at, user_limit() + PAGE_SIZE, 8), 0);
        assert_eq!(way(sink_at, 1 << 63, 8), 0);
        assert_eq!(way(sink_at, good, 2 * PAGE_SIZE), 2 * PAGE_SIZE);
    }
    assert!(sink.iter().all(|b| *b == 7));
    assert!(is_readable(bad.0) && !is_readable(bad.0 + PAGE_SIZE));
}

#[test]
fn faulting_in_is_exact_to_the_page() {
    let bad = Guarded::new();
    for write in [false, true] {
        assert_eq!(fault_in(Segment::new(bad.0 + 100, PAGE_SIZE), write), PAGE_SIZE - 100);
        assert_eq!(fault_in(Segment::new(bad.0 + 100, 50), write), 50);
        assert_eq!(fault_in(Segment::new(bad.0 + PAGE_SIZE, 1), write), 0);
        assert_eq!(fault_in(Segment::new(usize::MAX - 10, 100), write), 0);
    }
}

#[test]
fn bisection_finds_every_prefix() {
    for n in 1..40 {
        for good in 0..=n {
            assert_eq!(good_prefix(n, |k| k <= good), good);
        }
    }
}

#[test]
fn user_space_ends_where_the_kernel_says() {
    let limit = user_limit();
    assert!(is_user_range(Segment::new(limit - 1, 1)) && is_user_range(Segment::new(0, 0)));
    assert!(is_user_range(Segment::new(limit, 0)));
    assert!(!is_user_range(Segment::new(limit, 1)) && !is_user_range(Segment::new(1, usize::MAX)));
}
