//! What a reader sees of a log that another process writes meanwhile.

use super::chain::Chain;
use super::format::{self, Line, Superblock};
use super::recover::{self, Log};
use super::ring::{HEADER, Ring};
use super::{Medium, PmemLog, State};
use crate::abi::PAGE_SIZE;
use crate::error::Result;
use crate::sys::long_lock::Guard;

/// How often a reader looks again that a writer overtakes each time.
const LOOKS: usize = 1000;

impl<M: Medium> PmemLog<M> {
    /// For readers, for a writer's forked child, and for a writer that has lost its lock: what the writer has done
    /// since. What was looked through counts if no superblock has been written meanwhile: before that, nothing that was
    /// looked at can have been overwritten.
    pub(super) fn follow<'a>(&self, mut state: Guard<'a, State>) -> Result<Guard<'a, State>> {
        if self.is_writable && self.medium.require_lock().is_ok() {
            return Ok(state);
        }
        for _ in 0..LOOKS {
            self.look(&mut state)?;
            if !self.is_superseded(&state.superblock)? {
                break;
            }
        }
        Ok(state)
    }

    /// Whether there is a newer superblock, which one of the two says in its first line.
    fn is_superseded(&self, superblock: &Superblock) -> Result<bool> {
        for slot in 0..2 {
            let mut line = Line::from([0; HEADER as usize]);
            self.medium.read(slot * PAGE_SIZE, &mut line)?;
            if format::update(&line) > superblock.update {
                return Ok(self.newest()?.is_some_and(|newest| newest != *superblock));
            }
        }
        Ok(false)
    }

    fn look(&self, state: &mut State) -> Result<()> {
        let newest = self.newest()?;
        let State { superblock, ring, chain, .. } = state;
        if let Some(newest) = newest
            && newest != *superblock
            && newest.size == superblock.size
        {
            *ring = Ring::new(newest.capacity(), newest.bad.clone());
            if newest.generation == superblock.generation {
                chain.begin_at(newest.first);
            } else {
                *chain = Chain::new(newest.first);
            }
            *superblock = newest;
        }
        let log = Log { source: &self.medium, ring, generation: superblock.generation };
        let mut is_complete = log.is_last_there(chain)?;
        if is_complete {
            log.follow(chain, superblock.known)?;
            is_complete = chain.end.sequence >= superblock.known.sequence;
        }
        if !is_complete {
            // A record is seen before it is durable, and if it does not become so its number is another one's.
            *chain = log.recover(superblock)?.chain;
            self.settle(state)?;
        }
        Ok(())
    }

    /// The newest superblock, beside a writer: while one of the two is written, the other, which was looked at before,
    /// may have been written, too.
    fn newest(&self) -> Result<Option<Superblock>> {
        let mut found = recover::superblock(&self.medium)?;
        while found.1 != [true; 2] {
            let again = recover::superblock(&self.medium)?;
            if again == found {
                break;
            }
            found = again;
        }
        Ok(found.0)
    }

    /// Looks again at damage that was found beside a writer, which may have discarded a record and used its space, or
    /// not have stored all of it, between two of our looks. Damage is what was found twice, with the same superblock
    /// before and after both.
    pub(super) fn settle(&self, state: &mut State) -> Result<()> {
        for _ in 0..LOOKS {
            let State { superblock, ring, chain, .. } = &mut *state;
            if chain.damaged().next().is_none() {
                break;
            }
            let Some(newest) = self.newest()?.filter(|newest| newest.size == superblock.size) else { break };
            *ring = Ring::new(newest.capacity(), newest.bad.clone());
            let log = Log { source: &self.medium, ring, generation: newest.generation };
            let again = log.recover(&newest)?.chain;
            let is_same = newest == *superblock && self.newest()?.is_some_and(|after| after == newest);
            let is_settled = is_same && again.damaged().eq(chain.damaged());
            (*superblock, *chain) = (newest, again);
            if is_settled {
                break;
            }
        }
        Ok(())
    }
}
