//! `import_iovec` and its family, and the array they validate.

use super::buffer::{Access, Call, Named, Owners};
use super::collect::{Collected, SegmentList};
use super::iter::IovIter;
use super::values::{Lengths, direction, optional_size, size_or, to_user_range};
use crate::abi::{Direction, UIO_FASTIOV, UIO_MAXIOV};
use crate::error::Error;
use crate::import::{self, Imported, Layout, Source};
use crate::memory::{Memories, Memory, Segment};
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PySlice};
use std::sync::Arc;

/// The validated, truncated copy of a user vector: a sequence of `UserRange`. It shares the array with the iterator over it and keeps the
/// buffers it names exported.
#[pyclass(module = "iovec_rs", name = "IovecArray", frozen, sequence)]
pub(super) struct IovecArray {
    pub(super) memories: Memories,
    pub(super) owners: Arc<Owners>,
    pub(super) readonly: Option<usize>,
}

#[pymethods]
impl IovecArray {
    fn __len__(&self) -> usize {
        self.memories.segs().len()
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = index.py();
        let segs = self.memories.segs();
        if let Ok(slice) = index.cast::<PySlice>() {
            let indices = slice.indices(segs.len().cast_signed())?;
            let at = |n: usize| segs[(indices.start + n.cast_signed() * indices.step).cast_unsigned()];
            let items: PyResult<Vec<_>> = (0..indices.slicelength).map(|n| to_user_range(py, at(n))).collect();
            return Ok(PyList::new(py, items?)?.into_any());
        }
        let index: isize = index.extract()?;
        let at = if index < 0 { index + segs.len().cast_signed() } else { index };
        match usize::try_from(at).ok().and_then(|at| segs.get(at)) {
            Some(seg) => to_user_range(py, *seg),
            None => Err(PyIndexError::new_err(format!("index {index} is out of range of {} segments", segs.len()))),
        }
    }

    /// How often a range occurs.
    fn count(&self, value: &Bound<'_, PyAny>) -> usize {
        let matches = |seg: &Segment| value.extract::<(usize, usize)>().is_ok_and(|v| v == (seg.addr, seg.len));
        self.memories.segs().iter().filter(|seg| matches(seg)).count()
    }

    /// Where a range occurs first.
    fn index(&self, value: &Bound<'_, PyAny>) -> PyResult<usize> {
        let wanted = value.extract::<(usize, usize)>().ok();
        let found = self.memories.segs().iter().position(|seg| wanted == Some((seg.addr, seg.len)));
        found.ok_or_else(|| pyo3::exceptions::PyValueError::new_err(format!("{value} is not in the array")))
    }

    fn __contains__(&self, value: &Bound<'_, PyAny>) -> bool {
        self.count(value) != 0
    }

    fn __repr__(&self) -> String {
        format!("<IovecArray of {} segments>", self.memories.segs().len())
    }
}

/// A user vector in one of its three forms, with what has to live as long as what is built from it.
struct Uvector {
    form: Form,
    nr_segs: usize,
}

enum Form {
    Objects(SegmentList),
    Packed(#[allow(dead_code)] Call, Memory),
    Address(usize),
}

impl Uvector {
    fn new(
        direction: Direction,
        object: &Bound<'_, PyAny>,
        nr_segs: Option<&Bound<'_, PyAny>>,
        layout: Layout,
    ) -> PyResult<Self> {
        let nr_segs = optional_size("nr_segs", nr_segs)?;
        if object.is_instance_of::<PyInt>() {
            let nr_segs = nr_segs
                .ok_or_else(|| PyTypeError::new_err("nr_segs: needed when the vector is given by its address"))?;
            return Ok(Self { form: Form::Address(super::values::size("uvector", object)?), nr_segs });
        }
        // SAFETY: only looks at the type.
        if unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) } != 0 {
            return Self::packed(object, nr_segs, layout);
        }
        Self::objects(direction, object, nr_segs)
    }

    fn packed(object: &Bound<'_, PyAny>, nr_segs: Option<usize>, layout: Layout) -> PyResult<Self> {
        let mut call = Call::new();
        let array = call.acquire(object, Access::Read, Named::Argument("uvector"))?;
        let (nbytes, size) = (array.len(), layout.size());
        let nr_segs = match nr_segs {
            Some(nr_segs) => nr_segs,
            None if nbytes % size == 0 => nbytes / size,
            None => {
                let expected = format!("a multiple of {size}, the size of an element");
                return Err(Error::invalid("uvector", format!("{nbytes} bytes"), expected).into());
            }
        };
        if (1..=UIO_MAXIOV).contains(&nr_segs) && nr_segs * size > nbytes {
            let expected = format!("at most {}, as many as the array has", nbytes / size);
            return Err(Error::invalid("nr_segs", nr_segs, expected).into());
        }
        Ok(Self { form: Form::Packed(call, array), nr_segs })
    }

    fn objects(direction: Direction, object: &Bound<'_, PyAny>, nr_segs: Option<usize>) -> PyResult<Self> {
        let wanted = nr_segs.unwrap_or(usize::MAX);
        let capacity = object.len().unwrap_or(0).min(wanted).min(UIO_MAXIOV);
        let mut collected = Collected::new(direction, capacity);
        if wanted == 0 || (nr_segs.is_some() && wanted > UIO_MAXIOV) {
            return Ok(Self { form: Form::Objects(collected.finish()), nr_segs: wanted });
        }
        for item in object.try_iter()? {
            if collected.segs.len() == UIO_MAXIOV {
                // One too many, however many more there are.
                return Ok(Self { form: Form::Objects(collected.finish()), nr_segs: UIO_MAXIOV + 1 });
            }
            collected.add(&item?, Some(Lengths::Signed))?;
            if collected.segs.len() == wanted {
                break;
            }
        }
        let got = collected.segs.len();
        if nr_segs.is_some() && got < wanted {
            return Err(Error::invalid("nr_segs", wanted, format!("at most {got}, as many as the vector has")).into());
        }
        Ok(Self { form: Form::Objects(collected.finish()), nr_segs: got })
    }

    fn source(&self) -> Source<'_> {
        match &self.form {
            Form::Objects(held) => Source::ranges(&held.memories),
            // SAFETY: the program named the ranges itself, as with a `UserRange`.
            Form::Packed(_, array) => unsafe { Source::packed(*array) },
            // SAFETY: as with a packed array in a buffer.
            Form::Address(addr) => unsafe { Source::address(*addr) },
        }
    }

    /// What lives on: the owners and the first read-only segment.
    fn into_parts(self) -> (Arc<Owners>, Option<usize>) {
        match self.form {
            Form::Objects(held) => (held.owners, held.readonly),
            Form::Packed(..) | Form::Address(_) => (Arc::default(), None),
        }
    }
}

