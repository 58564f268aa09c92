//! What `/proc` knows of a mapping: where it ends, and whether its file reaches as far.

use crate::abi::PAGE_SIZE;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// A mapping of a file.
#[derive(PartialEq, Eq, Debug)]
struct Mapping {
    start: usize,
    end: usize,
    /// Where in the file it begins.
    offset: u64,
    /// The file's device and number.
    file: (u64, u64),
    path: Vec<u8>,
}

impl Mapping {
    /// One line of `/proc/self/maps`: `start-end access offset major:minor number path`.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut next = || std::str::from_utf8(fields.next()?).ok();
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = next()?.split_once('-')?;
        let _access = next()?;
        let offset = hex(next()?)?;
        let (major, minor) = next()?.split_once(':')?;
        let device = libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let number = next()?.parse().ok()?;
        let path = fields.next().unwrap_or_default().trim_ascii_start().to_vec();
        let (start, end) = (hex(start)? as usize, hex(end)? as usize);
        Some(Self { start, end, offset, file: (device, number), path })
    }

    /// The one that an address is in, if it is of a file.
    fn at(address: usize) -> Option<Self> {
        let mut maps = BufReader::with_capacity(64 << 10, File::open("/proc/self/maps").ok()?);
        let mut line = Vec::new();
        while maps.read_until(b'\n', &mut line).ok()? > 0 {
            let mapping = Self::parse(&line)?;
            if address < mapping.end {
                return (mapping.start <= address && mapping.file.1 != 0).then_some(mapping);
            }
            line.clear();
        }
        None
    }

    fn is_of(&self, found: &Metadata) -> bool {
        found.is_file() && (found.dev(), found.ino()) == self.file
    }

    /// The size of its file, if that can be found: through the mapping itself, which takes privilege; by its path; or by a
    /// descriptor this process has of it.
    fn file_size(&self) -> Option<u64> {
        let itself = fs::metadata(format!("/proc/self/map_files/{:x}-{:x}", self.start, self.end));
        if let Ok(found) = itself {
            return found.is_file().then_some(found.size());
        }
        let by_path = || fs::metadata(OsStr::from_bytes(&self.path)).ok().filter(|found| self.is_of(found));
        let by_descriptor =
            || fs::read_dir("/proc/self/fd").ok()?.flatten().find_map(|entry| self.open_as(&entry.path()));
        Some(by_path().or_else(by_descriptor)?.size())
    }

    /// What a descriptor refers to, if that is the file. It is asked for its name first: no file that is not meant is waited for.
    fn open_as(&self, descriptor: &Path) -> Option<Metadata> {
        let name = fs::read_link(descriptor).ok()?.into_os_string().into_vec();
        let found = (name == self.path).then(|| fs::metadata(descriptor).ok())?;
        found.filter(|found| self.is_of(found))
    }
}

/// One past the end of the mapping that `page` is in, if it is one of a file that ends at `page` or before: then nothing from
/// `page` on is there. `None` if it is otherwise, or cannot be found out. Touches none of that memory.
pub fn end_of_mapping_beyond_file(page: usize) -> Option<usize> {
    let mapping = Mapping::at(page)?;
    let at = mapping.offset.checked_add((page - mapping.start) as u64)?;
    debug_assert!(at.is_multiple_of(PAGE_SIZE as u64));
    (mapping.file_size()? <= at).then_some(mapping.end)
}

/// Whether the memory at an address is that of a device, by its path: a DAX device's, above all.
pub fn is_device(address: usize) -> bool {
    let path = Mapping::at(address).map(|mapping| mapping.path);
    let found = path.and_then(|path| fs::metadata(OsStr::from_bytes(&path)).ok());
    found.is_some_and(|found| found.file_type().is_char_device())
}

#[cfg(test)]
mod tests {
    use super::Mapping;

    #[test]
    fn a_line_is_read_whatever_its_path_holds() {
        let line = b"7f00aa000-7f00ac000 r--s 00003000 fd:1f 9934                    /tmp/a b \xff (deleted)\n";
        let expected = Mapping {
            start: 0x7_f00a_a000,
            end: 0x7_f00a_c000,
            offset: 0x3000,
            file: (libc::makedev(0xfd, 0x1f), 9934),
            path: b"/tmp/a b \xff (deleted)".to_vec(),
        };
        assert_eq!(Mapping::parse(line), Some(expected));
        assert_eq!(Mapping::parse(b"1000-2000 rw-p 00000000 00:00 0 \n").map(|mapping| mapping.path.len()), Some(0));
        assert_eq!(Mapping::parse(b"1000-2000 rw-p\n"), None);
    }
}
