//! The kernel's `badblocks` files (`/sys/block/*/badblocks`). Each line is an extent: its first sector and its number
//! of sectors.

use super::Line;
use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::fault::map::{Access, FaultMap};
use std::fmt::Write as _;

/// The number of extents that the kernel's table has room for. A full table may lack extents.
pub const TABLE_ENTRIES: usize = 512;

/// The most characters that a read of a sysfs file returns: a page less the terminating zero.
const SYSFS_LIMIT: usize = PAGE_SIZE - 1;

/// Whether the text is that of a disk whose driver keeps no list: an empty line. An empty list has no line at all.
fn is_no_list(text: &str) -> bool {
    !text.is_empty() && text.trim_ascii().is_empty()
}

/// Returns the text without a last line that may have been truncated, and whether the text may have been truncated at
/// all. A truncated text has exactly `SYSFS_LIMIT` characters, or one less if a line feed at its end was stripped.
fn believed(text: &str) -> (&str, bool) {
    let lines = text.rfind('\n').map_or(0, |end| end + 1);
    match text.len() {
        SYSFS_LIMIT => (&text[..lines], true),
        len if len + 1 == SYSFS_LIMIT => {
            let is_whole = text[lines..].split_ascii_whitespace().count() == 2;
            (if is_whole { text } else { &text[..lines] }, true)
        }
        _ => (text, false),
    }
}

/// Makes a map of the extents, with `base` added to their addresses. It is incomplete if the table is full, if the text
/// may have been truncated, or if there is no list.
pub fn parse(text: &str, base: usize, sector_size: usize) -> Result<FaultMap> {
    if sector_size == 0 {
        return Err(Error::invalid("sector_size", sector_size, "1 or more"));
    }
    let mut map = FaultMap::new();
    let mut entries = 0;
    let (believed, is_cut) = believed(text);
    for mut line in Line::all("badblocks", believed) {
        line.skip_space();
        if line.peek().is_none() {
            continue;
        }
        let begin = line.at;
        let sector = decimal(&mut line, "first sector")?;
        let spaced = line.at;
        line.skip_space();
        if line.at == spaced {
            return Err(line.error(spaced, format!("a space is expected, not {}", line.found())));
        }
        let at = line.at;
        let count = decimal(&mut line, "number of sectors")?;
        if count == 0 {
            return Err(line.error(at, "number of sectors is 0: expected 1 or more"));
        }
        line.skip_space();
        if line.peek().is_some() {
            return Err(line.error(line.at, format!("the line goes on with {}", line.found())));
        }
        // The product of two 64-bit numbers plus a third fits into 128 bits.
        let start = u128::from(sector) * sector_size as u128 + base as u128;
        let length = u128::from(count) * sector_size as u128;
        let added = usize::try_from(start).ok().map(|start| map.add(start, length, Access::Read));
        line.require(begin, added, || "the extent ends past 2**64".to_owned())?;
        entries += 1;
    }
    if entries >= TABLE_ENTRIES || is_cut || is_no_list(text) {
        map.set_incomplete();
    }
    Ok(map)
}

/// The most characters that a line takes: two 64-bit numbers, a space and a line feed.
const LINE: usize = 42;

/// Makes the text of a list of all ranges from `base` on, whatever access they are bad for, rounded outwards to whole
/// sectors. The format can say that a map is incomplete only if it is empty: by an empty line.
pub fn write(map: &FaultMap, base: usize, sector_size: usize) -> Result<String> {
    if sector_size == 0 {
        return Err(Error::invalid("sector_size", sector_size, "1 or more"));
    }
    let mut text = String::new();
    let mut put = |(first, last): (usize, usize)| {
        // The map decides how many lines there are, so there may be no memory for them.
        text.try_reserve(LINE).map_err(|_| Error::NoMemory(text.len() + LINE))?;
        let _ = writeln!(text, "{first} {}", (last - first) as u128 + 1); // a String takes everything
        Ok(())
    };
    let mut extent = None;
    for range in map.within(base, u128::MAX) {
        let (first, last) = ((range.start - base) / sector_size, (range.last - base) / sector_size);
        extent = match extent {
            Some((begin, end)) if first <= end + 1 => Some((begin, last)),
            Some(whole) => {
                put(whole)?;
                Some((first, last))
            }
            None => Some((first, last)),
        };
    }
    extent.map_or(Ok(()), put)?;
    if text.is_empty() && map.is_incomplete() {
        text.push('\n');
    }
    Ok(text)
}

fn decimal(line: &mut Line<'_>, what: &str) -> Result<u64> {
    let at = line.at;
    match line.digits(10) {
        _ if line.at == at => {
            Err(line.error(at, format!("{what}: a decimal number is expected, not {}", line.found())))
        }
        Some(value) => Ok(value),
        None => Err(line.error(at, format!("{what} is {}: expected less than 2**64", line.passed(at)))),
    }
}

#[cfg(test)]
mod tests {
    use super::{SYSFS_LIMIT, parse};

    /// A list of `len` characters that ends with `ending`.
    fn cut(len: usize, ending: &str) -> String {
        let room = len - ending.len();
        let line = "1000000000 512\n";
        let mut text = line.repeat(room / line.len() - 1);
        let first = "1 ".to_owned() + &"0".repeat(room - text.len() - 4) + "1\n";
        text.insert_str(0, &first);
        text + ending
    }

    #[test]
    fn a_last_line_that_sysfs_may_have_cut_is_left_out() {
        for ending in ["2000000000 5", "2000000000 ", "2000000000", "2", "2000000000 512\n"] {
            let text = cut(SYSFS_LIMIT, ending);
            assert_eq!(text.len(), SYSFS_LIMIT);
            let map = parse(&text, 0, 512).unwrap();
            assert!(map.is_incomplete(), "{ending:?}");
            assert_eq!(map.contains(2_000_000_000 * 512), ending.ends_with('\n'), "{ending:?}");
            assert!(map.contains(1_000_000_000 * 512));
        }
    }

    #[test]
    fn a_cut_text_may_have_been_stripped() {
        let stripped = parse(&cut(SYSFS_LIMIT - 1, "2000000000 512"), 0, 512).unwrap();
        assert!(stripped.is_incomplete() && stripped.contains(2_000_000_000 * 512));
        assert!(parse(&cut(SYSFS_LIMIT - 1, "2000000000"), 0, 512).unwrap().is_incomplete());
    }

    #[test]
    fn other_lengths_are_read_to_their_end() {
        for len in [SYSFS_LIMIT - 2, SYSFS_LIMIT + 1] {
            let map = parse(&cut(len, "2000000000 5"), 0, 512).unwrap();
            assert!(!map.is_incomplete() && map.contains(2_000_000_004 * 512));
            assert!(parse(&cut(len, "2000000000"), 0, 512).is_err());
        }
    }

    #[test]
    fn no_list_is_not_an_empty_one() {
        assert!(parse("\n", 0, 512).unwrap().is_incomplete());
        assert!(!parse("", 0, 512).unwrap().is_incomplete());
    }
}
