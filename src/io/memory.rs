//! Memory that the kernel must not be given, or does not take: zeroes in place of bad memory, and EFAULT told apart.
//!
//! Inside a guard of other code, bad memory that was met reads as zeroes. The kernel would send these as data, and put
//! data there that is lost when the guard ends. So every system call over an iterator or a ring stops before them
//! ([`clear`]).

use super::{Failure, Torn};
use crate::abi::{Direction, MAX_RW_COUNT, UIO_MAXIOV};
use crate::fault::shelter::{self, Mark};
use crate::fault::{Fault, Side};
use crate::iter::IovIter;
use crate::memory::Segment;
use std::ops::ControlFlow;

/// How many of the first `nbytes` bytes of the segments come before the first that is under zeroes, or has been since
/// the mark.
#[inline]
pub(super) fn clear(mark: Mark, segs: &[Segment], nbytes: usize) -> usize {
    if mark.is_undisturbed() { nbytes } else { clear_one_by_one(mark, segs, nbytes) }
}

#[cold]
fn clear_one_by_one(mark: Mark, segs: &[Segment], nbytes: usize) -> usize {
    let mut before = 0;
    for seg in segs {
        let seg = seg.take(nbytes - before);
        let here = mark.clear(seg);
        before += here;
        if here < seg.len {
            break;
        }
    }
    before
}

/// What a call made of the first `nbytes` bytes of the segments, of which not all are clear.
#[cold]
pub(super) fn torn(mark: Mark, segs: &[Segment], nbytes: usize, direction: Direction) -> Torn {
    let good = clear(mark, segs, nbytes);
    Torn { good, wrong: nbytes - good, fault: Box::new(met(mark, segs, good, direction)) }
}

/// What a guard met that has zeroes, or had since the mark, behind the first `good` bytes of the segments.
pub(super) fn met(mark: Mark, segs: &[Segment], good: usize, direction: Direction) -> Fault {
    let mut before = good;
    let bad = segs.iter().find_map(|seg| {
        let rest = seg.skip(before.min(seg.len));
        before -= before.min(seg.len);
        (rest.len != 0).then_some(rest)
    });
    let bad = bad.unwrap_or_default();
    let side = if direction == Direction::Source { Side::Source } else { Side::Destination };
    mark.fault(bad, side).unwrap_or_else(|| Fault::known(side, bad, 0))
}

/// Bytes from here on, of those one call would take, that can be transferred: faulted in, exact to the page.
pub(super) fn good_prefix(i: &IovIter, limit: usize) -> usize {
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

/// Where the byte is that comes after the next `nbytes`; nowhere if the iterator has no memory there.
pub(super) fn address_at(i: &IovIter, nbytes: usize) -> Option<usize> {
    let (mut before, mut found) = (nbytes, None);
    i.pieces(i.count(), |piece| {
        if before < piece.seg.len {
            found = Some(piece.seg.addr + before);
            return ControlFlow::Break(());
        }
        before -= piece.seg.len;
        ControlFlow::Continue(())
    });
    found
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
