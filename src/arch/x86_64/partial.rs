//! Less than a line: the moves that every routine takes at its ends.

/// The words of a 16-byte register, each its own number.
pub(super) static LANES: u128 = 3 << 96 | 2 << 64 | 1 << 32;

/// Moves fewer than 64 bytes (`rdx`) whose destination is within a page: touches the first byte, then each size by two
/// overlapping halves, loads before stores. Advances nothing. The label prefix keeps its uses apart.
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

/// Zeroes fewer than 64 bytes (`rsi`) at `rdi`, within a page.
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

/// Streams `r8` bytes of a word, fewer than it has and not none, and advances over them: turned to their place in the
/// word, which is stored in every place of 16 bytes under a mask that is set for them alone. Changes `rax`, `r9` and
/// `xmm0` to `xmm2`. The store wants its address in `rdi`, which has a fixup of its own to become the first byte's
/// again.
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

/// Streams a word of `rcx` bytes, by way of a register of its size, and advances over it.
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

/// Streams `rcx` bytes, within a line and not none, and advances over them: up to a word, words, what is left.
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
