//! Hands a signal that is not a copy's on to whoever was below us, as the kernel would have called it.
//!
//! It never goes round for ever ([`super::cycles`]): a handler that chains back to us, or that returns from a fault and
//! has changed nothing about it, is not asked a second time. The next older predecessor is, and after the oldest the
//! default action is taken.

use super::arrival::Arrival;
use super::cycles::{Delegation, Unmended, Witness};
use super::dispositions::{self, Action};
use super::predecessors::Predecessors;
use super::record::{SEGV_ACCERR, SEGV_MAPERR};
use super::threads;
use crate::abi::PAGE_SIZE;
use crate::arch::FaultKind;
use crate::sys::memory;
use std::ptr;

/// Afterwards somebody has taken the signal, or the default action is on its way. `our_level` tells at which level an
/// action is ours.
pub(super) fn hand_on(arrival: &Arrival, predecessors: &Predecessors, our_level: fn(Action) -> Option<usize>) {
    let state = arrival.state();
    let is_again = arrival.is_fault() || arrival.is_raised();
    let (first, witness) = (arrival.level, Witness::default());
    let mut level = if is_again { Unmended::level(arrival.signal, state, first) } else { Some(first) };
    while let Some(at) = level {
        let below = predecessors.below(at);
        match below.handler {
            libc::SIG_IGN if !arrival.is_fault() => return,
            libc::SIG_DFL | libc::SIG_IGN => break,
            _ => {}
        }
        let older = predecessors.older(at);
        if let Some(delegation) = Delegation::begin(arrival, at, &witness) {
            let on_top = dispositions::current(arrival.signal);
            if our_level(on_top) == Some(arrival.level) {
                prepare_as_the_kernel_would(arrival.signal, at, below, predecessors);
            }
            call(arrival, below);
            drop(delegation);
            if is_unmended(arrival, state, on_top) {
                Unmended::put(arrival.signal, state, older);
            }
            return;
        }
        level = older;
    }
    default_action(arrival);
}

/// Blocks the signals that the handler below wants blocked, and calls it for the last time if it wants that. Only if it
/// was the kernel that called us: a handler above us that chains has seen to its own. What is blocked is let through
/// when our handler returns. (The stack may differ: we run on the thread's alternate one if it has one, and so does the
/// handler below.)
fn prepare_as_the_kernel_would(signal: i32, level: usize, below: Action, predecessors: &Predecessors) {
    if below.flags & libc::SA_RESETHAND != 0 {
        predecessors.reset(level);
    }
    let itself = if below.flags & libc::SA_NODEFER == 0 { 1 << (signal - 1) } else { 0 };
    if below.mask | itself != 0 {
        let mask = dispositions::mask_to_libc(below.mask | itself);
        // SAFETY: the set is valid; the old mask is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, ptr::null_mut()) };
    }
}

fn call(arrival: &Arrival, below: Action) {
    if below.flags & libc::SA_SIGINFO != 0 {
        // SAFETY: sigaction gave this address for an SA_SIGINFO handler, which has this type.
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(below.handler) };
        let (info, context) = arrival.pointers();
        handler(arrival.signal, info, context);
    } else {
        // SAFETY: sigaction gave this address for a plain handler, which has this type.
        let handler: extern "C" fn(i32) = unsafe { std::mem::transmute(below.handler) };
        handler(arrival.signal);
    }
}

/// Dies of the signal: at the instruction itself where it will run again, so that the core shows where.
fn default_action(arrival: &Arrival) {
    dispositions::replace(arrival.signal, Action::DEFAULT);
    if !arrival.is_fault() {
        // SAFETY: sends a signal to this very thread.
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                libc::c_long::from(std::process::id().cast_signed()),
                libc::c_long::from(threads::current_tid()),
                libc::c_long::from(arrival.signal),
            )
        };
    }
}

/// Whether the handler below returned and changed nothing: the registers are those that came with the signal, who is
/// `on_top` still is, and the access would fault again, or the signal is on its way again.
fn is_unmended(arrival: &Arrival, state: u64, on_top: Action) -> bool {
    state == arrival.state()
        && dispositions::current(arrival.signal) == on_top
        && (is_pending(arrival.signal) || arrival.is_fault() && would_fault_again(arrival))
}

fn is_pending(signal: i32) -> bool {
    let mut pending = dispositions::mask_to_libc(0);
    // SAFETY: `pending` is ours to fill.
    unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: `pending` is a valid set; the signal exists.
    unsafe { libc::sigismember(&raw const pending, signal) == 1 }
}

/// Whether the access is still not possible, as far as the kernel can tell without making it. What no mapping was the
/// cause of (a general protection fault, misalignment, code that may not run) no mapping has mended.
fn would_fault_again(arrival: &Arrival) -> bool {
    let by_mapping = match arrival.signal {
        libc::SIGBUS => matches!(arrival.code(), libc::BUS_ADRERR | libc::BUS_MCEERR_AR),
        _ => matches!(arrival.code(), SEGV_MAPERR | SEGV_ACCERR),
    };
    let page = arrival.address() / PAGE_SIZE * PAGE_SIZE;
    let Some(kind) = arrival.kind().filter(|kind| by_mapping && *kind != FaultKind::Execute) else { return true };
    match memory::populate(page, 1, kind == FaultKind::Write) {
        Err(libc::EFAULT | libc::ENOMEM | libc::EHWPOISON) => true,
        // Protected; or a kernel before 5.14, which cannot tell, so that it may be mended.
        Err(libc::EINVAL) => memory::is_known_to_populate(),
        _ => false,
    }
}
