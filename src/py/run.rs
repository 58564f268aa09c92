//! Runs a copy function: acquires its buffer, locks its iterator, copies, and raises the fault that ended the copy
//! after the iterator is unlocked.

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

/// The memory of a copy's flat side: a buffer, which `call` keeps exported, or a `UserRange`.
#[inline(always)]
// Out of line, the result would be stored in pieces and loaded as a whole, which waits for the stores.
#[allow(clippy::inline_always)]
pub(super) fn flat_side(
    call: &mut Call,
    object: &Bound<'_, PyAny>,
    access: Access,
    name: &'static str,
) -> PyResult<Memory> {
    // A buffer is not requested of a `UserRange`, whose refusal takes as long as several copies.
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

/// The result of a copy, and the fault that the caller must raise if one ended it in trusted memory. The iterator is
/// unlocked by then.
pub(super) type Copied<T> = (T, Option<Box<Fault>>);

/// Runs a copy between `addr` and the iterator.
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
    // Making an exception may run Python code, so the iterator is unlocked first.
    drop(i);
    Ok((copied?, fault))
}

/// As [`run`], for copies that are all or nothing: a short copy is taken back, and a fault raised with 0 bytes.
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

/// As [`run`], but raises the fault in trusted memory itself. Returns the bytes copied.
#[inline(always)]
#[allow(clippy::inline_always)] // as for `run`
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

/// Runs a copy between two flat ranges; always detached from the interpreter if it may wait for a device. Returns an
/// `McResult`.
pub(super) fn between<'py>(
    dst: &Bound<'py, PyAny>,
    src: &Bound<'py, PyAny>,
    may_wait: bool,
    copy: impl FnOnce(Memory, Memory) -> Result<Outcome> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let py = dst.py();
    arm::extend();
    let (mut to, mut from) = (Call::new(), Call::new());
    let target = flat_side(&mut to, dst, Access::Write, "dst")?;
    let source = flat_side(&mut from, src, Access::Read, "src")?;
    let nbytes = source.len();
    let work = || copy(target, source);
    let (copied, fault) = if may_wait { py.detach(work)? } else { transfer(py, nbytes, work)? };
    to_mc_result(py, copied, nbytes, fault.as_deref())
}

/// As [`run`], but always detached from the interpreter, because the copy may wait for a device.
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
