//! Descriptors that a signal handler needs, kept open from when it may be needed on: then it may not be able to open
//! any.
//!
//! A program may close them, and open something else under their numbers: each is asked for what it is before it is
//! used. A forked child opens the list of its own mappings. Nothing is locked: whoever uses them has the turn of
//! [`crate::fault::shelter`].

use super::{errno, remap};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// A descriptor, and what it was when it was opened.
pub struct KeptOpen {
    name: &'static CStr,
    flags: i32,
    /// One more than its number; 0 if there is none.
    file: AtomicI32,
    /// The process that opened it.
    process: AtomicI32,
    device: AtomicU64,
    number: AtomicU64,
}

/// What zeroes are mapped from.
pub static ZEROES: KeptOpen = KeptOpen::new(remap::ZEROES, libc::O_RDWR);

/// The list of mappings. The one of a process whose first thread has ended is empty; a thread's never is.
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

    /// Whether a process has opened it before.
    pub fn is_open_in(&self, process: i32) -> bool {
        self.process.load(Ordering::Acquire) == process
    }

    /// The descriptor. It is opened, or opened anew, if it has to be.
    pub fn get(&self) -> Result<i32, i32> {
        let process = remap::process();
        let file = self.file.load(Ordering::Relaxed) - 1;
        if file >= 0 && identity(file) == Ok(self.identity()) {
            if self.process.load(Ordering::Acquire) == process {
                return Ok(file);
            }
            // Inherited: the list of the parent's mappings.
            // SAFETY: it is the descriptor that was opened here, which nobody else knows of.
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

    fn identity(&self) -> (u64, u64) {
        (self.device.load(Ordering::Relaxed), self.number.load(Ordering::Relaxed))
    }
}

/// The device and the number of the file that a descriptor refers to.
fn identity(file: i32) -> Result<(u64, u64), i32> {
    let mut found = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `found` has room for the answer.
    if unsafe { libc::syscall(libc::SYS_fstat, file, found.as_mut_ptr()) } != 0 {
        return Err(errno());
    }
    // SAFETY: the call succeeded and filled it.
    let found = unsafe { found.assume_init() };
    Ok((found.st_dev, found.st_ino))
}
