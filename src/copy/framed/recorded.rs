//! Memory in which it is recorded in what order stores may reach the medium: for proofs about whole logs.

use super::{Framed, Place, frame};
use crate::arch::LINE;
use crate::copy::copy_from_iter;
pub(crate) use crate::copy::nontemporal::recorder::Event;
use crate::copy::nontemporal::recorder::Recorder;
use crate::copy::nontemporal::{self, Flush, LineStore};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};

/// Memory of a test's own, written by the code that the real one is written by.
pub(crate) struct Recorded {
    bytes: Vec<u8>,
    skip: usize,
    len: usize,
    recorder: Recorder,
}

impl Recorded {
    /// Memory that holds an image.
    pub(crate) fn new(image: &[u8]) -> Self {
        let mut bytes = vec![0; image.len() + LINE];
        let start = bytes.as_mut_ptr().expose_provenance();
        let skip = start.wrapping_neg() % LINE;
        bytes[skip..skip + image.len()].copy_from_slice(image);
        Self { bytes, skip, len: image.len(), recorder: Recorder::new(start + skip, image.len()) }
    }

    pub(crate) fn contents(&self) -> &[u8] {
        &self.bytes[self.skip..self.skip + self.len]
    }

    fn start(&mut self) -> usize {
        self.bytes.as_mut_ptr().expose_provenance() + self.skip
    }

    /// From here on nothing can be written.
    pub(crate) fn fail_from(&mut self, offset: usize) {
        self.recorder.bad_destination = self.start().saturating_add(offset);
    }

    /// What was done to it since it was last asked.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.recorder.events)
    }

    /// Writes and fences: the bytes written.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) -> usize {
        let dst = self.start() + offset;
        let src = bytes.as_ptr().expose_provenance();
        // SAFETY: the range was in bounds when it was sliced, and the bytes stay borrowed.
        let left = unsafe { nontemporal::copy(&mut self.recorder, Flush::Lines, dst, src, bytes.len()) };
        self.recorder.fence();
        bytes.len() - left
    }

    /// What `copy_framed_from_iter` does: whether all was written.
    pub(crate) fn write_framed(&mut self, offset: usize, i: &mut IovIter, line: &dyn Fn(u32) -> [u8; LINE]) -> bool {
        let line_at = self.start() + offset;
        self.frame(Place::Behind { line: line_at }, i, line)
    }

    /// What `copy_published_from_iter` does, with the line at the start: whether all was written.
    pub(crate) fn write_published(&mut self, offset: usize, i: &mut IovIter, line: &dyn Fn(u32) -> [u8; LINE]) -> bool {
        let start = self.start();
        self.frame(Place::Before { line: start, data: start + offset }, i, line)
    }

    fn frame(&mut self, to: Place, i: &mut IovIter, line: &dyn Fn(u32) -> [u8; LINE]) -> bool {
        let nbytes = i.count();
        let fill = |_: &mut Recorder, own, len| {
            // SAFETY: `frame` passes room for `len` bytes, which it does not look at meanwhile.
            let own = unsafe { Memory::new(Segment::new(own, len), Backing::Heap) };
            copy_from_iter(own, i, len).unwrap()
        };
        // SAFETY: the tests give room for the line and the data in whole lines.
        unsafe { frame(&mut self.recorder, Flush::Lines, to, nbytes, fill, line) == Framed::Whole }
    }
}

/// The images that may be on the medium while `events` happen to `before`: at each fence all stores before it are
/// there, and of those behind it any may be.
pub(crate) fn images(before: &[u8], events: &[Event], mut look: impl FnMut(&[u8])) {
    const MOST: usize = 12;
    let mut settled = before.to_vec();
    for stores in events.split(|event| *event == Event::Fence) {
        assert!(stores.len() <= MOST, "{} lines in one go", stores.len());
        for chosen in 0..1_u32 << stores.len() {
            let mut image = settled.clone();
            for (index, event) in stores.iter().enumerate() {
                if let Event::Store(at, bytes) = event
                    && chosen >> index & 1 == 1
                {
                    image[*at..*at + bytes.len()].copy_from_slice(bytes);
                }
            }
            look(&image);
        }
        for event in stores {
            if let Event::Store(at, bytes) = event {
                settled[*at..*at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}
