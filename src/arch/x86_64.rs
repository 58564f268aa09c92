//! x86-64: one copy and one zeroing algorithm, written once and stamped out per vector width.
//!
//! They are assembly so that their memory accesses are exactly the ones written here: nothing is re-ordered, doubled
//! or turned into a library call, whatever another thread does to the memory meanwhile.
//!
//! The copy: a head of up to 63 bytes brings the *destination* to a line boundary (measured faster than aligning the
//! source: a store that crosses a line costs more than a load that does), then blocks of eight vectors, all loads
//! before any store, then single lines, then a tail of up to 63 bytes. From `STRING_MIN` bytes on, when source and
//! destination are congruent modulo a line and the CPU has fast strings, `rep movsb` takes the middle: it claims
//! destination lines without reading them first.

use super::Primitives;
use core::arch::global_asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _MM_HINT_T0, _mm_prefetch};
use std::sync::atomic::{AtomicUsize, Ordering};

/// From here `rep movsb` beats any vector loop, between congruent addresses (L1 is left behind).
const STRING_MIN: usize = 32 << 10;

/// From here the source is asked for `AHEAD` bytes ahead (4 KiB ahead is no better, one KiB worse).
const AHEAD_MIN: usize = 32 << 10;
const AHEAD: usize = 2 << 10;

/// What `STRING_MIN` is on this CPU; `usize::MAX` where strings are slow. Read by the assembly.
static STRING_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Moves fewer than 64 bytes (`rdx`), loads before stores, each size by two overlapping halves; advances nothing.
/// The label prefix keeps its two uses in one routine apart.
macro_rules! small_copy {
    ($l:literal) => {
        concat!(
            "cmp rdx, 32\n jae 22",
            $l,
            "f\n cmp rdx, 16\n jae 23",
            $l,
            "f\n cmp rdx, 8\n jae 24",
            $l,
            "f\n",
            "cmp rdx, 4\n jae 25",
            $l,
            "f\n cmp rdx, 2\n jae 26",
            $l,
            "f\n test rdx, rdx\n jz 27",
            $l,
            "f\n",
            "mov al, [rsi]\n mov [rdi], al\n jmp 27",
            $l,
            "f\n",
            "22",
            $l,
            ": movdqu xmm0, [rsi]\n movdqu xmm1, [rsi+16]\n",
            "movdqu xmm2, [rsi+rdx-32]\n movdqu xmm3, [rsi+rdx-16]\n",
            "movdqu [rdi], xmm0\n movdqu [rdi+16], xmm1\n",
            "movdqu [rdi+rdx-32], xmm2\n movdqu [rdi+rdx-16], xmm3\n jmp 27",
            $l,
            "f\n",
            "23",
            $l,
            ": movdqu xmm0, [rsi]\n movdqu xmm1, [rsi+rdx-16]\n",
            "movdqu [rdi], xmm0\n movdqu [rdi+rdx-16], xmm1\n jmp 27",
            $l,
            "f\n",
            "24",
            $l,
            ": mov rax, [rsi]\n mov r8, [rsi+rdx-8]\n mov [rdi], rax\n mov [rdi+rdx-8], r8\n jmp 27",
            $l,
            "f\n",
            "25",
            $l,
            ": mov eax, [rsi]\n mov r8d, [rsi+rdx-4]\n mov [rdi], eax\n mov [rdi+rdx-4], r8d\n jmp 27",
            $l,
            "f\n",
            "26",
            $l,
            ": mov ax, [rsi]\n mov r8w, [rsi+rdx-2]\n mov [rdi], ax\n mov [rdi+rdx-2], r8w\n",
            "27",
            $l,
            ":\n",
        )
    };
}

/// Zeroes fewer than 64 bytes (`rsi`) at `rdi`.
macro_rules! small_zero {
    ($l:literal) => {
        concat!(
            "cmp rsi, 32\n jae 22",
            $l,
            "f\n cmp rsi, 16\n jae 23",
            $l,
            "f\n cmp rsi, 8\n jae 24",
            $l,
            "f\n",
            "cmp rsi, 4\n jae 25",
            $l,
            "f\n cmp rsi, 2\n jae 26",
            $l,
            "f\n test rsi, rsi\n jz 27",
            $l,
            "f\n",
            "mov [rdi], al\n jmp 27",
            $l,
            "f\n",
            "22",
            $l,
            ": movdqu [rdi], xmm0\n movdqu [rdi+16], xmm0\n",
            "movdqu [rdi+rsi-32], xmm0\n movdqu [rdi+rsi-16], xmm0\n jmp 27",
            $l,
            "f\n",
            "23",
            $l,
            ": movdqu [rdi], xmm0\n movdqu [rdi+rsi-16], xmm0\n jmp 27",
            $l,
            "f\n",
            "24",
            $l,
            ": mov [rdi], rax\n mov [rdi+rsi-8], rax\n jmp 27",
            $l,
            "f\n",
            "25",
            $l,
            ": mov [rdi], eax\n mov [rdi+rsi-4], eax\n jmp 27",
            $l,
            "f\n",
            "26",
            $l,
            ": mov [rdi], ax\n mov [rdi+rsi-2], ax\n",
            "27",
            $l,
            ":\n",
        )
    };
}

