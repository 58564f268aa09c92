//! Copies that stop before memory known to be bad (`copy_to_iter_mcsafe`, `copy_mc_to_iter`, `memcpy_mcsafe`).
//!
//! The kernel's careful copy goes byte by byte until the source is aligned to a word, then word by word, then byte by byte again,
//! and stops at the first unit that fails; only a word whose *store* fails is tried again byte by byte. Where it would stop can be
//! computed, so nothing is copied carefully: [`careful`] finds the count, and then that much is copied at full speed.

use super::mover::{Move, Mover};
use super::overlap::{self, Scratch};
use super::{Outcome, ToIter, begin};
use crate::abi::Direction;
use crate::error::Result;
use crate::fault::{Cause, Fault, Side};
use crate::iter::{IovIter, Step};
use crate::memory::{Memory, Segment};

/// What an access does to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch {
    /// Reads it.
    Read,
    /// Writes it.
    Write,
    /// Either.
    Any,
}

/// Knowledge of bad memory.
pub trait KnownBad: Sync {
    /// Whether nothing at all is known.
    fn is_empty(&self) -> bool;
    /// Whether no byte of either range is known to stand against what is to be done to it.
    fn is_clear(&self, asked: [(Segment, Touch); 2]) -> bool;
    /// The first known range that shares a byte with `seg` and must not be touched so.
    fn first_bad(&self, seg: Segment, touch: Touch) -> Option<Segment>;
    /// Adds what a copy has run into, and what was wrong with it.
    fn record(&self, seg: Segment, touch: Touch, cause: Cause);
}

const WORD: usize = 8;

/// How many of `len` bytes the careful copy copies from `src`, when the first `readable` of them can be read and the first
/// `writable` bytes of the destination written.
pub fn careful(src: usize, len: usize, readable: usize, writable: usize) -> usize {
    let lead = if len < WORD { len } else { src.wrapping_neg() % WORD };
    let words = (len - lead) / WORD * WORD;
    // A word that cannot be read whole is not read at all.
    let read = match readable.checked_sub(lead) {
        Some(into) if into < words => lead + into / WORD * WORD,
        _ => readable.min(len),
    };
    // The source is looked at first, unit by unit: a destination that fails in the same unit is not reached.
    if writable < read { writable } else { read }
}

/// A copy into an iterator that looks ahead, chunk by chunk.
struct Careful<'m, K: ?Sized> {
    inner: ToIter<'m>,
    /// Where the source is, whatever the bytes are taken from.
    source: usize,
    map: &'m K,
    /// The first known bad range of the source.
    bad_source: Option<Segment>,
    /// Whether any destination chunk can be bad.
    check_destination: bool,
    /// Whether what comes up may be brought near: not where something in it must not be touched.
    quiet: bool,
    stop: Option<(Side, Segment)>,
}

impl<K: KnownBad + ?Sized> Step for Careful<'_, K> {
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize {
        let source = self.source + progress;
        let readable = self.bad_source.map_or(len, |bad| bad.addr.saturating_sub(source).min(len));
        let destination = Segment::new(addr, len);
        let bad_destination = if self.check_destination { self.map.first_bad(destination, Touch::Write) } else { None };
        let writable = bad_destination.map_or(len, |bad| bad.addr.saturating_sub(addr).min(len));
        let part = careful(source, len, readable, writable);
        let left = if part == 0 { 0 } else { self.inner.step(addr, progress, part) };
        if left == 0 && part < len {
            let source_side = self.bad_source.filter(|_| readable < len).map(|bad| (Side::Source, bad));
            let destination_side = bad_destination.map(|bad| (Side::Destination, bad));
            self.stop = if part == writable && writable < readable {
                destination_side.or(source_side)
            } else {
                source_side.or(destination_side)
            };
        }
        len - part + left
    }

    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn announce(&mut self, seg: Segment) {
        if !self.quiet {
            self.inner.announce(seg);
        }
    }
}

/// Adds what a copy ran into to what is known.
#[cold]
fn learn<K: KnownBad + ?Sized>(map: &K, fault: &Fault) {
    let cause = fault.cause();
    let touch = match (cause, fault.side) {
        (Cause::Poison, _) => Touch::Any,
        (_, Side::Source) => Touch::Read,
        (_, Side::Destination) => Touch::Write,
    };
    map.record(Segment::new(fault.address, fault.length), touch, cause);
}

/// `copy_to_iter` that stops where the careful copy would before memory the map knows, on either side, and adds to the map
/// what it runs into. Every kind advances by exactly what was copied.
#[inline(always)]
#[allow(clippy::inline_always)] // a range that is passed on is copied right after it was written, and waits for that
pub fn copy_to_iter_mcsafe<K: KnownBad + ?Sized>(
    src: Memory,
    i: &mut IovIter,
    nbytes: usize,
    map: Option<&K>,
) -> Result<usize> {
    match map {
        Some(map) if !map.is_empty() && !is_clear(map, src.seg(), i) => carefully(src, i, nbytes, map),
        _ => {
            let done = super::copy_to_iter(src, i, nbytes)?;
            if let (Some(map), Some(fault)) = (map, &i.fault) {
                learn(map, fault);
            }
            Ok(done)
        }
    }
}

