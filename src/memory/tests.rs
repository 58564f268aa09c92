//! Memory is only ever narrowed, and fails as its least safe part does.

use super::{Backing, Memories, Memory, Segment};

#[test]
fn take_and_skip_never_leave_the_range() {
    let s = Segment::new(100, 10);
    assert_eq!((s.take(4), s.take(11)), (Segment::new(100, 4), s));
    assert_eq!((s.skip(4), s.skip(10), s.skip(11)), (Segment::new(104, 6), Segment::new(110, 0), Segment::new(110, 0)));
}

#[test]
fn ranges_overlap_only_when_they_share_a_byte() {
    let s = Segment::new(100, 10);
    for (other, shared) in [((90, 10), false), ((90, 11), true), ((109, 1), true), ((110, 5), false), ((105, 0), false)]
    {
        assert_eq!(s.overlaps(Segment::new(other.0, other.1)), shared, "{other:?}");
    }
}

#[test]
fn memory_is_only_ever_narrowed() {
    // SAFETY: nothing touches it.
    let whole = unsafe { Memory::new(Segment::new(100, 10), Backing::Mapping) };
    for (offset, len, expected) in [
        (0, 10, Some(Segment::new(100, 10))),
        (3, 4, Some(Segment::new(103, 4))),
        (10, 0, Some(Segment::new(110, 0))),
        (3, 8, None),
        (11, 0, None),
        (usize::MAX, 2, None),
    ] {
        let part = whole.range(offset, len);
        assert_eq!(part.map(Memory::seg), expected, "{offset} {len}");
        assert!(part.is_none_or(|part| part.backing() == Backing::Mapping));
    }
    assert_eq!(whole.skip(11).take(5).seg(), Segment::new(110, 0));
}

#[test]
fn several_ranges_fail_as_the_least_safe_one_does() {
    // SAFETY: nothing touches it.
    let one = |backing| unsafe { Memory::new(Segment::new(100, 10), backing) };
    let all: Memories = [Backing::Heap, Backing::Unchecked, Backing::Mapping].into_iter().map(one).collect();
    assert_eq!((all.segs().len(), all.backing()), (3, Backing::Unchecked));
    assert_eq!(all.get(0).map(Memory::backing), Some(Backing::Unchecked));
    assert_eq!(all.get(3), None);
}
