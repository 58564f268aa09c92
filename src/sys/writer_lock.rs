//! The advisory lock that keeps a second writer off a file (`flock`).

use super::errno;
use super::fork;
use super::mapping;
use super::own_file::{self, OwnFile};
use crate::memory::Segment;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Once;

/// A `flock` on an open file description of its own, which belongs to the process that took it.
///
/// A `flock` lasts until every copy of its descriptor is closed, also those in forked children. So a child closes its
/// copy at once, in a `pthread_atfork` handler; otherwise the lock would outlive the writer for as long as a child
/// runs.
///
/// The program may close the descriptor, which ends the lock, and open something else under its number. So before each
/// use its device and inode are compared with those noted when the lock was taken; or else the description is
/// [mapped](Self::keep_mapped), and stays open as long as the mapping.
pub struct WriterLock {
    file: OwnFile,
    process: u64,
    kept: Option<Segment>,
}

/// How a process lost a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// It never had it: it was forked from the one that took it.
    Forked,
    /// The program closed the lock's descriptor.
    Closed,
}

impl WriterLock {
    /// Takes the lock of an open file. `EWOULDBLOCK` if another writer has it.
    pub fn take(file: &File) -> Result<Self, i32> {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // SAFETY: the handler is a function of the library, which is never unloaded.
            unsafe { libc::pthread_atfork(None, None, Some(own_file::close_in_child)) };
        });
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let own = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let own = own.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
        // SAFETY: the descriptor is open; the call touches no memory of ours.
        if unsafe { libc::flock(own.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(errno());
        }
        Ok(Self { file: OwnFile::closed_in_child(own)?, process: fork::process(), kept: None })
    }

    /// Maps `len` bytes of the file from `offset` on, so that closing the descriptor does not end the lock. Nobody
    /// accesses the mapping, and no child has it. It is for files whose mappings keep their own description open, which
    /// overlayfs's do not. If it fails, the lock is as it was.
    pub fn keep_mapped(&mut self, offset: u64, len: usize) {
        let Ok((seg, _)) = mapping::map(&self.file, offset, len, false) else { return };
        // SAFETY: the range was just mapped, and nobody accesses it.
        if unsafe { libc::madvise(seg.as_mut_ptr().cast(), seg.len, libc::MADV_DONTFORK) } == 0 {
            self.kept = Some(seg);
        } else {
            // SAFETY: the range was just mapped, and nobody else knows of it.
            unsafe { mapping::unmap(seg) };
        }
    }

    /// Refuses a process that does not have the lock, or no longer.
    pub fn require(&self) -> Result<(), Lost> {
        if self.process != fork::process() {
            return Err(Lost::Forked);
        }
        if self.kept.is_some() || self.file.is_open() { Ok(()) } else { Err(Lost::Closed) }
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        if self.process != fork::process() {
            return;
        }
        if self.file.is_open() {
            // Unlocking comes before closing: a process forked by a bare system call ran no handler and may still have
            // a copy of the descriptor, which would keep the lock. SAFETY: by its identity this is the descriptor that
            // `take` opened, and no other code has its number.
            unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) };
        }
        if let Some(seg) = self.kept.take() {
            // SAFETY: `keep_mapped` mapped it in this process, and nobody accesses it.
            unsafe { mapping::unmap(seg) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lost, WriterLock};
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("iovec-rs-lock-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_lock_is_had_once_and_given_back() {
        let path = path("once");
        let file = File::create_new(&path).unwrap();
        let lock = WriterLock::take(&file).unwrap();
        assert_eq!(lock.require(), Ok(()));
        assert_eq!(WriterLock::take(&file).err(), Some(libc::EWOULDBLOCK));
        drop(lock);
        let again = WriterLock::take(&file);
        std::fs::remove_file(&path).unwrap();
        assert!(again.is_ok());
    }

    #[test]
    fn a_lock_whose_number_is_another_file_s_is_lost_and_closes_nothing() {
        let path = path("lost");
        let file = File::create_new(&path).unwrap();
        let lock = WriterLock::take(&file).unwrap();
        let number = lock.file.as_raw_fd();
        let stranger = File::open("/dev/null").unwrap();
        // SAFETY: both descriptors are open.
        assert_eq!(unsafe { libc::dup2(stranger.as_raw_fd(), number) }, number);
        assert_eq!(lock.require(), Err(Lost::Closed));
        drop(lock);
        // SAFETY: the descriptor is the copy made above.
        assert_eq!(unsafe { libc::close(number) }, 0);
        let again = WriterLock::take(&file);
        std::fs::remove_file(&path).unwrap();
        assert!(again.is_ok());
    }

    #[test]
    fn a_lock_that_is_mapped_outlives_its_descriptor_and_not_its_writer() {
        let path = path("mapped");
        let file = File::create_new(&path).unwrap();
        file.set_len(1 << 16).unwrap();
        let mut lock = WriterLock::take(&file).unwrap();
        lock.keep_mapped(0, 1 << 16);
        // SAFETY: the descriptor is open, and its owner has to do without it.
        assert_eq!(unsafe { libc::close(lock.file.as_raw_fd()) }, 0);
        assert_eq!(lock.require(), Ok(()));
        assert_eq!(WriterLock::take(&file).err(), Some(libc::EWOULDBLOCK));
        // SAFETY: the child calls nothing but what follows, which neither allocates nor returns.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: waits to be killed.
            unsafe { libc::pause() };
        }
        drop(lock);
        let again = WriterLock::take(&file);
        // SAFETY: ends the child just made.
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
        // SAFETY: waits for the child just made.
        assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
        std::fs::remove_file(&path).unwrap();
        assert!(again.is_ok());
    }
}
