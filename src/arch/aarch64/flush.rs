//! The write-back loops: one macro, expanded for each instruction. None waits for the write-backs to end; the store
//! fence does.

use crate::arch::guard::Instruction;
use core::arch::global_asm;

/// The loop of one instruction. `x0` is the start of a line and `x1` a multiple of the line's length, not 0. The
/// instruction is given in its `sys` form, since the assembler's baseline may not know its name.
macro_rules! write_back {
    ($static:ident, $name:literal, $sys:literal, $routine:literal $function:ident, $evicts:literal, $test:expr) => {
        declare_write_back!($static, $name, $routine $function, $evicts, $test);

        global_asm!(
            ".pushsection .text.iovec_rs,\"ax\",@progbits",
            opening!($routine),
            "mov x3, x2\n add x4, x0, x1",
            "2:",
            guarded!($routine, "store", "0", concat!($sys, ", x0")),
            "add x0, x0, 64\n cmp x0, x4\n b.lo 2b",
            "mov x0, 0\n ret\n",
            closing!($routine, "x0"),
            ".popsection",
            store = const Instruction::Store as i32,
        );
    };
}

// `dc civac` cleans and invalidates to the point of coherency, `dc cvac` cleans to it, and `dc cvap` cleans to the
// point of persistence.
write_back!(CIVAC, "dc civac", "sys #3, c7, c14, #1", "iovec_rs_dc_civac" dc_civac, true, || true);
write_back!(CVAC, "dc cvac", "sys #3, c7, c10, #1", "iovec_rs_dc_cvac" dc_cvac, false, || true);
write_back!(CVAP, "dc cvap", "sys #3, c7, c12, #1", "iovec_rs_dc_cvap" dc_cvap, false, super::has_point_of_persistence);
