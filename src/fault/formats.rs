//! Lists of bad blocks as other programs write them.

pub mod badblocks;
pub mod mapfile;
pub mod ndctl;

use crate::error::{Error, Result};

/// A line of a text, read from left to right. Only ASCII is ever stepped over, so `at` is between two characters.
struct Line<'a> {
    format: &'static str,
    number: usize,
    text: &'a str,
    at: usize,
}

impl<'a> Line<'a> {
    /// The lines of `text`. Only a line feed ends one.
    fn all(format: &'static str, text: &'a str) -> impl Iterator<Item = Self> {
        text.split('\n').zip(1..).map(move |(text, number)| Self { format, number, text, at: 0 })
    }

    /// The text from `at` to here for an exception, cut if it is long: whoever wrote it decided its length.
    fn passed(&self, at: usize) -> String {
        const SHOWN: usize = 40;
        let text = &self.text[at..self.at];
        if text.len() > SHOWN { format!("{}... ({} digits)", &text[..SHOWN], text.len()) } else { text.to_owned() }
    }

    /// What is wrong with the character at `at`.
    fn error(&self, at: usize, message: impl Into<String>) -> Error {
        let column = self.text[..at].chars().count() + 1;
        Error::Text { format: self.format, line: self.number, column, message: message.into() }
    }

    /// What became of adding an extent that `at` describes: it may pass the end of the line of bytes, or there may be
    /// no memory.
    fn require(&self, at: usize, added: Option<Result<()>>, beyond: impl FnOnce() -> String) -> Result<()> {
        match added {
            None | Some(Err(Error::BeyondLine { .. })) => Err(self.error(at, beyond())),
            Some(added) => added,
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// What stands here, for an exception.
    fn found(&self) -> String {
        self.peek().map_or_else(|| "the end of the line".to_owned(), |found| format!("{found:?}"))
    }

    fn skip_space(&mut self) {
        let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c');
        self.at = self.text.len() - self.text[self.at..].trim_start_matches(space).len();
    }

    /// Steps over `wanted` if it is here.
    fn accept(&mut self, wanted: impl Fn(char) -> bool) -> bool {
        let here = self.peek().is_some_and(|c| c.is_ascii() && wanted(c));
        self.at += usize::from(here);
        here
    }

    /// The digits here: their value, or `None` if it takes more than 64 bits. Without any the value is 0 and nothing is
    /// stepped over.
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
