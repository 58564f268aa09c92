//! Stretches of bytes, and the ways in which a byte can be accessed.

use crate::error::{Error, Result};
use std::ops::BitOr;

/// The ways in which a byte can be accessed, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Access {
    /// Reading it.
    Read = 1,
    /// Writing it.
    Write = 2,
    /// Reading or writing it.
    Both = 3,
}

impl Access {
    /// Whether the two have an access in common.
    pub const fn intersects(self, other: Self) -> bool {
        self as u8 & other as u8 != 0
    }

    pub(super) fn of(read: bool, write: bool) -> Option<Self> {
        match (read, write) {
            (true, false) => Some(Self::Read),
            (false, true) => Some(Self::Write),
            (true, true) => Some(Self::Both),
            (false, false) => None,
        }
    }
}

impl BitOr for Access {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }
}

/// One or more bytes, given by the first and the last. An exclusive end could not be represented for a span that ends
/// with the last address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte.
    pub first: usize,
    /// The last byte.
    pub last: usize,
}

impl Span {
    /// The `length` bytes from `start`; `None` if `length` is 0. They may end with the last address, 2^64 - 1, and an
    /// error says if they end beyond.
    pub fn new(start: usize, length: u128) -> Result<Option<Self>> {
        match length.checked_sub(1) {
            None => Ok(None),
            Some(rest) => usize::try_from(rest)
                .ok()
                .and_then(|rest| start.checked_add(rest))
                .map(|last| Some(Self { first: start, last }))
                .ok_or(Error::BeyondLine { start, length }),
        }
    }

    /// The narrowest span that contains both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// As [`Span::new`], but clamped to the last address.
    pub(super) fn clamped(start: usize, length: u128) -> Option<Self> {
        let rest = usize::try_from(length.checked_sub(1)?).unwrap_or(usize::MAX);
        Some(Self { first: start, last: start.saturating_add(rest) })
    }
}

/// A stretch of bytes that are bad for the same access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first byte.
    pub start: usize,
    /// The last byte.
    pub last: usize,
    /// The access that they are bad for.
    pub access: Access,
}

impl Range {
    /// The number of bytes: up to 2^64, which does not fit into a `usize`.
    pub const fn length(self) -> u128 {
        (self.last - self.start) as u128 + 1
    }
}
