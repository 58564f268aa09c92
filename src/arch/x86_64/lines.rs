//! Macros for whole cache lines, one and four at a time: plain copies, non-temporal copies, zeroing; and the copies of
//! lists of lines. In all of them `$r` is the routine whose table gets the entries, `$mov` loads a register, `$put`
//! stores one, and `rsi` and `rdi` point to the source and the destination.

use crate::memory::Segment;
use std::mem::offset_of;

/// Copies one line at offset `$at`. A group of registers is loaded and then stored, group after group; only the
/// narrowest set needs two groups for a line. When the group at offset `o` of the line begins, `$stored o` bytes of the
/// iteration have been stored: `$stored` is `"$at+"`, or `"0*"` where the line's first bytes were counted before.
#[rustfmt::skip]
macro_rules! copy_line {
    ($r:literal, $mov:literal, $put:literal, $at:literal, $line:tt) => {
        copy_line!($r, $mov, $put, $at, concat!($at, "+"), $line)
    };
    ($r:literal, $mov:literal, $put:literal, $at:literal, $stored:expr,
     [$([$first:literal $start:literal $(, $reg:literal $o:literal)*]),*]) => {
        concat!($(
            guarded!($r, "load", concat!($stored, $start), "0", concat!(
                $mov, " ", $first, ", [rsi+", $at, "+", $start, "]\n",
                $( $mov, " ", $reg, ", [rsi+", $at, "+", $o, "]\n", )*
            )),
            guarded!($r, "store", concat!($stored, $start), "0", concat!(
                $put, " [rdi+", $at, "+", $start, "], ", $first, "\n",
                $( $put, " [rdi+", $at, "+", $o, "], ", $reg, "\n", )*
            )),
        )*)
    };
}

/// Prefetches four lines of the source, at offset `$at`, into all caches.
#[rustfmt::skip]
macro_rules! prefetch_lines {
    ($at:literal) => {
        concat!(
            "prefetcht0 [rsi+", $at, "]\n prefetcht0 [rsi+", $at, "+64]\n ",
            "prefetcht0 [rsi+", $at, "+128]\n prefetcht0 [rsi+", $at, "+192]\n",
        )
    };
}

/// Prefetches four lines of the source, at offset `$at`, into the second-level cache.
#[rustfmt::skip]
macro_rules! prefetch_lines_far {
    ($at:literal) => {
        concat!(
            "prefetcht1 [rsi+", $at, "]\n prefetcht1 [rsi+", $at, "+64]\n ",
            "prefetcht1 [rsi+", $at, "+128]\n prefetcht1 [rsi+", $at, "+192]\n",
        )
    };
}

/// Copies four lines. Each group of registers, which begins at offset `$start`, is loaded whole and then stored,
/// because a load waits for an earlier store whose address has the same low 12 bits. An access has an entry of its own:
/// loads count `$start` bytes as stored and the registers before theirs as loaded.
#[rustfmt::skip]
macro_rules! grouped_lines {
    ($r:literal, $mov:literal, $put:literal, [$([$start:literal: $($reg:literal $o:literal),*]),*]) => {
        concat!($(
            $( guarded!($r, "load", $start, concat!($o, "-", $start),
                concat!($mov, " ", $reg, ", [rsi+", $o, "]\n")), )*
            $( guarded!($r, "store", $o, concat!($put, " [rdi+", $o, "], ", $reg, "\n")), )*
        )*)
    };
}

/// Repeats [`grouped_lines`] until `rdx` goes below 0. `rdx` is the bytes left less 256, less what the caller set
/// aside.
#[rustfmt::skip]
macro_rules! four_line_loop {
    ($r:literal, $label:literal, $mov:literal, $put:literal, $four_lines:tt, $hint:expr) => {
        concat!(
            ".p2align 5\n",
            $label, ":\n",
            $hint,
            grouped_lines!($r, $mov, $put, $four_lines),
            "add rsi, 256\n add rdi, 256\n sub rdx, 256\n jae ", $label, "b\n",
        )
    };
}

