//! The instruction sets. The CPU is asked once which it has. Each set can also be chosen by name, so that one machine
//! tests all that it can run.
//!
//! A set is a table of [`Primitives`]. Every routine has the same contract: it processes bytes in order and returns how
//! many it did **not** process, which is the kernel's convention for whatever may stop early. A fault stops it early if
//! a signal handler resumes it; see [`guard`].

#[allow(unused_macros)] // by the portable set, which has no such routines
#[macro_use]
mod routine;

#[cfg(all(target_arch = "aarch64", not(iovec_rs_portable)))]
mod aarch64;
pub mod facts;
pub mod guard;
pub mod limits;
#[cfg(any(test, iovec_rs_portable, not(any(target_arch = "aarch64", target_arch = "x86_64"))))]
#[cfg_attr(all(any(target_arch = "aarch64", target_arch = "x86_64"), not(iovec_rs_portable)), allow(dead_code))]
// where another set is used, only tests call it
mod portable;
#[cfg(test)]
pub mod setting;
pub mod tuning;
#[cfg(all(target_arch = "x86_64", not(iovec_rs_portable)))]
mod x86_64;

// The one choice of an architecture. What each provides: SETS, WRITE_BACKS, RECOVERS, NONTEMPORAL_BYPASSES, accesses,
// copying, store_fence, full_fence, load_fence, prefetch, prefetch_far, prefetch_to_write, ticks, features, facts,
// use_far, use_unaided, use_strings, cache_line_size, and for the signal handler resume, state and fault_kind.
#[cfg(all(target_arch = "aarch64", not(iovec_rs_portable)))]
use aarch64 as native;
#[cfg(any(iovec_rs_portable, not(any(target_arch = "aarch64", target_arch = "x86_64"))))]
use portable as native;
#[cfg(all(target_arch = "x86_64", not(iovec_rs_portable)))]
use x86_64 as native;

use crate::memory::Segment;
use guard::{Table, Trap};
#[cfg(test)]
pub(crate) use native::stepped;
pub(crate) use native::{NONTEMPORAL_BYPASSES, RECOVERS, fault_kind, resume, state, ticks};
use native::{SETS, WRITE_BACKS};
use std::ffi::OsStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Copies `len` bytes from `src` to `dst`, front to back; returns the bytes not copied. The ranges may overlap only if
/// `dst` is below `src`. Call it through [`guard::copy`], which turns a short count into an exact position.
pub type CopyFn = unsafe extern "C" fn(dst: *mut u8, src: *const u8, len: usize, trap: *mut Trap) -> usize;
/// Copies with non-temporal stores, front to back; `len` is not 0. Returns the bytes not copied. It does not fence.
/// Call it through [`guard::copy_nontemporal`].
///
/// The ranges may overlap only if `dst` is below `src`. Then no load ever needs to see a store of the same copy: the
/// routine loads a group of registers before it stores any of them, and all it has stored lies below what it loads
/// next.
pub type NontemporalFn = CopyFn;
/// Copies `len` bytes from `src` to `dst` and to `stage`, front to back; returns the bytes not copied. It loads each
/// byte once, so that both get the same, and stores to the stage first. `dst` and `stage` begin at lines, and `len` is
/// a multiple of [`LINE`], not 0. None of the three ranges overlap. Call it through [`guard::tee`].
pub type TeeFn =
    unsafe extern "C" fn(dst: *mut u8, src: *const u8, len: usize, trap: *mut Trap, stage: *mut u8) -> usize;
/// Zeroes `len` bytes at `dst`; returns the bytes not zeroed. Call it through [`guard::zero`].
pub type ZeroFn = unsafe extern "C" fn(dst: *mut u8, len: usize, trap: *mut Trap) -> usize;

/// How many segments ahead a [`LinesFn`] prefetches, so that a segment has arrived when the copy reaches it.
pub const LINES_AHEAD: usize = 64;
/// Copies, in turn, between flat memory and the first `count` segments of a list, each [`LINE`] bytes long; `count` is
/// not 0, and the list has at least [`LINES_AHEAD`] segments more. Returns the number of segments not copied. It stops
/// * before a segment of another length, and before one whose destination straddles two pages;
/// * behind a segment if the word `watched` is not `expected` by then;
/// * at a segment that faults. Then, and only then, it fills the record, with the addresses of that segment, of which
///   it has stored nothing.
///
/// Call it through [`guard::copy_lines`].
pub type LinesFn = unsafe extern "C" fn(
    list: *const Segment,
    count: usize,
    flat: usize,
    trap: *mut Trap,
    watched: *const u32,
    expected: u32,
) -> usize;

