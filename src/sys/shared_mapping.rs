//! Shared mappings of files that this crate has made, and their syncs, which know of each other's failures.

use super::fork::{FORKS, PerProcess};
use super::mapping;
pub use super::syncs::Caller;
use super::syncs::{Synced, Syncs, tell};
use super::turn::{self, Turn};
use crate::memory::Segment;
use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

/// A shared mapping of a file. It is unmapped when it is dropped.
pub struct SharedMapping {
    file: Arc<File>,
    offset: u64,
    seg: Segment,
    writable: bool,
    is_map_sync: bool,
    needs_msync: bool,
    /// Tells mappings apart for good, as addresses do not.
    number: u64,
    syncs: PerProcess<Syncs>,
}

impl SharedMapping {
    /// Maps `len` bytes of a file from `offset` on, `MAP_SYNC` if that can be had.
    pub fn new(file: Arc<File>, offset: u64, len: usize, writable: bool) -> Result<Arc<Self>, i32> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let syncs = PerProcess::new(Syncs::new()?);
        let (seg, is_map_sync) = mapping::map(&file, offset, len, writable)?;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let is_device = file.metadata().is_ok_and(|meta| meta.file_type().is_char_device());
        let needs_msync = !is_map_sync && !is_device;
        let new = Arc::new(Self { file, offset, seg, writable, is_map_sync, needs_msync, number, syncs });
        registry().insert(seg.addr, Arc::downgrade(&new));
        COUNT.fetch_add(1, Ordering::SeqCst);
        NEED_MSYNC.fetch_add(usize::from(needs_msync), Ordering::SeqCst);
        Ok(new)
    }

    /// Where it is.
    pub fn seg(&self) -> Segment {
        self.seg
    }

    /// Whether it is `MAP_SYNC`: what has left the caches needs no msync.
    pub fn is_map_sync(&self) -> bool {
        self.is_map_sync
    }

    /// Whether stores to it are durable only after an msync: those to a device never need one.
    pub fn needs_msync(&self) -> bool {
        self.needs_msync
    }

    /// The part of a range that is in this mapping.
    pub fn part_of(&self, seg: Segment) -> Segment {
        let start = seg.addr.max(self.seg.addr);
        Segment::new(start, seg.end().min(self.seg.end()).saturating_sub(start))
    }

    /// How many of a range's bytes, from its start on, the file holds now. It may have been cut.
    pub fn held_by_file(&self, seg: Segment) -> Result<usize, i32> {
        let length = self.file.metadata().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?.len();
        let start = self.offset + (seg.addr - self.seg.addr) as u64;
        Ok(usize::try_from(length.saturating_sub(start)).unwrap_or(usize::MAX).min(seg.len))
    }

    /// The syncs of this process's description of the file.
    fn syncs(&self) -> Result<&Syncs, i32> {
        self.syncs.get(|inherited| {
            self.reopen()?;
            inherited.inherit()
        })
    }

    /// Gives a forked child a description of its own: under the same descriptor number, and at the same address.
    fn reopen(&self) -> Result<(), i32> {
        let code = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let new = OpenOptions::new().read(true).write(self.writable).custom_flags(flags).open(path).map_err(code)?;
        let (is, was) = (new.metadata().map_err(code)?, self.file.metadata().map_err(code)?);
        if (is.dev(), is.ino()) != (was.dev(), was.ino()) {
            return Err(libc::ESTALE);
        }
        // SAFETY: the range is this value's own, in this process, too, and a mapping of the same bytes takes its place
        // at once.
        unsafe { mapping::replace(self.seg, &new, self.offset, self.writable, self.is_map_sync)? };
        // SAFETY: both descriptors are open; `file` stays so, and refers to the same file as before.
        match unsafe { libc::dup3(new.as_raw_fd(), self.file.as_raw_fd(), libc::O_CLOEXEC) } {
            -1 => Err(super::errno()),
            _ => Ok(()),
        }
    }

    /// What is to be noted before stores that [`Self::sync_since`] is to make durable.
    pub fn failures(&self) -> Result<u64, i32> {
        self.syncs().map(Syncs::failures)
    }

    /// `msync` over every page that a range touches. An error if a write-back of this mapping has failed since
    /// `failures` were noted, whichever sync was told.
    pub fn sync_since(&self, failures: u64, seg: Segment) -> Result<(), i32> {
        self.syncs()?.together(|| mapping::msync(seg)).since(failures)
    }

    /// A turn for [`Self::store_alone`], in which neither other threads nor forked processes begin a sync.
    pub fn take_turn() -> impl Drop {
        Turn::take()
    }

    /// Runs a store, then `msync` over what it returns, while no other sync of this mapping runs in this process.
    pub fn store_alone<T>(
        &self,
        store: impl FnOnce() -> T,
        stored: impl FnOnce(&T) -> Segment,
    ) -> Result<(T, Result<(), i32>), i32> {
        Ok(self.syncs()?.alone(store, |store| mapping::msync(stored(store))))
    }

    /// `msync` over every page that a range touches. An error for every failure that this thread was not told of by
    /// this function.
    pub fn sync(&self, caller: Caller, seg: Segment) -> Result<(), i32> {
        self.tell(caller, self.syncs()?.together(|| mapping::msync(seg)))
    }

    /// `msync` over a range, and `fsync`. An error as from [`Self::sync`].
    pub fn sync_file(&self, caller: Caller, seg: Segment) -> Result<(), i32> {
        let fsync = || self.file.sync_all().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
        // Both are told of the failures so far, so both are asked.
        let synced = self.syncs()?.together(|| mapping::msync(seg).and(fsync()));
        self.tell(caller, synced)
    }

    fn tell(&self, caller: Caller, synced: Synced) -> Result<(), i32> {
        tell(self.number, caller, synced)
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // Before the address can be another mapping's.
        registry().remove(&self.seg.addr);
        COUNT.fetch_sub(1, Ordering::SeqCst);
        NEED_MSYNC.fetch_sub(usize::from(self.needs_msync), Ordering::SeqCst);
        // SAFETY: mapped by `new`, and used by nobody any more.
        unsafe { mapping::unmap(self.seg) };
    }
}

