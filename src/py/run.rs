//! How a copy function runs: its flat side is acquired, its iterator locked, and the fault that ended it raised once
//! the iterator is free again.

use super::buffer::{Access, ArgName, Call, explain, is_buffer, unchecked};
use super::detach::{attached, may_detach, perhaps_detached, transfer};
use super::errors::{raise, trusted_fault};
use super::exception::exception;
use super::iter_arg::IterArg;
use super::results::to_mc_result;
use super::values::{Lengths, is_user_range, size_or, user_range};
use crate::copy::{self, Outcome};
use crate::error::Result;
use crate::fault::Fault;
use crate::fault::arm;
use crate::iter;
use crate::memory::Memory;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// The flat side of a copy: a buffer held by `call`, or a raw range.
#[inline(always)]
// Returned by value it would be stored in pieces and loaded whole, which waits for the stores.
#[allow(clippy::inline_always)]
pub(super) fn flat_side(
    call: &mut Call,
    object: &Bound<'_, PyAny>,
    access: Access,
    name: &'static str,
) -> PyResult<Memory> {
    // A `UserRange` is not asked for a buffer first: the refusal takes as long as several copies.
    if !is_user_range(object)
        && let Some(flat) = call.try_acquire(object, access)
    {
        return Ok(flat);
    }
    raw_range(object, access, name)
}

#[cold]
fn raw_range(object: &Bound<'_, PyAny>, access: Access, name: &'static str) -> PyResult<Memory> {
    let refusal = PyErr::take(object.py());
    if !is_buffer(object)
        && let Some(seg) = user_range(object, Lengths::Strict, ArgName::Segment(0))?
    {
        attached(|| drop(refusal));
        return Ok(unchecked(seg));
    }
    let refusal = refusal.unwrap_or_else(|| exception::<PyTypeError>("no buffer"));
    Err(explain(object, refusal, access, ArgName::Argument(name)))
}

/// What a copy returns, and the fault that ended it in trusted memory. The caller raises it, once the iterator is
/// unlocked.
pub(super) type Copied<T> = (T, Option<Box<Fault>>);

/// A copy between `addr` and the iterator.
#[inline(always)]
#[allow(clippy::inline_always)] // into each function that the interpreter calls
pub(super) fn run<T: Send>(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    access: Access,
    flavour: impl FnOnce(Memory, &mut iter::IovIter, usize) -> Result<T> + Send,
) -> PyResult<Copied<T>> {
    let mut call = Call::new();
    let flat = flat_side(&mut call, addr, access, "addr")?;
    let nbytes = size_or("nbytes", nbytes, flat.len())?;
    let mut i = i.lock_unseen(addr.py())?;
    let length = nbytes.min(i.core.count());
    if may_detach(length) {
        i.show();
    }
    let core = &mut i.core;
    let copied = perhaps_detached(addr.py(), length, || flavour(flat, core, nbytes));
    let fault = trusted_fault(core);
    // What an exception is made of may run Python code.
    drop(i);
    Ok((copied?, fault))
}

/// As [`run`], for the flavours that take a short copy back before they raise.
pub(super) fn run_full(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    access: Access,
    flavour: impl FnOnce(Memory, &mut iter::IovIter, usize) -> Result<usize> + Send,
) -> PyResult<bool> {
    let (whole, fault) = run(addr, i, nbytes, access, |flat, core, nbytes| {
        let copied = flavour(flat, core, nbytes)?;
        copy::full(copied, nbytes, core)
    })?;
    raise(addr.py(), fault, 0)?;
    Ok(whole)
}

/// As [`run`], raising where trusted memory failed: the bytes copied.
#[inline(always)]
#[allow(clippy::inline_always)] // as above
pub(super) fn run_short(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    access: Access,
    flavour: impl FnOnce(Memory, &mut iter::IovIter, usize) -> Result<usize> + Send,
) -> PyResult<usize> {
    let (copied, fault) = run(addr, i, nbytes, access, flavour)?;
    raise(addr.py(), fault, copied)?;
    Ok(copied)
}

/// A copy between two flat sides: an `McResult`.
pub(super) fn between<'py>(
    dst: &Bound<'py, PyAny>,
    src: &Bound<'py, PyAny>,
    copy: impl FnOnce(Memory, Memory) -> Result<Outcome> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let py = dst.py();
    arm::extend();
    let (mut to, mut from) = (Call::new(), Call::new());
    let target = flat_side(&mut to, dst, Access::Write, "dst")?;
    let source = flat_side(&mut from, src, Access::Read, "src")?;
    let nbytes = source.len();
    let (copied, fault) = transfer(py, nbytes, || copy(target, source))?;
    let result = to_mc_result(py, copied, nbytes, fault.as_deref());
    arm::extend();
    result
}

/// As [`run`], for what may wait for a device: always without the interpreter.
#[cold]
pub(super) fn run_waiting(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    access: Access,
    flavour: impl FnOnce(Memory, &mut iter::IovIter, usize) -> Result<usize> + Send,
) -> PyResult<Copied<usize>> {
    let mut call = Call::new();
    let flat = flat_side(&mut call, addr, access, "addr")?;
    let nbytes = size_or("nbytes", nbytes, flat.len())?;
    let mut i = i.lock(addr.py())?;
    let core = &mut i.core;
    let copied = addr.py().detach(|| flavour(flat, core, nbytes))?;
    Ok((copied, trusted_fault(core)))
}

#[cold]
pub(super) fn raise_short(py: Python<'_>, copied: PyResult<Copied<usize>>) -> PyResult<usize> {
    let (copied, fault) = copied?;
    raise(py, fault, copied)?;
    Ok(copied)
}
