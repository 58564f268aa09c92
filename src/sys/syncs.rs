//! Which syncs must report that a write-back failed.
//!
//! The kernel reports a failed write-back once per open file description: to the first msync or fsync that asks,
//! whichever pages failed. An msync by another thread at the same time returns 0, although its pages may be the ones
//! that were lost. So every sync of a description is counted here, and a sync that returned 0 counts as a success only
//! if no sync failed that may have been given its error:
//!
//! * a caller notes [`Syncs::failures`] before its stores, and compares the number after its sync;
//! * a sync that has returned waits for those that were running at that moment ([`Syncs::together`]), since one of them
//!   may have been given its error and not have counted it yet;
//! * a caller that must know whether its own pages failed stores and syncs while no other sync runs ([`Syncs::alone`]).
//!
//! A forked child shares the description with its parent, so it must not sync it: it would take errors from the parent.
//! It opens its own, and counts on from the parent's number at the fork, plus one if the parent may have been given an
//! error since ([`Syncs::inherit`]). These counts cover the parent's failures because both processes map the page of
//! [`Counts`].

use super::fork::SharedPage;
use super::turn;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The counts that a forked child reads in its parent's live state. Syncs are numbered from 0.
#[derive(Default)]
struct Counts {
    /// The next sync's number.
    next: AtomicU64,
    /// All syncs with smaller numbers have returned and, if they failed, are counted in `failed`.
    oldest: AtomicU64,
    /// The number of syncs that have failed.
    failed: AtomicU64,
}

/// How long a forked child waits for its parent's syncs to return. A parent that died during one never finishes it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The interval at which the child checks.
const PAUSE: Duration = Duration::from_micros(100);

/// The syncs that are running.
#[derive(Default)]
struct Running {
    /// The next sync's number.
    next: u64,
    /// The numbers of those that have not finished, in ascending order.
    numbers: Vec<u64>,
    /// Whether a sync in [`Syncs::alone`] is running or waiting for the others to finish.
    alone: bool,
}

/// The syncs of one open file description.
pub(super) struct Syncs {
    running: Mutex<Running>,
    finished: Condvar,
    shared: SharedPage<Counts>,
    /// The count of `shared.failed` in memory of this process: after a fork it keeps the child's value at the fork,
    /// while the parent goes on changing the shared one.
    failures: AtomicU64,
    /// The errno of the last failure.
    errno: AtomicI32,
}

/// The outcome of a sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Synced {
    /// What the kernel returned to this sync.
    own: Result<(), i32>,
    /// How many syncs had failed when every sync that may have been given this one's error had returned.
    failures: u64,
    /// The errno of the last of these failures.
    errno: i32,
}

impl Synced {
    /// Success if this sync succeeded and no sync has failed since the count was `failures`.
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
            // SAFETY: `Counts` has atomic fields only, no destructor, and all zeroes is its default value.
            shared: unsafe { SharedPage::zeroed()? },
            failures: AtomicU64::new(0),
            errno: AtomicI32::new(libc::EIO),
        })
    }

    /// The syncs of the description that a forked child has just opened, continuing the counts of the inherited one.
    ///
    /// An error that the kernel has already given to the parent is not reported to the new description. So any failure
    /// that the parent has counted since the fork counts as one failure here. The parent's syncs that run now may be
    /// given an error, too: this waits for them, and if they do not return in time, they count as a failure.
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

    /// How many syncs have failed.
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

    /// Runs a sync while others may run. The order of the steps is what makes its outcome true: it registers, calls the
    /// kernel, counts its own failure (`Begun::drop`), and only then waits for the syncs that registered before it
    /// returned. Each of those has counted its failure before it unregisters, so the count read at the end includes
    /// every error that was given to another sync in this one's place.
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

    /// Runs `store` and then `sync` while no other sync of this process runs. So an error that it returns is never that
    /// of another sync here. It concerns its own pages, or pages that the kernel wrote back on its own, or pages of
    /// another process.
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

/// A sync that has begun. Dropping it finishes it. It counts as failed unless the call has returned success, so also if
/// it panicked.
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
            // The shared count is raised first: a child forked between the two then sees a failure that it does not
            // know of, which errs on the safe side.
            counts.failed.fetch_add(1, Ordering::SeqCst);
            syncs.failures.fetch_add(1, Ordering::SeqCst);
        }
        running.numbers.retain(|number| *number != self.number);
        let oldest = running.numbers.first().copied().unwrap_or(running.next);
        counts.oldest.store(oldest, Ordering::SeqCst);
        syncs.finished.notify_all();
    }
}

/// The exclusive right of [`Syncs::alone`]. Dropping it ends it.
struct Alone<'a>(&'a Syncs);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.lock().alone = false;
        self.0.finished.notify_all();
    }
}

/// A function that makes other callers' stores durable. It cannot store the bytes again after a failure, so each
/// reports every failure once to each thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Caller {
    /// `PmemRegion.persist`.
    Persist,
    /// `PmemRegion.deep_flush`.
    DeepFlush,
    /// `iovec_rs.pmem.persist`.
    PmemPersist,
    /// A write-back of cache lines in memory that needs an msync.
    Lines,
}

thread_local! {
    /// How many failures of a mapping a function has reported to this thread. No entry stands for 0.
    static TOLD: RefCell<BTreeMap<(u64, Caller), u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Success if `caller` has reported every failure of the mapping number `mapping` to this thread before. Otherwise the
/// error, which counts as reported now.
pub(super) fn tell(mapping: u64, caller: Caller, synced: Synced) -> Result<(), i32> {
    let told = |told: &RefCell<BTreeMap<_, _>>| match synced.failures {
        0 => 0,
        failures => told.borrow_mut().insert((mapping, caller), failures).unwrap_or(0),
    };
    // A thread whose thread-locals are destroyed has no table: it gets an error for any failure there ever was.
    synced.since(TOLD.try_with(told).unwrap_or(0))
}

#[cfg(test)]
mod tests;
