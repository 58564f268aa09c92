//! The registers of the code that a signal interrupted: what the handler reads from them and changes in them.

use crate::arch::guard::{self, Trap};
use crate::arch::{FaultKind, extent};

/// The registers in a signal context, by the numbers `libc::REG_*`.
type Registers = [libc::greg_t; 23];

/// Their address in the context that the kernel passes to an `SA_SIGINFO` handler.
pub(super) fn registers(context: *mut libc::c_void) -> *mut Registers {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: only the field's address is computed; the kernel's context is a whole `ucontext_t`, valid while the
    // handler runs.
    unsafe { &raw mut (*context).uc_mcontext.gregs }
}

/// If the interrupted instruction is a guarded access, changes the context so that the thread goes on at its fixup:
/// `r8` gets the signal's address, `r9` the rest of what `Trap::encode` packs. Clears the direction flag, as the ABI
/// has it on return. `false`, with nothing changed, if it is no guarded access.
///
/// # Safety
/// `info` and `context` are those of a SIGBUS or SIGSEGV that a fault raised, inside its handler.
pub(crate) unsafe fn resume(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    const DIRECTION_FLAG: i64 = 0x400;
    // SAFETY: by `resume`'s contract the context is the running handler's own, for a fault, as `fault_kind` requires.
    let is_write = unsafe { fault_kind(context) } == FaultKind::Write;
    // SAFETY: by `resume`'s contract the context is that of the running handler, on this thread's stack, where nobody
    // else refers to it.
    let registers = unsafe { &mut *registers(context) };
    let Some(entry) = guard::find(registers[libc::REG_RIP as usize] as usize) else { return false };
    // SAFETY: by `resume`'s contract `info` is what the kernel passed to the running handler.
    let info = unsafe { &*info };
    // SAFETY: the kernel fills the address of a SIGBUS or SIGSEGV that a fault raised, which `resume`'s contract says
    // it is.
    let address = unsafe { info.si_addr() };
    let (code, lsb) = (info.si_code, extent(info));
    registers[libc::REG_R8 as usize] = address.addr() as i64;
    registers[libc::REG_R9 as usize] = Trap::encode(signal, is_write, code, lsb, entry.meta).cast_signed();
    registers[libc::REG_RIP as usize] = entry.fixup as i64;
    registers[libc::REG_EFL as usize] &= !DIRECTION_FLAG;
    true
}

/// A hash of the instruction pointer and the general registers. Two contexts in which the same instruction would run
/// with the same registers have the same hash; two others hardly ever do.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running.
pub(crate) unsafe fn state(context: *mut libc::c_void) -> u64 {
    const GENERAL_AND_POINTER: usize = libc::REG_RIP as usize + 1;
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    // SAFETY: by `state`'s contract the context is that of the running handler; the registers are copied out at once.
    let registers = unsafe { *registers(context) };
    let mix = |state: u64, register: &i64| (state.rotate_left(29) ^ register.cast_unsigned()).wrapping_mul(ODD);
    registers[..GENERAL_AND_POINTER].iter().fold(0, mix)
}

/// What the instruction that faulted was doing.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running, for a fault.
pub(crate) unsafe fn fault_kind(context: *mut libc::c_void) -> FaultKind {
    // Bits of the page fault's error code, which the CPU sets.
    const WRITE: i64 = 1 << 1;
    const FETCH: i64 = 1 << 4;
    // SAFETY: by `fault_kind`'s contract the context is that of the running handler; the registers are copied out at
    // once.
    let error = unsafe { *registers(context) }[libc::REG_ERR as usize];
    match error {
        _ if error & FETCH != 0 => FaultKind::Execute,
        _ if error & WRITE != 0 => FaultKind::Write,
        _ => FaultKind::Read,
    }
}
