//! The names and numbers of Linux's interface that the whole crate shares. This file depends on no other file of the
//! crate.

use std::fmt;

/// The page size in bytes that the whole crate counts in.
pub const PAGE_SIZE: usize = 4096;

/// The most bytes that one system call transfers: the largest signed 32-bit number, rounded down to a page.
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// The most segments that a vector of the kernel's interface may have.
pub const UIO_MAXIOV: usize = 1024;
/// Vectors of up to this many segments are stored without an allocation.
pub const UIO_FASTIOV: usize = 8;

/// Whether the iterator's memory is the destination or the source. The kernel names it after the file operation: `READ`
/// *from* a file fills the iterator.
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

/// The properties that set the kinds apart. Code asks for a property where it can, and names a kind only where it must.
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

    /// Whether a fault in its memory ends a copy with a short count, as in user memory; in the other kinds it raises
    /// `FaultError`.
    #[must_use]
    pub const fn is_user_backed(self) -> bool {
        match self {
            Self::Ubuf | Self::Iovec => true,
            Self::Kvec | Self::Bvec | Self::Pipe | Self::Xarray | Self::Folioq | Self::Discard => false,
        }
    }

    /// Whether it can only be a destination, because no memory lies ahead of it that a copy could read.
    #[must_use]
    pub const fn is_destination_only(self) -> bool {
        match self {
            Self::Pipe | Self::Discard => true,
            Self::Ubuf | Self::Iovec | Self::Kvec | Self::Bvec | Self::Xarray | Self::Folioq => false,
        }
    }

    /// Whether a walk splits its memory at page boundaries, even where the pages are adjacent.
    #[must_use]
    pub const fn is_paged(self) -> bool {
        match self {
            Self::Bvec | Self::Xarray | Self::Folioq => true,
            Self::Ubuf | Self::Iovec | Self::Kvec | Self::Pipe | Self::Discard => false,
        }
    }

    /// The unit its memory is made of, for messages.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Folioq => "folio",
            Self::Bvec | Self::Pipe | Self::Xarray => "page",
            Self::Ubuf | Self::Iovec | Self::Kvec | Self::Discard => "segment",
        }
    }

    /// Why a copy may find no memory although `count` is not 0 yet, for messages.
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
