//! Python buffers: acquired, held exported for as long as anything points into them, released attached.
//!
//! Only address, length and read-only flag leave this file. A `bytes` object never moves or changes, so a reference to
//! it is enough and no export record is kept.

use super::care::{care_of, care_of_argument};
use crate::memory::{Backing, Memory, Owner, Page, Segment};
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// What a buffer is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// To be read.
    Read,
    /// To be written.
    Write,
}

/// How an argument is called in an exception: by name, or as the n-th segment or buffer.
#[derive(Clone, Copy)]
pub(super) enum Named {
    Argument(&'static str),
    Segment(usize),
    Buffer(usize),
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argument(name) => f.write_str(name),
            Self::Segment(index) => write!(f, "segment {index}"),
            Self::Buffer(index) => write!(f, "buffers[{index}]"),
        }
    }
}

/// Exports and references that end together.
#[derive(Default)]
pub(super) struct Owners {
    objects: Vec<Py<PyAny>>,
    views: Vec<ffi::Py_buffer>,
}

// SAFETY: the records are only handed back to the interpreter, attached to it, in `drop`; nothing else reads them.
unsafe impl Send for Owners {}
// SAFETY: as for Send; a shared reference gives access to nothing.
unsafe impl Sync for Owners {}

impl Drop for Owners {
    fn drop(&mut self) {
        // At interpreter shutdown there is nobody left to release anything to.
        let _ = Python::try_attach(|_| {
            self.views.iter_mut().for_each(release);
            self.objects.clear();
        });
    }
}

impl Owners {
    pub(super) fn with_capacity(objects: usize) -> Self {
        Self { objects: Vec::with_capacity(objects), views: Vec::new() }
    }

    /// Gives back what was reserved and not used.
    pub(super) fn shrink(&mut self) {
        self.objects.shrink_to_fit();
        self.views.shrink_to_fit();
    }

    /// Takes hold of one more buffer of any strides, to be read: all memory from its first byte to its last.
    pub(super) fn acquire_strided(&mut self, object: &Bound<'_, PyAny>, name: Named) -> PyResult<Acquired> {
        self.views.push(ffi::Py_buffer::new());
        let last = self.views.len() - 1;
        if !request(object, ffi::PyBUF_STRIDES, &mut self.views[last]) {
            self.views.truncate(last);
            return Err(explain(object, PyErr::fetch(object.py()), Access::Read, name));
        }
        let view = &self.views[last];
        Ok(Acquired { seg: hull_of(view), readonly: view.readonly != 0, care: Backing::Mapping })
    }

    /// Takes hold of one more buffer.
    pub(super) fn acquire(&mut self, object: &Bound<'_, PyAny>, access: Access, name: Named) -> PyResult<Acquired> {
        if access == Access::Read
            && let Some(seg) = bytes_memory(object)
        {
            self.objects.push(object.clone().unbind());
            return Ok(Acquired { seg, readonly: true, care: Backing::Heap });
        }
        self.views.push(ffi::Py_buffer::new());
        let last = self.views.len() - 1;
        if !fill(object, access, &mut self.views[last]) {
            self.views.truncate(last);
            return Err(explain(object, PyErr::fetch(object.py()), access, name));
        }
        let view = &self.views[last];
        Ok(Acquired { seg: memory_of(view), readonly: view.readonly != 0, care: care_of(object) })
    }
}

/// A buffer's memory.
pub(super) struct Acquired {
    pub(super) seg: Segment,
    pub(super) readonly: bool,
    pub(super) care: Backing,
}

/// A contiguous C buffer's memory. A null start with length 0 (an empty exporter) stays what it is: an empty range.
fn memory_of(view: &ffi::Py_buffer) -> Segment {
    Segment::new(view.buf.expose_provenance(), view.len.unsigned_abs())
}

/// All memory between the first byte and the last of a buffer that was asked for its strides. To be called before the record is moved.
fn hull_of(view: &ffi::Py_buffer) -> Segment {
    let (mut below, mut above) = (0, view.itemsize);
    let dimensions = if view.shape.is_null() || view.strides.is_null() { 0 } else { view.ndim.max(0) };
    if view.len == 0 || dimensions == 0 {
        return memory_of(view);
    }
    for dimension in 0..dimensions as usize {
        // SAFETY: the exporter, asked for strides, gave as many lengths as dimensions.
        let length = unsafe { view.shape.wrapping_add(dimension).read() };
        // SAFETY: and as many strides.
        let stride = unsafe { view.strides.wrapping_add(dimension).read() };
        let reach = stride.saturating_mul(length - 1);
        below += reach.min(0);
        above += reach.max(0);
    }
    Segment::new(view.buf.expose_provenance().wrapping_add_signed(below), (above - below).unsigned_abs())
}

