//! The functions of `iovec_rs.io` that make system calls over an iterator: on files, on pipes, and on the memory of
//! processes.

use super::buffer::ArgName;
use super::descriptor::Descriptor;
use super::drive::{all, once, part};
use super::exception::exception;
use super::iter_arg::BoundIter;
use super::values::{Lengths, flags, narrow, pid, type_name, unsigned_flags, user_range};
use crate::abi::UIO_MAXIOV;
use crate::error::{Error, try_push};
use crate::io;
use crate::iter::IovIter;
use crate::memory::Segment;
use crate::sys::poll::Ready;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

type Iter<'a, 'py> = BoundIter<'a, 'py>;

/// A file offset: an int in `0..2**63`.
fn file_offset(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    const EXPECTED: &str = "0 or more, less than 2**63";
    let offset: i64 = narrow("offset", value, EXPECTED)?;
    if offset < 0 { Err(Error::invalid("offset", offset, EXPECTED).into()) } else { Ok(offset) }
}

/// The file offset of the next call of a whole transfer, and the position that the iterator must have then.
struct Place {
    /// The offset; `None` for calls at the file's own position.
    offset: Option<i64>,
    /// The iterator's `count`, `iov_offset` and `nr_segs` after the last call.
    left: Option<(usize, usize, usize)>,
}

impl Place {
    fn new(offset: Option<i64>) -> Self {
        Self { offset, left: None }
    }

    /// Makes one call, and advances the offset by the bytes transferred.
    ///
    /// A signal handler may have moved or truncated the iterator since the last call. Then the file offset of the
    /// remaining bytes is not known any more, so this makes no call and returns an error.
    fn call<T: io::Transferred>(
        &mut self,
        i: &mut IovIter,
        work: impl FnOnce(&mut IovIter, Option<i64>) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(offset) = self.offset else { return work(i, None) };
        let stands = |i: &IovIter| (i.count(), i.iov_offset(), i.nr_segs());
        if self.left.is_some_and(|left| left != stands(i)) {
            return Err(Error::Moved.into());
        }
        let result = work(i, Some(offset));
        if let Ok(done) = &result {
            // This cannot overflow: the kernel transfers no bytes beyond the largest offset.
            self.offset = Some(offset.saturating_add_unsigned(done.nbytes() as u64));
        }
        self.left = Some(stands(i));
        result
    }
}

/// The arguments of a call beside the iterator: the descriptor, the offset, and `RWF_*` flags.
struct File<'py> {
    descriptor: Descriptor<'py>,
    offset: Option<i64>,
    flags: i32,
}

impl<'py> File<'py> {
    fn new(fd: &Bound<'py, PyAny>, offset: Option<&Bound<'py, PyAny>>, flags: i32) -> PyResult<Self> {
        let descriptor = Descriptor::new(fd)?.without_waiting_if(flags & libc::RWF_NOWAIT != 0);
        Ok(Self { descriptor, offset: offset.map(file_offset).transpose()?, flags })
    }

    fn read(&self, i: Iter<'_, 'py>) -> PyResult<usize> {
        let (fd, offset, flags) = (self.descriptor.fd, self.offset, self.flags);
        once(&i, &self.descriptor, Ready::Read, |i| io::read(i, fd, offset, flags, usize::MAX))
    }

    fn write(&self, i: Iter<'_, 'py>) -> PyResult<usize> {
        let (fd, offset, flags) = (self.descriptor.fd, self.offset, self.flags);
        once(&i, &self.descriptor, Ready::Write, |i| io::write(i, fd, offset, flags, usize::MAX))
    }

    fn read_all(self, i: Iter<'_, 'py>, operation: &'static str) -> PyResult<usize> {
        let (descriptor, mut place, flags) = (self.descriptor.duplicated(), Place::new(self.offset), self.flags);
        let fd = descriptor.fd;
        all(&i, &descriptor, Ready::Read, operation, |i, limit, _| {
            place.call(i, |i, offset| io::read_message(i, fd, offset, flags, limit))
        })
    }

    fn write_all(self, i: Iter<'_, 'py>, operation: &'static str) -> PyResult<usize> {
        let (descriptor, mut place, flags) = (self.descriptor.duplicated(), Place::new(self.offset), self.flags);
        let fd = descriptor.fd;
        all(&i, &descriptor, Ready::Write, operation, |i, limit, _| {
            place.call(i, |i, offset| io::write(i, fd, offset, flags, limit))
        })
    }
}

/// Reads into a READ iterator with one `readv` (`preadv2` with `RWF_*` flags). Returns the number of bytes, 0 at the
/// end of the file, and advances the iterator by it.
///
/// One call transfers at most 1024 segments and `MAX_RW_COUNT` bytes. `BlockingIOError` if the file has no data now,
/// `TimeoutError` for a socket with a timeout, `OSError` for any other error: then the iterator has not moved.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn readv<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, None, flags)?.read(i)
}

/// As `readv`, at a file offset in bytes; the file's position does not change (`preadv`, `preadv2` with flags).
#[pyfunction]
#[pyo3(signature = (fd, i, offset, flags=0))]
pub(super) fn preadv<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    offset: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, Some(offset), flags)?.read(i)
}