#[inline(never)]
fn is_clear<K: KnownBad + ?Sized>(map: &K, src: Segment, i: &IovIter) -> bool {
    map.is_clear([(src, Touch::Read), (hull(i), Touch::Any)])
}

/// All memory of the iterator, as far as is known.
fn hull(i: &IovIter) -> Segment {
    i.hull().unwrap_or(Segment::new(0, usize::MAX))
}

#[inline(never)]
fn carefully<K: KnownBad + ?Sized>(src: Memory, i: &mut IovIter, nbytes: usize, map: &K) -> Result<usize> {
    let nbytes = begin(src, i, nbytes, Direction::Dest, "copy_to_iter_mcsafe")?;
    let source = src.seg().take(nbytes);
    let mut mover = Mover::new(&[src], &[i])?;
    mover.expect(nbytes);
    let bad_source = map.first_bad(source, Touch::Read);
    let quiet = map.first_bad(hull(i), Touch::Any).is_some();
    let mut scratch = None;
    if overlap::must_read_ahead(i, source, Direction::Dest) {
        let readable = bad_source.map_or(nbytes, |bad| bad.addr.saturating_sub(source.addr));
        let mut ahead = Scratch::new(nbytes)?;
        let left = mover.copy(ahead.addr(), source.addr, readable);
        scratch = Some((ahead, readable - left));
    }
    let (data, limit) = match &mut scratch {
        Some((ahead, read)) if *read < nbytes && bad_source.is_none() => (ahead.addr(), *read),
        Some((ahead, _)) => (ahead.addr(), nbytes),
        None => (source.addr, nbytes),
    };
    let inner = ToIter { src: data, mover: &mut mover };
    let mut step = Careful { inner, source: source.addr, map, bad_source, check_destination: quiet, quiet, stop: None };
    let done = i.walk(limit, &mut step);
    let known_bad = step.stop;
    let fault = mover.into_fault(done, nbytes);
    if let Some(fault) = &fault {
        learn(map, fault);
    }
    i.fault = fault.or_else(|| known_bad.map(|(side, bad)| Box::new(Fault::known(side, bad, done))));
    Ok(done)
}

/// A flat copy that stops where the careful copy would; returns the bytes copied and why not all of them.
pub fn memcpy_mcsafe<K: KnownBad + ?Sized>(dst: Memory, src: Memory, map: Option<&K>) -> Result<Outcome> {
    let len = super::same_length(dst, src)?;
    let consulted = map.filter(|map| !map.is_clear([(src.seg(), Touch::Read), (dst.seg(), Touch::Write)]));
    let bad_source = consulted.and_then(|map| map.first_bad(src.seg(), Touch::Read));
    let bad_destination = consulted.and_then(|map| map.first_bad(dst.seg(), Touch::Write));
    let until = |bad: Option<Segment>, start: usize| bad.map_or(len, |bad| bad.addr.saturating_sub(start).min(len));
    let (readable, writable) = (until(bad_source, src.seg().addr), until(bad_destination, dst.seg().addr));
    let part = careful(src.seg().addr, len, readable, writable);
    let mut mover = Mover::new(&[dst, src], &[])?;
    mover.expect(part);
    let done = if src.seg().overlaps(dst.seg()) && src.seg().addr < dst.seg().addr {
        let mut ahead = Scratch::new(part)?;
        let read = part - mover.copy(ahead.addr(), src.seg().addr, part);
        read - mover.copy(dst.seg().addr, ahead.addr(), read)
    } else {
        part - mover.copy(dst.seg().addr, src.seg().addr, part)
    };
    let mut fault = mover.into_fault(done, len);
    if let (Some(map), Some(fault)) = (map, &fault) {
        learn(map, fault);
    }
    if fault.is_none() && part < len {
        let by_destination = part == writable && writable < readable;
        fault = match (bad_source, bad_destination) {
            (_, Some(bad)) if by_destination => Some(Box::new(Fault::known(Side::Destination, bad, done))),
            (Some(bad), _) => Some(Box::new(Fault::known(Side::Source, bad, done))),
            (None, bad) => bad.map(|bad| Box::new(Fault::known(Side::Destination, bad, done))),
        };
    }
    Ok((done, fault))
}

#[cfg(test)]
mod tests {
    use super::careful;

    /// The careful copy itself, unit by unit.
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
                            careful(src, len, readable, writable),
                            expected,
                            "{len} {src} {readable} {writable}"
                        );
                    }
                }
            }
        }
    }
}
