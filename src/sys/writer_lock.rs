//! The advisory lock that keeps a second writer off a file.

use super::errno;
use super::fork;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// `flock` on a description of its own, in the process that took it. A forked child does not have it: its copy of the
/// descriptor is closed, so that the lock ends with the writer however long its children live.
pub struct WriterLock {
    place: &'static Place,
    process: u64,
}

/// A place for a descriptor that forked children close. Never freed, and used again.
struct Place {
    /// -1 if it is free.
    descriptor: AtomicI32,
    next: AtomicPtr<Place>,
}

const FREE: i32 = -1;

/// The places there are, newest first.
static PLACES: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

fn places() -> impl Iterator<Item = &'static Place> {
    // SAFETY: a place is never freed.
    let at = |place: &AtomicPtr<Place>| unsafe { place.load(Ordering::Acquire).as_ref() };
    std::iter::successors(at(&PLACES), move |place| at(&place.next))
}

/// Notes a descriptor where a forked child finds it.
fn note(descriptor: i32) -> &'static Place {
    let take = |place: &&Place| {
        place.descriptor.compare_exchange(FREE, descriptor, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    if let Some(place) = places().find(take) {
        return place;
    }
    let new = Box::leak(Box::new(Place { descriptor: AtomicI32::new(descriptor), next: AtomicPtr::default() }));
    let mut first = PLACES.load(Ordering::Relaxed);
    loop {
        new.next.store(first, Ordering::Relaxed);
        match PLACES.compare_exchange(first, ptr::from_mut(new), Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return new,
            Err(other) => first = other,
        }
    }
}

/// Async-signal-safe: it loads, stores and closes.
unsafe extern "C" fn close_in_child() {
    for place in places() {
        let descriptor = place.descriptor.swap(FREE, Ordering::AcqRel);
        if descriptor != FREE {
            // SAFETY: the child's copy of a descriptor that only its lock knew of.
            unsafe { libc::close(descriptor) };
        }
    }
}

impl WriterLock {
    /// Takes the lock of an open file, or says why not: `EWOULDBLOCK` if anybody has it.
    pub fn take(file: &File) -> Result<Self, i32> {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // SAFETY: the handler is a function of the library, which is never unloaded.
            unsafe { libc::pthread_atfork(None, None, Some(close_in_child)) };
        });
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let own = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let own = own.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
        // SAFETY: the descriptor is open; the call touches no memory of ours.
        if unsafe { libc::flock(own.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(errno());
        }
        Ok(Self { place: note(own.into_raw_fd()), process: fork::process() })
    }

    /// Whether this process has it.
    pub fn is_held(&self) -> bool {
        self.process == fork::process()
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        if !self.is_held() {
            return;
        }
        let descriptor = self.place.descriptor.swap(FREE, Ordering::AcqRel);
        if descriptor != FREE {
            // Unlocked, too: a process that was forked past the C library may still have a copy.
            // SAFETY: opened by `take`, and known to nobody else.
            unsafe { libc::flock(descriptor, libc::LOCK_UN) };
            // SAFETY: opened by `take`, and known to nobody else.
            unsafe { libc::close(descriptor) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WriterLock;
    use std::fs::File;

    #[test]
    fn a_lock_is_had_once_and_given_back() {
        let path = std::env::temp_dir().join(format!("iovec-rs-lock-{}", std::process::id()));
        let file = File::create_new(&path).unwrap();
        let lock = WriterLock::take(&file).unwrap();
        assert!(lock.is_held());
        assert_eq!(WriterLock::take(&file).err(), Some(libc::EWOULDBLOCK));
        drop(lock);
        let again = WriterLock::take(&file);
        std::fs::remove_file(&path).unwrap();
        assert!(again.is_ok());
    }
}
