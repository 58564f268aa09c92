//! What `/proc` says of a mapping: its range, whether it is writable, and how much of it lies behind the end of its
//! file.
//!
//! The signal handler uses this, too. So no function here allocates, locks or panics; text is read into a buffer that
//! the caller provides.

mod list;

pub use list::List;

use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use std::ffi::CStr;
use std::io::Write;
use std::mem::MaybeUninit;

/// The buffer's size in bytes. A line of the list is longer only if its path exceeds `PATH_MAX`, 4096 bytes.
pub const BUFFER: usize = 8 << 10;

/// One line of the process's list of mappings.
#[derive(PartialEq, Eq, Debug)]
pub struct Mapping<'b> {
    /// Its address range.
    pub seg: Segment,
    /// Whether stores are allowed.
    pub is_writable: bool,
    /// The offset in the file at which it begins.
    pub offset: u64,
    /// The file's device and inode number; (0, 0) for anonymous memory.
    file: (u64, u64),
    /// The file's path, with what the kernel appends (` (deleted)`). Empty for anonymous memory.
    path: &'b CStr,
}

impl<'b> Mapping<'b> {
    /// Parses a line, `start-end access offset major:minor inode path`, with spaces before the path and a null byte at
    /// its end.
    fn parse(line: &'b [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut next = || std::str::from_utf8(fields.next()?).ok();
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = next()?.split_once('-')?;
        let is_writable = next()?.as_bytes().get(1) == Some(&b'w');
        let offset = hex(next()?)?;
        let (major, minor) = next()?.split_once(':')?;
        let device = libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let number = next()?.parse().ok()?;
        let path = CStr::from_bytes_with_nul(fields.next()?.trim_ascii_start()).ok()?;
        let (start, end) = (hex(start)? as usize, hex(end)? as usize);
        let seg = Segment::new(start, end.checked_sub(start)?);
        Some(Self { seg, is_writable, offset, file: (device, number), path })
    }

    /// Whether a file or a device is mapped, not anonymous memory.
    pub fn is_of_file(&self) -> bool {
        self.file.1 != 0
    }

    /// Whether its path equals `path`.
    pub fn is_called(&self, path: &CStr) -> bool {
        self.path == path
    }

    fn size_of(&self, found: &libc::stat) -> Option<u64> {
        let is_it = found.st_mode & libc::S_IFMT == libc::S_IFREG && (found.st_dev, found.st_ino) == self.file;
        is_it.then_some(found.st_size.unsigned_abs())
    }

