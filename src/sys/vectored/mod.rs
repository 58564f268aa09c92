//! Vectored system calls over raw memory: the one place that hands segments to `readv`, `writev`, `sendmsg` and their
//! family.
//!
//! Each function makes exactly one transferring system call and returns its result, or the errno. None retries, polls
//! or allocates: the caller knows what a short or an interrupted call means for the whole transfer. The kernel checks
//! every address and returns EFAULT for a bad one, so segments may name any address.
//!
//! That makes no call safe: one that writes to memory is `unsafe`, as the bytes must be the caller's to overwrite, and
//! so is one that reads it, as the bytes must be the caller's to pass on.

mod batch;
mod socket;

pub use batch::Batch;
pub use socket::{MessageHeader, Received, is_stream, receive, send};

use super::errno;
use crate::memory::Segment;
use std::os::fd::RawFd;

const _: () = assert!(
    size_of::<Segment>() == size_of::<libc::iovec>()
        && align_of::<Segment>() == align_of::<libc::iovec>()
        && std::mem::offset_of!(Segment, addr) == std::mem::offset_of!(libc::iovec, iov_base)
        && std::mem::offset_of!(Segment, len) == std::mem::offset_of!(libc::iovec, iov_len)
);

/// The segments as an array of `struct iovec`, which the assertions above say they are laid out as, and its length.
fn vector(segs: &[Segment]) -> (*const libc::iovec, i32) {
    (segs.as_ptr().cast(), segs.len() as i32)
}

fn result(returned: isize) -> Result<usize, i32> {
    usize::try_from(returned).map_err(|_| errno())
}

/// `writev`; with an offset, `pwritev`; with flags (`RWF_*`), `pwritev2`. Without an offset, it writes at the file's
/// position and moves that.
///
/// # Safety
/// Every byte of the segments that is mapped and readable is the caller's to read.
pub unsafe fn write(fd: RawFd, segs: &[Segment], at: Option<i64>, flags: i32) -> Result<usize, i32> {
    let (iov, n) = vector(segs);
    let written = match (at, flags) {
        // SAFETY: `iov` points to `n` elements, borrowed for the call, which only reads the memory they name and checks
        // it.
        (None, 0) => unsafe { libc::writev(fd, iov, n) },
        // SAFETY: `iov` and `n` are one slice, and pwritev only reads the memory it names and checks it.
        (Some(at), 0) => unsafe { libc::pwritev(fd, iov, n, at) },
        // SAFETY: `iov` and `n` are one slice, and pwritev2 only reads the memory it names and checks it. The offset's
        // upper half is an argument of its own, unused on 64 bits.
        (at, flags) => unsafe {
            libc::syscall(libc::SYS_pwritev2, fd, iov, n as usize, at.unwrap_or(-1), 0, flags) as isize
        },
    };
    result(written)
}

/// `readv`; with an offset, `preadv`; with flags (`RWF_*`), `preadv2`. Without an offset, it reads at the file's
/// position and moves that.
///
/// # Safety
/// Every byte of the segments that is mapped and writable is the caller's to overwrite.
pub unsafe fn read(fd: RawFd, segs: &[Segment], at: Option<i64>, flags: i32) -> Result<usize, i32> {
    let (iov, n) = vector(segs);
    let read = match (at, flags) {
        // SAFETY: `iov` points to `n` elements, borrowed for the call; the memory they name is checked, and the
        // caller's to overwrite.
        (None, 0) => unsafe { libc::readv(fd, iov, n) },
        // SAFETY: `iov` and `n` are one slice, and preadv writes to the memory it names only: the caller's to
        // overwrite.
        (Some(at), 0) => unsafe { libc::preadv(fd, iov, n, at) },
        // SAFETY: `iov` and `n` are one slice, and preadv2 writes to the memory it names only: the caller's to
        // overwrite. The offset's upper half is an argument of its own, unused on 64 bits.
        (at, flags) => unsafe {
            libc::syscall(libc::SYS_preadv2, fd, iov, n as usize, at.unwrap_or(-1), 0, flags) as isize
        },
    };
    result(read)
}

/// How a descriptor was opened.
#[derive(Clone, Copy)]
pub struct Status {
    /// It can be read from.
    pub readable: bool,
    /// It can be written to.
    pub writable: bool,
    /// Calls on it block (no `O_NONBLOCK`).
    pub blocks: bool,
}

