//! `iovec_rs.io`: system calls over an iterator.

use super::buffer::{Access, ArgName, Call};
use super::descriptor::Descriptor;
use super::drive::{all, once};
use super::iter_arg::BoundIter;
use super::values::{Lengths, flags, narrow, pid, size, unsigned_flags, user_range};
use crate::abi::UIO_MAXIOV;
use crate::error::{Error, try_push};
use crate::io;
use crate::memory::Segment;
use crate::sys::poll::Ready;
use crate::sys::vectored::Beside;
use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

type Iter<'a, 'py> = BoundIter<'a, 'py>;

/// A file offset: an int in `0..2**63`.
fn file_offset(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    let offset = size("offset", value)?;
    i64::try_from(offset).map_err(|_| Error::invalid("offset", offset, "0 or more, less than 2**63").into())
}

/// Where a transfer that began at `offset`, with `start` bytes to do, goes on when `left` are: by the iterator, which a signal handler may
/// have moved. EFBIG past the last offset there is, EINVAL before the first.
fn further(offset: i64, start: usize, left: usize) -> io::Result<Option<i64>> {
    let there = i128::from(offset) + start as i128 - left as i128;
    let errno = if there < 0 { libc::EINVAL } else { libc::EFBIG };
    i64::try_from(there).ok().filter(|there| *there >= 0).map(Some).ok_or(io::Failure::Errno(errno))
}

fn files(fd: &Bound<'_, PyAny>, flags: i32) -> PyResult<Descriptor> {
    Ok(Descriptor::new(fd)?.without_waiting_if(flags & libc::RWF_NOWAIT != 0))
}

fn sockets(sock: &Bound<'_, PyAny>, flags: i32) -> PyResult<Descriptor> {
    Ok(Descriptor::new(sock)?.without_waiting_if(flags & libc::MSG_DONTWAIT != 0))
}

/// Reads into a READ iterator with one `readv` (`preadv2` with flags, `RWF_*`) and returns the bytes, 0 at the end of the file.
///
/// At most 1024 segments and `MAX_RW_COUNT` bytes; the iterator moves by the result. `BlockingIOError`, `TimeoutError` for a socket with
/// a timeout, `OSError` otherwise: it has not moved.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn readv(
    fd: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let file = files(fd, flags)?;
    once(&i, &file, Ready::Read, |i| io::read(i, file.fd, None, flags, usize::MAX))
}

/// As `readv`, at an offset in bytes; the file's position stays (`preadv`, `preadv2` with flags).
#[pyfunction]
#[pyo3(signature = (fd, i, offset, flags=0))]
pub(super) fn preadv(
    fd: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    offset: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let (file, at) = (files(fd, flags)?, Some(file_offset(offset)?));
    once(&i, &file, Ready::Read, |i| io::read(i, file.fd, at, flags, usize::MAX))
}

/// Writes what a WRITE iterator has with one `writev` (`pwritev2` with flags, `RWF_*`) and returns the bytes.
///
/// At most 1024 segments and `MAX_RW_COUNT` bytes; the iterator moves by the result. `BlockingIOError`, `TimeoutError` for a socket with
/// a timeout, `OSError` otherwise: it has not moved.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn writev(
    fd: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let file = files(fd, flags)?;
    once(&i, &file, Ready::Write, |i| io::write(i, file.fd, None, flags, usize::MAX))
}

/// As `writev`, at an offset in bytes; the file's position stays (`pwritev`, `pwritev2` with flags).
#[pyfunction]
#[pyo3(signature = (fd, i, offset, flags=0))]
pub(super) fn pwritev(
    fd: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    offset: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let (file, at) = (files(fd, flags)?, Some(file_offset(offset)?));
    once(&i, &file, Ready::Write, |i| io::write(i, file.fd, at, flags, usize::MAX))
}

/// Reads until the iterator is full or the file ends: the bytes, less than `i.count` was only at the end of the file.
///
/// Any number of segments and bytes. `BlockingIOError` and every other `OSError` have the bytes as `characters_written`; the iterator
/// stands at the first byte not read, and the call can be made again. `FaultError` where its memory is bad.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn readv_all(
    fd: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let file = files(fd, flags)?;
    all(&i, &file, Ready::Read, "readv_all", |i, limit, _| io::read(i, file.fd, None, flags, limit))
}

/// As `readv_all`, from an offset on; the file's position stays.
#[pyfunction]
#[pyo3(signature = (fd, i, offset, flags=0))]
pub(super) fn preadv_all(
    fd: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    offset: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let (file, offset) = (files(fd, flags)?, file_offset(offset)?);
    let start = i.get().lock()?.core.count();
    all(&i, &file, Ready::Read, "preadv_all", |i, limit, _| {
        io::read(i, file.fd, further(offset, start, i.count())?, flags, limit)
    })
}

