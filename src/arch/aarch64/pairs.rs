//! One plain copy, one non-temporal copy and one zeroing routine with loads and stores of register pairs: each is
//! written once, as a macro, and expanded for general registers (16 bytes a pair) and for NEON's (32 bytes a pair).
//!
//! A head brings the *destination* to a line boundary. Whole lines follow, each loaded whole before it is stored, and
//! then a tail. The pointers advance after the stores. Head and tail are shorter than a line; each is copied by two
//! moves of the largest size that fits, which may overlap. The non-temporal copy stores lines by `stnp`, which is only
//! a hint: nothing depends on where the data go. Nothing is prefetched.
//!
//! Why progress is exact ([`crate::arch::guard`] does the arithmetic):
//! * the source pointer advances only past bytes that are stored, so end minus pointer is what is left, in every phase;
//! * a line is loaded before it is stored, so that the ranges may overlap if the destination is below the source;
//! * a destination line never straddles pages, so a store that faults has stored nothing of its line;
//! * poison is per line: a load that faults inside one line tells that this line is bad. Before a load that reaches
//!   into a second line, a byte of the first has been read, by an [`Instruction::First`] where nothing else has read
//!   it; so if such a load faults, the second line is the bad one.

use crate::arch::guard::Instruction;
use core::arch::global_asm;

/// Copies `x2` bytes, fewer than a line, inside one line of the destination. It reads the first byte, and then moves
/// the bytes as two parts that may overlap, of a size by powers of two; it loads both before it stores either. Advances
/// both pointers. `$l` is a prefix that keeps the labels of several uses apart.
#[rustfmt::skip]
macro_rules! small_copy {
    ($r:literal, $l:literal) => {
        concat!(
            "cbz x2, ", $l, "6f\n",
            guarded!($r, "first", "0", "ldrb w5, [x1]"),
            "add x14, x1, x2\n add x15, x0, x2\n",
            "tbnz x2, 5, ", $l, "5f\n tbnz x2, 4, ", $l, "4f\n tbnz x2, 3, ", $l, "3f\n tbnz x2, 2, ", $l, "2f\n",
            "tbnz x2, 1, ", $l, "1f\n",
            guarded!($r, "store", "0", "strb w5, [x0]"),
            "b ", $l, "7f\n",
            $l, "1:\n",
            guarded!($r, "load", "0", "ldrh w5, [x1]\n ldrh w6, [x14, -2]"),
            guarded!($r, "store", "0", "strh w5, [x0]\n strh w6, [x15, -2]"),
            "b ", $l, "7f\n",
            $l, "2:\n",
            guarded!($r, "load", "0", "ldr w5, [x1]\n ldr w6, [x14, -4]"),
            guarded!($r, "store", "0", "str w5, [x0]\n str w6, [x15, -4]"),
            "b ", $l, "7f\n",
            $l, "3:\n",
            guarded!($r, "load", "0", "ldr x5, [x1]\n ldr x6, [x14, -8]"),
            guarded!($r, "store", "0", "str x5, [x0]\n str x6, [x15, -8]"),
            "b ", $l, "7f\n",
            $l, "4:\n",
            guarded!($r, "load", "0", "ldp x5, x6, [x1]\n ldp x7, x8, [x14, -16]"),
            guarded!($r, "store", "0", "stp x5, x6, [x0]\n stp x7, x8, [x15, -16]"),
            "b ", $l, "7f\n",
            $l, "5:\n",
            guarded!($r, "load", "0",
                "ldp x5, x6, [x1]\n ldp x7, x8, [x1, 16]\n ldp x11, x12, [x14, -32]\n ldp x13, x14, [x14, -16]"),
            guarded!($r, "store", "0",
                "stp x5, x6, [x0]\n stp x7, x8, [x0, 16]\n stp x11, x12, [x15, -32]\n stp x13, x14, [x15, -16]"),
            $l, "7:\n add x1, x1, x2\n mov x0, x15\n",
            $l, "6:\n",
        )
    };
}

/// Copies one line at offset `$at`: loads it whole, then stores it with `$put`.
#[rustfmt::skip]
macro_rules! copy_line {
    ($r:literal, $put:literal, $at:literal, [$($a:literal $b:literal $o:literal),*]) => {
        concat!(
            guarded!($r, "load", $at, concat!($( "ldp ", $a, ", ", $b, ", [x1, ", $at, "+", $o, "]\n", )*)),
            guarded!($r, "store", $at, concat!($( $put, " ", $a, ", ", $b, ", [x0, ", $at, "+", $o, "]\n", )*)),
        )
    };
}

