//! Vectored system calls over raw memory: the one place that hands segments to `readv`, `writev`, `sendmsg` and their
//! family.
//!
//! Each function makes exactly one system call and returns its result, or the errno. None retries, waits or allocates:
//! what an interrupted or a short call means is for the caller, who knows what it is a part of. The kernel checks every
//! address and reports a bad one (EFAULT) instead of raising a signal, so the segments may be anywhere.
//!
//! A call that only reads memory is safe whatever the addresses. One that writes is `unsafe`: the bytes must be the
//! caller's.

use super::errno;
use crate::abi::{MAX_RW_COUNT, UIO_MAXIOV};
use crate::memory::Segment;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// The pieces of one call: at most [`UIO_MAXIOV`] of them and [`MAX_RW_COUNT`] bytes, which is all the kernel takes at
/// once.
///
/// They lie in the value itself (16 KiB, uninitialised until pushed), so that collecting them allocates nothing.
pub struct Batch {
    pieces: [MaybeUninit<Segment>; UIO_MAXIOV],
    len: usize,
    nbytes: usize,
    limit: usize,
}

impl Batch {
    /// An empty batch for at most `limit` bytes.
    #[inline]
    pub fn new(limit: usize) -> Self {
        Self {
            pieces: [const { MaybeUninit::uninit() }; UIO_MAXIOV],
            len: 0,
            nbytes: 0,
            limit: limit.min(MAX_RW_COUNT),
        }
    }

    /// Adds a piece, cut to what still fits; an empty one takes no place. `false` when no byte more would fit.
    #[inline]
    pub fn push(&mut self, seg: Segment) -> bool {
        let seg = seg.take(self.limit - self.nbytes);
        if seg.len != 0 && self.len < UIO_MAXIOV {
            self.pieces[self.len].write(seg);
            self.len += 1;
            self.nbytes += seg.len;
        }
        self.len < UIO_MAXIOV && self.nbytes < self.limit
    }

    /// Keeps the first `nbytes` bytes only.
    pub fn cut(&mut self, nbytes: usize) {
        if nbytes >= self.nbytes {
            return;
        }
        let all = std::mem::take(&mut self.len);
        self.nbytes = 0;
        let limit = std::mem::replace(&mut self.limit, nbytes);
        for index in 0..all {
            // SAFETY: `push` wrote the first `all` elements, and writes none that is still to be read: it takes each
            // in its turn.
            let piece = unsafe { self.pieces[index].assume_init() };
            if !self.push(piece) {
                break;
            }
        }
        self.limit = limit;
    }

    /// The pieces. (The slice covers their addresses, not the memory behind them.)
    #[inline]
    pub fn pieces(&self) -> &[Segment] {
        // SAFETY: `push` wrote the first `len` elements, and a Segment has the layout of its MaybeUninit.
        unsafe { std::slice::from_raw_parts(self.pieces.as_ptr().cast(), self.len) }
    }

    /// The most bytes it takes.
    #[inline]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of all pieces together.
    #[inline]
    pub fn nbytes(&self) -> usize {
        self.nbytes
    }
}

/// What goes to or comes from a socket beside the data. Empty segments stand for nothing.
#[derive(Clone, Copy, Default)]
pub struct Beside {
    /// A socket address.
    pub name: Segment,
    /// Control messages (`struct cmsghdr`).
    pub control: Segment,
}

/// What `recvmsg` says of a message.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes of data: what the call returned.
    pub returned: usize,
    /// How many of them came into the segments' memory, as far as that had room.
    pub nbytes: usize,
    /// Bytes the sender's address has, which may be more than there was room for.
    pub name: usize,
    /// Bytes of control messages.
    pub control: usize,
    /// `MSG_TRUNC`, `MSG_CTRUNC`, `MSG_EOR` and the like.
    pub flags: i32,
}

const _: () = assert!(
    size_of::<Segment>() == size_of::<libc::iovec>()
        && align_of::<Segment>() == align_of::<libc::iovec>()
        && std::mem::offset_of!(Segment, addr) == std::mem::offset_of!(libc::iovec, iov_base)
        && std::mem::offset_of!(Segment, len) == std::mem::offset_of!(libc::iovec, iov_len)
);

