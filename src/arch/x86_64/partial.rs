//! Macros for less than a line: the moves that every routine makes at its ends. `$l` is a prefix that keeps the labels
//! of several uses in one routine apart.

/// The four 32-bit lanes of an `xmm` register, each holding its own number.
pub(super) static LANES: u128 = 3 << 96 | 2 << 64 | 1 << 32;

/// Copies `rdx` bytes, fewer than 64, to a destination within one page. It reads the first byte, so that a later fault
/// of a load means the second line. Then it moves the bytes as two halves that may overlap, of a size by powers of two,
/// and loads both before it stores either. It does not advance the pointers.
#[rustfmt::skip]
macro_rules! small_copy {
    ($r:literal, $l:literal) => {
        concat!(
            "test rdx, rdx\n jz 27", $l, "f\n",
            guarded!($r, "first", "0", "mov al, [rsi]"),
            "cmp rdx, 16\n jae 22", $l, "f\n cmp rdx, 8\n jae 24", $l, "f\n cmp rdx, 4\n jae 25", $l,
            "f\n cmp rdx, 2\n jae 26", $l, "f\n",
            guarded!($r, "store", "0", "mov [rdi], al"),
            "jmp 27", $l, "f\n",
            "22", $l, ": cmp rdx, 32\n jae 23", $l, "f\n",
            guarded!($r, "load", "0", "movdqu xmm0, [rsi]\n movdqu xmm1, [rsi+rdx-16]"),
            guarded!($r, "store", "0", "movdqu [rdi], xmm0\n movdqu [rdi+rdx-16], xmm1"),
            "jmp 27", $l, "f\n",
            "23", $l, ":\n",
            guarded!($r, "load", "0", "movdqu xmm0, [rsi]\n movdqu xmm1, [rsi+16]\n \
                 movdqu xmm2, [rsi+rdx-32]\n movdqu xmm3, [rsi+rdx-16]"),
            guarded!($r, "store", "0", "movdqu [rdi], xmm0\n movdqu [rdi+16], xmm1\n \
                 movdqu [rdi+rdx-32], xmm2\n movdqu [rdi+rdx-16], xmm3"),
            "jmp 27", $l, "f\n",
            "24", $l, ":\n",
            guarded!($r, "load", "0", "mov rax, [rsi]\n mov rcx, [rsi+rdx-8]"),
            guarded!($r, "store", "0", "mov [rdi], rax\n mov [rdi+rdx-8], rcx"),
            "jmp 27", $l, "f\n",
            "25", $l, ":\n",
            guarded!($r, "load", "0", "mov eax, [rsi]\n mov ecx, [rsi+rdx-4]"),
            guarded!($r, "store", "0", "mov [rdi], eax\n mov [rdi+rdx-4], ecx"),
            "jmp 27", $l, "f\n",
            "26", $l, ":\n",
            guarded!($r, "load", "0", "mov ax, [rsi]\n mov cx, [rsi+rdx-2]"),
            guarded!($r, "store", "0", "mov [rdi], ax\n mov [rdi+rdx-2], cx"),
            "27", $l, ":\n",
        )
    };
}

/// Zeroes `rsi` bytes, fewer than 64, at `rdi`, within one page. `rax` and `xmm0` are zero.
#[rustfmt::skip]
macro_rules! small_zero {
    ($r:literal, $l:literal) => {
        concat!(
            "cmp rsi, 32\n jae 22", $l, "f\n cmp rsi, 16\n jae 23", $l, "f\n cmp rsi, 8\n jae 24", $l, "f\n",
            "cmp rsi, 4\n jae 25", $l, "f\n cmp rsi, 2\n jae 26", $l, "f\n test rsi, rsi\n jz 27", $l, "f\n",
            guarded!($r, "store", "0", "mov [rdi], al"),
            "jmp 27", $l, "f\n",
            "22", $l, ":\n",
            guarded!($r, "store", "0", "movdqu [rdi], xmm0\n movdqu [rdi+16], xmm0\n \
                 movdqu [rdi+rsi-32], xmm0\n movdqu [rdi+rsi-16], xmm0"),
            "jmp 27", $l, "f\n",
            "23", $l, ":\n",
            guarded!($r, "store", "0", "movdqu [rdi], xmm0\n movdqu [rdi+rsi-16], xmm0"),
            "jmp 27", $l, "f\n",
            "24", $l, ":\n",
            guarded!($r, "store", "0", "mov [rdi], rax\n mov [rdi+rsi-8], rax"),
            "jmp 27", $l, "f\n",
            "25", $l, ":\n",
            guarded!($r, "store", "0", "mov [rdi], eax\n mov [rdi+rsi-4], eax"),
            "jmp 27", $l, "f\n",
            "26", $l, ":\n",
            guarded!($r, "store", "0", "mov [rdi], ax\n mov [rdi+rsi-2], ax"),
            "27", $l, ":\n",
        )
    };
}

