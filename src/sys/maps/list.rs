//! The process's list of mappings, asked about one address at a time.
//!
//! Linux 6.11 and later answer at once, however many mappings there are (`PROCMAP_QUERY`). Before, the list is a text
//! that is read from its beginning: whoever asks about one address after the other had better ask in their order.

use super::{BUFFER, Mapping};
use crate::sys::{errno, kept_open};
use std::ffi::{CStr, c_long};
use std::ops::Range;

/// The list, open.
pub struct List {
    file: i32,
    /// Whether it is closed in the end, and not kept open for the next one.
    is_own: bool,
    /// Whether it has to be read as a text.
    is_text: bool,
    /// The address that was asked about last.
    last: usize,
    /// How much of the text was read.
    read: usize,
    /// Where in the buffer that begins which was read and not looked at yet.
    rest: Range<usize>,
}

/// `_IOWR('f', 17, struct procmap_query)`.
const QUERY: u64 = 0xc068_6611;
/// The mapping that an address is in, or else the next one.
const COVERING_OR_NEXT: u64 = 0x10;
/// Of a mapping's flags: stores are allowed.
const WRITABLE: u64 = 2;

/// `struct procmap_query`: its size, the question's flags and address; a mapping's start, end, flags, size of pages,
/// offset, file number; two fields of 32 bits in each of the next two: the device's numbers, the room for the path and
/// for something else; where the path goes, and that.
type Query = [u64; 13];

impl List {
    fn new(file: i32, is_own: bool) -> Self {
        Self { file, is_own, is_text: false, last: 0, read: 0, rest: 0..0 }
    }

    /// Opens it.
    pub fn open() -> Result<Self, i32> {
        // The list of a process whose first thread has ended is empty; a thread's never is.
        // SAFETY: the name is terminated.
        let file = unsafe { libc::open(c"/proc/thread-self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if file < 0 { Err(errno()) } else { Ok(Self::new(file, true)) }
    }

    /// The one that is kept open for the signal handler, for one thread at a time.
    pub fn kept_open() -> Result<Self, i32> {
        kept_open::MAPS.get().map(|file| Self::new(file, false))
    }

    /// The mapping that an address is in, or else the next one. The buffer is the same each time.
    pub fn from<'b>(&mut self, address: usize, buffer: &'b mut [u8; BUFFER]) -> Result<Option<Mapping<'b>>, i32> {
        if !self.is_text {
            let mut query = [0; 13];
            match self.ask(address, buffer, &mut query) {
                Ok(()) => return Ok(Mapping::of_query(&query, buffer)),
                Err(libc::ENOENT) => return Ok(None),
                // An older kernel, or a filter.
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

    /// The first line whose mapping ends behind an address: where it is in the buffer, with a null byte at its end.
    fn find_line(&mut self, address: usize, buffer: &mut [u8; BUFFER]) -> Result<Option<Range<usize>>, i32> {
        if address < self.last {
            (self.read, self.rest) = (0, 0..0);
        }
        self.last = address;
        loop {
            while let Some(text) = buffer.get_mut(self.rest.clone())
                && let Some(length) = text.iter().position(|byte| matches!(byte, b'\n' | 0))
            {
                // What ends the path is what ends a C string.
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
