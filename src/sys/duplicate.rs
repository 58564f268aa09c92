//! A duplicate of a descriptor, so that a number stays the same file's while calls are made over it.

use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// A descriptor of one's own for somebody else's open file, closed at the end of its life.
pub struct Duplicate(RawFd);

impl Duplicate {
    /// Of a socket, a pipe or a device. Nothing of a regular file or a disk, whose POSIX locks a `close` of any of the
    /// process's descriptors for it would drop, and nothing where no descriptor is to be had.
    pub fn new(fd: RawFd) -> Option<Self> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the record is ours to fill.
        if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: fstat filled it.
        let mode = unsafe { stat.assume_init() }.st_mode & libc::S_IFMT;
        if mode == libc::S_IFREG || mode == libc::S_IFBLK {
            return None;
        }
        // SAFETY: F_DUPFD_CLOEXEC takes no pointer.
        let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        (own >= 0).then_some(Self(own))
    }

    /// Its number.
    pub fn fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for Duplicate {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this value's own.
        unsafe { libc::close(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::Duplicate;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_pipe_stays_open_as_long_as_it_is_held() {
        let (mut from, to) = std::io::pipe().unwrap();
        let held = Duplicate::new(to.as_raw_fd()).unwrap();
        (&to).write_all(b"abc").unwrap();
        drop(to);
        drop(held);
        let mut all = Vec::new();
        assert_eq!(from.read_to_end(&mut all).unwrap(), 3);
    }

    #[test]
    fn a_file_whose_locks_would_go_is_not_held() {
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(Duplicate::new(file.as_raw_fd()).is_none());
        assert!(Duplicate::new(-1).is_none());
    }
}