/// Writes from a WRITE iterator with one `writev` (`pwritev2` with `RWF_*` flags). Returns the number of bytes, and
/// advances the iterator by it.
///
/// One call transfers at most 1024 segments and `MAX_RW_COUNT` bytes. `BlockingIOError` if the file takes no data now,
/// `TimeoutError` for a socket with a timeout, `OSError` for any other error: then the iterator has not moved.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn writev<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, None, flags)?.write(i)
}

/// As `writev`, at a file offset in bytes; the file's position does not change (`pwritev`, `pwritev2` with flags).
#[pyfunction]
#[pyo3(signature = (fd, i, offset, flags=0))]
pub(super) fn pwritev<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    offset: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, Some(offset), flags)?.write(i)
}

/// Reads until the iterator is full or the file ends, over any number of segments. Returns the number of bytes, which
/// is less than `i.count` was only at the end of the file.
///
/// `BlockingIOError` and any other `OSError` have the number of bytes read as `characters_written`; the iterator is at
/// the first byte not read, and the call can be repeated. `FaultError` if the iterator's memory is bad.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn readv_all<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, None, flags)?.read_all(i, "readv_all")
}

/// As `readv_all`, from a file offset on; the file's position does not change.
#[pyfunction]
#[pyo3(signature = (fd, i, offset, flags=0))]
pub(super) fn preadv_all<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    offset: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, Some(offset), flags)?.read_all(i, "preadv_all")
}

/// Writes all the bytes of the iterator, over any number of segments. Returns their number.
///
/// `BlockingIOError` and any other `OSError` have the number of bytes written as `characters_written`; the iterator is
/// at the first byte not written, and the call can be repeated. `FaultError` if the iterator's memory is bad.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn writev_all<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, None, flags)?.write_all(i, "writev_all")
}

/// As `writev_all`, from a file offset on; the file's position does not change.
#[pyfunction]
#[pyo3(signature = (fd, i, offset, flags=0))]
pub(super) fn pwritev_all<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    offset: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, Some(offset), flags)?.write_all(i, "pwritev_all")
}

/// Calls `writev` for at most `limit` bytes.
#[pyfunction]
pub(super) fn writev_part(fd: &Bound<'_, PyAny>, i: Iter<'_, '_>, limit: usize) -> PyResult<usize> {
    let descriptor = Descriptor::again(fd)?;
    part(&i, &descriptor, Ready::Write, limit, |i, limit| io::write(i, descriptor.fd, None, 0, limit))
}

/// Calls `readv` for at most `limit` bytes.
#[pyfunction]
pub(super) fn readv_part(fd: &Bound<'_, PyAny>, i: Iter<'_, '_>, limit: usize) -> PyResult<usize> {
    let descriptor = Descriptor::again(fd)?;
    part(&i, &descriptor, Ready::Read, limit, |i, limit| io::read_message(i, descriptor.fd, None, 0, limit))
}

/// Whether a descriptor is a socket that keeps message boundaries.
#[pyfunction]
pub(super) fn keeps_messages(fd: i32) -> bool {
    !io::is_stream(fd)
}

/// Calls `vmsplice` once. It moves the pages of a WRITE iterator by reference into the writing end of a pipe, or copies
/// bytes from the reading end into a READ iterator.
///
/// Spliced memory must not be changed until the reader has read it, since the pipe has the pages and not a copy.
/// OSError EBADF if the descriptor is the wrong end of the pipe.
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

/// The first ranges, at most as many as one call accepts.
fn remote_ranges(remote: &Bound<'_, PyAny>) -> PyResult<Vec<Segment>> {
    let mut ranges = Vec::new();
    for (index, item) in remote.try_iter()?.take(UIO_MAXIOV).enumerate() {
        let item = item?;
        let range = user_range(&item, Lengths::Strict, ArgName::Segment(index))?;
        let range = range.ok_or_else(|| {
            exception::<PyTypeError>(format!("remote[{index}]: a UserRange is expected, not {}", type_name(&item)))
        })?;
        try_push(&mut ranges, range)?;
    }
    Ok(ranges)
}

/// Calls `process_vm_readv` once, which copies from ranges of another process's memory to a READ iterator. Only the
/// first 1024 ranges are used.
#[pyfunction]
pub(super) fn process_vm_readv(
    #[pyo3(from_py_with = pid)] pid: i32,
    local: Iter<'_, '_>,
    remote: &Bound<'_, PyAny>,
) -> PyResult<usize> {
    let remote = remote_ranges(remote)?;
    once(&local, &Descriptor::none(), Ready::Read, |i| {
        // SAFETY: a UserRange is where its maker says that memory may be read, in this process or another.
        unsafe { io::process_vm_read(i, pid, &remote) }
    })
}

/// Calls `process_vm_writev` once, which copies from a WRITE iterator to ranges of another process's memory. Only the
/// first 1024 ranges are used.
#[pyfunction]
pub(super) fn process_vm_writev(
    #[pyo3(from_py_with = pid)] pid: i32,
    local: Iter<'_, '_>,
    remote: &Bound<'_, PyAny>,
) -> PyResult<usize> {
    let remote = remote_ranges(remote)?;
    once(&local, &Descriptor::none(), Ready::Write, |i| {
        // SAFETY: the maker of a `UserRange` vouches that its memory may be written to, in this process or another.
        unsafe { io::process_vm_write(i, pid, &remote) }
    })
}
