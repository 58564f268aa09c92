//! The write-back loops: one macro, expanded for each instruction. None of them fences.

use super::structured_features;
use crate::arch::guard::Instruction;
use core::arch::global_asm;

/// The loop of one instruction. `rdi` is the start of a line and `rsi` a multiple of the line's length, not 0; `r11`
/// keeps the end. A write-back faults as a load of the line would. Its entry is a store's, because the position is then
/// `rdi` itself.
macro_rules! write_back {
    ($static:ident, $instruction:literal, $routine:literal $function:ident, $evicts:literal, $test:expr) => {
        declare_write_back!($static, $instruction, $routine $function, $evicts, $test);

        global_asm!(
            ".pushsection .text.iovec_rs,\"ax\",@progbits",
            opening!($routine),
            "mov r10, rdx\n lea r11, [rdi+rsi]",
            "2:",
            guarded!($routine, "store", "0", concat!($instruction, " [rdi]")),
            "add rdi, 64\n cmp rdi, r11\n jb 2b",
            "xor eax, eax\n ret",
            concat!(".L", $routine, "_fixup:"),
            save_trap!(), "mov rax, r11\n sub rax, rdi\n ret",
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
