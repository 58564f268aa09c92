//! Python buffers: acquired, held exported for as long as anything points into them, released attached.
//!
//! Only address, length and read-only flag leave this file. A `bytes` object never moves or changes, so a reference to
//! it is enough and no export record is kept.

use super::backing::Nature;
use super::values::{type_name, wrong_type};
use crate::error::{Error, reserve, try_push};
use crate::memory::{Backing, Memory, Owner, Page, Segment};
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
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

/// How an exception names an argument: by its name, or as the n-th segment or buffer.
#[derive(Clone, Copy)]
pub(super) enum ArgName {
    Argument(&'static str),
    Segment(usize),
    Buffer(usize),
    Item(&'static str, usize),
}

impl std::fmt::Display for ArgName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argument(name) => f.write_str(name),
            Self::Segment(index) => write!(f, "segment {index}"),
            Self::Buffer(index) => write!(f, "buffers[{index}]"),
            Self::Item(argument, index) => write!(f, "{argument}[{index}]"),
        }
    }
}

/// Exports and references that end together.
#[derive(Default)]
pub(super) struct Exports {
    objects: Vec<Py<PyAny>>,
    views: Vec<ffi::Py_buffer>,
}

// SAFETY: the records are only handed back to the interpreter, attached to it, in `drop`; nothing else writes to them.
unsafe impl Send for Exports {}
// SAFETY: as for Send; a shared reference shows the interpreter's collector which objects there are, and nothing else
// to anybody.
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

/// A contiguous C buffer's memory. A null start with length 0 (an empty exporter) stays what it is: an empty range.
fn memory_of(view: &ffi::Py_buffer) -> Segment {
    Segment::new(view.buf.expose_provenance(), view.len.unsigned_abs())
}

/// All memory between the first byte and the last of a buffer that was asked for its strides. To be called before the
/// record is moved.
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

/// Fills `view` in place: moving a record that was just written costs more than the whole call. `false` leaves an
/// exception set.
#[inline]
fn request(object: &Bound<'_, PyAny>, flags: i32, view: &mut ffi::Py_buffer) -> bool {
    // SAFETY: attached; `view` is a record of ours.
    unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view, flags) == 0 }
}

fn release(view: &mut ffi::Py_buffer) {
    // SAFETY: filled by `request` and released once, attached, by each caller.
    unsafe { ffi::PyBuffer_Release(view) };
}

/// Has a record that may be moved not point into itself: its length and item size say what a shape and strides there
/// do.
#[inline]
fn keep_out_of_itself(view: &mut ffi::Py_buffer) {
    if view.shape == &raw mut view.len {
        view.shape = ptr::null_mut();
    }
    if view.strides == &raw mut view.itemsize {
        view.strides = ptr::null_mut();
    }
}

/// A C-contiguous buffer of plain bytes, and how its memory may fail. `None` leaves an exception set, for [`explain`] to
/// explain.
///
/// The class is asked first, since asking an exporter for its format takes as long as a small copy.
#[inline]
fn fill(object: &Bound<'_, PyAny>, access: Access, view: &mut ffi::Py_buffer) -> Option<Backing> {
    let writable = if access == Access::Write { ffi::PyBUF_WRITABLE } else { 0 };
    let is_bytearray = object.is_exact_instance_of::<PyByteArray>();
    let Nature { backing, may_hold_objects } = if is_bytearray { Nature::HEAP } else { Nature::of(object) };
    if !may_hold_objects {
        return request(object, writable, view).then_some(backing);
    }
    // A format is to be had only together with a shape.
    if !request(object, writable | ffi::PyBUF_ND | ffi::PyBUF_FORMAT, view) {
        return None;
    }
    keep_out_of_itself(view);
    if has_objects(view) {
        release(view);
        PyTypeError::new_err(OBJECTS).restore(object.py());
        return None;
    }
    Some(backing)
}

const OBJECTS: &str = "an array of Python objects is not memory to copy: its bytes are references, which are counted";

