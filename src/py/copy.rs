//! The plain copies, those of pages, and those between two iterators.

use super::buffer::{self, Access, ArgName};
use super::detach::transfer;
use super::errors::{raise, trusted_fault};
use super::exception::exception;
use super::fastcall::{add_functions, fast_function, install};
use super::iter_arg::{IterArg, iterator};
use super::run::{run_full, run_short};
use super::values::{optional_size, size};
use crate::abi::Kind;
use crate::copy;
use crate::fault::Side;
use crate::structure::headroom;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;

/// Adds the functions to the module: those that are called for every few bytes with a short way in.
pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    add_functions!(
        module,
        copy_from_iter,
        copy_from_iter_full,
        copy_iter,
        copy_page_from_iter,
        copy_page_from_iter_atomic,
        copy_page_to_iter,
        copy_to_iter,
        copy_to_iter_full
    );
    install(
        module,
        [
            fast_function!(copy_to_iter),
            fast_function!(copy_from_iter),
            fast_function!(copy_to_iter_full),
            fast_function!(copy_from_iter_full),
        ],
    )
}

/// Copies `nbytes` bytes (by default, all) of `addr` into the iterator, which advances by the bytes copied; returns
/// their number (`copy_to_iter`). The copy is short at `count`, a full pipe, a hole, the end of a queue, or bad memory;
/// in that case `i.fault` says why. Over trusted memory bad memory raises `FaultError`, with `.copied`.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
#[inline(always)]
#[allow(clippy::inline_always)] // into the short way in: 2 ns a call
pub(super) fn copy_to_iter(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    run_short(addr, i, nbytes, Access::Read, copy::copy_to_iter)
}

/// Copies `nbytes` bytes (by default, the length of `addr`) out of the iterator to `addr`; returns the bytes copied
/// (`copy_from_iter`). It is short and raises as `copy_to_iter` does.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
#[inline(always)]
#[allow(clippy::inline_always)] // into the short way in: 2 ns a call
pub(super) fn copy_from_iter(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    run_short(addr, i, nbytes, Access::Write, copy::copy_from_iter)
}

/// `copy_to_iter`, all or nothing: after a short copy the iterator is moved back and the result is `False`
/// (`copy_to_iter_full`).
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_to_iter_full(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    run_full(addr, i, nbytes, Access::Read, copy::copy_to_iter)
}

/// `copy_from_iter`, all or nothing: after a short copy the iterator is moved back and the result is `False`
/// (`copy_from_iter_full`). `addr` may be partly written.
#[pyfunction]
#[pyo3(signature = (addr, i, nbytes=None))]
pub(super) fn copy_from_iter_full(
    addr: &Bound<'_, PyAny>,
    i: IterArg<'_>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    run_full(addr, i, nbytes, Access::Write, copy::copy_from_iter)
}

/// Copies `page[offset:offset + nbytes]` into the iterator (`copy_page_to_iter`). A PIPE gets a reference to the page
/// instead, to all bytes or none: the pipe shows later changes of the page.
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
    let mut used = i.lock(page.py())?;
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
        return Err(exception::<PyBufferError>("page: read-only memory cannot be a destination"));
    }
    let mut used = i.lock(page.py())?;
    let core = &mut used.core;
    let copied = transfer(page.py(), nbytes, || copy::copy_page_from_iter(&held, offset, nbytes, core))?;
    let fault = trusted_fault(core);
    drop(used);
    raise(page.py(), fault, copied)?;
    Ok(copied)
}

/// `copy_page_from_iter` that returns a short count for bad memory over every kind (`copy_page_from_iter_atomic`). The
/// iterator advances by the bytes copied.
#[pyfunction]
pub(super) fn copy_page_from_iter_atomic(
    page: &Bound<'_, PyAny>,
    offset: &Bound<'_, PyAny>,
    nbytes: &Bound<'_, PyAny>,
    i: IterArg<'_>,
) -> PyResult<usize> {
    copy_page_from_iter(page, offset, nbytes, i)
}

/// Copies `nbytes` bytes (by default, as many as both have) from `src` to `dst`. Both advance by the bytes copied,
/// whose number is returned.
#[pyfunction]
#[pyo3(signature = (dst, src, nbytes=None))]
pub(super) fn copy_iter(
    dst: &Bound<'_, PyAny>,
    src: &Bound<'_, PyAny>,
    nbytes: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let (to, from) = (iterator("dst", dst.as_borrowed())?, iterator("src", src.as_borrowed())?);
    if dst.is(src) {
        return Err(exception::<PyValueError>(
            "dst and src are one iterator: dup() makes a second cursor over its memory",
        ));
    }
    let nbytes = optional_size("nbytes", nbytes)?;
    let (mut to, mut from) = (to.lock(dst.py())?, from.lock(dst.py())?);
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
