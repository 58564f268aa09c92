//! `Py_buffer` records: filled, read and handed back.

use super::Access;
use crate::memory::{Backing, Segment};
use crate::py::backing::Nature;
use crate::py::exception::exception;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use std::ptr;

/// The memory of a C-contiguous buffer. An empty exporter's null start with length 0 stays an empty range.
pub(super) fn memory_of(view: &ffi::Py_buffer) -> Segment {
    Segment::new(view.buf.expose_provenance(), view.len.unsigned_abs())
}

/// All memory between the first byte and the last of a buffer that was requested with its strides. To be called before
/// the record is moved.
pub(super) fn hull_of(view: &ffi::Py_buffer) -> Segment {
    let (mut below, mut above) = (0, view.itemsize);
    let dimensions = if view.shape.is_null() || view.strides.is_null() { 0 } else { view.ndim.max(0) };
    if view.len == 0 || dimensions == 0 {
        return memory_of(view);
    }
    for dimension in 0..dimensions as usize {
        // SAFETY: the exporter, asked for strides, gave as many lengths as dimensions.
        let length = unsafe { view.shape.wrapping_add(dimension).read() };
        // SAFETY: the exporter, asked for strides, gave as many of them as dimensions.
        let stride = unsafe { view.strides.wrapping_add(dimension).read() };
        let reach = stride.saturating_mul(length - 1);
        below += reach.min(0);
        above += reach.max(0);
    }
    Segment::new(view.buf.expose_provenance().wrapping_add_signed(below), (above - below).unsigned_abs())
}

/// The memory of an exact `bytes`, which is its for life.
pub(super) fn bytes_memory(object: &Bound<'_, PyAny>) -> Option<Segment> {
    // Not a cast: the error that a failing one makes takes two calls.
    if !object.is_exact_instance_of::<PyBytes>() {
        return None;
    }
    // SAFETY: `is_exact_instance_of` said that it is a bytes object; the call returns the address of its storage.
    let start = unsafe { ffi::PyBytes_AsString(object.as_ptr()) };
    // SAFETY: `is_exact_instance_of` said that it is a bytes object.
    let len = unsafe { ffi::PyBytes_Size(object.as_ptr()) };
    Some(Segment::new(start.expose_provenance(), len.unsigned_abs()))
}

/// Fills `view` in place: moving a record that was just written costs more than the whole call. `false` leaves an
/// exception set.
#[inline]
pub(super) fn request(object: &Bound<'_, PyAny>, flags: i32, view: &mut ffi::Py_buffer) -> bool {
    // SAFETY: a `Bound` is a live object of an attached thread; `view` is a record that we may overwrite: it holds no
    // export yet.
    unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view, flags) == 0 }
}

pub(super) fn release(view: &mut ffi::Py_buffer) {
    // SAFETY: `view` was filled by `request`, or names no exporter, as a new record and a released one do: then the
    // call does nothing. `Exports::drop` attaches for it, the other callers hold a `Bound`, or are called by the
    // interpreter.
    unsafe { ffi::PyBuffer_Release(view) };
}

/// Clears the pointers of a record into itself, so that it may be moved. They are a shape and strides whose values its
/// length and item size repeat.
#[inline]
pub(super) fn keep_out_of_itself(view: &mut ffi::Py_buffer) {
    if view.shape == &raw mut view.len {
        view.shape = ptr::null_mut();
    }
    if view.strides == &raw mut view.itemsize {
        view.strides = ptr::null_mut();
    }
}

/// A C-contiguous buffer of plain bytes, and how its memory may fail. `None` leaves an exception set, for [`explain`]
/// to explain.
///
/// The class is asked first, since asking an exporter for its format takes as long as a small copy.
#[inline]
pub(super) fn fill(object: &Bound<'_, PyAny>, access: Access, view: &mut ffi::Py_buffer) -> Option<Backing> {
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
        exception::<PyTypeError>(OBJECTS).restore(object.py());
        return None;
    }
    Some(backing)
}

pub(super) const OBJECTS: &str =
    "an array of Python objects is not memory to copy: its bytes are references, which are counted";

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
