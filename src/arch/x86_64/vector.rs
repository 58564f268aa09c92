//! One plain copy, one non-temporal copy, one zeroing routine, and the plain copies of lists of lines: each is written
//! once, as a macro, and expanded for every register width.
//!
//! They are assembly so that their memory accesses are exactly those written here, and each has an entry in the fault
//! table. After an access faults, the thread goes on at the routine's fixup, which returns the bytes left.
//!
//! **The plain copy** has a head, whole lines, and a tail.
//! * The head brings the *destination* to a line boundary. That was measured to be faster than aligning the source: a
//!   store that crosses a line costs more than a load that does.
//! * The lines: each is loaded whole before it is stored, and the pointers advance after the stores. The loads of the
//!   AVX-512 routine run two lines ahead of the stores: a tenth faster between odd addresses on Zen 5. If the CPU has
//!   fast `rep movsb`, that instruction copies the lines of a long copy, since it takes ownership of destination lines
//!   without reading them first. The threshold is lower if both addresses agree modulo a line.
//! * Head and tail each copy 64 bytes, whatever their own length is, and so reach into the line next to them. A branch
//!   on the length would be mispredicted where lengths vary. The branches by length (`small_copy!`) are taken only
//!   where such a store would straddle pages, or where the ranges are so close that a load would see bytes the copy has
//!   stored.
//!
//! **The non-temporal copy** stores the bytes before a line boundary of the destination, then whole lines, then the
//! rest. Of a partial line it stores the words by `movnti` and the bytes beside them by `maskmovdqu`. It prefetches the
//! source and, for its address alone, the destination, neither beyond its end. It does not fence.
//!
//! **Registers.** `rdi` and `rsi` point to the destination and the source; `rdx` counts the bytes left, less whatever a
//! loop sets aside (zeroing, which has no source, counts in `rsi`). `r10` points to the trap record, and `r11` to the
//! end of the source (of the destination when zeroing), so a fixup returns `r11` minus the pointer. `r9` keeps the
//! length while `rdx` has that of a part. After a fault `r8` and `r9` are what the handler put there. `xmm5` belongs to
//! the plain copy, see below; everything else is scratch.
//!
//! Why progress is exact ([`crate::arch::guard`] does the arithmetic):
//! * the source pointer advances only past bytes that are stored, so end minus pointer is what is left, in every phase.
//!   The head of a plain copy stores more bytes than the pointers advance by. `xmm5` has the source address behind the
//!   last of them, so that they are counted and not read again from a page that may be gone by then;
//! * heads and tails are loaded whole before any byte of them is stored;
//! * a destination line never straddles pages, so a store that faults has stored nothing of its line;
//! * poison is per line: a load that faults inside one line tells that this line is bad. Before a load that reaches
//!   into a second line, a byte of the first has been read, by an [`Instruction::First`] where nothing else has read
//!   it; so if such a load faults, the second line is the bad one.

use super::thresholds::{
    AHEAD, AHEAD_MIN, FAR_AHEAD, FAR_FROM, PAGES_AHEAD, PAGES_FROM, PREFETCH_AHEAD, STRING_ANY_FROM, STRING_FROM,
    UNAIDED_FROM,
};
use crate::arch::LINES_AHEAD;
use crate::arch::guard::Instruction;
use crate::memory::Segment;
use core::arch::global_asm;

