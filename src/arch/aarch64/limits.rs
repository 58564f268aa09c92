//! Loops of loads alone and of stores alone, over the caller's own memory. No copy is faster than the slower of the
//! two.

use core::arch::asm;

/// A loop over memory, 256 bytes an iteration. The memory must be the caller's own, begin on a line boundary and be a
/// multiple of 256 bytes long, not 0. Stores write unspecified bytes.
type Routine = unsafe fn(addr: usize, len: usize);

/// Loads, stores, and non-temporal stores.
pub(in crate::arch) type Accesses = [Routine; 3];

/// Defines a loop with one access at each of these offsets in an iteration.
macro_rules! access {
    ($instruction:literal) => {
        |addr, len| {
            // SAFETY: `Routine`'s contract: memory of the caller's own, at a line boundary and a multiple of 256 bytes,
            // not 0.
            unsafe {
                asm!(
                    "2:",
                    concat!($instruction, " q0, q1, [{at}]"),
                    concat!($instruction, " q0, q1, [{at}, 32]"),
                    concat!($instruction, " q0, q1, [{at}, 64]"),
                    concat!($instruction, " q0, q1, [{at}, 96]"),
                    concat!($instruction, " q0, q1, [{at}, 128]"),
                    concat!($instruction, " q0, q1, [{at}, 160]"),
                    concat!($instruction, " q0, q1, [{at}, 192]"),
                    concat!($instruction, " q0, q1, [{at}, 224]"),
                    "add {at}, {at}, 256\n cmp {at}, {end}\n b.lo 2b",
                    at = inout(reg) addr => _, end = in(reg) addr.wrapping_add(len), out("v0") _, out("v1") _,
                    options(nostack)
                );
            }
        }
    };
}

pub(in crate::arch) const ACCESSES: Accesses = [access!("ldp"), access!("stp"), access!("stnp")];
