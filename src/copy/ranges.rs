//! Many copies between pairs of ranges in one call. Each has its own result, and one that fails does not end the
//! others.

use super::bounce::Scratch;
use super::chunk::CopyChunk;
use super::copier::Copier;
use super::crc32c::{Sum, copy_flat};
use super::flushcache::require_write_back;
use super::mcsafe::flat_stop;
use super::nontemporal::{self, Flush, LineStore};
use crate::error::{Error, Result, reserve, try_push};
use crate::fault::Fault;
use crate::fault::map::shared::KnownBad;
use crate::memory::{Memories, Segment};

/// A range of at most this many bytes is copied before a prefetch of the next range has arrived.
const SHORT: usize = 1 << 10;

/// For short ranges, the memory this many ranges ahead is prefetched.
const NEXT_SHORT: usize = 8;

/// The options of the copies.
pub struct How<'a, K: ?Sized> {
    /// Whether every byte counted must have left the caches.
    pub flush: bool,
    /// The known-bad memory before which the copies stop.
    pub map: Option<&'a K>,
    /// Whether to compute a CRC-32C of each range.
    pub sums: bool,
}

impl<K: ?Sized> Clone for How<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: ?Sized> Copy for How<'_, K> {}

/// A range that was not copied whole.
#[derive(Debug)]
pub struct Short {
    /// The index of the range.
    pub index: usize,
    /// The number of bytes copied of it.
    pub copied: usize,
    /// The fault that stopped its copy.
    pub fault: Box<Fault>,
}

/// The results of all ranges. A range was copied whole unless it is in `short`.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// The bytes copied, of all ranges together.
    pub copied: usize,
    /// The ranges that were not copied whole, in order.
    pub short: Vec<Short>,
    /// The CRC-32C of the bytes copied of each range, if the options ask for it.
    pub crc32c: Option<Vec<u32>>,
}

impl Outcomes {
    /// The bytes copied of the range at `index`, which has `len` bytes, and the fault that stopped its copy.
    pub fn of(&self, index: usize, len: usize) -> (usize, Option<&Fault>) {
        match self.short.binary_search_by_key(&index, |short| short.index) {
            Ok(place) => (self.short[place].copied, Some(&self.short[place].fault)),
            Err(_) => (len, None),
        }
    }

    /// Lowers the count of a range from `counted`, and replaces its sum, if there are sums.
    pub(crate) fn shorten(&mut self, counted: usize, short: Short, crc: u32) -> Result<()> {
        self.copied -= counted - short.copied;
        if let Some(sums) = &mut self.crc32c {
            sums[short.index] = crc;
        }
        match self.short.binary_search_by_key(&short.index, |short| short.index) {
            Ok(place) => self.short[place] = short,
            Err(place) => {
                reserve(&mut self.short, 1)?;
                self.short.insert(place, short);
            }
        }
        Ok(())
    }
}

/// Refuses sides with different numbers of ranges, or a pair of ranges with different lengths.
fn check(dst: &[Segment], src: &[Segment]) -> Result<()> {
    if dst.len() != src.len() {
        let (given, expected) = (format!("{} ranges", dst.len()), format!("{} ranges, as many as src", src.len()));
        return Err(Error::invalid("dst", given, expected));
    }
    match dst.iter().zip(src).position(|(to, from)| to.len != from.len) {
        None => Ok(()),
        Some(index) => Err(Error::RangeLengths { index, dst: dst[index].len, src: src[index].len }),
    }
}

/// Whether a front-to-back copy would overwrite source bytes that it has not read yet.
fn is_moved_up(dst: Segment, src: Segment) -> bool {
    src.overlaps(dst) && src.addr < dst.addr
}

