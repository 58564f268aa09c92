//! The registers of the code that a signal interrupted: what the handler reads from them and changes in them.

use crate::arch::guard::{self, Trap};
use crate::arch::{FaultKind, extent};

/// The address of the registers in the context that the kernel passes to an `SA_SIGINFO` handler.
fn registers(context: *mut libc::c_void) -> *mut libc::mcontext_t {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: only the field's address is computed; the kernel's context is a whole `ucontext_t`, valid while the
    // handler runs.
    unsafe { &raw mut (*context).uc_mcontext }
}

/// If the interrupted instruction is a guarded access, changes the context so that the thread goes on at its fixup:
/// `x9` gets the signal's address, `x10` the rest of what `Trap::encode` packs. `false`, with nothing changed, if it is
/// no guarded access.
///
/// # Safety
/// `info` and `context` are those of a SIGBUS or SIGSEGV that a fault raised, inside its handler.
pub(crate) unsafe fn resume(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    // SAFETY: by `resume`'s contract the context is the running handler's own, for a fault, as `fault_kind` requires.
    let is_write = unsafe { fault_kind(context) } == FaultKind::Write;
    // SAFETY: by `resume`'s contract the context is that of the running handler, on this thread's stack, where nobody
    // else refers to it.
    let registers = unsafe { &mut *registers(context) };
    let Some(entry) = guard::find(registers.pc as usize) else { return false };
    // SAFETY: by `resume`'s contract `info` is what the kernel passed to the running handler.
    let info = unsafe { &*info };
    // SAFETY: the kernel fills the address of a SIGBUS or SIGSEGV that a fault raised, which `resume`'s contract says
    // it is.
    let address = unsafe { info.si_addr() };
    registers.regs[9] = address.addr() as u64;
    registers.regs[10] = Trap::encode(signal, is_write, info.si_code, extent(info), entry.meta);
    registers.pc = entry.fixup as u64;
    true
}

/// A hash of the program counter, the stack pointer and the general registers. Two contexts in which the same
/// instruction would run with the same registers have the same hash; two others hardly ever do.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running.
pub(crate) unsafe fn state(context: *mut libc::c_void) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    // SAFETY: by `state`'s contract the context is that of the running handler, which nobody changes while this runs.
    let registers = unsafe { &*registers(context) };
    let mix = |state: u64, register: &u64| (state.rotate_left(29) ^ register).wrapping_mul(ODD);
    registers.regs.iter().chain([&registers.sp, &registers.pc]).fold(0, mix)
}

/// What the instruction that faulted was doing.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running, for a fault.
pub(crate) unsafe fn fault_kind(context: *mut libc::c_void) -> FaultKind {
    /// The exception classes of the syndrome: the fetch of an instruction failed, or an access to data did.
    const FETCH: u64 = 0x20;
    const DATA: u64 = 0x24;
    /// Bits for an access to data: it was a store; it was a cache operation, which is reported as a store but only
    /// needs to read.
    const STORE: u64 = 1 << 6;
    const CACHE: u64 = 1 << 8;
    // SAFETY: by `fault_kind`'s contract the context is that of the running handler, as `syndrome` requires.
    match unsafe { syndrome(context) } {
        Some(syndrome) if syndrome >> 26 == FETCH => FaultKind::Execute,
        Some(syndrome) if syndrome >> 26 == DATA && syndrome & (STORE | CACHE) == STORE => FaultKind::Write,
        Some(_) | None => FaultKind::Read,
    }
}

/// The exception's syndrome (`ESR_EL1`), if the kernel reports it. It is in one of the records behind the registers;
/// each record begins with its magic number and its length.
///
/// # Safety
/// `context` is what the kernel passed to the handler that is running.
unsafe fn syndrome(context: *mut libc::c_void) -> Option<u64> {
    /// The offset of the records: behind the fault's address, 31 registers, the stack pointer, the program counter and
    /// the processor state, rounded up to 16 bytes.
    const RECORDS: usize = (35_usize * size_of::<u64>()).next_multiple_of(16);
    const ROOM: usize = 4096;
    const ESR_MAGIC: u32 = 0x4553_5201;
    let records = registers(context).cast::<[u64; 2]>().wrapping_byte_add(RECORDS);
    let mut at = 0;
    while at + 16 <= ROOM {
        // SAFETY: `at + 16 <= ROOM`, so the 16 bytes lie in the room that every context has for records; `at` is a
        // multiple of 16, as the lengths are.
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

    /// The kind of fault of a context with these records, each given by its magic number, its length and its first
    /// datum.
    fn kind(records: &[(u32, u32, u64)]) -> FaultKind {
        let mut context = MaybeUninit::<libc::ucontext_t>::zeroed();
        let start = super::registers(context.as_mut_ptr().cast()).cast::<u64>().wrapping_add(36);
        let mut at = 0;
        for (magic, length, datum) in records {
            let record = start.wrapping_byte_add(at).cast::<[u64; 2]>();
            // SAFETY: the records of the tests are shorter than the 4096 bytes that the context has for them.
            unsafe { record.write([u64::from(*magic) | u64::from(*length) << 32, *datum]) };
            at += *length as usize;
        }
        // SAFETY: the context is a local, with records that end within it.
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
