//! Loops of loads alone and of stores alone, over the caller's own memory. No copy is faster than the slower of the
//! two.

use super::moves_512_bits_whole;
use core::arch::asm;

/// A loop over memory, 256 bytes an iteration. The memory must be the caller's own, begin on a 256-byte boundary and be
/// a multiple of 256 bytes long, not 0; the CPU must have the instructions. Stores write unspecified bytes.
type Routine = unsafe fn(addr: usize, len: usize);

/// Loads, stores, and non-temporal stores.
pub(in crate::arch) type Accesses = [Routine; 3];

/// Defines the three loops of one register width. An iteration has one access at each of these offsets.
#[rustfmt::skip]
macro_rules! accesses {
    (
        $name:ident, $end:literal, [$load:literal, $store:literal, $stream:literal],
        $register:literal: $($at:literal)*
    ) => {
        const $name: Accesses = [
            accesses!(@ $end, $($load, " ", $register, ", [{at} + ", $at, "]\n ",)*),
            accesses!(@ $end, $($store, " [{at} + ", $at, "], ", $register, "\n ",)*),
            accesses!(@ $end, $($stream, " [{at} + ", $at, "], ", $register, "\n ",)*),
        ];
    };
    (@ $end:literal, $($part:literal,)*) => {
        |addr, len| {
            // SAFETY: `Routine`'s contract: memory of the caller's own, aligned for every access and a multiple of 256
            // bytes, not 0; and a CPU that has the instructions.
            unsafe {
                asm!(
                    "2:", concat!($($part,)*), "add {at}, 256\n cmp {at}, {end}\n jb 2b", $end,
                    at = inout(reg) addr => _, end = in(reg) addr.wrapping_add(len), out("xmm0") _, options(nostack)
                );
            }
        }
    };
}

accesses!(SSE2, "", ["movdqa", "movdqa", "movntdq"], "xmm0": 0 16 32 48 64 80 96 112 128 144 160 176 192 208 224 240);
accesses!(AVX2, "vzeroupper", ["vmovdqa", "vmovdqa", "vmovntdq"], "ymm0": 0 32 64 96 128 160 192 224);
accesses!(AVX512, "vzeroupper", ["vmovdqa64", "vmovdqa64", "vmovntdq"], "zmm0": 0 64 128 192);

/// The loops of the widest registers that this CPU moves in one piece.
pub(in crate::arch) fn accesses() -> Accesses {
    match () {
        () if is_x86_feature_detected!("avx512f") && moves_512_bits_whole() => AVX512,
        () if is_x86_feature_detected!("avx2") => AVX2,
        () => SSE2,
    }
}
