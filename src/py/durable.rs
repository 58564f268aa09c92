//! The copies that leave the caches, and what `iovec_rs.pmem` writes back and evicts with.

use super::buffer::{Access, Call};
use super::detach::transfer;
use super::errors::fault_error;
use super::fastcall::{add_functions, fast_function, install};
use super::iter_arg::IterArg;
use super::results::to_mc_result;
use super::run::{between, flat_side, raise_short, run_full, run_short, run_waiting};
use super::values::part;
use crate::copy::{Outcome, flushcache};
use crate::memory::Memory;
use crate::pmem;
use pyo3::prelude::*;

/// Adds the functions to the module: those that are called for every few bytes with a short way in.
pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    add_functions!(
        module,
        copy_from_iter_flushcache,
        copy_from_iter_full_nocache,
        copy_from_iter_nocache,
        copy_to_iter_flushcache,
        memcpy_flushcache,
        memcpy_nocache,
        pmem_drain,
        pmem_flush,
        pmem_invalidate,
        pmem_persist
    );
    install(
        module,
        [
            fast_function!(copy_from_iter_nocache),
            fast_function!(copy_from_iter_full_nocache),
            fast_function!(copy_from_iter_flushcache),
            fast_function!(copy_to_iter_flushcache),
        ],
    )
}

/// `copy_from_iter` that leaves the CPU's caches alone as far as it can: whole lines of `addr` are written past them
/// (`copy_from_iter_nocache`). Fenced once; nothing is promised to be durable.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter_nocache(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    run_short(addr, i, nbytes, Access::Write, flushcache::copy_from_iter_nocache)
}

/// `copy_from_iter_nocache`, all or nothing: a short copy is taken back and `False`. `addr` may be partly written.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter_full_nocache(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    run_full(addr, i, nbytes, Access::Write, flushcache::copy_from_iter_nocache)
}

/// `copy_from_iter` after which every byte counted is durable if its memory is that of a `PmemRegion`, of any
/// granularity, or of a mapping with `MAP_SYNC`, for every kind and also after a short copy
/// (`copy_from_iter_flushcache`). Of other memory it has left the CPU's caches, no more: a file that somebody else has
/// mapped takes an msync, too. Fenced once. OSError if a region's msync fails, or anybody's of that region while this
/// runs: nothing counts, and `i` is where it was. OSError EOPNOTSUPP where the CPU cannot write lines back.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter_flushcache(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    if pmem::flushcache::may_need_msync() {
        let copied = run_waiting(addr, i, nbytes, Access::Write, pmem::flushcache::copy_from_iter_flushcache);
        return raise_short(addr.py(), copied);
    }
    run_short(addr, i, nbytes, Access::Write, flushcache::copy_from_iter_flushcache)
}

/// `copy_to_iter` with the same promise: scattered destinations made durable in one call, fenced once. Pages that
/// another thread puts into an XArray or a FolioQueue meanwhile are stored to, but not msynced. The kernel has no such
/// function: there the iterator is always the source.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_to_iter_flushcache(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    if pmem::flushcache::may_need_msync() {
        let copied = run_waiting(addr, i, nbytes, Access::Read, pmem::flushcache::copy_to_iter_flushcache);
        return raise_short(addr.py(), copied);
    }
    run_short(addr, i, nbytes, Access::Read, flushcache::copy_to_iter_flushcache)
}

/// A flat copy past the CPU's caches. `dst` and `src` are of one length. Returns an `McResult`.
#[pyfunction]
pub(super) fn memcpy_nocache<'py>(dst: &Bound<'py, PyAny>, src: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    between(dst, src, flushcache::memcpy_nocache)
}

/// A flat copy with the promise of `copy_from_iter_flushcache`. `dst` and `src` are of one length. Returns an
/// `McResult`. OSError if a region's msync fails, or anybody's of that region while this runs: nothing counts.
#[pyfunction]
pub(super) fn memcpy_flushcache<'py>(dst: &Bound<'py, PyAny>, src: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if !pmem::flushcache::may_need_msync() {
        return between(dst, src, flushcache::memcpy_flushcache);
    }
    let (mut to, mut from) = (Call::new(), Call::new());
    let target = flat_side(&mut to, dst, Access::Write, "dst")?;
    let source = flat_side(&mut from, src, Access::Read, "src")?;
    let (copied, fault) = dst.py().detach(|| pmem::flushcache::memcpy_flushcache(target, source))?;
    to_mc_result(dst.py(), copied, source.len(), fault.as_deref())
}

/// Writes back the lines of `buffer[offset:offset + length]`, unfenced: `pmem_drain` comes later, once for many.
/// `FaultError` with the bytes written back if the memory is bad.
#[pyfunction]
#[pyo3(signature = (buffer, offset=None, length=None))]
pub(super) fn pmem_flush(
    buffer: &Bound<'_, PyAny>,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    over_range(buffer, offset, length, |py, range| transfer(py, range.len(), || flushcache::flush(range)))
}

/// `pmem_flush` and `pmem_drain`; msync where the memory is that of a `PmemRegion` that needs it.
#[pyfunction]
#[pyo3(signature = (buffer, offset=None, length=None))]
pub(super) fn pmem_persist(
    buffer: &Bound<'_, PyAny>,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    over_range(buffer, offset, length, |py, range| {
        // An msync waits for a device.
        if pmem::needs_msync(range) {
            Ok(py.detach(|| pmem::persist(range))?)
        } else {
            transfer(py, range.len(), || pmem::persist(range))
        }
    })
}

/// Evicts the lines of `buffer[offset:offset + length]` from this CPU's caches, for a reader of memory that others
/// write to past them.
#[pyfunction]
#[pyo3(signature = (buffer, offset=None, length=None))]
pub(super) fn pmem_invalidate(
    buffer: &Bound<'_, PyAny>,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    over_range(buffer, offset, length, |py, range| transfer(py, range.len(), || flushcache::invalidate(range)))
}

/// Waits until everything written back or stored past the caches before has left them.
#[pyfunction]
pub(super) fn pmem_drain() {
    flushcache::drain();
}

fn over_range(
    buffer: &Bound<'_, PyAny>,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
    act: impl FnOnce(Python<'_>, Memory) -> PyResult<Outcome>,
) -> PyResult<()> {
    let mut call = Call::new();
    let whole = flat_side(&mut call, buffer, Access::Read, "buffer")?;
    let wanted = part(whole.seg(), offset, length)?;
    let range = whole.skip(wanted.addr - whole.seg().addr).take(wanted.len);
    match act(buffer.py(), range)? {
        (done, Some(fault)) => Err(fault_error(buffer.py(), &fault, done)),
        (_, None) => Ok(()),
    }
}
