//! Choosing the bytes of a file to map.

use crate::error::{Error, Result};

/// The properties of a device-DAX character device, from sysfs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its size in bytes.
    pub size: usize,
    /// The alignment in bytes that mappings of it need, a power of two.
    pub align: usize,
}

/// The bytes of a file to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub(super) offset: u64,
    /// The region's length in bytes.
    pub(super) len: usize,
    /// The mapping's length in bytes: `len` rounded up to the unit of mappings.
    pub(super) mapped: usize,
    /// Whether the file must be extended first.
    pub(super) grows: bool,
}

/// Chooses `size` bytes (by default, the rest) from `offset` on, of a file of `len` bytes that is mapped in units of
/// `align` bytes.
pub(super) fn part(len: usize, align: usize, size: Option<usize>, offset: usize, may_grow: bool) -> Result<Part> {
    if !offset.is_multiple_of(align) {
        return Err(Error::invalid("offset", offset, format!("a multiple of {align}, the alignment of mappings")));
    }
    let room = len.saturating_sub(offset);
    let size = match size {
        Some(0) => return Err(Error::invalid("size", 0, "1 or more")),
        Some(size) if size > room && !may_grow => {
            let expected = format!("at most {room} of {len} bytes behind offset {offset}, without create");
            return Err(Error::invalid("size", size, expected));
        }
        Some(size) => size,
        None if len == 0 => return Err(Error::invalid("size", "None", "a number of bytes: the file is empty")),
        None if room == 0 => {
            return Err(Error::invalid("offset", offset, format!("less than the {len} bytes there are")));
        }
        None => room,
    };
    let end = offset
        .checked_add(size)
        .filter(|end| end.checked_next_multiple_of(align).is_some_and(|end| isize::try_from(end).is_ok()));
    let Some(end) = end else {
        return Err(Error::invalid("size", size, format!("less than 2**63 together with offset {offset}")));
    };
    Ok(Part { offset: offset as u64, len: size, mapped: size.next_multiple_of(align), grows: end > len })
}

#[cfg(test)]
mod tests {
    use super::{Part, part};
    use crate::abi::PAGE_SIZE;

    const P: usize = PAGE_SIZE;

    #[test]
    fn sizes_within_the_file_are_taken_and_mapped_to_whole_pages() {
        let of = |size, offset| part(3 * P + 5, P, size, offset, false).unwrap();
        assert_eq!(of(None, 0), Part { offset: 0, len: 3 * P + 5, mapped: 4 * P, grows: false });
        assert_eq!(of(None, 3 * P), Part { offset: 3 * P as u64, len: 5, mapped: P, grows: false });
        assert_eq!(of(Some(P), P), Part { offset: P as u64, len: P, mapped: P, grows: false });
    }

    #[test]
    fn a_file_grows_only_if_it_may() {
        assert!(part(P, P, Some(P + 1), 0, false).is_err());
        assert!(part(P, P, Some(P + 1), 0, true).unwrap().grows);
        assert!(!part(P, P, Some(P), 0, true).unwrap().grows);
        assert!(part(0, P, Some(1), 4 * P, true).unwrap().grows);
    }

    #[test]
    fn nothing_and_nonsense_are_refused() {
        for (len, size, offset) in [
            (P, Some(0), 0),
            (0, None, 0),
            (P, None, P),
            (P, None, 7),
            (P, Some(1), P),
            (P, Some(usize::MAX), 0),
            (P, Some(usize::MAX / 2), P),
            (P, Some(1), usize::MAX - P + 1),
        ] {
            assert!(part(len, P, size, offset, false).is_err(), "{len} {size:?} {offset}");
            assert_eq!(part(len, P, size, offset, true).is_ok(), (size, offset) == (Some(1), P), "{size:?} {offset}");
        }
    }

    #[test]
    fn a_device_is_mapped_in_its_own_units() {
        const M2: usize = 2 << 20;
        assert_eq!(part(8 * M2, M2, Some(10), M2, false).unwrap().mapped, M2);
        assert!(part(8 * M2, M2, None, P, false).is_err());
    }
}
