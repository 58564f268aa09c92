//! Turns errors and faults of the core into Python exceptions.

use super::exception::{exception, os_exception};
use super::names::names;
use super::results::{int, string, to_fault};
use crate::error::Error;
use crate::fault::shelter::Report;
use crate::fault::{Cause, Fault, Side};
use crate::iter;
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::io::Write;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Os { errno, context } => os_exception::<PyOSError>(errno, context, None),
            Error::ReadOnly { .. } | Error::ReadOnlyRegion => exception::<PyBufferError>(error.to_string()),
            Error::Handler(_) | Error::TooManyGuards(_) | Error::Moved => {
                exception::<PyRuntimeError>(error.to_string())
            }
            Error::NoMemory(_) => no_memory(&error),
            _ => exception::<PyValueError>(error.to_string()),
        }
    }
}

/// A `MemoryError`. Its text is written to the stack: a `String` would have to be allocated now, which would end the
/// process.
fn no_memory(error: &Error) -> PyErr {
    const LENGTH: usize = 64;
    let mut text = [0; LENGTH];
    let mut rest = &mut text[..];
    // What does not fit is left out.
    let _ = write!(rest, "{error}");
    let written = LENGTH - rest.len();
    exception::<PyMemoryError>(str::from_utf8(&text[..written]).unwrap_or_default())
}

/// The fault that a copy must raise, because its iterator runs over trusted memory. Over user memory a copy returns a
/// short count instead, and `i.fault` says why.
#[inline]
pub(super) fn trusted_fault(core: &iter::IovIter) -> Option<Box<Fault>> {
    if core.fault.is_some() && !core.is_user_backed() { core.fault.clone() } else { None }
}

/// Raises the fault that ended a copy after `copied` bytes, if one did.
#[inline]
pub(super) fn raise(py: Python<'_>, fault: Option<Box<Fault>>, copied: usize) -> PyResult<()> {
    match fault {
        None => Ok(()),
        Some(fault) => Err(fault_error(py, &fault, copied)),
    }
}

/// Makes the `FaultError` of a copy, whose errno depends on the cause of the fault.
pub(super) fn fault_error(py: Python<'_>, fault: &Fault, copied: usize) -> PyErr {
    let role = match fault.side {
        Side::Source => "the source of a copy",
        Side::Destination => "the destination of a copy",
    };
    fault_error_of(py, fault, copied, role)
}

/// The same of any other operation, which was done for `done` bytes. `role` says what the memory was in it, such as "to
/// be evicted".
pub(super) fn fault_error_of(py: Python<'_>, fault: &Fault, done: usize, role: &str) -> PyErr {
    let message = |shown: &Bound<'_, PyAny>| {
        let cause = shown.getattr(&names(py).cause)?;
        Ok(format!("bad memory at {:#x} ({cause}), {role}, after {done} bytes", fault.address))
    };
    raised(py, fault, done, message).map_or_else(|error| error, PyErr::from_value)
}

/// Puts the sum of the bytes that were summed into the `.crc32c` of a `FaultError`.
pub(super) fn with_crc32c(py: Python<'_>, error: PyErr, crc: u32) -> PyErr {
    if !error.is_instance(py, names(py).fault_error.bind(py)) {
        // There was no memory for it: this is the MemoryError, which takes no attributes.
        return error;
    }
    match int(py, crc as usize).and_then(|crc| error.value(py).setattr(&names(py).crc32c, crc)) {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// Makes the `FaultError` of a guard whose block touched bad memory.
pub(super) fn guard_error(py: Python<'_>, report: &Report, guard: &Bound<'_, PyAny>) -> PyErr {
    let Some(first) = report.first() else { return exception::<PyRuntimeError>("the guard has met nothing") };
    let message = |shown: &Bound<'_, PyAny>| {
        let (lost, places) = (report.lost, report.places);
        let stuck = match report.left {
            0 => String::new(),
            left => format!(
                "; {left} bytes stay zeroes until their mapping is closed: they could not be put back (pages of files \
                 before Linux 5.13, huge pages, what the block moved to another address)"
            ),
        };
        Ok(format!(
            "bad memory at {:#x} ({}) under a guard: {lost} bytes in {places} places read as zeroes or were not stored \
             to; do not use what was computed{stuck}",
            first.address,
            shown.getattr(&names(py).cause)?
        ))
    };
    let build = || {
        let error = raised(py, &first, 0, message)?;
        error.setattr(&names(py).guard, guard)?;
        Ok(error)
    };
    build().map_or_else(|error: PyErr| error, PyErr::from_value)
}

fn raised<'py>(
    py: Python<'py>,
    fault: &Fault,
    copied: usize,
    message: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<String>,
) -> PyResult<Bound<'py, PyAny>> {
    let errno = match fault.cause() {
        Cause::Poison => libc::EHWPOISON,
        Cause::Gone => libc::EIO,
        Cause::Protection => libc::EACCES,
        Cause::Unmapped | Cause::BadAddress | Cause::Unknown => libc::EFAULT,
    };
    let shown = to_fault(py, fault)?;
    let names = names(py);
    let (errno, message) = (int(py, errno.unsigned_abs() as usize)?, string(py, &message(&shown)?)?);
    let error = names.fault_error.bind(py).call1((errno, message))?;
    error.setattr(&names.copied, int(py, copied)?)?;
    error.setattr(&names.fault_attribute, shown)?;
    Ok(error)
}
