//! Descriptors that the signal handler needs. They are opened before it can need them, since a process at its limit of
//! descriptors could not open one at the time of the fault.
//!
//! The program may close such a number and open something else under it. So before each use the descriptor's device and
//! inode are compared with those noted when it was opened. A forked child opens its own, because the inherited list of
//! mappings is the parent's. There is no lock: callers have the turn of [`crate::fault::shelter`], which serialises
//! them.

use super::{errno, remap};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// A descriptor, and the identity of the file it was opened for.
pub struct KeptOpen {
    name: &'static CStr,
    flags: i32,
    /// The descriptor's number plus 1; 0 if none was opened.
    file: AtomicI32,
    /// The pid of the process that opened it.
    process: AtomicI32,
    device: AtomicU64,
    number: AtomicU64,
}

/// The file that zeroes are mapped from.
pub static ZEROES: KeptOpen = KeptOpen::new(remap::ZEROES, libc::O_RDWR);

/// The list of mappings, by thread: `/proc/self/maps` is empty once the process's first thread has ended, this one
/// never is.
pub static MAPS: KeptOpen = KeptOpen::new(c"/proc/thread-self/maps", libc::O_RDONLY);

impl KeptOpen {
    const fn new(name: &'static CStr, flags: i32) -> Self {
        Self {
            name,
            flags,
            file: AtomicI32::new(0),
            process: AtomicI32::new(0),
            device: AtomicU64::new(0),
            number: AtomicU64::new(0),
        }
    }

    /// Whether `process` was the last to open it.
    pub fn is_open_in(&self, process: i32) -> bool {
        self.process.load(Ordering::Acquire) == process
    }

    /// The descriptor. It is opened first if this process has not opened it, or has closed it since. The errno on
    /// failure.
    pub fn get(&self) -> Result<i32, i32> {
        let process = remap::process();
        let file = self.file.load(Ordering::Relaxed) - 1;
        if file >= 0 && identity(file) == Ok(self.identity()) {
            if self.process.load(Ordering::Acquire) == process {
                return Ok(file);
            }
            // A forked child inherited it: it lists the parent's mappings. SAFETY: by its identity it is the descriptor
            // that this function opened, whose number no other code has.
            unsafe { libc::syscall(libc::SYS_close, file) };
        }
        let how = self.flags | libc::O_CLOEXEC;
        // SAFETY: the name is terminated.
        let opened = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, self.name.as_ptr(), how) };
        let file = i32::try_from(opened).ok().filter(|file| *file >= 0).ok_or_else(errno)?;
        let (device, number) = identity(file)?;
        self.device.store(device, Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
        self.file.store(file + 1, Ordering::Relaxed);
        self.process.store(process, Ordering::Release);
        Ok(file)
    }

    fn identity(&self) -> Identity {
        (self.device.load(Ordering::Relaxed), self.number.load(Ordering::Relaxed))
    }
}

/// A device and an inode number on it.
pub(super) type Identity = (u64, u64);

/// The device and the inode number of the file that a descriptor refers to. It is async-signal-safe.
pub(super) fn identity(file: i32) -> Result<Identity, i32> {
    let mut found = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `found` has room for the answer.
    if unsafe { libc::syscall(libc::SYS_fstat, file, found.as_mut_ptr()) } != 0 {
        return Err(errno());
    }
    // SAFETY: the call succeeded and filled it.
    let found = unsafe { found.assume_init() };
    Ok((found.st_dev, found.st_ino))
}