/// Copies each range of `src` to the range of `dst` with the same index, one after the other, each as if it had been
/// read first. Calls `met` with every fault that is not from the map. With `flush` it fences once for all of them.
pub fn copy_ranges<K: KnownBad + ?Sized>(
    dst: &Memories,
    src: &Memories,
    how: How<'_, K>,
    mut met: impl FnMut(&Fault),
) -> Result<Outcomes> {
    check(dst.segs(), src.segs())?;
    if how.flush {
        require_write_back()?;
    }
    let mut outcomes = Outcomes { crc32c: how.sums.then(Vec::new), ..Outcomes::default() };
    let (Some(to), Some(from)) = (dst.get(0), src.get(0)) else { return Ok(outcomes) };
    let pairs = || dst.segs().iter().copied().zip(src.segs().iter().copied());
    if let Some(sums) = &mut outcomes.crc32c {
        reserve(sums, src.segs().len())?;
    }
    // Everything that can be refused is checked before the first byte is copied.
    let ahead = pairs().filter(|(dst, src)| is_moved_up(*dst, *src)).map(|(_, src)| src.len).max();
    let mut ahead = ahead.map(Scratch::new).transpose()?;
    // `Memories` has one backing for all its ranges, so an empty part of the first stands for the side.
    let mut copier = Copier::new(&[to.take(0), from.take(0)], &[])?;
    let total = pairs().fold(0_usize, |total, (_, src)| total.saturating_add(src.len));
    if !how.flush {
        copier.expect(total);
    }
    for (index, (to, from)) in pairs().enumerate() {
        let next = index + if from.len <= SHORT { NEXT_SHORT } else { 1 };
        if let (Some(next_to), Some(next_from)) = (dst.segs().get(next), src.segs().get(next)) {
            copier.prefetch_source(*next_from);
            if !how.flush {
                copier.prefetch_destination(*next_to);
            }
        }
        let (part, stop) = how.map.map_or((from.len, None), |map| flat_stop(map, from, to));
        let mut source = from.take(part);
        if is_moved_up(to, source)
            && let Some(ahead) = &mut ahead
        {
            // SAFETY: the copier was made for the backing of all ranges of `src`, of which this is one.
            source = Segment::new(ahead.addr(), unsafe { ahead.fill(&mut copier, source) });
        }
        let mut sum = how.sums.then(|| Sum::from(0));
        // SAFETY: the copier was made for all ranges. A source that was read ahead is in `ahead`, a buffer of ours, and
        // no longer than its range.
        let done = unsafe { copy_one(&mut copier, how.flush, to.addr, source, sum.as_mut()) };
        outcomes.copied = outcomes.copied.saturating_add(done);
        if let (Some(sums), Some(sum)) = (&mut outcomes.crc32c, sum) {
            sums.push(sum.finish());
        }
        if done < from.len {
            let fault = copier.take_fault(done, from.len).inspect(|fault| met(fault));
            let fault = fault.or_else(|| stop.map(|(side, bad)| Box::new(Fault::known(side, bad, done))));
            if let Some(fault) = fault {
                try_push(&mut outcomes.short, Short { index, copied: done, fault })?;
            }
        }
    }
    if how.flush {
        copier.fence();
    }
    copier.into_fault(0, 0);
    Ok(outcomes)
}

/// Copies one range, with non-temporal stores if `flush`, and adds it to the sum, if there is one. Returns the number
/// of bytes copied.
///
/// # Safety
/// As for [`copy_flat`].
#[inline]
unsafe fn copy_one(copier: &mut Copier, flush: bool, dst: usize, src: Segment, sum: Option<&mut Sum>) -> usize {
    let left = match (sum, flush) {
        // SAFETY: the caller of `copy_one` promises ranges that `CopyChunk::copy` accepts.
        (None, false) => unsafe { copier.copy(dst, src.addr, src.len) },
        // SAFETY: the caller of `copy_one` promises ranges that `CopyChunk::copy` accepts.
        (None, true) => unsafe { nontemporal::copy(copier, Flush::Lines, dst, src.addr, src.len) },
        // SAFETY: the caller of `copy_one` promises what `copy_flat` asks for.
        (Some(sum), _) => return unsafe { copy_flat(copier, flush.then_some(Flush::Lines), dst, src, sum) },
    };
    src.len - left
}
