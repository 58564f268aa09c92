//! The pieces of one call, in memory of the value's own.

use crate::abi::{MAX_RW_COUNT, UIO_MAXIOV};
use crate::memory::Segment;
use std::mem::MaybeUninit;

/// The pieces of one call: at most [`UIO_MAXIOV`] of them and [`MAX_RW_COUNT`] bytes, which is all the kernel takes at
/// once.
///
/// They lie in the value itself (16 KiB, uninitialised until pushed), so that collecting them allocates nothing.
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

    /// Adds a piece, cut to what still fits; an empty one takes no place. `false` when no byte more would fit.
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

    /// Keeps the first `nbytes` bytes only.
    pub fn cut(&mut self, nbytes: usize) {
        if nbytes >= self.nbytes {
            return;
        }
        let all = std::mem::take(&mut self.len);
        self.nbytes = 0;
        let limit = std::mem::replace(&mut self.limit, nbytes);
        for index in 0..all {
            // SAFETY: `push` wrote the first `all` elements, and writes none that is still to be read: it takes each
            // in its turn.
            let piece = unsafe { self.pieces[index].assume_init() };
            if !self.push(piece) {
                break;
            }
        }
        self.limit = limit;
    }

    /// The pieces. (The slice covers their addresses, not the memory behind them.)
    #[inline]
    pub fn pieces(&self) -> &[Segment] {
        // SAFETY: `push` wrote the first `len` elements, and a Segment has the layout of its MaybeUninit.
        unsafe { std::slice::from_raw_parts(self.pieces.as_ptr().cast(), self.len) }
    }

    /// Where the byte is that comes after the first `nbytes`; after all of them, where the last piece ends.
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

    /// The most bytes it takes.
    #[inline]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of all pieces together.
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
