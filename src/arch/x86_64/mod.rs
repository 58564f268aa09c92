//! x86-64: the routines, and what this CPU can run of them.

#[macro_use]
mod table;
#[macro_use]
mod lines;
#[macro_use]
mod partial;
#[cfg(test)]
mod disassembly;
mod flush;
mod signal;
#[cfg(test)]
mod stepping;
mod vector;

pub(crate) use signal::{fault_kind, resume, state};
#[cfg(test)]
pub(crate) use stepping::stepped;

use super::{Primitives, WriteBack};
use flush::{CLFLUSH, CLFLUSHOPT, CLWB};
use vector::{AVX2, AVX512, SCALAR, SSE2};

/// The instruction sets, the narrowest first.
pub(super) static SETS: &[&Primitives] = &[&SCALAR, &SSE2, &AVX2, &AVX512];

/// The write-back instructions, the best one last.
pub(super) static WRITE_BACKS: &[&WriteBack] = &[&CLFLUSH, &CLFLUSHOPT, &CLWB];

/// Whether the routines survive faults, if a handler calls [`resume`].
pub(crate) const RECOVERS: bool = true;

use core::arch::x86_64::{
    __cpuid, __cpuid_count, _MM_HINT_T0, _MM_HINT_T1, _mm_mfence, _mm_prefetch, _mm_sfence, _rdtsc,
};

/// CPUID leaf 7: EBX bit 9 is ERMS, bit 23 CLFLUSHOPT, bit 24 CLWB; EDX bit 4 is FSRM.
fn structured_features() -> (u32, u32) {
    if __cpuid(0).eax < 7 {
        return (0, 0);
    }
    let leaf = __cpuid_count(7, 0);
    (leaf.ebx, leaf.edx)
}

/// Opens the string path where the CPU says that even short strings are fast. May run any number of times.
pub(super) fn detect() {
    if structured_features().1 & 1 << 4 != 0 {
        vector::use_strings(amd_l1_kib() == 32);
    }
}

/// The size of the first-level data cache, where the CPU has AMD's leaf that tells; 0 elsewhere.
fn amd_l1_kib() -> u32 {
    const LEAF: u32 = 0x8000_0005;
    if __cpuid(0x8000_0000).eax < LEAF { 0 } else { __cpuid(LEAF).ecx >> 24 }
}

/// Whether 512 bits are moved in one piece. AMD's leaf of data paths tells where they are not; other CPUs that have
/// them do not have that leaf.
fn moves_512_bits_whole() -> bool {
    const LEAF: u32 = 0x8000_001A;
    const FP512: u32 = 1 << 3;
    __cpuid(0x8000_0000).eax < LEAF || __cpuid(LEAF).eax & FP512 != 0
}

/// The size of the last cache, by the leaf of either vendor: they differ in their numbers alone.
pub(super) fn last_cache() -> Option<usize> {
    let caches = |leaf: u32| {
        let last = __cpuid(leaf & 0x8000_0000).eax;
        let known = if last < leaf { 0 } else { 8 };
        (0..known).map(move |index| __cpuid_count(leaf, index)).take_while(|cache| cache.eax & 0x1f != 0)
    };
    let field = |register: u32, at: u32, bits: u32| (register >> at & ((1 << bits) - 1)) as usize + 1;
    let size = |cache: core::arch::x86_64::CpuidResult| {
        let ways = field(cache.ebx, 22, 10) * field(cache.ebx, 12, 10) * field(cache.ebx, 0, 12);
        ways * (cache.ecx as usize + 1)
    };
    caches(4).chain(caches(0x8000_001D)).map(size).max()
}

pub(super) fn cache_line_size() -> usize {
    let units = (__cpuid(1).ebx >> 8 & 0xff) as usize;
    if units == 0 { 64 } else { units * 8 }
}

pub(super) fn features() -> Vec<(&'static str, bool)> {
    let (ebx, edx) = structured_features();
    vec![
        ("sse2", true),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("erms", ebx & 1 << 9 != 0),
        ("fsrm", edx & 1 << 4 != 0),
        ("clflushopt", ebx & 1 << 23 != 0),
        ("clwb", ebx & 1 << 24 != 0),
    ]
}

/// How far into a coming segment a hint reaches: the hardware prefetcher has caught on by then.
const PREFETCH_BYTES: usize = 1024;

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn prefetch(addr: usize, len: usize) {
    for line in (0..len.min(PREFETCH_BYTES)).step_by(64) {
        // SAFETY: a prefetch is a hint; it never faults and has no effect on memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::with_exposed_provenance(addr.wrapping_add(line))) };
    }
}

#[inline]
pub(super) fn prefetch_far(addr: usize, len: usize) {
    for line in (0..len).step_by(64) {
        // SAFETY: a prefetch is a hint; it never faults and has no effect on memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::with_exposed_provenance(addr.wrapping_add(line))) };
    }
}

/// The clock that costs nothing to read.
#[inline]
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe { _rdtsc() }
}

/// Orders every store before it, non-temporal ones and write-backs too, before every store after it.
pub(super) fn store_fence() {
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe { _mm_sfence() };
}

/// Orders every access before it, evictions too, before every access after it.
pub(super) fn full_fence() {
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe { _mm_mfence() };
}
