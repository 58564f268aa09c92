//! What the SIGBUS handler does about a fault under a guard.

use super::bus_error::BusError;
use super::claims::{self, Claim, Scope};
use super::extents::{self, EXTENTS, Extent, RESERVED};
use super::pieces::Pieces;
use super::turn::{NoTurn, Turn};
use super::zeroes::{self, LARGEST, Zeroes, aligned_block, intersection};
use super::{back, ballast};
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use crate::sys::maps::Mapping;
use crate::sys::{memory, remap};
use std::sync::atomic::Ordering;

/// Faults in one extent after which something else than the page is wrong. Threads that come at once have one each.
const AGAIN: u32 = 1 << 12;
/// Faults in one extent after which it is looked up whether its zeroes are still there.
const LOOK: u32 = 4;

/// Puts the page under zeroes if a guard covers it. `true`: the instruction is to run again. Runs in the handler of
/// SIGBUS, for a code that a fault has.
pub(in crate::fault) fn absorb(error: BusError) -> bool {
    if !matches!(error.code, libc::BUS_ADRERR | libc::BUS_MCEERR_AR) {
        return false;
    }
    let thread = remap::thread();
    if claims::covering(error.address, thread).is_none() {
        return false;
    }
    match Turn::try_take() {
        Ok(mut turn) => in_turn(error, thread, &mut turn),
        Err(NoTurn::Now) => {
            remap::give_way();
            true
        }
        Err(NoTurn::Ever) => false,
    }
}

fn in_turn(error: BusError, thread: usize, turn: &mut Turn) -> bool {
    let pieces = &mut Pieces::new(turn);
    let replaced = match extents::fault_again(error.address, pieces.turn()) {
        None => None,
        Some((extent, times)) if is_replaced(&extent, times, error.address, pieces) => Some(extent),
        Some((_, times)) => return times < AGAIN,
    };
    let left = replaced.map_or(0, |old| take_out(&old, pieces));
    let number = replaced.map_or(usize::MAX, |old| old.number);
    let sheltered = shelter(error, thread, number, pieces);
    if let Some(old) = &replaced {
        // What was met there is still told.
        let new = sheltered.unwrap_or_default();
        let before = Segment::new(old.seg.addr, old.seg.len.min(new.addr.saturating_sub(old.seg.addr)));
        let behind = old.seg.skip(new.end().saturating_sub(old.seg.addr).min(old.seg.len));
        for seg in [before, behind].into_iter().filter(|seg| seg.len != 0 && extents::len() < EXTENTS) {
            extents::insert(&Extent { seg, kept: 0, is_replaced: left == 0, ..*old }, pieces.turn());
        }
    }
    sheltered.is_some()
}

/// Whether something else is mapped by now where an extent was put under zeroes: its file was unmapped by whoever had
/// mapped it.
fn is_replaced(extent: &Extent, times: u32, address: usize, pieces: &mut Pieces<'_>) -> bool {
    let is_to_be_looked_up = times >= LOOK && times.is_power_of_two();
    extent.is_replaced || is_to_be_looked_up && pieces.is_replaced(extent, address)
}

/// Takes an extent out of the table, some of whose zeroes are known to be gone. The rest goes back. Returns the bytes
/// that stay zeroes.
fn take_out(extent: &Extent, pieces: &mut Pieces<'_>) -> usize {
    let mut left = 0;
    let is_it = |found: &Extent, behind: usize, pieces: &mut Pieces<'_>| {
        let is_it = found.seg == extent.seg;
        if is_it {
            left = back::put_back(found, behind, false, pieces);
        }
        is_it
    };
    extents::remove(extent.seg, pieces, is_it);
    left
}