/// Plain copies of lists of segments that are one line long.
pub struct LineCopies {
    /// From the segments to flat memory.
    pub gather: LinesFn,
    /// From flat memory to the segments.
    pub scatter: LinesFn,
}

/// The routines of one instruction set.
pub struct Primitives {
    /// Its public name: what `IOVEC_RS_ISA` and `iovec_rs.cpu.use_isa` take.
    pub name: &'static str,
    /// Plain copy.
    pub copy: CopyFn,
    /// Copy with non-temporal stores.
    pub nontemporal: NontemporalFn,
    /// Plain zeroing.
    pub zero: ZeroFn,
    /// Plain copies of lists of lines. A set without them copies each segment by itself.
    pub lines: Option<LineCopies>,
    /// Copies to a destination and a buffer of ours at once. `None` if the set has no routines for that.
    pub tee: Option<Tee>,
    /// Whether this CPU can run it.
    pub available: fn() -> bool,
    /// Whether this CPU moves a register of this set in one piece. Zen 4, for one, moves 512 bits as two halves. The
    /// default is the widest set that is moved whole.
    pub whole: fn() -> bool,
    /// The fault tables of its routines.
    pub tables: &'static [Table],
}

/// The routines that copy to a destination and to a buffer of ours at once.
#[derive(Clone, Copy)]
pub struct Tee {
    /// With plain stores to both.
    pub copy: TeeFn,
    /// With non-temporal stores to the destination. It does not fence.
    pub nontemporal: TeeFn,
}

/// Writes back whole lines: `addr` is the start of a line and `len` a multiple of [`LINE`], not 0. Returns the bytes of
/// the lines not written back. It does not fence.
pub type WriteBackFn = unsafe extern "C" fn(addr: *mut u8, len: usize, trap: *mut Trap) -> usize;

/// An instruction that writes cache lines back to memory.
pub struct WriteBack {
    /// The instruction's mnemonic, and its public name.
    pub name: &'static str,
    /// The loop over lines. Call it through [`guard::write_back`].
    pub run: WriteBackFn,
    /// Whether it also evicts the line from every cache.
    pub evicts: bool,
    /// Whether this CPU has it.
    pub available: fn() -> bool,
    /// The fault table of its loop.
    pub tables: &'static [Table],
}

static CHOSEN: AtomicPtr<Primitives> = AtomicPtr::new(std::ptr::null_mut());
static CHOSEN_WRITE_BACK: AtomicPtr<WriteBack> = AtomicPtr::new(std::ptr::null_mut());

/// The environment variable that names the set in use when the process starts.
pub const ISA_VARIABLE: &str = "IOVEC_RS_ISA";

/// The sets this CPU can run, the widest one last.
pub fn available() -> impl DoubleEndedIterator<Item = &'static Primitives> {
    SETS.iter().copied().filter(|set| (set.available)())
}

/// The set in use: the one that [`ISA_VARIABLE`] names, else the widest whose registers this CPU moves in one piece,
/// until [`choose`] sets another. The first call asks the CPU.
pub fn primitives() -> &'static Primitives {
    let chosen = CHOSEN.load(Ordering::Relaxed);
    if chosen.is_null() {
        return choose_default();
    }
    // SAFETY: CHOSEN only ever holds null, excluded above, or a pointer made from an element of the static SETS.
    unsafe { &*chosen }
}

/// Uses the named set from now on, in all threads. A copy that is running may finish with the set it began with. `None`
/// if this CPU has no such set.
pub fn choose(name: &str) -> Option<&'static Primitives> {
    let set = available().find(|set| set.name == name)?;
    CHOSEN.store(std::ptr::from_ref(set).cast_mut(), Ordering::Relaxed);
    Some(set)
}

/// The set that [`ISA_VARIABLE`] names, and whether this CPU can run it. `None` if the variable is unset or empty.
pub fn requested() -> Option<(String, bool)> {
    let name = std::env::var_os(ISA_VARIABLE).filter(|v| v != OsStr::new(""))?;
    let name = name.to_string_lossy().into_owned();
    let found = available().any(|set| set.name == name);
    Some((name, found))
}

#[cold]
fn choose_default() -> &'static Primitives {
    tuning::current();
    let named = requested().and_then(|(name, _)| choose(&name));
    let best = || available().rfind(|set| (set.whole)()).and_then(|best| choose(best.name));
    named.or_else(best).unwrap_or(SETS[0])
}

