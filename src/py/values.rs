//! Conversions of arguments: sizes, flags, directions, user ranges. Every exception names the argument; if that is a
//! number, also its value and its limits.

use super::exception::exception;
use super::names::names;
use crate::abi::Direction;
use crate::error::{Error, Excerpt};
use crate::memory::Segment;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::{PyBool, PyInt, PyIterator, PyString, PyTuple};
use pyo3::{PyClass, ffi};
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicPtr, Ordering};

/// How an exception names an argument: by its name, or by the index of a segment or buffer.
#[derive(Clone, Copy)]
pub(super) enum ArgName {
    Argument(&'static str),
    Segment(usize),
    Buffer(usize),
    Item(&'static str, usize),
}

impl Display for ArgName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(name) => f.write_str(name),
            Self::Segment(index) => write!(f, "segment {index}"),
            Self::Buffer(index) => write!(f, "buffers[{index}]"),
            Self::Item(argument, index) => write!(f, "{argument}[{index}]"),
        }
    }
}

/// The name of an object's type, for an exception, shortened if it is very long.
pub(super) fn type_name(value: &Bound<'_, PyAny>) -> String {
    let name = value.get_type().name();
    let name = name.as_ref().ok().and_then(|name| name.to_str().ok()).unwrap_or("an object");
    name.chars().take(Excerpt::LONGEST).collect()
}

/// The TypeError "`argument`: `expected` is expected, not …".
#[cold]
pub(super) fn wrong_type(argument: impl Display, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    exception::<PyTypeError>(format!("{argument}: {expected} is expected, not {}", type_name(value)))
}

/// A number as text for an exception, shortened if it is very long. One that is no int, of numpy for instance, is shown
/// as the int that its `__index__` returns.
#[cold]
pub(super) fn shown(value: &Bound<'_, PyAny>) -> String {
    const DIGITS: usize = 80;
    let number = value.call_method0(&names(value.py()).index);
    match number.as_ref().map(|number| number.cast_exact::<PyInt>()) {
        // The interpreter refuses to convert a number of thousands of digits.
        Ok(Ok(int)) => match int.str() {
            Ok(text) if text.len().is_ok_and(|digits| digits <= DIGITS) => text.to_string(),
            _ => "an int of many digits".to_owned(),
        },
        _ => format!("this {}", type_name(value)),
    }
}

/// A size or offset: an int in `0..2**64`. The exception names the argument.
pub(super) fn size(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    value.extract::<usize>().map_err(|error| no_size(argument, value, error))
}

#[cold]
fn no_size(argument: &'static str, value: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    not_an_int(argument, value)
        .or_else(|| {
            let is_overflow = error.is_instance_of::<PyOverflowError>(value.py());
            is_overflow.then(|| Error::invalid(argument, shown(value), "0 or more, less than 2**64").into())
        })
        .unwrap_or(error)
}

/// The TypeError for a value that is no int. `None` if it is one; then the exception that its `__index__` raised
/// stands.
fn not_an_int(argument: impl Display, value: &Bound<'_, PyAny>) -> Option<PyErr> {
    // SAFETY: a `Bound` proves a live object and an attached thread; the call reads the object's type only.
    let is_int = unsafe { ffi::PyIndex_Check(value.as_ptr()) } != 0;
    (!is_int).then(|| wrong_type(argument, "an int", value))
}

/// As [`size`], with a default for an argument that is missing or `None`.
pub(super) fn size_or(argument: &'static str, value: Option<&Bound<'_, PyAny>>, default: usize) -> PyResult<usize> {
    value.map_or(Ok(default), |value| size(argument, value))
}

/// As [`size`]; `None` for an argument that is missing or `None`.
pub(super) fn optional_size(argument: &'static str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    value.map(|value| size(argument, value)).transpose()
}

/// An int in `0..2**32`, 0 by default.
pub(super) fn word(argument: &'static str, value: Option<&Bound<'_, PyAny>>) -> PyResult<u32> {
    value.map_or(Ok(0), |value| narrow(argument, value, "0 or more, less than 2**32"))
}

/// The flags of a system call.
pub(super) fn flags(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    narrow("flags", value, "-2**31 or more, less than 2**31")
}

/// The flags of a system call, which must not be negative.
pub(super) fn unsigned_flags(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    narrow("flags", value, "0 or more, less than 2**32")
}

/// The id of a process.
pub(super) fn pid(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    narrow("pid", value, "-2**31 or more, less than 2**31")
}

/// An int that fits the type. The exception names the argument, the value and the limits.
pub(super) fn narrow<'a, 'py, T: FromPyObject<'a, 'py, Error = PyErr>>(
    argument: &'static str,
    value: &'a Bound<'py, PyAny>,
    expected: &'static str,
) -> PyResult<T> {
    value.extract::<T>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            return Error::invalid(argument, shown(value), expected).into();
        }
        not_an_int(argument, value).unwrap_or(error)
    })
}

/// Iterates over an argument. TypeError names the argument if it is not iterable, or if it is a str: nobody means its
/// characters, and an empty one would pass for an empty list. An exception of its own `__iter__` is raised unchanged.
pub(super) fn iterate<'py>(
    argument: impl Display,
    expected: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyIterator>> {
    if value.is_instance_of::<PyString>() {
        return Err(wrong_type(argument, expected, value));
    }
    value.try_iter().map_err(|error| {
        let names = names(value.py());
        let has = |method: &Py<PyString>| value.get_type().hasattr(method).unwrap_or(true);
        if has(&names.iter) || has(&names.getitem) { error } else { wrong_type(argument, expected, value) }
    })
}

