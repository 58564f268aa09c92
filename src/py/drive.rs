//! System calls as Python makes them: without the interpreter, repeated after a signal whose handler did not raise (PEP
//! 475), waited for where a socket has a timeout. The iterator is borrowed for the calls only, so that a signal handler
//! may look at it; an object is asked for its descriptor before each, so that none goes to a file that has got the
//! number since.

use super::descriptor::{Deadline, Descriptor, os_error};
use super::errors::fault_error;
use super::exception::os_exception;
use super::iter::IovIter;
use super::names::names;
use super::results::int;
use crate::abi::Direction;
use crate::io::{Failure, Result, Torn, Transferred, is_stream, whole};
use crate::iter;
use crate::sys::poll::Ready;
use pyo3::exceptions::{PyBlockingIOError, PyOSError, PyRuntimeError};
use pyo3::prelude::*;

/// The most bytes a whole transfer moves between two looks at signals. A call that writes a file is not interrupted.
const PART: usize = 64 << 20;

/// One call, with the iterator in use for just so long.
fn call<T: Send>(
    i: &Bound<'_, IovIter>,
    descriptor: &Descriptor<'_>,
    work: impl FnOnce(&mut iter::IovIter) -> Result<T> + Send,
) -> PyResult<Result<T>> {
    descriptor.require_own()?;
    let mut in_use = i.get().lock()?;
    let core = &mut in_use.core;
    Ok(i.py().detach(|| work(core)))
}

/// One system call that transfers, or the exception why none did.
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

/// One call of a transfer whose loop is the caller's, for at most `limit` bytes.
pub(super) fn part<T: Transferred + Send>(
    i: &Bound<'_, IovIter>,
    descriptor: &Descriptor<'_>,
    ready: Ready,
    limit: usize,
    mut work: impl FnMut(&mut iter::IovIter, usize) -> Result<T> + Send,
) -> PyResult<usize> {
    let fd = descriptor.fd;
    let made = once(i, descriptor, ready, |i| whole(i, fd, limit, &mut work))?;
    if made.is_cut() { Err(with_progress(i.py(), cut_message(), made.nbytes())) } else { Ok(made.nbytes()) }
}

/// Calls until nothing remains or the other side has ended: the bytes transferred. An `OSError` has them as
/// `characters_written`. From a socket that keeps messages apart one message is received.
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
                Ok((part.nbytes(), part.is_cut(), core.count()))
            });
            match made? {
                Ok((0, ..)) => return Ok(()),
                Ok((nbytes, is_cut, left)) => {
                    done += nbytes;
                    if is_cut {
                        return Err(cut_message());
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

/// What a message was too long for.
#[cold]
fn cut_message() -> PyErr {
    os_exception::<PyOSError>(
        libc::EMSGSIZE,
        "the message is longer than what remained of the iterator: its end is lost",
        None,
    )
}

/// The `FaultError` of a transfer, `done` bytes into it, that a guard put zeroes in the way of: how many bytes are
/// good, and how many more went or came that are not.
#[cold]
pub(super) fn torn_error(py: Python<'_>, torn: &Torn, done: usize) -> PyErr {
    let good = done + torn.good;
    let error = with_progress(py, fault_error(py, &torn.fault, good), good);
    let note = format!(
        "{} more bytes were transferred while a guard of another thread had zeroes there: what was sent may be zeroes, \
         what was received may be lost",
        torn.wrong
    );
    match error.value(py).call_method1("add_note", (note,)) {
        Ok(_) => error,
        Err(other) => other,
    }
}

/// An `OSError` that says how much was transferred before it, or the `RuntimeError` of an iterator that somebody else
/// has moved or uses.
#[cold]
fn with_progress(py: Python<'_>, error: PyErr, done: usize) -> PyErr {
    if (error.is_instance_of::<PyOSError>(py) || error.is_instance_of::<PyRuntimeError>(py))
        && let Err(failure) = error.value(py).setattr(&names(py).characters_written, done)
    {
        return failure;
    }
    error
}

/// Returns when the call is to be made again; otherwise says why not, `done` bytes into a transfer.
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
