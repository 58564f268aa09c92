//! EFAULT told apart: how much of the memory ahead is good, and what is wrong with the rest.

use super::{Failure, Result};
use crate::abi::{Direction, MAX_RW_COUNT, PAGE_SIZE, UIO_MAXIOV};
use crate::fault::{Fault, shelter};
use crate::iter::IovIter;
use std::ops::ControlFlow;

/// One call of a whole transfer, for at most `limit` bytes, that stops exactly at bad memory.
///
/// A call over memory that is bad somewhere may fail as a whole, though its first bytes are good: a socket drops the
/// chunk that a fault was met in, a pipe the page. So a call that fails with EFAULT is made again for the good bytes
/// only, and one with no good byte ahead fails with [`Failure::Fault`]. EFAULT for another reason stays what it is.
pub fn whole<T>(i: &mut IovIter, limit: usize, mut call: impl FnMut(&mut IovIter, usize) -> Result<T>) -> Result<T> {
    // Under a guard of other code, what the kernel would take may be zeroes in place of bad memory.
    if shelter::is_empty() {
        match call(i, limit) {
            Err(Failure::Errno(libc::EFAULT)) => {}
            done => return done,
        }
    }
    let good = good_prefix(i, limit);
    if good != 0 {
        return call(i, good);
    }
    let Some(fault) = fault_ahead(i) else { return Err(Failure::Errno(libc::EFAULT)) };
    let fault = Box::new(fault);
    i.fault = Some(fault.clone());
    Err(Failure::Fault(fault))
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

/// What is wrong with the first byte ahead; nothing if there is none.
fn fault_ahead(i: &IovIter) -> Option<Fault> {
    let mut first = None;
    i.pieces(i.count().min(PAGE_SIZE), |piece| {
        first = Some(piece.seg.addr);
        ControlFlow::Break(())
    });
    let (own, at) = (0_u8, first?);
    // Beside memory that can be read for certain, the destination is the side at fault.
    let readable = (&raw const own).expose_provenance();
    Some(match i.direction() {
        Direction::Dest => Fault::diagnose(at, readable),
        Direction::Source => Fault::diagnose(readable, at),
    })
}
