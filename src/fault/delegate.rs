//! Passes a signal that is not ours to the handler below ours, called as the kernel would have called it.
//!
//! This always ends ([`super::cycles`]). A handler that chains back to us, or that returns from a fault without mending
//! it, is not called a second time: the next older predecessor is called instead, and after the oldest the default
//! action is taken.

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

/// Passes the signal on. When this returns, a handler has taken the signal, or the default action will follow.
/// `our_level` returns the level of an action that is ours.
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

/// Does what the kernel does before it calls a handler: blocks the signals of its mask, and replaces it by the default
/// action if it has `SA_RESETHAND`. This is right only if the kernel called us; a handler above ours that chains has
/// its own settings in effect. The kernel restores the mask when our handler returns. One difference remains: we run on
/// the thread's alternate stack if it has one, and so does the handler below, whether it has `SA_ONSTACK` or not.
fn prepare_as_the_kernel_would(signal: i32, level: usize, below: Action, predecessors: &Predecessors) {
    if below.flags & libc::SA_RESETHAND != 0 {
        predecessors.reset(level);
    }
    let itself = if below.flags & libc::SA_NODEFER == 0 { 1 << (signal - 1) } else { 0 };
    if below.mask | itself != 0 {
        let mask = dispositions::mask_to_libc(below.mask | itself);
        // SAFETY: the set is a local; a null old mask is not filled.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, ptr::null_mut()) };
    }
}

fn call(arrival: &Arrival, below: Action) {
    if below.flags & libc::SA_SIGINFO != 0 {
        // SAFETY: `sigaction` returned this address with SA_SIGINFO, so it is a function of this type.
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { std::mem::transmute(below.handler) };
        let (info, context) = arrival.pointers();
        handler(arrival.signal, info, context);
    } else {
        // SAFETY: `sigaction` returned this address without SA_SIGINFO, and it is neither SIG_DFL nor SIG_IGN, which
        // `hand_on` excludes: it is a function of this type.
        let handler: extern "C" fn(i32) = unsafe { std::mem::transmute(below.handler) };
        handler(arrival.signal);
    }
}

/// Lets the process die of the signal. After a fault the instruction runs again and faults under the default action, so
/// that the core dump shows where. Any other signal is sent again.
fn default_action(arrival: &Arrival) {
    dispositions::replace(arrival.signal, Action::DEFAULT);
    if !arrival.is_fault() {
        // SAFETY: the call has no memory arguments; it sends the signal to this thread.
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

/// Whether the handler below returned without having changed anything: the registers are still those that came with the
/// signal, the action on the signal is still `on_top`, and either the signal is pending again or the access would fault
/// again.
fn is_unmended(arrival: &Arrival, state: u64, on_top: Action) -> bool {
    state == arrival.state()
        && dispositions::current(arrival.signal) == on_top
        && (is_pending(arrival.signal) || arrival.is_fault() && would_fault_again(arrival))
}

fn is_pending(signal: i32) -> bool {
    let mut pending = dispositions::mask_to_libc(0);
    // SAFETY: the call fills `pending`, a local.
    unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: `pending` is a set that the call above filled, and `signal` is one that the kernel sent.
    unsafe { libc::sigismember(&raw const pending, signal) == 1 }
}

/// Whether the access is still impossible, as far as the kernel tells without making it. A fault that no mapping caused
/// (a general protection fault, misalignment, a fetch of code that may not be executed) counts as still there, since no
/// mapping can have mended it.
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
