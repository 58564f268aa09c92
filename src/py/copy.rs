//! The copy functions.

use super::buffer::{self, Access, ArgName, Call, explain, is_buffer, unchecked};
use super::detach::transfer;
use super::fastcall::{FastFunction, attached, fast_function};
use super::in_use::{IterArg, iterator};
use super::names::names;
use super::values::{
    Lengths, fault_error, is_user_range, optional_size, size, size_or, to_mc_result, user_range, word, wrong_type,
};
use crate::abi::Kind;
use crate::copy::{self, BlockCopy, Outcome};
use crate::error::Result;
use crate::fault::arm;
use crate::fault::{Fault, Side};
use crate::iter;
use crate::memory::Memory;
use crate::structure::headroom;
use pyo3::exceptions::{PyAttributeError, PyBufferError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The flat side of a copy: a buffer held by `call`, or a raw range.
#[inline(always)]
#[allow(clippy::inline_always)] // returned by value it would be stored in pieces and loaded whole, which waits for the stores
pub(super) fn flat_side(
    call: &mut Call,
    object: &Bound<'_, PyAny>,
    access: Access,
    name: &'static str,
) -> PyResult<Memory> {
    // Not asked for a buffer first: that refusal takes as long as several copies.
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
    let refusal = refusal.unwrap_or_else(|| PyTypeError::new_err("no buffer"));
    Err(explain(object, refusal, access, ArgName::Argument(name)))
}

/// What a copy came to, and the fault that ended it in trusted memory: to be raised once the iterator is free again.
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
    let mut i = i.lock()?;
    let core = &mut i.core;
    let copied = transfer(addr.py(), nbytes.min(core.count()), || flavour(flat, core, nbytes))?;
    Ok((copied, trusted_fault(core)))
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

/// The fault to raise: copies over user memory come short, those over trusted memory, which the kernel does not expect
/// to fail, raise.
#[inline]
pub(super) fn trusted_fault(core: &iter::IovIter) -> Option<Box<Fault>> {
    if core.fault.is_some() && !core.is_user_backed() { core.fault.clone() } else { None }
}

/// Raises a fault, if there is one, of a copy that came to so many bytes.
#[inline]
pub(super) fn raise(py: Python<'_>, fault: Option<Box<Fault>>, copied: usize) -> PyResult<()> {
    fault.map_or(Ok(()), |fault| Err(fault_error(py, &fault, copied)))
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

/// The functions here that are called for every few bytes.
pub(super) fn fast_functions() -> [FastFunction; 4] {
    [
        fast_function!(copy_to_iter),
        fast_function!(copy_from_iter),
        fast_function!(copy_to_iter_full),
        fast_function!(copy_from_iter_full),
    ]
}

/// Copies `nbytes` (all of `addr` by default) from `addr` into the iterator, which advances by the bytes copied;
/// returns that (`copy_to_iter`). Short at `count`, at a full pipe, a hole, the end of a queue, and at bad memory: then
/// `i.fault` says why.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_to_iter(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    run_short(addr, i, nbytes, Access::Read, copy::copy_to_iter)
}

/// Copies `nbytes` (all of `addr` by default) out of the iterator to `addr`; returns the bytes copied
/// (`copy_from_iter`).
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    run_short(addr, i, nbytes, Access::Write, copy::copy_from_iter)
}

/// `copy_to_iter`, all or nothing: a short copy is taken back and `False` (`copy_to_iter_full`).
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_to_iter_full(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    run_full(addr, i, nbytes, Access::Read, copy::copy_to_iter)
}

/// `copy_from_iter`, all or nothing: a short copy is taken back and `False` (`copy_from_iter_full`). `addr` may be
/// partly written.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter_full(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    run_full(addr, i, nbytes, Access::Write, copy::copy_from_iter)
}

/// Copies `page[offset:offset + nbytes]` into the iterator (`copy_page_to_iter`). A PIPE takes a reference to the page,
/// all or nothing: later changes of the page show in the pipe.
#[pyfunction]
pub(super) fn copy_page_to_iter(
    page: &Bound<'_, PyAny>,
    offset: &Bound<'_, PyAny>,
    nbytes: &Bound<'_, PyAny>,
    i: IterArg<'_>,
) -> PyResult<usize> {
    let (offset, nbytes) = (size("offset", offset)?, size("nbytes", nbytes)?);
    if i.kind() == Kind::Pipe {
        // The ring is going to hold the page.
        headroom()?;
    }
    let held = buffer::page(page, ArgName::Argument("page"))?;
    let mut used = i.lock()?;
    let core = &mut used.core;
    let copied = transfer(page.py(), nbytes, || copy::copy_page_to_iter(&held, offset, nbytes, core))?;
    let fault = trusted_fault(core);
    drop(used);
    raise(page.py(), fault, copied)?;
    Ok(copied)
}