/// Puts what is bad around the address under zeroes: which pages.
fn shelter(error: BusError, thread: usize, number: usize, pieces: &mut Pieces<'_>) -> Option<Segment> {
    // Asked anew: from now on no guard ends unseen.
    let (claim, scope) = claims::covering(error.address, thread)?;
    let (range, is_writable) = range(claim, scope, error, pieces)?;
    let gap = extents::gap(error.address, pieces.turn());
    let room = intersection(range, gap);
    let page = error.address / PAGE_SIZE * PAGE_SIZE;
    let is_writable = is_writable || is_writable_there(page, error);
    let mut zeroes = Zeroes { error, thread, is_writable, number, is_kept: true };
    let seg = extent(claim, error, room, pieces);
    if extents::len() == 0 {
        ballast::make(pieces.turn());
    }
    // Where addresses are limited, it is they that the ballast lacks.
    let has_mappings = ballast::is_there() || remap::are_addresses_limited();
    let has_room = has_mappings && extents::len() < EXTENTS - RESERVED;
    let mut done = if has_room { zeroes.put_in_units(seg, gap, pieces.turn()) } else { Err(libc::ENOMEM) };
    if has_room && done == Err(libc::ENOMEM) {
        done = zeroes.put_without_ballast(seg, pieces.turn());
    }
    if done == Err(libc::ENOMEM) {
        done = zeroes::take_rest(zeroes, seg, range, pieces);
    }
    let seg = done.ok()?;
    remember(claim, seg);
    Some(seg)
}

/// The range that a fault is in, and whether it is known to be writable. `None` if it is in none: not in a mapped file.
fn range(claim: &Claim, scope: Scope, error: BusError, pieces: &mut Pieces<'_>) -> Option<(Segment, bool)> {
    if let Scope::Pages { seg, is_writable, .. } = scope {
        return Some((seg, is_writable));
    }
    let (last, is_writable) = claim.mapping(pieces.turn());
    // Poison may be in anonymous memory that is mapped where the file was.
    if error.code == libc::BUS_ADRERR && last.overlaps(Segment::new(error.address, 1)) {
        return Some((last, is_writable));
    }
    let mapping = pieces.at(error.address).filter(Mapping::is_of_file)?;
    let (seg, is_writable) = (mapping.seg, mapping.is_writable);
    claim.set_mapping(seg, is_writable, pieces.turn());
    Some((seg, is_writable))
}

/// Whether stores to a page are allowed: one that was tried was; otherwise the kernel is asked, which costs a second
/// attempt to have the page if they are, and nothing if they are not.
fn is_writable_there(page: usize, error: BusError) -> bool {
    error.is_store || !matches!(memory::populate(page, 1, true), Err(libc::EINVAL | libc::ENOMEM))
}

/// What goes under zeroes: what the signal tells of, or a page. Behind the end of a file it is twice as much each time.
fn extent(claim: &Claim, error: BusError, room: Segment, pieces: &mut Pieces<'_>) -> Segment {
    let size = 1_usize.checked_shl(error.lsb).unwrap_or(PAGE_SIZE).clamp(PAGE_SIZE, LARGEST);
    let page = aligned_block(error.address, if error.code == libc::BUS_MCEERR_AR { size } else { PAGE_SIZE });
    let lost = if error.code == libc::BUS_ADRERR && is_to_be_asked(claim, page) {
        pieces.at(page.addr).and_then(|mapping| mapping.behind_file()).filter(|lost| lost.overlaps(page))
    } else {
        None
    };
    let Some(lost) = lost else {
        claim.growth.store(0, Ordering::Relaxed);
        return intersection(page, room);
    };
    let growth = claim.growth.load(Ordering::Relaxed) + 1;
    claim.growth.store(growth, Ordering::Relaxed);
    let wide = PAGE_SIZE.checked_shl(growth).filter(|wide| wide.is_power_of_two()).unwrap_or(usize::MAX / 2 + 1);
    intersection(intersection(aligned_block(error.address, wide), lost), room)
}

/// Whether to find out how far a file reaches, which takes longer than a fault: of few faults in many, unless the
/// answer to the last one was that they are behind its end.
fn is_to_be_asked(claim: &Claim, page: Segment) -> bool {
    let faults = claim.faults.fetch_add(1, Ordering::Relaxed) + 1;
    let [start, end] = claim.last.each_ref().map(|end| end.load(Ordering::Relaxed));
    let goes_on = page.addr == end || page.end() == start;
    let run = if goes_on { claim.run.load(Ordering::Relaxed) + 1 } else { 1 };
    claim.run.store(run, Ordering::Relaxed);
    let is_one_of_few = |count: u32| count > 1 && count.is_power_of_two();
    let is_fourth = faults.trailing_zeros().is_multiple_of(2);
    claim.growth.load(Ordering::Relaxed) > 0 || is_fourth && is_one_of_few(faults) || is_one_of_few(run)
}

fn remember(claim: &Claim, seg: Segment) {
    for (end, now) in claim.last.iter().zip([seg.addr, seg.end()]) {
        end.store(now, Ordering::Relaxed);
    }
}