/// The segments as `struct iovec`, which they are laid out as, and how many.
fn vector(segs: &[Segment]) -> (*const libc::iovec, i32) {
    (segs.as_ptr().cast(), segs.len() as i32)
}

fn result(returned: isize) -> Result<usize, i32> {
    usize::try_from(returned).map_err(|_| errno())
}

/// `writev`; `pwritev` at an offset; `pwritev2` with flags (`RWF_*`). The file's own position is used where `at` is
/// `None`.
pub fn write(fd: RawFd, segs: &[Segment], at: Option<i64>, flags: i32) -> Result<usize, i32> {
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

/// `readv`; `preadv` at an offset; `preadv2` with flags (`RWF_*`). The file's own position is used where `at` is
/// `None`.
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

fn message(segs: &[Segment], beside: Beside) -> libc::msghdr {
    // SAFETY: all zeroes are a valid msghdr: null pointers with length 0.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = segs.as_ptr().cast_mut().cast();
    message.msg_iovlen = segs.len() as _;
    if beside.name.len != 0 {
        message.msg_name = beside.name.as_mut_ptr().cast();
        message.msg_namelen = beside.name.len as libc::socklen_t;
    }
    if beside.control.len != 0 {
        message.msg_control = beside.control.as_mut_ptr().cast();
        message.msg_controllen = beside.control.len as _;
    }
    message
}

/// `sendmsg`, to `beside.name` if there is one, with `beside.control`.
pub fn send(fd: RawFd, segs: &[Segment], beside: Beside, flags: i32) -> Result<usize, i32> {
    let message = message(segs, beside);
    // SAFETY: the message names the slice and the two ranges beside it; sendmsg only reads them and the memory they
    // name, and checks it.
    result(unsafe { libc::sendmsg(fd, &raw const message, flags) })
}

/// `recvmsg`. The sender's address and the control messages go to the ranges of `beside`, as far as they have room.
///
/// # Safety
/// Every byte of the segments and of both ranges beside them that is mapped and writable is the caller's to overwrite.
pub unsafe fn receive(fd: RawFd, segs: &[Segment], beside: Beside, flags: i32) -> Result<Received, i32> {
    let mut message = message(segs, beside);
    // SAFETY: the message is ours; the memory it names is checked by recvmsg, and the caller's to overwrite.
    let returned = result(unsafe { libc::recvmsg(fd, &raw mut message, flags) })?;
    let is_dropped = flags & libc::MSG_TRUNC != 0 && flags & libc::MSG_ERRQUEUE == 0 && is_tcp(fd);
    Ok(Received {
        returned,
        nbytes: if is_dropped { 0 } else { returned },
        name: if beside.name.len == 0 { 0 } else { message.msg_namelen as usize },
        control: message.msg_controllen,
        flags: message.msg_flags,
    })
}

/// Whether a descriptor is open for reading, and whether for writing.
pub fn access_mode(fd: RawFd) -> Result<(bool, bool), i32> {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let flags = i32::try_from(result(flags as isize)?).unwrap_or(0);
    let mode = flags & libc::O_ACCMODE;
    Ok((mode != libc::O_WRONLY, mode != libc::O_RDONLY))
}

/// Whether a descriptor is a stream, which keeps no boundaries between what one call and the next send. Only datagram
/// and packet sockets are not.
pub fn is_stream(fd: RawFd) -> bool {
    option(fd, libc::SO_TYPE).is_none_or(|kind| kind == libc::SOCK_STREAM)
}

/// Whether a socket speaks TCP, which takes `MSG_TRUNC` for leave to drop the bytes that a call receives.
fn is_tcp(fd: RawFd) -> bool {
    option(fd, libc::SO_PROTOCOL).is_some_and(|protocol| matches!(protocol, libc::IPPROTO_TCP | libc::IPPROTO_MPTCP))
}

/// What a socket says of itself: an option of `SOL_SOCKET`. Nothing if the descriptor is no socket.
fn option(fd: RawFd, name: i32) -> Option<i32> {
    let (mut value, mut len) = (0_i32, size_of::<i32>() as libc::socklen_t);
    let (to, to_len) = ((&raw mut value).cast(), &raw mut len);
    // SAFETY: `to` points to `len` bytes of ours.
    let answered = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, to, to_len) } == 0;
    answered.then_some(value)
}