/// The descriptor's status flags.
pub fn status(fd: RawFd) -> Result<Status, i32> {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let flags = i32::try_from(result(flags as isize)?).unwrap_or(0);
    let mode = flags & libc::O_ACCMODE;
    let blocks = flags & libc::O_NONBLOCK == 0;
    Ok(Status { readable: mode != libc::O_WRONLY, writable: mode != libc::O_RDONLY, blocks })
}

/// `vmsplice`. If `fd` is the writing end of a pipe, the pipe then references the segments' pages; if it is the reading
/// end, the pipe's bytes are copied to the segments.
///
/// # Safety
/// `fd` is open for writing, or every byte of the segments that is mapped and writable is the caller's to overwrite.
pub unsafe fn vmsplice(fd: RawFd, segs: &[Segment], flags: u32) -> Result<usize, i32> {
    let (iov, n) = vector(segs);
    // SAFETY: `iov` and `n` are one slice; the memory is checked, and only overwritten where the caller lets it be.
    result(unsafe { libc::vmsplice(fd, iov, n as usize, flags) })
}

/// Whether `pid` names this process. The kernel accepts the id of any thread as a pid, so a comparison with `getpid`
/// does not suffice.
pub fn is_own_process(pid: i32) -> bool {
    let process = std::process::id();
    // SAFETY: signal 0 sends nothing: the call only looks the thread up.
    pid > 0 && unsafe { libc::syscall(libc::SYS_tgkill, process, pid, 0) } == 0
}

/// `process_vm_readv`: from another process's memory to the segments.
///
/// # Safety
/// Every byte of `local` that is mapped and writable is the caller's to overwrite. `pid` is another process, or every
/// byte of `remote` that is mapped and readable is the caller's to read.
pub unsafe fn process_vm_read(pid: i32, local: &[Segment], remote: &[Segment]) -> Result<usize, i32> {
    let ((to, n), (from, m)) = (vector(local), vector(remote));
    // SAFETY: both vectors are borrowed for the call, which checks all they name and writes to `local` only: the
    // caller's to overwrite.
    result(unsafe { libc::process_vm_readv(pid, to, n as _, from, m as _, 0) })
}

/// `process_vm_writev`: from the segments to another process's memory.
///
/// # Safety
/// Every byte of `local` that is mapped and readable is the caller's to read. `pid` is another process, or every byte
/// of `remote` that is mapped and writable is the caller's to overwrite.
pub unsafe fn process_vm_write(pid: i32, local: &[Segment], remote: &[Segment]) -> Result<usize, i32> {
    let ((from, n), (to, m)) = (vector(local), vector(remote));
    // SAFETY: both vectors are borrowed for the call, which only reads `local`; what it writes to is the caller's to
    // overwrite.
    result(unsafe { libc::process_vm_writev(pid, from, n as _, to, m as _, 0) })
}

#[cfg(test)]
mod tests {
    use super::{read, write};
    use crate::memory::Segment;
    use std::os::fd::AsRawFd;

    fn over(bytes: &mut [u8]) -> Segment {
        Segment::new(bytes.as_mut_ptr().expose_provenance(), bytes.len())
    }

    #[test]
    fn bytes_go_through_a_file_at_offsets_and_with_flags() {
        let path = std::env::temp_dir().join(format!("iovec_rs-vectored-{}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (fd, mut a, mut b) = (file.as_raw_fd(), *b"abc", *b"defgh");
        let segs = [over(&mut a), over(&mut b)];
        // SAFETY: the arrays of this test's, or, at the end, an address that nothing is mapped at.
        let write = |fd, segs: &[Segment], at, flags| unsafe { write(fd, segs, at, flags) };
        assert_eq!(write(fd, &segs, None, 0), Ok(8));
        assert_eq!(write(fd, &segs, Some(8), 0), Ok(8));
        assert_eq!(write(fd, &segs, Some(16), libc::RWF_DSYNC), Ok(8));
        assert_eq!(write(fd, &segs, Some(0), 1 << 30), Err(libc::EOPNOTSUPP));
        let mut out = [0_u8; 24];
        let whole = [over(&mut out[..5]), over(&mut out[5..])];
        // SAFETY: an array of this test's.
        assert_eq!(unsafe { read(fd, &whole, Some(0), libc::RWF_HIPRI) }, Ok(24));
        assert_eq!(&out, b"abcdefghabcdefghabcdefgh");
        // SAFETY: an array of this test's.
        assert_eq!(unsafe { read(fd, &whole, None, 0) }, Ok(16), "from the file's own position");
        assert_eq!(write(-1, &segs, None, 0), Err(libc::EBADF));
        assert_eq!(write(fd, &[Segment::new(8, 8)], None, 0), Err(libc::EFAULT));
    }
}
