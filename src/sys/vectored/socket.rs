//! `sendmsg` and `recvmsg`: data together with a socket address and control messages.

use super::result;
use crate::memory::Segment;
use std::os::fd::RawFd;

/// The parts of a message other than its data, as in `struct msghdr`. An empty segment means that the part is absent.
#[derive(Clone, Copy, Default)]
pub struct MessageHeader {
    /// A socket address.
    pub name: Segment,
    /// Control messages (`struct cmsghdr`).
    pub control: Segment,
}

/// The result of `recvmsg`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Received {
    /// The call's return value: the message's bytes of data, which with `MSG_TRUNC` may be more than the segments hold.
    pub returned: usize,
    /// Bytes of data received and not discarded: 0 if TCP discarded them on `MSG_TRUNC`, otherwise `returned`.
    pub nbytes: usize,
    /// The length in bytes of the sender's address, which may exceed the room given for it.
    pub name: usize,
    /// Bytes of control messages received.
    pub control: usize,
    /// `MSG_TRUNC`, `MSG_CTRUNC`, `MSG_EOR` and the like.
    pub flags: i32,
}

fn message(segs: &[Segment], beside: MessageHeader) -> libc::msghdr {
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

/// `sendmsg`, to the address `beside.name` and with `beside.control`, where they are present.
///
/// # Safety
/// Every byte of the segments and of both ranges beside them that is mapped and readable is the caller's to read.
pub unsafe fn send(fd: RawFd, segs: &[Segment], beside: MessageHeader, flags: i32) -> Result<usize, i32> {
    let message = message(segs, beside);
    // SAFETY: the message names the slice and the two ranges beside it; sendmsg only reads them and the memory they
    // name, and checks it.
    result(unsafe { libc::sendmsg(fd, &raw const message, flags) })
}

/// `recvmsg`. It writes the sender's address and the control messages to the ranges of `beside`, up to their lengths.
///
/// # Safety
/// Every byte of the segments and of both ranges beside them that is mapped and writable is the caller's to overwrite.
pub unsafe fn receive(fd: RawFd, segs: &[Segment], beside: MessageHeader, flags: i32) -> Result<Received, i32> {
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

/// Whether a descriptor is a stream, that is, keeps no boundaries between the data of two calls. Only sockets of a type
/// other than `SOCK_STREAM` are none.
pub fn is_stream(fd: RawFd) -> bool {
    option(fd, libc::SO_TYPE).is_none_or(|kind| kind == libc::SOCK_STREAM)
}

/// Whether a socket's protocol is TCP (or MPTCP), for which `MSG_TRUNC` makes `recvmsg` discard the bytes it counts.
fn is_tcp(fd: RawFd) -> bool {
    option(fd, libc::SO_PROTOCOL).is_some_and(|protocol| matches!(protocol, libc::IPPROTO_TCP | libc::IPPROTO_MPTCP))
}

/// An integer option of a socket (`SOL_SOCKET`). `None` if the descriptor is not a socket.
fn option(fd: RawFd, name: i32) -> Option<i32> {
    let (mut value, mut len) = (0_i32, size_of::<i32>() as libc::socklen_t);
    let (to, to_len) = ((&raw mut value).cast(), &raw mut len);
    // SAFETY: `to` points to a local variable of `len` bytes.
    let answered = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, to, to_len) } == 0;
    answered.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::{MessageHeader, Received, receive, send};
    use crate::memory::Segment;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    fn over(bytes: &mut [u8]) -> Segment {
        Segment::new(bytes.as_mut_ptr().expose_provenance(), bytes.len())
    }

    #[test]
    fn a_datagram_that_does_not_fit_is_told_of() {
        let (left, right) = UnixDatagram::pair().unwrap();
        let (mut a, mut b, mut out) = (*b"abc", *b"defgh", [0_u8; 6]);
        let segs = [over(&mut a), over(&mut b)];
        // SAFETY: arrays of this test's.
        assert_eq!(unsafe { send(left.as_raw_fd(), &segs, MessageHeader::default(), 0) }, Ok(8));
        // SAFETY: an array of this test's.
        let received = unsafe { receive(right.as_raw_fd(), &[over(&mut out)], MessageHeader::default(), 0) };
        assert_eq!(received, Ok(Received { returned: 6, nbytes: 6, flags: libc::MSG_TRUNC, ..Received::default() }));
        assert_eq!(&out, b"abcdef");
    }
}
