//! Macros that build the fault table of an assembly routine and end both. The entries of a routine go to a section
//! of their own, in the order of the code, between the symbols `NAME_table` and `NAME_table_end`.
//!
//! Every routine uses the same registers: `x0` points to the destination and `x1` to the source; `x2` counts the bytes
//! left of a phase; `x3` points to the trap record, and `x4` to the end of the side that is counted. After a fault `x9`
//! and `x10` are what the signal handler put there.

/// Emits code that touches foreign memory, and its [`Entry`](crate::arch::guard::Entry) in the routine's table: the
/// kind of access, and how many bytes of the loop iteration were stored before this code.
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

/// Ends a routine and its table with the fixup. That fills the call's [`Trap`](crate::arch::guard::Trap) with the two
/// registers that the handler set and with both pointers, and returns the bytes from the pointer `$at` to the end.
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
