//! The kernel's `badblocks` files (`/sys/block/*/badblocks`): a line per extent, first sector and number of sectors.

use super::Line;
use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::fault::map::{Access, FaultMap};
use std::fmt::Write as _;

/// The kernel's table has room for this many extents. A full one may have had to leave some out.
pub const TABLE_ENTRIES: usize = 512;

/// A read of a sysfs file returns at most this many characters: a page, less the zero that ends it.
const SYSFS_LIMIT: usize = PAGE_SIZE - 1;

/// Whether this is what a disk's `badblocks` file holds if its driver keeps no list: an empty line. A list that is
/// empty has no line at all.
fn is_no_list(text: &str) -> bool {
    !text.is_empty() && text.trim_ascii().is_empty()
}

/// The text without a last line that was cut, and whether it may have been cut at all. A cut text has exactly the most
/// characters there can be, or one less if its last line's end was stripped.
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

/// A map of the extents, `base` bytes further on. It is incomplete if the table is full, the text may have been cut, or
/// there is no list.
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
        // 128 bits hold the product of two 64-bit numbers and a third beside it.
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

/// The most characters of a line: two numbers of 64 bits.
const LINE: usize = 42;

/// The text of a list of everything in the map from `base` on, whatever access it stands against, in whole sectors,
/// rounded outwards. That there may be more to know can be said only where nothing is: by an empty line.
pub fn write(map: &FaultMap, base: usize, sector_size: usize) -> Result<String> {
    if sector_size == 0 {
        return Err(Error::invalid("sector_size", sector_size, "1 or more"));
    }
    let mut text = String::new();
    let mut put = |(first, last): (usize, usize)| {
        // How many lines there are is for the map to say: there may be no memory for them.
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
