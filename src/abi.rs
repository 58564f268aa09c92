//! The names and numbers of Linux's interface that the whole crate shares. This file depends on nothing else in it.

use std::fmt;

/// The page size that everything here counts in, in bytes.
pub const PAGE_SIZE: usize = 4096;

/// The most one call transfers: the largest signed 32-bit number, rounded down to a page.
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// The most segments a vector may have.
pub const UIO_MAXIOV: usize = 1024;
/// Segments that need no allocation.
pub const UIO_FASTIOV: usize = 8;

/// What the iterator is in a transfer, seen from the file operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// `READ`, `ITER_DEST`: data goes to the iterator's memory.
    Dest = 0,
    /// `WRITE`, `ITER_SOURCE`: data comes from the iterator's memory.
    Source = 1,
}

/// What kind of memory the iterator runs over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One range of user memory.
    Ubuf,
    /// Ranges of user memory.
    Iovec,
    /// Ranges of trusted memory.
    Kvec,
    /// Ranges within pages.
    Bvec,
    /// A pipe that is filled.
    Pipe,
    /// Pages by index.
    Xarray,
    /// Folios in a queue.
    Folioq,
    /// Nothing: data is counted and dropped.
    Discard,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ubuf => "ubuf",
            Self::Iovec => "iovec",
            Self::Kvec => "kvec",
            Self::Bvec => "bvec",
            Self::Pipe => "pipe",
            Self::Xarray => "xarray",
            Self::Folioq => "folioq",
            Self::Discard => "discard",
        })
    }
}
