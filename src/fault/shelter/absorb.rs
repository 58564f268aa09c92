//! What the SIGBUS handler does about a fault under a guard.

use super::ballast;
use super::claims::{self, Claim, Scope};
use super::extents::{self, EXTENTS, Extent, RESERVED};
use super::turn::{NoTurn, Turn, text};
use crate::abi::PAGE_SIZE;
use crate::fault::threads;
use crate::memory::Segment;
use crate::sys::{maps, memory, remap};
use std::sync::atomic::Ordering;

/// A fault that no copy's fixup knows.
#[derive(Clone, Copy, Debug)]
pub struct Met {
    /// The address that could not be had.
    pub address: usize,
    /// The signal's code.
    pub code: i32,
    /// Log2 of the extent it tells of, or 0.
    pub lsb: u32,
    /// Whether it was a store.
    pub is_store: bool,
}

/// Faults in one extent after which something else than the page is wrong. Threads that come at once have one each.
const AGAIN: u32 = 1 << 12;
/// Faults in one extent after which it is looked up whether its zeroes are still there.
const LOOK: u32 = 4;
/// The largest page there is.
const LARGEST: usize = 1 << 30;

/// Puts the page under zeroes if a guard covers it. `true`: the instruction is to run again. Runs in the handler of SIGBUS, for a code
/// that a fault has.
pub fn absorb(met: Met) -> bool {
    if !matches!(met.code, libc::BUS_ADRERR | libc::BUS_MCEERR_AR) {
        return false;
    }
    let thread = remap::thread();
    if claims::covering(met.address, thread).is_none() {
        return false;
    }
    match Turn::try_take() {
        Ok(mut turn) => in_turn(met, thread, &mut turn),
        Err(NoTurn::Now) => {
            remap::give_way();
            true
        }
        Err(NoTurn::Ever) => false,
    }
}

fn in_turn(met: Met, thread: usize, turn: &mut Turn) -> bool {
    let replaced = match extents::fault_again(met.address, turn) {
        None => None,
        Some((extent, times)) if is_replaced(&extent, times, met.address, turn) => Some(extent),
        Some((_, times)) => return times < AGAIN,
    };
    if let Some(old) = &replaced {
        super::take_out(old, turn);
    }
    let number = replaced.map_or(usize::MAX, |old| old.number);
    let sheltered = shelter(met, thread, number, turn);
    if let Some(old) = &replaced {
        // What was met there is still told.
        let new = sheltered.unwrap_or_default();
        let before = Segment::new(old.seg.addr, old.seg.len.min(new.addr.saturating_sub(old.seg.addr)));
        let behind = old.seg.skip(new.end().saturating_sub(old.seg.addr).min(old.seg.len));
        for seg in [before, behind].into_iter().filter(|seg| seg.len != 0 && extents::len() < EXTENTS) {
            extents::insert(&Extent { seg, kept: 0, is_replaced: true, ..*old }, turn);
        }
    }
    sheltered.is_some()
}

/// Whether something else is mapped by now where an extent was put under zeroes: its file was unmapped by whoever had mapped it.
fn is_replaced(extent: &Extent, times: u32, address: usize, turn: &mut Turn) -> bool {
    let is_to_be_looked_up = times >= LOOK && times.is_power_of_two();
    extent.is_replaced || is_to_be_looked_up && extents::is_replaced(extent, address, turn)
}

/// Puts what is bad around the address under zeroes: which pages.
fn shelter(met: Met, thread: usize, number: usize, turn: &mut Turn) -> Option<Segment> {
    // Asked anew: from now on no guard ends unseen.
    let (claim, scope) = claims::covering(met.address, thread)?;
    let (range, is_writable) = range(claim, scope, met, turn)?;
    let gap = extents::gap(met.address, turn);
    let room = both(range, gap);
    let page = met.address / PAGE_SIZE * PAGE_SIZE;
    let is_writable = is_writable || is_writable_there(page, met);
    let mut zeroes = Zeroes { met, thread, is_writable, number, is_kept: true };
    let seg = extent(claim, met, room, turn);
    if extents::len() == 0 {
        ballast::make(turn);
    }
    let has_room = ballast::is_there() && extents::len() < EXTENTS - RESERVED;
    let mut done = if has_room { zeroes.put_in_units(seg, gap, turn) } else { Err(libc::ENOMEM) };
    if has_room && done == Err(libc::ENOMEM) {
        done = zeroes.put_without_ballast(seg, turn);
    }
    if done == Err(libc::ENOMEM) {
        done = take_rest(zeroes, range, turn);
    }
    let seg = done.ok()?;
    remember(claim, seg);
    Some(seg)
}

/// The range that a fault is in, and whether it is known to be writable. `None` if it is in none: not in a mapped file.
fn range(claim: &Claim, scope: Scope, met: Met, turn: &mut Turn) -> Option<(Segment, bool)> {
    if let Scope::Pages(seg, is_writable) = scope {
        return Some((seg, is_writable));
    }
    let (last, is_writable) = claim.mapping(turn);
    // Poison may be in anonymous memory that is mapped where the file was.
    if met.code == libc::BUS_ADRERR && last.overlaps(Segment::new(met.address, 1)) {
        return Some((last, is_writable));
    }
    let found =
        maps::at(met.address, text(turn), |mapping| mapping.is_of_file().then_some((mapping.seg, mapping.is_writable)));
    let (seg, is_writable) = found?;
    claim.set_mapping(seg, is_writable, turn);
    Some((seg, is_writable))
}

