//! Lists of bad blocks in the formats of other programs.

pub mod badblocks;
pub mod mapfile;
pub mod ndctl;

use crate::error::{Error, Result};

/// A line of a text that is parsed from left to right. The parser steps over ASCII only, so `at` is always at the
/// boundary of a character.
struct Line<'a> {
    format: &'static str,
    number: usize,
    text: &'a str,
    at: usize,
}

impl<'a> Line<'a> {
    /// The lines of `text`. Only a line feed ends a line.
    fn all(format: &'static str, text: &'a str) -> impl Iterator<Item = Self> {
        text.split('\n').zip(1..).map(move |(text, number)| Self { format, number, text, at: 0 })
    }

    /// The text from `at` to the current position, for an exception. It is shortened, since the file decides how long
    /// it is.
    fn passed(&self, at: usize) -> String {
        const SHOWN: usize = 40;
        let text = &self.text[at..self.at];
        if text.len() > SHOWN { format!("{}... ({} digits)", &text[..SHOWN], text.len()) } else { text.to_owned() }
    }

    /// An error about the character at `at`.
    fn error(&self, at: usize, message: impl Into<String>) -> Error {
        let column = self.text[..at].chars().count() + 1;
        Error::Text { format: self.format, line: self.number, column, message: message.into() }
    }

    /// Checks the result of adding the extent that the text at `at` describes. An extent beyond the last address
    /// becomes an error about the text; any other error, such as lack of memory, is returned as it is.
    fn require(&self, at: usize, added: Option<Result<()>>, beyond: impl FnOnce() -> String) -> Result<()> {
        match added {
            None | Some(Err(Error::BeyondLine { .. })) => Err(self.error(at, beyond())),
            Some(added) => added,
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// The character at the current position, for an exception.
    fn found(&self) -> String {
        self.peek().map_or_else(|| "the end of the line".to_owned(), |found| format!("{found:?}"))
    }

    fn skip_space(&mut self) {
        let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c');
        self.at = self.text.len() - self.text[self.at..].trim_start_matches(space).len();
    }

    /// Steps over the next character if it is one that is wanted, and returns whether it is.
    fn accept(&mut self, wanted: impl Fn(char) -> bool) -> bool {
        let here = self.peek().is_some_and(|c| c.is_ascii() && wanted(c));
        self.at += usize::from(here);
        here
    }

    /// Steps over digits and returns their value; `None` if it takes more than 64 bits. If there are none, the value is
    /// 0.
    fn digits(&mut self, radix: u32) -> Option<u64> {
        let mut value = Some(0u64);
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) {
            let times = value.and_then(|value| value.checked_mul(u64::from(radix)));
            value = times.and_then(|value| value.checked_add(u64::from(digit)));
            self.at += 1;
        }
        value
    }
}