/// The main loop of a plain copy. `rdx`, before and after, is the bytes left less 256, less what the caller set aside.
/// Registers in groups are for [`four_line_loop`].
///
/// With `ahead`, the loads run two lines ahead of the stores, and the first two registers are loaded at the head of the
/// loop. A load waits for an earlier store if their addresses agree in the bits that the CPU compares, and longest if
/// it follows that store directly. Fewer than six lines are left to the loop over single lines.
#[rustfmt::skip]
macro_rules! plain_loop {
    ($r:literal, $label:literal, $mov:literal, [ahead $a:literal $b:literal $c:literal $d:literal], $hint:expr) => {
        concat!(
            "sub rdx, 128\n jb ", $label, "9f\n",
            guarded!($r, "load", "0", concat!($mov, " ", $a, ", [rsi]")),
            guarded!($r, "load", "0", "64", concat!($mov, " ", $b, ", [rsi+64]")),
            ".p2align 5\n",
            $label, ":\n",
            $hint,
            guarded!($r, "load", "0", "128", concat!($mov, " ", $c, ", [rsi+128]")),
            guarded!($r, "load", "0", "192", concat!($mov, " ", $d, ", [rsi+192]")),
            guarded!($r, "store", "0", concat!($mov, " [rdi], ", $a)),
            guarded!($r, "store", "64", concat!($mov, " [rdi+64], ", $b)),
            guarded!($r, "load", "128", "128", concat!($mov, " ", $a, ", [rsi+256]")),
            guarded!($r, "load", "128", "192", concat!($mov, " ", $b, ", [rsi+320]")),
            guarded!($r, "store", "128", concat!($mov, " [rdi+128], ", $c)),
            guarded!($r, "store", "192", concat!($mov, " [rdi+192], ", $d)),
            "add rsi, 256\n add rdi, 256\n sub rdx, 256\n jae ", $label, "b\n",
            guarded!($r, "store", "0", concat!($mov, " [rdi], ", $a)),
            guarded!($r, "store", "64", concat!($mov, " [rdi+64], ", $b)),
            "add rsi, 128\n add rdi, 128\n jmp ", $label, "8f\n",
            $label, "9: add rdx, 128\n", $label, "8:\n",
        )
    };
    ($r:literal, $label:literal, $mov:literal, $four_lines:tt, $hint:expr) => {
        four_line_loop!($r, $label, $mov, $mov, $four_lines, $hint)
    };
}

/// Zeroes one line at offset `$at`; the registers named hold zeroes.
#[rustfmt::skip]
macro_rules! zero_line {
    ($r:literal, $mov:literal, $at:literal, [$([$($reg:literal $o:literal),*]),*]) => {
        concat!($( guarded!($r, "store", $at, concat!($( $mov, " [rdi+", $at, "+", $o, "], ", $reg, "\n", )*)), )*)
    };
}

/// A copy between flat memory and a list of segments, each one line long: the whole routine, as
/// [`LinesFn`](crate::arch::LinesFn) describes it. `$flat` points to the flat side, `$listed` to the side in the list.
///
/// With one register a line it takes 19 instructions a segment. A call of the plain copy for each segment, in a loop
/// that the compiler makes, takes 48. The fewer they are, the more segments the CPU has under way at once; on 4 KiB
/// pages most of them wait for a page walk.
///
/// `rcx` points to the segment's place in the list, and `r11` behind the last place. Until a fault replaces both, `r8`
/// points to the word that the caller watches, and `r9d` has the value expected there. A line is loaded whole before it
/// is stored, and stored within one page, so a segment that faults has stored nothing. It is counted, by advancing
/// `rcx`, once it is stored.
#[rustfmt::skip]
macro_rules! listed_lines {
    ($r:literal, $flat:literal, $listed:literal, $mov:literal, $line:tt, $leave:literal) => {
        concat!(
            opening!($r),
            "mov r10, rcx\n mov rcx, rdi\n shl rsi, 4\n lea r11, [rcx+rsi]\n mov ", $flat, ", rdx\n",
            ".p2align 5\n",
            "2: cmp qword ptr [rcx+8], 64\n jne 9f\n",
            "mov rax, [rcx+{lines_ahead}]\n prefetcht0 [rax]\n prefetcht0 [rax+63]\n mov ", $listed, ", [rcx]\n",
            "mov eax, edi\n and eax, 4095\n cmp eax, 4096 - 64\n ja 9f\n",
            guarded!($r, "first", "0", "mov al, [rsi]"),
            copy_line!($r, $mov, $mov, "0", $line),
            "add rcx, 16\n add ", $flat, ", 64\n cmp [r8], r9d\n jne 9f\n cmp rcx, r11\n jb 2b\n jmp 9f\n",
            ".L", $r, "_fixup:\n",
            save_trap!(),
            "9: ", $leave, "\n mov rax, r11\n sub rax, rcx\n shr rax, 4\n ret\n",
            closing!($r),
        )
    };
}

const _: () = assert!(size_of::<Segment>() == 16 && offset_of!(Segment, addr) == 0 && offset_of!(Segment, len) == 8);
