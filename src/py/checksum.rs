//! The copies that sum or hash what they copy.

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

/// `copy_to_iter` that also adds what it copied to `csum`, a sum over the `offset` bytes before
/// (`csum_and_copy_to_iter`). Returns the bytes copied and the ones'-complement sum, folded to 16 bits.
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