fn layout(compat: bool) -> Layout {
    if compat { Layout::Compat } else { Layout::Native }
}

/// Validates a user vector and makes the iterator over it (`import_iovec`). Returns the array and the iterator.
///
/// The vector is an iterable of buffers and `UserRange`s, a packed array of `struct iovec` in a buffer, or that array's address. The array
/// is `None` when `nr_segs <= fast_segs`. One segment makes a UBUF. OSError in the kernel's order of checks: EINVAL (more than 1024
/// segments, a negative length), EFAULT (an unreadable array, a range outside user space), ENOMEM.
#[pyfunction]
#[pyo3(signature = (r#type, uvector, nr_segs=None, fast_segs=None, *, compat=false))]
pub(super) fn import_iovec(
    r#type: &Bound<'_, PyAny>,
    uvector: &Bound<'_, PyAny>,
    nr_segs: Option<&Bound<'_, PyAny>>,
    fast_segs: Option<&Bound<'_, PyAny>>,
    compat: bool,
) -> PyResult<(Option<IovecArray>, IovIter)> {
    let direction = direction("type", r#type)?;
    let fast_segs = size_or("fast_segs", fast_segs, UIO_FASTIOV)?;
    let layout = layout(compat);
    let uvector = Uvector::new(direction, uvector, nr_segs, layout)?;
    let Imported { iter, array } =
        import::import_iovec(direction, uvector.source(), uvector.nr_segs, fast_segs, layout)?;
    let (owners, readonly) = uvector.into_parts();
    let array = array.map(|memories| IovecArray { memories, owners: Arc::clone(&owners), readonly });
    Ok((array, IovIter::over(iter, owners, readonly)))
}

/// Reads a user vector and checks its lengths (`iovec_from_user`): no ranges, no truncation. Always an array.
#[pyfunction]
#[pyo3(signature = (uvector, nr_segs=None, fast_segs=None, *, compat=false))]
pub(super) fn iovec_from_user(
    uvector: &Bound<'_, PyAny>,
    nr_segs: Option<&Bound<'_, PyAny>>,
    fast_segs: Option<&Bound<'_, PyAny>>,
    compat: bool,
) -> PyResult<IovecArray> {
    size_or("fast_segs", fast_segs, UIO_FASTIOV)?;
    let layout = layout(compat);
    let uvector = Uvector::new(Direction::Source, uvector, nr_segs, layout)?;
    let memories = import::iovec_from_user(uvector.source(), uvector.nr_segs, layout)?;
    let (owners, readonly) = uvector.into_parts();
    Ok(IovecArray { memories, owners, readonly })
}

/// One range of user memory, cut to `MAX_RW_COUNT` and then checked (`import_ubuf`).
#[pyfunction]
pub(super) fn import_ubuf(r#type: &Bound<'_, PyAny>, buffer: &Bound<'_, PyAny>) -> PyResult<IovIter> {
    let direction = direction("type", r#type)?;
    let mut collected = Collected::new(direction, 1);
    collected.add(buffer, Some(Lengths::Cut))?;
    let held = collected.finish();
    let iter = import::import_ubuf(direction, held.only()?)?;
    Ok(IovIter::over(iter, held.owners, held.readonly))
}

/// The same by its older name (`import_single_range`).
#[pyfunction]
pub(super) fn import_single_range(r#type: &Bound<'_, PyAny>, buffer: &Bound<'_, PyAny>) -> PyResult<IovIter> {
    import_ubuf(r#type, buffer)
}