/// A loop that moves `size` bytes a turn, all loads before any store, while `rdx` (the bytes left, less what the caller has set aside)
/// does not go below zero.
macro_rules! copy_loop {
    ($label:literal, $mov:literal, $size:literal, [$($reg:literal $at:literal),*], [$($ahead:literal),*]) => {
        concat!(
            ".p2align 5\n", $label, ":\n",
            $( "prefetcht0 [rsi + {ahead} + ", $ahead, "]\n", )*
            $( $mov, " ", $reg, ", [rsi+", $at, "]\n", )*
            $( $mov, " [rdi+", $at, "], ", $reg, "\n", )*
            "add rsi, ", $size, "\n add rdi, ", $size, "\n sub rdx, ", $size, "\n jae ", $label, "b",
        )
    };
}

/// The routines of one width: `line` names the vectors of a 64-byte line, `block` the eight of a block, each with its
/// byte offset, `ahead` the lines of a block. `leave` runs before anything that is not of this width.
macro_rules! routines {
    (
        $set:ident, $name:literal, $test:expr, copy: $copy:ident, zero: $zero:ident, mov: $mov:literal, clear: $clear:literal,
        leave: $leave:literal, line: [$($lr:literal $lo:literal),*], block $size:literal: [$($br:literal $bo:literal),*],
        ahead: [$($ahead:literal),*]
    ) => {
        pub(super) static $set: Primitives =
            Primitives { name: $name, copy: $copy, zero: $zero, available: || $test };

        unsafe extern "C" {
            fn $copy(dst: *mut u8, src: *const u8, len: usize) -> usize;
            fn $zero(dst: *mut u8, len: usize) -> usize;
        }

        global_asm!(
            ".pushsection .text.iovec_rs,\"ax\",@progbits",
            concat!(".globl ", stringify!($copy), "\n.hidden ", stringify!($copy), "\n.type ", stringify!($copy), ",@function"),
            ".p2align 6",
            concat!(stringify!($copy), ":"),
            ".cfi_startproc",
            "cmp rdx, 64\n jb 9f",
            // Head: bring the destination to a line. r9 keeps the length while rdx is the head's.
            "mov r9, rdx\n mov rdx, rdi\n neg rdx\n and edx, 63\n jz 2f",
            small_copy!("0"),
            "add rdi, rdx\n add rsi, rdx\n sub r9, rdx",
            "2: mov rdx, r9",
            // Long and congruent: strings.
            "cmp rdx, [rip + {string_from}]\n jb 3f",
            "test esi, 63\n jnz 3f",
            "mov rcx, rdx\n rep movsb\n xor eax, eax\n ret",
            // Out of L1: ask for the source ahead, as long as that is still the source.
            "3:",
            concat!("cmp rdx, {ahead_min}\n jb 31f\n sub rdx, {ahead} + ", $size),
            copy_loop!("30", $mov, $size, [$($br $bo),*], [$($ahead),*]),
            concat!("add rdx, {ahead} + ", $size),
            "31:",
            concat!("sub rdx, ", $size, "\n jb 5f"),
            copy_loop!("4", $mov, $size, [$($br $bo),*], []),
            concat!("5: add rdx, ", $size),
            "sub rdx, 64\n jb 7f",
            copy_loop!("6", $mov, "64", [$($lr $lo),*], []),
            "7: add rdx, 64",
            $leave,
            "9:",
            small_copy!("1"),
            "xor eax, eax\n ret",
            ".cfi_endproc",
            concat!(".size ", stringify!($copy), ", .-", stringify!($copy)),

            concat!(".globl ", stringify!($zero), "\n.hidden ", stringify!($zero), "\n.type ", stringify!($zero), ",@function"),
            ".p2align 6",
            concat!(stringify!($zero), ":"),
            ".cfi_startproc",
            "xor eax, eax\n pxor xmm0, xmm0",
            "cmp rsi, 64\n jb 9f",
            "mov r9, rsi\n mov rsi, rdi\n neg rsi\n and esi, 63\n jz 2f",
            small_zero!("0"),
            "add rdi, rsi\n sub r9, rsi",
            "2: mov rsi, r9",
            "sub rsi, 64\n jb 7f",
            $clear,
            "6:",
            $( concat!($mov, " [rdi+", $lo, "], ", $lr), )*
            "add rdi, 64\n sub rsi, 64\n jae 6b",
            $leave,
            "7: add rsi, 64",
            "9:",
            small_zero!("1"),
            "ret",
            ".cfi_endproc",
            concat!(".size ", stringify!($zero), ", .-", stringify!($zero)),
            ".popsection",
            string_from = sym STRING_FROM,
            ahead_min = const AHEAD_MIN,
            ahead = const AHEAD,
        );
    };
}

