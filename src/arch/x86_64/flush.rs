//! Write-backs, one loop stamped out per instruction. None of them fences.

use super::structured_features;
use crate::arch::WriteBack;
use crate::arch::guard::{Instruction, Trap};
use core::arch::global_asm;

/// The routine of one instruction: `rdi` is a line's start, `rsi` a multiple of the line's length.
macro_rules! write_back {
    ($static:ident, $instruction:literal, $routine:literal $function:ident, $evicts:literal, $test:expr) => {
        pub(in crate::arch) static $static: WriteBack = WriteBack {
            name: $instruction,
            run: $function,
            evicts: $evicts,
            available: $test,
            tables: &[$function::TABLE],
        };

        unsafe extern "C" {
            #[link_name = $routine]
            fn $function(addr: *mut u8, len: usize, trap: *mut Trap) -> usize;
        }

        table!($function, $routine);

        global_asm!(
            ".pushsection .text.iovec_rs,\"ax\",@progbits",
            opening!($routine),
            "mov r10, rdx\n lea r11, [rdi+rsi]",
            "2:",
            guarded!($routine, "store", "0", concat!($instruction, " [rdi]")),
            "add rdi, 64\n cmp rdi, r11\n jb 2b",
            "xor eax, eax\n ret",
            concat!(".L", $routine, "_fixup:"),
            tell!(), "mov rax, r11\n sub rax, rdi\n ret",
            closing!($routine),
            ".popsection",
            store = const Instruction::Store as i32,
        );
    };
}

write_back!(CLFLUSH, "clflush", "iovec_rs_clflush" clflush, true, || true);
write_back!(CLFLUSHOPT, "clflushopt", "iovec_rs_clflushopt" clflushopt, true, || {
    structured_features().0 & 1 << 23 != 0
});
write_back!(CLWB, "clwb", "iovec_rs_clwb" clwb, false, || structured_features().0 & 1 << 24 != 0);