/// Whether the elements are or contain Python objects: `O` in the format, outside the names of fields, which stand
/// between colons.
fn has_objects(view: &ffi::Py_buffer) -> bool {
    let mut at = view.format.cast_const();
    let mut in_name = false;
    if at.is_null() {
        return false;
    }
    loop {
        // SAFETY: a terminated string of the exporter's, which stays while the record is filled; its end was not
        // passed.
        match unsafe { at.read() }.cast_unsigned() {
            0 => return false,
            b':' => in_name = !in_name,
            b'O' if !in_name => return true,
            _ => {}
        }
        // SAFETY: not the terminator, so there is another character.
        at = unsafe { at.add(1) };
    }
}

/// Whether it has a buffer to be asked for.
pub(super) fn is_buffer(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: only looks at the type.
    unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) != 0 }
}

/// Refuses a buffer where an iterable of buffers is meant. Its items would be copies of its elements, or plain numbers.
/// But an array of several dimensions is an iterable of its rows, which are parts of its memory.
pub(super) fn refuse_single(argument: &str, expected: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
    if !is_buffer(object) {
        return Ok(());
    }
    let mut view = ffi::Py_buffer::new();
    let is_single = if request(object, ffi::PyBUF_FULL_RO, &mut view) {
        let dimensions = view.ndim;
        release(&mut view);
        dimensions < 2
    } else {
        drop_unless_refusal(PyErr::fetch(object.py()), object.py())?;
        true
    };
    if is_single {
        let name = type_name(object);
        let message = format!("{argument}: {expected} is expected, not a single {name}: put it in a list");
        return Err(PyTypeError::new_err(message));
    }
    Ok(())
}

/// Exporters refuse a request with BufferError or ValueError. All else has another reason, which is not ours to
/// swallow.
fn drop_unless_refusal(error: PyErr, py: Python<'_>) -> PyResult<()> {
    if is_refusal(&error, py) { Ok(()) } else { Err(error) }
}

fn is_refusal(error: &PyErr, py: Python<'_>) -> bool {
    let class = error.get_type(py);
    class.is(py.get_type::<PyBufferError>()) || class.is(py.get_type::<PyValueError>())
}

/// Says what about a buffer is wrong that the exporter refused with `error`, which it chains. What else an exporter
/// raises comes out as it is, and one that is written in Python is not asked a second time.
#[cold]
pub(super) fn explain(object: &Bound<'_, PyAny>, error: PyErr, access: Access, name: ArgName) -> PyErr {
    let py = object.py();
    if !is_buffer(object) {
        return wrong_type(name, "a buffer", object);
    }
    if error.is_instance_of::<PyTypeError>(py) && error.value(py).str().is_ok_and(|message| message == OBJECTS) {
        return PyTypeError::new_err(format!("{name}: {OBJECTS}"));
    }
    if !is_refusal(&error, py) || is_python_exporter(object) {
        return error;
    }
    let mut view = ffi::Py_buffer::new();
    if !request(object, ffi::PyBUF_FULL_RO, &mut view) {
        // Closed or released, or failing for a reason of its own, which was told before.
        drop(PyErr::take(py));
        return error;
    }
    let readonly = view.readonly != 0;
    // SAFETY: the record is filled.
    let contiguous = unsafe { ffi::PyBuffer_IsContiguous(&raw const view, b'C'.cast_signed()) } != 0;
    release(&mut view);
    let reason = match (access, readonly, contiguous) {
        (Access::Write, true, _) => "read-only memory cannot be a destination",
        (_, _, false) => "not C-contiguous",
        (_, _, true) => return error,
    };
    let explained = PyBufferError::new_err(format!("{name}: {reason}"));
    explained.set_cause(py, Some(error));
    explained
}

/// Whether the object's class exports by a method in Python (3.12 and later).
fn is_python_exporter(object: &Bound<'_, PyAny>) -> bool {
    // An older interpreter asks no such method, which a class may have for its other callers.
    object.py().version_info() >= (3, 12)
        && object.get_type().getattr("__buffer__").is_ok_and(|method| !type_name(&method).ends_with("_descriptor"))
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
