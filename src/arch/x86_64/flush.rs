//! Write-backs, one loop stamped out per instruction, and non-temporal words, which every x86-64 CPU has. None of them fences.

use super::structured_features;
use crate::arch::WriteBack;
use crate::arch::guard::{Access, Trap};
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
            "mov [r10], r8\n mov [r10+8], r9\n mov rax, r11\n sub rax, rdi\n ret",
            closing!($routine),
            ".popsection",
            store = const Access::Store as i32,
        );
    };
}

write_back!(CLFLUSH, "clflush", "iovec_rs_clflush" clflush, true, || true);
write_back!(CLFLUSHOPT, "clflushopt", "iovec_rs_clflushopt" clflushopt, true, || structured_features().0 & 1 << 23 != 0);
write_back!(CLWB, "clwb", "iovec_rs_clwb" clwb, false, || structured_features().0 & 1 << 24 != 0);

unsafe extern "C" {
    /// Stores `len` bytes from `src` to `dst`, both `dst` and `len` multiples of 4, by non-temporal words; returns the bytes not
    /// stored. All within one line of the destination.
    #[link_name = "iovec_rs_words"]
    pub(in crate::arch) fn stream_words(dst: *mut u8, src: *const u8, len: usize, trap: *mut Trap) -> usize;
}

table!(words, "iovec_rs_words");

/// Where [`stream_words`] may fault.
pub(in crate::arch) static WORDS: crate::arch::guard::Table = words::TABLE;

global_asm!(
    ".pushsection .text.iovec_rs,\"ax\",@progbits",
    opening!("iovec_rs_words"),
    "mov r10, rcx\n lea r11, [rsi+rdx]",
    "test edi, 4\n jz 2f\n cmp rdx, 4\n jb 5f",
    guarded!("iovec_rs_words", "first", "0", "mov eax, [rsi]"),
    guarded!("iovec_rs_words", "store", "0", "movnti [rdi], eax"),
    "add rsi, 4\n add rdi, 4\n sub rdx, 4",
    "2: sub rdx, 8\n jb 4f",
    "3:",
    guarded!("iovec_rs_words", "first", "0", "mov rax, [rsi]"),
    guarded!("iovec_rs_words", "store", "0", "movnti [rdi], rax"),
    "add rsi, 8\n add rdi, 8\n sub rdx, 8\n jae 3b",
    "4: add rdx, 8\n jz 5f",
    guarded!("iovec_rs_words", "first", "0", "mov eax, [rsi]"),
    guarded!("iovec_rs_words", "store", "0", "movnti [rdi], eax"),
    "add rsi, 4",
    "5: xor eax, eax\n ret",
    ".Liovec_rs_words_fixup:",
    "mov [r10], r8\n mov [r10+8], r9\n mov rax, r11\n sub rax, rsi\n ret",
    closing!("iovec_rs_words"),
    ".popsection",
    first = const Access::First as i32,
    store = const Access::Store as i32,
);
