//! How one chunk is moved, and what stopped it: by the CPU under the fault handler, or by the kernel where there is none.

mod media;

use super::Outcome;
use super::past_caches::{self, Promise, STREAM_FROM};
use crate::arch::guard::{self, Cut, Trap};
use crate::arch::{self, LINE, Primitives};
use crate::error::Result;
use crate::fault::Fault;
use crate::fault::engine::{self, ASK_EVERY, Way};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};
use crate::sys::memory;
use std::mem::MaybeUninit;

/// A way to move chunks.
pub(super) trait Move {
    /// Copies; returns the bytes **not** copied. Ranges overlap only if `dst` is below `src`.
    fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize;

    /// Hears of a source that comes up.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn source_comes(&mut self, seg: Segment) {
        arch::prefetch(seg.addr, seg.len);
    }

    /// Hears of a destination that comes up.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as above
    fn target_comes(&mut self, seg: Segment) {
        arch::prefetch(seg.addr, seg.len);
    }
}

/// Moves chunks through the caches and remembers what stopped it.
pub(super) struct Mover {
    set: &'static Primitives,
    way: Way,
    backing: Backing,
    /// Chunks from this length on go past the caches.
    stream_from: usize,
    /// A source that comes up, to be asked for while another goes past the caches.
    coming: Segment,
    stop: Option<Box<Stop>>,
}

/// What stopped a copy.
struct Stop {
    /// The first byte that could not be written, and the one it would have come from.
    dst: usize,
    src: usize,
    /// The signal, if there was one.
    trap: Option<(Trap, bool)>,
}

impl Stop {
    #[cold]
    fn to_fault(&self, copied: usize, wanted: usize) -> Fault {
        let mut fault = match &self.trap {
            Some((trap, is_store)) => Fault::from_signal(trap, *is_store, self.dst, self.src),
            None => Fault::diagnose(self.dst, self.src),
        };
        fault.offset = copied;
        fault.reach(wanted - copied)
    }
}

/// How much of a source that comes up is asked for at a time.
pub(super) const ASK_AHEAD: usize = 1 << 10;
/// Of a longer one only the beginning is: the hardware sees to the rest.
const ASK_UP_TO: usize = 16 << 10;

/// What memory is zeroed from where the CPU may not.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

impl Mover {
    /// One that knows how to treat all of these.
    #[inline(always)]
    #[allow(clippy::inline_always)] // returned by value it would be copied right after it was written
    pub(super) fn new(flats: &[Memory], iters: &[&IovIter]) -> Result<Self> {
        let mut backing = Backing::Heap;
        for flat in flats {
            backing = backing.max(flat.backing());
        }
        for i in iters {
            backing = backing.max(i.backing());
        }
        let way = engine::enter(backing)?;
        Ok(Self {
            set: arch::primitives(),
            way,
            backing,
            stream_from: usize::MAX,
            coming: Segment::default(),
            stop: None,
        })
    }

    /// Tells how many bytes the copy is about: of so many that the caches could not keep them, long chunks go past those.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per call
    pub(super) fn expect(&mut self, nbytes: usize) {
        self.stream_from = arch::stream::chunks_from(nbytes);
    }

