//! The kernel's `badblocks` files (`/sys/block/*/badblocks`): a line per extent, first sector and number of sectors.

use super::Line;
use crate::error::{Error, Result};
use crate::fault::map::{Access, FaultMap};

/// The kernel's table has room for this many extents. A full one may have had to leave some out.
pub const TABLE_ENTRIES: usize = 512;

/// A map of the extents, `base` bytes further on. It is incomplete if the table is full.
pub fn parse(text: &str, base: usize, sector_size: usize) -> Result<FaultMap> {
    if sector_size == 0 {
        return Err(Error::invalid("sector_size", sector_size, "1 or more"));
    }
    let mut map = FaultMap::new();
    let mut entries = 0;
    for mut line in Line::all("badblocks", text) {
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
        usize::try_from(start)
            .ok()
            .and_then(|start| map.add(start, length, Access::Read).ok())
            .ok_or_else(|| line.error(begin, "the extent ends past 2**64"))?;
        entries += 1;
    }
    if entries >= TABLE_ENTRIES {
        map.set_incomplete();
    }
    Ok(map)
}

fn decimal(line: &mut Line<'_>, what: &str) -> Result<u64> {
    let at = line.at;
    match line.digits(10) {
        _ if line.at == at => {
            Err(line.error(at, format!("{what}: a decimal number is expected, not {}", line.found())))
        }
        Some(value) => Ok(value),
        None => Err(line.error(at, format!("{what} is {}: expected less than 2**64", &line.text[at..line.at]))),
    }
}
