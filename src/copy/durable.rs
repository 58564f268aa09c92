//! Copies that leave the caches (`copy_from_iter_nocache`, `copy_from_iter_flushcache` and their kin), and what is already written
//! made to leave them.
//!
//! A counted byte has been written past the caches or written back, and fenced: once a call, before the count is returned.

use super::mover::{Move, Mover};
use super::overlap::{self, Scratch};
use super::past_caches::{self, Gather, Promise, Scatter};
use super::{FromIter, Outcome, ToIter, begin};
use crate::abi::Direction;
use crate::arch;
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::memory::Memory;

/// `copy_from_iter` that leaves the caches alone as far as it can (`copy_from_iter_nocache`).
pub fn copy_from_iter_nocache(dst: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    from_iter(dst, i, nbytes, Promise::Nocache, "copy_from_iter_nocache")
}

/// `copy_from_iter` after which no counted byte is in the CPU's caches alone, for every kind (`copy_from_iter_flushcache`).
pub fn copy_from_iter_flushcache(dst: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    require_write_back()?;
    from_iter(dst, i, nbytes, Promise::Durable, "copy_from_iter_flushcache")
}

/// `copy_to_iter` after which no counted byte is in the CPU's caches alone: scattered memory made durable with one fence.
pub fn copy_to_iter_flushcache(src: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    require_write_back()?;
    let nbytes = begin(src, i, nbytes, Direction::Dest, "copy_to_iter_flushcache")?;
    let mut mover = Mover::new(&[src], &[i])?;
    let flat = src.seg().take(nbytes);
    let mut data = (flat.addr, nbytes);
    let mut scratch = None;
    if overlap::must_read_ahead(i, flat, Direction::Dest) {
        let ahead = scratch.insert(Scratch::new(nbytes)?).addr();
        data = (ahead, nbytes - mover.copy(ahead, flat.addr, nbytes));
    }
    let mut scatter = Scatter::new(&mut mover);
    let done = i.walk(data.1, &mut ToIter { src: data.0, mover: &mut scatter });
    scatter.finish();
    i.fault = mover.into_fault(done, nbytes);
    Ok(done)
}

fn from_iter(dst: Memory, i: &mut IovIter, nbytes: usize, promise: Promise, operation: &'static str) -> Result<usize> {
    let nbytes = begin(dst, i, nbytes, Direction::Source, operation)?;
    let mut mover = Mover::new(&[dst], &[i])?;
    let flat = dst.seg().take(nbytes);
    let (taken, left) = if overlap::must_read_ahead(i, flat, Direction::Source) {
        let mut scratch = Scratch::new(nbytes)?;
        let read = i.walk(nbytes, &mut FromIter { dst: scratch.addr(), mover: &mut mover });
        (read, past_caches::copy_flat(&mut mover, promise, flat.addr, scratch.addr(), read))
    } else {
        let mut gather = Gather::new(&mut mover, promise, flat.end());
        let taken = i.walk(nbytes, &mut FromIter { dst: flat.addr, mover: &mut gather });
        (taken, gather.finish())
    };
    let done = taken - left;
    i.fault = mover.into_fault(done, nbytes);
    i.take_back(left)?;
    Ok(done)
}

/// A flat copy that leaves the caches alone as far as it can. Returns the bytes copied, and why not all of them.
pub fn memcpy_nocache(dst: Memory, src: Memory) -> Result<Outcome> {
    flat(dst, src, Promise::Nocache)
}

/// A flat copy after which no counted byte is in the CPU's caches alone. Returns the bytes copied, and why not all of them.
pub fn memcpy_flushcache(dst: Memory, src: Memory) -> Result<Outcome> {
    require_write_back()?;
    flat(dst, src, Promise::Durable)
}

fn flat(dst: Memory, src: Memory, promise: Promise) -> Result<Outcome> {
    let len = super::same_length(dst, src)?;
    let mut mover = Mover::new(&[dst, src], &[])?;
    let (to, from) = (dst.seg().addr, src.seg().addr);
    let done = if src.seg().overlaps(dst.seg()) && from < to {
        mover.rarely(|mover| move_up(mover, promise, to, from, len))?
    } else {
        len - past_caches::copy_flat(&mut mover, promise, to, from, len)
    };
    Ok((done, mover.into_fault(done, len)))
}

/// Within one memory, to a higher address; returns the bytes copied.
#[cold]
fn move_up(mover: &mut Mover, promise: Promise, to: usize, from: usize, len: usize) -> Result<usize> {
    let mut ahead = Scratch::new(len)?;
    let read = len - mover.copy(ahead.addr(), from, len);
    Ok(read - past_caches::copy_flat(mover, promise, to, ahead.addr(), read))
}

/// Makes what is in the range leave the CPU's caches, fenced. Returns the bytes of it that did, and why not all.
pub fn persist(range: Memory) -> Result<Outcome> {
    let flushed = flush(range)?;
    drain();
    Ok(flushed)
}

/// The same without a fence: [`drain`] comes later, once for many.
pub fn flush(range: Memory) -> Result<Outcome> {
    over_lines(range, require_write_back()?)
}

/// Evicts the range from the caches, for a reader of memory that somebody else writes to past them. What this CPU itself wrote
/// there is written back first.
pub fn invalidate(range: Memory) -> Result<Outcome> {
    let evicted = over_lines(range, arch::evict().ok_or_else(no_write_back)?)?;
    arch::full_fence();
    Ok(evicted)
}

/// Waits until everything flushed, and everything stored past the caches, is on its way for good.
pub fn drain() {
    arch::store_fence();
}

fn over_lines(range: Memory, instruction: &arch::WriteBack) -> Result<Outcome> {
    let mut mover = Mover::new(&[range], &[])?;
    let done = range.len() - mover.over_lines(instruction, range.seg().addr, range.len());
    Ok((done, mover.into_fault(done, range.len())))
}

fn require_write_back() -> Result<&'static arch::WriteBack> {
    arch::write_back().ok_or_else(no_write_back)
}

#[cold]
fn no_write_back() -> Error {
    Error::os(libc::EOPNOTSUPP, "this CPU has no instruction that writes cache lines back: nothing can be made durable")
}