    /// The size in bytes of its file, if that can be found. It tries three ways: the link in `/proc/self/map_files`,
    /// which needs privilege; the path, if the file is still there; and the descriptors of this process, one of which
    /// may be of the file.
    fn file_size(&self) -> Option<u64> {
        if !self.is_of_file() {
            return None;
        }
        let mut name = [0; NAME];
        let (start, end) = (self.seg.addr, self.seg.end());
        if let Some(found) = named(&mut name, format_args!("/proc/self/map_files/{start:x}-{end:x}")).and_then(stat) {
            return (found.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(found.st_size.unsigned_abs());
        }
        let by_path = stat(self.path).and_then(|found| self.size_of(&found));
        by_path.or_else(|| (0..DESCRIPTORS).find_map(|descriptor| self.size_of(&self.open_as(descriptor)?)))
    }

    /// Its pages that lie behind the end of its file; `None` if the file's size cannot be found.
    pub fn behind_file(&self) -> Option<Segment> {
        let last_page = self.file_size()?.checked_next_multiple_of(PAGE_SIZE as u64)?;
        Some(self.seg.skip(usize::try_from(last_page.saturating_sub(self.offset)).ok()?))
    }

    /// The state of a descriptor's file, if its path is this mapping's. The link is compared before the file is
    /// `stat`ed, because `stat` of an unrelated file, on a dead network file system for example, could block.
    fn open_as(&self, descriptor: i32) -> Option<libc::stat> {
        let mut name = [0; NAME];
        let name = named(&mut name, format_args!("/proc/self/fd/{descriptor}"))?;
        is_link_to(name, self.path.to_bytes()).then(|| stat(name)).flatten()
    }
}

/// How many descriptors are tried for a file that has no path any more.
const DESCRIPTORS: i32 = 1024;
/// The longest path in `/proc` used here, in bytes.
const NAME: usize = 64;

fn named<'n>(name: &'n mut [u8; NAME], text: std::fmt::Arguments<'_>) -> Option<&'n CStr> {
    (&mut name[..]).write_fmt(text).ok()?;
    CStr::from_bytes_until_nul(name).ok()
}

fn stat(path: &CStr) -> Option<libc::stat> {
    let mut found = MaybeUninit::uninit();
    // SAFETY: the path is terminated, and `found` has room for the answer.
    if unsafe { libc::stat(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded and filled it.
    Some(unsafe { found.assume_init() })
}

fn is_link_to(name: &CStr, path: &[u8]) -> bool {
    const PART: usize = 256;
    let mut target = [0_u8; PART];
    // SAFETY: the name is terminated, and the call writes no more than there is room for.
    let length = unsafe { libc::readlink(name.as_ptr(), target.as_mut_ptr().cast(), PART) };
    let Some(target) = usize::try_from(length).ok().and_then(|length| target.get(..length)) else { return false };
    // A target longer than the buffer is compared as far as it was read. The caller then compares device and inode.
    if target.len() < PART { target == path } else { path.starts_with(target) }
}

/// Calls `answer` with the mapping that contains `address`; `None` if there is none or it cannot be found.
pub fn at<R>(address: usize, buffer: &mut [u8; BUFFER], answer: impl FnOnce(&Mapping) -> Option<R>) -> Option<R> {
    let mapping = List::open().ok()?.from(address, buffer).ok()??;
    if mapping.seg.addr <= address { answer(&mapping) } else { None }
}

/// The pages behind the end of its file of the mapping that contains `page`, if `page` is one of them. `None` if it is
/// not, or if that cannot be found. It accesses none of the pages.
pub fn behind_file(page: usize, buffer: &mut [u8; BUFFER]) -> Option<Segment> {
    at(page, buffer, |mapping| mapping.behind_file().filter(|lost| lost.overlaps(Segment::new(page, 1))))
}

/// Whether the mapping at `address` is of a character device, by its path. Device DAX is what callers look for.
pub fn is_device(address: usize) -> bool {
    let found = at(address, &mut [0; BUFFER], |mapping| stat(mapping.path));
    found.is_some_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFCHR)
}

#[cfg(test)]
mod tests {
    use super::{BUFFER, Mapping, Segment, at};

    #[test]
    fn a_line_is_read_whatever_its_path_holds() {
        let line = b"7f00aa000-7f00ac000 r--s 00003000 fd:1f 9934                    /tmp/a b \xff (deleted)\0";
        let expected = Mapping {
            seg: Segment::new(0x7_f00a_a000, 0x2000),
            is_writable: false,
            offset: 0x3000,
            file: (libc::makedev(0xfd, 0x1f), 9934),
            path: c"/tmp/a b \xff (deleted)",
        };
        assert_eq!(Mapping::parse(line), Some(expected));
        let anonymous = Mapping::parse(b"1000-2000 rw-p 00000000 00:00 0 \0").unwrap();
        assert_eq!((anonymous.is_writable, anonymous.is_of_file(), anonymous.path), (true, false, c""));
        assert_eq!(Mapping::parse(b"1000-2000 rw-p\0"), None);
    }

    #[test]
    fn every_address_is_found_in_the_mapping_it_is_in() {
        let local = 0_u8;
        for address in [(&raw const local).addr(), (&raw const BYTE).addr()] {
            let seg = at(address, &mut [0; BUFFER], |mapping| Some(mapping.seg)).unwrap();
            assert!(seg.overlaps(Segment::new(address, 1)));
        }
        assert_eq!(at(1, &mut [0; BUFFER], |mapping| Some(mapping.seg)), None);
    }

    static BYTE: u8 = 7;
}
