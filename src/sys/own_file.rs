//! Files that a program may close by their number without knowing whose they are, as `os.closerange` does.

use super::kept_open::{Identity, identity};
use std::fs::{File, Metadata};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// An open file that knows its device and inode. If something else has been opened under its number, it is not asked
/// about that, and dropping it does not close that. The same file opened again is something else if an [`OwnFile`] was
/// made of it.
#[derive(Debug)]
pub struct OwnFile {
    file: ManuallyDrop<File>,
    identity: Identity,
    place: &'static Place,
    number: u64,
}

/// What is noted of one descriptor. Places are reused and never freed, so a fork handler can walk their list without a
/// lock.
#[derive(Debug)]
struct Place {
    /// The number of the file that has this place, [`FREE`] or [`TAKEN`]. Only who has set it to [`TAKEN`] changes what
    /// follows.
    owner: AtomicU64,
    descriptor: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
    /// Whether a forked child closes its copy.
    is_closed_in_child: AtomicBool,
    next: AtomicPtr<Place>,
}

const FREE: u64 = 0;

/// The place is being filled or emptied.
const TAKEN: u64 = 1;

/// The head of the list of places, the newest first.
static PLACES: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

fn places() -> impl Iterator<Item = &'static Place> {
    // SAFETY: a place is never freed.
    let at = |place: &AtomicPtr<Place>| unsafe { place.load(Ordering::Acquire).as_ref() };
    std::iter::successors(at(&PLACES), move |place| at(&place.next))
}

impl Place {
    /// Whether the owner was changed from one to another by this call.
    fn pass(&self, from: u64, to: u64) -> bool {
        self.owner.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The descriptor, if it is still that of the file it was noted for.
    fn descriptor(&self) -> Option<i32> {
        let descriptor = self.descriptor.load(Ordering::Relaxed);
        let noted = (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed));
        (identity(descriptor) == Ok(noted)).then_some(descriptor)
    }

    /// A place that the caller has set to [`TAKEN`].
    fn take() -> &'static Self {
        if let Some(place) = places().find(|place| place.pass(FREE, TAKEN)) {
            return place;
        }
        let new = Box::leak(Box::new(Self {
            owner: AtomicU64::new(TAKEN),
            descriptor: AtomicI32::new(-1),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            is_closed_in_child: AtomicBool::new(false),
            next: AtomicPtr::default(),
        }));
        let mut first = PLACES.load(Ordering::Relaxed);
        loop {
            new.next.store(first, Ordering::Relaxed);
            match PLACES.compare_exchange(first, ptr::from_mut(new), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return new,
                Err(other) => first = other,
            }
        }
    }
}

/// Puts a descriptor into a place. Returns the place and its owner's number.
fn note(descriptor: i32, (device, inode): Identity, is_closed_in_child: bool) -> (&'static Place, u64) {
    static NUMBERS: AtomicU64 = AtomicU64::new(TAKEN + 1);
    // A file that was noted with this number has lost it, though this may be a descriptor of the same file.
    for place in places() {
        let owner = place.owner.load(Ordering::Acquire);
        if owner > TAKEN && place.descriptor.load(Ordering::Relaxed) == descriptor {
            place.pass(owner, FREE);
        }
    }
    let (place, number) = (Place::take(), NUMBERS.fetch_add(1, Ordering::Relaxed));
    place.descriptor.store(descriptor, Ordering::Relaxed);
    place.device.store(device, Ordering::Relaxed);
    place.inode.store(inode, Ordering::Relaxed);
    place.is_closed_in_child.store(is_closed_in_child, Ordering::Relaxed);
    place.owner.store(number, Ordering::Release);
    (place, number)
}

