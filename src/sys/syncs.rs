//! Who has to be told that a write-back failed.
//!
//! The kernel reports a failed write-back once per open file description: to whichever msync or fsync of it asks first,
//! whatever range that one is about. Another thread's msync that runs at the same time returns 0, although it may be
//! its pages that were lost. So all syncs of a description are counted here, and a success is one only if no sync that
//! could have been handed the error in its place failed:
//!
//! * whoever stores notes [`Syncs::failures`] before, and compares it after its sync;
//! * a sync that has returned waits for those that were running then ([`Syncs::together`]), since one of them may have
//!   been handed its error and not have counted it yet;
//! * whoever must know whether its own pages are good stores and syncs while no other sync runs ([`Syncs::alone`]).
//!
//! A forked child shares the description with its parent and must not sync it. It opens its own, and goes on counting
//! where the parent was when it forked; one more if the parent may have been handed an error since
//! ([`Syncs::inherit`]).

use super::fork::SharedPage;
use super::turn;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a forked child can still read after its parent has changed it. Syncs are numbered from 0.
#[derive(Default)]
struct Counts {
    /// The next sync's number.
    next: AtomicU64,
    /// All syncs with lower numbers have returned and, if they failed, have been counted in `failed`.
    oldest: AtomicU64,
    /// Syncs that have failed.
    failed: AtomicU64,
}

/// How long a forked child waits for its parent's syncs to return: one that died in them never will.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it looks.
const PAUSE: Duration = Duration::from_micros(100);

/// What is running.
#[derive(Default)]
struct Running {
    /// The next sync's number.
    next: u64,
    /// The numbers of those that have not finished, the oldest first.
    numbers: Vec<u64>,
    /// Whether one has the description for itself.
    alone: bool,
}

/// The syncs of one open file description.
pub(super) struct Syncs {
    running: Mutex<Running>,
    finished: Condvar,
    shared: SharedPage<Counts>,
    /// As in `shared`, and not changed by the parent of a forked child.
    failures: AtomicU64,
    /// The last failure's errno.
    errno: AtomicI32,
}

/// What a sync came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Synced {
    /// What the kernel told this one.
    own: Result<(), i32>,
    /// How many had failed when all had returned that could have been told in its place.
    failures: u64,
    /// The errno of the last of them.
    errno: i32,
}

impl Synced {
    /// Success if nobody was told of a failure since so many had failed.
    pub(super) fn since(self, failures: u64) -> Result<(), i32> {
        self.own?;
        if self.failures == failures { Ok(()) } else { Err(self.errno) }
    }
}

impl Syncs {
    pub(super) fn new() -> Result<Self, i32> {
        Ok(Self {
            running: Mutex::default(),
            finished: Condvar::new(),
            // SAFETY: counts are atomic, and zeroes are counts of nothing.
            shared: unsafe { SharedPage::zeroed()? },
            failures: AtomicU64::new(0),
            errno: AtomicI32::new(libc::EIO),
        })
    }

    /// The syncs of the description that a forked child has just opened for itself, going on from those of the
    /// inherited one. One more has failed if any of the parent's has since the fork. Those that run now are waited for:
    /// the new description is not told of what they are told. If they do not return, they count as a failure.
    pub(super) fn inherit(&self) -> Result<Self, i32> {
        let new = Self::new()?;
        let counts = self.shared.get();
        let (begun, start) = (counts.next.load(Ordering::SeqCst), Instant::now());
        let all_returned = || counts.oldest.load(Ordering::SeqCst) >= begun;
        while !all_returned() && start.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
        let known = self.failures.load(Ordering::SeqCst);
        let more = !all_returned() || counts.failed.load(Ordering::SeqCst) != known;
        let failures = known + u64::from(more);
        new.failures.store(failures, Ordering::SeqCst);
        new.shared.get().failed.store(failures, Ordering::SeqCst);
        new.errno.store(self.errno.load(Ordering::SeqCst), Ordering::SeqCst);
        Ok(new)
    }

