//! `Py_buffer` records: how they are filled, read and released.

use super::Access;
use crate::memory::{Backing, Segment};
use crate::py::backing::Nature;
use crate::py::exception::exception;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use std::ptr;

/// The memory of a C-contiguous buffer. An empty buffer may have a null address; that stays an empty range.
pub(super) fn memory_of(view: &ffi::Py_buffer) -> Segment {
    Segment::new(view.buf.expose_provenance(), view.len.unsigned_abs())
}

/// All memory from the first byte to the last of a buffer that was requested with its strides. Call it before the
/// record is moved, since shape and strides may point into the record itself.
pub(super) fn hull_of(view: &ffi::Py_buffer) -> Segment {
    let (mut below, mut above) = (0, view.itemsize);
    let dimensions = if view.shape.is_null() || view.strides.is_null() { 0 } else { view.ndim.max(0) };
    if view.len == 0 || dimensions == 0 {
        return memory_of(view);
    }
    for dimension in 0..dimensions as usize {
        // SAFETY: `shape` is not null, and an exporter that fills it gives `ndim` lengths; `dimension` is less.
        let length = unsafe { view.shape.wrapping_add(dimension).read() };
        // SAFETY: `strides` is not null, and an exporter that fills it gives `ndim` of them; `dimension` is less.
        let stride = unsafe { view.strides.wrapping_add(dimension).read() };
        let reach = stride.saturating_mul(length - 1);
        below += reach.min(0);
        above += reach.max(0);
    }
    Segment::new(view.buf.expose_provenance().wrapping_add_signed(below), (above - below).unsigned_abs())
}

/// The memory of an object that is exactly a `bytes`. It neither moves nor changes while the object lives. `None` for
/// any other object.
pub(super) fn bytes_memory(object: &Bound<'_, PyAny>) -> Option<Segment> {
    // A failing `cast` would make an error value, at the price of two calls.
    if !object.is_exact_instance_of::<PyBytes>() {
        return None;
    }
    // SAFETY: `is_exact_instance_of` said that it is a bytes object; the call returns the address of its storage.
    let start = unsafe { ffi::PyBytes_AsString(object.as_ptr()) };
    // SAFETY: `is_exact_instance_of` said that it is a bytes object.
    let len = unsafe { ffi::PyBytes_Size(object.as_ptr()) };
    Some(Segment::new(start.expose_provenance(), len.unsigned_abs()))
}

/// Requests a buffer, whose record it writes to `view` in place: moving a record right after it was written costs more
/// than the whole call. `false` if the exporter refuses; then an exception is set.
#[inline]
pub(super) fn request(object: &Bound<'_, PyAny>, flags: i32, view: &mut ffi::Py_buffer) -> bool {
    // SAFETY: a `Bound` proves a live object and an attached thread; `view` is a valid record, which the callers give
    // fresh or released, so no export is lost.
    unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view, flags) == 0 }
}

pub(super) fn release(view: &mut ffi::Py_buffer) {
    // SAFETY: `view` was filled by `request`, or its `obj` is null, as in a new or released record, for which the call
    // does nothing. This thread is attached: `Exports::drop` attaches, and the other callers hold a `Bound` or are
    // called by the interpreter.
    unsafe { ffi::PyBuffer_Release(view) };
}

/// Clears the pointers of a record into itself, so that it may be moved. An exporter of one dimension may point `shape`
/// to the record's own `len` and `strides` to its own `itemsize`; nothing is lost with them.
#[inline]
pub(super) fn keep_out_of_itself(view: &mut ffi::Py_buffer) {
    if view.shape == &raw mut view.len {
        view.shape = ptr::null_mut();
    }
    if view.strides == &raw mut view.itemsize {
        view.strides = ptr::null_mut();
    }
}

/// Requests a C-contiguous buffer whose elements are not Python objects, and returns how its memory may fail. `None`
/// leaves an exception set, which `explain` in `refusal.rs` makes a better one of.
///
/// The object's class tells whether the elements may be objects. Only then is the format requested, which takes as long
/// as a small copy.
#[inline(always)]
#[allow(clippy::inline_always)] // once per call, in each function that the interpreter calls
pub(super) fn fill(object: &Bound<'_, PyAny>, access: Access, view: &mut ffi::Py_buffer) -> Option<Backing> {
    let writable = if access == Access::Write { ffi::PyBUF_WRITABLE } else { 0 };
    let is_bytearray = object.is_exact_instance_of::<PyByteArray>();
    let Nature { backing, may_hold_objects } = if is_bytearray { Nature::HEAP } else { Nature::of(object) };
    if !may_hold_objects {
        return request(object, writable, view).then_some(backing);
    }
    // Exporters give a format only together with a shape.
    if !request(object, writable | ffi::PyBUF_ND | ffi::PyBUF_FORMAT, view) {
        return None;
    }
    keep_out_of_itself(view);
    if has_objects(view) {
        release(view);
        exception::<PyTypeError>(OBJECTS).restore(object.py());
        return None;
    }
    Some(backing)
}

pub(super) const OBJECTS: &str =
    "an array of Python objects is not memory to copy: its bytes are references, which are counted";

/// Whether the elements are or contain Python objects, which the format shows by an `O`.
fn has_objects(view: &ffi::Py_buffer) -> bool {
    codes(view).any(|code| code == b'O')
}

/// The characters of a record's format without the names of fields, which it encloses in colons.
pub(super) fn codes(view: &ffi::Py_buffer) -> impl Iterator<Item = u8> {
    let (mut at, mut in_name) = (view.format.cast_const(), false);
    std::iter::from_fn(move || {
        if at.is_null() {
            return None;
        }
        // SAFETY: `format` is a null-terminated string that the exporter keeps until the record is released, and `at`
        // is not past its terminator, at which the iterator ends.
        let code = unsafe { at.read() }.cast_unsigned();
        if code == 0 {
            return None;
        }
        // SAFETY: the byte at `at` is not the terminator, so another byte follows.
        at = unsafe { at.add(1) };
        in_name ^= code == b':';
        Some(if in_name { b':' } else { code })
    })
}
