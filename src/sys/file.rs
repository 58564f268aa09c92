//! Operations on files that the standard library lacks: locks among the users of a file, allocation, free space, holes.

use super::errno;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// The byte that the users of a file lock. No file can be long enough to contain it.
const USERS: libc::off_t = libc::off_t::MAX - 1;

/// Sets the lock of a file's users with `F_OFD_SETLK`. Such a lock belongs to the open file description and ends with
/// it.
fn lock_users(file: &File, kind: libc::c_int) -> Result<(), i32> {
    // SAFETY: all zeroes is a valid `flock`, which has integers only.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (USERS, 1);
    // SAFETY: the descriptor is open as long as `file` is borrowed, and `lock` as long as the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } != 0 {
        return Err(errno());
    }
    Ok(())
}

/// Takes the shared lock of a file's users. `false` if another description has it exclusively ([`use_alone`]). On a
/// file system without such locks this is `true`, and [`use_alone`] is always `false`.
pub fn use_together(file: &File) -> bool {
    lock_users(file, libc::F_RDLCK).err() != Some(libc::EAGAIN)
}

/// Takes the lock of a file's users exclusively; whether that succeeded, that is, whether no other description uses the
/// file. Nobody can enter until `file`, which is open for writing, is closed.
pub fn use_alone(file: &File) -> bool {
    lock_users(file, libc::F_WRLCK).is_ok()
}

/// `posix_fallocate`: allocates room for every byte of the range, extends the file if the range ends behind it, and
/// changes no byte that the file has. On failure, which may leave a part allocated, the errno.
pub fn allocate(file: &File, offset: u64, len: u64) -> Result<(), i32> {
    let range = libc::off_t::try_from(offset).and_then(|offset| Ok((offset, libc::off_t::try_from(len)?)));
    let (offset, len) = range.map_err(|_| libc::EFBIG)?;
    // SAFETY: the descriptor is open as long as `file` is borrowed; the call touches no memory of ours.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), offset, len) } {
        0 => Ok(()),
        errno => Err(errno),
    }
}

/// Bytes free on the file's file system for this process; `None` if the file system does not say.
pub fn free_bytes(file: &File) -> Option<u64> {
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open as long as `file` is borrowed, and `stat` has room for the answer.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    // SAFETY: always succeeds, and touches no memory.
    let is_root = unsafe { libc::geteuid() } == 0;
    // Root may use the reserved blocks, too. A tmpfs without a limit reports 0 blocks in total.
    let blocks = if is_root { stat.f_bfree } else { stat.f_bavail };
    (stat.f_blocks != 0).then(|| blocks.saturating_mul(stat.f_frsize))
}

/// `lseek` with `SEEK_DATA`: the first byte from `at` on that is in no hole. `ENXIO` if there is none. It moves the
/// file's position.
pub fn seek_data(file: &File, at: u64) -> Result<u64, i32> {
    let at = libc::off_t::try_from(at).map_err(|_| libc::EOVERFLOW)?;
    // SAFETY: the descriptor is open as long as `file` is borrowed; the call touches no memory of ours.
    u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), at, libc::SEEK_DATA) }).map_err(|_| errno())
}

/// How many of the `len` bytes from `offset` on lie in holes or behind the file's end. It moves the file's position.
pub fn holes(file: &File, offset: u64, len: u64) -> u64 {
    let end = offset.saturating_add(len);
    let seek = |at: u64, whence| {
        let at = libc::off_t::try_from(at).ok()?;
        // SAFETY: the descriptor is open as long as `file` is borrowed; the call touches no memory of ours.
        u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), at, whence) }).ok()
    };
    let (mut at, mut holes) = (offset, 0);
    while at < end {
        let hole = seek(at, libc::SEEK_HOLE).unwrap_or(at).min(end);
        let data = seek(hole, libc::SEEK_DATA).unwrap_or(end).min(end);
        holes += data - hole;
        at = data;
    }
    holes
}
