//! Moving without copying: advance, revert, truncate, reexpand, save, restore, duplicate.

use super::IovIter;
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
    /// Moves forwards by `nbytes`, at most to the end (`iov_iter_advance`), and then past segments that are consumed or
    /// empty; unless `count` is 0, even if `nbytes` is 0. A PIPE refuses to move: its bytes come into being only by
    /// being written.
    pub fn advance(&mut self, nbytes: usize) -> Result<()> {
        let nbytes = nbytes.min(self.count);
        self.body.advance(&mut self.offset, nbytes, self.count)?;
        self.count -= nbytes;
        Ok(())
    }

    /// Moves backwards by `nbytes`; refused if fewer were consumed (`iov_iter_revert`). On a PIPE it removes the newest
    /// `nbytes` bytes.
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

    /// [`Self::revert`] without its limit of [`MAX_RW_COUNT`], for a copy that returns bytes it did not use: one copy
    /// may cover more bytes than one system call of the kernel's.
    pub(crate) fn take_back(&mut self, nbytes: usize) -> Result<()> {
        if nbytes == 0 {
            return Ok(());
        }
        let count = self
            .count
            .checked_add(nbytes)
            .ok_or_else(|| Error::invalid("nbytes", nbytes, format!("count {} + nbytes within 64 bits", self.count)))?;
        self.body.revert(&mut self.offset, nbytes)?;
        self.count = count;
        Ok(())
    }

    /// Lowers `count` to `limit` if it is greater (`iov_iter_truncate`). The position does not change.
    pub fn truncate(&mut self, limit: usize) {
        self.count = self.count.min(limit);
    }

    /// Sets `count`, to undo a truncation (`iov_iter_reexpand`); refused if the segments hold fewer bytes.
    pub fn reexpand(&mut self, count: usize) -> Result<()> {
        let available = self.body.available(self.offset);
        if count > available {
            return Err(Error::BeyondSegments { count, available });
        }
        self.count = count;
        Ok(())
    }

    /// The position, for [`Self::restore`] (`iov_iter_save_state`).
    pub fn save_state(&self) -> IterState {
        IterState { iov_offset: self.iov_offset(), count: self.count, nr_segs: self.nr_segs() }
    }

    /// Moves to a saved position, backwards or forwards, and sets the `count` saved with it (`iov_iter_restore`).
    pub fn restore(&mut self, state: IterState) -> Result<()> {
        match self.body.seek(state.nr_segs, state.iov_offset, state.count) {
            None => return Err(Error::Unsupported { operation: "restore", kind: self.kind() }),
            Some(false) => return Err(Error::invalid("state", format!("{state:?}"), "a state of this iterator")),
            Some(true) => {}
        }
        self.offset = state.iov_offset;
        self.count = state.count;
        Ok(())
    }

    /// A second cursor over the same memory from the current segment on (`dup_iter`). It cannot be reverted to an
    /// earlier segment.
    pub fn dup(&self) -> Result<Self> {
        if self.body.as_pipe().is_some() {
            return Err(Error::Unsupported { operation: "dup", kind: self.kind() });
        }
        let mut dup = self.clone();
        dup.fault = None;
        if let Some(vector) = dup.body.as_vector_mut() {
            vector.begin_here();
        }
        Ok(dup)
    }
}
