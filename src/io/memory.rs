//! Bad memory under a system call: how far the memory before it reaches, and the fault that describes it.
//!
//! Two things can be wrong. The kernel may refuse an address with EFAULT: the functions here find the first bad byte.
//! Or a guard ([`shelter`]) has replaced a bad page by zeroes: the kernel would transfer those zeroes as data, or store
//! data in them that is lost when the guard ends. So every system call over an iterator or a ring stops before such
//! pages ([`clear`]).

use super::{Failure, Torn};
use crate::abi::{Direction, MAX_RW_COUNT, UIO_MAXIOV};
use crate::fault::shelter::{self, Mark};
use crate::fault::{Fault, Side};
use crate::iter::IovIter;
use crate::memory::Segment;
use std::ops::ControlFlow;

/// How many of the first `nbytes` bytes of the segments come before the first one that is replaced by a guard's zeroes,
/// or was at any moment since the mark.
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

/// The outcome of a call that transferred the first `nbytes` bytes of the segments, not all of which are clear.
#[cold]
pub(super) fn torn(mark: Mark, segs: &[Segment], nbytes: usize, direction: Direction) -> Torn {
    let good = clear(mark, segs, nbytes);
    Torn { good, wrong: nbytes - good, fault: Box::new(zeroes_fault(mark, segs, good, direction)) }
}

/// The fault of the first page behind the first `good` bytes of the segments that a guard replaced by zeroes.
pub(super) fn zeroes_fault(mark: Mark, segs: &[Segment], good: usize, direction: Direction) -> Fault {
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

/// How many of the next bytes, at most `limit` and what one call takes, can be faulted in. The end is exact to the
/// page.
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

/// The address of the byte after the next `nbytes`; `None` if the iterator has no memory there.
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

/// The failure of a call that transferred nothing because of the iterator's memory at `at`. `i.fault` gets the fault,
/// too.
pub(super) fn fault(i: &mut IovIter, at: usize) -> Failure {
    let own = 0_u8;
    // `diagnose` looks at two addresses. The other one is a local variable, so the fault is found on the iterator's
    // side.
    let readable = (&raw const own).expose_provenance();
    let fault = Box::new(match i.direction() {
        Direction::Dest => Fault::diagnose(at, readable),
        Direction::Source => Fault::diagnose(readable, at),
    });
    i.fault = Some(fault.clone());
    Failure::Fault(fault)
}
