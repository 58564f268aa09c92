//! Copies that stop before memory that is known to be bad (`copy_to_iter_mcsafe`, `copy_mc_to_iter`, `memcpy_mcsafe`).
//!
//! The kernel's machine-check-safe copy, the careful copy here, works byte by byte until the source is aligned to a
//! word, then word by word, then byte by byte again. It stops at the first unit that fails; only a word whose *store*
//! fails is retried byte by byte. Where it would stop can be computed. So [`kernel_mc_count`] computes the count, and
//! then that many bytes are copied at full speed.
//!
//! This code only reads maps. A copy returns the fault that stopped it, and the caller adds to the map what [`learned`]
//! makes of that.

use super::bounce::{self, Outcome, same_length};
use super::copier::Copier;
use super::step::ToIter;
use super::{copy_to_iter, memcpy};
use crate::abi::Direction;
use crate::error::Result;
use crate::fault::map::Access;
use crate::fault::map::shared::KnownBad;
use crate::fault::{Cause, Fault, Origin, Side};
use crate::iter::{IovIter, Step};
use crate::memory::{Memory, Segment};

/// What a map can learn from a fault: the bad extent, and the access that it is bad for. `None` if the copy stopped
/// before memory that a map knew already.
pub fn learned(fault: &Fault) -> Option<(Segment, Access)> {
    let access = match (fault.origin, fault.cause(), fault.side) {
        (Origin::Map, _, _) => return None,
        (Origin::Signal | Origin::Syscall, Cause::Poison, _) => Access::Both,
        (Origin::Signal | Origin::Syscall, _, Side::Source) => Access::Read,
        (Origin::Signal | Origin::Syscall, _, Side::Destination) => Access::Write,
    };
    Some((Segment::new(fault.address, fault.length), access))
}

const WORD: usize = 8;

/// How many of `len` bytes the kernel's careful copy copies from `src`, if the first `readable` of them can be read and
/// the first `writable` bytes of the destination can be written.
pub fn kernel_mc_count(src: usize, len: usize, readable: usize, writable: usize) -> usize {
    let lead = if len < WORD { len } else { src.wrapping_neg() % WORD };
    let words = (len - lead) / WORD * WORD;
    // A word that cannot be read whole is not read at all.
    let read = match readable.checked_sub(lead) {
        Some(into) if into < words => lead + into / WORD * WORD,
        _ => readable.min(len),
    };
    // Each unit is read before it is written: a destination that fails in the unit whose source fails is not reached.
    if writable < read { writable } else { read }
}

/// The number of bytes of `seg` before a bad range; all of them if there is none.
fn bytes_before(bad: Option<Segment>, seg: Segment) -> usize {
    bad.map_or(seg.len, |bad| bad.addr.saturating_sub(seg.addr).min(seg.len))
}

/// How many bytes of a chunk the careful copy copies, and the side and bad range that stop it if those are not all.
fn stop_of(
    source: Segment,
    destination: Segment,
    bad_source: Option<Segment>,
    bad_destination: Option<Segment>,
) -> (usize, Option<(Side, Segment)>) {
    let len = source.len;
    let (readable, writable) = (bytes_before(bad_source, source), bytes_before(bad_destination, destination));
    let part = kernel_mc_count(source.addr, len, readable, writable);
    if part == len {
        return (part, None);
    }
    let source_side = bad_source.filter(|_| readable < len).map(|bad| (Side::Source, bad));
    let destination_side = bad_destination.map(|bad| (Side::Destination, bad));
    let stop = if part == writable && writable < readable {
        destination_side.or(source_side)
    } else {
        source_side.or(destination_side)
    };
    (part, stop)
}

/// How many bytes the careful copy copies between two ranges by what the map knows of them, and the side and bad range
/// that stop it if those are not all.
pub(super) fn flat_stop<K: KnownBad + ?Sized>(
    map: &K,
    source: Segment,
    destination: Segment,
) -> (usize, Option<(Side, Segment)>) {
    if map.is_empty() || map.is_clear([(source, Access::Read), (destination, Access::Both)]) {
        return (source.len, None);
    }
    stop_of(source, destination, map.first_bad(source, Access::Read), map.first_bad(destination, Access::Write))
}

/// The step of a careful copy into an iterator: it looks up each chunk in the map before it copies it.
struct Careful<'m, K: ?Sized> {
    inner: ToIter<'m>,
    /// The address of the source, by which words are aligned, even if the bytes come from a buffer that was read ahead.
    source: usize,
    map: &'m K,
    /// The first known bad range of the source.
    bad_source: Option<Segment>,
    /// Whether any of the destination may be bad. Then each chunk of it is looked up, and none is prefetched.
    is_destination_bad: bool,
    stop: Option<(Side, Segment)>,
}

impl<K: KnownBad + ?Sized> Step for Careful<'_, K> {
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize {
        let (source, destination) = (Segment::new(self.source + progress, len), Segment::new(addr, len));
        let is_asked = self.is_destination_bad;
        let bad_destination = if is_asked { self.map.first_bad(destination, Access::Write) } else { None };
        let (part, stop) = stop_of(source, destination, self.bad_source, bad_destination);
        let left = if part == 0 { 0 } else { self.inner.step(addr, progress, part) };
        if left == 0 && part < len {
            self.stop = stop;
        }
        len - part + left
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch(&mut self, next: Segment) {
        if !self.is_destination_bad {
            self.inner.prefetch(next);
        }
    }
}

