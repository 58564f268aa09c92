//! Mapfiles of GNU ddrescue: a status line, then a line for each of a sequence of contiguous blocks, with its status.
//!
//! The parser accepts what `ddrescuelog` accepts, which reads fields as `scanf` does: the space between two fields may
//! be missing if the second cannot be read as a part of the first, and text behind the last field is ignored. It
//! refuses three texts that `ddrescuelog` accepts, because it would misread them: a text without a status line; numbers
//! of more than 63 bits, which `ddrescuelog` reads as 2^63 - 1; and passes of more than 31 bits, of which it reads the
//! lower 32.

use super::Line;
use crate::error::{Error, Result};
use crate::fault::map::{Access, FaultMap, Span};
use std::fmt::Write as _;

/// The largest position in a mapfile, and the largest size.
pub const LIMIT: usize = i64::MAX as usize;

/// The largest number of a pass.
const PASS_LIMIT: u64 = i32::MAX as u64;

/// Makes a map of the blocks that could not be read, with `base` added to their positions. It is incomplete if some
/// blocks have not been tried.
pub fn parse(text: &str, base: usize) -> Result<FaultMap> {
    let mut map = FaultMap::new();
    let mut status_seen = false;
    let mut expected = None;
    let mut lines = 0;
    for mut line in Line::all("mapfile", text) {
        lines = line.number;
        line.text = line.text.find('#').map_or(line.text, |comment| &line.text[..comment]);
        line.skip_space();
        if line.peek().is_none() {
            continue;
        }
        if !status_seen {
            status_line(&mut line)?;
            status_seen = true;
            continue;
        }
        let begin = line.at;
        let block = block_line(&mut line)?;
        if let Some(expected) = expected
            && block.start != expected
        {
            let message = format!("the block begins at {:#x}: the one before ends at {expected:#x}", block.start);
            return Err(line.error(begin, message));
        }
        // As in ddrescue: a block of unknown size ends at the largest position.
        let end = block.start.saturating_add(block.len).min(LIMIT);
        expected = Some(end);
        let len = end - block.start;
        match block.status {
            '-' | '*' | '/' => {
                let added = base.checked_add(block.start).map(|start| map.add(start, len as u128, Access::Read));
                line.require(begin, added, || format!("the block ends past 2**64 with base {base:#x}"))?;
            }
            '?' if len > 0 => map.set_incomplete(),
            _ => {}
        }
    }
    if !status_seen {
        let message = "a status line is expected before the end of the text".to_owned();
        return Err(Error::Text { format: "mapfile", line: lines, column: 1, message });
    }
    Ok(map)
}

fn status_line(line: &mut Line<'_>) -> Result<()> {
    number(line, "current position in the status line")?;
    status(line, "current status", "?*/-FG+")?;
    line.skip_space();
    let at = line.at;
    let negative = line.accept(|c| c == '-');
    if !negative {
        line.accept(|c| c == '+');
    }
    let digits = line.at;
    let pass = line.digits(10);
    let valid = !negative && pass.is_some_and(|pass| (1..=PASS_LIMIT).contains(&pass));
    if line.at > digits && !valid {
        let found = line.passed(at);
        return Err(line.error(at, format!("current pass is {found}: expected 1 or more, less than 2**31")));
    }
    Ok(())
}

struct Block {
    start: usize,
    len: usize,
    status: char,
}

fn block_line(line: &mut Line<'_>) -> Result<Block> {
    let start = number(line, "position of the block")?;
    line.skip_space();
    let at = line.at;
    let len = number(line, "size of the block")?;
    if len == 0 && start != 0 {
        return Err(line.error(at, "size of the block is 0, which only one at position 0 may have"));
    }
    Ok(Block { start, len, status: status(line, "status of the block", "?*/-+")? })
}

fn status(line: &mut Line<'_>, what: &str, known: &str) -> Result<char> {
    line.skip_space();
    match line.peek() {
        Some(status) if known.contains(status) => {
            line.at += 1;
            Ok(status)
        }
        _ => Err(line.error(line.at, format!("{what}: expected one of {known}, not {}", line.found()))),
    }
}

