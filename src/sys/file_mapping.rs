//! Mappings of any part of a file, as an ordinary `mmap` gives them. Unlike those of [`super::shared_mapping`], they
//! may be private, need not begin at a page boundary, and keep no account of failed write-backs.

use super::own_file::OwnFile;
use super::{errno, mapping, shared_mapping};
use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::memory::Segment;
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The effect of stores to a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stores {
    /// They fault: the mapping is read-only.
    Refused,
    /// They change the file.
    Shared,
    /// They change this mapping only, by copy on write.
    Private,
}

/// A mapping of any part of a file. It is unmapped on drop.
#[derive(Debug)]
pub struct FileMapping {
    /// The pages that are mapped.
    whole: Segment,
    seg: Segment,
    stores: Stores,
    /// A descriptor of the mapped file, for [`Self::held_by_file`].
    file: OwnFile,
    /// The offset in the file of the first byte of `seg`.
    offset: usize,
}

impl FileMapping {
    /// Maps `length` bytes from `offset` on, by default the rest of the file. The range must lie in the file; a device
    /// has no size, so it needs a `length`.
    pub fn new(file: BorrowedFd<'_>, stores: Stores, offset: usize, length: Option<usize>) -> Result<Self> {
        let file =
            File::from(file.try_clone_to_owned().map_err(|error| failed(error.raw_os_error().unwrap_or(0), "dup"))?);
        let found = file.metadata().map_err(|error| failed(error.raw_os_error().unwrap_or(0), "fstat"))?;
        if found.is_dir() {
            return Err(failed(libc::EISDIR, "mmap"));
        }
        let size = if found.is_file() { Some(usize::try_from(found.len()).unwrap_or(usize::MAX)) } else { None };
        if let Some(size) = size.filter(|size| offset >= *size) {
            return Err(Error::invalid("offset", offset, format!("less than {size}, the bytes the file has")));
        }
        let rest = size.map(|size| size - offset);
        let length = match (length, rest) {
            (Some(length), Some(rest)) if length == 0 || length > rest => {
                let expected = format!("1 to {rest}, what the file has from offset {offset}");
                return Err(Error::invalid("length", length, expected));
            }
            (Some(length), _) => length,
            (None, Some(rest)) => rest,
            (None, None) => {
                return Err(Error::invalid("length", "None", "a number of bytes, as this is no regular file"));
            }
        };
        let skip = offset % PAGE_SIZE;
        let pages = length.checked_add(skip).filter(|pages| isize::try_from(*pages).is_ok());
        let pages = pages.ok_or_else(|| Error::invalid("length", length, "less than 2**63"))?;
        let protection = libc::PROT_READ | if stores == Stores::Refused { 0 } else { libc::PROT_WRITE };
        let sharing = if stores == Stores::Private { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
        let from = libc::off_t::try_from(offset - skip).map_err(|_| failed(libc::EOVERFLOW, "mmap"))?;
        // SAFETY: the address is null and `MAP_FIXED` is not set, so the kernel chooses a range where nothing is
        // mapped.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), pages, protection, sharing, file.as_raw_fd(), from) };
        if start == libc::MAP_FAILED {
            return Err(failed(errno(), "mmap"));
        }
        let whole = Segment::new(start.expose_provenance(), pages);
        Ok(Self { whole, seg: whole.skip(skip), stores, file: OwnFile::new(file, &found), offset })
    }

    /// The address range of the bytes.
    pub fn seg(&self) -> Segment {
        self.seg
    }

    /// The effect of stores.
    pub fn stores(&self) -> Stores {
        self.stores
    }

    /// How many of the `length` bytes from byte `at` of the mapping on its file still has: it may have been truncated.
    /// For a device and for a private mapping, `length`.
    pub fn held_by_file(&self, at: usize, length: usize) -> Result<usize> {
        let found = self.file.metadata().map_err(|errno| failed(errno, "fstat"))?;
        if self.stores == Stores::Private || !found.is_file() {
            return Ok(length);
        }
        let end = usize::try_from(found.len()).unwrap_or(usize::MAX);
        Ok(end.saturating_sub(self.offset.saturating_add(at)).min(length))
    }

    /// Writes stored bytes back to the file with `msync`. It does nothing unless stores change the file.
    pub fn sync(&self) -> Result<()> {
        if self.stores != Stores::Shared {
            return Ok(());
        }
        shared_mapping::sync(self.seg).map_err(|errno| Error::os(errno, format!("msync of {} bytes", self.seg.len)))
    }
}

/// An error of a system call. Rust's text ends with the errno in parentheses, which is cut off: the exception has an
/// attribute for it.
fn failed(errno: i32, call: &str) -> Error {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    Error::os(errno, format!("{call}: {}", text.split(" (os error").next().unwrap_or_default()))
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this range, and dropping the value ends the last use of it.
        unsafe { mapping::unmap(self.whole) };
    }
}
