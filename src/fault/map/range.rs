//! Stretches of a line of bytes, and the ways in which a byte can be touched.

use crate::error::{Error, Result};
use std::ops::BitOr;

/// The ways a byte can be touched, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Access {
    /// Reading it.
    Read = 1,
    /// Writing it.
    Write = 2,
    /// Either.
    Both = 3,
}

impl Access {
    /// Whether some access is in both.
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

/// At least one byte, by the first and the last: one past the end of the line is no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte.
    pub first: usize,
    /// The last byte.
    pub last: usize,
}

impl Span {
    /// The `length` bytes from `start`, which may reach the end of the line but not pass it; `None` if there are none.
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

    /// The narrowest span around both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// As [`Span::new`], cut where the line ends.
    pub(super) fn cut(start: usize, length: u128) -> Option<Self> {
        let rest = usize::try_from(length.checked_sub(1)?).unwrap_or(usize::MAX);
        Some(Self { first: start, last: start.saturating_add(rest) })
    }
}

/// A stretch of bad bytes that cannot be accessed in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first byte.
    pub start: usize,
    /// The last byte.
    pub last: usize,
    /// What cannot be done to them.
    pub access: Access,
}

impl Range {
    /// Bytes in it: up to 2^64, which no `usize` holds.
    pub const fn length(self) -> u128 {
        (self.last - self.start) as u128 + 1
    }
}