/// `vmsplice`: into a pipe by reference where `fd` is its writing end, out of it into the segments otherwise.
///
/// # Safety
/// `fd` is open for writing, or every byte of the segments that is mapped and writable is the caller's to overwrite.
pub unsafe fn vmsplice(fd: RawFd, segs: &[Segment], flags: u32) -> Result<usize, i32> {
    let (iov, n) = vector(segs);
    // SAFETY: `iov` and `n` are one slice; the memory is checked, and only overwritten where the caller lets it be.
    result(unsafe { libc::vmsplice(fd, iov, n as usize, flags) })
}

/// `process_vm_readv`: from another process's memory to the segments.
///
/// # Safety
/// Every byte of `local` that is mapped and writable is the caller's to overwrite.
pub unsafe fn process_vm_read(pid: i32, local: &[Segment], remote: &[Segment]) -> Result<usize, i32> {
    let ((to, n), (from, m)) = (vector(local), vector(remote));
    // SAFETY: both vectors are borrowed for the call, which checks all they name and writes to `local` only: the
    // caller's to overwrite.
    result(unsafe { libc::process_vm_readv(pid, to, n as _, from, m as _, 0) })
}

/// `process_vm_writev`: from the segments to another process's memory.
///
/// # Safety
/// `pid` is another process, or every byte of `remote` that is mapped and writable is the caller's to overwrite.
pub unsafe fn process_vm_write(pid: i32, local: &[Segment], remote: &[Segment]) -> Result<usize, i32> {
    let ((from, n), (to, m)) = (vector(local), vector(remote));
    // SAFETY: both vectors are borrowed for the call, which only reads `local`; what it writes to is the caller's to
    // overwrite.
    result(unsafe { libc::process_vm_writev(pid, from, n as _, to, m as _, 0) })
}

#[cfg(test)]
mod tests {
    use super::{Batch, Beside, Received, read, receive, send, write};
    use crate::abi::{MAX_RW_COUNT, UIO_MAXIOV};
    use crate::memory::Segment;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    fn over(bytes: &mut [u8]) -> Segment {
        Segment::new(bytes.as_mut_ptr().expose_provenance(), bytes.len())
    }

    #[test]
    fn a_batch_holds_what_one_call_takes() {
        let mut batch = Batch::new(usize::MAX);
        for n in 0..UIO_MAXIOV {
            assert!(batch.push(Segment::new(0, 0)), "an empty piece takes no place");
            assert_eq!(batch.push(Segment::new(n, 1)), n + 1 < UIO_MAXIOV);
        }
        assert!(!batch.push(Segment::new(7, 1)));
        assert_eq!((batch.pieces().len(), batch.nbytes()), (UIO_MAXIOV, UIO_MAXIOV));

        let mut batch = Batch::new(usize::MAX);
        assert!(batch.push(Segment::new(0, MAX_RW_COUNT - 1)));
        assert!(!batch.push(Segment::new(9, 5)));
        assert_eq!(batch.pieces()[1], Segment::new(9, 1));

        let mut batch = Batch::new(3);
        assert!(!batch.push(Segment::new(0, 4)));
        assert_eq!(batch.nbytes(), 3);
    }

    #[test]
    fn bytes_go_through_a_file_at_offsets_and_with_flags() {
        let path = std::env::temp_dir().join(format!("iovec_rs-vectored-{}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (fd, mut a, mut b) = (file.as_raw_fd(), *b"abc", *b"defgh");
        let segs = [over(&mut a), over(&mut b)];
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

    #[test]
    fn a_datagram_that_does_not_fit_is_told_of() {
        let (left, right) = UnixDatagram::pair().unwrap();
        let (mut a, mut b, mut out) = (*b"abc", *b"defgh", [0_u8; 6]);
        let segs = [over(&mut a), over(&mut b)];
        assert_eq!(send(left.as_raw_fd(), &segs, Beside::default(), 0), Ok(8));
        // SAFETY: an array of this test's.
        let received = unsafe { receive(right.as_raw_fd(), &[over(&mut out)], Beside::default(), 0) };
        assert_eq!(received, Ok(Received { returned: 6, nbytes: 6, flags: libc::MSG_TRUNC, ..Received::default() }));
        assert_eq!(&out, b"abcdef");
    }
}
