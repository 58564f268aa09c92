//! Python buffers: acquired, held exported for as long as anything points into them, released attached.
//!
//! Only address, length and read-only flag leave this file. A `bytes` object never moves or changes, so a reference to
//! it is enough and no export record is kept.

mod record;
mod refusal;

use record::{bytes_memory, fill, hull_of, keep_out_of_itself, memory_of, release, request};
pub(super) use refusal::{explain, refuse_single, require_pairs};

pub(super) use super::values::ArgName;
use crate::error::{Error, reserve, try_push};
use crate::fault::arm;
use crate::memory::{Backing, Memory, Owner, Page, Segment};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use std::ptr;
use std::sync::Arc;

/// What a buffer is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// To be read.
    Read,
    /// To be written.
    Write,
}

/// Exports and references that end together.
#[derive(Default)]
pub(super) struct Exports {
    objects: Vec<Py<PyAny>>,
    views: Vec<ffi::Py_buffer>,
}

// SAFETY: the records are only handed back to the interpreter, attached to it, in `drop`; nothing else writes to them.
unsafe impl Send for Exports {}
// SAFETY: through a shared reference `traverse` reads the exporters' addresses, which nothing changes, and nothing else
// is reached.
unsafe impl Sync for Exports {}

impl Drop for Exports {
    fn drop(&mut self) {
        if self.views.is_empty() && self.objects.is_empty() {
            return;
        }
        // At interpreter shutdown there is nobody left to release anything to.
        let _ = Python::try_attach(|_| {
            self.views.iter_mut().for_each(release);
            self.objects.clear();
        });
    }
}

impl Exports {
    /// Gives back what was reserved and not used.
    pub(super) fn shrink(&mut self) {
        self.objects.shrink_to_fit();
        self.views.shrink_to_fit();
    }

    /// Takes hold of one more buffer of any strides, to be read: all memory from its first byte to its last.
    pub(super) fn acquire_strided(&mut self, object: &Bound<'_, PyAny>, name: ArgName) -> PyResult<Exported> {
        try_push(&mut self.views, ffi::Py_buffer::new())?;
        let last = self.views.len() - 1;
        if !request(object, ffi::PyBUF_STRIDES, &mut self.views[last]) {
            self.views.truncate(last);
            return Err(explain(object, PyErr::fetch(object.py()), Access::Read, name));
        }
        let view = &mut self.views[last];
        let seg = hull_of(view);
        keep_out_of_itself(view);
        Ok(Exported { seg, readonly: view.readonly != 0, backing: Backing::Mapping })
    }

    /// Takes hold of one more buffer.
    pub(super) fn acquire(&mut self, object: &Bound<'_, PyAny>, access: Access, name: ArgName) -> PyResult<Exported> {
        if access == Access::Read
            && let Some(seg) = bytes_memory(object)
        {
            reserve(&mut self.objects, 1)?;
            self.objects.push(object.clone().unbind());
            return Ok(Exported { seg, readonly: true, backing: Backing::Heap });
        }
        if self.views.is_empty() {
            // Most iterators are over one.
            self.views.try_reserve_exact(1).map_err(|_| Error::NoMemory(size_of::<ffi::Py_buffer>()))?;
        }
        try_push(&mut self.views, ffi::Py_buffer::new())?;
        let last = self.views.len() - 1;
        let Some(backing) = fill(object, access, &mut self.views[last]) else {
            self.views.truncate(last);
            return Err(explain(object, PyErr::fetch(object.py()), access, name));
        };
        let view = &self.views[last];
        Ok(Exported { seg: memory_of(view), readonly: view.readonly != 0, backing })
    }

    /// Shows the collector the references to bytearrays, subclasses included, which can be part of a cycle.
    ///
    /// Not those to other exporters: the collector clears what it takes for garbage, and a memoryview or a ctypes
    /// object that is cleared lets go of memory that is still exported. (A memoryview then crashes the interpreter when
    /// the export ends.) A cycle through one of them is not collected. A bytearray that is cleared keeps its memory.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for view in self.views.iter().filter(|view| !view.obj.is_null()) {
            // SAFETY: the record owns a reference to it; only its type is looked at.
            if unsafe { ffi::PyByteArray_Check(view.obj) } != 0 {
                // SAFETY: a `Py` is a pointer to an object, transparently, and the record owns a reference to this one.
                let exporter = unsafe { &*ptr::from_ref(&view.obj).cast::<Py<PyAny>>() };
                visit.call(exporter)?;
            }
        }
        Ok(())
    }
}

/// A buffer's memory.
pub(super) struct Exported {
    pub(super) seg: Segment,
    pub(super) readonly: bool,
    pub(super) backing: Backing,
}

/// Whether it exports a buffer.
pub(super) fn is_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a `Bound` is a live object of an attached thread; the call looks at its type alone.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
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

    /// Takes hold of a buffer, once, for as long as `self` lives. The object must outlive `self`: a `bytes` object is
    /// not exported.
    pub(super) fn acquire(&mut self, object: &Bound<'_, PyAny>, access: Access, name: ArgName) -> PyResult<Memory> {
        arm::extend();
        self.try_acquire(object, access).ok_or_else(|| explain(object, PyErr::fetch(object.py()), access, name))
    }

    /// The same; `None` leaves an exception set, for [`explain`] to explain.
    #[inline(always)]
    #[allow(clippy::inline_always)] // returned by value the range would be stored in pieces and loaded whole
    pub(super) fn try_acquire(&mut self, object: &Bound<'_, PyAny>, access: Access) -> Option<Memory> {
        debug_assert!(!self.exported);
        let (seg, backing) = if access == Access::Read
            && let Some(seg) = bytes_memory(object)
        {
            (seg, Backing::Heap)
        } else {
            let backing = fill(object, access, &mut self.view)?;
            self.exported = true;
            (memory_of(&self.view), backing)
        };
        // SAFETY: the export, or the caller's reference to a bytes object, lasts as long as `self`, and the memory is
        // only used by the call that owns `self`: as a destination only where a writable buffer was asked for.
        Some(unsafe { Memory::new(seg, backing) })
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
pub(super) fn page(object: &Bound<'_, PyAny>, name: ArgName) -> PyResult<Page> {
    let mut exports = Exports::default();
    let Exported { seg, readonly, backing } = exports.acquire(object, Access::Read, name)?;
    // SAFETY: the page holds the exports, and is no destination if the exporter lets nobody write.
    let memory = unsafe { Memory::new(seg, backing) };
    Ok(Page::new(memory, !readonly, Arc::new(exports) as Owner))
}

/// A raw address range that the program named itself.
pub(super) fn unchecked(seg: Segment) -> Memory {
    // SAFETY: who makes a `UserRange` speaks for what is written through it, as its documentation says; no copy takes
    // for granted that there is memory.
    unsafe { Memory::new(seg, Backing::Unchecked) }
}
