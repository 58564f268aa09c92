//! How extents are put under zeroes: the page that cannot be had, and as much around it as there is to be.

use super::bus_error::BusError;
use super::extents::{self, EXTENTS, Extent};
use super::pieces::Pieces;
use super::turn::Turn;
use super::{back, ballast, gone};
use crate::abi::PAGE_SIZE;
use crate::fault::threads;
use crate::memory::Segment;
use crate::sys::{kept_open, remap};

/// The largest page there is.
pub(super) const LARGEST: usize = 1 << 30;

/// What two ranges share.
pub(super) fn intersection(a: Segment, b: Segment) -> Segment {
    let start = a.addr.max(b.addr);
    Segment::new(start, a.end().min(b.end()).saturating_sub(start))
}

/// The aligned block of a size around an address.
pub(super) fn aligned_block(address: usize, size: usize) -> Segment {
    let start = address & !(size - 1);
    Segment::new(start, size.min(usize::MAX - start))
}

/// How extents are put under zeroes for one fault.
pub(super) struct Zeroes {
    pub(super) error: BusError,
    pub(super) thread: usize,
    pub(super) is_writable: bool,
    /// The least of the numbers of extents given up for this one.
    pub(super) number: usize,
    /// Whether the pages are kept aside.
    pub(super) is_kept: bool,
}

impl Zeroes {
    /// Puts an extent under zeroes and enters it into the table.
    fn put(&self, seg: Segment, turn: &Turn) -> Result<(), i32> {
        if extents::len() == EXTENTS {
            return Err(libc::ENOSPC);
        }
        // Before the first zero can be read: whoever counts bytes looks whether another epoch has begun.
        let _ = threads::invalidate_all();
        // SAFETY: a guard covers the range: whoever called `Guard::begin` has promised that nobody relies on what is in
        // it.
        let keep_aside = || unsafe { remap::keep_aside(seg) };
        let kept = match if self.is_kept { keep_aside() } else { Ok(0) } {
            Err(libc::EINVAL) => 0,
            kept => kept?,
        };
        let zeroes = kept_open::ZEROES.get().ok();
        // SAFETY: the pages were kept aside, or the mapping is of a kind whose guard is told that they are not.
        if let Err(errno) = unsafe { remap::map_zeroes(seg, self.is_writable, zeroes) } {
            if kept != 0 {
                // SAFETY: just kept aside; over the range the mapping is still there, empty.
                let _ = unsafe { remap::put_back(kept, seg, seg.len) };
            }
            return Err(errno);
        }
        let BusError { code, lsb, is_store, .. } = self.error;
        let entry = Extent {
            seg,
            kept,
            thread: self.thread,
            number: self.number,
            code,
            lsb,
            is_store,
            is_marked: zeroes.is_some(),
            is_replaced: false,
        };
        extents::insert(&entry, turn);
        Ok(())
    }

    /// The same where there is no room for it. If it is addresses that there may be no more of (`RLIMIT_AS`), and not
    /// mappings, nothing can be kept aside: these zeroes stay.
    #[cold]
    pub(super) fn put_without_ballast(&mut self, seg: Segment, turn: &Turn) -> Result<Segment, i32> {
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
    pub(super) fn put_in_units(&self, seg: Segment, gap: Segment, turn: &Turn) -> Result<Segment, i32> {
        let mut size = seg.len;
        let mut part = seg;
        loop {
            match self.put(part, turn) {
                Err(libc::EINVAL) if size < LARGEST => {
                    size = (size + 1).next_power_of_two();
                    part = intersection(aligned_block(self.error.address, size), gap);
                }
                done => return done.map(|()| part),
            }
        }
    }
}

/// Where there may be no more mappings, or no more extents: one takes the rest of the range, and those in the rest are
/// given up for it. Where there may be no more addresses to keep even a page aside, the least that does is zeroes for
/// good.
#[cold]
pub(super) fn take_rest(
    mut zeroes: Zeroes,
    least: Segment,
    range: Segment,
    pieces: &mut Pieces<'_>,
) -> Result<Segment, i32> {
    ballast::drop(pieces.turn());
    let start = zeroes.error.address / PAGE_SIZE * PAGE_SIZE;
    let mut rest = Segment::new(start, range.end() - start);
    let given_up = give_up(rest, pieces);
    let first = gone::last(given_up, pieces.turn()).map(|extent| extent.number).min();
    zeroes.number = zeroes.number.min(first.unwrap_or(usize::MAX));
    rest = intersection(rest, extents::gap(start, pieces.turn()));
    loop {
        match zeroes.put(rest, pieces.turn()) {
            // It is in several mappings: that of the fault is the first. Or there may be no more of so many addresses.
            Err(libc::EFAULT | libc::ENOMEM) if rest.len > PAGE_SIZE => {
                rest.len = (rest.len / 2).next_multiple_of(PAGE_SIZE);
            }
            Err(libc::ENOMEM) if zeroes.is_kept => {
                zeroes.is_kept = false;
                rest = least;
            }
            Err(errno) => return Err(errno),
            Ok(()) => break,
        }
    }
    // What was met there, and is not covered, is still told.
    let uncovered = |extent: Extent| Extent {
        seg: extent.seg.skip(rest.end().saturating_sub(extent.seg.addr)),
        is_replaced: true,
        ..extent
    };
    let told = gone::last(given_up, pieces.turn()).map(uncovered).filter(|extent| extent.seg.len != 0);
    told.take(EXTENTS - extents::len()).for_each(|extent| extents::insert(&extent, pieces.turn()));
    Ok(rest)
}

/// Puts back every extent in a range that can be, for a larger one to take their place. Returns how many.
fn give_up(seg: Segment, pieces: &mut Pieces<'_>) -> usize {
    let mut given_up = 0;
    let is_over = |extent: &Extent, _: usize, pieces: &mut Pieces<'_>| {
        let is_within = seg.addr <= extent.seg.addr && extent.seg.end() <= seg.end();
        let is_over = is_within && back::put_back_whole(extent, pieces);
        given_up += usize::from(is_over);
        is_over
    };
    extents::remove(seg, pieces, is_over);
    given_up
}
