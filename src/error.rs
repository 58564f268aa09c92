//! Every reason for refusing an operation. A refused operation has changed nothing.
//!
//! What is allocated by a size that somebody else decides (a caller, a file, another program) is allocated by
//! [`reserve`] or [`try_push`]: without the memory it is an error. What has a fixed size (a `Fault`, a node of a tree,
//! the text of an error, in which [`Excerpt`] cuts the texts of others) is allocated by `Box`, `Arc` and `format!`.
//! These end the process where not even some dozens of bytes are left: stable Rust has no fallible ones.

use crate::abi::{Direction, Kind};
use std::borrow::Cow;
use std::fmt;

/// The result of an operation that can be refused.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation was refused, with the numbers that decided it.
///
/// Bad memory found while copying is not an error: the copy returns a short count and leaves the reason in a
/// [`crate::fault::Fault`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// An argument is outside what the operation accepts.
    Invalid {
        /// The argument's public name.
        argument: &'static str,
        /// What was given.
        value: String,
        /// The values that are accepted.
        expected: String,
    },
    /// `count` is more than the segments hold from the iterator's position on. The kernel would walk off the end of the
    /// array.
    BeyondSegments {
        /// Bytes asked for.
        count: usize,
        /// Bytes that the segments hold.
        available: usize,
    },
    /// A revert by more bytes than the iterator has consumed.
    BeforeStart {
        /// Bytes to revert by.
        nbytes: usize,
        /// Bytes consumed so far.
        consumed: usize,
    },
    /// A copy against the iterator's direction.
    Direction {
        /// The refused operation.
        operation: &'static str,
        /// The iterator's direction.
        direction: Direction,
    },
    /// A destination and a source of the same index whose lengths differ.
    RangeLengths {
        /// Their index.
        index: usize,
        /// The destination's length.
        dst: usize,
        /// The source's length.
        src: usize,
    },
    /// More bytes than the flat buffer at the other end of the copy has.
    BeyondBuffer {
        /// Bytes asked for.
        nbytes: usize,
        /// The buffer's length.
        len: usize,
    },
    /// A range that leaves the page it is said to be in.
    BeyondPage {
        /// Offset in the page.
        offset: usize,
        /// Bytes from there.
        nbytes: usize,
        /// The page's length.
        len: usize,
    },
    /// A range that leaves a persistent region.
    BeyondRegion {
        /// Offset in the region.
        offset: usize,
        /// Bytes from there.
        length: usize,
        /// The region's length.
        limit: usize,
    },
    /// A range that ends past byte 2^64.
    BeyondLine {
        /// The first byte.
        start: usize,
        /// Bytes from there.
        length: u128,
    },
    /// A text that does not follow its format.
    Text {
        /// The format.
        format: &'static str,
        /// The line, from 1.
        line: usize,
        /// The character in that line, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The kind cannot do this at all.
    Unsupported {
        /// The refused operation.
        operation: &'static str,
        /// The iterator's kind.
        kind: Kind,
    },
    /// A range of a packed array whose length is no length.
    RangeLength {
        /// The array.
        argument: &'static str,
        /// Which of its ranges.
        index: usize,
        /// The length.
        length: usize,
    },
    /// A destination may not be written to.
    ReadOnly {
        /// What it is: "segment", "page" or "folio".
        what: &'static str,
        /// Which one.
        index: usize,
    },
    /// A write to a region that was opened read-only.
    ReadOnlyRegion,
    /// An errno that the kernel returned or would return.
    Os {
        /// The errno, a positive number.
        errno: i32,
        /// The argument, offset and limit.
        context: Cow<'static, str>,
    },
    /// Another thread moved or truncated the iterator between two system calls of a transfer at an offset.
    Moved,
    /// The mode demands the signal handler, and the handler cannot be installed. The text says why.
    Handler(&'static str),
    /// This many bytes could not be allocated.
    NoMemory(usize),
    /// This many ranges are guarded already, which is the limit.
    TooManyGuards(usize),
}

impl Error {
    /// An argument outside what is accepted.
    pub fn invalid(argument: &'static str, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self::Invalid { argument, value: value.to_string(), expected: expected.into() }
    }

    /// An errno that the kernel returned or would return, and why.
    pub fn os(errno: i32, context: impl Into<Cow<'static, str>>) -> Self {
        Self::Os { errno, context: context.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { argument, value, expected } => write!(f, "{argument} is {value}: expected {expected}"),
            Self::BeyondSegments { count, available } => {
                write!(f, "count is {count}: the segments hold {available} bytes from here")
            }
            Self::BeforeStart { nbytes, consumed } => {
                write!(f, "nbytes is {nbytes}: only {consumed} bytes lie between the start and here")
            }
            Self::Direction { operation, direction } => {
                let (is, role) = match direction {
                    Direction::Dest => ("READ", "destination"),
                    Direction::Source => ("WRITE", "source"),
                };
                write!(f, "{operation}: wrong direction: the iterator is a {role} ({is})")
            }
            Self::RangeLengths { index, dst, src } => {
                write!(f, "dst[{index}] has {dst} bytes: expected {src}, as many as src[{index}] has")
            }
            Self::RangeLength { argument, index, length } => {
                write!(f, "{argument}[{index}]: length is {length}: expected 0 or more, less than 2**63")
            }
            Self::BeyondBuffer { nbytes, len } => write!(f, "nbytes is {nbytes}: the buffer has {len} bytes"),
            Self::BeyondPage { offset, nbytes, len } => {
                write!(f, "offset {offset} and nbytes {nbytes} leave the page of {len} bytes")
            }
            Self::BeyondRegion { offset, length, limit } => {
                write!(f, "offset {offset} and length {length} leave the region of {limit} bytes")
            }
            Self::BeyondLine { start, length } => {
                write!(f, "start is {start} and length {length}: the range ends past 2**64")
            }
            Self::Text { format, line, column, message } => {
                write!(f, "{format}: line {line}, column {column}: {message}")
            }
            Self::Unsupported { operation, kind } => {
                write!(f, "{operation}: not possible on an iterator of kind {kind}")
            }
            Self::ReadOnly { what, index } => write!(f, "{what} {index} is read-only and cannot be a destination"),
            Self::ReadOnlyRegion => f.write_str("the region is read-only and cannot be a destination"),
            Self::Os { context, .. } => f.write_str(context),
            Self::Handler(reason) => write!(f, "the fault handler cannot be had: {reason}"),
            Self::Moved => f.write_str(
                "the iterator was moved or cut by somebody else during a transfer at an offset: where in the file its \
                 bytes belong is not known",
            ),
            Self::NoMemory(bytes) => write!(f, "no memory for {bytes} bytes"),
            Self::TooManyGuards(limit) => write!(f, "no more than {limit} ranges can be guarded at once"),
        }
    }
}

impl std::error::Error for Error {}

/// A text of somebody else's, quoted, as an error shows it: at most its first characters, so that no more is allocated
/// than for those.
pub struct Excerpt<'a>(pub &'a str);

impl Excerpt<'_> {
    /// The greatest number of characters.
    pub const LONGEST: usize = 40;
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(Self::LONGEST) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}...", &self.0[..end]),
        }
    }
}

/// Reserves room for `additional` more elements. A caller, a file or another program decides how many there are, so a
/// failed allocation is an error here and does not abort the process.
pub fn reserve<T>(vec: &mut Vec<T>, additional: usize) -> Result<()> {
    vec.try_reserve(additional).map_err(|_| Error::NoMemory(additional.saturating_mul(size_of::<T>())))
}

/// Appends an element to a vector whose length is decided by somebody else, as in [`reserve`].
pub fn try_push<T>(vec: &mut Vec<T>, value: T) -> Result<()> {
    reserve(vec, 1)?;
    vec.push(value);
    Ok(())
}
