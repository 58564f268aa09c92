//! Shelter for code that is not ours: a page that cannot be had reads as zeroes until the guard over it ends.
//!
//! The SIGBUS handler asks [`absorb`] about a fault that no copy's fixup knows. If a guard covers the address, the page
//! is moved aside with `mremap(MREMAP_DONTUNMAP)`, zeroes are mapped in its place, an extent is entered into a table,
//! and the instruction runs again. When the last guard over an extent ends, the page goes back over the zeroes with one
//! `mremap`, and the mapping is what it was. All of that happens in a thread's [`Turn`]; in the handler nothing is
//! allocated, waited for or locked, and system calls are made directly.

mod absorb;
mod back;
mod ballast;
mod bus_error;
mod claims;
mod extents;
mod gone;
mod mark;
mod pieces;
mod report;
mod turn;
mod zeroes;

pub(super) use absorb::absorb;
pub(super) use bus_error::BusError;
pub use claims::is_any;
pub use extents::{is_empty, is_idle};
pub use mark::{Mark, clear, fault_at, fault_in};
pub use report::Report;

use super::arm;
use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result, reserve, try_push};
use crate::memory::Segment;
use crate::sys::{kept_open, remap};
use claims::{CLAIMS, Claim, Scope};
use extents::Extent;
use pieces::Pieces;
use report::ReportBuilder;
use std::sync::OnceLock;
use turn::Turn;

/// Memory that a guard is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Where.
    pub seg: Segment,
    /// Whether what is mapped there is known to be writable.
    pub is_writable: bool,
    /// Whether nobody can unmap it until the guard has ended: an export of its buffer pins it.
    pub is_pinned: bool,
}

/// Memory under shelter, until [`Guard::end`] or the end of its life.
pub struct Guard {
    claims: Vec<(&'static Claim, Scope)>,
    /// Set in the turn in which it ends.
    report: OnceLock<Report>,
}

impl Guard {
    /// Shelters every page that the ranges touch. Without any (`None`) every mapped file, for faults of this thread.
    /// Refused where the handler cannot be had, or what it needs.
    ///
    /// # Safety
    /// Until the guard has ended:
    /// * Nobody relies on what is in the memory it covers: no Rust object lies there, and no reference points there.
    ///   Once a page of it cannot be had, it reads as zeroes, and stores to it are lost.
    /// * Nobody unmaps the pages of a range that [is pinned](Range::is_pinned), or maps anything else in their place.
    pub unsafe fn begin(ranges: Option<&[Range]>) -> Result<Self> {
        let scopes = match ranges {
            None => vec![Scope::Thread(remap::thread())],
            Some(ranges) => pages(ranges)?,
        };
        turn::watch_forks(extents::forget_kept);
        let is_all_pinned = scopes.iter().all(|scope| matches!(scope, Scope::Pages { is_pinned: true, .. }));
        // What is held can be put under zeroes, and back, without knowing what else is mapped.
        hold_descriptors().or_else(|error| if is_all_pinned { Ok(()) } else { Err(error) })?;
        let mut guard = Self { claims: Vec::new(), report: OnceLock::new() };
        reserve(&mut guard.claims, scopes.len())?;
        for scope in scopes {
            let claim = claims::take(scope).ok_or(Error::TooManyGuards(CLAIMS))?;
            guard.claims.push((claim, scope));
        }
        // Afterwards: nobody takes the handler away while there are claims.
        arm::require_handler()?;
        Ok(guard)
    }

    /// Bytes that it has met so far.
    pub fn lost(&self) -> usize {
        let turn = Turn::take();
        self.report.get().map_or_else(|| self.extents(&turn).map(|(_, seg)| seg.len).sum(), |report| report.lost)
    }

    /// What it has met so far.
    pub fn report(&self) -> Report {
        let turn = Turn::take();
        let mut report = ReportBuilder::default();
        self.extents(&turn).for_each(|(extent, seg)| report.add(&extent, seg, true));
        report.finish()
    }

    /// What it met, once it has ended.
    pub fn ended(&self) -> Option<&Report> {
        self.report.get()
    }

