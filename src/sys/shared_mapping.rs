//! Shared mappings of files made by this crate, and their syncs.
//!
//! The kernel reports a failed write-back once per open file description, so a sync may consume the error that concerns
//! another thread's stores. Each mapping therefore has an open file description that only this crate syncs, and `Syncs`
//! counts every failure on it (syncs.rs has the rules). A registry by address finds the mapping that a range of memory
//! belongs to, so that a sync of any range goes through those counts.

use super::file;
use super::fork::{FORKS, PerProcess};
use super::mapping;
use super::own_file::OwnFile;
pub use super::syncs::Caller;
use super::syncs::{Synced, Syncs, tell};
use super::turn::{self, Turn};
use crate::error;
use crate::memory::Segment;
use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

/// A shared mapping of a file. It is unmapped on drop.
pub struct SharedMapping {
    file: Arc<OwnFile>,
    offset: u64,
    seg: Segment,
    writable: bool,
    is_map_sync: bool,
    needs_msync: bool,
    /// The mapping's number. Unlike its address, it is never used for another mapping.
    number: u64,
    syncs: PerProcess<Syncs>,
}

impl SharedMapping {
    /// Maps `len` bytes of a file from `offset` on, with `MAP_SYNC` if the file system supports it.
    pub fn new(file: Arc<OwnFile>, offset: u64, len: usize, writable: bool) -> Result<Arc<Self>, i32> {
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

    /// Its address range.
    pub fn seg(&self) -> Segment {
        self.seg
    }

    /// Whether it has `MAP_SYNC`: then a store is durable once its cache line was written back, without an msync.
    pub fn is_map_sync(&self) -> bool {
        self.is_map_sync
    }

    /// Whether stores to it are durable only after an msync. Those to a `MAP_SYNC` mapping or to a character device
    /// (device DAX) need none.
    pub fn needs_msync(&self) -> bool {
        self.needs_msync
    }

    /// The part of a range that is in this mapping.
    pub fn part_of(&self, seg: Segment) -> Segment {
        let start = seg.addr.max(self.seg.addr);
        Segment::new(start, seg.end().min(self.seg.end()).saturating_sub(start))
    }

    /// How many bytes of a range, from its start on, the file has now: it may have been truncated.
    pub fn held_by_file(&self, seg: Segment) -> Result<usize, i32> {
        let length = self.file.metadata()?.len();
        let start = self.offset + (seg.addr - self.seg.addr) as u64;
        Ok(usize::try_from(length.saturating_sub(start)).unwrap_or(usize::MAX).min(seg.len))
    }

    /// How many bytes from byte `at` of the mapping on are in a hole of the file, and so are zero. It is 0 where the
    /// file system does not say.
    pub fn hole_at(&self, at: usize) -> usize {
        let Ok(meta) = self.file.metadata() else { return 0 };
        let start = self.offset + at as u64;
        let data = match file::seek_data(&self.file, start) {
            Ok(data) => data,
            // The hole lasts up to the file's end.
            Err(libc::ENXIO) => meta.len(),
            Err(_) => start,
        };
        usize::try_from(data.saturating_sub(start)).unwrap_or(usize::MAX).min(self.seg.len - at)
    }

    /// The syncs of this process's open file description. In a forked child the first call opens one.
    fn syncs(&self) -> Result<&Syncs, i32> {
        self.syncs.get(|inherited| {
            self.reopen()?;
            inherited.inherit()
        })
    }

    /// Gives a forked child an open file description of its own, under the same descriptor number, with a new mapping
    /// at the same address.
    ///
    /// The file is opened through the descriptor's link in `/proc`. Its device and inode are compared, since the
    /// program may have closed that number and opened another file under it. A failure at any step leaves a state from
    /// which the next call tries again.
    fn reopen(&self) -> Result<(), i32> {
        let code = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let new = OpenOptions::new().read(true).write(self.writable).custom_flags(flags).open(path).map_err(code)?;
        if !self.file.is_same(&new.metadata().map_err(code)?) {
            return Err(libc::ESTALE);
        }
        // SAFETY: `map` returned the range, a fork copies mappings, and the value keeps it mapped; `new` is the same
        // file by its device and inode.
        unsafe { mapping::replace(self.seg, &new, self.offset, self.writable, self.is_map_sync)? };
        // SAFETY: both descriptors are open. `file` keeps its number and refers to the same file as before.
        match unsafe { libc::dup3(new.as_raw_fd(), self.file.as_raw_fd(), libc::O_CLOEXEC) } {
            -1 => Err(super::errno()),
            _ => Ok(()),
        }
    }

    /// The number of failures so far. A caller notes it before its stores and passes it to [`Self::sync_since`] after
    /// them.
    pub fn failures(&self) -> Result<u64, i32> {
        self.syncs().map(Syncs::failures)
    }

    /// `msync` over every page that a range touches. An error if any write-back of this mapping has failed since
    /// `failures` was noted, whichever sync the kernel reported it to.
    pub fn sync_since(&self, failures: u64, seg: Segment) -> Result<(), i32> {
        self.syncs()?.together(|| mapping::msync(seg)).since(failures)
    }

    /// Takes the turn for [`Self::store_alone`]. While it lasts, neither other threads nor related processes begin a
    /// sync.
    pub fn take_turn() -> impl Drop {
        Turn::take()
    }

    /// Runs `store`, then `msync` over the range that `stored` returns, while no other sync of this mapping runs in
    /// this process. The error returned concerns these stores.
    pub fn store_alone<T>(
        &self,
        store: impl FnOnce() -> T,
        stored: impl FnOnce(&T) -> Segment,
    ) -> Result<(T, Result<(), i32>), i32> {
        Ok(self.syncs()?.alone(store, |store| mapping::msync(stored(store))))
    }

    /// `msync` over every page that a range touches. An error if any write-back of this mapping has failed that
    /// `caller` has not reported to this thread yet.
    pub fn sync(&self, caller: Caller, seg: Segment) -> Result<(), i32> {
        self.tell(caller, self.syncs()?.together(|| mapping::msync(seg)))
    }

    /// `msync` over a range, then `fsync` of the file. The error is that of [`Self::sync`].
    pub fn sync_file(&self, caller: Caller, seg: Segment) -> Result<(), i32> {
        // `and` makes both calls: each of the two may be the one that the kernel reports a failure to.
        let synced = self.syncs()?.together(|| mapping::msync(seg).and(self.file.sync_all()));
        self.tell(caller, synced)
    }

    fn tell(&self, caller: Caller, synced: Synced) -> Result<(), i32> {
        tell(self.number, caller, synced)
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // The entry goes before the range is unmapped: from then on another mapping may get the address.
        registry().remove(&self.seg.addr);
        COUNT.fetch_sub(1, Ordering::SeqCst);
        NEED_MSYNC.fetch_sub(usize::from(self.needs_msync), Ordering::SeqCst);
        // SAFETY: `new` mapped exactly this range, and dropping the value ends the last use of it.
        unsafe { mapping::unmap(self.seg) };
    }
}

/// How many mappings are alive.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// How many of them need an msync.
static NEED_MSYNC: AtomicUsize = AtomicUsize::new(0);

/// Whether any mapping made here needs an msync.
#[inline]
pub fn any_needs_msync() -> bool {
    NEED_MSYNC.load(Ordering::Relaxed) != 0
}

type Registry = BTreeMap<usize, Weak<SharedMapping>>;

/// Locks the registry of mappings, by address. No mapping is dropped while it is locked, since its `drop` locks it,
/// too.
fn registry() -> MutexGuard<'static, Registry> {
    static MAPPINGS: Mutex<Registry> = Mutex::new(BTreeMap::new());
    watch_forks();
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers fork handlers that lock the registry during a fork, so that the child finds it unlocked and whole. It is
/// called at import: a fork by another thread must not come before the handlers are registered.
pub fn watch_forks() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        turn::end();
        // SAFETY: the handlers are functions of the library, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
    });
}