/// Closes a forked child's copies of the files that it does not share. It runs in a child of a process with threads,
/// where only async-signal-safe functions are allowed: it loads, stores and calls `fstat` and `close`.
pub(super) unsafe extern "C" fn close_in_child() {
    for place in places() {
        let owner = place.owner.load(Ordering::Acquire);
        if owner > TAKEN
            && place.is_closed_in_child.load(Ordering::Relaxed)
            && place.pass(owner, FREE)
            && let Some(descriptor) = place.descriptor()
        {
            // SAFETY: by its identity this is the child's copy of a descriptor whose number only its owner has.
            unsafe { libc::close(descriptor) };
        }
    }
}

impl OwnFile {
    /// A file, and what `fstat` has said of it.
    pub fn new(file: File, meta: &Metadata) -> Self {
        Self::noted(file, (meta.dev(), meta.ino()), false)
    }

    /// A file that [`close_in_child`] closes.
    pub(super) fn closed_in_child(file: File) -> Result<Self, i32> {
        let identity = identity(file.as_raw_fd())?;
        Ok(Self::noted(file, identity, true))
    }

    fn noted(file: File, identity: Identity, is_closed_in_child: bool) -> Self {
        let (place, number) = note(file.as_raw_fd(), identity, is_closed_in_child);
        Self { file: ManuallyDrop::new(file), identity, place, number }
    }

    /// Whether another one has this device and inode.
    pub fn is_same(&self, meta: &Metadata) -> bool {
        self.identity == (meta.dev(), meta.ino())
    }

    /// Whether the number is still this file's.
    pub fn is_open(&self) -> bool {
        self.place.owner.load(Ordering::Acquire) == self.number && self.place.descriptor().is_some()
    }

    /// `fstat`. `EBADF` if the number is no longer this file's.
    pub fn metadata(&self) -> Result<Metadata, i32> {
        let meta = self.file.metadata().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
        let is_own = self.place.owner.load(Ordering::Acquire) == self.number && self.is_same(&meta);
        if is_own { Ok(meta) } else { Err(libc::EBADF) }
    }

    /// `fsync`. `EBADF` if the number is no longer this file's.
    pub fn sync_all(&self) -> Result<(), i32> {
        self.metadata()?;
        self.file.sync_all().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl Deref for OwnFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if !self.place.pass(self.number, TAKEN) {
            return;
        }
        if self.place.descriptor().is_some() {
            // SAFETY: the value is dropped once, and `file` is not used after it.
            unsafe { ManuallyDrop::drop(&mut self.file) };
        }
        self.place.owner.store(FREE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::OwnFile;
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd};

    #[test]
    fn what_was_opened_under_its_number_is_not_asked_and_not_closed() {
        let file = File::open("/proc/self/exe").unwrap();
        let meta = file.metadata().unwrap();
        let file = OwnFile::new(file, &meta);
        assert!(file.metadata().is_ok());
        let (number, stranger) = (file.as_raw_fd(), File::open("/dev/null").unwrap());
        // SAFETY: both descriptors are open.
        assert_eq!(unsafe { libc::dup2(stranger.as_raw_fd(), number) }, number);
        assert_eq!(file.metadata().err(), Some(libc::EBADF));
        assert_eq!(file.sync_all(), Err(libc::EBADF));
        drop(file);
        // SAFETY: the descriptor is the copy made above.
        assert_eq!(unsafe { libc::close(number) }, 0);
    }

    #[test]
    fn a_number_that_another_one_got_is_lost_though_it_is_the_same_file() {
        let open = || File::open("/proc/self/exe").unwrap();
        let own = |file: File| {
            let meta = file.metadata().unwrap();
            OwnFile::new(file, &meta)
        };
        let first = own(open());
        // SAFETY: both descriptors are open.
        assert_eq!(unsafe { libc::dup2(open().as_raw_fd(), first.as_raw_fd()) }, first.as_raw_fd());
        // SAFETY: the number is the second one's from here on.
        let file = unsafe { File::from_raw_fd(first.as_raw_fd()) };
        let second = own(file);
        assert!(!first.is_open());
        assert_eq!(first.metadata().err(), Some(libc::EBADF));
        drop(first);
        assert!(second.is_open());
    }
}
