//! Decides by an object's class how its memory may fail, and whether that may contain Python objects.

use super::detach::attached;
use super::names::names;
use crate::memory::Backing;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString, PyType};
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The most views of views that are followed to the object that owns the memory.
const MOST_VIEWS: usize = 4;

/// What the class of an object, and the classes of the objects it is a view of, say about its memory.
#[derive(Clone, Copy)]
pub(super) struct Nature {
    /// How it may fail. Memory that the interpreter, `array` or numpy allocates is heap memory, also through a few
    /// views. Memory of any other class may be a mapping whose file can be truncated, and is treated as one.
    pub(super) backing: Backing,
    /// Whether it may contain references to Python objects. Then the format of the buffer has to be checked.
    pub(super) may_hold_objects: bool,
}

impl Nature {
    /// The memory of `bytes`, `bytearray` and `array.array`.
    pub(super) const HEAP: Self = Self { backing: Backing::Heap, may_hold_objects: false };
    /// The memory of `mmap`.
    const MAPPING: Self = Self { backing: Backing::Mapping, may_hold_objects: false };
    const NDARRAY: Self = Self { backing: Backing::Heap, may_hold_objects: true };
    const UNKNOWN: Self = Self { backing: Backing::Mapping, may_hold_objects: true };

    /// The nature of an object's memory. Follows a few views to the object that owns the memory.
    #[inline]
    pub(super) fn of(object: &Bound<'_, PyAny>) -> Self {
        let mut below = None;
        // The outermost array decides what the elements are.
        let mut may_hold_objects = false;
        for _ in 0..MOST_VIEWS {
            let view = below.as_ref().unwrap_or(object);
            let found = match Class::of(view) {
                Class::Memory(nature) => nature,
                Class::View(attribute) => match attribute.get(view) {
                    // A memoryview without an object is over raw memory of unknown origin. An array without a base owns
                    // its memory.
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
    /// Its objects own their memory, which is of this nature.
    Memory(Nature),
    /// Its objects are views of the object in this attribute.
    View(&'static Attribute),
}

/// An attribute of a class written in C: its descriptor, looked up once, since a lookup by name takes three times as
/// long. The attributes of such a class cannot be replaced.
struct Attribute(PyOnceLock<(Py<PyAny>, ffi::descrgetfunc)>);

static MEMORYVIEW_OBJ: Attribute = Attribute(PyOnceLock::new());
static NDARRAY_BASE: Attribute = Attribute(PyOnceLock::new());

/// Looks up the attribute of memoryviews when the module is imported, for the reason that [`super::names`] gives.
pub(super) fn init(py: Python<'_>) -> PyResult<()> {
    MEMORYVIEW_OBJ.look_up(&py.get_type::<PyMemoryView>(), &PyString::new(py, "obj")).map(drop)
}

impl Attribute {
    /// Looks the attribute up. `None` if the class is written in Python, which could replace it.
    fn look_up(
        &'static self,
        class: &Bound<'_, PyType>,
        name: &Bound<'_, PyString>,
    ) -> PyResult<Option<&'static Self>> {
        // SAFETY: `class` is a live type object; the call reads one of its fields.
        if unsafe { ffi::PyType_GetFlags(class.as_type_ptr()) } & ffi::Py_TPFLAGS_HEAPTYPE != 0 {
            return Ok(None);
        }
        let descriptor = class.getattr(name)?;
        // SAFETY: the argument is the class of `descriptor`, a live object; the call reads one of its slots.
        let slot = unsafe { ffi::PyType_GetSlot(descriptor.get_type_ptr(), ffi::Py_tp_descr_get as c_int) };
        // SAFETY: the slot `Py_tp_descr_get` is null or a function of this type.
        let get = unsafe { std::mem::transmute::<*mut std::ffi::c_void, Option<ffi::descrgetfunc>>(slot) };
        let Some(get) = get else { return Ok(None) };
        // If another interpreter has set it already, that value stays; both are the same.
        let _ = self.0.set(class.py(), (descriptor.unbind(), get));
        Ok(Some(self))
    }

    /// The value of the attribute in an object.
    #[inline]
    fn get<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (descriptor, get) = self.0.get(object.py()).expect("looked up before it is used");
        // SAFETY: the function is the `__get__` of the descriptor's class; all arguments are live objects, and it
        // raises if the object is not of the class that the descriptor belongs to.
        let value = unsafe { get(descriptor.as_ptr(), object.as_ptr(), object.get_type_ptr().cast()) };
        // SAFETY: the call returned a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(object.py(), value) }
    }
}

/// The classes `numpy.ndarray`, `array.array` and `mmap.mmap`, from the first object of theirs on. Their modules are
/// not imported just to compare classes.
static NDARRAY: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static ARRAY: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static MMAP: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
/// A cache of a few classes that are none of these. If one is freed, another class may get its address; that is then
/// treated as unknown, which is safe.
static UNKNOWN: [AtomicPtr<ffi::PyTypeObject>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];

impl Class {
    const MEMORYVIEW: Self = Self::View(&MEMORYVIEW_OBJ);
    const NDARRAY: Self = Self::View(&NDARRAY_BASE);

    /// What an object's class says. Only the exact class counts, since a subclass may export any memory.
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

    /// Identifies a class that is in no cache.
    #[cold]
    fn meet(object: &Bound<'_, PyAny>) -> Self {
        let (py, class) = (object.py(), object.get_type());
        let names = names(py);
        let is = |module: &Py<PyString>, name: &Py<PyString>| {
            let modules = py.import(&names.sys).and_then(|sys| sys.getattr(&names.modules));
            let found = modules.and_then(|modules| modules.get_item(module)).and_then(|module| module.getattr(name));
            found.is_ok_and(|found| found.is(&class))
        };
        let has_base = || matches!(NDARRAY_BASE.look_up(&class, names.base.bind(py)), Ok(Some(_)));
        for (place, module, name, answer) in [
            (&NDARRAY, &names.numpy, &names.ndarray, Self::NDARRAY),
            (&ARRAY, &names.array, &names.array, Self::Memory(Nature::HEAP)),
            (&MMAP, &names.mmap, &names.mmap, Self::Memory(Nature::MAPPING)),
        ] {
            if is(module, name) && (!ptr::eq(place, &raw const NDARRAY) || has_base()) {
                // `into_ptr` keeps the class alive, so that its address stays its own.
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
    // Class objects are at least a few hundred bytes long, so the low bits of their addresses say little.
    (class.addr() >> 4 ^ class.addr() >> 10) % UNKNOWN.len()
}