/// Copies `r8` bytes, 1 to 3, all in one aligned 4-byte word of the destination, with a non-temporal store, and
/// advances the pointers. No instruction stores so few bytes non-temporally but `maskmovdqu`, which stores those bytes
/// of 16 whose mask byte has its top bit set. So the bytes are
/// * gathered in `eax`, the last one first;
/// * rotated left to their place in the word, by 8 times the address modulo 4, and broadcast to the four words of
///   `xmm0`;
/// * covered by the mask in `xmm1`: as many bytes of ones, rotated alike, in the one word whose number (from the
///   address) equals its lane's in `LANES`.
///
/// `maskmovdqu` takes its address from `rdi`, here rounded down to 16. Its own fixup, `_masked_fixup`, restores `rdi`
/// from `rax`. Changes `rax`, `r9` and `xmm0` to `xmm2`; keeps `rcx` in `r9`.
#[rustfmt::skip]
macro_rules! nontemporal_bytes {
    ($r:literal, $l:literal, $m:literal) => {
        concat!(
            guarded!($r, "load", "0", "movzx eax, byte ptr [rsi+r8-1]"),
            "cmp r8d, 2\n jb ", $m, "2", $l, "f\n ja ", $m, "1", $l, "f\n shl eax, 8\n",
            guarded!($r, "load", "0", "mov al, [rsi]"),
            "jmp ", $m, "2", $l, "f\n", $m, "1", $l, ": shl eax, 16\n",
            guarded!($r, "load", "0", "mov ax, [rsi]"),
            $m, "2", $l, ": mov r9, rcx\n lea ecx, [rdi*8]\n rol eax, cl\n movd xmm0, eax\n pshufd xmm0, xmm0, 0\n",
            "mov ecx, 3\n sub ecx, r8d\n shl ecx, 3\n mov eax, 0xffffff\n shr eax, cl\n",
            "lea ecx, [rdi*8]\n rol eax, cl\n movd xmm1, eax\n pshufd xmm1, xmm1, 0\n",
            "mov eax, edi\n shr eax, 2\n and eax, 3\n movd xmm2, eax\n pshufd xmm2, xmm2, 0\n",
            "pcmpeqd xmm2, [rip + {lanes}]\n pand xmm1, xmm2\n mov rcx, r9\n mov rax, rdi\n and rdi, -16\n",
            guarded!($r, "store", "0", "0", "_masked_fixup", "maskmovdqu xmm0, xmm1"),
            "lea rdi, [rax+r8]\n add rsi, r8\n",
        )
    };
}

/// Copies one word through `$reg`, which has its size, with `movnti`. Advances the pointers and takes `$size` from
/// `rcx`, which sets the flags.
#[rustfmt::skip]
macro_rules! nontemporal_word {
    ($r:literal, $reg:literal, $size:literal) => {
        concat!(
            guarded!($r, "load", "0", concat!("mov ", $reg, ", [rsi]")),
            guarded!($r, "store", "0", concat!("movnti [rdi], ", $reg)),
            "add rsi, ", $size, "\n add rdi, ", $size, "\n sub rcx, ", $size, "\n ",
        )
    };
}

/// Copies `rcx` bytes, not 0 and within one line of the destination, with non-temporal stores, and advances the
/// pointers: single bytes up to a word boundary, a 4-byte word up to an 8-byte boundary, 8-byte words, a 4-byte word,
/// and the last single bytes.
#[rustfmt::skip]
macro_rules! nontemporal_part {
    ($r:literal, $l:literal) => {
        concat!(
            "mov r8d, edi\n neg r8d\n and r8d, 3\n jz 20", $l, "f\n cmp r8, rcx\n cmova r8, rcx\n sub rcx, r8\n",
            nontemporal_bytes!($r, $l, "4"),
            "20", $l, ": cmp rcx, 4\n jb 24", $l, "f\n test edi, 4\n jz 21", $l, "f\n",
            nontemporal_word!($r, "eax", "4"),
            "21", $l, ": sub rcx, 8\n jb 23", $l, "f\n22", $l, ":\n",
            nontemporal_word!($r, "rax", "8"),
            "jae 22", $l, "b\n",
            "23", $l, ": add rcx, 8\n test ecx, 4\n jz 24", $l, "f\n",
            nontemporal_word!($r, "eax", "4"),
            "24", $l, ": mov r8d, ecx\n test ecx, ecx\n jz 25", $l, "f\n",
            nontemporal_bytes!($r, $l, "5"),
            "25", $l, ":\n",
        )
    };
}