/// `copy_to_iter` that stops, before bad memory in the map, where the careful copy would, on either side. For every
/// kind the iterator advances by exactly the bytes copied, and `i.fault` says why the count is short.
#[inline(always)]
#[allow(clippy::inline_always)] // out of line, the range would be loaded right after it was stored, and wait for that
pub fn copy_to_iter_mcsafe<K: KnownBad + ?Sized>(
    src: Memory,
    i: &mut IovIter,
    nbytes: usize,
    map: Option<&K>,
) -> Result<usize> {
    match map {
        Some(map) if !map.is_empty() && !is_clear(map, src.seg(), i) => copy_carefully(src, i, nbytes, map),
        Some(_) | None => copy_to_iter(src, i, nbytes),
    }
}

/// Copies one range to another of the same length, and stops, before bad memory in the map, where the careful copy
/// would. Returns the number of bytes copied, and the fault if that is not all.
pub fn memcpy_mcsafe<K: KnownBad + ?Sized>(dst: Memory, src: Memory, map: Option<&K>) -> Result<Outcome> {
    match map {
        Some(map) if !map.is_empty() && !map.is_clear([(src.seg(), Access::Read), (dst.seg(), Access::Both)]) => {
            let nbytes = same_length(dst, src)?;
            let mut i = IovIter::whole(Direction::Dest, dst);
            Ok((copy_carefully(src, &mut i, nbytes, map)?, i.fault))
        }
        Some(_) | None => memcpy(dst, src),
    }
}

/// How many bytes of the source the careful copy would process if nothing were stored, and the bad range that stops it
/// there.
pub(super) fn readable_part<K: KnownBad + ?Sized>(source: Segment, map: &K) -> (usize, Option<Segment>) {
    let bad = map.first_bad(source, Access::Read);
    (kernel_mc_count(source.addr, source.len, bytes_before(bad, source), source.len), bad)
}

/// Whether a map knows nothing of the source nor of the iterator's memory.
#[inline(never)]
pub(super) fn is_clear<K: KnownBad + ?Sized>(map: &K, src: Segment, i: &IovIter) -> bool {
    map.is_clear([(src, Access::Read), (hull(i), Access::Both)])
}

/// A range that contains all memory of the iterator; the whole address space if that is not known.
fn hull(i: &IovIter) -> Segment {
    i.hull().unwrap_or(Segment::new(0, usize::MAX))
}

#[inline(never)]
fn copy_carefully<K: KnownBad + ?Sized>(src: Memory, i: &mut IovIter, nbytes: usize, map: &K) -> Result<usize> {
    careful_to_iter(src, i, nbytes, map, "copy_to_iter_mcsafe", |copier, src, _, write| write(copier, src, 0))
}

/// A careful copy into an iterator whose source is written by `pass`, in one piece or in several. `pass` gets the part
/// of the source that can be read, the address at which the source was before it was perhaps read ahead, and a function
/// that writes a piece, given the number of bytes written before. Each piece but the last must end at a word boundary
/// of that address. `pass` returns the bytes written.
pub(super) fn careful_to_iter<K: KnownBad + ?Sized>(
    src: Memory,
    i: &mut IovIter,
    nbytes: usize,
    map: &K,
    operation: &'static str,
    pass: impl FnOnce(&mut Copier, Segment, usize, &mut dyn FnMut(&mut Copier, Segment, usize) -> usize) -> usize,
) -> Result<usize> {
    let source = src.seg().take(nbytes.min(i.count()));
    let bad_source = map.first_bad(source, Access::Read);
    let is_destination_bad = map.first_bad(hull(i), Access::Both).is_some();
    let readable = bytes_before(bad_source, source);
    let mut known_bad = None;
    let copy = |copier: &mut Copier, i: &mut IovIter, data: Segment| {
        copier.expect(data.len);
        let data = data.take(readable);
        let mut write = |copier: &mut Copier, piece: Segment, at: usize| {
            // If fewer bytes could be read than the map says, the copy ends behind those. Otherwise the step ends it at
            // the bad range.
            let limit = if at + piece.len < readable { piece.len } else { source.len - at };
            // SAFETY: the step copies at most `kernel_mc_count` bytes of a chunk, which are readable by the map, and
            // the piece has all of those; or the limit is the piece's length. `bounce::to_iter_until` made the copier
            // for both sides.
            let inner = unsafe { ToIter::new(piece.addr, copier) };
            let mut step = Careful { inner, source: source.addr + at, map, bad_source, is_destination_bad, stop: None };
            let done = i.walk(limit, &mut step);
            known_bad = step.stop;
            done
        };
        pass(copier, data, source.addr, &mut write)
    };
    let done = bounce::to_iter_until(src, i, nbytes, readable, operation, copy)?;
    if i.fault.is_none() {
        i.fault = known_bad.map(|(side, bad)| Box::new(Fault::known(side, bad, done)));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::kernel_mc_count;

    /// The careful copy, unit by unit as the kernel makes it.
    fn unit_by_unit(src: usize, len: usize, readable: usize, writable: usize) -> usize {
        let mut done = 0;
        let byte = |done: usize| done < readable && done < writable;
        if len >= 8 {
            while !(src + done).is_multiple_of(8) {
                if !byte(done) {
                    return done;
                }
                done += 1;
            }
            while len - done >= 8 {
                if done + 8 > readable {
                    return done;
                }
                if done + 8 > writable {
                    while done < len && byte(done) {
                        done += 1;
                    }
                    return done;
                }
                done += 8;
            }
        }
        while done < len && byte(done) {
            done += 1;
        }
        done
    }

    #[test]
    fn the_count_is_the_careful_copys() {
        for len in 0..70 {
            for src in 0..9 {
                for readable in 0..=len {
                    for writable in 0..=len {
                        let expected = unit_by_unit(src, len, readable, writable);
                        assert_eq!(
                            kernel_mc_count(src, len, readable, writable),
                            expected,
                            "{len} {src} {readable} {writable}"
                        );
                    }
                }
            }
        }
    }
}
