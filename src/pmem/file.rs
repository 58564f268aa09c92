//! The file behind a region: opening or creating it, and allocating room before the first store.

use super::part::{Device, Part, part};
use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::own_file::OwnFile;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The purpose of opening a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// Reading and writing. The file is created or extended if necessary.
    Create,
}

/// An open file.
///
/// Dropping it before [`Opened::commit`] undoes what opening did: it truncates the file to its old length, or removes a
/// file that it created. It does neither if another process or description has the file open as a region, or if the
/// file has changed since, because then others may be using it.
///
/// Blocks that were allocated in holes stay: they cannot be told apart from bytes that somebody else has written since.
pub struct Opened {
    file: Arc<OwnFile>,
    meta: Metadata,
    path: PathBuf,
    purpose: Purpose,
    /// The changes that `drop` undoes.
    made: Made,
}

/// The changes that opening a file has made to it.
#[derive(Clone, Copy, Default)]
struct Made {
    /// Whether it was created.
    created: bool,
    /// Whether it was extended.
    grown: bool,
    /// The file's state after our last change. If it differs later, somebody else has changed the file.
    left: Option<State>,
}

/// Length and change time (seconds, nanoseconds). A change of the file changes them, unless it comes within one tick of
/// the file system's clock, some milliseconds.
type State = (u64, i64, i64);

fn state(meta: &Metadata) -> State {
    (meta.len(), meta.ctime(), meta.ctime_nsec())
}

fn state_now(file: &File) -> Option<State> {
    file.metadata().ok().as_ref().map(state)
}

fn failed(what: &str, error: &io::Error) -> Error {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    Error::os(error.raw_os_error().unwrap_or(libc::EIO), format!("{what}: {text}"))
}

/// An error of an errno and the operation that failed.
pub(super) fn failed_with(what: &str, errno: i32) -> Error {
    failed(what, &io::Error::from_raw_os_error(errno))
}

/// How often [`open`] tries. A try fails if the file did not exist when it was opened but did when it was to be
/// created, or if another process was about to remove it. With [`PAUSE`] this goes on for at least a second, since
/// others may create the file and give it up again and again.
const ATTEMPTS: usize = 1000;

/// The pause between two tries, which gives a process that is removing the file time to finish.
const PAUSE: Duration = Duration::from_millis(1);

/// Whether a path still leads to an open file. It is asked after the users' lock was taken, which keeps others from
/// removing the file: so the answer cannot change from yes to no because of them.
fn leads_to(path: &Path, file: &File) -> bool {
    let identity = |meta: Metadata| (meta.dev(), meta.ino());
    let there = std::fs::metadata(path).ok().map(identity);
    there.is_some() && there == file.metadata().ok().map(identity)
}

fn open(path: &Path, purpose: Purpose) -> Result<(File, bool)> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK, opening a FIFO that has taken the file's place would block until its other end is opened.
    options.read(true).write(purpose != Purpose::Read).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let refused = |error| failed("cannot be opened", &error);
    let gone = |why| Error::os(libc::ENOENT, format!("cannot be opened: it {why}"));
    for attempt in 0..ATTEMPTS {
        if attempt != 0 {
            std::thread::sleep(PAUSE);
        }
        let (file, created) = match options.open(path) {
            Err(error) if purpose == Purpose::Create && error.kind() == io::ErrorKind::NotFound => {
                match options.clone().create_new(true).open(path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        if path.is_symlink() && !path.exists() {
                            return Err(gone("is a symbolic link that leads to no file"));
                        }
                        // Another process has just created it.
                        continue;
                    }
                    made => (made.map_err(refused)?, true),
                }
            }
            opened => (opened.map_err(refused)?, false),
        };
        if sys::file::use_together(&file) && leads_to(path, &file) {
            return Ok((file, created));
        }
    }
    Err(gone("comes and goes"))
}

/// Refuses file types that cannot be a region.
fn require_mappable(kind: FileType) -> Result<()> {
    let what = if kind.is_file() || kind.is_char_device() {
        return Ok(());
    } else if kind.is_dir() {
        return Err(Error::os(libc::EISDIR, "a directory cannot be a region"));
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a block device"
    };
    Err(Error::os(libc::ENODEV, format!("{what} cannot be a region: a file or a DAX device can")))
}

