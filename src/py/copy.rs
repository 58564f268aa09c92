//! The copy functions.

use super::buffer::{self, Access, Call, Named, explain, is_buffer, unchecked};
use super::count::Count;
use super::entry::{Entry, entry};
use super::iter::{InUse, IovIter};
use super::transfer::transfer;
use super::values::{Lengths, fault_error, is_user_range, size, size_or, to_mc_result, user_range};
use crate::abi::Kind;
use crate::copy::{self, BlockCopy, Outcome};
use crate::error::Result;
use crate::fault::Side;
use crate::fault::arm;
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
        && let Some(seg) = user_range(object, Lengths::Strict, 0)?
    {
        return Ok(unchecked(seg));
    }
    let refusal = refusal.unwrap_or_else(|| PyTypeError::new_err("no buffer"));
    Err(explain(object, refusal, access, Named::Argument(name)))
}

/// A copy between `addr` and the iterator: what was asked for and what was copied.
#[inline(always)]
#[allow(clippy::inline_always)] // into each function that the interpreter calls
pub(super) fn run(
    addr: &Bound<'_, PyAny>,
    i: &mut IovIter,
    nbytes: Option<&Bound<'_, PyAny>>,
    access: Access,
    flavour: impl FnOnce(Memory, &mut iter::IovIter, usize) -> Result<usize> + Send,
) -> PyResult<(usize, usize)> {
    let mut call = Call::new();
    let flat = flat_side(&mut call, addr, access, "addr")?;
    let nbytes = size_or("nbytes", nbytes, flat.len())?;
    let core = &mut i.core;
    let copied = transfer(addr.py(), nbytes.min(core.count()), || flavour(flat, core, nbytes))?;
    Ok((nbytes, copied))
}

/// As [`run`], for the flavours that take a short copy back before they raise.
pub(super) fn run_full(
    addr: &Bound<'_, PyAny>,
    i: &mut IovIter,
    nbytes: Option<&Bound<'_, PyAny>>,
    access: Access,
    flavour: impl FnOnce(Memory, &mut iter::IovIter, usize) -> Result<usize> + Send,
) -> PyResult<bool> {
    let (nbytes, copied) = run(addr, i, nbytes, access, flavour)?;
    let whole = copy::full(copied, nbytes, &mut i.core)?;
    raise_if_trusted(addr.py(), &i.core, 0)?;
    Ok(whole)
}