    /// How many syncs have failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, running: MutexGuard<'a, Running>, until: impl Fn(&Running) -> bool) -> MutexGuard<'a, Running> {
        self.finished.wait_while(running, |running| !until(running)).unwrap_or_else(PoisonError::into_inner)
    }

    fn begin<'a>(&'a self, running: &mut Running) -> Begun<'a> {
        let number = running.next;
        running.next += 1;
        running.numbers.push(number);
        self.shared.get().next.store(running.next, Ordering::SeqCst);
        Begun { syncs: self, number, failed: Some(libc::EIO) }
    }

    /// Runs a sync beside others.
    pub(super) fn together(&self, sync: impl FnOnce() -> Result<(), i32>) -> Synced {
        turn::wait();
        let mut running = self.wait(self.lock(), |running| !running.alone);
        let begun = self.begin(&mut running);
        drop(running);
        let own = begun.run(sync);
        let running = self.lock();
        let limit = running.next;
        let running = self.wait(running, |running| running.numbers.iter().all(|number| *number >= limit));
        let synced = self.synced(own);
        drop(running);
        synced
    }

    /// Runs what stores and then syncs while no other sync runs: it is told of its own pages' failures, and else only
    /// of those that the kernel or another process has caused meanwhile.
    pub(super) fn alone<T>(
        &self,
        store: impl FnOnce() -> T,
        sync: impl FnOnce(&T) -> Result<(), i32>,
    ) -> (T, Result<(), i32>) {
        let mut running = self.wait(self.lock(), |running| !running.alone);
        running.alone = true;
        let mut running = self.wait(running, |running| running.numbers.is_empty());
        let _alone = Alone(self);
        let begun = self.begin(&mut running);
        drop(running);
        let stored = store();
        let own = begun.run(|| sync(&stored));
        (stored, own)
    }

    fn synced(&self, own: Result<(), i32>) -> Synced {
        Synced { own, failures: self.failures(), errno: self.errno.load(Ordering::SeqCst) }
    }
}

/// A sync that has begun. Dropped, it is finished; it counts as failed unless it has returned without an error.
struct Begun<'a> {
    syncs: &'a Syncs,
    number: u64,
    failed: Option<i32>,
}

impl Begun<'_> {
    fn run(mut self, sync: impl FnOnce() -> Result<(), i32>) -> Result<(), i32> {
        let own = sync();
        self.failed = own.err();
        own
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let (syncs, counts) = (self.syncs, self.syncs.shared.get());
        let mut running = syncs.lock();
        if let Some(errno) = self.failed {
            syncs.errno.store(errno, Ordering::SeqCst);
            // The shared count first: a child that is forked in between takes it for a failure that it does not know.
            counts.failed.fetch_add(1, Ordering::SeqCst);
            syncs.failures.fetch_add(1, Ordering::SeqCst);
        }
        running.numbers.retain(|number| *number != self.number);
        let oldest = running.numbers.first().copied().unwrap_or(running.next);
        counts.oldest.store(oldest, Ordering::SeqCst);
        syncs.finished.notify_all();
    }
}

/// That one sync has the description for itself, until this is dropped.
struct Alone<'a>(&'a Syncs);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.lock().alone = false;
        self.0.finished.notify_all();
    }
}

/// What makes durable what others have stored, and so cannot store it again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Caller {
    /// `PmemRegion.persist`.
    Persist,
    /// `PmemRegion.deep_flush`.
    DeepFlush,
    /// `iovec_rs.pmem.persist`.
    PmemPersist,
    /// A write-back of lines that only the kernel can do.
    Lines,
}

thread_local! {
    /// How many failures of a mapping this thread has been told of by a function. None, where there is no entry.
    static TOLD: RefCell<BTreeMap<(u64, Caller), u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Success if this thread has been told by this function of every failure of the mapping with that number. It is told
/// now.
pub(super) fn tell(mapping: u64, caller: Caller, synced: Synced) -> Result<(), i32> {
    let told = |told: &RefCell<BTreeMap<_, _>>| match synced.failures {
        0 => 0,
        failures => told.borrow_mut().insert((mapping, caller), failures).unwrap_or(0),
    };
    // A thread that ends has no table any more: it is told of everything.
    synced.since(TOLD.try_with(told).unwrap_or(0))
}

#[cfg(test)]
mod tests;