/// Defines the routines of one register width, and their set. `mov` loads and stores, `put` is the non-temporal
/// store. `line` groups the registers of a 64-byte line with their offsets, `plain_lines` those of four lines of a
/// plain copy, `four_lines` those of a non-temporal one, `zeroes` those that zero a line; `end` is the move of heads
/// and tails. `clear` zeroes a register, and `leave` runs before code of another width and before returning.
#[rustfmt::skip]
macro_rules! routines {
    (
        $set:ident, $name:literal, $test:expr, whole: $whole:expr, copy: $copy:literal $copy_fn:ident,
        nontemporal: $nontemporal:literal $nontemporal_fn:ident, zero: $zero:literal $zero_fn:ident,
        lines: $gather:literal $gather_fn:ident $scatter:literal $scatter_fn:ident,
        mov: $mov:literal, put: $put:literal, clear: $clear:literal, leave: $leave:literal,
        line: $line:tt, end: $end_mov:literal $end_line:tt, plain_lines: $plain_lines:tt, four_lines: $four_lines:tt,
        zeroes: $zeroes:tt $(, tee: $tee:literal $tee_fn:ident $tee_nt:literal $tee_nt_fn:ident)?
    ) => {
        declare_primitives!(
            $set, $name, available: || $test, whole: $whole, copy: $copy $copy_fn,
            nontemporal: $nontemporal $nontemporal_fn, zero: $zero $zero_fn,
            lines: $gather $gather_fn $scatter $scatter_fn
            $(, tee: $tee $tee_fn $tee_nt $tee_nt_fn)?
        );

        global_asm!(
            ".pushsection .text.iovec_rs,\"ax\",@progbits",
            opening!($copy),
            "mov r10, rcx\n lea r11, [rsi+rdx]\n pxor xmm5, xmm5", "cmp rdx, 64\n jb 8f\n jne 10f",
            // Exactly 64 bytes, within a page of the destination.
            "mov eax, edi\n and eax, 4095\n cmp eax, 4096 - 64\n ja 10f",
            guarded!($copy, "first", "0", "mov al, [rsi]"),
            copy_line!($copy, $end_mov, $end_mov, "0", $end_line),
            $leave, "xor eax, eax\n ret", "10:",
            // Head. A destination on a line boundary needs none. Otherwise copy 64 bytes, note in xmm5 how far they
            // reach, and advance to the boundary.
            "test edi, 63\n jnz 1f",
            guarded!($copy, "first", "0", "mov al, [rsi]"),
            "jmp 2f", "1: mov eax, edi\n and eax, 4095\n cmp eax, 4096 - 64\n ja 11f",
            "mov rax, rsi\n sub rax, rdi\n cmp rax, 64\n jb 11f",
            guarded!($copy, "first", "0", "mov al, [rsi]"),
            copy_line!($copy, $end_mov, $end_mov, "0", $end_line),
            "lea rax, [rsi+64]\n movq xmm5, rax",
            "mov rax, rdi\n neg rax\n and eax, 63\n add rdi, rax\n add rsi, rax\n sub rdx, rax\n jmp 2f",
            // The head by its own length, where 64 bytes would straddle pages or overwrite source bytes not yet read.
            "11: mov r9, rdx\n mov rdx, rdi\n neg rdx\n and edx, 63",
            small_copy!($copy, "2"),
            "add rdi, rdx\n add rsi, rdx\n sub r9, rdx\n mov rdx, r9", "2:",
            // Long enough for `rep movsb`. The guarded stretch includes the instruction behind it, because some CPUs
            // report poison with the instruction pointer there.
            "cmp rdx, [rip + {string_from}]\n jb 3f\n test esi, 63\n jz 22f",
            "cmp rdx, [rip + {string_any_from}]\n jb 3f\n 22: mov rcx, rdx",
            guarded!($copy, "string", "0", "rep movsb\n xor eax, eax"),
            "ret", "3:", "cmp rdx, {ahead_min}\n jb 31f\n sub rdx, {ahead} + 256",
            plain_loop!($copy, "30", $mov, $plain_lines, prefetch_lines!("{ahead}")),
            "add rdx, {ahead} + 256", "31:", "sub rdx, 256\n jb 5f",
            plain_loop!($copy, "4", $mov, $plain_lines, ""),
            "5: add rdx, 256 - 64\n js 7f", "6:",
            copy_line!($copy, $mov, $mov, "0", $line),
            "add rsi, 64\n add rdi, 64\n sub rdx, 64\n jae 6b",
            // Tail: the last 64 bytes, of which the first ones are copied once more. If the ranges are less than 64
            // bytes apart, that would read source bytes already overwritten, so the tail is copied by its own length.
            "7: add rdx, 64\n jz 72f", "mov rax, rsi\n sub rax, rdi\n cmp rax, 64\n jb 71f",
            copy_line!($copy, $end_mov, $end_mov, "rdx-64", "0*", $end_line),
            "jmp 72f", "71:", $leave, "jmp 9f", "72:", $leave, "xor eax, eax\n ret",
            // Fewer than 64 bytes. If the destination straddles two pages, the part in the first page is copied first.
            "8: mov eax, edi\n and eax, 4095\n add eax, edx\n cmp eax, 4096\n jbe 9f",
            "mov r9, rdx\n mov edx, edi\n neg edx\n and edx, 4095",
            small_copy!($copy, "3"),
            "add rdi, rdx\n add rsi, rdx\n sub r9, rdx\n mov rdx, r9", "9:",
            small_copy!($copy, "4"),
            "xor eax, eax\n ret",
            concat!(".L", $copy, "_fixup:"),
            save_trap!("xmm5"), "mov rax, r11\n sub rax, rsi", $leave, "ret",
            closing!($copy),

            opening!($nontemporal),
            "mov r10, rcx\n lea r11, [rsi+rdx]",
            guarded!($nontemporal, "first", "0", "mov al, [rsi]"),
            // Exactly one whole line.
            "test edi, 63\n jnz 9f\n cmp rdx, 64\n jne 10f",
            copy_line!($nontemporal, $mov, $put, "0", $line),
            $leave, "xor eax, eax\n ret",
            "9: mov ecx, edi\n neg ecx\n and ecx, 63\n cmp rcx, rdx\n cmova rcx, rdx\n sub rdx, rcx",
            nontemporal_part!($nontemporal, "1"),
            "10: sub rdx, 256\n jb 5f\n cmp rdx, {prefetch_ahead} - 256\n jbe 4f",
            prefetch_lines!("256"), prefetch_lines!("512"), prefetch_lines!("768"),
            "cmp rdx, [rip + {far_from}]\n jb 12f\n lea rax, [rsi+1024]\n lea rcx, [rsi+{far}]",
            "13: prefetcht1 [rax]\n add rax, 64\n cmp rax, rcx\n jb 13b\n sub rdx, {far}",
            four_line_loop!($nontemporal, "14", $mov, $put, $four_lines, prefetch_lines_far!("{far}")),
            "add rdx, {far}\n jmp 4f",
            "12: cmp rdx, [rip + {unaided_from}]\n jae 15f\n sub rdx, {prefetch_ahead}\n jb 1f",
            four_line_loop!($nontemporal, "2", $mov, $put, $four_lines, prefetch_lines!("{prefetch_ahead}")),
            "1: add rdx, {prefetch_ahead}",
            four_line_loop!($nontemporal, "4", $mov, $put, $four_lines, ""),
            "5: add rdx, 256 - 64\n js 7f", "6:",
            copy_line!($nontemporal, $mov, $put, "0", $line),
            "add rsi, 64\n add rdi, 64\n sub rdx, 64\n jae 6b", "7:", $leave, "add rdx, 64\n jz 8f\n mov rcx, rdx",
            nontemporal_part!($nontemporal, "2"),
            "8:", "xor eax, eax\n ret",
            // Up to the end of a page of the destination at a time, while what is prefetched lies within the ranges.
            "15: cmp rdx, {pages_from} - 256\n jb 5b\n sub rdx, {pages_ahead} + {page} - 256",
            "16: prefetcht0 [rsi+{pages_ahead}]\n prefetcht0 [rdi+{pages_ahead}]",
            ".p2align 5\n 17:",
            copy_line!($nontemporal, $mov, $put, "0", $line),
            "add rsi, 64\n add rdi, 64\n sub rdx, 64\n test edi, {page} - 1\n jnz 17b\n test rdx, rdx\n jns 16b",
            "add rdx, {pages_ahead} + {page} - 256\n jmp 5b",
            concat!(".L", $nontemporal, "_masked_fixup: mov rdi, rax"),
            concat!(".L", $nontemporal, "_fixup:"),
            save_trap!(), "mov rax, r11\n sub rax, rsi", $leave, "ret",
            closing!($nontemporal),

            opening!($zero),
            "mov r10, rdx\n lea r11, [rdi+rsi]", "xor eax, eax\n pxor xmm0, xmm0", "cmp rsi, 64\n jb 8f",
            "mov r9, rsi\n mov rsi, rdi\n neg rsi\n and esi, 63\n jz 2f",
            small_zero!($zero, "2"),
            "add rdi, rsi\n sub r9, rsi", "2: mov rsi, r9", "sub rsi, 64\n jb 7f", $clear, "6:",
            zero_line!($zero, $mov, "0", $zeroes),
            "add rdi, 64\n sub rsi, 64\n jae 6b", $leave, "7: add rsi, 64\n jmp 9f",
            "8: mov ecx, edi\n and ecx, 4095\n add ecx, esi\n cmp ecx, 4096\n jbe 9f",
            "mov r9, rsi\n mov esi, edi\n neg esi\n and esi, 4095",
            small_zero!($zero, "3"),
            "add rdi, rsi\n sub r9, rsi\n mov rsi, r9", "9:",
            small_zero!($zero, "4"),
            "ret",
            concat!(".L", $zero, "_fixup:"),
            save_trap!(), "mov rax, r11\n sub rax, rdi", $leave, "ret",
            closing!($zero),
            $(
                tee!($tee, late!(), "6", $mov, $mov, $leave, $line),
                tee!($tee_nt, "mov rax, rsi\n", "5", $mov, $put, $leave, $line),
            )?
            listed_lines!($gather, "rdi", "rsi", $end_mov, $end_line, $leave),
            listed_lines!($scatter, "rsi", "rdi", $end_mov, $end_line, $leave),
            ".popsection",
            string_from = sym STRING_FROM, string_any_from = sym STRING_ANY_FROM,
            lanes = sym super::partial::LANES, ahead_min = const AHEAD_MIN, ahead = const AHEAD,
            prefetch_ahead = const PREFETCH_AHEAD, unaided_from = sym UNAIDED_FROM,
            far = const FAR_AHEAD, far_from = sym FAR_FROM,
            pages_from = const PAGES_FROM, pages_ahead = const PAGES_AHEAD, page = const crate::abi::PAGE_SIZE,
            lines_ahead = const LINES_AHEAD * size_of::<Segment>(),
            first = const Instruction::First as i32,
            load = const Instruction::Load as i32,
            store = const Instruction::Store as i32,
            string = const Instruction::String as i32,
        );
    };
}

