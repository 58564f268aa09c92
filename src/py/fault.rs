//! The functions behind `iovec_rs.fault_handler`: they show and change how faults are handled.

use super::exception::Text;
use crate::error::{Error, Excerpt};
use crate::fault::arm::{self, Mode};
use crate::fault::handler::{self, Owner, SIGNALS};
use pyo3::prelude::*;

const MODES: [(&str, Mode); 3] = [("auto", Mode::Auto), ("signal", Mode::Signal), ("syscall", Mode::Syscall)];

/// Installs the handler for SIGBUS and SIGSEGV, in front of any other.
#[pyfunction]
pub(super) fn fault_handler_install() -> PyResult<()> {
    arm::invalidate_all();
    if handler::install() { Ok(()) } else { Err(Error::Handler(handler::KEPT_FROM).into()) }
}

/// Restores the earlier handler of each signal that is still handled by ours, after waiting until no other thread is in
/// a copy. `RuntimeError` while a guard is entered, because a guard needs the handler.
#[pyfunction]
pub(super) fn fault_handler_uninstall(py: Python<'_>) -> PyResult<()> {
    Ok(py.detach(arm::uninstall)?)
}

/// The mode in which faults are handled.
#[pyfunction]
pub(super) fn fault_handler_mode() -> Text<&'static str> {
    MODES.iter().find(|(_, mode)| *mode == arm::mode()).map_or(Text("auto"), |(name, _)| Text(name))
}

/// Sets the mode in which faults are handled from now on.
#[pyfunction]
pub(super) fn fault_handler_set_mode(name: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = super::values::text("name", name)?;
    let Some((_, mode)) = MODES.iter().find(|(known, _)| *known == name) else {
        return Err(Error::invalid("name", Excerpt(name), "\"auto\", \"signal\" or \"syscall\"").into());
    };
    arm::set_mode(*mode);
    Ok(())
}

/// Returns the mode, whether the handler is installed, who owns SIGBUS, who owns SIGSEGV, and how many faults were
/// recovered so far.
#[pyfunction]
pub(super) fn fault_handler_status() -> (Text<&'static str>, bool, Text<&'static str>, Text<&'static str>, u64) {
    let owner = |signal| match handler::owner(signal) {
        Owner::Ours => "ours",
        Owner::Default => "default",
        Owner::Ignored => "ignored",
        Owner::Foreign => "foreign",
    };
    let [sigbus, sigsegv] = SIGNALS.map(owner).map(Text);
    (fault_handler_mode(), handler::is_installed(), sigbus, sigsegv, handler::recovered())
}
