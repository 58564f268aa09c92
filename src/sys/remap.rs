//! Replacing pages by zeroes and back: what the SIGBUS handler does to a guarded mapping.
//!
//! Each function makes its system calls through `syscall`, not through the C library's `mmap`, `mremap` and so on: a
//! sanitizer or a preloaded library may have replaced those by functions that allocate or lock, which a signal handler
//! must not do.

use super::errno;
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use std::ffi::{CStr, c_long};

/// The file that zeroes are mapped from. They are mapped at a file offset equal to their address, which no other
/// program's mapping of this file does. So the list of mappings shows which pages are still these zeroes and which were
/// mapped over later.
pub const ZEROES: &CStr = c"/dev/zero";

/// A system call.
///
/// # Safety
/// What it writes to, maps and unmaps is the caller's to change.
unsafe fn call(number: c_long, arguments: [usize; 6]) -> Result<usize, i32> {
    let [first, second, third, rest @ ..] = arguments;
    // SAFETY: the caller of `call` answers for what it does; it takes numbers, and the kernel checks each address.
    let result = unsafe { libc::syscall(number, first, second, third, rest[0], rest[1], rest[2]) };
    if result == -1 { Err(errno()) } else { Ok(result.cast_unsigned() as usize) }
}

const fn flags(bits: i32) -> usize {
    bits.cast_unsigned() as usize
}

/// Moves the pages of a range to an unused address, which it returns. The mapping stays in its old place too, without
/// pages (`MREMAP_DONTUNMAP`). EINVAL: the kernel cannot do that for this mapping, for example of a file before Linux
/// 5.13, or of pages of another size.
///
/// # Safety
/// Every user of the range accepts that its pages are read anew from the mapped object.
pub unsafe fn keep_aside(seg: Segment) -> Result<usize, i32> {
    let how = flags(libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP);
    // SAFETY: the caller of `keep_aside` lets the range be emptied; the pages go to where nothing is mapped.
    unsafe { call(libc::SYS_mremap, [seg.addr, seg.len, seg.len, how, 0, 0]) }
}

/// Maps zeroes over a range: from `zeroes`, a descriptor of [`ZEROES`], or else anonymous memory.
///
/// # Safety
/// What is mapped in the range may go: it was kept aside, or nobody needs it.
pub unsafe fn map_zeroes(seg: Segment, is_writable: bool, zeroes: Option<i32>) -> Result<(), i32> {
    let protection = flags(libc::PROT_READ | if is_writable { libc::PROT_WRITE } else { 0 });
    let how = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    let (how, file, offset) = match zeroes {
        Some(file) => (how, flags(file), seg.addr),
        None => (how | libc::MAP_ANONYMOUS, usize::MAX, 0),
    };
    // SAFETY: the caller of `map_zeroes` gives the range away.
    unsafe { call(libc::SYS_mmap, [seg.addr, seg.len, protection, flags(how), file, offset]) }.map(|_| ())
}

/// Moves pages that were kept aside back to `seg`, over whatever is mapped there, and extends the mapping to `len`
/// bytes with the pages that follow in its file.
///
/// # Safety
/// `kept` is the address that [`keep_aside`] returned for `seg`, and was not moved back since. Nobody needs what is
/// mapped in the `len` bytes from the start of `seg` on.
pub unsafe fn put_back(kept: usize, seg: Segment, len: usize) -> Result<(), i32> {
    let how = flags(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
    // SAFETY: the caller of `put_back` has the pages at `kept`, and gives away what is mapped where they go.
    unsafe { call(libc::SYS_mremap, [kept, seg.len, len, how, seg.addr, 0]) }.map(|_| ())
}

/// Unmaps a range.
///
/// # Safety
/// The range is the caller's, and nothing uses it any more.
pub unsafe fn unmap(seg: Segment) {
    // SAFETY: the caller of `unmap` has the range, and nobody uses it.
    let _ = unsafe { call(libc::SYS_munmap, [seg.addr, seg.len, 0, 0, 0, 0]) };
}

/// Makes `mappings` mappings of one page each, or as many as the limit on mappings allows. They have no use but to be
/// unmapped later, when the process is at that limit and needs room for other mappings. Returns their range.
pub fn map_ballast(mappings: usize) -> Result<Segment, i32> {
    let how = flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    let len = mappings * PAGE_SIZE;
    // SAFETY: without an address given, the kernel takes one where nothing is mapped.
    let start = unsafe { call(libc::SYS_mmap, [0, len, flags(libc::PROT_NONE), how, usize::MAX, 0]) }?;
    // Every other page gets another protection, since the kernel merges neighbours that are alike into one mapping.
    for page in (0..mappings).step_by(2) {
        let arguments = [start + page * PAGE_SIZE, PAGE_SIZE, flags(libc::PROT_READ), 0, 0, 0];
        // SAFETY: `page < mappings`: it is one of the pages just mapped, which nobody knows of.
        let _ = unsafe { call(libc::SYS_mprotect, arguments) };
    }
    Ok(Segment::new(start, len))
}

/// Whether the size of this process's address space is limited (`RLIMIT_AS`).
pub fn are_addresses_limited() -> bool {
    let mut found = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    let at = (&raw mut found).expose_provenance();
    // SAFETY: it writes to `found` alone, which is ours.
    let _ = unsafe { call(libc::SYS_prlimit64, [0, libc::RLIMIT_AS as usize, 0, at, 0, 0]) };
    found.rlim_cur != libc::RLIM_INFINITY
}

/// Sets the thread's mask of blocked signals; returns the old mask.
pub fn set_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    let (new, old) = ((&raw const mask).addr(), (&raw mut before).expose_provenance());
    // SAFETY: it reads `mask` and writes to `before` alone, both as long as is said.
    let _ = unsafe { call(libc::SYS_rt_sigprocmask, [flags(libc::SIG_SETMASK), new, old, size_of::<u64>(), 0, 0]) };
    before
}

/// Lets another thread run.
pub fn give_way() {
    // SAFETY: it touches no memory.
    let _ = unsafe { call(libc::SYS_sched_yield, [0; 6]) };
}

/// The monotonic clock, in nanoseconds.
pub fn nanoseconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let at = (&raw mut now).expose_provenance();
    // SAFETY: it writes to `now` alone, which is ours.
    let _ = unsafe { call(libc::SYS_clock_gettime, [flags(libc::CLOCK_MONOTONIC), at, 0, 0, 0, 0]) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// This process's pid.
pub fn process() -> i32 {
    // SAFETY: it touches no memory.
    unsafe { call(libc::SYS_getpid, [0; 6]) }.map_or(0, |process| process as i32)
}

/// A number of this thread: no other thread of the process has it as long as this one lives, and the thread that forks
/// has the same in the child.
pub fn thread() -> usize {
    // SAFETY: pthread_self has no preconditions; it reads the thread pointer.
    unsafe { libc::pthread_self() as usize }
}
