//! Copies to a destination and a stage at once, by every set that has them.

use super::{LINE, RED, pattern, sets};
use crate::arch::{Tee, guard, store_fence};

/// How many lines the tests copy at most: the longest loop twice, and every rest.
const LINES: usize = 12;

/// A line of a test's memory.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; LINE]);

/// Whole lines, with one more on either side.
struct Room(Vec<Line>);

impl Room {
    fn new() -> Self {
        Self(vec![Line([RED; LINE]); LINES + 2])
    }

    fn start(&mut self) -> usize {
        self.0.as_mut_ptr().expose_provenance() + LINE
    }

    /// Checks that it begins with `bytes`, and that nothing else was written.
    fn check(&self, bytes: &[u8], case: &str) {
        let all: Vec<u8> = self.0.iter().flat_map(|line| line.0).collect();
        let (before, rest) = all.split_at(LINE);
        let (within, behind) = rest.split_at(bytes.len());
        assert_eq!(within, bytes, "{case}");
        assert!(before.iter().chain(behind).all(|byte| *byte == RED), "outside touched: {case}");
    }
}

#[test]
fn both_places_get_the_lines_and_nothing_else_is_written() {
    for set in sets() {
        let Some(Tee { copy, nontemporal }) = set.tee else { continue };
        for (name, routine) in [("copy", copy), ("nontemporal", nontemporal)] {
            for (lines, src_at) in (1..=LINES).flat_map(|lines| (0..LINE).map(move |src_at| (lines, src_at))) {
                let (len, source) = (lines * LINE, pattern(src_at + lines * LINE));
                let (mut target, mut stage) = (Room::new(), Room::new());
                let from = source.as_ptr().expose_provenance() + src_at;
                // SAFETY: the three ranges lie inside the vectors just made, those of lines at lines of them.
                let stop = unsafe { guard::tee(routine, target.start(), from, len, stage.start()) };
                store_fence();
                let case = format!("{} {name} {lines} {src_at}", set.name);
                assert!(stop.is_none(), "{case}");
                target.check(&source[src_at..], &case);
                stage.check(&source[src_at..], &case);
            }
        }
    }
}