routines!(
    SSE2, "sse2", true, copy: iovec_rs_copy_sse2, zero: iovec_rs_zero_sse2, mov: "movdqu",
    clear: "pxor xmm1, xmm1\n pxor xmm2, xmm2\n pxor xmm3, xmm3", leave: "",
    line: ["xmm0" "0", "xmm1" "16", "xmm2" "32", "xmm3" "48"],
    block "128": ["xmm0" "0", "xmm1" "16", "xmm2" "32", "xmm3" "48", "xmm4" "64", "xmm5" "80", "xmm6" "96", "xmm7" "112"],
    ahead: ["0", "64"]
);
routines!(
    AVX2, "avx2", is_x86_feature_detected!("avx2"), copy: iovec_rs_copy_avx2, zero: iovec_rs_zero_avx2, mov: "vmovdqu",
    clear: "vpxor xmm0, xmm0, xmm0\n vpxor xmm1, xmm1, xmm1", leave: "vzeroupper",
    line: ["ymm0" "0", "ymm1" "32"],
    block "256": ["ymm0" "0", "ymm1" "32", "ymm2" "64", "ymm3" "96", "ymm4" "128", "ymm5" "160", "ymm6" "192", "ymm7" "224"],
    ahead: ["0", "64", "128", "192"]
);
// Registers 16 and up leave no upper halves for legacy code to trip over, so nothing has to be cleared on leaving.
routines!(
    AVX512, "avx512", is_x86_feature_detected!("avx512f"), copy: iovec_rs_copy_avx512, zero: iovec_rs_zero_avx512,
    mov: "vmovdqu64", clear: "vpxorq zmm16, zmm16, zmm16", leave: "",
    line: ["zmm16" "0"],
    block "512": ["zmm16" "0", "zmm17" "64", "zmm18" "128", "zmm19" "192", "zmm20" "256", "zmm21" "320", "zmm22" "384", "zmm23" "448"],
    ahead: ["0", "64", "128", "192", "256", "320", "384", "448"]
);

/// CPUID leaf 7: EBX bit 9 is ERMS, bit 23 CLFLUSHOPT, bit 24 CLWB; EDX bit 4 is FSRM.
fn structured_features() -> (u32, u32) {
    if __cpuid(0).eax < 7 {
        return (0, 0);
    }
    let leaf = __cpuid_count(7, 0);
    (leaf.ebx, leaf.edx)
}

/// Opens the string path where the CPU says that even short strings are fast. May run any number of times.
pub(super) fn tune() {
    if structured_features().1 & 1 << 4 != 0 {
        STRING_FROM.store(STRING_MIN, Ordering::Relaxed);
    }
}

pub(super) fn cache_line_size() -> usize {
    let units = (__cpuid(1).ebx >> 8 & 0xff) as usize;
    if units == 0 { 64 } else { units * 8 }
}

pub(super) fn features() -> Vec<(&'static str, bool)> {
    let (ebx, edx) = structured_features();
    vec![
        ("sse2", true),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("erms", ebx & 1 << 9 != 0),
        ("fsrm", edx & 1 << 4 != 0),
        ("clflushopt", ebx & 1 << 23 != 0),
        ("clwb", ebx & 1 << 24 != 0),
    ]
}

/// How far into a coming segment a hint reaches: the hardware prefetcher has caught on by then.
const PREFETCH_BYTES: usize = 512;

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn prefetch(addr: usize, len: usize) {
    for line in (0..len.min(PREFETCH_BYTES)).step_by(64) {
        // SAFETY: a prefetch is a hint; it never faults and has no effect on memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::with_exposed_provenance(addr.wrapping_add(line))) };
    }
}
