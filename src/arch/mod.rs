//! Instructions: detected once, every set reachable by name so that each is tested on one machine.
//!
//! A set is a table of [`Primitives`]. All of them have one contract: process bytes in order, return how many were
//! **not** processed (the kernel's convention for everything that may stop early), survive a fault where a handler is
//! there.

pub mod facts;
pub mod guard;
pub mod limits;
#[cfg(any(test, iovec_rs_portable, not(target_arch = "x86_64")))]
#[cfg_attr(all(target_arch = "x86_64", not(iovec_rs_portable)), allow(dead_code))]
// its copies are tested beside the others
mod portable;
#[cfg(test)]
pub mod setting;
pub mod tuning;
#[cfg(all(target_arch = "x86_64", not(iovec_rs_portable)))]
mod x86_64;

// The one choice of an instruction set. What each provides: SETS, WRITE_BACKS, RECOVERS, accesses, store_fence,
// full_fence, prefetch, prefetch_far, prefetch_to_write, ticks, features, facts, use_strings, cache_line_size, and for
// the signal handler resume, state and fault_kind.
#[cfg(any(iovec_rs_portable, not(target_arch = "x86_64")))]
use portable as native;
#[cfg(all(target_arch = "x86_64", not(iovec_rs_portable)))]
use x86_64 as native;

use guard::{Table, Trap};
#[cfg(test)]
pub(crate) use native::stepped;
pub(crate) use native::{RECOVERS, fault_kind, resume, state, ticks};
use native::{SETS, WRITE_BACKS};
use std::ffi::OsStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Copies `len` bytes from `src` to `dst`, front to back; returns the bytes not copied. The ranges may overlap only if
/// `dst` is below `src`. Called through [`guard::copy`], which knows what a short count means.
pub type CopyFn = unsafe extern "C" fn(dst: *mut u8, src: *const u8, len: usize, trap: *mut Trap) -> usize;
/// Copies past the caches, front to back; `len` is not 0. Returns the bytes not copied. The ranges may overlap only if
/// `dst` is below `src`: each turn of a loop loads all it stores before it stores any of it, and stores nothing at or
/// above what is loaded next. A store, non-temporal or not, is never visible to a load that comes before it in the same
/// thread, and no load here has to see one. Called through [`guard::copy_nontemporal`].
pub type NontemporalFn = CopyFn;
/// Zeroes `len` bytes at `dst`; returns the bytes not zeroed. Called through [`guard::zero`].
pub type ZeroFn = unsafe extern "C" fn(dst: *mut u8, len: usize, trap: *mut Trap) -> usize;

/// One instruction set's ways to touch memory.
pub struct Primitives {
    /// Its public name: what `IOVEC_RS_ISA` and `iovec_rs.cpu.use_isa` take.
    pub name: &'static str,
    /// Plain copy.
    pub copy: CopyFn,
    /// Copy past the caches.
    pub nontemporal: NontemporalFn,
    /// Plain zeroing.
    pub zero: ZeroFn,
    /// Whether this CPU can run it.
    pub available: fn() -> bool,
    /// Whether it moves the registers in one piece.
    pub whole: fn() -> bool,
    /// Where its routines may fault.
    pub tables: &'static [Table],
}

/// Works on whole lines: `len` bytes from a line's start on. Returns the bytes not worked on.
pub type WriteBackFn = unsafe extern "C" fn(addr: *mut u8, len: usize, trap: *mut Trap) -> usize;

/// One instruction that writes cache lines back to memory.
pub struct WriteBack {
    /// The instruction.
    pub name: &'static str,
    /// Its loop, called through [`guard::write_back`].
    pub run: WriteBackFn,
    /// Whether the lines are out of the caches afterwards.
    pub evicts: bool,
    /// Whether this CPU has it.
    pub available: fn() -> bool,
    /// Where it may fault.
    pub tables: &'static [Table],
}

static CHOSEN: AtomicPtr<Primitives> = AtomicPtr::new(std::ptr::null_mut());
static CHOSEN_WRITE_BACK: AtomicPtr<WriteBack> = AtomicPtr::new(std::ptr::null_mut());

/// The environment variable that names the set to start with.
pub const ISA_VARIABLE: &str = "IOVEC_RS_ISA";

/// The sets this CPU can run, the widest one last.
pub fn available() -> impl DoubleEndedIterator<Item = &'static Primitives> {
    SETS.iter().copied().filter(|set| (set.available)())
}

