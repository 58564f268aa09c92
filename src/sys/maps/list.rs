//! The process's list of mappings, searched for one address at a time.
//!
//! Linux 6.11 and later answer for one address without listing the others (`PROCMAP_QUERY`). On older kernels the text
//! of the list is read from its beginning; a search for a greater address than the last goes on where that one stopped,
//! so callers search in ascending order.

use super::{BUFFER, Mapping};
use crate::sys::{errno, kept_open};
use std::ffi::{CStr, c_long};
use std::ops::Range;

/// An open list.
pub struct List {
    file: i32,
    /// Whether dropping this closes the descriptor. That of the signal handler stays open.
    is_own: bool,
    /// Whether the text is read, because the kernel cannot answer for one address.
    is_text: bool,
    /// The last address searched for.
    last: usize,
    /// How many bytes of the text were read.
    read: usize,
    /// The part of the buffer that was read but not searched yet.
    rest: Range<usize>,
}

/// `_IOWR('f', 17, struct procmap_query)`.
const QUERY: u64 = 0xc068_6611;
/// Flag of a query: find the mapping that contains the address, or else the next one.
const COVERING_OR_NEXT: u64 = 0x10;
/// Flag of a mapping: it is writable.
const WRITABLE: u64 = 2;

/// `struct procmap_query` as 64-bit words. In: word 0 is its size, 1 flags, 2 the address, 10 the size of the path
/// buffer (low half), 11 that buffer's address. Out: word 3 is the start, 4 the end, 5 flags, 6 the page size, 7 the
/// file offset, 8 the inode, 9 the device (major low, minor high), 10 the length of the path. The upper half of word
/// 10, and word 12, are for the build id, which is not requested.
type Query = [u64; 13];

impl List {
    fn new(file: i32, is_own: bool) -> Self {
        Self { file, is_own, is_text: false, last: 0, read: 0, rest: 0..0 }
    }

    /// Opens the list of this process.
    pub fn open() -> Result<Self, i32> {
        // `/proc/self/maps` is empty once the process's first thread has ended; the list of a live thread never is.
        // SAFETY: the name is terminated.
        let file = unsafe { libc::open(c"/proc/thread-self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if file < 0 { Err(errno()) } else { Ok(Self::new(file, true)) }
    }

    /// The list that is kept open for the signal handler. One thread at a time may use it.
    pub fn kept_open() -> Result<Self, i32> {
        kept_open::MAPS.get().map(|file| Self::new(file, false))
    }

    /// The mapping that contains `address`, or else the next one. Every call on one list must pass the same buffer: it
    /// keeps the text that was read ahead.
    pub fn from<'b>(&mut self, address: usize, buffer: &'b mut [u8; BUFFER]) -> Result<Option<Mapping<'b>>, i32> {
        if !self.is_text {
            let mut query = [0; 13];
            match self.ask(address, buffer, &mut query) {
                Ok(()) => return Ok(Mapping::of_query(&query, buffer)),
                Err(libc::ENOENT) => return Ok(None),
                // The kernel is older than 6.11, or a seccomp filter refuses the call.
                Err(_) => self.is_text = true,
            }
        }
        let line = self.find_line(address, buffer)?;
        Ok(line.and_then(|line| Mapping::parse(buffer.get(line)?)))
    }

    fn ask(&self, address: usize, buffer: &mut [u8; BUFFER], query: &mut Query) -> Result<(), i32> {
        query[..3].copy_from_slice(&[size_of::<Query>() as u64, COVERING_OR_NEXT, address as u64]);
        query[10] = BUFFER as u64;
        query[11] = buffer.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: the call writes to the record and to the buffer alone, as much as both say they have room for.
        let result = unsafe { libc::syscall(libc::SYS_ioctl, self.file, QUERY as c_long, query.as_mut_ptr()) };
        if result == 0 { Ok(()) } else { Err(errno()) }
    }

    /// Finds the first line whose mapping ends behind `address`; returns its range in the buffer, with a null byte at
    /// its end.
    fn find_line(&mut self, address: usize, buffer: &mut [u8; BUFFER]) -> Result<Option<Range<usize>>, i32> {
        if address < self.last {
            (self.read, self.rest) = (0, 0..0);
        }
        self.last = address;
        loop {
            while let Some(text) = buffer.get_mut(self.rest.clone())
                && let Some(length) = text.iter().position(|byte| matches!(byte, b'\n' | 0))
            {
                // The newline becomes the null byte that ends the path as a C string.
                text[length] = 0;
                let line = self.rest.start..self.rest.start + length + 1;
                if Mapping::parse(text.get(..=length).unwrap_or_default())
                    .is_none_or(|mapping| mapping.seg.end() > address)
                {
                    return Ok(Some(line));
                }
                self.rest.start = line.end;
            }
            buffer.copy_within(self.rest.clone(), 0);
            self.rest = 0..self.rest.len();
            let room = buffer.get_mut(self.rest.end..).unwrap_or_default();
            if room.is_empty() {
                return Err(libc::EOVERFLOW);
            }
            match self.read(room)? {
                0 => return Ok(None),
                read => (self.read, self.rest.end) = (self.read + read, self.rest.end + read),
            }
        }
    }

    fn read(&self, room: &mut [u8]) -> Result<usize, i32> {
        loop {
            let (start, from) = (room.as_mut_ptr().cast(), self.read as libc::off_t);
            // SAFETY: the call writes to `room` alone, and no more than it holds.
            let read = unsafe { libc::pread(self.file, start, room.len(), from) };
            match usize::try_from(read) {
                Ok(read) => return Ok(read),
                Err(_) if errno() == libc::EINTR => {}
                Err(_) => return Err(errno()),
            }
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if self.is_own {
            // SAFETY: opened by `open`, and closed once.
            unsafe { libc::close(self.file) };
        }
    }
}

impl<'b> Mapping<'b> {
    fn of_query(query: &Query, path: &'b [u8; BUFFER]) -> Option<Self> {
        let [_, _, _, start, end, flags, _, offset, number, device, path_size, ..] = *query;
        let seg = crate::memory::Segment::new(start as usize, end.checked_sub(start)? as usize);
        let device = libc::makedev(device as u32, (device >> 32) as u32);
        let path = if path_size as u32 == 0 { Some(c"") } else { CStr::from_bytes_until_nul(path).ok() }?;
        Some(Self { seg, is_writable: flags & WRITABLE != 0, offset, file: (device, number), path })
    }
}

#[cfg(test)]
mod tests {
    use super::{BUFFER, List};

    /// Both ways of asking, about every mapping there is, and about what lies between them.
    #[test]
    fn the_kernels_answer_is_what_the_text_says() {
        let (mut asked, mut read) = (List::open().unwrap(), List::open().unwrap());
        read.is_text = true;
        let (mut one, mut other) = ([0; BUFFER], [0; BUFFER]);
        let (mut at, mut mappings) = (0, 0);
        while let Some(found) = read.from(at, &mut one).unwrap() {
            // A kernel that does not answer is asked nothing.
            if let Some(answer) = asked.from(at, &mut other).unwrap() {
                let heap = found.path.to_bytes().starts_with(b"[");
                assert!(heap || answer == found, "{answer:?} {found:?}");
            }
            (at, mappings) = (found.seg.end(), mappings + 1);
        }
        assert!(mappings > 10);
        assert_eq!(read.from(1, &mut one).unwrap(), List::open().unwrap().from(1, &mut other).unwrap());
    }
}
