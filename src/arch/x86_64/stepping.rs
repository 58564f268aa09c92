//! Runs code one instruction at a time (the CPU's trap flag), so that tests can change memory between any two accesses.

use crate::arch::guard;
use core::arch::asm;
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

type Turn<'a> = dyn FnMut() + 'a;

thread_local! {
    /// The closure that this thread's `stepped` calls before each guarded access; `None` in other threads.
    static BEFORE_ACCESS: Cell<Option<*mut Turn<'static>>> = const { Cell::new(None) };
}

/// Lets one thread step at a time, because the SIGTRAP handler is process-wide.
static STEPPING: Mutex<()> = Mutex::new(());

/// Runs `run`, and calls `before_access` whenever its next instruction is a guarded access. The closure runs in a
/// signal handler: it may make system calls and change what it captured, and must do nothing else.
pub(crate) fn stepped<R>(mut before_access: impl FnMut(), run: impl FnOnce() -> R) -> R {
    let _one = STEPPING.lock().unwrap_or_else(PoisonError::into_inner);
    let before_access: &mut Turn = &mut before_access;
    // SAFETY: only the lifetime changes; `BEFORE_ACCESS` is set to `None` below, before the borrow ends.
    let before_access: *mut Turn<'static> = unsafe { std::mem::transmute(before_access) };
    BEFORE_ACCESS.set(Some(before_access));
    // SAFETY: `sigaction` is a C struct of integers and pointers, for which all zeroes are valid.
    let (mut action, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_step as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: both structs are locals, and `on_step` has the signature that SA_SIGINFO requires.
    assert_eq!(unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, &raw mut old) }, 0);
    // SAFETY: sets the trap flag; `on_step`, just installed, handles the SIGTRAP behind each instruction.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = run();
    // SAFETY: clears the trap flag.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    // SAFETY: `old` is the action that the call above replaced.
    unsafe { libc::sigaction(libc::SIGTRAP, &raw const old, std::ptr::null_mut()) };
    BEFORE_ACCESS.set(None);
    result
}

extern "C" fn on_step(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let registers = super::signal::registers(context);
    // SAFETY: the kernel passed this context to this handler.
    let next = unsafe { (*registers)[libc::REG_RIP as usize] } as usize;
    if let (Some(before_access), Some(_)) = (BEFORE_ACCESS.get(), guard::find(next)) {
        // SAFETY: the closure lives in `stepped`, which clears the trap flag before it returns; only this thread's
        // handler calls it, and a handler does not step itself.
        unsafe { (*before_access)() };
    }
}
