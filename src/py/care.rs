//! How the memory of a Python object may fail.

use crate::memory::{Backing, Segment};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyType, PyWeakrefReference};
use std::cell::Cell;

/// Views of views that are looked through.
const MOST_VIEWS: usize = 4;

/// How an exporter's memory may fail. Only hardware can take away the interpreter's and numpy's own allocations are, seen through however many views.
pub(super) fn care_of(object: &Bound<'_, PyAny>) -> Backing {
    if object.is_exact_instance_of::<PyByteArray>() || object.is_exact_instance_of::<PyBytes>() {
        return Backing::Heap;
    }
    let mut below = None;
    for _ in 0..MOST_VIEWS {
        let view = below.as_ref().unwrap_or(object);
        let next = if view.is_exact_instance_of::<PyMemoryView>() {
            view.getattr(intern!(object.py(), "obj"))
        } else if NDARRAY.is_that_of(view) {
            view.getattr(intern!(object.py(), "base"))
        } else {
            return if ARRAY.is_that_of(view) { Backing::Heap } else { Backing::Mapping };
        };
        match next {
            Ok(next) if next.is_exact_instance_of::<PyByteArray>() || next.is_exact_instance_of::<PyBytes>() => {
                return Backing::Heap;
            }
            // Memory of numpy's own. (A memoryview of nothing is over somebody's raw memory.)
            Ok(next) if next.is_none() && !view.is_exact_instance_of::<PyMemoryView>() => return Backing::Heap,
            Ok(next) => below = Some(next),
            Err(_) => return Backing::Mapping,
        }
    }
    Backing::Mapping
}

/// A class of a module that is not imported for the sake of asking for it.
struct Class {
    module: &'static str,
    name: &'static str,
    /// Where it was met.
    met: PyOnceLock<Py<PyType>>,
}

static NDARRAY: Class = Class { module: "numpy", name: "ndarray", met: PyOnceLock::new() };
static ARRAY: Class = Class { module: "array", name: "array", met: PyOnceLock::new() };

impl Class {
    /// Whether the object's type is exactly this.
    fn is_that_of(&self, object: &Bound<'_, PyAny>) -> bool {
        let kind = object.get_type();
        if let Some(met) = self.met.get(object.py()) {
            return kind.is(met);
        }
        let is_it =
            kind.name().is_ok_and(|name| name == self.name) && kind.module().is_ok_and(|name| name == self.module);
        if is_it {
            let _ = self.met.set(object.py(), kind.unbind());
        }
        is_it
    }
}

/// An argument that was met before: where it and its memory are, a weak reference that tells whether it is still the object there, and
/// what was found.
#[derive(Clone, Copy)]
struct Known {
    object: usize,
    memory: usize,
    reference: *mut ffi::PyObject,
    care: Backing,
}

const ARGUMENTS: usize = 8;
const NOTHING: Known = Known { object: 0, memory: 0, reference: std::ptr::null_mut(), care: Backing::Mapping };
/// Stands where an object turned out to take no weak references.
const REFUSED: *mut ffi::PyObject = std::ptr::without_provenance_mut(1);

thread_local! {
    static KNOWN: [Cell<Known>; ARGUMENTS] = const { [const { Cell::new(NOTHING) }; ARGUMENTS] };
    static REFERENCES: References = const { References([const { Cell::new(None) }; ARGUMENTS]) };
}

/// What the pointers in `KNOWN` point to.
struct References([Cell<Option<Py<PyWeakrefReference>>>; ARGUMENTS]);

impl Drop for References {
    fn drop(&mut self) {
        KNOWN.with(|known| known.iter().for_each(|known| known.set(NOTHING)));
    }
}

/// [`care_of`], remembered for a few arguments: looking through one costs as much as a small copy.
#[inline]
pub(super) fn care_of_argument(object: &Bound<'_, PyAny>, seg: Segment) -> Backing {
    if object.is_exact_instance_of::<PyByteArray>() {
        return Backing::Heap;
    }
    let addr = object.as_ptr().addr();
    // Objects of one size lie evenly spaced.
    let place = (addr >> 4 ^ addr >> 7 ^ addr >> 10) % ARGUMENTS;
    let known = KNOWN.with(|known| known[place].get());
    let is_known = (known.object, known.memory) == (addr, seg.addr);
    if is_known && known.reference.addr() > REFUSED.addr() {
        // SAFETY: attached, and it is a weak reference that `REFERENCES` holds; what it refers to is only compared, not kept.
        if unsafe { ffi::PyWeakref_GetObject(known.reference) } == object.as_ptr() {
            return known.care;
        }
    } else if is_known && known.reference == REFUSED {
        return care_of(object);
    }
    look_through(object, place, seg, is_known && known.reference.is_null())
}

/// A reference is made to what comes a second time: many arguments never do.
#[cold]
fn look_through(object: &Bound<'_, PyAny>, place: usize, seg: Segment, again: bool) -> Backing {
    let care = care_of(object);
    let reference = again.then(|| PyWeakrefReference::new(object).ok());
    let pointer = match &reference {
        None => std::ptr::null_mut(),
        Some(None) => REFUSED,
        Some(Some(reference)) => reference.as_ptr(),
    };
    let known = Known { object: object.as_ptr().addr(), memory: seg.addr, reference: pointer, care };
    let before = REFERENCES.try_with(|all| {
        KNOWN.with(|all| all[place].set(known));
        all.0[place].replace(reference.flatten().map(Bound::unbind))
    });
    drop(before);
    care
}
