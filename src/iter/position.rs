//! Moving without copying: advance, revert, truncate, reexpand, save, restore, duplicate.

use super::{Body, IovIter};
use crate::abi::MAX_RW_COUNT;
use crate::error::{Error, Result};

/// A saved position (`struct iov_iter_state`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IterState {
    /// Offset in the current segment.
    pub iov_offset: usize,
    /// Bytes that remained.
    pub count: usize,
    /// Segments that remained.
    pub nr_segs: usize,
}

impl IovIter {
    /// Moves on by `nbytes`, at most to the end (`iov_iter_advance`). Steps over empty and used-up segments on the way,
    /// also when `nbytes` is 0. On a PIPE there is nothing ahead to move over: bytes come into being by being written.
    pub fn advance(&mut self, nbytes: usize) -> Result<()> {
        let nbytes = nbytes.min(self.count);
        match &mut self.body {
            Body::Pipe(_) if nbytes > 0 => {
                return Err(Error::invalid("nbytes", nbytes, "0: no slots lie ahead of a pipe iterator"));
            }
            Body::Pipe(_) | Body::Discard => {}
            Body::Ubuf(_) | Body::Xarray(_) => self.offset += nbytes,
            Body::Vector(_) | Body::Folioq(_) if self.count == 0 => return Ok(()),
            Body::Vector(vector) => vector.advance(&mut self.offset, nbytes),
            Body::Folioq(folioq) => folioq.advance(&mut self.offset, nbytes).map_err(|available| {
                Error::invalid("nbytes", nbytes, format!("at most {available}, where the folio queue ends"))
            })?,
        }
        self.count -= nbytes;
        Ok(())
    }

    /// Moves back by `nbytes`, at most to the start (`iov_iter_revert`). On a PIPE the bytes are gone.
    pub fn revert(&mut self, nbytes: usize) -> Result<()> {
        if nbytes > MAX_RW_COUNT {
            return Err(Error::invalid(
                "nbytes",
                nbytes,
                format!("at most MAX_RW_COUNT ({MAX_RW_COUNT}) in one revert"),
            ));
        }
        self.take_back(nbytes)
    }

    /// The same for what a copy has taken and does not keep, which may be more than one call of the kernel's ever
    /// transfers.
    pub(crate) fn take_back(&mut self, nbytes: usize) -> Result<()> {
        if nbytes == 0 {
            return Ok(());
        }
        let count = self
            .count
            .checked_add(nbytes)
            .ok_or_else(|| Error::invalid("nbytes", nbytes, format!("count {} + nbytes within 64 bits", self.count)))?;
        let done = match &mut self.body {
            Body::Discard => Ok(()),
            Body::Ubuf(_) | Body::Xarray(_) if nbytes > self.offset => Err(self.offset),
            Body::Ubuf(_) | Body::Xarray(_) => {
                self.offset -= nbytes;
                Ok(())
            }
            Body::Vector(vector) => vector.revert(&mut self.offset, nbytes),
            Body::Folioq(folioq) => folioq.revert(&mut self.offset, nbytes),
            Body::Pipe(pipe) => pipe.0.revert(nbytes)?,
        };
        done.map_err(|consumed| Error::BeforeStart { nbytes, consumed })?;
        self.count = count;
        Ok(())
    }

    /// Lowers `count` to `limit` if it is above (`iov_iter_truncate`). The position stays.
    pub fn truncate(&mut self, limit: usize) {
        self.count = self.count.min(limit);
    }

    /// Sets `count`, to give back what a truncation took (`iov_iter_reexpand`); refused if the segments hold less.
    pub fn reexpand(&mut self, count: usize) -> Result<()> {
        let available = match &self.body {
            Body::Ubuf(memory) => memory.len() - self.offset,
            Body::Vector(vector) => vector.available(self.offset),
            Body::Xarray(xarray) => usize::MAX - xarray.start - self.offset,
            Body::Pipe(_) | Body::Folioq(_) | Body::Discard => usize::MAX,
        };
        if count > available {
            return Err(Error::BeyondSegments { count, available });
        }
        self.count = count;
        Ok(())
    }

    /// The position, to come back to (`iov_iter_save_state`).
    pub fn save_state(&self) -> IterState {
        IterState { iov_offset: self.iov_offset(), count: self.count, nr_segs: self.nr_segs() }
    }

    /// Goes to a saved position, backwards or forwards, whatever was truncated meanwhile (`iov_iter_restore`).
    pub fn restore(&mut self, state: IterState) -> Result<()> {
        let misfit = |expected: &str| Error::invalid("state", format!("{state:?}"), expected.to_owned());
        match &mut self.body {
            Body::Ubuf(memory) => {
                let seg = memory.seg();
                let fits =
                    state.nr_segs == 1 && state.iov_offset <= seg.len && state.count <= seg.len - state.iov_offset;
                if !fits {
                    return Err(misfit("a state of this iterator"));
                }
            }
            Body::Vector(vector) => {
                let there = vector.seek(state.nr_segs, state.iov_offset);
                let there = there.filter(|v| state.count <= v.available(state.iov_offset));
                *vector = there.ok_or_else(|| misfit("a state of this iterator"))?;
            }
            Body::Pipe(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => {
                return Err(Error::Unsupported { operation: "restore", kind: self.kind() });
            }
        }
        self.offset = state.iov_offset;
        self.count = state.count;
        Ok(())
    }

    /// A second cursor over the same memory from here on (`dup_iter`). It cannot be reverted to before this point.
    pub fn dup(&self) -> Result<Self> {
        if self.as_pipe().is_some() {
            return Err(Error::Unsupported { operation: "dup", kind: self.kind() });
        }
        let mut dup = self.clone();
        dup.fault = None;
        if let Body::Vector(vector) = &mut dup.body {
            vector.begin_here();
        }
        Ok(dup)
    }
}