/// Writes all that the iterator has: the bytes.
///
/// Any number of segments and bytes. `BlockingIOError` and every other `OSError` have the bytes as `characters_written`; the iterator
/// stands at the first byte not written, and the call can be made again. `FaultError` where its memory is bad.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn writev_all(
    fd: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let file = files(fd, flags)?;
    all(&i, &file, Ready::Write, "writev_all", |i, limit, _| io::write(i, file.fd, None, flags, limit))
}

/// As `writev_all`, from an offset on; the file's position stays.
#[pyfunction]
#[pyo3(signature = (fd, i, offset, flags=0))]
pub(super) fn pwritev_all(
    fd: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    offset: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let (file, offset) = (files(fd, flags)?, file_offset(offset)?);
    let start = i.get().lock()?.core.count();
    all(&i, &file, Ready::Write, "pwritev_all", |i, limit, _| {
        io::write(i, file.fd, further(offset, start, i.count())?, flags, limit)
    })
}

/// Calls `writev` for at most `limit` bytes.
#[pyfunction]
pub(super) fn writev_part(fd: &Bound<'_, PyAny>, i: Iter<'_, '_>, limit: usize) -> PyResult<usize> {
    let file = Descriptor::new(fd)?;
    once(&i, &file, Ready::Write, |i| io::whole(i, limit, |i, limit| io::write(i, file.fd, None, 0, limit)))
}

/// Calls `readv` for at most `limit` bytes.
#[pyfunction]
pub(super) fn readv_part(fd: &Bound<'_, PyAny>, i: Iter<'_, '_>, limit: usize) -> PyResult<usize> {
    let file = Descriptor::new(fd)?;
    once(&i, &file, Ready::Read, |i| io::whole(i, limit, |i, limit| io::read(i, file.fd, None, 0, limit)))
}

/// Where a `bytes` object is that goes beside a message, for as long as `call` and the argument last.
fn held(call: &mut Call, bytes: &Bound<'_, PyBytes>, name: &'static str) -> PyResult<Segment> {
    Ok(call.acquire(bytes, Access::Read, ArgName::Argument(name))?.seg())
}

/// One `sendmsg`: control messages and address as the kernel has them. With a limit, a turn of a whole transfer.
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
    let beside =
        Beside { name: held(&mut name_call, name, "address")?, control: held(&mut control_call, control, "ancdata")? };
    if limit.is_some() {
        io::require_one_message(&i.get().lock()?.core, socket.fd)?;
    }
    once(&i, &socket, Ready::Write, |i| match limit {
        Some(limit) => io::whole(i, limit, |i, limit| io::send(i, socket.fd, beside, flags, limit)),
        None => io::send(i, socket.fd, beside, flags, usize::MAX),
    })
}

/// `sendmsg` until all is sent. The control messages go with the first bytes.
#[pyfunction]
pub(super) fn sendmsg_all_raw(
    sock: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    control: &Bound<'_, PyBytes>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    let socket = sockets(sock, flags)?;
    let mut call = Call::new();
    let first = Beside { control: held(&mut call, control, "ancdata")?, ..Beside::default() };
    io::require_one_message(&i.get().lock()?.core, socket.fd)?;
    all(&i, &socket, Ready::Write, "sendmsg_all", |i, limit, done| {
        io::send(i, socket.fd, if done == 0 { first } else { Beside::default() }, flags, limit)
    })
}

/// Room for more control messages than any socket has: most are limited to some 20 KB (`optmem_max`).
const CONTROL: usize = 1 << 20;
/// A length of control messages.
fn ancillary_size(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    const EXPECTED: &str = "0 or more, less than 2**31";
    let size = narrow("ancbufsize", value, EXPECTED)?;
    if size < 0 { Err(Error::invalid("ancbufsize", size, EXPECTED).into()) } else { Ok(size) }
}

/// Room for the longest socket address (`struct sockaddr_storage`).
const NAME: usize = 128;

