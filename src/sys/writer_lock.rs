//! The advisory lock that keeps a second writer off a file (`flock`).

use super::errno;
use super::fork;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// A `flock` on an open file description of its own, which belongs to the process that took it.
///
/// A `flock` lasts until every copy of its descriptor is closed, also those in forked children. So a child closes its
/// copy at once, in a `pthread_atfork` handler; otherwise the lock would outlive the writer for as long as a child
/// runs.
pub struct WriterLock {
    place: &'static Place,
    process: u64,
}

/// A place for one descriptor that forked children close. Places are reused and never freed, so the fork handler can
/// walk their list without a lock.
struct Place {
    /// The descriptor, or [`FREE`].
    descriptor: AtomicI32,
    next: AtomicPtr<Place>,
}

const FREE: i32 = -1;

/// The head of the list of places, the newest first.
static PLACES: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

fn places() -> impl Iterator<Item = &'static Place> {
    // SAFETY: a place is never freed.
    let at = |place: &AtomicPtr<Place>| unsafe { place.load(Ordering::Acquire).as_ref() };
    std::iter::successors(at(&PLACES), move |place| at(&place.next))
}

/// Puts a descriptor into a place, where a forked child finds it.
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

/// Closes the child's copies. It runs in a child of a process with threads, where only async-signal-safe functions are
/// allowed: it loads, stores and calls `close`.
unsafe extern "C" fn close_in_child() {
    for place in places() {
        let descriptor = place.descriptor.swap(FREE, Ordering::AcqRel);
        if descriptor != FREE {
            // SAFETY: this is the child's copy of a descriptor whose number only the lock has.
            unsafe { libc::close(descriptor) };
        }
    }
}

impl WriterLock {
    /// Takes the lock of an open file. `EWOULDBLOCK` if another writer has it.
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

    /// Whether this process has the lock; `false` in a child forked from its owner.
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
            // Unlocking comes before closing: a process forked by a bare system call ran no handler and may still have
            // a copy of the descriptor, which would keep the lock. SAFETY: `take` opened the descriptor, and no other
            // code has its number.
            unsafe { libc::flock(descriptor, libc::LOCK_UN) };
            // SAFETY: `take` opened the descriptor, and no other code has its number.
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
