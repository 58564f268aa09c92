//! Non-temporal and durable copies, and the functions of `iovec_rs.pmem` that write back and evict cache lines.

use super::buffer::{Access, Call};
use super::detach::transfer;
use super::errors::fault_error_of;
use super::fastcall::{add_functions, fast_function, install};
use super::iter_arg::IterArg;
use super::run::{between, flat_side, raise_short, run_full, run_short, run_waiting};
use super::values::part;
use crate::copy::{Outcome, flushcache};
use crate::memory::Memory;
use crate::pmem;
use pyo3::prelude::*;

/// Adds the functions to the module. Those that programs call for a few bytes at a time get a fast entry.
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

/// `copy_from_iter` with non-temporal stores: whole cache lines of `addr` are written past the CPU's caches
/// (`copy_from_iter_nocache`). It fences once. It promises no durability.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter_nocache(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    run_short(addr, i, nbytes, Access::Write, flushcache::copy_from_iter_nocache)
}

/// `copy_from_iter_nocache`, all or nothing. After a short copy the iterator is back where it was and the result is
/// `False`; `addr` may be partly written.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter_full_nocache(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    run_full(addr, i, nbytes, Access::Write, flushcache::copy_from_iter_nocache)
}

/// `copy_from_iter` whose bytes are durable when it returns, if `addr` is in a `PmemRegion`, of any granularity, or in
/// a mapping with `MAP_SYNC` (`copy_from_iter_flushcache`). That holds for every kind, and for the bytes counted of a
/// short copy. In other memory the bytes have only left the CPU's caches; a file that was mapped in another way needs
/// an msync, too. It fences once. OSError if an msync of the region fails, this call's or any other's while it runs:
/// then no byte counts, and `i` is where it was. OSError EOPNOTSUPP if the CPU cannot write cache lines back.
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

/// `copy_to_iter` with the durability of `copy_from_iter_flushcache`: it makes scattered destinations durable in one
/// call, with one fence. If another thread puts pages into an XArray or a FolioQueue meanwhile, they are stored to, but
/// not msynced. The kernel has no such function: there the iterator is always the source.
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

/// Copies `src` to `dst`, which has the same length, with non-temporal stores. Returns an `McResult`.
#[pyfunction]
pub(super) fn memcpy_nocache<'py>(dst: &Bound<'py, PyAny>, src: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    between(dst, src, false, flushcache::memcpy_nocache)
}

/// Copies `src` to `dst`, which has the same length, with the durability of `copy_from_iter_flushcache`. Returns an
/// `McResult`. OSError if an msync of the region fails, this call's or any other's while it runs: then no byte counts.
#[pyfunction]
pub(super) fn memcpy_flushcache<'py>(dst: &Bound<'py, PyAny>, src: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if pmem::flushcache::may_need_msync() {
        return between(dst, src, true, pmem::flushcache::memcpy_flushcache);
    }
    between(dst, src, false, flushcache::memcpy_flushcache)
}

/// Writes back the cache lines of `buffer[offset:offset + length]`, without a fence: call `pmem_drain` once after
/// several of these. `FaultError`, with the number of bytes written back, if the memory is bad.
#[pyfunction]
#[pyo3(signature = (buffer, offset=None, length=None))]
pub(super) fn pmem_flush(
    buffer: &Bound<'_, PyAny>,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    over_range(buffer, offset, length, "to be written back", |py, range| {
        transfer(py, range.len(), || flushcache::flush(range))
    })
}

/// Makes `buffer[offset:offset + length]` durable: by an msync if the memory is in a `PmemRegion` that needs one,
/// otherwise by `pmem_flush` and `pmem_drain`.
#[pyfunction]
#[pyo3(signature = (buffer, offset=None, length=None))]
pub(super) fn pmem_persist(
    buffer: &Bound<'_, PyAny>,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    over_range(buffer, offset, length, "to be made durable", |py, range| {
        // An msync waits for a device, so it runs without the interpreter.
        if pmem::needs_msync(range) {
            Ok(py.detach(|| pmem::persist(range))?)
        } else {
            transfer(py, range.len(), || pmem::persist(range))
        }
    })
}

/// Evicts the cache lines of `buffer[offset:offset + length]` from the CPU's caches. The next read then comes from the
/// memory, which a device or another host may have written to directly.
#[pyfunction]
#[pyo3(signature = (buffer, offset=None, length=None))]
pub(super) fn pmem_invalidate(
    buffer: &Bound<'_, PyAny>,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    over_range(buffer, offset, length, "to be evicted", |py, range| {
        transfer(py, range.len(), || flushcache::invalidate(range))
    })
}

/// Waits until every earlier write-back and non-temporal store has left the CPU's caches: a store fence.
#[pyfunction]
pub(super) fn pmem_drain() {
    flushcache::drain();
}

fn over_range(
    buffer: &Bound<'_, PyAny>,
    offset: Option<&Bound<'_, PyAny>>,
    length: Option<&Bound<'_, PyAny>>,
    role: &str,
    act: impl FnOnce(Python<'_>, Memory) -> PyResult<Outcome>,
) -> PyResult<()> {
    let mut call = Call::new();
    let whole = flat_side(&mut call, buffer, Access::Read, "buffer")?;
    let wanted = part(whole.seg(), offset, length)?;
    let range = whole.skip(wanted.addr - whole.seg().addr).take(wanted.len);
    match act(buffer.py(), range)? {
        (done, Some(fault)) => Err(fault_error_of(buffer.py(), &fault, done, role)),
        (_, None) => Ok(()),
    }
}
