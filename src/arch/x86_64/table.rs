//! How a routine is framed, and how its accesses get into its table.

/// Code that touches foreign memory, entered into the routine's table: what it does, how many bytes of the turn were
/// stored before, and how many behind those had only been loaded.
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

/// Fills the call's record at a fixup: with what the handler left in two registers, with how far both pointers had
/// come, and with how far a store reached beyond those, if `reached` says in which register that is.
macro_rules! tell {
    () => {
        concat!(tell!(@), "mov qword ptr [r10+32], 0\n")
    };
    ($reached:literal) => {
        concat!(tell!(@), "movq [r10+32], ", $reached, "\n")
    };
    (@) => {
        "mov [r10], r8\n mov [r10+8], r9\n mov [r10+16], rdi\n mov [r10+24], rsi\n"
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

/// The end of a routine and of its table.
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