// A line takes two groups of 32 bytes. If the second group faults, the first is stored already, and counted.
routines!(
    SCALAR, "scalar", true, whole: || true, copy: "iovec_rs_copy_scalar" copy_scalar,
    nontemporal: "iovec_rs_nontemporal_scalar" nontemporal_scalar, zero: "iovec_rs_zero_scalar" zero_scalar,
    lines: "iovec_rs_gather_scalar" gather_scalar "iovec_rs_scatter_scalar" scatter_scalar,
    mov: "mov", put: "movnti", clear: "", leave: "",
    line: [["rax" "0", "rcx" "8", "r8" "16", "r9" "24"], ["rax" "32", "rcx" "40", "r8" "48", "r9" "56"]],
    end: "movdqu" [["xmm0" "0", "xmm1" "16", "xmm2" "32", "xmm3" "48"]],
    plain_lines: [
        ["0": "rax" "0", "rcx" "8", "r8" "16", "r9" "24"],
        ["32": "rax" "32", "rcx" "40", "r8" "48", "r9" "56"],
        ["64": "rax" "64", "rcx" "72", "r8" "80", "r9" "88"],
        ["96": "rax" "96", "rcx" "104", "r8" "112", "r9" "120"],
        ["128": "rax" "128", "rcx" "136", "r8" "144", "r9" "152"],
        ["160": "rax" "160", "rcx" "168", "r8" "176", "r9" "184"],
        ["192": "rax" "192", "rcx" "200", "r8" "208", "r9" "216"],
        ["224": "rax" "224", "rcx" "232", "r8" "240", "r9" "248"]
    ],
    four_lines: [
        ["0": "rax" "0", "rcx" "8", "r8" "16", "r9" "24"],
        ["32": "rax" "32", "rcx" "40", "r8" "48", "r9" "56"],
        ["64": "rax" "64", "rcx" "72", "r8" "80", "r9" "88"],
        ["96": "rax" "96", "rcx" "104", "r8" "112", "r9" "120"],
        ["128": "rax" "128", "rcx" "136", "r8" "144", "r9" "152"],
        ["160": "rax" "160", "rcx" "168", "r8" "176", "r9" "184"],
        ["192": "rax" "192", "rcx" "200", "r8" "208", "r9" "216"],
        ["224": "rax" "224", "rcx" "232", "r8" "240", "r9" "248"]
    ],
    zeroes: [["rax" "0", "rax" "8", "rax" "16", "rax" "24", "rax" "32", "rax" "40", "rax" "48", "rax" "56"]]
);
routines!(
    SSE2, "sse2", true, whole: || true, copy: "iovec_rs_copy_sse2" copy_sse2,
    nontemporal: "iovec_rs_nontemporal_sse2" nontemporal_sse2, zero: "iovec_rs_zero_sse2" zero_sse2,
    lines: "iovec_rs_gather_sse2" gather_sse2 "iovec_rs_scatter_sse2" scatter_sse2,
    mov: "movdqu", put: "movntdq", clear: "", leave: "",
    line: [["xmm0" "0", "xmm1" "16", "xmm2" "32", "xmm3" "48"]],
    end: "movdqu" [["xmm0" "0", "xmm1" "16", "xmm2" "32", "xmm3" "48"]],
    plain_lines: [
        ["0": "xmm0" "0", "xmm1" "16", "xmm2" "32", "xmm3" "48"],
        ["64": "xmm0" "64", "xmm1" "80", "xmm2" "96", "xmm3" "112"],
        ["128": "xmm0" "128", "xmm1" "144", "xmm2" "160", "xmm3" "176"],
        ["192": "xmm0" "192", "xmm1" "208", "xmm2" "224", "xmm3" "240"]
    ],
    four_lines: [[
        "0": "xmm0" "0", "xmm1" "16", "xmm2" "32", "xmm3" "48", "xmm4" "64", "xmm5" "80", "xmm6" "96", "xmm7" "112",
        "xmm8" "128", "xmm9" "144", "xmm10" "160", "xmm11" "176",
        "xmm12" "192", "xmm13" "208", "xmm14" "224", "xmm15" "240"
    ]],
    zeroes: [["xmm0" "0", "xmm0" "16", "xmm0" "32", "xmm0" "48"]],
    tee: "iovec_rs_tee_sse2" tee_sse2 "iovec_rs_tee_nt_sse2" tee_nt_sse2
);
routines!(
    AVX2, "avx2", is_x86_feature_detected!("avx2"), whole: || true, copy: "iovec_rs_copy_avx2" copy_avx2,
    nontemporal: "iovec_rs_nontemporal_avx2" nontemporal_avx2, zero: "iovec_rs_zero_avx2" zero_avx2,
    lines: "iovec_rs_gather_avx2" gather_avx2 "iovec_rs_scatter_avx2" scatter_avx2,
    mov: "vmovdqu", put: "vmovntdq", clear: "vpxor xmm0, xmm0, xmm0", leave: "vzeroupper",
    line: [["ymm0" "0", "ymm1" "32"]], end: "vmovdqu" [["ymm0" "0", "ymm1" "32"]],
    plain_lines: [
        ["0": "ymm0" "0", "ymm1" "32"],
        ["64": "ymm0" "64", "ymm1" "96"],
        ["128": "ymm0" "128", "ymm1" "160"],
        ["192": "ymm0" "192", "ymm1" "224"]
    ],
    four_lines: [["0": "ymm0" "0", "ymm1" "32", "ymm2" "64", "ymm3" "96",
        "ymm4" "128", "ymm5" "160", "ymm6" "192", "ymm7" "224"]],
    zeroes: [["ymm0" "0", "ymm0" "32"]],
    tee: "iovec_rs_tee_avx2" tee_avx2 "iovec_rs_tee_nt_avx2" tee_nt_avx2
);
// Registers 16 and up cannot be named by legacy SSE code, so their upper halves do not slow it down: no `vzeroupper` is
// needed on leaving.
routines!(
    AVX512, "avx512", is_x86_feature_detected!("avx512f"), whole: super::moves_512_bits_whole,
    copy: "iovec_rs_copy_avx512" copy_avx512,
    nontemporal: "iovec_rs_nontemporal_avx512" nontemporal_avx512, zero: "iovec_rs_zero_avx512" zero_avx512,
    lines: "iovec_rs_gather_avx512" gather_avx512 "iovec_rs_scatter_avx512" scatter_avx512,
    mov: "vmovdqu64", put: "vmovntdq", clear: "vpxorq zmm16, zmm16, zmm16", leave: "",
    line: [["zmm16" "0"]], end: "vmovdqu64" [["zmm16" "0"]],
    plain_lines: [ahead "zmm16" "zmm17" "zmm18" "zmm19"],
    four_lines: [["0": "zmm16" "0", "zmm17" "64", "zmm18" "128", "zmm19" "192"]],
    zeroes: [["zmm16" "0"]],
    tee: "iovec_rs_tee_avx512" tee_avx512 "iovec_rs_tee_nt_avx512" tee_nt_avx512
);