    /// Ends it and puts back the pages that no other guard is over. `None` if it had ended before.
    pub fn end(&self) -> Option<&Report> {
        if self.report.get().is_some() {
            return None;
        }
        let mut turn = Turn::take();
        if self.report.get().is_some() {
            return None;
        }
        let mut report = ReportBuilder::default();
        self.extents(&turn).for_each(|(extent, seg)| report.add(&extent, seg, false));
        self.claims.iter().for_each(|(claim, _)| claims::free(claim));
        let mut report = report.finish();
        if !is_empty() {
            report.left = self.put_back_all(&mut turn);
        }
        Some(self.report.get_or_init(|| report))
    }

    /// Every extent that it is over, and the part that is in its range, in the order of addresses.
    fn extents(&self, turn: &Turn) -> impl Iterator<Item = (Extent, Segment)> {
        self.claims.iter().flat_map(|(_, scope)| {
            let seg = pages_of(*scope);
            let part = move |extent: Extent| {
                let (start, end) = (extent.seg.addr.max(seg.addr), extent.seg.end().min(seg.end()));
                (extent, Segment::new(start, end - start))
            };
            extents::within(seg, turn).filter(|extent| covers(*scope, extent)).map(part)
        })
    }

    /// Puts back what only this guard was over, and takes it out of the table. Returns the bytes that stay zeroes.
    fn put_back_all(&self, turn: &mut Turn) -> usize {
        let mut left = 0;
        let pieces = &mut Pieces::new(turn);
        for (_, scope) in &self.claims {
            let is_pinned = matches!(scope, Scope::Pages { is_pinned: true, .. });
            let is_over = |extent: &Extent, behind: usize, pieces: &mut Pieces<'_>| {
                let is_over = covers(*scope, extent) && !claims::scopes().any(|other| covers(other, extent));
                if is_over {
                    left += back::put_back(extent, behind, is_pinned, pieces);
                }
                is_over
            };
            extents::remove(pages_of(*scope), pieces, is_over);
        }
        left
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

/// Opens what the handler uses, if this process has not done so: it may not be able to.
fn hold_descriptors() -> Result<()> {
    let process = remap::process();
    if kept_open::ZEROES.is_open_in(process) && kept_open::MAPS.is_open_in(process) {
        return Ok(());
    }
    let _turn = Turn::take();
    kept_open::ZEROES.get().and(kept_open::MAPS.get()).map(drop).map_err(|errno| {
        let reason = std::io::Error::from_raw_os_error(errno);
        Error::os(errno, format!("a guard needs a descriptor of /dev/zero and one of /proc/thread-self/maps: {reason}"))
    })
}

/// The pages that ranges touch, each once. None is longer than the address space: ranges that are have no pages.
fn pages(ranges: &[Range]) -> Result<Vec<Scope>> {
    let mut pages: Vec<(usize, usize, bool, bool)> = Vec::new();
    for Range { seg, is_writable, is_pinned } in ranges {
        let start = seg.addr / PAGE_SIZE * PAGE_SIZE;
        let end = seg.addr.checked_add(seg.len).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        if let Some(end) = end.filter(|_| seg.len != 0) {
            try_push(&mut pages, (start, end, *is_writable, *is_pinned))?;
        }
    }
    pages.sort_unstable();
    pages.dedup_by(|next, range| {
        let touches = next.0 <= range.1 && (next.2, next.3) == (range.2, range.3) || next.0 < range.1;
        if touches {
            // Where they overlap, what is known of one is true of both; but not whether nobody unmaps either.
            *range = (range.0, range.1.max(next.1), range.2 || next.2, range.3 && next.3);
        }
        touches
    });
    let mut scopes = Vec::new();
    reserve(&mut scopes, pages.len())?;
    let scope = |(start, end, is_writable, is_pinned)| Scope::Pages {
        seg: Segment::new(start, end - start),
        is_writable,
        is_pinned,
    };
    scopes.extend(pages.into_iter().map(scope));
    Ok(scopes)
}

/// Where its extents may be.
fn pages_of(scope: Scope) -> Segment {
    match scope {
        Scope::Pages { seg, .. } => seg,
        Scope::Thread(_) => extents::EVERYWHERE,
    }
}

/// Whether a claim of this scope is over an extent.
fn covers(scope: Scope, extent: &Extent) -> bool {
    match scope {
        Scope::Pages { seg, .. } => seg.overlaps(extent.seg),
        Scope::Thread(thread) => extent.thread == thread,
    }
}