/// The registry's guard between the handlers before and after a fork.
struct HeldWhileForking(UnsafeCell<Option<MutexGuard<'static, Registry>>>);

// SAFETY: only a forking thread accesses it, between the two handlers, and only while it has the registry locked.
unsafe impl Sync for HeldWhileForking {}

static HELD: HeldWhileForking = HeldWhileForking(UnsafeCell::new(None));

unsafe extern "C" fn before_fork() {
    let guard = registry();
    // SAFETY: this thread has the registry locked, so no other thread is between the handlers.
    unsafe { *HELD.0.get() = Some(guard) };
}

unsafe extern "C" fn after_fork() {
    // SAFETY: `before_fork` locked the registry in this thread, whose copy runs this in the child; so no other thread
    // is here.
    let guard = unsafe { (*HELD.0.get()).take() };
    drop(guard);
}

unsafe extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: like `after_fork`, it is called once after each `before_fork`, in the thread that forked.
    unsafe { after_fork() };
}

/// The mappings that share a byte with the range, sorted by address.
pub fn overlapping(seg: Segment) -> error::Result<Vec<Arc<SharedMapping>>> {
    let mut found = Vec::new();
    if seg.len == 0 || COUNT.load(Ordering::SeqCst) == 0 {
        return Ok(found);
    }
    let mappings = registry();
    let before = mappings.range(..=seg.addr).next_back();
    let within = mappings.range(seg.addr..seg.end().max(seg.addr)).filter(|(start, _)| **start != seg.addr);
    let reserved = error::reserve(&mut found, 1 + within.clone().count());
    if reserved.is_ok() {
        found.extend(before.into_iter().chain(within).filter_map(|(_, mapping)| mapping.upgrade()));
    }
    drop(mappings);
    // What is dropped here may be the last of its kind.
    found.retain(|mapping| mapping.seg.overlaps(seg));
    reserved.map(|()| found)
}

/// The parts of a range that lie in none of the mappings, which are sorted by address and do not overlap.
pub fn outside(seg: Segment, mappings: &[Arc<SharedMapping>]) -> impl Iterator<Item = Segment> {
    let mut at = seg.addr;
    let inside = mappings.iter().map(move |mapping| mapping.part_of(seg));
    inside.chain([Segment::new(seg.end(), 0)]).filter_map(move |inside| {
        let gap = Segment::new(at, inside.addr - at);
        at = inside.end();
        (gap.len != 0).then_some(gap)
    })
}

/// `msync` over every page that a range touches, of any mapping. In mappings made here, failures that the kernel
/// reported to other syncs count, too.
pub fn sync(seg: Segment) -> Result<(), i32> {
    let mappings = overlapping(seg).map_err(|_| libc::ENOMEM)?;
    for mapping in &mappings {
        mapping.sync(Caller::Lines, mapping.part_of(seg))?;
    }
    outside(seg, &mappings).try_for_each(mapping::msync)
}
