//! The mover as [`Media`]: past the caches, and what is in them written back.

use super::{Mover, Stop, ZEROES};
use crate::arch::guard::{self, Cut};
use crate::arch::{self, WriteBack};
use crate::copy::past_caches::{Media, Rest};
use crate::fault::engine::Way;
use crate::memory::Segment;
use crate::sys::{mapping, maps, memory};

#[allow(clippy::inline_always)] // every store between two fences delays the second: a frame more is measured
impl Media for Mover {
    #[inline(always)]
    fn can_stream(&self) -> bool {
        !matches!(self.way, Way::Syscalls)
    }

    #[inline(always)]
    fn load(&mut self, own: usize, src: usize, len: usize) -> usize {
        self.copy_through_caches(own, src, len)
    }

    #[inline(always)]
    fn store(&mut self, dst: usize, src: usize, len: usize) -> usize {
        self.copy_through_caches(dst, src, len)
    }

    #[inline(always)]
    fn stream(&mut self, dst: usize, src: usize, len: usize, finish: impl FnOnce(&mut Self, &Rest) -> usize) -> usize {
        let streamed = if self.may_go_in_one(len) {
            match self.stream_directly(dst, src, len) {
                None => return 0,
                Some(cut) => Ok(cut),
            }
        } else {
            Err((dst, src, len))
        };
        self.rarely(|mover| mover.go_on_streaming(streamed, finish))
    }

    #[inline(always)]
    fn write_back(&mut self, dst: usize, len: usize) -> usize {
        match arch::write_back() {
            Some(instruction) => self.over_lines(instruction, dst, len),
            None => len,
        }
    }

    #[inline(always)]
    fn fence(&mut self) {
        arch::store_fence();
    }
}

impl Mover {
    #[inline(always)]
    #[allow(clippy::inline_always)] // a part of `stream`
    fn stream_directly(&self, dst: usize, src: usize, len: usize) -> Option<Cut> {
        // SAFETY: as in `copy_directly`; a part of what is not empty is not.
        unsafe { guard::stream(self.set, dst, src, len) }
    }

    /// What is left of a stream that was cut, or of a range that is not to be streamed in one.
    #[cold]
    #[inline(never)]
    fn go_on_streaming(
        &mut self,
        streamed: Result<Cut, (usize, usize, usize)>,
        finish: impl FnOnce(&mut Self, &Rest) -> usize,
    ) -> usize {
        let rest = match streamed {
            Ok(cut) => Some(self.rest_of(&cut)),
            Err((dst, src, len)) => self.stream_carefully(dst, src, len),
        };
        rest.map_or(0, |rest| finish(self, &rest))
    }

    fn rest_of(&mut self, cut: &Cut) -> Rest {
        Rest { dst: cut.dst, src: cut.src, len: self.stopped(cut), readable: cut.readable }
    }

    fn stream_carefully(&mut self, dst: usize, src: usize, len: usize) -> Option<Rest> {
        let mut rest = None;
        let left = self.in_parts(len, |mover, at, size| {
            let (dst, src) = (dst + at, src + at);
            rest = if mover.may_touch(at) {
                mover.stream_directly(dst, src, size).map(|cut| mover.rest_of(&cut))
            } else {
                // Nothing is known against the rest, which the kernel may copy.
                Some(Rest { dst, src, len: size, readable: len - at })
            };
            rest.map_or(0, |rest| rest.len)
        });
        rest.map(|rest| Rest { len: left, ..rest })
    }

    /// Runs an instruction over the lines of a range; returns the bytes of the range it did not get to.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per call
    pub(in crate::copy) fn over_lines(&mut self, instruction: &WriteBack, addr: usize, len: usize) -> usize {
        if self.may_go_in_one(len) {
            self.over_lines_directly(instruction, addr, len)
        } else {
            self.rarely(|mover| mover.over_lines_carefully(instruction, addr, len))
        }
    }

    #[cold]
    fn over_lines_carefully(&mut self, instruction: &WriteBack, addr: usize, len: usize) -> usize {
        self.in_parts(len, |mover, at, size| {
            let addr = addr + at;
            if mover.may_touch(at) {
                return mover.over_lines_directly(instruction, addr, size);
            }
            let there = memory::fault_in(Segment::new(addr, size), false);
            let left = mover.over_lines_by_kernel(instruction, Segment::new(addr, there));
            let done = there - left;
            if done < size && mover.stop.is_none() {
                mover.stop = Some(Box::new(Stop { dst: addr + done, src: ZEROES.as_ptr().addr(), trap: None }));
            }
            size - done
        })
    }

    /// What of memory that is there cannot go out without the handler. A file's goes to the file; memory without one lasts nowhere. Only a
    /// device's, which no call writes back, is touched: it cannot be cut.
    fn over_lines_by_kernel(&mut self, instruction: &WriteBack, seg: Segment) -> usize {
        if seg.len == 0 {
            0
        } else if maps::is_device(seg.addr) {
            self.over_lines_directly(instruction, seg.addr, seg.len)
        } else if mapping::sync(seg).is_ok() {
            0
        } else {
            seg.len
        }
    }

    #[inline]
    fn over_lines_directly(&mut self, instruction: &WriteBack, addr: usize, len: usize) -> usize {
        // SAFETY: whoever made the range promised that it stays; what may go away all the same is touched under the handler, and
        // a device's memory does not.
        match unsafe { guard::write_back(instruction, addr, len) } {
            None => 0,
            Some(cut) => self.rarely(|mover| mover.stopped(&cut)),
        }
    }
}
