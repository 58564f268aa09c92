//! x86-64: the routines, which of them this CPU can run, and what CPUID reports.

#[macro_use]
mod table;
#[macro_use]
mod lines;
#[macro_use]
mod partial;
#[macro_use]
mod tee;
#[cfg(test)]
mod disassembly;
mod flush;
mod limits;
mod signal;
#[cfg(test)]
mod stepping;
mod thresholds;
mod vector;

pub(crate) use signal::{fault_kind, resume, state};
#[cfg(test)]
pub(crate) use stepping::stepped;

use super::facts::{Facts, Vendor};
use super::{Primitives, WriteBack};
use flush::{CLFLUSH, CLFLUSHOPT, CLWB};
use vector::{AVX2, AVX512, SCALAR, SSE2};

/// The instruction sets, the narrowest first.
pub(super) static SETS: &[&Primitives] = &[&SCALAR, &SSE2, &AVX2, &AVX512];

/// The write-back instructions, the best one last.
pub(super) static WRITE_BACKS: &[&WriteBack] = &[&CLFLUSH, &CLFLUSHOPT, &CLWB];

/// Whether the routines survive faults, if a handler calls [`resume`].
pub(crate) const RECOVERS: bool = true;

/// Whether bytes that were stored non-temporally, and fenced, are in no cache.
pub(crate) const NONTEMPORAL_BYPASSES: bool = true;

use super::LINE;
use core::arch::asm;
use core::arch::x86_64::{
    __cpuid, __cpuid_count, _MM_HINT_T0, _MM_HINT_T1, _mm_lfence, _mm_mfence, _mm_prefetch, _mm_sfence, _rdtsc,
    CpuidResult,
};

/// CPUID leaf 7: EBX bit 9 is ERMS, bit 23 CLFLUSHOPT, bit 24 CLWB; EDX bit 4 is FSRM.
fn structured_features() -> (u32, u32) {
    if __cpuid(0).eax < 7 {
        return (0, 0);
    }
    let leaf = __cpuid_count(7, 0);
    (leaf.ebx, leaf.edx)
}

/// Sets the length, in bytes, from which non-temporal copies prefetch far ahead.
pub(super) fn use_far(from: usize) {
    thresholds::use_far(from);
}

/// Sets the length, in bytes, from which other non-temporal copies leave their source to the hardware prefetcher.
pub(super) fn use_unaided(from: usize) {
    thresholds::use_unaided(from);
}

/// The properties of this CPU that thresholds depend on, by CPUID.
pub(super) fn facts() -> Facts {
    Facts {
        vendor: vendor(),
        first_cache: cache(|level| level == 1),
        second_cache: cache(|level| level == 2),
        last_cache: cache(|_| true),
        fast_strings: structured_features().1 & 1 << 4 != 0,
    }
}

/// The maker, whose name CPUID leaf 0 returns in three registers.
fn vendor() -> Vendor {
    let leaf = __cpuid(0);
    let name: Vec<u8> = [leaf.ebx, leaf.edx, leaf.ecx].into_iter().flat_map(u32::to_le_bytes).collect();
    match &name[..] {
        b"GenuineIntel" => Vendor::Intel,
        b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
        _ => Vendor::Other,
    }
}

/// Sets the lengths, in bytes, from which plain copies use `rep movsb`: between addresses that agree modulo a line, and
/// between any addresses.
pub(super) fn use_strings(from: usize, any_from: usize) {
    thresholds::use_strings(from, any_from);
}

/// The loops of loads alone and of stores alone, with the widest registers.
#[allow(clippy::unnecessary_wraps)] // the portable set has none
pub(super) fn accesses() -> Option<limits::Accesses> {
    Some(limits::accesses())
}

/// The fastest copy from memory to memory that is known for this CPU.
pub(super) fn copying() -> Option<super::limits::Copying> {
    limits::copying()
}

/// Whether the CPU moves a 512-bit register in one piece. CPUID leaf 0x8000001A of AMD's tells how wide the data paths
/// are. CPUs of other makers that have AVX-512 do not have this leaf, and move it whole.
fn moves_512_bits_whole() -> bool {
    const LEAF: u32 = 0x8000_001A;
    __cpuid(0x8000_0000).eax < LEAF || are_paths_of_512_bits(__cpuid(LEAF).eax)
}

