//! Macros that declare assembly routines, the same for every architecture: the symbols of a routine and of its fault
//! table, and the sets that name them. Each architecture's `table.rs` has the entries of the table and its end.

/// Begins a routine and its table. The symbols are hidden: global to the linker, but not exported.
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

/// Declares the [`Table`](crate::arch::guard::Table) of a routine, as `TABLE` in a module of the routine's name.
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

/// A value that a set may have.
macro_rules! optional {
    () => {
        None
    };
    ($($value:tt)+) => {
        Some($($value)+)
    };
}

/// Declares a routine by its symbol, and its table.
macro_rules! declare_routine {
    ($function:ident, $routine:literal, ($($argument:ident: $type:ty),+)) => {
        unsafe extern "C" {
            #[link_name = $routine]
            fn $function($($argument: $type),+) -> usize;
        }

        table!($function, $routine);
    };
}

/// Declares a copy of a list of lines.
macro_rules! declare_line_copy {
    ($function:ident, $routine:literal) => {
        declare_routine!($function, $routine, (
            list: *const crate::memory::Segment, count: usize, flat: usize, trap: *mut crate::arch::Trap,
            watched: *const u32, expected: u32
        ));
    };
}

/// Declares a copy to two places.
macro_rules! declare_tee {
    ($function:ident, $routine:literal) => {
        declare_routine!($function, $routine, (
            dst: *mut u8, src: *const u8, len: usize, trap: *mut crate::arch::Trap, stage: *mut u8
        ));
    };
}

/// Declares a copy.
macro_rules! declare_copy {
    ($function:ident, $routine:literal) => {
        declare_routine!($function, $routine, (
            dst: *mut u8, src: *const u8, len: usize, trap: *mut crate::arch::Trap
        ));
    };
}

/// Declares a set of routines by their symbols.
macro_rules! declare_primitives {
    (
        $set:ident, $name:literal, available: $available:expr, whole: $whole:expr, copy: $copy:literal $copy_fn:ident,
        nontemporal: $nontemporal:literal $nontemporal_fn:ident, zero: $zero:literal $zero_fn:ident
        $(, lines: $gather:literal $gather_fn:ident $scatter:literal $scatter_fn:ident)?
        $(, tee: $tee:literal $tee_fn:ident $tee_nt:literal $tee_nt_fn:ident)?
    ) => {
        pub(in crate::arch) static $set: crate::arch::Primitives = crate::arch::Primitives {
            name: $name,
            copy: $copy_fn,
            nontemporal: $nontemporal_fn,
            zero: $zero_fn,
            lines: optional!($(crate::arch::LineCopies { gather: $gather_fn, scatter: $scatter_fn })?),
            tee: optional!($(crate::arch::Tee { copy: $tee_fn, nontemporal: $tee_nt_fn })?),
            available: $available,
            whole: $whole,
            tables: &[
                $copy_fn::TABLE, $nontemporal_fn::TABLE, $zero_fn::TABLE, $($gather_fn::TABLE, $scatter_fn::TABLE,)?
                $($tee_fn::TABLE, $tee_nt_fn::TABLE)?
            ],
        };

        declare_copy!($copy_fn, $copy);
        declare_copy!($nontemporal_fn, $nontemporal);
        declare_routine!($zero_fn, $zero, (dst: *mut u8, len: usize, trap: *mut crate::arch::Trap));
        $(
            declare_line_copy!($gather_fn, $gather);
            declare_line_copy!($scatter_fn, $scatter);
        )?
        $(
            declare_tee!($tee_fn, $tee);
            declare_tee!($tee_nt_fn, $tee_nt);
        )?
    };
}

/// Declares a write-back routine by its symbol.
macro_rules! declare_write_back {
    ($static:ident, $name:literal, $routine:literal $function:ident, $evicts:literal, $test:expr) => {
        pub(in crate::arch) static $static: crate::arch::WriteBack = crate::arch::WriteBack {
            name: $name,
            run: $function,
            evicts: $evicts,
            available: $test,
            tables: &[$function::TABLE],
        };

        declare_routine!($function, $routine, (addr: *mut u8, len: usize, trap: *mut crate::arch::Trap));
    };
}