/// Parses a number as `scanf`'s `%lli` does: hexadecimal after `0x` (behind which there may be no digits), octal after
/// `0`, else decimal.
fn number(line: &mut Line<'_>, what: &str) -> Result<usize> {
    line.skip_space();
    let begin = line.at;
    let negative = line.accept(|c| c == '-');
    if !negative {
        line.accept(|c| c == '+');
    }
    let mut radix = 10;
    let zero = line.at;
    if line.accept(|c| c == '0') {
        radix = if line.accept(|c| c.eq_ignore_ascii_case(&'x')) { 16 } else { 8 };
    }
    let value = line.digits(radix);
    if line.at == zero {
        return Err(line.error(line.at, format!("{what}: a number is expected, not {}", line.found())));
    }
    match value.map(usize::try_from) {
        Some(Ok(value)) if value <= LIMIT && !(negative && value > 0) => Ok(value),
        _ => {
            let text = line.passed(begin);
            Err(line.error(begin, format!("{what} is {text}: expected 0 or more, less than 2**63")))
        }
    }
}

/// The most bytes that a block's line takes: two numbers of up to 16 digits, a status, and the text between them.
const LINE: usize = 48;

/// Makes the mapfile of the `size` bytes from `base` on, which is position 0. Bytes that are bad to read are bad
/// sectors, all others are finished.
pub fn write(map: &FaultMap, base: usize, size: usize) -> Result<String> {
    if size > LIMIT {
        return Err(Error::invalid("size", size, "less than 2**63, the end of every mapfile"));
    }
    Span::new(base, size as u128)?;
    let mut text = format!(
        "# Mapfile. Created by iovec_rs version {}\n# Finished\n# current_pos  current_status  current_pass\n",
        env!("CARGO_PKG_VERSION")
    );
    text.push_str("0x00000000     +               1\n#      pos        size  status\n");
    let mut put = |start: usize, end: usize, status: char| {
        if start < end {
            // The map decides how many lines there are, so there may be no memory for them.
            text.try_reserve(LINE).map_err(|_| Error::NoMemory(text.len() + LINE))?;
            let _ = writeln!(text, "0x{start:08X}  0x{:08X}  {status}", end - start); // a String takes everything
        }
        Ok(())
    };
    let (mut bad, mut done) = (0, 0);
    for range in map.within(base, size as u128).filter(|range| range.access.intersects(Access::Read)) {
        let start = range.start - base;
        if start > done {
            put(bad, done, '-')?;
            put(done, start, '+')?;
            bad = start;
        }
        done = range.last - base + 1;
    }
    put(bad, done, '-')?;
    put(done, size, '+')?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{LIMIT, parse, write};
    use crate::fault::map::{Access, FaultMap};

    #[test]
    fn what_is_written_is_read_back_clipped() {
        let mut map = FaultMap::new();
        for (start, len, access) in
            [(90, 15, Access::Read), (105, 5, Access::Both), (115, 5, Access::Write), (130, 100, Access::Both)]
        {
            map.add(start, len, access).unwrap();
        }
        let text = write(&map, 100, 64).unwrap();
        assert!(text.ends_with(
            "0x00000000     +               1\n#      pos        size  status\n\
             0x00000000  0x0000000A  -\n0x0000000A  0x00000014  +\n0x0000001E  0x00000022  -\n"
        ));
        let mut readable = FaultMap::new();
        readable.add(100, 10, Access::Read).unwrap();
        readable.add(130, 34, Access::Read).unwrap();
        assert_eq!(parse(&text, 100).unwrap(), readable);
    }

    #[test]
    fn a_block_of_unknown_size_ends_where_positions_do() {
        let map = parse("0 +\n1 0x7FFFFFFFFFFFFFFF -\n0x7FFFFFFFFFFFFFFF 7 -\n", 0).unwrap();
        assert_eq!(map.iter().map(|range| (range.start, range.last)).collect::<Vec<_>>(), [(1, LIMIT - 1)]);
        assert!(write(&map, 0, LIMIT + 1).is_err());
        assert!(write(&map, usize::MAX, 2).is_err());
        assert!(write(&map, usize::MAX, 1).is_ok());
    }
}