    /// Whether the CPU may do a range of this length at once: longer ones go in parts, between which it is asked again where that matters.
    #[inline]
    fn may_go_in_one(&self, len: usize) -> bool {
        len <= ASK_EVERY && !matches!(self.way, Way::Syscalls)
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
    fn copy_through_caches(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if self.may_go_in_one(len) {
            self.copy_directly(dst, src, len)
        } else {
            self.rarely(|mover| mover.copy_carefully(dst, src, len))
        }
    }

    /// Does what is seldom done, with a mover that may be pointed to: this one had better stay in registers.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as its callers are
    pub(super) fn rarely<R>(&mut self, what: impl FnOnce(&mut Self) -> R) -> R {
        let way = std::mem::replace(&mut self.way, Way::Syscalls);
        // Read anew, the set need not be kept at hand for this. If another was chosen meanwhile, that does as well.
        let mut spilled = Self { set: arch::primitives(), way, stop: self.stop.take(), ..*self };
        let result = what(&mut spilled);
        (self.way, self.stop) = (spilled.way, spilled.stop);
        result
    }

    /// Not what overlaps: its destination is near already, since the source is.
    #[inline(never)]
    fn copy_past_caches(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if dst.abs_diff(src) < len {
            return self.copy_through_caches(dst, src, len);
        }
        let coming = std::mem::take(&mut self.coming);
        let mut done = 0;
        while done < len {
            // The destination is cut at lines, and what is left is long enough to be streamed.
            let whole = coming.len == 0 || len - done < ASK_AHEAD + STREAM_FROM;
            let end = if whole { len } else { done + ASK_AHEAD - (dst + done) % LINE };
            let asked = coming.skip(done).take(end - done);
            arch::prefetch_far(asked.addr, asked.len);
            let left = past_caches::copy(self, Promise::Nocache, dst + done, src + done, end - done);
            if left != 0 {
                return len - end + left;
            }
            done = end;
        }
        0
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
    fn copy_directly(&mut self, dst: usize, src: usize, len: usize) -> usize {
        // SAFETY: whoever made the ranges promised that the destination is the copy's to write and that both stay, or they are
        // raw addresses the caller named for this; what may go away all the same is touched under the handler only.
        match unsafe { guard::copy(self.set, dst, src, len) } {
            None => 0,
            Some(cut) => self.rarely(|mover| mover.stopped(&cut)),
        }
    }

    /// Whatever stops a copy later stops it earlier in the range: in what was read before a first fault. Returns what is left.
    #[cold]
    #[inline(never)]
    fn stopped(&mut self, cut: &Cut) -> usize {
        engine::faulted();
        let (dst, src) = (cut.dst + cut.readable, cut.src.wrapping_add(cut.readable));
        self.stop = Some(Box::new(Stop { dst, src, trap: Some((cut.trap, cut.is_store)) }));
        cut.left
    }

    /// In parts, between which the handler may be lost. `part` is given where one begins and how long it is, and returns what is left of it.
    fn in_parts(&mut self, len: usize, mut part: impl FnMut(&mut Self, usize, usize) -> usize) -> usize {
        let mut done = 0;
        while done < len {
            let size = (len - done).min(ASK_EVERY);
            let left = part(self, done, size);
            done += size - left;
            if left != 0 {
                break;
            }
        }
        len - done
    }

    #[cold]
    fn copy_carefully(&mut self, dst: usize, src: usize, len: usize) -> usize {
        self.in_parts(len, |mover, at, size| {
            let (to, from) = (dst.wrapping_add(at), src.wrapping_add(at));
            if mover.may_touch(at) { mover.copy_directly(to, from, size) } else { mover.copy_by_kernel(to, from, size) }
        })
    }

    /// Whether the CPU may go on after `done` bytes. Once it may not, the kernel does the rest.
    fn may_touch(&mut self, done: usize) -> bool {
        if matches!(self.way, Way::Direct(_)) && self.backing.may_vanish() && done != 0 && !engine::is_still_ours() {
            self.way = Way::Syscalls;
            engine::faulted();
        }
        !matches!(self.way, Way::Syscalls)
    }

    fn copy_by_kernel(&mut self, dst: usize, src: usize, len: usize) -> usize {
        // SAFETY: the destination is memory, whose maker promised that it may be written to, or own.
        let done = unsafe { memory::copy(dst, src, len) };
        if done < len {
            let (dst, src) = (dst.wrapping_add(done), src.wrapping_add(done));
            self.stop = Some(Box::new(Stop { dst, src, trap: None }));
        }
        len - done
    }

    /// Zeroes; returns the bytes **not** zeroed.
    pub(super) fn zero(&mut self, dst: usize, len: usize) -> usize {
        self.in_parts(len, |mover, at, size| {
            let dst = dst.wrapping_add(at);
            if mover.may_touch(at) { mover.zero_directly(dst, size) } else { mover.zero_by_kernel(dst, size) }
        })
    }

    fn zero_directly(&mut self, dst: usize, len: usize) -> usize {
        // SAFETY: as in `copy_directly`.
        let cut = unsafe { guard::zero(self.set, dst, len) };
        cut.map_or(0, |cut| self.stopped(&cut))
    }

    fn zero_by_kernel(&mut self, dst: usize, len: usize) -> usize {
        let mut done = 0;
        while done < len {
            let part = ZEROES.len().min(len - done);
            let left = self.copy_by_kernel(dst + done, ZEROES.as_ptr().expose_provenance(), part);
            done += part - left;
            if left != 0 {
                break;
            }
        }
        len - done
    }

    /// Why it stopped, in a copy that came to `copied` of `wanted` bytes.
    #[inline(always)]
    #[allow(clippy::inline_always)] // taken by value it would be copied for the sake of looking at one field
    pub(super) fn into_fault(self, copied: usize, wanted: usize) -> Option<Box<Fault>> {
        if self.stream_from != usize::MAX {
            arch::store_fence();
        }
        if self.backing.may_vanish() {
            engine::copied(copied);
        }
        self.stop.map(|stop| Box::new(stop.to_fault(copied, wanted)))
    }
}

impl Move for Mover {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
    fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if len < self.stream_from {
            self.copy_through_caches(dst, src, len)
        } else {
            self.copy_past_caches(dst, src, len)
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // as above
    fn source_comes(&mut self, seg: Segment) {
        if seg.len < self.stream_from || seg.len > ASK_UP_TO {
            arch::prefetch(seg.addr, seg.len);
        } else {
            self.coming = seg;
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // as above
    fn target_comes(&mut self, seg: Segment) {
        if seg.len < self.stream_from {
            arch::prefetch(seg.addr, seg.len);
        }
    }
}

/// Copies between two flat ranges, as much as the shorter one has: the bytes copied, and what stopped it.
pub fn copy_flat(dst: Memory, src: Memory) -> Result<Outcome> {
    let len = dst.len().min(src.len());
    let mut mover = Mover::new(&[dst, src], &[])?;
    mover.expect(len);
    let done = len - mover.copy(dst.seg().addr, src.seg().addr, len);
    Ok((done, mover.into_fault(done, len)))
}

/// Copies memory into an own buffer, as much as that takes: the bytes copied, which are initialised now, and what stopped it.
pub(crate) fn read_into(own: &mut [MaybeUninit<u8>], src: Memory) -> Result<Outcome> {
    let seg = Segment::new(own.as_mut_ptr().expose_provenance(), own.len());
    // SAFETY: `own` is borrowed mutably until the copy is done, and the value is dropped then.
    copy_flat(unsafe { Memory::new(seg, Backing::Heap) }, src)
}