/// A copy routine that stores lines with `$put`.
#[rustfmt::skip]
macro_rules! copy {
    ($r:literal, $put:literal, $line:tt) => {
        concat!(
            opening!($r),
            "add x4, x1, x2\n",
            // Head: up to a line boundary of the destination, or all bytes if there are fewer.
            "mov x13, x2\n neg x2, x0\n and x2, x2, 63\n cmp x2, x13\n csel x2, x2, x13, lo\n sub x13, x13, x2\n",
            "mov x16, x13\n",
            small_copy!($r, "1"),
            "subs x2, x16, 64\n b.lo 5f\n",
            // If there was no head, the line in which the first load begins has not been read yet.
            guarded!($r, "first", "0", "ldrb w5, [x1]"),
            "subs x2, x2, 192\n b.lo 3f\n",
            ".p2align 5\n2:\n",
            copy_line!($r, $put, "0", $line),
            copy_line!($r, $put, "64", $line),
            copy_line!($r, $put, "128", $line),
            copy_line!($r, $put, "192", $line),
            "add x1, x1, 256\n add x0, x0, 256\n subs x2, x2, 256\n b.hs 2b\n",
            "3: adds x2, x2, 192\n b.mi 5f\n4:\n",
            copy_line!($r, $put, "0", $line),
            "add x1, x1, 64\n add x0, x0, 64\n subs x2, x2, 64\n b.hs 4b\n",
            "5: and x2, x2, 63\n",
            small_copy!($r, "6"),
            "mov x0, 0\n ret\n",
            closing!($r, "x1"),
        )
    };
}

/// Zeroes `x2` bytes, fewer than a line, inside one line, and advances the pointer.
#[rustfmt::skip]
macro_rules! small_zero {
    ($r:literal, $l:literal) => {
        concat!(
            "cbz x2, ", $l, "6f\n add x15, x0, x2\n",
            "tbnz x2, 5, ", $l, "5f\n tbnz x2, 4, ", $l, "4f\n tbnz x2, 3, ", $l, "3f\n tbnz x2, 2, ", $l, "2f\n",
            "tbnz x2, 1, ", $l, "1f\n",
            guarded!($r, "store", "0", "strb wzr, [x0]"),
            "b ", $l, "7f\n",
            $l, "1:\n",
            guarded!($r, "store", "0", "strh wzr, [x0]\n strh wzr, [x15, -2]"),
            "b ", $l, "7f\n",
            $l, "2:\n",
            guarded!($r, "store", "0", "str wzr, [x0]\n str wzr, [x15, -4]"),
            "b ", $l, "7f\n",
            $l, "3:\n",
            guarded!($r, "store", "0", "str xzr, [x0]\n str xzr, [x15, -8]"),
            "b ", $l, "7f\n",
            $l, "4:\n",
            guarded!($r, "store", "0", "stp xzr, xzr, [x0]\n stp xzr, xzr, [x15, -16]"),
            "b ", $l, "7f\n",
            $l, "5:\n",
            guarded!($r, "store", "0",
                "stp xzr, xzr, [x0]\n stp xzr, xzr, [x0, 16]\n stp xzr, xzr, [x15, -32]\n stp xzr, xzr, [x15, -16]"),
            $l, "7:\n mov x0, x15\n",
            $l, "6:\n",
        )
    };
}

/// Defines the three routines of one kind of register, and their set. `line` names the register pairs of a line with
/// their offsets; `clear` zeroes the registers that `zeroes` stores.
#[rustfmt::skip]
macro_rules! routines {
    (
        $set:ident, $name:literal, copy: $copy:literal $copy_fn:ident,
        nontemporal: $nontemporal:literal $nontemporal_fn:ident, zero: $zero:literal $zero_fn:ident,
        line: $line:tt, clear: $clear:literal, zeroes: [$($pair:literal $o:literal),*]
    ) => {
        declare_primitives!(
            $set, $name, available: || true, whole: || true, copy: $copy $copy_fn,
            nontemporal: $nontemporal $nontemporal_fn, zero: $zero $zero_fn
        );

        global_asm!(
            ".pushsection .text.iovec_rs,\"ax\",@progbits",
            copy!($copy, "stp", $line),
            copy!($nontemporal, "stnp", $line),
            opening!($zero),
            "mov x3, x2\n add x4, x0, x1\n",
            "neg x2, x0\n and x2, x2, 63\n cmp x2, x1\n csel x2, x2, x1, lo\n sub x1, x1, x2\n",
            small_zero!($zero, "1"),
            concat!($clear, "\n subs x2, x1, 64\n b.lo 3f\n2:\n"),
            guarded!($zero, "store", "0", concat!($( "stp ", $pair, ", [x0, ", $o, "]\n", )*)),
            "add x0, x0, 64\n subs x2, x2, 64\n b.hs 2b\n3: and x2, x2, 63\n",
            small_zero!($zero, "4"),
            "mov x0, 0\n ret\n",
            closing!($zero, "x0"),
            ".popsection",
            first = const Instruction::First as i32,
            load = const Instruction::Load as i32,
            store = const Instruction::Store as i32,
        );
    };
}

routines!(
    GENERAL, "general", copy: "iovec_rs_copy_general" copy_general,
    nontemporal: "iovec_rs_nontemporal_general" nontemporal_general, zero: "iovec_rs_zero_general" zero_general,
    line: ["x5" "x6" "0", "x7" "x8" "16", "x11" "x12" "32", "x13" "x14" "48"],
    clear: "", zeroes: ["xzr, xzr" "0", "xzr, xzr" "16", "xzr, xzr" "32", "xzr, xzr" "48"]
);
routines!(
    NEON, "neon", copy: "iovec_rs_copy_neon" copy_neon,
    nontemporal: "iovec_rs_nontemporal_neon" nontemporal_neon, zero: "iovec_rs_zero_neon" zero_neon,
    line: ["q0" "q1" "0", "q2" "q3" "32"],
    clear: "movi v0.2d, 0", zeroes: ["q0, q0" "0", "q0, q0" "32"]
);
