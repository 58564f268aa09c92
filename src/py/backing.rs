//! How the memory behind a Python object may fail, and whether it may hold objects, both by the object's class.

use super::detach::attached;
use crate::memory::Backing;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyType};
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Views of views that are looked through.
const MOST_VIEWS: usize = 4;

/// What an object's class, and the classes of what it is a view of, tell about its memory.
#[derive(Clone, Copy)]
pub(super) struct Nature {
    /// How it may fail: what the interpreter, `array` and numpy allocate themselves is heap memory, also seen through a
    /// few views. Of all else nothing is known, so it is taken for a mapping of something that can go away.
    pub(super) backing: Backing,
    /// Whether it may hold references to Python objects: then only its format tells.
    pub(super) may_hold_objects: bool,
}

impl Nature {
    /// The memory of `bytes`, `bytearray` and `array.array`.
    pub(super) const HEAP: Self = Self { backing: Backing::Heap, may_hold_objects: false };
    /// The memory of `mmap`.
    const MAPPING: Self = Self { backing: Backing::Mapping, may_hold_objects: false };
    const NDARRAY: Self = Self { backing: Backing::Heap, may_hold_objects: true };
    const UNKNOWN: Self = Self { backing: Backing::Mapping, may_hold_objects: true };

    /// Looks through a few views.
    #[inline]
    pub(super) fn of(object: &Bound<'_, PyAny>) -> Self {
        let mut below = None;
        // The elements are what the outermost array says they are.
        let mut may_hold_objects = false;
        for _ in 0..MOST_VIEWS {
            let view = below.as_ref().unwrap_or(object);
            let found = match Class::of(view) {
                Class::Memory(nature) => nature,
                Class::View(attribute) => match attribute.get(view) {
                    // Memory of numpy's own; but a memoryview of nothing is over somebody's raw memory.
                    Ok(next) if next.is_none() && view.is_exact_instance_of::<PyMemoryView>() => Self::UNKNOWN,
                    Ok(next) if next.is_none() => Self::NDARRAY,
                    Ok(next) => {
                        may_hold_objects |= !view.is_exact_instance_of::<PyMemoryView>();
                        below = Some(next);
                        continue;
                    }
                    Err(error) => {
                        attached(|| drop(error));
                        Self::UNKNOWN
                    }
                },
            };
            return Self { may_hold_objects: found.may_hold_objects | may_hold_objects, ..found };
        }
        Self::UNKNOWN
    }
}

/// What a class says about the memory of its objects.
#[derive(Clone, Copy)]
enum Class {
    /// All there is to know.
    Memory(Nature),
    /// This attribute has the memory; of an array without one it is its own.
    View(&'static Attribute),
}

/// An attribute that a class written in C computes, looked up once: by name it takes three times as long. Nobody can
/// change what such a class has under a name.
struct Attribute(PyOnceLock<(Py<PyAny>, ffi::descrgetfunc)>);

static MEMORYVIEW_OBJ: Attribute = Attribute(PyOnceLock::new());
static NDARRAY_BASE: Attribute = Attribute(PyOnceLock::new());

/// Looks up what is looked at in every memoryview. Once, when the module is imported, as [`super::names`] says.
pub(super) fn init(py: Python<'_>) -> PyResult<()> {
    MEMORYVIEW_OBJ.look_up(&py.get_type::<PyMemoryView>(), "obj").map(drop)
}

impl Attribute {
    /// `None` for a class that could change it.
    fn look_up(&'static self, class: &Bound<'_, PyType>, name: &str) -> PyResult<Option<&'static Self>> {
        // SAFETY: a class that `class` keeps.
        if unsafe { ffi::PyType_GetFlags(class.as_type_ptr()) } & ffi::Py_TPFLAGS_HEAPTYPE != 0 {
            return Ok(None);
        }
        let descriptor = class.getattr(name)?;
        // SAFETY: the class of a live object; the call reads one of its fields.
        let slot = unsafe { ffi::PyType_GetSlot(descriptor.get_type_ptr(), ffi::Py_tp_descr_get as c_int) };
        // SAFETY: the slot holds null or a function of this type.
        let get = unsafe { std::mem::transmute::<*mut std::ffi::c_void, Option<ffi::descrgetfunc>>(slot) };
        let Some(get) = get else { return Ok(None) };
        // A second interpreter's is the first's, which stays.
        let _ = self.0.set(class.py(), (descriptor.unbind(), get));
        Ok(Some(self))
    }

    /// What `getattr` of an object of the class returns.
    #[inline]
    fn get<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (descriptor, get) = self.0.get(object.py()).expect("looked up before it is used");
        // SAFETY: the function is the `__get__` of the descriptor's class, and refuses an object of another class than
        // the descriptor's.
        let value = unsafe { get(descriptor.as_ptr(), object.as_ptr(), object.get_type_ptr().cast()) };
        // SAFETY: a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(object.py(), value) }
    }
}

/// `numpy.ndarray`, `array.array` and `mmap.mmap`, once an object of theirs was met: no module is imported for the sake
/// of asking.
static NDARRAY: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static ARRAY: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static MMAP: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
/// A few classes that are none of these. One that is freed may leave its address to another, which is then unknown at
/// worst.
static UNKNOWN: [AtomicPtr<ffi::PyTypeObject>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];

impl Class {
    const MEMORYVIEW: Self = Self::View(&MEMORYVIEW_OBJ);
    const NDARRAY: Self = Self::View(&NDARRAY_BASE);

    /// The class itself decides, not one that it derives from: a subclass may export what it likes.
    #[inline]
    fn of(object: &Bound<'_, PyAny>) -> Self {
        let class = object.get_type_ptr();
        if object.is_exact_instance_of::<PyMemoryView>() {
            Self::MEMORYVIEW
        } else if object.is_exact_instance_of::<PyByteArray>() || object.is_exact_instance_of::<PyBytes>() {
            Self::Memory(Nature::HEAP)
        } else if class == NDARRAY.load(Ordering::Relaxed) {
            Self::NDARRAY
        } else if class == ARRAY.load(Ordering::Relaxed) {
            Self::Memory(Nature::HEAP)
        } else if class == MMAP.load(Ordering::Relaxed) {
            Self::Memory(Nature::MAPPING)
        } else if UNKNOWN[unknown_place(class)].load(Ordering::Relaxed) == class {
            Self::Memory(Nature::UNKNOWN)
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
        let has_base = || matches!(NDARRAY_BASE.look_up(&class, "base"), Ok(Some(_)));
        for (place, module, name, answer) in [
            (&NDARRAY, "numpy", "ndarray", Self::NDARRAY),
            (&ARRAY, "array", "array", Self::Memory(Nature::HEAP)),
            (&MMAP, "mmap", "mmap", Self::Memory(Nature::MAPPING)),
        ] {
            if is(module, name) && (!ptr::eq(place, &raw const NDARRAY) || has_base()) {
                // The class stays alive, and with it the meaning of its address.
                place.store(class.into_ptr().cast(), Ordering::Relaxed);
                return answer;
            }
        }
        let class = class.as_type_ptr();
        UNKNOWN[unknown_place(class)].store(class, Ordering::Relaxed);
        Self::Memory(Nature::UNKNOWN)
    }
}

fn unknown_place(class: *mut ffi::PyTypeObject) -> usize {
    // Classes are a few hundred bytes or more apart.
    (class.addr() >> 4 ^ class.addr() >> 10) % UNKNOWN.len()
}
