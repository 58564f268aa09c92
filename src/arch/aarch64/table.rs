//! How a routine is framed, and how its accesses get into its table.
//!
//! Registers, the same in every routine: `x0` the destination, `x1` the source, `x2` the bytes left of a phase, `x3`
//! the call's trap record, `x4` the end of what is counted, `x9` and `x10` what the signal handler leaves.

/// Code that touches foreign memory, entered into the routine's table: what it does, and how many bytes of the turn
/// were stored before it.
#[rustfmt::skip]
macro_rules! guarded {
    ($routine:literal, $access:literal, $stored:expr, $code:expr) => {
        concat!(
            "771:\n",
            $code, "\n772:\n",
            ".pushsection .rodata.iovec_rs.", $routine, ",\"a\",@progbits\n",
            ".long 771b - ., 772b - ., .L", $routine, "_fixup - ., ({", $access, "}) | ((", $stored, ") << 8)\n",
            ".popsection\n",
        )
    };
}

/// The beginning of a routine and of its table.
#[rustfmt::skip]
macro_rules! opening {
    ($r:literal) => {
        concat!(
            ".globl ", $r, "\n.hidden ", $r, "\n.type ", $r, ",@function\n",
            ".pushsection .rodata.iovec_rs.", $r, ",\"a\",@progbits\n.p2align 2\n",
            ".globl ", $r, "_table\n.hidden ", $r, "_table\n",
            $r, "_table:\n.popsection\n",
            ".p2align 6\n",
            $r, ":\n.cfi_startproc\n",
        )
    };
}

/// The fixup, with which a routine and its table end: fills the call's record with what the handler left in two
/// registers and with how far both pointers had come, and returns the bytes from `$at`, a pointer, to the end.
#[rustfmt::skip]
macro_rules! closing {
    ($r:literal, $at:literal) => {
        concat!(
            ".L", $r, "_fixup:\n",
            "stp x9, x10, [x3]\n stp x0, x1, [x3, 16]\n str xzr, [x3, 32]\n sub x0, x4, ", $at, "\n ret\n",
            ".cfi_endproc\n.size ", $r, ", .-", $r, "\n",
            ".pushsection .rodata.iovec_rs.", $r, ",\"a\",@progbits\n",
            ".globl ", $r, "_table_end\n.hidden ", $r, "_table_end\n",
            $r, "_table_end:\n.popsection\n",
        )
    };
}

/// The table that a routine's `guarded!` accesses were entered into, in a module of the routine's name.
macro_rules! table {
    ($function:ident, $routine:literal) => {
        mod $function {
            use crate::arch::guard::{Entry, Table};
            unsafe extern "C" {
                #[link_name = concat!($routine, "_table")]
                static START: Entry;
                #[link_name = concat!($routine, "_table_end")]
                static END: Entry;
            }
            pub(super) const TABLE: Table = Table::new(&raw const START, &raw const END);
        }
    };
}