/// The first `most` items of an iterable, or fewer. Nothing is allocated by its length hint, which may be wrong.
pub(super) fn few(items: Bound<'_, PyIterator>, most: usize) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let mut found = Vec::with_capacity(most);
    for item in items {
        found.push(item?);
        if found.len() == most {
            break;
        }
    }
    Ok(found)
}

/// An argument that must be an instance of a class of ours.
pub(super) fn instance<'a, T: PyClass<Frozen = True> + Sync>(
    argument: &'static str,
    expected: &str,
    value: &'a Bound<'_, PyAny>,
) -> PyResult<&'a T> {
    value.cast::<T>().map(Bound::get).map_err(|_| wrong_type(argument, expected, value))
}

/// An argument that must be a `str`.
pub(super) fn text<'a>(argument: &'static str, value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    value.cast::<PyString>().map_err(|_| wrong_type(argument, "a str", value))?.to_str()
}

/// An argument that must be a `bool` or numpy's `bool`.
pub(super) fn flag(argument: &'static str, value: Option<&Bound<'_, PyAny>>, default: bool) -> PyResult<bool> {
    let Some(value) = value else { return Ok(default) };
    match value.cast::<PyBool>() {
        Ok(value) => Ok(value.is_true()),
        Err(_) if matches!(type_name(value).as_str(), "bool" | "bool_") => value.is_truthy(),
        Err(_) => Err(wrong_type(argument, "a bool", value)),
    }
}

/// The part `[offset, offset + length)` of a range; by default from its start and to its end.
pub(super) fn part(
    whole: Segment,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
) -> PyResult<Segment> {
    let offset = offset.map_or(Ok(0), |offset| size("offset", offset))?;
    if offset > whole.len {
        return Err(Error::invalid("offset", offset, format!("at most {}, the buffer's length", whole.len)).into());
    }
    let rest = whole.skip(offset);
    match optional_size("length", length)? {
        Some(length) if length > rest.len => {
            let most = format!("at most {}, what the buffer has from offset {offset}", rest.len);
            Err(Error::invalid("length", length, most).into())
        }
        length => Ok(rest.take(length.unwrap_or(rest.len))),
    }
}

/// `DEST` (`READ`) or `SOURCE` (`WRITE`), as a `Direction` or an int.
pub(super) fn direction(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Direction> {
    let invalid = || Error::invalid(argument, shown(value), "DEST or READ (0), SOURCE or WRITE (1)").into();
    match value.extract::<i64>() {
        Ok(0) => Ok(Direction::Dest),
        Ok(1) => Ok(Direction::Source),
        Ok(_) => Err(invalid()),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Err(invalid()),
        Err(error) if not_an_int(argument, value).is_none() => Err(error),
        Err(_) => Err(wrong_type(argument, "a Direction, DEST or SOURCE,", value)),
    }
}

/// How the length of a `UserRange` is treated if it is outside `0..2**63`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lengths {
    /// As the kernel reads a vector: a length with its top bit set is negative. It is kept, and the import refuses it.
    Signed,
    /// As the kernel reads a single range: a huge length is kept, to be truncated by the import. A negative one is
    /// refused.
    Truncated,
    /// It is refused.
    Strict,
}

/// The class `UserRange`, from its first instance on. Looking it up takes as long as all other checks of an argument.
static USER_RANGE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// Whether the object is certainly a `UserRange`: its class is the cached one. `false` may also mean that nothing is
/// cached.
#[inline]
pub(super) fn is_user_range(value: &Bound<'_, PyAny>) -> bool {
    value.get_type_ptr() == USER_RANGE.load(Ordering::Relaxed)
}

/// The range that a `UserRange` names; `None` if the object is none.
pub(super) fn user_range(value: &Bound<'_, PyAny>, lengths: Lengths, name: ArgName) -> PyResult<Option<Segment>> {
    if !is_user_range(value) {
        let class = names(value.py()).user_range.bind(value.py());
        if !value.is_instance(class)? {
            return Ok(None);
        }
        USER_RANGE.store(class.as_type_ptr(), Ordering::Relaxed);
    }
    let tuple = value.cast::<PyTuple>()?;
    let (address, length) = (tuple.get_item(0)?, tuple.get_item(1)?);
    let named = |field: &str| format!("{name}: {field}");
    let beyond = |field: &str, value: &Bound<'_, PyAny>, limit: &str| {
        exception::<PyValueError>(format!(
            "{} is {}: expected 0 or more, less than {limit}",
            named(field),
            shown(value)
        ))
    };
    let is_beyond = |error: &PyErr| error.is_instance_of::<PyOverflowError>(value.py());
    let addr = match address.extract::<usize>() {
        Ok(addr) => addr,
        Err(error) if is_beyond(&error) => return Err(beyond("address", &address, "2**64")),
        Err(error) => return Err(not_an_int(named("address"), &address).unwrap_or(error)),
    };
    let len = match length.extract::<isize>() {
        Ok(len) if len >= 0 || lengths == Lengths::Signed => len.cast_unsigned(),
        Err(error) if !is_beyond(&error) => return Err(not_an_int(named("length"), &length).unwrap_or(error)),
        Err(_) if lengths == Lengths::Signed || (lengths == Lengths::Truncated && length.gt(0)?) => usize::MAX,
        _ => return Err(beyond("length", &length, "2**63")),
    };
    Ok(Some(Segment::new(addr, len)))
}
