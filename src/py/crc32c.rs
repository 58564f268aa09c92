//! CRC-32C of memory, of iterators, and of copies, which sum the bytes in the same pass.

use super::buffer::{Access, Call};
use super::detach::transfer;
use super::errors::{fault_error, fault_error_of, with_crc32c};
use super::exception::Int;
use super::fastcall::{add_functions, fast_function, install};
use super::iter::IovIter;
use super::iter_arg::IterArg;
use super::mcsafe::known;
use super::results::{int, summed};
use super::run::{between, flat_side, run, run_waiting};
use super::values::{size, word};
use crate::copy::{Outcome, crc32c as core, mcsafe};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::iter;
use crate::memory::Memory;
use crate::pmem;
use pyo3::prelude::*;

/// Adds the functions to the module. Those that programs call for a few bytes at a time get a fast entry.
pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    add_functions!(
        module,
        crc32c,
        crc32c_and_copy_from_iter,
        crc32c_and_copy_from_iter_flushcache,
        crc32c_and_copy_to_iter,
        crc32c_and_copy_to_iter_mcsafe,
        crc32c_and_memcpy_flushcache,
        crc32c_and_memcpy_mcsafe,
        crc32c_combine
    );
    install(
        module,
        [
            fast_function!(crc32c_and_copy_to_iter, "crc"),
            fast_function!(crc32c_and_copy_from_iter, "crc"),
            fast_function!(crc32c_and_copy_from_iter_flushcache, "crc"),
        ],
    )
}

/// The CRC-32C (Castagnoli) of a buffer, of a `UserRange`, or of the bytes that remain of an iterator, which is not
/// moved. `crc` is the sum of the bytes before. `FaultError` if the memory is bad: `.copied` bytes were summed, and
/// `.crc32c` is their sum. ValueError over a PIPE or DISCARD, which cannot be read, and over an iterator that has a
/// hole or reaches past the end of its queue.
#[pyfunction]
#[pyo3(signature = (data, crc=None), text_signature = "(data, crc=0)")]
pub(super) fn crc32c(data: &Bound<'_, PyAny>, crc: Option<&Bound<'_, PyAny>>) -> PyResult<Int> {
    let (py, mut sum) = (data.py(), word("crc", crc)?);
    let ((done, fault), nbytes) = if let Ok(i) = data.cast::<IovIter>() {
        let i = i.get().lock(py)?;
        let core = &i.core;
        (transfer(py, core.count(), || core::of_iter(core, &mut sum))?, core.count())
    } else {
        let mut call = Call::new();
        let memory = flat_side(&mut call, data, Access::Read, "data")?;
        (transfer(py, memory.len(), || core::of_memory(memory, &mut sum))?, memory.len())
    };
    if let Some(fault) = fault {
        return Err(with_crc32c(py, fault_error_of(py, &fault, done, "to be summed"), sum));
    }
    if done < nbytes {
        // A sum of a part would pass for that of all: there is no count beside it.
        let found = format!("an iterator with a hole at byte {done}");
        return Err(Error::invalid("data", found, format!("all of its {nbytes} bytes")).into());
    }
    Ok(Int(sum as usize))
}

/// The CRC-32C of two pieces in a row, computed from the CRC-32C of each. The second piece is `len2` bytes long.
#[pyfunction]
pub(super) fn crc32c_combine(
    crc1: &Bound<'_, PyAny>,
    crc2: &Bound<'_, PyAny>,
    len2: &Bound<'_, PyAny>,
) -> PyResult<Int> {
    let (crc1, crc2) = (word("crc1", Some(crc1))?, word("crc2", Some(crc2))?);
    Ok(Int(core::combine(crc1, crc2, size("len2", len2)? as u64) as usize))
}

/// Raises the fault that ended a copy, if one did, with the bytes copied and their sum.
fn raise(py: Python<'_>, fault: Option<Box<Fault>>, (copied, crc): (usize, u32)) -> PyResult<()> {
    fault.map_or(Ok(()), |fault| Err(with_crc32c(py, fault_error(py, &fault, copied), crc)))
}

/// Runs a copy between `addr` and the iterator that adds to the sum. Returns the bytes copied and the sum.
#[inline(always)]
#[allow(clippy::inline_always)] // into each function that the interpreter calls
fn run_summed(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    crc: Option<&Bound<'_, PyAny>>,
    access: Access,
    flavour: impl FnOnce(Memory, &mut iter::IovIter, usize, &mut u32) -> Result<usize> + Send,
) -> PyResult<(usize, u32)> {
    let mut sum = word("crc", crc)?;
    let (summed, fault) = run(addr, i, nbytes, access, |flat, core, nbytes| {
        let copied = flavour(flat, core, nbytes, &mut sum)?;
        Ok((copied, sum))
    })?;
    raise(addr.py(), fault, summed)?;
    Ok(summed)
}

