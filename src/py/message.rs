//! The functions of `iovec_rs.io` that send and receive messages over an iterator, and make whole transfers over a
//! socket.

use super::buffer::{Access, ArgName, Call};
use super::descriptor::Descriptor;
use super::drive::{all, once, part};
use super::exception::exception;
use super::iter_arg::BoundIter;
use super::results::{bytes, int, small_int, tuple};
use super::values::{flags, narrow};
use crate::error::Error;
use crate::io;
use crate::memory::Segment;
use crate::sys::poll::Ready;
use crate::sys::rights;
use crate::sys::vectored::MessageHeader;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

type Iter<'a, 'py> = BoundIter<'a, 'py>;

fn sockets<'py>(sock: &Bound<'py, PyAny>, flags: i32) -> PyResult<Descriptor<'py>> {
    Ok(Descriptor::new(sock)?.without_waiting_if(flags & libc::MSG_DONTWAIT != 0))
}

/// The memory of a `bytes` object that is sent with a message. It stays as long as both `call` and the argument live.
fn exported(call: &mut Call, bytes: &Bound<'_, PyBytes>, name: &'static str) -> PyResult<Segment> {
    Ok(call.acquire(bytes, Access::Read, ArgName::Argument(name))?.seg())
}

/// Calls `sendmsg` once. Control messages and address are in the kernel's format. With a limit it is one call of a
/// whole transfer, for at most that many bytes.
#[pyfunction]
#[pyo3(signature = (sock, i, control, flags, name, limit=None))]
pub(super) fn sendmsg_raw(
    sock: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    control: &Bound<'_, PyBytes>,
    #[pyo3(from_py_with = flags)] flags: i32,
    name: &Bound<'_, PyBytes>,
    limit: Option<usize>,
) -> PyResult<usize> {
    let socket = sockets(sock, flags)?;
    let (mut control_call, mut name_call) = (Call::new(), Call::new());
    let beside = MessageHeader {
        name: exported(&mut name_call, name, "address")?,
        control: exported(&mut control_call, control, "ancdata")?,
    };
    // SAFETY: `beside` are two buffers that `name_call` and `control_call` hold exported for this call.
    let send = |i: &mut _, limit| unsafe { io::send(i, socket.fd, beside, flags, limit) };
    match limit {
        Some(limit) => part(&i, &socket, Ready::Write, limit, send),
        None => once(&i, &socket, Ready::Write, |i| send(i, usize::MAX)),
    }
}

/// Calls `sendmsg` until everything is sent. The control messages go with the first bytes.
#[pyfunction]
pub(super) fn sendmsg_all_raw(
    sock: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    control: &Bound<'_, PyBytes>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let socket = sockets(sock, flags)?.duplicated();
    let mut call = Call::new();
    let first = MessageHeader { control: exported(&mut call, control, "ancdata")?, ..MessageHeader::default() };
    all(&i, &socket, Ready::Write, "sendmsg_all", |i, limit, done| {
        let beside = if done == 0 { first } else { MessageHeader::default() };
        // SAFETY: `first` is a buffer that `call` holds exported for this call, and an empty range.
        unsafe { io::send(i, socket.fd, beside, flags, limit) }
    })
}

/// The most bytes that are allocated for control messages. It is more than a socket can have: most systems limit them
/// to some 20 KB (`optmem_max`).
const CONTROL: usize = 1 << 20;
/// Converts `ancbufsize`, the length of the buffer for control messages.
fn ancillary_size(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    const EXPECTED: &str = "0 or more, less than 2**31";
    let size = narrow("ancbufsize", value, EXPECTED)?;
    if size < 0 { Err(Error::invalid("ancbufsize", size, EXPECTED).into()) } else { Ok(size) }
}

/// The length of the longest socket address (`struct sockaddr_storage`).
const NAME: usize = 128;

