//! The data that a log appends, a slot publishes or a region is written with, and destinations of reads, as iterators.

use super::buffer::{Access, ArgName, Call, is_buffer};
use super::collect::{SegmentList, SegmentListBuilder};
use super::iter::IovIter;
use super::values::{Lengths, iterate, user_range, wrong_type};
use crate::abi::Direction;
use crate::iter;
use crate::memory::Memory;
use pyo3::prelude::*;

/// What data may be, as an exception says it.
const EXPECTED: &str = "a buffer, an iterable of buffers or an IovIter";

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
    if user_range(data, Lengths::Signed, ArgName::Argument("data"))?.is_some() {
        // It is a tuple, whose items are numbers.
        return Err(wrong_type("data", EXPECTED, data));
    }
    let mut collected = SegmentListBuilder::named(Direction::Source, |index| ArgName::Item("data", index));
    for item in iterate("data", EXPECTED, data)? {
        collected.add(&item?, None)?;
    }
    let SegmentList { memories, exports, .. } = collected.finish();
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
    let memory = destination(&mut held, dst)?;
    call(&mut iter::IovIter::whole(Direction::Dest, memory))
}

/// The memory of `dst`, which is no iterator.
pub(super) fn destination(held: &mut Call, dst: &Bound<'_, PyAny>) -> PyResult<Memory> {
    if !is_buffer(dst) {
        return Err(wrong_type("dst", "a buffer or an IovIter", dst));
    }
    held.acquire(dst, Access::Write, ArgName::Argument("dst"))
}