/// Whether stores to a page are allowed: one that was tried was; otherwise the kernel is asked, which costs a second attempt to have
/// the page if they are, and nothing if they are not.
fn is_writable_there(page: usize, met: Met) -> bool {
    met.is_store || !matches!(memory::populate(page, 1, true), Err(libc::EINVAL | libc::ENOMEM))
}

fn both(a: Segment, b: Segment) -> Segment {
    let start = a.addr.max(b.addr);
    Segment::new(start, a.end().min(b.end()).saturating_sub(start))
}

/// The aligned block of a size around an address.
fn block(address: usize, size: usize) -> Segment {
    let start = address & !(size - 1);
    Segment::new(start, size.min(usize::MAX - start))
}

/// What goes under zeroes: what the signal tells of, or a page. Behind the end of a file it is twice as much each time.
fn extent(claim: &Claim, met: Met, room: Segment, turn: &mut Turn) -> Segment {
    let size = 1_usize.checked_shl(met.lsb).unwrap_or(PAGE_SIZE).clamp(PAGE_SIZE, LARGEST);
    let page = block(met.address, if met.code == libc::BUS_MCEERR_AR { size } else { PAGE_SIZE });
    let lost = if met.code == libc::BUS_ADRERR && is_to_be_asked(claim, page) {
        maps::behind_file(page.addr, text(turn))
    } else {
        None
    };
    let Some(lost) = lost else {
        claim.growth.store(0, Ordering::Relaxed);
        return both(page, room);
    };
    let growth = claim.growth.load(Ordering::Relaxed) + 1;
    claim.growth.store(growth, Ordering::Relaxed);
    let wide = PAGE_SIZE.checked_shl(growth).filter(|wide| wide.is_power_of_two()).unwrap_or(usize::MAX / 2 + 1);
    both(both(block(met.address, wide), lost), room)
}

/// Whether to find out how far a file reaches, which takes longer than a fault: of few faults in many, unless the answer to the last one
/// was that they are behind its end.
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

/// How extents are put under zeroes for one fault.
struct Zeroes {
    met: Met,
    thread: usize,
    is_writable: bool,
    /// The least of the numbers of extents given up for this one.
    number: usize,
    /// Whether the pages are kept aside.
    is_kept: bool,
}

impl Zeroes {
    /// Puts an extent under zeroes and enters it into the table.
    fn put(&self, seg: Segment, turn: &Turn) -> Result<(), i32> {
        if extents::len() == EXTENTS {
            return Err(libc::ENOSPC);
        }
        // Before the first zero can be read: whoever counts bytes looks whether another epoch has begun.
        let _ = threads::invalidate_all();
        // SAFETY: a guard covers the range, and whoever asked for it bears that its pages are read anew or as zeroes.
        let keep_aside = || unsafe { remap::keep_aside(seg) };
        let kept = match if self.is_kept { keep_aside() } else { Ok(0) } {
            Err(libc::EINVAL) => 0,
            kept => kept?,
        };
        // SAFETY: the pages were kept aside, or the mapping is of a kind whose guard is told that they are not.
        let is_marked = match unsafe { remap::map_zeroes(seg, self.is_writable) } {
            Ok(is_marked) => is_marked,
            Err(errno) => {
                if kept != 0 {
                    // SAFETY: just kept aside; over the range the mapping is still there, empty.
                    let _ = unsafe { remap::put_back(kept, seg) };
                }
                return Err(errno);
            }
        };
        let Met { code, lsb, is_store, .. } = self.met;
        let entry = Extent {
            seg,
            kept,
            thread: self.thread,
            number: self.number,
            code,
            lsb,
            is_store,
            is_marked,
            is_replaced: false,
        };
        extents::insert(&entry, turn);
        Ok(())
    }

    /// The same where there is no room for it. If it is addresses that there may be no more of (`RLIMIT_AS`), and not mappings, nothing can be
    /// kept aside: these zeroes stay.
    #[cold]
    fn put_without_ballast(&mut self, seg: Segment, turn: &Turn) -> Result<Segment, i32> {
        ballast::drop(turn);
        let mut done = self.put(seg, turn);
        if done == Err(libc::ENOMEM) {
            self.is_kept = false;
            done = self.put(seg, turn);
            self.is_kept = true;
            ballast::make(turn);
        }
        done.map(|()| seg)
    }

    /// The same in the least unit that the mapping can be split in: some are of large pages.
    fn put_in_units(&self, seg: Segment, gap: Segment, turn: &Turn) -> Result<Segment, i32> {
        let mut size = seg.len;
        let mut part = seg;
        loop {
            match self.put(part, turn) {
                Err(libc::EINVAL) if size < LARGEST => {
                    size = (size + 1).next_power_of_two();
                    part = both(block(self.met.address, size), gap);
                }
                done => return done.map(|()| part),
            }
        }
    }
}

/// Where there may be no more mappings, or no more extents: one takes the rest of the range, and those in the rest are given up for it.
#[cold]
fn take_rest(mut zeroes: Zeroes, range: Segment, turn: &mut Turn) -> Result<Segment, i32> {
    ballast::drop(turn);
    let start = zeroes.met.address / PAGE_SIZE * PAGE_SIZE;
    let mut rest = Segment::new(start, range.end() - start);
    zeroes.number = zeroes.number.min(super::give_up(rest, turn));
    rest = both(rest, extents::gap(start, turn));
    loop {
        match zeroes.put(rest, turn) {
            // It is in several mappings: that of the fault is the first. Or there may be no more of so many addresses.
            Err(libc::EFAULT | libc::ENOMEM) if rest.len > PAGE_SIZE => {
                rest.len = (rest.len / 2).next_multiple_of(PAGE_SIZE);
            }
            done => return done.map(|()| rest),
        }
    }
}
