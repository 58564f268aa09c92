//! The segments of one system call.

use crate::abi::{MAX_RW_COUNT, UIO_MAXIOV};
use crate::memory::Segment;
use std::mem::MaybeUninit;

/// The segments of one system call: at most [`UIO_MAXIOV`] segments and [`MAX_RW_COUNT`] bytes, the kernel's limits.
///
/// They are stored in the value itself (16 KiB, uninitialised beyond those pushed), so collecting them does not
/// allocate.
pub struct Batch {
    pieces: [MaybeUninit<Segment>; UIO_MAXIOV],
    len: usize,
    nbytes: usize,
    limit: usize,
}

impl Batch {
    /// An empty batch for at most `limit` bytes.
    #[inline]
    pub fn new(limit: usize) -> Self {
        Self {
            pieces: [const { MaybeUninit::uninit() }; UIO_MAXIOV],
            len: 0,
            nbytes: 0,
            limit: limit.min(MAX_RW_COUNT),
        }
    }

    /// Adds a segment, truncated to the bytes that still fit. An empty one is left out. `false` if the batch is full
    /// now.
    #[inline]
    pub fn push(&mut self, seg: Segment) -> bool {
        let seg = seg.take(self.limit - self.nbytes);
        if seg.len != 0 && self.len < UIO_MAXIOV {
            self.pieces[self.len].write(seg);
            self.len += 1;
            self.nbytes += seg.len;
        }
        self.len < UIO_MAXIOV && self.nbytes < self.limit
    }

    /// Truncates the batch to its first `nbytes` bytes.
    pub fn truncate(&mut self, nbytes: usize) {
        if nbytes >= self.nbytes {
            return;
        }
        let all = std::mem::take(&mut self.len);
        self.nbytes = 0;
        let limit = std::mem::replace(&mut self.limit, nbytes);
        for index in 0..all {
            // SAFETY: `push` wrote the first `all` elements before. In this loop it has written at most `index`
            // elements, from the first on, so element `index` still has its old, initialised value.
            let piece = unsafe { self.pieces[index].assume_init() };
            if !self.push(piece) {
                break;
            }
        }
        self.limit = limit;
    }

    /// The segments. The slice covers addresses and lengths, not the memory they name.
    #[inline]
    pub fn pieces(&self) -> &[Segment] {
        // SAFETY: `push` wrote the first `len` elements, and a Segment has the layout of its MaybeUninit.
        unsafe { std::slice::from_raw_parts(self.pieces.as_ptr().cast(), self.len) }
    }

    /// The address of the byte after the first `nbytes`; the end of the last segment if there is none.
    pub fn address_at(&self, nbytes: usize) -> usize {
        let mut before = nbytes;
        for piece in self.pieces() {
            if before < piece.len {
                return piece.addr + before;
            }
            before -= piece.len;
        }
        self.pieces().last().map_or(0, |last| last.end())
    }

    /// The most bytes that it accepts.
    #[inline]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The bytes of all segments.
    #[inline]
    pub fn nbytes(&self) -> usize {
        self.nbytes
    }
}

#[cfg(test)]
mod tests {
    use super::Batch;
    use crate::abi::{MAX_RW_COUNT, UIO_MAXIOV};
    use crate::memory::Segment;

    #[test]
    fn a_batch_holds_what_one_call_takes() {
        let mut batch = Batch::new(usize::MAX);
        for n in 0..UIO_MAXIOV {
            assert!(batch.push(Segment::new(0, 0)), "an empty piece takes no place");
            assert_eq!(batch.push(Segment::new(n, 1)), n + 1 < UIO_MAXIOV);
        }
        assert!(!batch.push(Segment::new(7, 1)));
        assert_eq!((batch.pieces().len(), batch.nbytes()), (UIO_MAXIOV, UIO_MAXIOV));

        let mut batch = Batch::new(usize::MAX);
        assert!(batch.push(Segment::new(0, MAX_RW_COUNT - 1)));
        assert!(!batch.push(Segment::new(9, 5)));
        assert_eq!(batch.pieces()[1], Segment::new(9, 1));

        let mut batch = Batch::new(3);
        assert!(!batch.push(Segment::new(0, 4)));
        assert_eq!(batch.nbytes(), 3);
    }
}
