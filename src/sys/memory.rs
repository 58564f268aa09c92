//! Copies made by the kernel, over memory that may not be there: system calls check every address and return how many
//! bytes they copied, where an instruction would raise a signal. This is the fallback where no fault handler may be
//! installed.

use super::errno;
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

/// The most bytes requested in one call. The kernel would truncate a longer request to this.
const CALL_MAX: usize = crate::abi::MAX_RW_COUNT;

fn iovec(seg: Segment) -> libc::iovec {
    libc::iovec { iov_base: seg.as_mut_ptr().cast(), iov_len: seg.len }
}

fn pid() -> i32 {
    std::process::id().cast_signed()
}

/// Copies `len` bytes from `src` to `dst`, two addresses in this process that need not be valid. Returns the number of
/// bytes copied: `len`, or exactly those before the first byte that cannot be read or written. It raises no signal.
///
/// The ranges must not overlap, since the kernel copies in blocks whose size and order it chooses.
///
/// # Safety
/// Every byte of the destination that is mapped and writable is the caller's to overwrite.
pub unsafe fn copy(dst: usize, src: usize, len: usize) -> usize {
    debug_assert!(dst.abs_diff(src) >= len, "{len} bytes overlap at a distance of {}", dst.abs_diff(src));
    let mut done = 0;
    while done < len {
        let part = (len - done).min(CALL_MAX);
        let (to, from) = (Segment::new(dst.wrapping_add(done), part), Segment::new(src.wrapping_add(done), part));
        // SAFETY: done + part <= len, so `to` lies in the destination, which is the caller's to overwrite.
        match unsafe { copy_once(to, from) } {
            Ok(0) | Err(libc::EFAULT) => break,
            Ok(copied) => done += copied,
            // A seccomp filter refuses the call, or the kernel was built without it. SAFETY: the rest of the
            // destination, which is the caller's to overwrite.
            Err(_) => return done + unsafe { relay(dst.wrapping_add(done), src.wrapping_add(done), len - done) },
        }
    }
    done
}

