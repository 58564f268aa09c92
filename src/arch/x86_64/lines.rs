//! Whole lines, one and four at a time: copied through the caches, copied past them, zeroed. Each access is entered
//! into the table of the routine `$r`.

/// One line at `$at`: every group of registers is loaded, then stored. (All but the narrowest set have one group.)
/// Before the group at offset `o` of it, `$stored o` bytes of the turn were stored.
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

/// Prefetches the four lines of a turn, ahead of it.
#[rustfmt::skip]
macro_rules! hint {
    ($at:literal) => {
        concat!(
            "prefetcht0 [rsi+", $at, "]\n prefetcht0 [rsi+", $at, "+64]\n ",
            "prefetcht0 [rsi+", $at, "+128]\n prefetcht0 [rsi+", $at, "+192]\n",
        )
    };
}

/// Four lines, asked for into the second cache alone.
#[rustfmt::skip]
macro_rules! far_hint {
    ($at:literal) => {
        concat!(
            "prefetcht1 [rsi+", $at, "]\n prefetcht1 [rsi+", $at, "+64]\n ",
            "prefetcht1 [rsi+", $at, "+128]\n prefetcht1 [rsi+", $at, "+192]\n",
        )
    };
}

/// Four lines a turn while `rdx` (the bytes left, less what the caller has set aside) does not go below zero.
#[rustfmt::skip]
macro_rules! copy_lines {
    ($r:literal, $label:literal, $mov:literal, $line:tt, $hint:expr) => {
        concat!(
            ".p2align 5\n",
            $label, ":\n",
            $hint,
            copy_line!($r, $mov, $mov, "0", $line),
            copy_line!($r, $mov, $mov, "64", $line),
            copy_line!($r, $mov, $mov, "128", $line),
            copy_line!($r, $mov, $mov, "192", $line),
            "add rsi, 256\n add rdi, 256\n sub rdx, 256\n jae ", $label, "b\n",
        )
    };
}

/// Four lines past the caches: each group of registers is loaded, from where it starts on, and then stored. Loads ahead
/// of the stores, because a load waits for a store whose address is alike in its low bits.
#[rustfmt::skip]
macro_rules! nontemporal_turn {
    ($r:literal, $mov:literal, $put:literal, [$([$start:literal: $($reg:literal $o:literal),*]),*]) => {
        concat!($(
            $( guarded!($r, "load", $start, concat!($o, "-", $start),
                concat!($mov, " ", $reg, ", [rsi+", $o, "]\n")), )*
            $( guarded!($r, "store", $o, concat!($put, " [rdi+", $o, "], ", $reg, "\n")), )*
        )*)
    };
}

/// Turns of [`nontemporal_turn`] while `rdx` (the bytes left, less what the caller has set aside) does not go below
/// zero.
#[rustfmt::skip]
macro_rules! nontemporal_turns {
    ($r:literal, $label:literal, $mov:literal, $put:literal, $turn:tt, $hint:expr) => {
        concat!(
            ".p2align 5\n",
            $label, ":\n",
            $hint,
            nontemporal_turn!($r, $mov, $put, $turn),
            "add rsi, 256\n add rdi, 256\n sub rdx, 256\n jae ", $label, "b\n",
        )
    };
}

/// One line of zeroes at `$at`.
#[rustfmt::skip]
macro_rules! zero_line {
    ($r:literal, $mov:literal, $at:literal, [$([$($reg:literal $o:literal),*]),*]) => {
        concat!($( guarded!($r, "store", $at, concat!($( $mov, " [rdi+", $at, "+", $o, "], ", $reg, "\n", )*)), )*)
    };
}
