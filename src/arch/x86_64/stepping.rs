//! Runs code one instruction at a time, for tests of what happens between any two of them.

use crate::arch::guard;
use core::arch::asm;
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

type Turn<'a> = dyn FnMut() + 'a;

thread_local! {
    /// What the thread that is stepping does before each guarded access.
    static BEFORE_ACCESS: Cell<Option<*mut Turn<'static>>> = const { Cell::new(None) };
}

/// One thread at a time: the handler is the process's.
static STEPPING: Mutex<()> = Mutex::new(());

/// Calls `before_access` whenever the next instruction of `run` is an access that is in a routine's table. It runs in a
/// signal handler, and so may make system calls and change what it captured, and nothing else.
pub(crate) fn stepped<R>(mut before_access: impl FnMut(), run: impl FnOnce() -> R) -> R {
    let _one = STEPPING.lock().unwrap_or_else(PoisonError::into_inner);
    let before_access: &mut Turn = &mut before_access;
    // SAFETY: the lifetime alone is changed; the pointer is taken away again before the borrow ends.
    let before_access: *mut Turn<'static> = unsafe { std::mem::transmute(before_access) };
    BEFORE_ACCESS.set(Some(before_access));
    // SAFETY: all zeroes are a valid action.
    let (mut action, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_step as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: both structs are ours, and the handler has the type that SA_SIGINFO asks for.
    assert_eq!(unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, &raw mut old) }, 0);
    // SAFETY: sets the trap flag, whose signal the handler just installed takes.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = run();
    // SAFETY: clears the trap flag.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    // SAFETY: the action that was there before.
    unsafe { libc::sigaction(libc::SIGTRAP, &raw const old, std::ptr::null_mut()) };
    BEFORE_ACCESS.set(None);
    result
}

extern "C" fn on_step(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let registers = super::signal::registers(context);
    // SAFETY: the context is this handler's own.
    let next = unsafe { (*registers)[libc::REG_RIP as usize] } as usize;
    if let (Some(before_access), Some(_)) = (BEFORE_ACCESS.get(), guard::find(next)) {
        // SAFETY: `stepped` keeps the closure until the trap flag is cleared, and nobody else calls it.
        unsafe { (*before_access)() };
    }
}
