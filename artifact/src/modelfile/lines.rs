//! The lexical part: a position in the text with its line number, and how a value is quoted.

use std::fmt;

use super::error::{Error, Fault};

const QUOTE: &str = "\"";
const TRIPLE: &str = "\"\"\"";

/// The text that is left, and the number of the line that it starts on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            line: 1,
        }
    }

    /// The number of the current line, from 1.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Goes to the next instruction: past blank lines, indentation and comments.
    pub(super) fn skip_to_instruction(&mut self) {
        loop {
            let blank = self.rest.find(|c| !is_space(c) && !is_newline(c));
            self.advance(blank.unwrap_or(self.rest.len()));
            if !self.rest.starts_with('#') {
                return;
            }
            self.advance(self.rest.find(is_newline).unwrap_or(self.rest.len()));
        }
    }

    /// Takes the characters up to the next space, tab or end of line; may be empty.
    pub(super) fn word(&mut self) -> &'a str {
        let end = self
            .rest
            .find(|c| is_space(c) || is_newline(c))
            .unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        self.advance(end);
        word
    }

    /// Takes the spaces and tabs before a value. Says whether there was one: without it, the line
    /// ends and there is no value, not even an empty one.
    pub(super) fn space(&mut self) -> bool {
        let end = self.rest.find(|c| !is_space(c)).unwrap_or(self.rest.len());
        self.advance(end);
        end > 0
    }

    /// Takes a value: to the end of the line, or over several lines to its closing quotes.
    pub(super) fn value(&mut self) -> Result<&'a str, Error> {
        let Some((value, length)) = scan_value(self.rest) else {
            let quotes = if self.rest.trim_start().starts_with(TRIPLE) {
                TRIPLE
            } else {
                QUOTE
            };
            return Err(Fault::Unclosed { quotes }.on(self.line));
        };
        self.advance(length);
        Ok(value)
    }

    /// Moves on by `length` bytes, and counts the lines in them; CR LF is one end of line.
    fn advance(&mut self, length: usize) {
        let (passed, rest) = self.rest.split_at(length);
        let returns = passed.bytes().filter(|byte| *byte == b'\r').count();
        let feeds = passed.bytes().filter(|byte| *byte == b'\n').count();
        self.line += returns + feeds - passed.matches("\r\n").count();
        self.rest = rest;
    }
}

/// The value at the start of `text` and how many bytes it takes; `None` if its quotes never close.
///
/// The rule is Ollama's: at each end of line what was read so far, trimmed, is the value if it
/// has no quotes in front, or the same quotes at both ends.
fn scan_value(text: &str) -> Option<(&str, usize)> {
    let start = text
        .find(|c: char| !c.is_whitespace() || is_newline(c))
        .unwrap_or(text.len());
    let body = &text[start..];
    // Where the text read so far ends when trimmed. Kept while reading, not searched for at each
    // end of line: a megabyte of empty lines would take for ever.
    let mut trimmed_end = 0;
    for (position, character) in body.char_indices() {
        if is_newline(character)
            && let Some(value) = unquote(&body[..trimmed_end])
        {
            return Some((value, start + position));
        }
        if !character.is_whitespace() {
            trimmed_end = position + character.len_utf8();
        }
    }
    unquote(&body[..trimmed_end]).map(|value| (value, text.len()))
}

fn unquote(text: &str) -> Option<&str> {
    if let Some(inner) = text.strip_prefix(TRIPLE) {
        inner.strip_suffix(TRIPLE)
    } else if let Some(inner) = text.strip_prefix(QUOTE) {
        inner.strip_suffix(QUOTE)
    } else {
        Some(text)
    }
}

/// Whether the printed form of a value reads as the same value again.
pub(super) fn is_printable(value: &str) -> bool {
    let quotes = quotes_for(value);
    let printed = [quotes, value, quotes].concat();
    scan_value(&printed) == Some((value, printed.len()))
}

/// Writes a value with the fewest quotes that keep it.
pub(super) fn write_value(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    let quotes = quotes_for(value);
    write!(f, "{quotes}{value}{quotes}")
}

fn quotes_for(value: &str) -> &'static str {
    let plain = !value.is_empty()
        && value.trim() == value
        && !value.starts_with('"')
        && !value.contains(is_newline);
    match (plain, value.contains('"')) {
        (true, _) => "",
        (false, false) => QUOTE,
        (false, true) => TRIPLE,
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

fn is_newline(character: char) -> bool {
    matches!(character, '\r' | '\n')
}
