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

/// What sets the kinds apart, for code that need not name them.
impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 8] =
        [Self::Ubuf, Self::Iovec, Self::Kvec, Self::Bvec, Self::Pipe, Self::Xarray, Self::Folioq, Self::Discard];

    /// Its name in Python.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ubuf => "ubuf",
            Self::Iovec => "iovec",
            Self::Kvec => "kvec",
            Self::Bvec => "bvec",
            Self::Pipe => "pipe",
            Self::Xarray => "xarray",
            Self::Folioq => "folioq",
            Self::Discard => "discard",
        }
    }

    /// Whether its memory is a user's: a fault in it is a short count.
    #[must_use]
    pub const fn is_user_backed(self) -> bool {
        match self {
            Self::Ubuf | Self::Iovec => true,
            Self::Kvec | Self::Bvec | Self::Pipe | Self::Xarray | Self::Folioq | Self::Discard => false,
        }
    }

    /// Whether there is nothing ahead of it that could be read.
    #[must_use]
    pub const fn is_destination_only(self) -> bool {
        match self {
            Self::Pipe | Self::Discard => true,
            Self::Ubuf | Self::Iovec | Self::Kvec | Self::Bvec | Self::Xarray | Self::Folioq => false,
        }
    }

    /// Whether a walk goes page by page even where pages lie side by side.
    #[must_use]
    pub const fn is_paged(self) -> bool {
        match self {
            Self::Bvec | Self::Xarray | Self::Folioq => true,
            Self::Ubuf | Self::Iovec | Self::Kvec | Self::Pipe | Self::Discard => false,
        }
    }

    /// What its memory comes in.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Folioq => "folio",
            Self::Bvec | Self::Pipe | Self::Xarray => "page",
            Self::Ubuf | Self::Iovec | Self::Kvec | Self::Discard => "segment",
        }
    }

    /// Why there may be no memory where bytes remain.
    #[must_use]
    pub const fn end_of_memory(self) -> &'static str {
        match self {
            Self::Xarray => "the xarray has a hole here",
            Self::Folioq => "the queue of folios ends here",
            Self::Pipe => "the pipe is full",
            Self::Ubuf | Self::Iovec | Self::Kvec | Self::Bvec | Self::Discard => "there is no memory here",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
