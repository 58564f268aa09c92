//! The data that a log appends or a slot publishes, and the destinations that they are read into, as iterators.

use super::buffer::{Access, ArgName, Call, is_buffer};
use super::collect::{SegmentList, collect};
use super::iter::IovIter;
use crate::abi::Direction;
use crate::iter;
use pyo3::prelude::*;
/// Calls `call` with an iterator over `data`: a buffer, an iterable of buffers, or an iterator, of which the rest is
/// meant.
pub(super) fn from_data<T>(
    data: &Bound<'_, PyAny>,
    call: impl FnOnce(&mut iter::IovIter) -> PyResult<T>,
) -> PyResult<T> {
    if let Ok(i) = data.cast::<IovIter>() {
        return call(&mut i.get().lock(i.py())?.core);
    }
    if is_buffer(data) {
        let mut held = Call::new();
        let memory = held.acquire(data, Access::Read, ArgName::Argument("data"))?;
        return call(&mut iter::IovIter::whole(Direction::Source, memory));
    }
    let SegmentList { memories, exports, .. } = collect(Direction::Source, data, None)?.finish();
    let done = call(&mut iter::IovIter::kvec(Direction::Source, memories, None)?);
    drop(exports);
    done
}

/// Calls `call` with an iterator over `dst`: a buffer, or an iterator, of which the rest is meant.
pub(super) fn to_destination<T>(
    dst: &Bound<'_, PyAny>,
    call: impl FnOnce(&mut iter::IovIter) -> PyResult<T>,
) -> PyResult<T> {
    if let Ok(i) = dst.cast::<IovIter>() {
        return call(&mut i.get().lock(i.py())?.core);
    }
    let mut held = Call::new();
    let memory = held.acquire(dst, Access::Write, ArgName::Argument("dst"))?;
    call(&mut iter::IovIter::whole(Direction::Dest, memory))
}
