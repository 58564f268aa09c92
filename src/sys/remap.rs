//! Pages exchanged for zeroes, and back: what the SIGBUS handler does to a mapping under a guard.
//!
//! Each function is a system call or three, made without the C library's wrappers, which a sanitizer or a preloaded
//! library may have replaced by something that a signal handler must not call.

use super::errno;
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use std::ffi::{CStr, c_long};

/// What zeroes are mapped from. Each byte of them stands at the offset that is its own address, which no other mapping
/// of this file does: so they are told from whatever is mapped there later.
pub const ZEROES: &CStr = c"/dev/zero";

fn call(number: c_long, arguments: [usize; 6]) -> Result<usize, i32> {
    let [first, second, third, rest @ ..] = arguments;
    // SAFETY: what the call does to the address space is vouched for by each caller in this file.
    let result = unsafe { libc::syscall(number, first, second, third, rest[0], rest[1], rest[2]) };
    if result == -1 { Err(errno()) } else { Ok(result.cast_unsigned() as usize) }
}

const fn flags(bits: i32) -> usize {
    bits.cast_unsigned() as usize
}

/// Moves pages to where nothing is mapped, and leaves the mapping where it was, empty of them: the new address. EINVAL:
/// not of such a mapping (of files before Linux 5.13), or not in pages of this size.
///
/// # Safety
/// Whoever uses the range bears that its pages are read anew from what is mapped there.
pub unsafe fn keep_aside(seg: Segment) -> Result<usize, i32> {
    let how = flags(libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP);
    call(libc::SYS_mremap, [seg.addr, seg.len, seg.len, how, 0, 0])
}

/// Maps zeroes over a range, those of a descriptor of [`ZEROES`] if there is one.
///
/// # Safety
/// What was mapped there is nobody's any more: it was kept aside or may be lost.
pub unsafe fn map_zeroes(seg: Segment, is_writable: bool, zeroes: Option<i32>) -> Result<(), i32> {
    let protection = flags(libc::PROT_READ | if is_writable { libc::PROT_WRITE } else { 0 });
    let how = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    let (how, file, offset) = match zeroes {
        Some(file) => (how, flags(file), seg.addr),
        None => (how | libc::MAP_ANONYMOUS, usize::MAX, 0),
    };
    call(libc::SYS_mmap, [seg.addr, seg.len, protection, flags(how), file, offset]).map(|_| ())
}

/// Moves pages that were kept aside to where they were, over whatever is mapped there. They are made `len` bytes long
/// on the way, by what comes next in their file.
///
/// # Safety
/// `kept` is where [`keep_aside`] put the range, and was not moved back since; what is mapped over `len` bytes from its
/// start on is nobody's.
pub unsafe fn put_back(kept: usize, seg: Segment, len: usize) -> Result<(), i32> {
    let how = flags(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
    call(libc::SYS_mremap, [kept, seg.len, len, how, seg.addr, 0]).map(|_| ())
}

/// Unmaps.
///
/// # Safety
/// The range is the caller's, and nobody uses it any more.
pub unsafe fn unmap(seg: Segment) {
    let _ = call(libc::SYS_munmap, [seg.addr, seg.len, 0, 0, 0, 0]);
}

/// Makes so many mappings of a page each, or as many as there may be, of no use but to be unmapped when there may be no
/// more: where they begin.
pub fn map_ballast(mappings: usize) -> Result<Segment, i32> {
    let how = flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    let len = mappings * PAGE_SIZE;
    let start = call(libc::SYS_mmap, [0, len, flags(libc::PROT_NONE), how, usize::MAX, 0])?;
    // Neighbours that differ are not merged.
    for page in (0..mappings).step_by(2) {
        let _ = call(libc::SYS_mprotect, [start + page * PAGE_SIZE, PAGE_SIZE, flags(libc::PROT_READ), 0, 0, 0]);
    }
    Ok(Segment::new(start, len))
}

/// Whether there is a limit to how many addresses this process may have (`RLIMIT_AS`).
pub fn are_addresses_limited() -> bool {
    let mut found = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    let at = (&raw mut found).expose_provenance();
    let _ = call(libc::SYS_prlimit64, [0, libc::RLIMIT_AS as usize, 0, at, 0, 0]);
    found.rlim_cur != libc::RLIM_INFINITY
}

/// Sets which signals this thread blocks, and tells which it did.
pub fn set_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    let (new, old) = ((&raw const mask).addr(), (&raw mut before).expose_provenance());
    let _ = call(libc::SYS_rt_sigprocmask, [flags(libc::SIG_SETMASK), new, old, size_of::<u64>(), 0, 0]);
    before
}

/// Lets another thread run.
pub fn give_way() {
    let _ = call(libc::SYS_sched_yield, [0; 6]);
}

/// What the monotonic clock says.
pub fn nanoseconds() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let at = (&raw mut now).expose_provenance();
    let _ = call(libc::SYS_clock_gettime, [flags(libc::CLOCK_MONOTONIC), at, 0, 0, 0, 0]);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The kernel's number for this process.
pub fn process() -> i32 {
    call(libc::SYS_getpid, [0; 6]).map_or(0, |process| process as i32)
}

/// A number that no other thread of this process has while this one lives, and that a fork does not change.
pub fn thread() -> usize {
    // SAFETY: reads the thread pointer.
    unsafe { libc::pthread_self() as usize }
}
