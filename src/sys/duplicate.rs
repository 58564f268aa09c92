//! Duplicates of descriptors. A transfer makes several system calls on one descriptor; between two of them another
//! thread may close that number and open something else under it. The duplicate's number is known to nobody else.

use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// A private descriptor for an open file of the caller's. It is closed on drop.
pub struct Duplicate(RawFd);

impl Duplicate {
    /// Duplicates the descriptor of a socket, a pipe or a character device. `None` for a regular file or a block
    /// device: closing the duplicate would release the POSIX locks that the process has on the file. `None`, too, if no
    /// descriptor is free.
    pub fn new(fd: RawFd) -> Option<Self> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `stat` is a local variable with room for the answer.
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

    /// The duplicate's number.
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