impl Opened {
    /// Opens a file. With [`Purpose::Create`] it creates one if there is none.
    pub fn new(path: &Path, purpose: Purpose) -> Result<Self> {
        // The type is checked before the file is opened, because opening some devices has side effects; and once more
        // below, because the path may lead to another file by then.
        if let Ok(meta) = std::fs::metadata(path) {
            require_mappable(meta.file_type())?;
        }
        let (file, created) = open(path, purpose)?;
        let meta = file.metadata().map_err(|error| failed("fstat", &error))?;
        // If it has bytes, others have made use of it since it was created.
        let made = Made { created: created && meta.len() == 0, grown: false, left: Some(state(&meta)) };
        let file = Arc::new(OwnFile::new(file, &meta));
        let opened = Self { file, meta, path: path.to_owned(), purpose, made };
        require_mappable(opened.meta.file_type())?;
        Ok(opened)
    }

    /// The device number if the file is a character device. (Callers then require device DAX.)
    pub fn character_device(&self) -> Option<u64> {
        self.meta.file_type().is_char_device().then(|| self.meta.rdev())
    }

    /// The number of the device that the file is on.
    pub fn device_number(&self) -> u64 {
        self.meta.dev()
    }

    pub(crate) fn file(&self) -> &Arc<OwnFile> {
        &self.file
    }

    /// The descriptor, which is open as long as this value lives.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is open for writing.
    pub fn writable(&self) -> bool {
        self.purpose != Purpose::Read
    }

    /// Chooses `size` bytes (by default, the rest) from `offset` on, and allocates them, so that no later store can
    /// fail with a full disk (a SIGBUS). It may be called again after EINTR. `device` is given for a DAX device.
    pub fn reserve(&mut self, size: Option<usize>, offset: usize, device: Option<Device>) -> Result<Part> {
        if let Some(Device { size: len, align }) = device {
            return part(len, align, size, offset, false);
        }
        let len = usize::try_from(self.meta.len()).unwrap_or(usize::MAX);
        let part = part(len, PAGE_SIZE, size, offset, self.purpose == Purpose::Create)?;
        if self.writable() {
            let is_as_left = state_now(&self.file) == self.made.left;
            let allocated = self.allocate(part);
            self.made.grown = part.grows;
            if is_as_left {
                // Noted even if the allocation failed, because it may have allocated a part.
                self.made.left = state_now(&self.file);
            }
            allocated.map_err(|errno| {
                failed_with(&format!("no room for {} bytes from offset {}", part.len, part.offset), errno)
            })?;
        }
        Ok(part)
    }

    /// Allocates the part's blocks. It first compares the bytes missing with the free space, since an allocation that
    /// fails only when the disk is full leaves the disk full.
    fn allocate(&self, part: Part) -> std::result::Result<(), i32> {
        let (offset, len) = (part.offset, part.len as u64);
        // On a second call after EINTR, the file has the blocks allocated by the first.
        let has = self.file.metadata().map_or(u64::MAX, |meta| meta.blocks().saturating_mul(512));
        if let Some(free) = sys::file::free_bytes(&self.file)
            && len.saturating_sub(has) > free
            // On a file system that compresses, the file may have fewer blocks than its length, although it has no
            // holes.
            && sys::file::holes(&self.file, offset, len) > free
        {
            return Err(libc::ENOSPC);
        }
        sys::file::allocate(&self.file, offset, len)
    }

    /// Reads the file's length again, for a caller that has kept others from changing it since it was opened. If they
    /// have changed it before, nothing will be undone.
    pub(crate) fn look_again(&mut self) -> Result<()> {
        self.meta = self.file.metadata().map_err(|errno| failed_with("fstat", errno))?;
        Ok(())
    }

    /// The file's length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.meta.len()
    }

    /// `fsync`.
    fn sync_all(&self) -> Result<()> {
        self.file.sync_all().map_err(|errno| failed_with("fsync", errno))
    }

    /// Ends the opening: nothing will be undone. A new or extended file is synced first, and the directory of a new
    /// one, so that its length and name are durable.
    pub(super) fn commit(&mut self) -> Result<()> {
        if self.made.created || self.made.grown {
            self.sync_all()?;
        }
        if self.made.created {
            let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let synced = File::open(parent.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
            synced.map_err(|error| failed("fsync of the directory", &error))?;
        }
        self.made = Made::default();
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let Made { created, grown, left } = self.made;
        // The exclusive lock lasts until the file is closed. A process that opens the file meanwhile fails to enter and
        // tries again.
        if !(created || grown) || !sys::file::use_alone(&self.file) || state_now(&self.file) != left {
            return;
        }
        if grown {
            let _ = self.file.set_len(self.meta.len());
        }
        if created && leads_to(&self.path, &self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