/// The write-back instructions this CPU has, the best one last. There are none if the CPU's cache lines are not
/// [`LINE`] bytes long, since the loops step by that.
pub fn write_backs() -> impl DoubleEndedIterator<Item = &'static WriteBack> {
    let known = cache_line_size() == LINE;
    WRITE_BACKS.iter().copied().filter(move |instruction| known && (instruction.available)())
}

/// The write-back instruction in use. `None` if this CPU has none; then no store can be promised to leave the caches.
#[inline]
pub fn write_back() -> Option<&'static WriteBack> {
    let chosen = CHOSEN_WRITE_BACK.load(Ordering::Relaxed);
    if chosen.is_null() {
        return choose_best_write_back();
    }
    // SAFETY: CHOSEN_WRITE_BACK only ever holds null, excluded above, or a pointer that `choose_write_back` made from
    // an element of the static WRITE_BACKS.
    Some(unsafe { &*chosen })
}

#[cold]
fn choose_best_write_back() -> Option<&'static WriteBack> {
    write_backs().next_back().and_then(|best| choose_write_back(best.name))
}

/// Uses the named instruction from now on, in all threads. `None` if this CPU does not have it.
pub fn choose_write_back(name: &str) -> Option<&'static WriteBack> {
    let found = write_backs().find(|instruction| instruction.name == name)?;
    CHOSEN_WRITE_BACK.store(std::ptr::from_ref(found).cast_mut(), Ordering::Relaxed);
    Some(found)
}

/// The best instruction that evicts a line from every cache. `None` if this CPU has none.
pub fn evict() -> Option<&'static WriteBack> {
    // Kept, because in a virtual machine every CPUID instruction traps to the hypervisor.
    static BEST: OnceLock<Option<&'static WriteBack>> = OnceLock::new();
    *BEST.get_or_init(|| write_backs().rfind(|instruction| instruction.evicts))
}

/// Orders every earlier store, non-temporal stores and write-backs included, before every later store.
#[inline]
pub fn store_fence() {
    #[cfg(test)]
    guard::witness::note(guard::witness::Seen::Fence);
    native::store_fence();
}

/// Orders every earlier access, evictions included, before every later access.
pub fn full_fence() {
    native::full_fence();
}

/// Waits until every earlier load has its data, before anything that follows, such as the clock, is read.
pub fn load_fence() {
    native::load_fence();
}

/// Reads `si_addr_lsb`: log2 of the number of bytes that are poisoned. 0 for a signal that does not report poison. The
/// field is the 16 bits after the address, at offset 24; the libc crate has no accessor for it.
pub(crate) fn extent(info: &libc::siginfo_t) -> u16 {
    const OFFSET: usize = 24;
    if info.si_signo != libc::SIGBUS || info.si_code != libc::BUS_MCEERR_AR {
        return 0;
    }
    let field = std::ptr::from_ref(info).cast::<[u8; 2]>().wrapping_byte_add(OFFSET);
    // SAFETY: a `siginfo_t` has 128 bytes, so bytes 24 and 25 lie in it; the kernel fills them for BUS_MCEERR_AR.
    u16::from_ne_bytes(unsafe { field.read() })
}

/// What an instruction that faulted was doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultKind {
    /// It read memory.
    Read,
    /// It wrote memory, or read and wrote it.
    Write,
    /// The CPU could not fetch the instruction itself.
    Execute,
}

/// The length in bytes of the cache lines that the non-temporal stores and the write-back loops are written for.
pub const LINE: usize = 64;

/// The length in bytes of this CPU's cache lines: the `clflush` size of CPUID leaf 1; 64 where nothing reports it.
pub fn cache_line_size() -> usize {
    native::cache_line_size()
}

/// The CPU features that this crate makes use of, each with whether this CPU has it.
pub fn features() -> Vec<(&'static str, bool)> {
    native::features()
}

/// Prefetches the lines of `[addr, addr + len)` into all caches, of a long range only the first 1 KiB. Never faults.
#[inline(always)]
#[allow(clippy::inline_always)] // a call would cost more than the hint gains
pub fn prefetch(addr: usize, len: usize) {
    native::prefetch(addr, len);
}

/// Prefetches all lines of a range with the intent to write, so that the stores that follow find the lines owned. Never
/// faults.
#[inline]
pub fn prefetch_to_write(addr: usize, len: usize) {
    native::prefetch_to_write(addr, len);
}

/// Prefetches all lines of a range into the second-level cache, which can have more reads outstanding than the first.
/// Never faults.
#[inline]
pub fn prefetch_far(addr: usize, len: usize) {
    native::prefetch_far(addr, len);
}

#[cfg(test)]
mod tests;
