//! Macros that build the fault table of an assembly routine and end both. The entries of a routine go to a section
//! of their own, in the order of the code, between the symbols `NAME_table` and `NAME_table_end`.

/// Emits code that touches foreign memory, and its [`Entry`](crate::arch::guard::Entry) in the routine's table: the
/// kind of access, how many bytes of the loop iteration were stored before this code (`$stored`), and how many more
/// were loaded but not stored (`$ahead`). After a fault the thread goes on at the routine's fixup, unless another is
/// named.
#[rustfmt::skip]
macro_rules! guarded {
    ($routine:literal, $access:literal, $stored:literal, $code:expr) => {
        guarded!($routine, $access, $stored, "0", $code)
    };
    ($routine:literal, $access:literal, $stored:expr, $ahead:expr, $code:expr) => {
        guarded!($routine, $access, $stored, $ahead, "_fixup", $code)
    };
    ($routine:literal, $access:literal, $stored:expr, $ahead:expr, $fixup:literal, $code:expr) => {
        concat!(
            "771:\n",
            $code, "\n772:\n",
            ".pushsection .rodata.iovec_rs.", $routine, ",\"a\",@progbits\n",
            ".long 771b - ., 772b - ., .L", $routine, $fixup, " - .,\
             ({", $access, "}) | ((", $stored, ") << 8) | ((", $ahead, ") << 20)\n",
            ".popsection\n",
        )
    };
}

/// At a fixup, fills the call's [`Trap`](crate::arch::guard::Trap), to which `r10` points: with the two registers that
/// the handler set (`r8` is the signal's address, `r9` is the word of `Trap::encode`), with both pointers, and with
/// `reached`, from the register that is named or 0.
macro_rules! save_trap {
    () => {
        concat!(save_trap!(@), "mov qword ptr [r10+32], 0\n")
    };
    ($reached:literal) => {
        concat!(save_trap!(@), "movq [r10+32], ", $reached, "\n")
    };
    (@) => {
        "mov [r10], r8\n mov [r10+8], r9\n mov [r10+16], rdi\n mov [r10+24], rsi\n"
    };
}

/// Ends a routine and its table.
#[rustfmt::skip]
macro_rules! closing {
    ($r:literal) => {
        concat!(
            ".cfi_endproc\n.globl ", $r, "_end\n.hidden ", $r, "_end\n", $r, "_end:\n.size ",
            $r, ", .-", $r, "\n",
            ".pushsection .rodata.iovec_rs.", $r, ",\"a\",@progbits\n",
            ".globl ", $r, "_table_end\n.hidden ", $r, "_table_end\n",
            $r, "_table_end:\n.popsection\n",
        )
    };
}
