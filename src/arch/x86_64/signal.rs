//! What a signal handler reads from, and changes in, the context of the code it interrupted.

use crate::arch::guard::{self, Trap};
use crate::arch::{FaultKind, extent};

/// The general registers of the code a signal interrupted.
type Registers = [libc::greg_t; 23];

/// Where the context that the kernel passes to an `SA_SIGINFO` handler has them.
pub(super) fn registers(context: *mut libc::c_void) -> *mut Registers {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: only the field's place is computed, in a context that is valid for as long as the handler runs.
    unsafe { &raw mut (*context).uc_mcontext.gregs }
}

/// Goes on at the fixup if the interrupted instruction is a guarded access: signal, code and extent are left in two
/// registers. `false` if it is none.
///
/// # Safety
/// `info` and `context` are those of a SIGBUS or SIGSEGV that a fault raised, inside its handler.
pub(crate) unsafe fn resume(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    const DIRECTION_FLAG: i64 = 0x400;
    // SAFETY: the context is this handler's own, for a fault: `resume`'s contract.
    let is_write = unsafe { fault_kind(context) } == FaultKind::Write;
    // SAFETY: the caller of `resume` promises it; nobody else has the context of this thread's own handler.
    let registers = unsafe { &mut *registers(context) };
    let Some(entry) = guard::find(registers[libc::REG_RIP as usize] as usize) else { return false };
    // SAFETY: the caller of `resume` promises it.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS and SIGSEGV that are faults fill the address.
    let address = unsafe { info.si_addr() };
    let (code, lsb) = (info.si_code, extent(info));
    registers[libc::REG_R8 as usize] = address.addr() as i64;
    registers[libc::REG_R9 as usize] = Trap::encode(signal, is_write, code, lsb, entry.meta).cast_signed();
    registers[libc::REG_RIP as usize] = entry.fixup as i64;
    registers[libc::REG_EFL as usize] &= !DIRECTION_FLAG;
    true
}

/// A number that two contexts share if the same instruction would run with the same registers, and hardly any others
/// do.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running.
pub(crate) unsafe fn state(context: *mut libc::c_void) -> u64 {
    const GENERAL_AND_POINTER: usize = libc::REG_RIP as usize + 1;
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    // SAFETY: the caller of `state` promises it; the registers are copied out at once.
    let registers = unsafe { *registers(context) };
    let mix = |state: u64, register: &i64| (state.rotate_left(29) ^ register.cast_unsigned()).wrapping_mul(ODD);
    registers[..GENERAL_AND_POINTER].iter().fold(0, mix)
}

/// What the instruction that faulted was doing.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running, for a fault.
pub(crate) unsafe fn fault_kind(context: *mut libc::c_void) -> FaultKind {
    // Bits of the page fault's error code.
    const WRITE: i64 = 1 << 1;
    const FETCH: i64 = 1 << 4;
    // SAFETY: the caller of `fault_kind` promises it; the registers are copied out at once.
    let error = unsafe { *registers(context) }[libc::REG_ERR as usize];
    match error {
        _ if error & FETCH != 0 => FaultKind::Execute,
        _ if error & WRITE != 0 => FaultKind::Write,
        _ => FaultKind::Read,
    }
}
