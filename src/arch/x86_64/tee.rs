//! The routine that copies whole lines to a destination and to a stage of ours at once: one load and two stores where a
//! copy through the stage takes two loads and two stores.
//!
//! Its registers are those of the copies (`vector.rs`), and `r8` points to the stage. The stage is our own memory, in
//! which no access can fault, so stores to it have no entries in the fault table.
//!
//! Why progress is exact: the stage gets a group of registers before the destination gets any of them. So it holds
//! every byte that counts, and perhaps some behind those, whichever access faults. For the rest, what holds of the
//! non-temporal copy's lines holds of these.

/// Copies one line. A group of registers is loaded, stored to the stage and then to the destination.
#[rustfmt::skip]
macro_rules! tee_line {
    ($r:literal, $mov:literal, $put:literal, [$([$($reg:literal $o:literal),*]),*]) => {
        concat!($(
            $( guarded!($r, "load", "0", $o, concat!($mov, " ", $reg, ", [rsi+", $o, "]\n")), )*
            $( $mov, " [r8+", $o, "], ", $reg, "\n", )*
            $( guarded!($r, "store", $o, concat!($put, " [rdi+", $o, "], ", $reg, "\n")), )*
        )*)
    };
}

/// Moves the address of the source to `rax`, but late.
macro_rules! late {
    () => {
        "mov rax, rsi\n.rept 5\n imul rax, rax, 1\n.endr\n"
    };
}

/// The whole routine. It reads the first byte, so that a later fault of a load means the second line. It stores each
/// line before it loads the next: with four at a time, 64 KiB of cold memory take a tenth longer on Zen 5.
///
/// `$first` moves the address of the first byte to `rax`. The plain copy multiplies it by one five times ([`late!`]),
/// which takes 15 cycles. The first load of the loop does not wait for that, so it is the one that misses the caches,
/// and the CPU prefetches what the loop loads next. If the load of the byte misses first, in each block, 64 KiB to 1
/// MiB of cold memory take a quarter longer on Zen 5. The load of the byte is still the earlier one in the program:
/// if both fault, its fault is the one that is reported. A non-temporal copy, whose source is prefetched, takes 1.1
/// to 1.3 times as long with a late byte.
///
/// The loop begins at a multiple of two to the power of `$align`. Plain, 32 bytes behind a multiple of 64, 64 KiB in
/// the caches take 1.08 times as long.
#[rustfmt::skip]
macro_rules! tee {
    ($r:literal, $first:expr, $align:literal, $mov:literal, $put:literal, $leave:literal, $line:tt) => {
        concat!(
            opening!($r),
            "mov r10, rcx\n lea r11, [rsi+rdx]\n",
            $first,
            guarded!($r, "first", "0", "mov al, [rax]"),
            ".p2align ", $align, "\n6:\n",
            tee_line!($r, $mov, $put, $line),
            "add rsi, 64\n add rdi, 64\n add r8, 64\n sub rdx, 64\n jnz 6b\n",
            $leave, "\n xor eax, eax\n ret\n",
            ".L", $r, "_fixup:\n",
            save_trap!(), "mov rax, r11\n sub rax, rsi\n", $leave, "\n ret\n",
            closing!($r),
        )
    };
}
