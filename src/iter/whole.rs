//! Whole segments, for system calls. A vector's segments are laid out as the `struct iovec` array that a system call
//! reads. So a call over whole segments passes the array itself, with no copy of it, and a call that transferred all of
//! them moves the iterator past them in one step.

use super::IovIter;
use super::kinds::Vector;
use crate::memory::Segment;

impl Vector {
    /// The next segments, at most `most`, and their total length in bytes. `None` unless the position is at the start
    /// of a segment and the total is between 1 and `limit`.
    fn next_whole(&self, offset: usize, most: usize, limit: usize) -> Option<(&[Segment], usize)> {
        if offset != 0 {
            return None;
        }
        let rest = &self.segs()[self.cur()..];
        let next = &rest[..rest.len().min(most)];
        let nbytes = next.iter().map(|seg| seg.len).sum();
        (1..=limit).contains(&nbytes).then_some((next, nbytes))
    }
}

impl IovIter {
    /// The next segments of an IOVEC, KVEC or BVEC, at most `most`, as a part of its array, and their total length in
    /// bytes. `None` if the position is inside a segment, or if `limit` or `count` would truncate one of them.
    #[inline]
    pub(crate) fn next_whole(&self, most: usize, limit: usize) -> Option<(&[Segment], usize)> {
        self.body.as_vector()?.next_whole(self.offset, most, limit.min(self.count))
    }

    /// Moves past the `segments` segments of `nbytes` bytes that [`Self::next_whole`] returned, and past the empty ones
    /// that follow: to the position that an advance by `nbytes` leads to.
    pub(crate) fn skip_whole(&mut self, segments: usize, nbytes: usize) {
        if let Some(vector) = self.body.as_vector_mut() {
            vector.skip_segments(segments);
            self.offset = 0;
            self.count -= nbytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::abi::Direction;
    use crate::iter::IovIter;
    use crate::memory::{Backing, Memories, Segment};

    fn over(lens: &[usize]) -> IovIter {
        let segs: Vec<_> = lens.iter().enumerate().map(|(n, len)| Segment::new(0x1000 * (n + 1), *len)).collect();
        // SAFETY: nothing touches the memory in this test.
        IovIter::iovec(Direction::Source, unsafe { Memories::new(segs, Backing::Unchecked) }, None).unwrap()
    }

    #[test]
    fn skipping_whole_segments_leads_where_an_advance_does() {
        for lens in [&[3, 0, 4, 0, 0, 5, 0][..], &[0, 0, 3], &[7], &[1; 20]] {
            for most in 1..=lens.len() {
                let mut skipped = over(lens);
                let mut advanced = skipped.clone();
                let Some((segs, nbytes)) = skipped.next_whole(most, usize::MAX) else {
                    assert_eq!(lens[..most].iter().sum::<usize>(), 0, "{lens:?} {most}");
                    continue;
                };
                let segments = segs.len();
                skipped.skip_whole(segments, nbytes);
                advanced.advance(nbytes).unwrap();
                let at = |i: &IovIter| (i.count(), i.iov_offset(), i.nr_segs());
                assert_eq!(at(&skipped), at(&advanced), "{lens:?} {most}");
            }
        }
    }

    #[test]
    fn what_has_to_be_cut_is_not_taken_as_it_lies() {
        let mut i = over(&[3, 4, 5]);
        assert!(i.next_whole(3, 11).is_none() && i.next_whole(2, 7).is_some());
        i.truncate(6);
        assert!(i.next_whole(2, usize::MAX).is_none() && i.next_whole(1, usize::MAX).is_some());
        i.advance(1).unwrap();
        assert!(i.next_whole(1, usize::MAX).is_none());
    }
}