/// Copies out of the iterator into `page[offset:offset + nbytes]` (`copy_page_from_iter`).
#[pyfunction]
pub(super) fn copy_page_from_iter(
    page: &Bound<'_, PyAny>,
    offset: &Bound<'_, PyAny>,
    nbytes: &Bound<'_, PyAny>,
    i: IterArg<'_>,
) -> PyResult<usize> {
    let (offset, nbytes) = (size("offset", offset)?, size("nbytes", nbytes)?);
    let held = buffer::page(page, ArgName::Argument("page"))?;
    if !held.writable() {
        return Err(PyBufferError::new_err("page: read-only memory cannot be a destination"));
    }
    let mut used = i.lock()?;
    let core = &mut used.core;
    let copied = transfer(page.py(), nbytes, || copy::copy_page_from_iter(&held, offset, nbytes, core))?;
    let fault = trusted_fault(core);
    drop(used);
    raise(page.py(), fault, copied)?;
    Ok(copied)
}

/// The same from where faults must not be waited for (`copy_page_from_iter_atomic`): it advances too, and bad memory
/// makes it short.
#[pyfunction]
pub(super) fn copy_page_from_iter_atomic(
    page: &Bound<'_, PyAny>,
    offset: &Bound<'_, PyAny>,
    nbytes: &Bound<'_, PyAny>,
    i: IterArg<'_>,
) -> PyResult<usize> {
    copy_page_from_iter(page, offset, nbytes, i)
}

/// Copies up to `nbytes` (as many as both have by default) from `src` to `dst`, the largest common piece at a time.
/// Both advance by the bytes copied; returns that.
#[pyfunction]
#[pyo3(signature = (dst, src, nbytes=None))]
pub(super) fn copy_iter(
    dst: &Bound<'_, PyAny>,
    src: &Bound<'_, PyAny>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let (to, from) = (iterator("dst", dst.as_borrowed())?, iterator("src", src.as_borrowed())?);
    if dst.is(src) {
        return Err(PyValueError::new_err("dst and src are one iterator: dup() makes a second cursor over its memory"));
    }
    let nbytes = optional_size("nbytes", nbytes)?;
    let (mut to, mut from) = (to.lock()?, from.lock()?);
    let (to_core, from_core) = (&mut to.core, &mut from.core);
    let available = to_core.count().min(from_core.count());
    let nbytes = nbytes.unwrap_or(available);
    let copied = transfer(dst.py(), nbytes.min(available), || copy::copy_iter(to_core, from_core, nbytes))?;
    let side = to.core.fault.as_ref().map(|fault| fault.side);
    let fault = trusted_fault(if side == Some(Side::Source) { &from.core } else { &to.core });
    drop((to, from));
    raise(dst.py(), fault, copied)?;
    Ok(copied)
}

/// `copy_to_iter` that also adds what it copied to `csum`, a sum over the `offset` bytes before
/// (`csum_and_copy_to_iter`). Returns the bytes copied and the ones'-complement sum, folded to 16 bits.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, csum=None, offset=None), text_signature = "(addr, i, nbytes=None, csum=0, offset=0)")]
pub(super) fn csum_and_copy_to_iter(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    csum: Option<&Bound<'_, PyAny>>,
    offset: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, u32)> {
    let mut call = Call::new();
    let flat = call.acquire(addr, Access::Read, ArgName::Argument("addr"))?;
    let (nbytes, csum) = (size_or("nbytes", nbytes, flat.len())?, word("csum", csum)?);
    let offset = size_or("offset", offset, 0)?;
    let mut used = i.lock()?;
    let core = &mut used.core;
    let summed = transfer(addr.py(), nbytes, || copy::csum_and_copy_to_iter(flat, core, nbytes, csum, offset))?;
    let fault = trusted_fault(core);
    drop(used);
    raise(addr.py(), fault, summed.0)?;
    Ok(summed)
}

