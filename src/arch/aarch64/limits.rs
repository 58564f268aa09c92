//! Loads alone and stores alone, over memory of the caller's own: no copy can be faster than the slower of the two.

use core::arch::asm;

/// What is done to memory, 256 bytes a turn.
type Routine = unsafe fn(addr: usize, len: usize);

/// Loads, stores, and stores past the caches.
pub(in crate::arch) type Accesses = [Routine; 3];

/// A turn of one access, at these offsets.
macro_rules! access {
    ($instruction:literal) => {
        |addr, len| {
            // SAFETY: the caller of `Routine` promises memory of its own, a multiple of 256 bytes that is not 0, at a
            // line's start.
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
