//! How one chunk is moved, and what stopped it: by the CPU under the fault handler, or by the kernel where there is none.

use crate::arch::guard::{self, Trap};
use crate::arch::{self, Primitives};
use crate::error::Result;
use crate::fault::Fault;
use crate::fault::engine::{self, ASK_EVERY, Care, Way};
use crate::iter::IovIter;
use crate::segment::{Flat, Segment, Trust};
use crate::sys::memory;

/// Moves chunks and remembers what stopped it.
pub(super) struct Mover {
    set: &'static Primitives,
    way: Way,
    care: Care,
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

/// What memory is zeroed from where the CPU may not.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

impl Mover {
    /// One that knows how to treat all of these.
    #[inline(always)]
    #[allow(clippy::inline_always)] // returned by value it would be copied right after it was written
    pub(super) fn new(flats: &[Trust], iters: &[&IovIter]) -> Result<Self> {
        let mut care = Care::Settled;
        for trust in flats {
            care = care.max(trust.care());
        }
        for i in iters {
            care = care.max(i.care());
        }
        let way = engine::enter(care)?;
        Ok(Self { set: arch::primitives(), way, care, stop: None })
    }

    /// Copies; returns the bytes **not** copied. Ranges overlap only if `dst` is below `src`.
    #[inline]
    pub(super) fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if matches!(self.way, Way::Syscalls) || (len > ASK_EVERY && self.care == Care::Prone) {
            return self.copy_carefully(dst, src, len);
        }
        self.copy_directly(dst, src, len)
    }

    #[inline]
    fn copy_directly(&mut self, dst: usize, src: usize, len: usize) -> usize {
        // SAFETY: whoever made the ranges promised that the destination is the copy's to write and that both stay, or they are
        // raw addresses the caller named for this; what may go away all the same is touched under the handler only.
        let (done, trap) = unsafe { guard::copy(self.set, dst, src, len) };
        if let Some(trap) = trap {
            self.trapped(trap, dst + done, src + done, trap.is_store(src, len));
        }
        len - done
    }

    #[cold]
    fn trapped(&mut self, trap: Trap, dst: usize, src: usize, is_store: bool) {
        self.stop.get_or_insert_with(|| Box::new(Stop { dst, src, trap: Some((trap, is_store)) }));
    }

    /// In parts, between which the handler may be lost; without it by the kernel.
    #[cold]
    fn copy_carefully(&mut self, dst: usize, src: usize, len: usize) -> usize {
        let mut done = 0;
        while done < len {
            let part = (len - done).min(ASK_EVERY);
            let (to, from) = (dst.wrapping_add(done), src.wrapping_add(done));
            let left = if self.may_touch(done) {
                self.copy_directly(to, from, part)
            } else {
                self.copy_by_kernel(to, from, part)
            };
            done += part - left;
            if left != 0 {
                break;
            }
        }
        len - done
    }

    /// Whether the CPU may go on after `done` bytes. Once it may not, the kernel does the rest.
    fn may_touch(&mut self, done: usize) -> bool {
        if matches!(self.way, Way::Direct(_)) && self.care == Care::Prone && done != 0 && !engine::is_still_ours() {
            self.way = Way::Syscalls;
        }
        !matches!(self.way, Way::Syscalls)
    }

    fn copy_by_kernel(&mut self, dst: usize, src: usize, len: usize) -> usize {
        let done = memory::copy(dst, src, len);
        if done < len {
            let (dst, src) = (dst.wrapping_add(done), src.wrapping_add(done));
            self.stop.get_or_insert_with(|| Box::new(Stop { dst, src, trap: None }));
        }
        len - done
    }

    /// Zeroes; returns the bytes **not** zeroed.
    pub(super) fn zero(&mut self, dst: usize, len: usize) -> usize {
        let mut done = 0;
        while done < len {
            let left = if self.may_touch(done) {
                let part = ASK_EVERY.min(len - done);
                // SAFETY: as in `copy_directly`.
                let (zeroed, trap) = unsafe { guard::zero(self.set, dst + done, part) };
                if let Some(trap) = trap {
                    self.trapped(trap, dst + done + zeroed, 0, true);
                }
                done += zeroed;
                part - zeroed
            } else {
                let part = ZEROES.len().min(len - done);
                let left = self.copy_by_kernel(dst + done, ZEROES.as_ptr().expose_provenance(), part);
                done += part - left;
                left
            };
            if left != 0 {
                break;
            }
        }
        len - done
    }

    /// Why it stopped, in a copy that came to `copied` bytes.
    #[inline]
    pub(super) fn into_fault(self, copied: usize) -> Option<Box<Fault>> {
        self.stop.map(|stop| {
            let fault = match stop.trap {
                Some((trap, is_store)) => Fault::from_signal(&trap, is_store, stop.dst, stop.src),
                None => Fault::diagnose(stop.dst, stop.src),
            };
            Box::new(Fault { offset: copied, ..fault })
        })
    }
}

/// Copies between two flat ranges, as much as the shorter one has: the bytes copied, and what stopped it.
pub(crate) fn copy_flat(dst: Flat, src: Flat) -> Result<(usize, Option<Box<Fault>>)> {
    let len = dst.seg.len.min(src.seg.len);
    let mut mover = Mover::new(&[dst.trust, src.trust], &[])?;
    let done = len - mover.copy(dst.seg.addr, src.seg.addr, len);
    Ok((done, mover.into_fault(done)))
}

/// Memory of this crate's own, for as long as the caller's borrow of it lasts.
pub(crate) fn own(addr: usize, len: usize) -> Flat {
    // SAFETY: both callers pass memory they own and hold until the copy they need this for is done.
    let held = unsafe { crate::segment::Held::promise(Care::Settled) };
    Flat { seg: Segment::new(addr, len), trust: Trust::Held(held) }
}
