//! Where bytes go to or come from: a descriptor, and how long its owner wants to wait for it.

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
    /// What calls go over: the object's descriptor, or the one held.
    pub(super) fd: RawFd,
    /// What the object said.
    number: RawFd,
    /// Keeps `fd` open.
    _held: Option<Duplicate>,
    /// A socket's own timeout: such a socket does not block, and is waited for here. `None` leaves it to the
    /// descriptor.
    timeout: Option<Duration>,
    /// What says whether the number is still its own. An int cannot.
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
            // A closed socket, whose number is -1.
            Err(error) if error.is_instance_of::<PyValueError>(object.py()) => return Err(os_error(libc::EBADF)),
            Err(error) => return Err(error),
        };
        refuse_tls(object)?;
        let timeout: Option<f64> = gettimeout.call0()?.extract()?;
        let timeout = timeout.filter(|seconds| *seconds > 0.0).map(Duration::try_from_secs_f64);
        Ok(named(fd, timeout.map(|timeout| timeout.unwrap_or(Duration::MAX))))
    }

    /// The same for a turn of a transfer that has begun: what was closed since is EBADF.
    pub(super) fn again(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        Self::new(object).map_err(|error| {
            // No other value than the descriptor is asked for here.
            if !error.is_instance_of::<PyValueError>(py) || object.is_exact_instance_of::<PyInt>() {
                return error;
            }
            let closed = os_exception::<PyOSError>(libc::EBADF, "closed during the transfer", None);
            closed.set_cause(py, Some(error));
            closed
        })
    }

    /// Refuses to go on with a number that may be somebody else's by now. Asked before every system call: a transfer
    /// lets other threads and signal handlers run, which may close the object, and the next one to open a file gets
    /// its number.
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

    /// The same over a duplicate, for a transfer of many calls: a close in another thread between the object's answer
    /// and the next call does not put somebody else's file in its place. An int is nobody's, and a file may not be
    /// held.
    pub(super) fn held(self) -> Self {
        let held = self.object.as_ref().and_then(|_| Duplicate::new(self.number));
        Self { fd: held.as_ref().map_or(self.number, Duplicate::fd), _held: held, ..self }
    }

    /// None, for calls that go by something else.
    pub(super) fn none() -> Self {
        Self { fd: -1, number: -1, _held: None, timeout: None, object: None }
    }

    /// The same, not waited for: as the caller's flags ask.
    pub(super) fn without_waiting_if(self, no_wait: bool) -> Self {
        if no_wait { Self { timeout: None, ..self } } else { self }
    }

    /// Starts the clock: the timeout is for all of what follows, as that of `sendall` is.
    pub(super) fn deadline(&self) -> Deadline {
        match self.timeout {
            None => Deadline::None,
            Some(timeout) => Instant::now().checked_add(timeout).map_or(Deadline::Never, Deadline::At),
        }
    }

    /// Waits until it is ready. `TimeoutError` when the deadline passes first; what a signal handler raises.
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

/// What an object says its descriptor is.
fn fileno(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    // SAFETY: `object` is bound, which proves that this thread is attached and that it is an object.
    let fd = unsafe { ffi::PyObject_AsFileDescriptor(object.as_ptr()) };
    if fd < 0 { Err(PyErr::fetch(object.py())) } else { Ok(fd) }
}

/// When waiting ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    /// There is no waiting: a descriptor that blocks does so itself, another says that it would.
    None,
    /// At this time.
    At(Instant),
    /// At none that a clock can tell.
    Never,
}

/// Bytes given to the descriptor of a TLS socket would go out beside the encryption.
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

/// The exception of an errno, in the C library's words.
pub(super) fn os_error(errno: i32) -> PyErr {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.strip_suffix(&format!(" (os error {errno})")).unwrap_or(&text).to_owned();
    os_exception::<PyOSError>(errno, text, None)
}
