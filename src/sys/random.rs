//! Random numbers of the kernel's: what a process would draw them from is copied when it forks.

/// A number that nobody else is likely to draw, or the errno.
pub(crate) fn number() -> Result<u64, i32> {
    let mut bytes = [0; 8];
    // SAFETY: the kernel writes `bytes.len()` bytes at most to `bytes`, which is borrowed mutably.
    let drawn = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Up to 256 bytes come at once, or none.
    if drawn == bytes.len() as isize { Ok(u64::from_ne_bytes(bytes)) } else { Err(super::errno()) }
}
