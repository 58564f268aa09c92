//! The file behind a region: opening it, and room for all of a part of it before the first store.

use super::part::{Device, Part, part};
use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::sys;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To be read.
    Read,
    /// To be written, too.
    Write,
    /// To be written, and to be made or made longer if need be.
    Create,
}

/// An open file. Dropped before [`Opened::commit`], it leaves the file's bytes and length as they were, unless another
/// has the file open or has changed it meanwhile: then what was made of it stays, for they may be using it.
///
/// Holes that got room stay filled: they cannot be told from what somebody else has written there since.
pub struct Opened {
    file: Arc<File>,
    meta: Metadata,
    path: PathBuf,
    purpose: Purpose,
    /// What this has done to the file that a refusal undoes.
    made: Made,
}

/// What opening a file has made of it so far.
#[derive(Clone, Copy, Default)]
struct Made {
    /// The file itself.
    created: bool,
    /// Its length.
    grown: bool,
    /// The file as this has left it: a later change is another's.
    left: Option<State>,
}

/// What every change of a file changes.
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

/// An errno with what it was about.
pub(super) fn failed_with(what: &str, errno: i32) -> Error {
    failed(what, &io::Error::from_raw_os_error(errno))
}

/// How often a file may be gone when it is opened and there when it is made, or be being removed: for a second, since
/// others may make it and give up again and again.
const ATTEMPTS: usize = 1000;

/// Between two attempts, so that who is removing a file gets on with it.
const PAUSE: Duration = Duration::from_millis(1);

/// Whether a path still leads to an open file. Opening and removing files is told apart by this, once the lock is had
/// that keeps others from removing them.
fn leads_to(path: &Path, file: &File) -> bool {
    let identity = |meta: Metadata| (meta.dev(), meta.ino());
    let there = std::fs::metadata(path).ok().map(identity);
    there.is_some() && there == file.metadata().ok().map(identity)
}

fn open(path: &Path, purpose: Purpose) -> Result<(File, bool)> {
    let mut options = OpenOptions::new();
    // Opening a FIFO that took a file's place would wait for the other end.
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
                        // Somebody else has just made it.
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

/// Refuses what cannot be mapped for good.
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
    /// Opens a file, or makes one if there is none and the purpose says so.
    pub fn new(path: &Path, purpose: Purpose) -> Result<Self> {
        // Opening some of what is refused has effects of its own.
        if let Ok(meta) = std::fs::metadata(path) {
            require_mappable(meta.file_type())?;
        }
        let (file, created) = open(path, purpose)?;
        let meta = file.metadata().map_err(|error| failed("fstat", &error))?;
        let made = Made { created, grown: false, left: Some(state(&meta)) };
        let opened = Self { file: Arc::new(file), meta, path: path.to_owned(), purpose, made };
        require_mappable(opened.meta.file_type())?;
        Ok(opened)
    }

    /// The device number if it is a character device, which then has to be device DAX.
    pub fn character_device(&self) -> Option<u64> {
        self.meta.file_type().is_char_device().then(|| self.meta.rdev())
    }

    /// The number of the device it lies on.
    pub fn device_number(&self) -> u64 {
        self.meta.dev()
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Its descriptor, open as long as this is.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Its path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is open for writing.
    pub fn writable(&self) -> bool {
        self.purpose != Purpose::Read
    }

    /// Chooses `size` bytes (all the rest by default) from `offset` on, and makes room for them, so that no store can
    /// find the disk full. After EINTR it may be asked again. `device` is what it is if it is a DAX device.
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
                // Having failed, it may have come to the middle.
                self.made.left = state_now(&self.file);
            }
            allocated.map_err(|errno| {
                failed_with(&format!("no room for {} bytes from offset {}", part.len, part.offset), errno)
            })?;
        }
        Ok(part)
    }

    /// Gives the part room. What cannot fit is refused before the disk is filled with as much of it as does.
    fn allocate(&self, part: Part) -> std::result::Result<(), i32> {
        let (offset, len) = (part.offset, part.len as u64);
        // Asked again after EINTR, it has what it got the first time.
        let has = self.file.metadata().map_or(u64::MAX, |meta| meta.blocks().saturating_mul(512));
        if let Some(free) = sys::file::free_bytes(&self.file)
            && len.saturating_sub(has) > free
            // A compressed file has fewer blocks than its bytes take, but no holes.
            && sys::file::holes(&self.file, offset, len) > free
        {
            return Err(libc::ENOSPC);
        }
        sys::file::allocate(&self.file, offset, len)
    }

    /// Bytes it has.
    pub(crate) fn length(&self) -> u64 {
        self.meta.len()
    }

    /// `fsync`.
    fn sync_all(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| failed("fsync", &error))
    }

    /// The file is what it is to be: a new one is made durable with its length and its name.
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
        // The lock is had until the file is closed, so that whoever opens it meanwhile waits and looks again.
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