/// The memory of an exact `bytes`, which is its for life.
fn bytes_memory(object: &Bound<'_, PyAny>) -> Option<Segment> {
    // Not a cast: the error that a failing one makes takes two calls.
    if !object.is_exact_instance_of::<PyBytes>() {
        return None;
    }
    // SAFETY: it is a bytes object; the call returns its internal storage.
    let start = unsafe { ffi::PyBytes_AsString(object.as_ptr()) };
    // SAFETY: it is a bytes object.
    let len = unsafe { ffi::PyBytes_Size(object.as_ptr()) };
    Some(Segment::new(start.expose_provenance(), len.unsigned_abs()))
}

/// Fills `view` in place: moving a record that was just written costs more than the whole call. `false` leaves an exception set.
#[inline]
fn request(object: &Bound<'_, PyAny>, flags: i32, view: &mut ffi::Py_buffer) -> bool {
    // SAFETY: attached; `view` is a record of ours. It may be moved later: shape and strides, which may point into it, are only
    // looked at before.
    unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view, flags) == 0 }
}

fn release(view: &mut ffi::Py_buffer) {
    // SAFETY: filled by `request` and released once, attached, by each caller.
    unsafe { ffi::PyBuffer_Release(view) };
}

/// A C-contiguous buffer. `false` leaves an exception set, for [`explain`] to explain.
#[inline]
fn fill(object: &Bound<'_, PyAny>, access: Access, view: &mut ffi::Py_buffer) -> bool {
    let flags = match access {
        Access::Read => ffi::PyBUF_SIMPLE,
        Access::Write => ffi::PyBUF_WRITABLE,
    };
    request(object, flags, view)
}

/// Whether it has a buffer to be asked for.
pub(super) fn is_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: only looks at the type.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
}

/// Says what about a buffer is wrong that the exporter refused with `error`, which it chains.
#[cold]
pub(super) fn explain(object: &Bound<'_, PyAny>, error: PyErr, access: Access, name: Named) -> PyErr {
    let py = object.py();
    if !is_buffer(object) {
        let kind = object.get_type().name().map_or_else(|_| "this".to_owned(), |name| name.to_string());
        return PyTypeError::new_err(format!("{name}: a buffer is expected, not {kind}"));
    }
    let mut view = ffi::Py_buffer::new();
    let reason = if request(object, ffi::PyBUF_FULL_RO, &mut view) {
        let readonly = view.readonly != 0;
        release(&mut view);
        if access == Access::Write && readonly {
            "read-only memory cannot be a destination"
        } else {
            "not C-contiguous"
        }
    } else {
        // Closed, released, or failing for a reason of its own, which was told before.
        drop(PyErr::take(py));
        return error;
    };
    let explained = PyBufferError::new_err(format!("{name}: {reason}"));
    explained.set_cause(py, Some(error));
    explained
}

/// One buffer for the length of a call.
pub(super) struct Call {
    view: ffi::Py_buffer,
    exported: bool,
}

impl Call {
    /// Holds nothing yet.
    pub(super) const fn new() -> Self {
        Self { view: ffi::Py_buffer::new(), exported: false }
    }

    /// Takes hold of a buffer, once, for as long as `self` lives. The object must outlive `self`: a `bytes` object is not exported.
    pub(super) fn acquire(&mut self, object: &Bound<'_, PyAny>, access: Access, name: Named) -> PyResult<Memory> {
        self.try_acquire(object, access).ok_or_else(|| explain(object, PyErr::fetch(object.py()), access, name))
    }

    /// The same; `None` leaves an exception set, for [`explain`] to explain.
    #[inline(always)]
    #[allow(clippy::inline_always)] // returned by value the range would be stored in pieces and loaded whole
    pub(super) fn try_acquire(&mut self, object: &Bound<'_, PyAny>, access: Access) -> Option<Memory> {
        debug_assert!(!self.exported);
        let (seg, care) = if access == Access::Read
            && let Some(seg) = bytes_memory(object)
        {
            (seg, Backing::Heap)
        } else {
            if !fill(object, access, &mut self.view) {
                return None;
            }
            self.exported = true;
            let seg = memory_of(&self.view);
            (seg, care_of_argument(object, seg))
        };
        // SAFETY: the export, or the caller's reference to a bytes object, lasts as long as `self`, and the memory is only used by
        // the call that owns `self`: as a destination only where a writable buffer was asked for.
        Some(unsafe { Memory::new(seg, care) })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.exported {
            release(&mut self.view);
        }
    }
}

/// A page of a structure: writable if its exporter lets it be.
pub(super) fn page(object: &Bound<'_, PyAny>, name: Named) -> PyResult<Page> {
    let mut owners = Owners::default();
    let Acquired { seg, readonly, care } = owners.acquire(object, Access::Read, name)?;
    // SAFETY: the page holds the owners and with them the export, and is no destination if the exporter lets nobody write.
    let memory = unsafe { Memory::new(seg, care) };
    Ok(Page::new(memory, !readonly, Arc::new(owners) as Owner))
}

/// A raw address range that the program named itself.
pub(super) fn unchecked(seg: Segment) -> Memory {
    // SAFETY: who makes a `UserRange` speaks for what is written through it, as its documentation says; no copy takes for granted
    // that there is memory.
    unsafe { Memory::new(seg, Backing::Unchecked) }
}