/// `copy_from_iter` that also adds what it copied to `csum` (`csum_and_copy_from_iter`). Returns the bytes copied and
/// the sum.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, csum=None), text_signature = "(addr, i, nbytes=None, csum=0)")]
pub(super) fn csum_and_copy_from_iter(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    csum: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, u32)> {
    let (summed, fault) = sum_from(addr, i, nbytes, csum, |_, _, summed| Ok(summed))?;
    raise(addr.py(), fault, summed.0)?;
    Ok(summed)
}

/// `csum_and_copy_from_iter`, all or nothing: a short copy is taken back and `False`; the sum then covers what was
/// copied.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, csum=None), text_signature = "(addr, i, nbytes=None, csum=0)")]
pub(super) fn csum_and_copy_from_iter_full(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    csum: Option<&Bound<'_, PyAny>>,
) -> PyResult<(bool, u32)> {
    let ((whole, csum), fault) =
        sum_from(addr, i, nbytes, csum, |core, nbytes, (copied, csum)| Ok((copy::full(copied, nbytes, core)?, csum)))?;
    raise(addr.py(), fault, 0)?;
    Ok((whole, csum))
}

/// Sums and copies out of the iterator; `finish` gets what was asked for and what was copied and summed, and may take
/// it back.
fn sum_from<T: Send>(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    csum: Option<&Bound<'_, PyAny>>,
    finish: impl FnOnce(&mut iter::IovIter, usize, (usize, u32)) -> Result<T> + Send,
) -> PyResult<Copied<T>> {
    let mut call = Call::new();
    let flat = call.acquire(addr, Access::Write, ArgName::Argument("addr"))?;
    let (nbytes, csum) = (size_or("nbytes", nbytes, flat.len())?, word("csum", csum)?);
    let mut i = i.lock()?;
    let core = &mut i.core;
    let done = transfer(addr.py(), nbytes, || {
        let summed = copy::csum_and_copy_from_iter(flat, core, nbytes, csum)?;
        finish(core, nbytes, summed)
    })?;
    Ok((done, trusted_fault(core)))
}

/// `copy_to_iter` that also feeds what it copied to `hash.update` (`hash_and_copy_to_iter`). If that raises, the
/// iterator is back where it was.
#[pyfunction]
#[pyo3(signature = (addr, i, hash, nbytes=None))]
pub(super) fn hash_and_copy_to_iter<'py>(
    addr: &Bound<'py, PyAny>,
    i: IterArg<'_>,
    hash: &Bound<'py, PyAny>,
    nbytes: Option<&Bound<'py, PyAny>>,
) -> PyResult<usize> {
    let py = addr.py();
    let update = hash.getattr(names(py).update.bind(py)).map_err(|error| {
        let is_missing = error.is_instance_of::<PyAttributeError>(py);
        if is_missing { wrong_type("hash", "an object with update()", hash) } else { error }
    })?;
    let mut call = Call::new();
    let source = call.acquire(addr, Access::Read, ArgName::Argument("addr"))?;
    let nbytes = size_or("nbytes", nbytes, source.len())?;
    // In use while the hash is fed, whose code cannot move what may have to be moved back.
    let mut used = i.lock()?;
    let mut copy = BlockCopy::new(source, &mut used.core, nbytes, "hash_and_copy_to_iter")?;
    while copy.left() != 0 {
        // An object of its own for each block: whoever keeps what a hash was fed finds it unchanged.
        let (block, copied) = next_block(py, &mut copy)?;
        if copied != 0
            && let Err(error) = update.call1((block,))
        {
            // Refused only where a reader has drained the pipe meanwhile: there is nothing to take back then.
            let _ = copy.take_back();
            return Err(error);
        }
    }
    let copied = copy.done();
    let fault = trusted_fault(&used.core);
    drop(used);
    raise(py, fault, copied)?;
    Ok(copied)
}

/// Bytes that are fed to a hash at a time.
const HASH_BLOCK: usize = 64 << 10;

/// Copies the next block: a `bytes` object of what was copied, and how much it was.
fn next_block<'py>(py: Python<'py>, copy: &mut BlockCopy<'_>) -> PyResult<(Bound<'py, PyBytes>, usize)> {
    let (size, mut copied) = (copy.left().min(HASH_BLOCK), 0);
    let block = PyBytes::new_with(py, size, |own| {
        copied = transfer(py, size, || copy.next(own))?;
        Ok(())
    })?;
    // Not what the iterator did not take.
    if copied == size { Ok((block, copied)) } else { Ok((PyBytes::new(py, &block.as_bytes()[..copied]), copied)) }
}
