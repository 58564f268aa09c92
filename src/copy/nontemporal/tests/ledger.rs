//! Copies that are longer than any memory, over a ledger that records ranges and accesses no memory.

use super::copy_flat;
use crate::arch::LINE;
use crate::copy::chunk::CopyChunk;
use crate::copy::nontemporal::gather::BUFFER_SIZE;
use crate::copy::nontemporal::{Flush, LineStore, Remainder, Scatter};

/// A [`LineStore`] that records ranges and accesses no memory.
#[derive(Default)]
struct Ledger {
    next: usize,
    streamed: usize,
    cached: usize,
    written_back: usize,
    /// Whether the handler is lost, so that non-temporal stores may not be used.
    is_handler_lost: bool,
    /// Whether the handler gets lost during a non-temporal copy.
    loses_handler: bool,
}

impl Ledger {
    fn follow(&mut self, dst: usize, len: usize) {
        assert!(self.next == 0 || self.next == dst, "a gap at {dst:#x}");
        self.next = dst + len;
    }
}

impl LineStore for Ledger {
    fn can_bypass(&self, _flush: Flush) -> bool {
        !self.is_handler_lost
    }

    unsafe fn load(&mut self, _own: usize, _src: usize, _len: usize) -> usize {
        0
    }

    unsafe fn store(&mut self, dst: usize, _src: usize, len: usize) -> usize {
        self.follow(dst, len);
        self.cached += len;
        0
    }

    unsafe fn nontemporal(
        &mut self,
        dst: usize,
        _src: usize,
        len: usize,
        _finish: impl FnOnce(&mut Self, &Remainder) -> usize,
    ) -> usize {
        self.follow(dst, len);
        self.streamed += len;
        self.is_handler_lost = self.loses_handler;
        0
    }

    unsafe fn write_back(&mut self, _dst: usize, len: usize) -> usize {
        self.written_back += len;
        0
    }

    fn fence(&mut self) {}
}

/// The kernel once kept the length of the unaligned head in 32 bits, so it copied nothing of exactly 4 GiB.
#[test]
fn four_gigabytes_to_an_odd_address_keep_their_head() {
    for len in [(1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 40] {
        for at in [0x10_0000_0001, 0x10_0000_0011, 0x10_0000_003f] {
            let mut ledger = Ledger::default();
            assert_eq!(copy_flat(&mut ledger, Flush::Lines, at, 0x4000, len), 0);
            assert_eq!((ledger.next, ledger.streamed, ledger.cached), (at + len, len, 0), "{at:#x} {len:#x}");
        }
    }
}

/// A long non-temporal copy rechecks the handler. If that is lost, the bytes behind must not be stored non-temporally.
#[test]
fn after_a_lost_handler_nothing_is_stored_nontemporally() {
    let mut ledger = Ledger { loses_handler: true, ..Ledger::default() };
    let mut scatter = Scatter::new(&mut ledger);
    for (at, len) in [(0, 8 * BUFFER_SIZE), (8 * BUFFER_SIZE, LINE)] {
        // SAFETY: a ledger accesses no memory, so any range will do.
        assert_eq!(unsafe { scatter.copy(0x1000 + at, 0x4000 + at, len) }, 0);
    }
    scatter.finish();
    assert_eq!((ledger.streamed, ledger.cached, ledger.written_back), (8 * BUFFER_SIZE, LINE, LINE));
}

#[test]
fn nocache_writes_nothing_back_and_keeps_lines_out_of_the_cache() {
    let mut ledger = Ledger::default();
    assert_eq!(copy_flat(&mut ledger, Flush::None, 0x1004, 0x4000, 8 * BUFFER_SIZE), 0);
    assert_eq!((ledger.cached, ledger.written_back), (64, 0));
    assert_eq!(ledger.streamed, 8 * BUFFER_SIZE - 64);
}
