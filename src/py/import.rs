//! `import_iovec` and its family.

use super::array::IovecArray;
use super::buffer::{Access, ArgName, Call, Exports, is_buffer, require_pairs};
use super::collect::{SegmentList, SegmentListBuilder};
use super::exception::exception;
use super::iter::IovIter;
use super::values::{Lengths, direction, flag, iterate, optional_size, size_or};
use crate::abi::{Direction, UIO_FASTIOV, UIO_MAXIOV};
use crate::error::Error;
use crate::import::{self, Imported, Layout, Source};
use crate::memory::Memory;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyInt;

/// What a user vector may be, as an exception says it.
const EXPECTED: &str = "an iterable of buffers and UserRanges, a packed array or its address";

/// A user vector in one of its three forms, together with the exports that keep its memory.
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
                .ok_or_else(|| exception::<PyTypeError>("nr_segs: needed when the vector is given by its address"))?;
            return Ok(Self { form: Form::Address(super::values::size("uvector", object)?), nr_segs });
        }
        if is_buffer(object) {
            return Self::packed(object, nr_segs, layout);
        }
        Self::objects(direction, object, nr_segs)
    }

    fn packed(object: &Bound<'_, PyAny>, nr_segs: Option<usize>, layout: Layout) -> PyResult<Self> {
        let size = layout.size();
        require_pairs("uvector", size / 2, object)?;
        let mut call = Call::new();
        let array = call.acquire(object, Access::Read, ArgName::Argument("uvector"))?;
        let nbytes = array.len();
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
        let mut collected = SegmentListBuilder::new(direction);
        if wanted == 0 || (nr_segs.is_some() && wanted > UIO_MAXIOV) {
            return Ok(Self { form: Form::Objects(collected.finish()), nr_segs: wanted });
        }
        for item in iterate("uvector", EXPECTED, object)? {
            if collected.segs.len() == UIO_MAXIOV {
                // More than UIO_MAXIOV segments: the core refuses their number, so the rest need not be read.
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
            // SAFETY: whoever packs ranges into an array vouches for them, as the maker of a `UserRange` does;
            // `import::import_iovec` checks that they lie in user space.
            Form::Packed(_, array) => unsafe { Source::packed(*array) },
            // SAFETY: `Source::address` reads the array by a guarded copy, which survives any address. Whoever packs
            // ranges into it vouches for them, as the maker of a `UserRange` does.
            Form::Address(addr) => unsafe { Source::address(*addr) },
        }
    }

    /// The parts that the iterator and the array need: the exports, and the index of the first read-only segment.
    fn into_parts(self) -> (Exports, Option<usize>) {
        match self.form {
            Form::Objects(held) => (held.exports, held.readonly),
            Form::Packed(..) | Form::Address(_) => (Exports::default(), None),
        }
    }
}

fn layout(compat: Option<&Bound<'_, PyAny>>) -> PyResult<Layout> {
    Ok(if flag("compat", compat, false)? { Layout::Compat } else { Layout::Native })
}

/// Validates a user vector and makes an iterator over it (`import_iovec`). Returns the array and the iterator.
///
/// The vector is an iterable of buffers and `UserRange`s, a packed array of `struct iovec` in a buffer, or that array's
/// address. The array is `None` when `nr_segs <= fast_segs`. One segment makes a UBUF. OSError in the kernel's order of
/// checks: EINVAL (more than 1024 segments, a negative length), EFAULT (an unreadable array, a range outside user
/// space), ENOMEM.
#[pyfunction]
#[pyo3(
    signature = (r#type, uvector, nr_segs=None, fast_segs=None, *, compat=None),
    text_signature = "(type, uvector, nr_segs=None, fast_segs=None, *, compat=False)"
)]
pub(super) fn import_iovec<'py>(
    r#type: &Bound<'py, PyAny>,
    uvector: &Bound<'py, PyAny>,
    nr_segs: Option<&Bound<'py, PyAny>>,
    fast_segs: Option<&Bound<'py, PyAny>>,
    compat: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Option<Bound<'py, IovecArray>>, IovIter)> {
    let direction = direction("type", r#type)?;
    let fast_segs = size_or("fast_segs", fast_segs, UIO_FASTIOV)?;
    let layout = layout(compat)?;
    let uvector = Uvector::new(direction, uvector, nr_segs, layout)?;
    let Imported { iter, array } =
        import::import_iovec(direction, uvector.source(), uvector.nr_segs, fast_segs, layout)?;
    let (exports, readonly) = uvector.into_parts();
    let Some(memories) = array else { return Ok((None, IovIter::over(iter, exports, readonly))) };
    let array = Bound::new(r#type.py(), IovecArray(SegmentList { memories, exports, readonly }))?;
    let iter = IovIter::beside(iter, array.clone().into_any().unbind(), readonly);
    Ok((Some(array), iter))
}

/// Reads a user vector and checks its lengths (`iovec_from_user`). It neither checks ranges nor truncates. Returns an
/// array, also for one segment.
#[pyfunction]
#[pyo3(
    signature = (uvector, nr_segs=None, fast_segs=None, *, compat=None),
    text_signature = "(uvector, nr_segs=None, fast_segs=None, *, compat=False)"
)]
pub(super) fn iovec_from_user(
    uvector: &Bound<'_, PyAny>,
    nr_segs: Option<&Bound<'_, PyAny>>,
    fast_segs: Option<&Bound<'_, PyAny>>,
    compat: Option<&Bound<'_, PyAny>>,
) -> PyResult<IovecArray> {
    size_or("fast_segs", fast_segs, UIO_FASTIOV)?;
    let layout = layout(compat)?;
    let uvector = Uvector::new(Direction::Source, uvector, nr_segs, layout)?;
    let memories = import::iovec_from_user(uvector.source(), uvector.nr_segs, layout)?;
    let (exports, readonly) = uvector.into_parts();
    Ok(IovecArray(SegmentList { memories, exports, readonly }))
}

/// Makes an iterator over one range of user memory, which is truncated to `MAX_RW_COUNT` and then checked
/// (`import_ubuf`).
#[pyfunction]
pub(super) fn import_ubuf(r#type: &Bound<'_, PyAny>, buffer: &Bound<'_, PyAny>) -> PyResult<IovIter> {
    let direction = direction("type", r#type)?;
    let mut collected = SegmentListBuilder::new(direction);
    collected.add(buffer, Some(Lengths::Truncated))?;
    let held = collected.finish();
    let iter = import::import_ubuf(direction, held.only()?)?;
    Ok(IovIter::over(iter, held.exports, held.readonly))
}

/// The older name of `import_ubuf` (`import_single_range`).
#[pyfunction]
pub(super) fn import_single_range(r#type: &Bound<'_, PyAny>, buffer: &Bound<'_, PyAny>) -> PyResult<IovIter> {
    import_ubuf(r#type, buffer)
}