/// As [`run`], raising where trusted memory failed: the bytes copied.
#[inline(always)]
#[allow(clippy::inline_always)] // as above
pub(super) fn run_short(
    addr: &Bound<'_, PyAny>,
    i: &mut IovIter,
    nbytes: Option<&Bound<'_, PyAny>>,
    access: Access,
    flavour: impl FnOnce(Memory, &mut iter::IovIter, usize) -> Result<usize> + Send,
) -> PyResult<Count> {
    let copied = run(addr, i, nbytes, access, flavour)?.1;
    raise_if_trusted(addr.py(), &i.core, copied)?;
    Ok(Count(copied))
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
pub(super) fn entries() -> [Entry; 4] {
    [entry!(copy_to_iter), entry!(copy_from_iter), entry!(copy_to_iter_full), entry!(copy_from_iter_full)]
}

/// Copies over user memory come short; those over trusted memory, which the kernel does not expect to fail, raise.
pub(super) fn raise_if_trusted(py: Python<'_>, core: &iter::IovIter, copied: usize) -> PyResult<()> {
    match &core.fault {
        Some(fault) if !core.is_user_backed() => Err(fault_error(py, fault, copied)),
        _ => Ok(()),
    }
}

/// Copies `nbytes` (all of `addr` by default) from `addr` into the iterator, which advances by the bytes copied; returns that
/// (`copy_to_iter`). Short at `count`, at a full pipe, a hole, the end of a queue, and at bad memory: then `i.fault` says why.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_to_iter(
    addr: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<Count> {
    run_short(addr, &mut i, nbytes, Access::Read, copy::copy_to_iter)
}

/// Copies `nbytes` (all of `addr` by default) out of the iterator to `addr`; returns the bytes copied (`copy_from_iter`).
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter(
    addr: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<Count> {
    run_short(addr, &mut i, nbytes, Access::Write, copy::copy_from_iter)
}

/// `copy_to_iter`, all or nothing: a short copy is taken back and `False` (`copy_to_iter_full`).
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_to_iter_full(
    addr: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    run_full(addr, &mut i, nbytes, Access::Read, copy::copy_to_iter)
}

/// `copy_from_iter`, all or nothing: a short copy is taken back and `False` (`copy_from_iter_full`). `addr` may be partly written.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter_full(
    addr: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    run_full(addr, &mut i, nbytes, Access::Write, copy::copy_from_iter)
}

/// Copies `page[offset:offset + nbytes]` into the iterator (`copy_page_to_iter`). A PIPE takes a reference to the page, all or
/// nothing: later changes of the page show in the pipe.
#[pyfunction]
pub(super) fn copy_page_to_iter(
    page: &Bound<'_, PyAny>,
    offset: &Bound<'_, PyAny>,
    nbytes: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
) -> PyResult<usize> {
    let (offset, nbytes) = (size("offset", offset)?, size("nbytes", nbytes)?);
    if i.core.kind() == Kind::Pipe {
        // The ring is going to hold the page.
        headroom()?;
    }
    let held = buffer::page(page, Named::Argument("page"))?;
    let core = &mut i.core;
    let copied = transfer(page.py(), nbytes, || copy::copy_page_to_iter(&held, offset, nbytes, core))?;
    raise_if_trusted(page.py(), core, copied)?;
    Ok(copied)
}

/// Copies out of the iterator into `page[offset:offset + nbytes]` (`copy_page_from_iter`).
#[pyfunction]
pub(super) fn copy_page_from_iter(
    page: &Bound<'_, PyAny>,
    offset: &Bound<'_, PyAny>,
    nbytes: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
) -> PyResult<usize> {
    let (offset, nbytes) = (size("offset", offset)?, size("nbytes", nbytes)?);
    let held = buffer::page(page, Named::Argument("page"))?;
    if !held.writable() {
        return Err(PyBufferError::new_err("page: read-only memory cannot be a destination"));
    }
    let core = &mut i.core;
    let copied = transfer(page.py(), nbytes, || copy::copy_page_from_iter(&held, offset, nbytes, core))?;
    raise_if_trusted(page.py(), core, copied)?;
    Ok(copied)
}

/// The same from where faults must not be waited for (`copy_page_from_iter_atomic`): it advances too, and bad memory makes it short.
#[pyfunction]
pub(super) fn copy_page_from_iter_atomic(
    page: &Bound<'_, PyAny>,
    offset: &Bound<'_, PyAny>,
    nbytes: &Bound<'_, PyAny>,
    i: InUse<'_>,
) -> PyResult<usize> {
    copy_page_from_iter(page, offset, nbytes, i)
}

/// Copies up to `nbytes` (as many as both have by default) from `src` to `dst`, the largest common piece at a time. Both advance by the
/// bytes copied; returns that.
#[pyfunction]
#[pyo3(signature = (dst, src, nbytes=None))]
pub(super) fn copy_iter(
    dst: &Bound<'_, IovIter>,
    src: &Bound<'_, IovIter>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    if dst.is(src) {
        return Err(PyValueError::new_err("dst and src are one iterator: dup() makes a second cursor over its memory"));
    }
    let (mut dst, mut src) = (dst.try_borrow_mut()?, src.try_borrow_mut()?);
    let available = dst.core.count().min(src.core.count());
    let nbytes = size_or("nbytes", nbytes, available)?;
    let py = dst.py();
    let (to, from) = (&mut dst.core, &mut src.core);
    let copied = transfer(py, nbytes.min(available), || copy::copy_iter(to, from, nbytes))?;
    let side = to.fault.as_ref().map(|fault| fault.side);
    raise_if_trusted(py, if side == Some(Side::Source) { from } else { to }, copied)?;
    Ok(copied)
}

