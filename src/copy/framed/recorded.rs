//! Memory that records in which order stores may reach the medium, for tests of whole logs.

use super::{Framed, Place, frame};
use crate::arch::LINE;
pub(crate) use crate::copy::nontemporal::recorder::Event;
use crate::copy::nontemporal::recorder::Recorder;
use crate::copy::nontemporal::{self, Flush, LineStore};
use crate::copy::sums::Sums;
use crate::iter::IovIter;

/// Memory of a test, which the real code writes through a [`Recorder`].
pub(crate) struct Recorded {
    bytes: Vec<u8>,
    skip: usize,
    len: usize,
    recorder: Recorder,
}

impl Recorded {
    /// Makes memory that has this image as its contents.
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

    /// Makes every write at or behind `offset` fail.
    pub(crate) fn fail_from(&mut self, offset: usize) {
        self.recorder.bad_destination = self.start().saturating_add(offset);
    }

    /// The stores and fences since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.recorder.events)
    }

    /// Writes and fences. Returns the number of bytes written.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) -> usize {
        let dst = self.start() + offset;
        let src = bytes.as_ptr().expose_provenance();
        // SAFETY: the callers pass ranges inside the memory, which only the recorder writes to; the source is `bytes`,
        // which stays borrowed.
        let left = unsafe { nontemporal::copy(&mut self.recorder, Flush::Lines, dst, src, bytes.len()) };
        self.recorder.fence();
        bytes.len() - left
    }

    /// Writes as `copy_framed_from_iter` does. Returns whether everything was written.
    pub(crate) fn write_framed(&mut self, offset: usize, i: &mut IovIter, line: &dyn Fn(Sums) -> [u8; LINE]) -> bool {
        let line_at = self.start() + offset;
        self.frame(Place::Behind { line: line_at }, i, line)
    }

    /// Writes as `copy_published_from_iter` does, with the line at the start of the memory. Returns whether everything
    /// was written.
    pub(crate) fn write_published(
        &mut self,
        offset: usize,
        i: &mut IovIter,
        line: &dyn Fn(Sums) -> [u8; LINE],
    ) -> bool {
        let start = self.start();
        self.frame(Place::Before { line: start, data: start + offset }, i, line)
    }

    fn frame(&mut self, to: Place, i: &mut IovIter, line: &dyn Fn(Sums) -> [u8; LINE]) -> bool {
        let nbytes = i.count();
        // SAFETY: the tests pass offsets at which the memory has room for the line and for the data in whole lines, and
        // iterators over memory of their own.
        unsafe { frame(&mut self.recorder, Flush::Lines, to, i, nbytes, line) == Framed::Whole }
    }
}

/// Calls `look` with every image that the medium may have during `events`, if it had `before` at first: at each fence
/// all earlier stores are on the medium, and of the later ones any may be.
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
