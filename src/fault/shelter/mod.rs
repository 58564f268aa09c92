//! Shelter for code that is not ours: a page that cannot be had reads as zeroes until the guard over it ends.
//!
//! The SIGBUS handler asks [`absorb`] about a fault that no copy's fixup knows. If a guard covers the address, the page is moved
//! aside with `mremap(MREMAP_DONTUNMAP)`, zeroes are mapped in its place, an extent is entered into a table, and the instruction
//! runs again. When the last guard over an extent ends, the page goes back over the zeroes with one `mremap`, and the mapping is
//! what it was. All of that happens in a thread's [`Turn`]; in the handler nothing is allocated, waited for or locked, and system
//! calls are made directly.

mod absorb;
mod ballast;
mod claims;
mod extents;
mod gone;
mod mark;
mod report;
mod turn;

pub use absorb::{Met, absorb};
pub use mark::Mark;
pub use report::Report;

use super::{Fault, arm, threads};
use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::memory::Segment;
use crate::sys::{memory, remap};
use claims::{CLAIMS, Held, Scope};
use extents::Extent;
use report::Collected;
use turn::Turn;

/// Memory that a guard is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Where.
    pub seg: Segment,
    /// Whether what is mapped there is known to be writable.
    pub is_writable: bool,
}

/// Memory under shelter, until [`Guard::end`] or the end of its life.
pub struct Guard(Vec<(Held, Scope)>);

impl Guard {
    /// Shelters every page that the ranges touch. Without any (`None`) every mapped file, for faults of this thread. Refused where
    /// the handler cannot be had.
    pub fn begin(ranges: Option<&[Range]>) -> Result<Self> {
        arm::require_handler()?;
        turn::watch_forks(extents::forget_kept);
        let scopes = match ranges {
            None => vec![Scope::Thread(remap::thread())],
            Some(ranges) => pages(ranges),
        };
        let held = scopes.into_iter().map(|scope| Some((Held::new(scope)?, scope)));
        held.collect::<Option<_>>().map(Self).ok_or(Error::TooManyGuards(CLAIMS))
    }

    /// What it has met so far.
    pub fn report(&self) -> Report {
        if is_idle() {
            return Report::default();
        }
        let turn = Turn::take();
        let mut report = Collected::default();
        for (_, scope) in &self.0 {
            collect(*scope, &turn, &mut report);
        }
        report.finish(false)
    }

    /// Ends it, puts back the pages that no other guard is over, and tells what it met.
    pub fn end(mut self) -> Report {
        end(std::mem::take(&mut self.0))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        end(std::mem::take(&mut self.0));
    }
}

/// Whether there is nothing under zeroes.
pub fn is_empty() -> bool {
    extents::len() == 0
}

/// How many of the `len` bytes at both addresses come before the first on either side that is under zeroes.
pub fn clear(dst: usize, src: usize, len: usize) -> usize {
    let mark = Mark::now();
    mark.clear(Segment::new(src, len)).min(mark.clear(Segment::new(dst, len)))
}

/// Faults a range in, to read or to write: how many bytes from its start on can be had, none of them under zeroes.
pub fn fault_in(seg: Segment, write: bool) -> usize {
    let mark = Mark::now();
    mark.clear(seg.take(memory::fault_in(seg, write)))
}

/// What is under zeroes at one of two addresses, the source's first.
pub fn fault_at(dst: usize, src: usize) -> Option<Fault> {
    Mark::now().fault_at(dst, src)
}

/// Whether there is nothing under zeroes, and nobody about to put anything there.
pub fn is_idle() -> bool {
    // In this order: what a turn that was over by then had put there is counted.
    !Turn::is_taken() && extents::len() == 0
}

fn end(claims: Vec<(Held, Scope)>) -> Report {
    for (held, _) in &claims {
        held.leave();
    }
    if is_idle() {
        return Report::default();
    }
    let mut turn = Turn::take();
    let mut report = Collected::default();
    let told = |(held, scope): (Held, Scope)| {
        collect(scope, &turn, &mut report);
        drop(held);
        scope
    };
    let scopes: Vec<_> = claims.into_iter().map(told).collect();
    report.left = put_back_all(&scopes, &mut turn);
    drop(turn);
    report.finish(true)
}

/// Adds every extent that a claim covers, as far as it is in its range.
fn collect(scope: Scope, turn: &Turn, report: &mut Collected) {
    let seg = pages_of(scope);
    for extent in extents::within(seg, turn).filter(|extent| covers(scope, extent)) {
        let (start, end) = (extent.seg.addr.max(seg.addr), extent.seg.end().min(seg.end()));
        report.add(&extent, Segment::new(start, end - start));
    }
}

