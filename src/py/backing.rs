//! How the memory behind a Python object may fail, told by the object's class.

use super::fastcall::attached;
use super::names::names;
use crate::memory::Backing;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Views of views that are looked through.
const MOST_VIEWS: usize = 4;

/// How the memory of an exporter may fail: what the interpreter, `array` and numpy allocate themselves is heap memory, also seen
/// through a few views. Of all else nothing is known, so it is taken for a mapping of something that can go away.
#[inline]
pub(super) fn backing_of(object: &Bound<'_, PyAny>) -> Backing {
    if object.is_exact_instance_of::<PyByteArray>() { Backing::Heap } else { look_through(object) }
}

fn look_through(object: &Bound<'_, PyAny>) -> Backing {
    let py = object.py();
    let mut below = None;
    for _ in 0..MOST_VIEWS {
        let view = below.as_ref().unwrap_or(object);
        let next = match Class::of(view) {
            Class::Heap => return Backing::Heap,
            Class::Unknown => return Backing::Mapping,
            Class::MemoryView => view.getattr(names(py).obj.bind(py)),
            Class::Ndarray => view.getattr(names(py).base.bind(py)),
        };
        match next {
            // Memory of numpy's own; but a memoryview of nothing is over somebody's raw memory.
            Ok(next) if next.is_none() && !view.is_exact_instance_of::<PyMemoryView>() => return Backing::Heap,
            Ok(next) => below = Some(next),
            Err(error) => {
                attached(|| drop(error));
                return Backing::Mapping;
            }
        }
    }
    Backing::Mapping
}

/// What a class says about the memory of its objects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// They allocate it themselves.
    Heap,
    /// `obj` has it.
    MemoryView,
    /// `base` has it, or they allocate it themselves.
    Ndarray,
    Unknown,
}

/// `numpy.ndarray` and `array.array`, once an object of theirs was met: neither module is imported for the sake of asking.
static NDARRAY: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static ARRAY: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
/// A few classes that are neither. One that is freed may leave its address to another, which is then unknown at worst.
static UNKNOWN: [AtomicPtr<ffi::PyTypeObject>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];

impl Class {
    /// The class itself decides, not one that it derives from: a subclass may export what it likes.
    #[inline]
    fn of(object: &Bound<'_, PyAny>) -> Self {
        let class = object.get_type_ptr();
        if object.is_exact_instance_of::<PyMemoryView>() {
            Self::MemoryView
        } else if object.is_exact_instance_of::<PyByteArray>() || object.is_exact_instance_of::<PyBytes>() {
            Self::Heap
        } else if class == NDARRAY.load(Ordering::Relaxed) {
            Self::Ndarray
        } else if class == ARRAY.load(Ordering::Relaxed) {
            Self::Heap
        } else if UNKNOWN[unknown_place(class)].load(Ordering::Relaxed) == class {
            Self::Unknown
        } else {
            attached(|| Self::meet(object))
        }
    }

    /// Finds out about a class that was not met before.
    #[cold]
    fn meet(object: &Bound<'_, PyAny>) -> Self {
        let class = object.get_type();
        let is = |module: &str, name: &str| {
            let modules = object.py().import("sys").and_then(|sys| sys.getattr("modules"));
            let found = modules.and_then(|modules| modules.get_item(module)).and_then(|module| module.getattr(name));
            found.is_ok_and(|found| found.is(&class))
        };
        for (place, module, name, answer) in
            [(&NDARRAY, "numpy", "ndarray", Self::Ndarray), (&ARRAY, "array", "array", Self::Heap)]
        {
            if is(module, name) {
                // The class stays alive, and with it the meaning of its address.
                place.store(class.into_ptr().cast(), Ordering::Relaxed);
                return answer;
            }
        }
        let class = class.as_type_ptr();
        UNKNOWN[unknown_place(class)].store(class, Ordering::Relaxed);
        Self::Unknown
    }
}

fn unknown_place(class: *mut ffi::PyTypeObject) -> usize {
    // Classes are a few hundred bytes or more apart.
    (class.addr() >> 4 ^ class.addr() >> 10) % UNKNOWN.len()
}
