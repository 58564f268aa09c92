//! Loops of loads alone and of stores alone, over the caller's own memory. No copy is faster than the slower of the
//! two. And the fastest copy from memory to memory that is known, which bears no fault.

use super::moves_512_bits_whole;
use crate::arch::LINE;
use crate::arch::limits::Copying;
use core::arch::asm;
use core::arch::x86_64::{__m512i, _mm512_loadu_si512, _mm512_stream_si512};

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

/// How far apart two streams of a copy lie. On Zen 5, two streams take 0.95 to 0.98 of the time of one, from 16 MiB to
/// 1 GiB; streams that are 64 KiB apart are no faster than one.
const APART: usize = 1 << 20;

/// The fastest copy known. It needs AVX-512, which halves the stores.
pub(in crate::arch) fn copying() -> Option<Copying> {
    is_x86_feature_detected!("avx512f").then_some(copy as Copying)
}

/// Copies two streams at a time, and line by line what is left.
///
/// # Safety
/// As for [`Copying`], on a CPU with AVX-512.
#[target_feature(enable = "avx512f")]
unsafe fn copy(dst: usize, src: usize, len: usize) {
    const LINES: usize = 4;
    let in_streams = len / (2 * APART) * (2 * APART);
    for pair in (0..in_streams).step_by(2 * APART) {
        for at in (pair..pair + APART).step_by(LINES * LINE) {
            // SAFETY: both groups of lines lie in the source, which the caller says may be read.
            let near: [__m512i; LINES] = std::array::from_fn(|line| unsafe { load(src + at + line * LINE) });
            // SAFETY: as they do, a stream further: `pair + 2 * APART` is at most `len`.
            let far: [__m512i; LINES] = std::array::from_fn(|line| unsafe { load(src + at + APART + line * LINE) });
            for (line, (near, far)) in near.into_iter().zip(far).enumerate() {
                // SAFETY: both lines lie in the destination, which is the caller's own and begins on a line boundary.
                unsafe { store(dst + at + line * LINE, near) };
                // SAFETY: it lies a stream further in the destination.
                unsafe { store(dst + at + APART + line * LINE, far) };
            }
        }
    }
    for at in (in_streams..len).step_by(LINE) {
        // SAFETY: `len` is a multiple of a line, so all of the line lies in the source.
        let line = unsafe { load(src + at) };
        // SAFETY: and in the destination, which is the caller's own.
        unsafe { store(dst + at, line) };
    }
}

/// # Safety
/// The line may be read, and the CPU has AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(addr: usize) -> __m512i {
    // SAFETY: `load`'s caller says that the line may be read.
    unsafe { _mm512_loadu_si512(std::ptr::with_exposed_provenance(addr)) }
}

/// # Safety
/// The line is the caller's own, at a line boundary, and the CPU has AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(addr: usize, line: __m512i) {
    // SAFETY: `store`'s caller says that the line is its own and aligned.
    unsafe { _mm512_stream_si512(std::ptr::with_exposed_provenance_mut(addr), line) };
}