/// `copy_to_iter` that also adds the bytes copied to a CRC-32C (`skb_copy_and_crc32c_datagram_iter`). Returns
/// `(copied, crc)`. The sum continues `crc` and covers exactly the bytes copied, whatever made the copy short.
/// `FaultError` has it in `.crc32c`.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, crc=None), text_signature = "(addr, i, nbytes=None, crc=0)")]
pub(super) fn crc32c_and_copy_to_iter(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    crc: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, u32)> {
    run_summed(addr, i, nbytes, crc, Access::Read, core::copy_to_iter)
}

/// `copy_from_iter` that also adds the bytes copied to a CRC-32C. Returns `(copied, crc)`.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, crc=None), text_signature = "(addr, i, nbytes=None, crc=0)")]
pub(super) fn crc32c_and_copy_from_iter(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    crc: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, u32)> {
    run_summed(addr, i, nbytes, crc, Access::Write, core::copy_from_iter)
}

/// `copy_from_iter_flushcache`, with the same durability, that also adds the bytes copied to a CRC-32C. Returns
/// `(copied, crc)`.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None, crc=None), text_signature = "(addr, i, nbytes=None, crc=0)")]
pub(super) fn crc32c_and_copy_from_iter_flushcache(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    crc: Option<&Bound<'_, PyAny>>,
) -> PyResult<(usize, u32)> {
    if !pmem::flushcache::may_need_msync() {
        return run_summed(addr, i, nbytes, crc, Access::Write, core::copy_from_iter_flushcache);
    }
    let mut sum = word("crc", crc)?;
    let (copied, fault) = run_waiting(addr, i, nbytes, Access::Write, |flat, core, nbytes| {
        pmem::summed::crc32c_and_copy_from_iter_flushcache(flat, core, nbytes, &mut sum)
    })?;
    raise(addr.py(), fault, (copied, sum))?;
    Ok((copied, sum))
}

/// `copy_to_iter_mcsafe` that also adds the bytes copied to a CRC-32C. Returns `(copied, crc)`.
#[pyfunction]
#[pyo3(
    signature = (addr, i, nbytes=None, crc=None, *, fault_map=None),
    text_signature = "(addr, i, nbytes=None, crc=0, *, fault_map=None)"
)]
pub(super) fn crc32c_and_copy_to_iter_mcsafe<'py>(
    addr: &Bound<'py, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
    crc: Option<&Bound<'_, PyAny>>,
    fault_map: Option<&Bound<'_, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (map, mut sum) = (known(fault_map)?, word("crc", crc)?);
    let (copied, _) = run(addr, i, nbytes, Access::Read, |flat, core, nbytes| {
        let copied = core::copy_to_iter_mcsafe(flat, core, nbytes, map, &mut sum)?;
        if let (Some(map), Some(found)) = (map, core.fault.as_deref().and_then(mcsafe::learned)) {
            map.record(found);
        }
        Ok(copied)
    })?;
    summed(int(addr.py(), copied)?, sum)
}

/// `memcpy_mcsafe` that also adds the bytes copied to a CRC-32C. Returns `(McResult, crc)`.
#[pyfunction]
#[pyo3(
    signature = (dst, src, crc=None, *, fault_map=None),
    text_signature = "(dst, src, crc=0, *, fault_map=None)"
)]
pub(super) fn crc32c_and_memcpy_mcsafe<'py>(
    dst: &Bound<'py, PyAny>,
    src: &Bound<'py, PyAny>,
    crc: Option<&Bound<'py, PyAny>>,
    fault_map: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let map = known(fault_map)?;
    between_summed(dst, src, crc, false, |dst, src, sum| {
        let (copied, fault) = core::memcpy_mcsafe(dst, src, map, sum)?;
        if let (Some(map), Some(found)) = (map, fault.as_deref().and_then(mcsafe::learned)) {
            map.record(found);
        }
        Ok((copied, fault))
    })
}

/// `memcpy_flushcache`, with the same durability, that also adds the bytes copied to a CRC-32C. Returns
/// `(McResult, crc)`.
#[pyfunction]
#[pyo3(signature = (dst, src, crc=None), text_signature = "(dst, src, crc=0)")]
pub(super) fn crc32c_and_memcpy_flushcache<'py>(
    dst: &Bound<'py, PyAny>,
    src: &Bound<'py, PyAny>,
    crc: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    if pmem::flushcache::may_need_msync() {
        return between_summed(dst, src, crc, true, pmem::summed::crc32c_and_memcpy_flushcache);
    }
    between_summed(dst, src, crc, false, core::memcpy_flushcache)
}

/// Runs a copy between two flat ranges that adds to the sum; if it may wait for a device, always without the
/// interpreter. Returns an `McResult` and the sum.
fn between_summed<'py>(
    dst: &Bound<'py, PyAny>,
    src: &Bound<'py, PyAny>,
    crc: Option<&Bound<'py, PyAny>>,
    may_wait: bool,
    copy: impl FnOnce(Memory, Memory, &mut u32) -> Result<Outcome> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let mut sum = word("crc", crc)?;
    let result = between(dst, src, may_wait, |dst, src| copy(dst, src, &mut sum))?;
    summed(result, sum)
}
