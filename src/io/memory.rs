//! Memory that the kernel must not be given, or does not take: zeroes in place of bad memory, and EFAULT told apart.
//!
//! Inside a guard of other code, bad memory that was met reads as zeroes. The kernel would send these as data, and put
//! data there that is lost when the guard ends. So every system call over an iterator or a ring stops before them
//! ([`clear`]).

use super::{Failure, Result};
use crate::abi::{Direction, MAX_RW_COUNT, PAGE_SIZE, UIO_MAXIOV};
use crate::fault::{Fault, shelter};
use crate::iter::IovIter;
use crate::memory::Segment;
use std::ops::ControlFlow;

/// One call of a whole transfer, for at most `limit` bytes, that stops exactly at bad memory.
///
/// A call over memory that is bad somewhere may fail as a whole, though its first bytes are good: a socket drops the
/// chunk that a fault was met in, a pipe the page. So a call that fails with EFAULT is made again for the good bytes
/// only, and one with no good byte ahead fails with [`Failure::Fault`]. EFAULT for another reason stays what it is.
pub fn whole<T>(i: &mut IovIter, limit: usize, mut call: impl FnMut(&mut IovIter, usize) -> Result<T>) -> Result<T> {
    match call(i, limit) {
        Err(Failure::Errno(libc::EFAULT)) => {}
        done => return done,
    }
    let good = good_prefix(i, limit);
    if good != 0 {
        return call(i, good);
    }
    match next_address(i) {
        Some(at) => Err(fault(i, at)),
        None => Err(Failure::Errno(libc::EFAULT)),
    }
}

/// How many bytes of the segments come before the first that is under zeroes.
pub(super) fn clear(segs: &[Segment]) -> usize {
    let mut before = 0;
    for seg in segs {
        let here = shelter::clear(seg.addr, seg.addr, seg.len);
        before += here;
        if here < seg.len {
            break;
        }
    }
    before
}

/// Bytes from here on, of those one call would take, that can be transferred: faulted in, exact to the page.
fn good_prefix(i: &IovIter, limit: usize) -> usize {
    let write = i.direction() == Direction::Dest;
    let (mut good, mut pieces) = (0, 0);
    i.pieces(limit.min(i.count()).min(MAX_RW_COUNT), |piece| {
        let here = shelter::fault_in(piece.seg, write);
        good += here;
        pieces += 1;
        if here == piece.seg.len && pieces < UIO_MAXIOV { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    good
}

/// Where the first byte ahead is; nowhere if the iterator has none.
fn next_address(i: &IovIter) -> Option<usize> {
    let mut first = None;
    i.pieces(i.count().min(PAGE_SIZE), |piece| {
        first = Some(piece.seg.addr);
        ControlFlow::Break(())
    });
    first
}

/// Why a call got nowhere: what is wrong with the iterator's memory at `at`. The iterator keeps it, too.
pub(super) fn fault(i: &mut IovIter, at: usize) -> Failure {
    let own = 0_u8;
    // Beside memory that can be read for certain, the destination is the side at fault.
    let readable = (&raw const own).expose_provenance();
    let fault = Box::new(match i.direction() {
        Direction::Dest => Fault::diagnose(at, readable),
        Direction::Source => Fault::diagnose(readable, at),
    });
    i.fault = Some(fault.clone());
    Failure::Fault(fault)
}