/// `copy_to_iter` that also adds what it copied to `csum`, a sum over the `offset` bytes before (`csum_and_copy_to_iter`). Returns
/// the bytes copied and the ones'-complement sum, folded to 16 bits.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, csum=0, offset=None))]
pub(super) fn csum_and_copy_to_iter(
    addr: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    csum: u32,
    offset: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, u32)> {
    let mut call = Call::new();
    let flat = call.acquire(addr, Access::Read, Named::Argument("addr"))?;
    let (nbytes, offset) = (size_or("nbytes", nbytes, flat.len())?, size_or("offset", offset, 0)?);
    let core = &mut i.core;
    let summed = transfer(addr.py(), nbytes, || copy::csum_and_copy_to_iter(flat, core, nbytes, csum, offset))?;
    raise_if_trusted(addr.py(), core, summed.0)?;
    Ok(summed)
}

/// `copy_from_iter` that also adds what it copied to `csum` (`csum_and_copy_from_iter`). Returns the bytes copied and the sum.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, csum=0))]
pub(super) fn csum_and_copy_from_iter(
    addr: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    csum: u32,
) -> PyResult<(usize, u32)> {
    let summed = sum_from(addr, &mut i, nbytes, csum)?.1;
    raise_if_trusted(addr.py(), &i.core, summed.0)?;
    Ok(summed)
}

/// `csum_and_copy_from_iter`, all or nothing: a short copy is taken back and `False`; the sum then covers what was copied.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, csum=0))]
pub(super) fn csum_and_copy_from_iter_full(
    addr: &Bound<'_, PyAny>,
    mut i: InUse<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    csum: u32,
) -> PyResult<(bool, u32)> {
    let (nbytes, (copied, csum)) = sum_from(addr, &mut i, nbytes, csum)?;
    let whole = copy::full(copied, nbytes, &mut i.core)?;
    raise_if_trusted(addr.py(), &i.core, 0)?;
    Ok((whole, csum))
}

/// Sums and copies out of the iterator: what was asked for, what was copied and the sum. Raising where trusted memory failed is
/// left to the caller, who may have to take a short copy back first.
fn sum_from(
    addr: &Bound<'_, PyAny>,
    i: &mut IovIter,
    nbytes: Option<&Bound<'_, PyAny>>,
    csum: u32,
) -> PyResult<(usize, (usize, u32))> {
    let mut call = Call::new();
    let flat = call.acquire(addr, Access::Write, Named::Argument("addr"))?;
    let nbytes = size_or("nbytes", nbytes, flat.len())?;
    let core = &mut i.core;
    let summed = transfer(addr.py(), nbytes, || copy::csum_and_copy_from_iter(flat, core, nbytes, csum))?;
    Ok((nbytes, summed))
}

/// `copy_to_iter` that also feeds what it copied to `hash.update` (`hash_and_copy_to_iter`). If that raises, the iterator is back
/// where it was.
#[pyfunction]
#[pyo3(signature = (addr, i, hash, nbytes=None))]
pub(super) fn hash_and_copy_to_iter<'py>(
    addr: &Bound<'py, PyAny>,
    i: &Bound<'py, IovIter>,
    hash: &Bound<'py, PyAny>,
    nbytes: Option<&Bound<'py, PyAny>>,
) -> PyResult<usize> {
    let update = hash.getattr("update").map_err(|error| {
        let missing = error.is_instance_of::<PyAttributeError>(addr.py());
        if missing { PyTypeError::new_err("hash: an object with update() is expected") } else { error }
    })?;
    let mut call = Call::new();
    let source = call.acquire(addr, Access::Read, Named::Argument("addr"))?;
    let nbytes = size_or("nbytes", nbytes, source.len())?;
    // Held while the hash is fed: it cannot move what it might have to be moved back.
    let mut held = i.try_borrow_mut()?;
    let mut copy = BlockCopy::new(source, &mut held.core, nbytes, "hash_and_copy_to_iter")?;
    while copy.left() != 0 {
        // An object of its own for each block: whoever keeps what a hash was fed finds it unchanged.
        let (block, copied) = next_block(addr.py(), &mut copy)?;
        if copied != 0
            && let Err(error) = update.call1((block,))
        {
            // Refused only where a reader has drained the pipe meanwhile: there is nothing to take back then.
            let _ = copy.take_back();
            return Err(error);
        }
    }
    let copied = copy.done();
    raise_if_trusted(addr.py(), &held.core, copied)?;
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