/// Puts back what only these claims were over, and takes it out of the table. Returns the bytes that stay zeroes.
fn put_back_all(scopes: &[Scope], turn: &mut Turn) -> usize {
    let mut left = 0;
    let has_told = extents::check(turn);
    for scope in scopes {
        // What somebody holds exported is not unmapped; a thread's files are anybody's.
        let is_held = matches!(scope, Scope::Pages(..));
        let is_over = |extent: &Extent, is_under_zeroes: bool| {
            let is_over = covers(*scope, extent) && !claims::scopes().any(|other| covers(other, extent));
            let is_known = has_told && extent.is_marked;
            if is_over && !put_back(extent, if is_known { is_under_zeroes } else { is_held }, turn) {
                left += extent.seg.len;
            }
            is_over
        };
        extents::remove(pages_of(*scope), is_over, turn);
    }
    if extents::len() == 0 {
        ballast::drop(turn);
    }
    left
}

/// The pages that ranges touch, each once. None is longer than the address space: ranges that are have no pages.
fn pages(ranges: &[Range]) -> Vec<Scope> {
    let page = |range: &Range| {
        let start = range.seg.addr / PAGE_SIZE * PAGE_SIZE;
        let end = range.seg.addr.checked_add(range.seg.len)?.checked_next_multiple_of(PAGE_SIZE)?;
        (range.seg.len != 0).then_some((start, end, range.is_writable))
    };
    let mut pages: Vec<_> = ranges.iter().filter_map(page).collect();
    pages.sort_unstable();
    pages.dedup_by(|next, range| {
        let touches = next.0 <= range.1 && next.2 == range.2 || next.0 < range.1;
        if touches {
            // Where they overlap, the one that says more is right.
            *range = (range.0, range.1.max(next.1), range.2 || next.2);
        }
        touches
    });
    pages
        .into_iter()
        .map(|(start, end, is_writable)| Scope::Pages(Segment::new(start, end - start), is_writable))
        .collect()
}

/// Where its extents may be.
fn pages_of(scope: Scope) -> Segment {
    match scope {
        Scope::Pages(seg, _) => seg,
        Scope::Thread(_) => extents::EVERYWHERE,
    }
}

/// Whether a claim of this scope is over an extent.
fn covers(scope: Scope, extent: &Extent) -> bool {
    match scope {
        Scope::Pages(seg, _) => seg.overlaps(extent.seg),
        Scope::Thread(thread) => extent.thread == thread,
    }
}

/// Puts an extent's pages back, over its own zeroes only. Whether the mapping is what it was.
fn put_back(extent: &Extent, is_under_zeroes: bool, turn: &Turn) -> bool {
    let is_back = put_back_over(extent, is_under_zeroes, turn);
    // Once it is there: what is read in the new epoch is no zeroes.
    gone::remember(extent, threads::invalidate_all(), turn);
    is_back
}

fn put_back_over(extent: &Extent, is_under_zeroes: bool, turn: &Turn) -> bool {
    let kept = Segment::new(extent.kept, extent.seg.len);
    match (kept.addr, is_under_zeroes) {
        // There is nothing to be put back where there are no zeroes.
        (0, _) => extent.is_replaced,
        (_, true) => {
            // SAFETY: kept aside for this extent, which is being taken out of the table; over it there are its zeroes.
            let put_back = || unsafe { remap::put_back(kept.addr, extent.seg) };
            put_back().is_ok() || ballast::drop(turn) && put_back().is_ok()
        }
        // Somebody unmapped the file, and may have mapped something else there since: the pages are nobody's.
        (_, false) => {
            // SAFETY: kept aside for this extent, which is being taken out of the table.
            unsafe { remap::unmap(kept) };
            true
        }
    }
}

/// Takes an extent out of the table whose zeroes are known to be gone, and with it what was kept aside for it.
fn take_out(extent: &Extent, turn: &Turn) {
    let is_it = |found: &Extent, _: bool| found.seg == extent.seg;
    extents::remove(extent.seg, is_it, turn);
    put_back(extent, false, turn);
}

/// Puts back every extent in a range that can be, for a larger one to take their place. Returns the least of their numbers.
fn give_up(seg: Segment, turn: &mut Turn) -> usize {
    let has_told = extents::check(turn);
    let mut first = usize::MAX;
    let is_over = |extent: &Extent, is_under_zeroes: bool| {
        let is_within = seg.addr <= extent.seg.addr && extent.seg.end() <= seg.end();
        let is_over =
            has_told && extent.is_marked && extent.kept != 0 && is_within && put_back(extent, is_under_zeroes, turn);
        if is_over {
            first = first.min(extent.number);
        }
        is_over
    };
    extents::remove(seg, is_over, turn);
    first
}
