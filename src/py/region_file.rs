//! A file on its way to a mapping, `iovec_rs.pmem.PmemRegion`'s or `PmemLog`'s.

use super::exception::{Int, exception, os_exception};
use super::results::int;
use super::values::{flag, optional_size, wrong_type};
use crate::error::Error;
use crate::log::region::Claim;
use crate::pmem::{Device, Opened, Part, Purpose};
use crate::sys::lock::{Guard, Lock};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A file that will be mapped: opened, with its blocks allocated. If it is closed before it is mapped, the file's bytes
/// and length are as they were.
#[pyclass(module = "iovec_rs._core", name = "RegionFile", frozen)]
pub(super) struct RegionFile {
    /// `None` once it is mapped or closed.
    state: Lock<Option<(Opened, Option<Part>)>>,
    /// Dropped after what opening did was undone: until then it keeps other writers off.
    claim: Lock<Option<Claim>>,
    path: Py<PyAny>,
    size: Option<usize>,
    offset: usize,
}

impl RegionFile {
    fn lock(&self) -> Guard<'_, Option<(Opened, Option<Part>)>> {
        self.state.lock()
    }

    fn with<T>(&self, look: impl FnOnce(&Opened) -> T) -> PyResult<T> {
        self.lock().as_ref().map(|(opened, _)| look(opened)).ok_or_else(file_closed)
    }
}

impl RegionFile {
    /// Where in the file its first byte is.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// What it was opened by.
    pub(super) fn path(&self) -> &Py<PyAny> {
        &self.path
    }

    /// The file and the part of it that was given room, to be mapped.
    pub(super) fn take(&self) -> PyResult<(Opened, Part)> {
        let (opened, part) = self.lock().take().ok_or_else(file_closed)?;
        Ok((opened, part.ok_or_else(|| exception::<PyValueError>("the file was given no room"))?))
    }

    /// The claim of [`Self::claim_log`].
    pub(super) fn take_claim(&self) -> PyResult<Claim> {
        let claim = self.claim.lock().take();
        claim.ok_or_else(|| exception::<PyValueError>("the file was not claimed for a log"))
    }
}

/// A path as the system calls take it. Its conversion raises where there is no memory; PyO3's panics. One that is too
/// long for them is refused before it is copied.
fn file_name(path: &Bound<'_, PyString>) -> PyResult<PathBuf> {
    // SAFETY: `path` is bound, which proves that this thread is attached and that it is a `str`.
    let encoded = unsafe { ffi::PyUnicode_EncodeFSDefault(path.as_ptr()) };
    // SAFETY: the call returned a new reference, or null with an exception set.
    let encoded = unsafe { Bound::from_owned_ptr_or_err(path.py(), encoded) }?;
    let name = encoded.cast::<PyBytes>()?.as_bytes();
    if name.len() >= libc::PATH_MAX as usize {
        let too_long = Error::os(libc::ENAMETOOLONG, "cannot be opened: File name too long");
        return Err(with_path(too_long, path));
    }
    Ok(OsStr::from_bytes(name).into())
}

fn file_closed() -> PyErr {
    exception::<PyValueError>("the file is mapped or closed")
}

#[pymethods]
impl RegionFile {
    /// Opens a file, or makes one if `create` says so. Nothing is opened if an argument is wrong.
    #[new]
    #[pyo3(
        signature = (path, *, size=None, create=None, offset=None, writable=None),
        text_signature = "(path, *, size=None, create=False, offset=None, writable=True)"
    )]
    fn new(
        path: &Bound<'_, PyAny>,
        size: Option<&Bound<'_, PyAny>>,
        create: Option<&Bound<'_, PyAny>>,
        offset: Option<&Bound<'_, PyAny>>,
        writable: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let path = path.cast::<PyString>().map_err(|_| wrong_type("path", "a str", path))?;
        let (create, writable) = (flag("create", create, false)?, flag("writable", writable, true)?);
        let (size, offset) = (optional_size("size", size)?, optional_size("offset", offset)?.unwrap_or(0));
        let purpose = match (create, writable) {
            (true, false) => return Err(Error::invalid("create", "True", "False where writable is False").into()),
            (true, true) => Purpose::Create,
            (false, true) => Purpose::Write,
            (false, false) => Purpose::Read,
        };
        let name = file_name(path)?;
        if name.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(Error::invalid("path", path.repr()?, "a path without null bytes").into());
        }
        let opened = path.py().detach(|| Opened::new(&name, purpose)).map_err(|error| with_path(error, path))?;
        let (state, path) = (Lock::new(Some((opened, None))), path.clone().into_any().unbind());
        Ok(Self { state, claim: Lock::new(None), path, size, offset })
    }

    /// Its device number if it is a character device; `None` for a file.
    #[getter]
    fn character_device<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.with(Opened::character_device)?.map(|number| int(py, number as usize)).transpose()
    }

    /// The number of the device that its bytes are on; for a device, its own number.
    #[getter]
    fn device<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let number = self.with(|opened| opened.character_device().unwrap_or_else(|| opened.device_number()))?;
        int(py, number as usize)
    }

    /// Its descriptor.
    fn fileno(&self) -> PyResult<RawFd> {
        self.with(Opened::fd)
    }

    /// Chooses the bytes to map and allocates them. `device` is `(size, align)` of a DAX device in bytes; `size`
    /// replaces the size given when it was opened.
    #[pyo3(signature = (device, size=None))]
    fn reserve(&self, py: Python<'_>, device: Option<(usize, usize)>, size: Option<usize>) -> PyResult<()> {
        let size = size.or(self.size);
        let device = device.map(|(size, align)| Device { size, align });
        // Taken, since the interpreter runs meanwhile.
        let (mut opened, _) = self.lock().take().ok_or_else(file_closed)?;
        let reserved = loop {
            match py.detach(|| opened.reserve(size, self.offset, device)) {
                Err(Error::Os { errno: libc::EINTR, .. }) => py.check_signals()?,
                reserved => break reserved.map_err(|error| with_path(error, self.path.bind(py))),
            }
        };
        *self.lock() = Some((opened, Some(reserved?)));
        Ok(())
    }

    /// Locks it against other writers of a log until it is closed, or for as long as the log made of it is open.
    /// Returns the size in bytes of the log in it; `None` if there is none yet and `create` allows making one. What
    /// refuses it has changed nothing.
    fn claim_log(&self, py: Python<'_>, create: bool) -> PyResult<Option<Int>> {
        // Taken, since the interpreter runs meanwhile.
        let (mut opened, part) = self.lock().take().ok_or_else(file_closed)?;
        let claimed = py.detach(|| Claim::new(&mut opened, self.size, create));
        *self.lock() = Some((opened, part));
        let claim = claimed.map_err(|error| with_path(error, self.path.bind(py)))?;
        let size = claim.size().map(Int);
        *self.claim.lock() = Some(claim);
        Ok(size)
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) {
        let (opened, claim) = (self.lock().take(), self.claim.lock().take());
        py.detach(|| {
            drop(opened);
            drop(claim);
        });
    }
}

/// A refusal while opening, which names the file.
pub(super) fn with_path<T>(error: Error, path: &Bound<'_, T>) -> PyErr {
    match error {
        Error::Os { errno, context } => {
            os_exception::<PyOSError>(errno, context, Some(path.clone().into_any().unbind()))
        }
        other => other.into(),
    }
}
