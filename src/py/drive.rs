//! Makes system calls as Python does: they run without the interpreter, are repeated after a signal whose handler did
//! not raise (PEP 475), and wait as long as a socket's timeout allows. The iterator is locked during the calls only, so
//! that a signal handler may look at it between them. A file object is asked for its descriptor before each call, so
//! that no call reaches another file that has got the same number since.

use super::descriptor::{Deadline, Descriptor, os_error};
use super::errors::fault_error;
use super::exception::{add_note, os_exception};
use super::iter::IovIter;
use super::names::names;
use super::results::int;
use crate::abi::Direction;
use crate::io::{Failure, Result, Torn, Transferred, is_stream, whole};
use crate::iter;
use crate::sys::poll::Ready;
use pyo3::exceptions::{PyBlockingIOError, PyOSError, PyRuntimeError};
use pyo3::prelude::*;

/// The most bytes that a whole transfer moves before it checks for signals again. The kernel does not interrupt a call
/// that writes a file.
const PART: usize = 64 << 20;

/// Makes one call, with the iterator locked only while it runs.
fn call<T: Send>(
    i: &Bound<'_, IovIter>,
    descriptor: &Descriptor<'_>,
    work: impl FnOnce(&mut iter::IovIter) -> Result<T> + Send,
) -> PyResult<Result<T>> {
    descriptor.require_own()?;
    let mut in_use = i.get().lock(i.py())?;
    let core = &mut in_use.core;
    Ok(i.py().detach(|| work(core)))
}

/// Makes a system call until one transfers something. The error is the reason why none can.
pub(super) fn once<T: Send>(
    i: &Bound<'_, IovIter>,
    descriptor: &Descriptor<'_>,
    ready: Ready,
    mut work: impl FnMut(&mut iter::IovIter) -> Result<T> + Send,
) -> PyResult<T> {
    let (py, deadline) = (i.py(), descriptor.deadline());
    loop {
        match call(i, descriptor, &mut work)? {
            Ok(done) => return Ok(done),
            Err(failure) => retry(py, failure, descriptor, ready, deadline, 0)?,
        }
    }
}

/// Makes one call, for at most `limit` bytes, of a transfer whose loop is in Python.
pub(super) fn part<T: Transferred + Send>(
    i: &Bound<'_, IovIter>,
    descriptor: &Descriptor<'_>,
    ready: Ready,
    limit: usize,
    mut work: impl FnMut(&mut iter::IovIter, usize) -> Result<T> + Send,
) -> PyResult<usize> {
    let fd = descriptor.fd;
    let made = once(i, descriptor, ready, |i| whole(i, fd, limit, &mut work))?;
    if made.is_truncated() { Err(with_progress(i.py(), truncated_message(), made.nbytes())) } else { Ok(made.nbytes()) }
}

/// Makes calls until nothing remains of the iterator or the other side has ended. Returns the bytes transferred; an
/// `OSError` has them as `characters_written`. From a socket that keeps message boundaries it receives one message
/// only.
pub(super) fn all<T: Transferred + Send>(
    i: &Bound<'_, IovIter>,
    descriptor: &Descriptor<'_>,
    ready: Ready,
    operation: &'static str,
    mut work: impl FnMut(&mut iter::IovIter, usize, usize) -> Result<T> + Send,
) -> PyResult<usize> {
    let (py, deadline, fd) = (i.py(), descriptor.deadline(), descriptor.fd);
    let direction = match ready {
        Ready::Read => Direction::Dest,
        Ready::Write => Direction::Source,
    };
    let is_one_message = ready == Ready::Read && !is_stream(fd);
    let mut done = 0;
    let mut transfer = || {
        loop {
            let made = call(i, descriptor, |core| {
                core.require(direction, operation)?;
                if core.count() == 0 {
                    return Ok((0, false, 0));
                }
                let part = whole(core, fd, PART, |core, limit| work(core, limit, done))?;
                Ok((part.nbytes(), part.is_truncated(), core.count()))
            });
            match made? {
                Ok((0, ..)) => return Ok(()),
                Ok((nbytes, is_truncated, left)) => {
                    done += nbytes;
                    if is_truncated {
                        return Err(truncated_message());
                    }
                    if left == 0 || is_one_message {
                        return Ok(());
                    }
                    py.check_signals()?;
                }
                Err(Failure::Torn(torn)) => {
                    let error = torn_error(py, &torn, done);
                    done += torn.good;
                    return Err(error);
                }
                Err(failure) => retry(py, failure, descriptor, ready, deadline, done)?,
            }
        }
    };
    let result: PyResult<()> = transfer();
    result.map(|()| done).map_err(|error| with_progress(py, error, done))
}

/// The exception for a received message whose end did not fit.
#[cold]
fn truncated_message() -> PyErr {
    os_exception::<PyOSError>(
        libc::EMSGSIZE,
        "the message is longer than what remained of the iterator: its end is lost",
        None,
    )
}

/// The `FaultError` of a transfer over memory that another thread's guard had replaced by zeroes, after `done` bytes of
/// earlier calls. It says how many bytes are good, and how many more were transferred that are not.
#[cold]
pub(super) fn torn_error(py: Python<'_>, torn: &Torn, done: usize) -> PyErr {
    let good = done + torn.good;
    let error = with_progress(py, fault_error(py, &torn.fault, good), good);
    let note = format!(
        "{} more bytes were transferred while a guard of another thread had zeroes there: what was sent may be zeroes, \
         what was received may be lost",
        torn.wrong
    );
    match add_note(error.value(py), &note) {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// Adds to an exception how much was transferred before it, as `characters_written`: to an `OSError`, and to the
/// `RuntimeError` about an iterator that another call moved or is using.
#[cold]
fn with_progress(py: Python<'_>, error: PyErr, done: usize) -> PyErr {
    if (error.is_instance_of::<PyOSError>(py) || error.is_instance_of::<PyRuntimeError>(py))
        && let Err(failure) =
            int(py, done).and_then(|done| error.value(py).setattr(&names(py).characters_written, done))
    {
        return failure;
    }
    error
}

/// Handles a failed call of a transfer, `done` bytes into it. Returns if the call should be made again, perhaps after
/// waiting; otherwise the error says why not.
#[cold]
fn retry(
    py: Python<'_>,
    failure: Failure,
    descriptor: &Descriptor<'_>,
    ready: Ready,
    deadline: Deadline,
    done: usize,
) -> PyResult<()> {
    match failure {
        Failure::Errno(libc::EINTR) => py.check_signals(),
        Failure::Errno(libc::EAGAIN) if deadline != Deadline::None => descriptor.wait(py, ready, deadline),
        Failure::Errno(libc::EAGAIN) => {
            let message = "the descriptor would block; the iterator stands at the first byte not transferred";
            Err(os_exception::<PyBlockingIOError>(libc::EAGAIN, message, Some(int(py, done)?.unbind())))
        }
        Failure::Errno(errno) => Err(os_error(errno)),
        Failure::Refused(error) => Err(error.into()),
        Failure::Fault(fault) => Err(fault_error(py, &fault, done)),
        Failure::Torn(torn) => Err(torn_error(py, &torn, done)),
    }
}