/// Reads EAX of that leaf. Of bits 0, 2 and 3 one is set: for data paths of 128, 256 or 512 bits. KVM hides bit 3, so
/// where the leaf says something, and names no narrower width, the paths have 512 bits.
const fn are_paths_of_512_bits(eax: u32) -> bool {
    const FP128: u32 = 1 << 0;
    const FP256: u32 = 1 << 2;
    eax != 0 && eax & (FP128 | FP256) == 0
}

/// The size, in bytes, of the largest data or unified cache whose level `is_meant` accepts. Intel describes caches in
/// CPUID leaf 4 and AMD in leaf 0x8000001D, in the same format.
fn cache(is_meant: impl Fn(u32) -> bool) -> Option<usize> {
    const INSTRUCTIONS: u32 = 2;
    let caches = |leaf: u32| {
        let last = __cpuid(leaf & 0x8000_0000).eax;
        let known = if last < leaf { 0 } else { 8 };
        (0..known).map(move |index| __cpuid_count(leaf, index)).take_while(|cache| cache.eax & 0x1f != 0)
    };
    let field = |register: u32, at: u32, bits: u32| (register >> at & ((1 << bits) - 1)) as usize + 1;
    let size = |cache: CpuidResult| {
        let ways = field(cache.ebx, 22, 10) * field(cache.ebx, 12, 10) * field(cache.ebx, 0, 12);
        ways * (cache.ecx as usize + 1)
    };
    let all = caches(4).chain(caches(0x8000_001D));
    all.filter(|cache| cache.eax & 0x1f != INSTRUCTIONS && is_meant(cache.eax >> 5 & 7)).map(size).max()
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

/// How many bytes of the next segment are prefetched. Behind that the hardware prefetcher has detected the stream.
const PREFETCH_BYTES: usize = 1024;

/// Calls `hint` with an address in each line of a range. A range that begins inside a line reaches into one line more
/// than its length tells, so the bytes before it in that line are added. A range of at most 64 bytes gets two calls,
/// for its first byte and its last, so that no branch depends on where short segments begin. So does one of a single
/// byte, by which copies that sum prefetch each line: with one call, 64 MiB of them take 3.7 to 4.8 ms on Zen 5, not
/// 2.6 to 3.7. The cause is not known.
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
fn each_line(addr: usize, len: usize, hint: impl Fn(*const i8)) {
    let at = |offset| std::ptr::with_exposed_provenance(addr.wrapping_add(offset));
    if (1..=LINE).contains(&len) {
        hint(at(0));
        hint(at(len - 1));
        return;
    }
    for offset in (0..len + addr % LINE).step_by(LINE) {
        hint(at(offset));
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn prefetch(addr: usize, len: usize) {
    // SAFETY: a prefetch is a hint; it never faults and has no effect on memory, whatever the address.
    each_line(addr, len.min(PREFETCH_BYTES), |line| unsafe { _mm_prefetch::<_MM_HINT_T0>(line) });
}

#[inline]
pub(super) fn prefetch_far(addr: usize, len: usize) {
    // SAFETY: a prefetch is a hint; it never faults and has no effect on memory, whatever the address.
    each_line(addr, len, |line| unsafe { _mm_prefetch::<_MM_HINT_T1>(line) });
}

#[inline]
pub(super) fn prefetch_to_write(addr: usize, len: usize) {
    each_line(addr, len, |line| {
        // SAFETY: a prefetch is a hint; it never faults and has no effect on memory, whatever the address. Every CPU
        // with 64-bit mode accepts the instruction; some do nothing for it.
        unsafe { asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly)) };
    });
}

/// Reads the time-stamp counter, the cheapest clock there is.
#[inline]
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe { _rdtsc() }
}

/// Orders every earlier store, non-temporal stores and write-backs included, before every later store.
pub(super) fn store_fence() {
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe { _mm_sfence() };
}

/// Orders every earlier access, evictions included, before every later access.
pub(super) fn full_fence() {
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe { _mm_mfence() };
}

/// Waits until every earlier load has its data.
pub(super) fn load_fence() {
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe { _mm_lfence() };
}

#[cfg(test)]
mod tests {
    use super::are_paths_of_512_bits;

    #[test]
    fn the_widest_registers_are_the_default_where_no_narrower_paths_are_reported() {
        for (cpu, eax, expected) in [
            ("Zen 1", 0b0011, false),
            ("Zen 2 to 4", 0b0110, false),
            ("Zen 5", 0b1010, true),
            ("Zen 5 under KVM, which hides bit 3", 0b0010, true),
            ("a hypervisor that reports nothing", 0, false),
        ] {
            assert_eq!(are_paths_of_512_bits(eax), expected, "{cpu}");
        }
    }
}