/// Calls `recvmsg` once. Returns the number of bytes, the control messages, the flags and the address, in the kernel's
/// format. If it raises, it closes the descriptors that were received.
#[pyfunction]
pub(super) fn recvmsg_raw<'py>(
    sock: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = ancillary_size)] ancbufsize: i32,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<Bound<'py, PyAny>> {
    let socket = sockets(sock, flags)?;
    let room = usize::try_from(ancbufsize).unwrap_or(0).min(CONTROL);
    let (mut control, mut name) = (Vec::new(), [0_u8; NAME]);
    control.try_reserve_exact(room).map_err(|_| exception::<PyMemoryError>(format!("no memory for {room} bytes")))?;
    // Zeroed, since the kernel does not write the padding between control messages.
    control.resize(room, 0_u8);
    let beside = MessageHeader {
        name: Segment::new(name.as_mut_ptr().expose_provenance(), NAME),
        control: Segment::new(control.as_mut_ptr().expose_provenance(), room),
    };
    let received = once(&i, &socket, Ready::Read, |i| {
        // SAFETY: both ranges are buffers of this function, `control` and `name`, which nothing refers to until the
        // call is done.
        unsafe { io::receive(i, socket.fd, beside, flags, usize::MAX) }
    })
    .inspect_err(|_| {
        // A guard may have torn a message that was received. Otherwise there are zeroes, which are no message.
        // SAFETY: only recvmsg has written to `control`, and nobody else has seen what is in it.
        unsafe { rights::close(&control) };
    })?;
    let py = sock.py();
    let control = &control[..received.control.min(room)];
    let shown = [
        int(py, received.returned),
        bytes(py, control),
        small_int(py, received.flags.into()),
        bytes(py, &name[..received.name.min(NAME)]),
    ];
    tuple(py, shown.into_iter()).inspect_err(|_| {
        // SAFETY: recvmsg filled `control`, and nobody else has seen the descriptors in it, as the tuple could not be
        // made.
        unsafe { rights::close(control) };
    })
}

/// Closes the descriptors in control messages that are not passed on.
#[pyfunction]
pub(super) fn close_received(control: &Bound<'_, PyBytes>) {
    // SAFETY: the caller, our own Python code, got the bytes from `recvmsg_raw` and passes them on to nobody.
    unsafe { rights::close(control.as_bytes()) };
}

/// Refuses flags with which a call receives bytes that it does not take off the queue, or none: a whole transfer would
/// not end or would be wrong.
fn require_new_bytes(flags: i32) -> PyResult<()> {
    if flags & (libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_ERRQUEUE) == 0 {
        return Ok(());
    }
    let expected = "no MSG_PEEK, MSG_TRUNC or MSG_ERRQUEUE in a whole transfer";
    Err(Error::invalid("flags", format!("{flags:#x}"), expected).into())
}

/// Calls `recvmsg` for at most `limit` bytes.
#[pyfunction]
pub(super) fn recvmsg_part(
    sock: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    #[pyo3(from_py_with = flags)] flags: i32,
    limit: usize,
) -> PyResult<usize> {
    require_new_bytes(flags)?;
    let socket = sockets(sock, flags)?;
    part(&i, &socket, Ready::Read, limit, |i, limit| {
        // SAFETY: `MessageHeader::default()` has no ranges that the call could write to.
        unsafe { io::receive(i, socket.fd, MessageHeader::default(), flags, limit) }
    })
}

/// Receives until the iterator is full or the peer has shut down. Returns the number of bytes.
///
/// Errors are those of `readv_all`, and `ValueError` for flags that leave the bytes in the queue (`MSG_PEEK`) or do not
/// receive them (`MSG_TRUNC`, `MSG_ERRQUEUE`).
#[pyfunction]
#[pyo3(signature = (sock, i, flags=0))]
pub(super) fn recvmsg_all(
    sock: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    require_new_bytes(flags)?;
    let socket = sockets(sock, flags)?.duplicated();
    all(&i, &socket, Ready::Read, "recvmsg_all", |i, limit, _| {
        // SAFETY: `MessageHeader::default()` has no ranges that the call could write to.
        unsafe { io::receive(i, socket.fd, MessageHeader::default(), flags, limit) }
    })
}
