//! Copies that also checksum or hash the bytes they copy.

use super::buffer::{Access, ArgName, Call};
use super::detach::transfer;
use super::errors::{raise, trusted_fault};
use super::fastcall::add_functions;
use super::iter_arg::IterArg;
use super::names::names;
use super::run::Copied;
use super::values::{size_or, word, wrong_type};
use crate::copy::{self, BlockCopy};
use crate::error::Result;
use crate::iter;
use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Adds the functions to the module.
pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    add_functions!(
        module,
        csum_and_copy_from_iter,
        csum_and_copy_from_iter_full,
        csum_and_copy_to_iter,
        hash_and_copy_to_iter
    );
    Ok(())
}

/// `copy_to_iter` that also adds the bytes copied to an Internet checksum (`csum_and_copy_to_iter`). `csum` is the sum
/// of the `offset` bytes before them. Returns the number of bytes copied and the ones'-complement sum, folded to 16
/// bits; if nothing was copied, that is `csum` unchanged.
#[pyfunction]
#[pyo3(
    signature = (addr, i, nbytes=None, csum=None, offset=None),
    text_signature = "(addr, i, nbytes=None, csum=0, offset=0)"
)]
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
    let mut used = i.lock(addr.py())?;
    let core = &mut used.core;
    let summed = transfer(addr.py(), nbytes, || copy::csum_and_copy_to_iter(flat, core, nbytes, csum, offset))?;
    let fault = trusted_fault(core);
    drop(used);
    raise(addr.py(), fault, summed.0)?;
    Ok(summed)
}

/// `copy_from_iter` that also adds the bytes copied to the Internet checksum `csum` (`csum_and_copy_from_iter`).
/// Returns the number of bytes copied and the sum, as `csum_and_copy_to_iter` does.
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

/// `csum_and_copy_from_iter`, all or nothing. After a short copy the iterator is back where it was and the result is
/// `(False, csum)`, with the sum of the bytes that were copied. Otherwise it is `(True, csum)`.
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

/// Copies from the iterator and sums. `finish` gets the iterator, the bytes requested, and the bytes copied with their
/// sum; it may revert the iterator.
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
    let mut i = i.lock(addr.py())?;
    let core = &mut i.core;
    let done = transfer(addr.py(), nbytes, || {
        let summed = copy::csum_and_copy_from_iter(flat, core, nbytes, csum)?;
        finish(core, nbytes, summed)
    })?;
    Ok((done, trusted_fault(core)))
}

/// `copy_to_iter` that also passes the bytes copied to `hash.update`, in blocks of 64 KiB (`hash_and_copy_to_iter`). If
/// `update` raises, so does this, and the iterator is back where it was.
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
    let mut used = i.lock(addr.py())?;
    let mut copy = BlockCopy::new(source, &mut used.core, nbytes, "hash_and_copy_to_iter")?;
    while copy.left() != 0 {
        // Each block is a new `bytes` object, so that an `update` may keep what it was given.
        let (block, copied) = next_block(py, &mut copy)?;
        if copied != 0
            && let Err(error) = update.call1((block,))
        {
            // This fails only if a reader has emptied the pipe meanwhile; then there is nothing to take back.
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

/// Bytes passed to a hash in one call.
const HASH_BLOCK: usize = 64 << 10;

/// Copies the next block. Returns a `bytes` object of the bytes copied, and their number.
fn next_block<'py>(py: Python<'py>, copy: &mut BlockCopy<'_>) -> PyResult<(Bound<'py, PyBytes>, usize)> {
    let (size, mut copied) = (copy.left().min(HASH_BLOCK), 0);
    let block = PyBytes::new_with(py, size, |own| {
        copied = transfer(py, size, || copy.next(own))?;
        Ok(())
    })?;
    // The hash gets only the bytes that the iterator took.
    if copied == size { Ok((block, copied)) } else { Ok((PyBytes::new(py, &block.as_bytes()[..copied]), copied)) }
}