/// The set in use: the widest that suits the CPU, until another is chosen. Detection runs at the first call.
pub fn primitives() -> &'static Primitives {
    let chosen = CHOSEN.load(Ordering::Relaxed);
    if chosen.is_null() {
        return choose_default();
    }
    // SAFETY: CHOSEN only ever holds null, excluded above, or a pointer made from an element of the static SETS.
    unsafe { &*chosen }
}

/// Uses the named set from now on, in all threads; copies under way may finish with the one they began with.
/// `None` if there is no such set on this CPU.
pub fn choose(name: &str) -> Option<&'static Primitives> {
    let set = available().find(|set| set.name == name)?;
    CHOSEN.store(std::ptr::from_ref(set).cast_mut(), Ordering::Relaxed);
    Some(set)
}

/// What the environment asks for, and whether it can be had.
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

/// The write-back instructions this CPU has, the best one last. None where the lines are not of the length they are
/// written for.
pub fn write_backs() -> impl DoubleEndedIterator<Item = &'static WriteBack> {
    let known = cache_line_size() == LINE;
    WRITE_BACKS.iter().copied().filter(move |instruction| known && (instruction.available)())
}

/// The write-back instruction in use; `None` where there is none, and nothing can be promised to leave the caches.
#[inline]
pub fn write_back() -> Option<&'static WriteBack> {
    let chosen = CHOSEN_WRITE_BACK.load(Ordering::Relaxed);
    if chosen.is_null() {
        return choose_best_write_back();
    }
    // SAFETY: null is excluded above; else only pointers made from elements of the static WRITE_BACKS are stored.
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

/// The best instruction after which a line is in no cache any more.
pub fn evict() -> Option<&'static WriteBack> {
    // Looked up once: in a guest every CPUID traps to the host.
    static BEST: OnceLock<Option<&'static WriteBack>> = OnceLock::new();
    *BEST.get_or_init(|| write_backs().rfind(|instruction| instruction.evicts))
}

/// Orders every store before it, non-temporal ones and write-backs too, before every store after it.
#[inline]
pub fn store_fence() {
    native::store_fence();
}

/// Orders every access before it, evictions too, before every access after it.
pub fn full_fence() {
    native::full_fence();
}

/// `si_addr_lsb`: log2 of the extent that is poisoned, in bytes; 0 for any other signal. The C library's struct has the
/// field, the 16 bits after the address; the libc crate does not name it.
pub(crate) fn extent(info: &libc::siginfo_t) -> u16 {
    const OFFSET: usize = 24;
    if info.si_signo != libc::SIGBUS || info.si_code != libc::BUS_MCEERR_AR {
        return 0;
    }
    let field = std::ptr::from_ref(info).cast::<[u8; 2]>().wrapping_byte_add(OFFSET);
    // SAFETY: a siginfo has 128 bytes; for BUS_MCEERR_AR the kernel has filled these.
    u16::from_ne_bytes(unsafe { field.read() })
}

/// What an instruction that faulted was doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultKind {
    /// It loaded.
    Read,
    /// It stored, or loaded and stored.
    Write,
    /// It could not even be fetched.
    Execute,
}

/// The length in bytes of the cache lines that non-temporal stores and write-backs work on.
pub const LINE: usize = 64;

/// The cache line, from CPUID (leaf 1, the `clflush` size); 64 where there is no such thing.
pub fn cache_line_size() -> usize {
    native::cache_line_size()
}

/// The CPU features this crate looks at, and whether they are there.
pub fn features() -> Vec<(&'static str, bool)> {
    native::features()
}

/// Prefetches the lines of `[addr, addr + len)`, the first few at most. Never faults.
#[inline(always)]
#[allow(clippy::inline_always)] // a call would cost more than the hint gains
pub fn prefetch(addr: usize, len: usize) {
    native::prefetch(addr, len);
}

/// Claims all lines of a range that is about to be stored to. Never faults.
#[inline]
pub fn prefetch_to_write(addr: usize, len: usize) {
    native::prefetch_to_write(addr, len);
}

/// Prefetches all the lines into the second-level cache, which can wait for more lines at once than the first. Never
/// faults.
#[inline]
pub fn prefetch_far(addr: usize, len: usize) {
    native::prefetch_far(addr, len);
}

#[cfg(test)]
mod tests;