/// One `recvmsg`: the bytes, the control messages and flags, the address as the kernel has it.
#[pyfunction]
#[pyo3(signature = (sock, i, ancbufsize, flags, limit=None))]
pub(super) fn recvmsg_raw<'py>(
    sock: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = ancillary_size)] ancbufsize: i32,
    #[pyo3(from_py_with = flags)] flags: i32,
    limit: Option<usize>,
) -> PyResult<(usize, Bound<'py, PyBytes>, i32, Bound<'py, PyBytes>)> {
    if limit.is_some() {
        require_new_bytes(flags)?;
    }
    let socket = sockets(sock, flags)?;
    let room = usize::try_from(ancbufsize).unwrap_or(0).min(CONTROL);
    let (mut control, mut name) = (Vec::new(), [0_u8; NAME]);
    control.try_reserve_exact(room).map_err(|_| PyMemoryError::new_err(format!("no memory for {room} bytes")))?;
    // The kernel leaves gaps between messages as they are.
    control.resize(room, 0_u8);
    let beside = Beside {
        name: Segment::new(name.as_mut_ptr().expose_provenance(), NAME),
        control: Segment::new(control.as_mut_ptr().expose_provenance(), room),
    };
    let received = once(&i, &socket, Ready::Read, |i| {
        // SAFETY: both ranges are arrays of this function's, not borrowed until the call is done.
        let receive = |i: &mut _, limit| unsafe { io::receive(i, socket.fd, beside, flags, limit) };
        match limit {
            Some(limit) => io::whole(i, limit, receive),
            None => receive(i, usize::MAX),
        }
    })?;
    let py = sock.py();
    let control = PyBytes::new(py, &control[..received.control.min(room)]);
    Ok((received.returned, control, received.flags, PyBytes::new(py, &name[..received.name.min(NAME)])))
}

/// Refuses flags that receive the same bytes again or none, which would make a whole transfer of nothing.
fn require_new_bytes(flags: i32) -> PyResult<()> {
    if flags & (libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_ERRQUEUE) == 0 {
        return Ok(());
    }
    let expected = "no MSG_PEEK, MSG_TRUNC or MSG_ERRQUEUE in a whole transfer";
    Err(Error::invalid("flags", format!("{flags:#x}"), expected).into())
}

/// Receives until the iterator is full or the peer has shut down: the bytes.
///
/// As `readv_all`; `ValueError` for flags that receive the same bytes again (`MSG_PEEK`) or none (`MSG_TRUNC`, `MSG_ERRQUEUE`).
#[pyfunction]
#[pyo3(signature = (sock, i, flags=0))]
pub(super) fn recvmsg_all(
    sock: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    require_new_bytes(flags)?;
    let socket = sockets(sock, flags)?;
    all(&i, &socket, Ready::Read, "recvmsg_all", |i, limit, _| {
        // SAFETY: nothing is received beside the data.
        unsafe { io::receive(i, socket.fd, Beside::default(), flags, limit) }
    })
}

/// One `vmsplice`: a WRITE iterator's pages into the writing end of a pipe, by reference, or a pipe's bytes into a READ iterator.
///
/// What was spliced must not be changed until the other side has read it: the pipe shows the pages, not a copy. EBADF for the other end.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn vmsplice(
    fd: &Bound<'_, PyAny>,
    i: Iter<'_, '_>,
    #[pyo3(from_py_with = unsigned_flags)] flags: u32,
) -> PyResult<usize> {
    let pipe = Descriptor::new(fd)?;
    once(&i, &pipe, Ready::Write, |i| io::vmsplice(i, pipe.fd, flags))
}

/// The first ranges, as many as one call takes.
fn remote_ranges(remote: &Bound<'_, PyAny>) -> PyResult<Vec<Segment>> {
    let mut ranges = Vec::new();
    for (index, item) in remote.try_iter()?.take(UIO_MAXIOV).enumerate() {
        let item = item?;
        let range = user_range(&item, Lengths::Strict, ArgName::Segment(index))?;
        let range = range.ok_or_else(|| {
            let kind = item.get_type().name().map_or_else(|_| "this".to_owned(), |name| name.to_string());
            PyTypeError::new_err(format!("remote[{index}]: a UserRange is expected, not {kind}"))
        })?;
        try_push(&mut ranges, range)?;
    }
    Ok(ranges)
}

/// One `process_vm_readv`: from the ranges of another process's memory to a READ iterator. The first 1024 ranges count.
#[pyfunction]
pub(super) fn process_vm_readv(
    #[pyo3(from_py_with = pid)] pid: i32,
    local: Iter<'_, '_>,
    remote: &Bound<'_, PyAny>,
) -> PyResult<usize> {
    let remote = remote_ranges(remote)?;
    once(&local, &Descriptor::none(), Ready::Read, |i| io::process_vm_read(i, pid, &remote))
}

/// One `process_vm_writev`: from a WRITE iterator to the ranges of another process's memory. The first 1024 ranges count.
#[pyfunction]
pub(super) fn process_vm_writev(
    #[pyo3(from_py_with = pid)] pid: i32,
    local: Iter<'_, '_>,
    remote: &Bound<'_, PyAny>,
) -> PyResult<usize> {
    let remote = remote_ranges(remote)?;
    once(&local, &Descriptor::none(), Ready::Write, |i| {
        // SAFETY: a UserRange is where its maker says that memory may be changed, in this process or another.
        unsafe { io::process_vm_write(i, pid, &remote) }
    })
}
