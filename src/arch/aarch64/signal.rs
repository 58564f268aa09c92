//! What a signal handler reads from, and changes in, the context of the code it interrupted.

use crate::arch::guard::{self, Trap};
use crate::arch::{FaultKind, extent};

/// Where the context that the kernel passes to an `SA_SIGINFO` handler has the registers.
fn registers(context: *mut libc::c_void) -> *mut libc::mcontext_t {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: only the field's place is computed, in a context that is valid for as long as the handler runs.
    unsafe { &raw mut (*context).uc_mcontext }
}

/// Goes on at the fixup if the interrupted instruction is a guarded access: signal, code and extent are left in two
/// registers. `false` if it is none.
///
/// # Safety
/// `info` and `context` are those of a SIGBUS or SIGSEGV that a fault raised, inside its handler.
pub(crate) unsafe fn resume(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    // SAFETY: the context is this handler's own, for a fault: `resume`'s contract.
    let is_write = unsafe { fault_kind(context) } == FaultKind::Write;
    // SAFETY: the caller of `resume` promises it; nobody else has the context of this thread's own handler.
    let registers = unsafe { &mut *registers(context) };
    let Some(entry) = guard::find(registers.pc as usize) else { return false };
    // SAFETY: the caller of `resume` promises it.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS and SIGSEGV that are faults fill the address.
    let address = unsafe { info.si_addr() };
    registers.regs[9] = address.addr() as u64;
    registers.regs[10] = Trap::encode(signal, is_write, info.si_code, extent(info), entry.meta);
    registers.pc = entry.fixup as u64;
    true
}

/// A number that two contexts share if the same instruction would run with the same registers, and hardly any others
/// do.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running.
pub(crate) unsafe fn state(context: *mut libc::c_void) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    // SAFETY: the caller of `state` promises it; nobody changes the context meanwhile.
    let registers = unsafe { &*registers(context) };
    let mix = |state: u64, register: &u64| (state.rotate_left(29) ^ register).wrapping_mul(ODD);
    registers.regs.iter().chain([&registers.sp, &registers.pc]).fold(0, mix)
}

/// What the instruction that faulted was doing.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running, for a fault.
pub(crate) unsafe fn fault_kind(context: *mut libc::c_void) -> FaultKind {
    /// Exception classes of the syndrome: an instruction that could not be fetched, a datum that could not be had.
    const FETCH: u64 = 0x20;
    const DATA: u64 = 0x24;
    /// Of a datum: by a store; by a cache operation, which counts as one and only has to read.
    const STORE: u64 = 1 << 6;
    const CACHE: u64 = 1 << 8;
    // SAFETY: the caller of `fault_kind` promises it.
    match unsafe { syndrome(context) } {
        Some(syndrome) if syndrome >> 26 == FETCH => FaultKind::Execute,
        Some(syndrome) if syndrome >> 26 == DATA && syndrome & (STORE | CACHE) == STORE => FaultKind::Write,
        Some(_) | None => FaultKind::Read,
    }
}

/// The exception's syndrome (`ESR_EL1`), if the kernel tells: one of the records behind the registers, each of which
/// begins with its magic number and its length.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running.
unsafe fn syndrome(context: *mut libc::c_void) -> Option<u64> {
    /// The records begin at the next 16 bytes behind the fault's address, 31 registers, the stack's and the program's
    /// pointer and the state.
    const RECORDS: usize = (35_usize * size_of::<u64>()).next_multiple_of(16);
    const ROOM: usize = 4096;
    const ESR_MAGIC: u32 = 0x4553_5201;
    let records = registers(context).cast::<[u64; 2]>().wrapping_byte_add(RECORDS);
    let mut at = 0;
    while at + 16 <= ROOM {
        // SAFETY: `at + 16 <= ROOM`: it lies in the room that every context has for records, whose lengths are
        // multiples of 16.
        let [head, datum] = unsafe { records.wrapping_byte_add(at).read() };
        let [magic, length] = [head as u32, (head >> 32) as u32];
        match magic {
            ESR_MAGIC => return Some(datum),
            0 => return None,
            _ if length == 0 || !length.is_multiple_of(16) => return None,
            _ => at += length as usize,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::fault_kind;
    use crate::arch::FaultKind;
    use std::mem::MaybeUninit;

    /// What a context whose records are these, a magic number, a length and a datum each, says of its fault.
    fn kind(records: &[(u32, u32, u64)]) -> FaultKind {
        let mut context = MaybeUninit::<libc::ucontext_t>::zeroed();
        let start = super::registers(context.as_mut_ptr().cast()).cast::<u64>().wrapping_add(36);
        let mut at = 0;
        for (magic, length, datum) in records {
            let record = start.wrapping_byte_add(at).cast::<[u64; 2]>();
            // SAFETY: the records given are less than the 4096 bytes that the context has for them.
            unsafe { record.write([u64::from(*magic) | u64::from(*length) << 32, *datum]) };
            at += *length as usize;
        }
        // SAFETY: the context is this function's own, with records that end within it.
        unsafe { fault_kind(context.as_mut_ptr().cast()) }
    }

    #[test]
    fn the_syndrome_behind_other_records_tells_what_the_instruction_did() {
        const REGISTERS: (u32, u32, u64) = (0x4650_8001, 528, 0);
        let of = |syndrome| kind(&[REGISTERS, (0x4553_5201, 16, syndrome), (0, 0, 0)]);
        assert_eq!(of(0x24 << 26 | 1 << 6 | 7), FaultKind::Write, "a store");
        assert_eq!(of(0x24 << 26 | 7), FaultKind::Read, "a load");
        assert_eq!(of(0x24 << 26 | 1 << 8 | 1 << 6 | 7), FaultKind::Read, "a cache operation");
        assert_eq!(of(0x20 << 26 | 7), FaultKind::Execute, "a fetch");
        assert_eq!(kind(&[REGISTERS, (0, 0, 0)]), FaultKind::Read, "nothing is told");
        assert_eq!(kind(&[(7, 0, 0)]), FaultKind::Read, "a record without a length");
        assert_eq!(kind(&[(7, 4096, 0)]), FaultKind::Read, "no room behind it");
    }
}