/// How many mappings there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// How many of them need an msync.
static NEED_MSYNC: AtomicUsize = AtomicUsize::new(0);

/// Whether any memory of a mapping made here needs an msync.
#[inline]
pub fn any_needs_msync() -> bool {
    NEED_MSYNC.load(Ordering::Relaxed) != 0
}

type Registry = BTreeMap<usize, Weak<SharedMapping>>;

/// The mappings of this process, by address. Nothing is dropped while it is locked.
fn registry() -> MutexGuard<'static, Registry> {
    static MAPPINGS: Mutex<Registry> = Mutex::new(BTreeMap::new());
    watch_forks();
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has forks keep the registry whole. To be called before there are threads: a child cannot finish what another thread
/// had begun.
pub fn watch_forks() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        turn::end();
        // SAFETY: the handlers are functions of the library, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
    });
}

/// The registry's lock while a process forks: the child could not open one that another thread held.
struct HeldWhileForking(UnsafeCell<Option<MutexGuard<'static, Registry>>>);

// SAFETY: only a thread that forks touches it, between the two handlers, and the lock inside keeps a second one out.
unsafe impl Sync for HeldWhileForking {}

static HELD: HeldWhileForking = HeldWhileForking(UnsafeCell::new(None));

unsafe extern "C" fn before_fork() {
    let guard = registry();
    // SAFETY: with the registry locked, no other thread is between the handlers.
    unsafe { *HELD.0.get() = Some(guard) };
}

unsafe extern "C" fn after_fork() {
    // SAFETY: the registry is still locked by this thread, in the child by its copy.
    let guard = unsafe { (*HELD.0.get()).take() };
    drop(guard);
}

unsafe extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: called where `after_fork` would be.
    unsafe { after_fork() };
}

/// The mappings that share a byte with the range, by address.
pub fn overlapping(seg: Segment) -> Vec<Arc<SharedMapping>> {
    if seg.len == 0 || COUNT.load(Ordering::SeqCst) == 0 {
        return Vec::new();
    }
    let mappings = registry();
    let before = mappings.range(..=seg.addr).next_back();
    let within = mappings.range(seg.addr..seg.end().max(seg.addr)).filter(|(start, _)| **start != seg.addr);
    let found: Vec<_> = before.into_iter().chain(within).filter_map(|(_, mapping)| mapping.upgrade()).collect();
    drop(mappings);
    found.into_iter().filter(|mapping| mapping.seg.overlaps(seg)).collect()
}

/// The parts of a range that are in none of the mappings, which are sorted by address and do not overlap.
pub fn outside(seg: Segment, mappings: &[Arc<SharedMapping>]) -> impl Iterator<Item = Segment> {
    let mut at = seg.addr;
    let inside = mappings.iter().map(move |mapping| mapping.part_of(seg));
    inside.chain([Segment::new(seg.end(), 0)]).filter_map(move |inside| {
        let gap = Segment::new(at, inside.addr - at);
        at = inside.end();
        (gap.len != 0).then_some(gap)
    })
}

/// `msync` over every page that a range of anybody's memory touches. In mappings made here it knows of the failures
/// that other syncs were told of.
pub fn sync(seg: Segment) -> Result<(), i32> {
    let mappings = overlapping(seg);
    for mapping in &mappings {
        mapping.sync(Caller::Lines, mapping.part_of(seg))?;
    }
    outside(seg, &mappings).try_for_each(mapping::msync)
}
