//! The descriptor of a transfer, and how long to wait for it.

use super::exception::{exception, os_exception};
use super::names::names;
use crate::sys::duplicate::Duplicate;
use crate::sys::poll::{self, Ready};
use pyo3::exceptions::{PyOSError, PyTimeoutError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// A descriptor, named by an int or by anything with `fileno()`.
pub(super) struct Descriptor<'py> {
    /// The descriptor that calls use: the object's, or a duplicate of it.
    pub(super) fd: RawFd,
    /// The descriptor that the object returned.
    number: RawFd,
    /// Keeps `fd` open.
    _held: Option<Duplicate>,
    /// The timeout of a Python socket. The descriptor of such a socket does not block, so this code waits for it.
    /// `None` if calls block or not as the descriptor is set.
    timeout: Option<Duration>,
    /// The object, which is asked again whether the descriptor is still its own. `None` for an int.
    object: Option<Bound<'py, PyAny>>,
}

impl<'py> Descriptor<'py> {
    pub(super) fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let number = fileno(object);
        if object.is_exact_instance_of::<PyInt>() {
            let fd = number?;
            return Ok(Self { fd, number: fd, _held: None, timeout: None, object: None });
        }
        let named = |fd, timeout| Self { fd, number: fd, _held: None, timeout, object: Some(object.clone()) };
        let Some(gettimeout) = object.getattr_opt(&names(object.py()).gettimeout)? else {
            return Ok(named(number?, None));
        };
        let fd = match number {
            Ok(fd) => fd,
            // A closed socket returns -1.
            Err(error) if error.is_instance_of::<PyValueError>(object.py()) => return Err(os_error(libc::EBADF)),
            Err(error) => return Err(error),
        };
        refuse_tls(object)?;
        let timeout: Option<f64> = gettimeout.call0()?.extract()?;
        let timeout = timeout.filter(|seconds| *seconds > 0.0).map(Duration::try_from_secs_f64);
        Ok(named(fd, timeout.map(|timeout| timeout.unwrap_or(Duration::MAX))))
    }

    /// As [`Self::new`], for a later call of a transfer: an object that was closed meanwhile is EBADF.
    pub(super) fn again(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        Self::new(object).map_err(|error| {
            // Nothing else here raises a ValueError than the object's `fileno()`.
            if !error.is_instance_of::<PyValueError>(py) || object.is_exact_instance_of::<PyInt>() {
                return error;
            }
            let closed = os_exception::<PyOSError>(libc::EBADF, "closed during the transfer", None);
            closed.set_cause(py, Some(error));
            closed
        })
    }

    /// Checks that the descriptor is still the object's, before every system call. Other threads and signal handlers
    /// run during a transfer, and may close the object. Another file that is opened then gets the same number.
    #[inline]
    pub(super) fn require_own(&self) -> PyResult<()> {
        self.object.as_ref().map_or(Ok(()), |object| self.ask(object))
    }

    fn ask(&self, object: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = object.py();
        let cause = match fileno(object) {
            Ok(fd) if fd == self.number => return Ok(()),
            Ok(_) => None,
            Err(error) if error.is_instance_of::<PyValueError>(py) => Some(error),
            Err(error) => return Err(error),
        };
        let error = os_exception::<PyOSError>(
            libc::EBADF,
            format!("closed during the transfer: {} is not its own", self.number),
            None,
        );
        error.set_cause(py, cause);
        Err(error)
    }

    /// Uses a duplicate of the descriptor, for a transfer of many calls: if another thread closes the object between
    /// the check and the call, the call still reaches the same file. An int is used as it is, since it has no owner,
    /// and so is a descriptor that cannot be duplicated.
    pub(super) fn duplicated(self) -> Self {
        let held = self.object.as_ref().and_then(|_| Duplicate::new(self.number));
        Self { fd: held.as_ref().map_or(self.number, Duplicate::fd), _held: held, ..self }
    }

    /// A placeholder for calls that use no descriptor.
    pub(super) fn none() -> Self {
        Self { fd: -1, number: -1, _held: None, timeout: None, object: None }
    }

    /// Does not wait if `no_wait`, as the flags of the call say.
    pub(super) fn without_waiting_if(self, no_wait: bool) -> Self {
        if no_wait { Self { timeout: None, ..self } } else { self }
    }

    /// The time at which waiting ends. The timeout is for the whole transfer, as that of `sendall` is.
    pub(super) fn deadline(&self) -> Deadline {
        match self.timeout {
            None => Deadline::None,
            Some(timeout) => Instant::now().checked_add(timeout).map_or(Deadline::Never, Deadline::At),
        }
    }

    /// Waits until the descriptor is ready. `TimeoutError` if the deadline passes first. Raises what a signal handler
    /// raises.
    pub(super) fn wait(&self, py: Python<'_>, ready: Ready, deadline: Deadline) -> PyResult<()> {
        loop {
            let left = match deadline {
                Deadline::At(at) => at.saturating_duration_since(Instant::now()),
                Deadline::Never | Deadline::None => Duration::MAX,
            };
            if left.is_zero() {
                return Err(exception::<PyTimeoutError>("timed out"));
            }
            self.require_own()?;
            let fd = self.fd;
            match py.detach(|| poll::wait(fd, ready, left)) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(libc::EINTR) => py.check_signals()?,
                Err(errno) => return Err(os_error(errno)),
            }
        }
    }
}

/// The descriptor of an object: an int, or the result of its `fileno()`.
fn fileno(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    // SAFETY: a `Bound` proves a live object and an attached thread.
    let fd = unsafe { ffi::PyObject_AsFileDescriptor(object.as_ptr()) };
    if fd < 0 { Err(PyErr::fetch(object.py())) } else { Ok(fd) }
}

/// The time at which waiting ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    /// There is no waiting here: a call either blocks by itself or returns EAGAIN.
    None,
    /// At this time.
    At(Instant),
    /// Never: the time is beyond what the clock can represent.
    Never,
}

/// Refuses a TLS socket: bytes written to its descriptor would be sent unencrypted.
fn refuse_tls(object: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = object.py();
    let modules = py.import(&names(py).sys)?.getattr(&names(py).modules)?;
    let Ok(ssl) = modules.get_item(&names(py).ssl) else { return Ok(()) };
    let Some(class) = ssl.getattr_opt(&names(py).ssl_socket)? else { return Ok(()) };
    if object.is_instance(&class)? {
        return Err(exception::<PyTypeError>("a TLS socket: its bytes have to go through its own read and write"));
    }
    Ok(())
}

/// The OSError of an errno, with the C library's message.
pub(super) fn os_error(errno: i32) -> PyErr {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.strip_suffix(&format!(" (os error {errno})")).unwrap_or(&text).to_owned();
    os_exception::<PyOSError>(errno, text, None)
}