/// # Safety
/// As for [`copy`].
unsafe fn copy_once(dst: Segment, src: Segment) -> Result<usize, i32> {
    let (local, remote) = (iovec(dst), iovec(src));
    // SAFETY: both descriptors are valid for the call, which checks every address they name and writes to `dst` only,
    // the caller's to overwrite.
    let copied = unsafe { libc::process_vm_readv(pid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied).map_err(|_| errno())
}

/// [`copy`] through an anonymous file: `pwrite` from the source, `pread` to the destination. Both check addresses, too,
/// and filters allow them.
///
/// # Safety
/// As for [`copy`].
unsafe fn relay(dst: usize, src: usize, len: usize) -> usize {
    const BLOCK: usize = 1 << 20;
    // SAFETY: the name is a terminated string; the result is checked.
    let fd = unsafe { libc::memfd_create(c"iovec_rs".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return 0;
    }
    // SAFETY: memfd_create has just returned it, so no other value owns it.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut done = 0;
    while done < len {
        let from = Segment::new(src.wrapping_add(done), BLOCK.min(len - done));
        // SAFETY: the kernel checks the source range and only reads from it.
        let read = unsafe { libc::pwrite(file.as_raw_fd(), from.as_ptr().cast(), from.len, 0) };
        let Ok(read @ 1..) = usize::try_from(read) else { break };
        let to = Segment::new(dst.wrapping_add(done), read);
        // SAFETY: the kernel checks the destination range, which is the caller's to overwrite.
        let written = unsafe { libc::pread(file.as_raw_fd(), to.as_mut_ptr().cast(), to.len, 0) };
        let written = usize::try_from(written).unwrap_or(0);
        done += written;
        if written < from.len {
            break;
        }
    }
    done
}

/// Whether the byte at `addr` can be read.
pub fn is_readable(addr: usize) -> bool {
    let mut byte = 0_u8;
    // SAFETY: the destination is the local variable.
    unsafe { copy((&raw mut byte).expose_provenance(), addr, 1) == 1 }
}

/// `madvise` with `MADV_POPULATE_READ` or `MADV_POPULATE_WRITE` (Linux 5.14): faults pages in without changing their
/// contents. The errno says why it failed: EFAULT for pages behind the end of the file, EINVAL for protected, ENOMEM
/// for unmapped and EHWPOISON for poisoned memory.
pub fn populate(page: usize, npages: usize, write: bool) -> Result<(), i32> {
    let advice = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
    let range = Segment::new(page, npages * PAGE_SIZE);
    // SAFETY: populating changes no contents and no protection; the kernel checks the range.
    let result = unsafe { libc::madvise(range.as_mut_ptr().cast(), range.len, advice) };
    if result == 0 { Ok(()) } else { Err(errno()) }
}

static CAN_POPULATE: OnceLock<bool> = OnceLock::new();

/// Whether the kernel supports [`populate`]. The first call tries it on the page of the answer.
pub(crate) fn can_populate() -> bool {
    *CAN_POPULATE.get_or_init(|| {
        let here = (&raw const CAN_POPULATE).expose_provenance();
        populate(here - here % PAGE_SIZE, 1, false).is_ok()
    })
}

/// [`can_populate`] for signal handlers, which must not wait: `true` only if another call has already found out.
pub(crate) fn is_known_to_populate() -> bool {
    CAN_POPULATE.get() == Some(&true)
}

/// Faults a range in, for reading or writing; returns how many bytes from its start on could be, to the end of the last
/// good page or of the range. Without [`populate`] it only reads, so it does not notice that a page is write-protected.
pub fn fault_in(seg: Segment, write: bool) -> usize {
    if seg.len == 0 {
        return 0;
    }
    let skip = seg.addr % PAGE_SIZE;
    let first = seg.addr - skip;
    let Some(span) = skip.checked_add(seg.len).filter(|span| first.checked_add(*span).is_some()) else { return 0 };
    let npages = span.div_ceil(PAGE_SIZE);
    let good = if can_populate() {
        good_prefix(npages, |pages| populate(first, pages, write).is_ok())
    } else {
        (0..npages).take_while(|page| is_readable(first + page * PAGE_SIZE)).count()
    };
    (good * PAGE_SIZE).saturating_sub(skip).min(seg.len)
}

/// The length of the longest good prefix of `n` items, by bisection. `good(k)` says whether the first `k` are good.
fn good_prefix(n: usize, good: impl Fn(usize) -> bool) -> usize {
    if good(n) {
        return n;
    }
    let (mut low, mut high) = (0, n);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if good(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The end of user space, one past its last address (`TASK_SIZE_MAX`), which the kernel's `access_ok` compares with. It
/// depends on whether page tables have four or five levels: the first call passes the kernel a range that crosses the
/// four-level limit and sees whether it is accepted.
pub fn user_limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    const FOUR_LEVELS: usize = (1 << 47) - PAGE_SIZE;
    const FIVE_LEVELS: usize = (1 << 56) - PAGE_SIZE;
    *LIMIT.get_or_init(|| {
        let beyond = iovec(Segment::new(FOUR_LEVELS, 2 * PAGE_SIZE));
        // SAFETY: there is no remote range, so the call copies nothing and only checks the local range.
        let taken = unsafe { libc::process_vm_readv(pid(), &raw const beyond, 1, std::ptr::null(), 0, 0) };
        if taken == 0 { FIVE_LEVELS } else { FOUR_LEVELS }
    })
}

/// The kernel's `access_ok`: whether the range lies in user space and does not wrap around.
pub fn is_user_range(seg: Segment) -> bool {
    seg.addr.checked_add(seg.len).is_some_and(|end| end <= user_limit())
}

#[cfg(test)]
mod tests;
