//! `iovec_rs.io`: system calls on files over an iterator, and on the memory of processes.

use super::buffer::ArgName;
use super::descriptor::Descriptor;
use super::drive::{all, once, part};
use super::exception::exception;
use super::iter_arg::BoundIter;
use super::values::{Lengths, flags, narrow, pid, unsigned_flags, user_range};
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

/// Where in the file the next call of a whole transfer goes, and where the iterator stands then.
struct Place {
    /// Without an offset the file knows.
    offset: Option<i64>,
    /// How the last call left the iterator: `count`, `iov_offset`, `nr_segs`.
    left: Option<(usize, usize, usize)>,
}

impl Place {
    fn new(offset: Option<i64>) -> Self {
        Self { offset, left: None }
    }

    /// Makes one call, and goes on in the file by what it transferred.
    ///
    /// A signal handler may have moved the iterator since the last call, or cut it: nobody can tell which, nor whether
    /// the bytes ahead have another place in the file now. So nothing is called then.
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
            // No file has bytes past the last offset there is: the kernel transfers none there.
            self.offset = Some(offset.saturating_add_unsigned(done.nbytes() as u64));
        }
        self.left = Some(stands(i));
        result
    }
}

/// What a call over a file goes by beside the iterator: the descriptor, the offset, `RWF_*` flags.
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
        let (descriptor, mut place, flags) = (self.descriptor.held(), Place::new(self.offset), self.flags);
        let fd = descriptor.fd;
        all(&i, &descriptor, Ready::Read, operation, |i, limit, _| {
            place.call(i, |i, offset| io::read_message(i, fd, offset, flags, limit))
        })
    }

    fn write_all(self, i: Iter<'_, 'py>, operation: &'static str) -> PyResult<usize> {
        let (descriptor, mut place, flags) = (self.descriptor.held(), Place::new(self.offset), self.flags);
        let fd = descriptor.fd;
        all(&i, &descriptor, Ready::Write, operation, |i, limit, _| {
            place.call(i, |i, offset| io::write(i, fd, offset, flags, limit))
        })
    }
}

/// Reads into a READ iterator with one `readv` (`preadv2` with flags, `RWF_*`) and returns the bytes, 0 at the end of
/// the file.
///
/// At most 1024 segments and `MAX_RW_COUNT` bytes; the iterator moves by the result. `BlockingIOError`, `TimeoutError`
/// for a socket with a timeout, `OSError` otherwise: it has not moved.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn readv<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, None, flags)?.read(i)
}

/// As `readv`, at an offset in bytes; the file's position stays (`preadv`, `preadv2` with flags).
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

/// Writes what a WRITE iterator has with one `writev` (`pwritev2` with flags, `RWF_*`) and returns the bytes.
///
/// At most 1024 segments and `MAX_RW_COUNT` bytes; the iterator moves by the result. `BlockingIOError`, `TimeoutError`
/// for a socket with a timeout, `OSError` otherwise: it has not moved.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn writev<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, None, flags)?.write(i)
}

/// As `writev`, at an offset in bytes; the file's position stays (`pwritev`, `pwritev2` with flags).
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

/// Reads until the iterator is full or the file ends: the bytes, less than `i.count` was only at the end of the file.
///
/// Any number of segments and bytes. `BlockingIOError` and every other `OSError` have the bytes as
/// `characters_written`; the iterator stands at the first byte not read, and the call can be made again. `FaultError`
/// where its memory is bad.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn readv_all<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, None, flags)?.read_all(i, "readv_all")
}

/// As `readv_all`, from an offset on; the file's position stays.
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

/// Writes all that the iterator has: the bytes.
///
/// Any number of segments and bytes. `BlockingIOError` and every other `OSError` have the bytes as
/// `characters_written`; the iterator stands at the first byte not written, and the call can be made again.
/// `FaultError` where its memory is bad.
#[pyfunction]
#[pyo3(signature = (fd, i, flags=0))]
pub(super) fn writev_all<'py>(
    fd: &Bound<'py, PyAny>,
    i: Iter<'_, 'py>,
    #[pyo3(from_py_with = flags)] flags: i32,
) -> PyResult<usize> {
    File::new(fd, None, flags)?.write_all(i, "writev_all")
}

/// As `writev_all`, from an offset on; the file's position stays.
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

/// Whether a descriptor is a socket that keeps messages apart.
#[pyfunction]
pub(super) fn keeps_messages(fd: i32) -> bool {
    !io::is_stream(fd)
}

/// One `vmsplice`: a WRITE iterator's pages into the writing end of a pipe, by reference, or a pipe's bytes into a READ
/// iterator.
///
/// What was spliced must not be changed until the other side has read it: the pipe shows the pages, not a copy. EBADF
/// for the other end.
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
            exception::<PyTypeError>(format!("remote[{index}]: a UserRange is expected, not {kind}"))
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

/// One `process_vm_writev`: from a WRITE iterator to the ranges of another process's memory. The first 1024 ranges
/// count.
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
