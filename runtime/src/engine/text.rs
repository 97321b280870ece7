//! From token bytes to text that can be sent: whole characters only, and never part of a stop text.

/// Gathers the bytes of an answer and lets out what is certain.
///
/// Two things are held back: bytes of a character that is not complete yet, and text that may turn
/// out to be the beginning of a stop text.
#[derive(Debug, Default)]
pub(crate) struct TextAssembler {
    bytes: Vec<u8>,
    text: String,
    stops: Vec<String>,
    stopped: bool,
}

impl TextAssembler {
    /// Ends at the first of `stops`; empty ones are ignored.
    pub(crate) fn new(stops: &[String]) -> Self {
        Self {
            stops: stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .cloned()
                .collect(),
            ..Self::default()
        }
    }

    /// Whether a stop text was met; nothing more will come out.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes the bytes of one token; gives the text that is now certain, often none.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Option<String> {
        if self.stopped {
            return None;
        }
        self.bytes.extend_from_slice(piece);
        self.take_whole_characters();
        if let Some(end) = self.stop_position() {
            self.stopped = true;
            self.text.truncate(end);
            return self.let_out(end);
        }
        let certain = self.text.len() - self.possible_stop_length();
        self.let_out(certain)
    }

    /// The rest, at the end of the answer: a half character becomes the replacement character.
    pub(crate) fn finish(&mut self) -> Option<String> {
        if self.stopped {
            return None;
        }
        let rest = std::mem::take(&mut self.bytes);
        self.text.push_str(&String::from_utf8_lossy(&rest));
        self.let_out(self.text.len())
    }

    /// Moves complete characters from the bytes to the text. Bytes that can never become a
    /// character are replaced, an unfinished end stays.
    fn take_whole_characters(&mut self) {
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(whole) => {
                    self.text.push_str(whole);
                    self.bytes.clear();
                    return;
                }
                Err(error) => {
                    let good: Vec<u8> = self.bytes.drain(..error.valid_up_to()).collect();
                    self.text.push_str(&String::from_utf8_lossy(&good));
                    let Some(bad) = error.error_len() else {
                        return;
                    };
                    self.bytes.drain(..bad);
                    self.text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
    }

    /// Where the earliest stop text in the held text begins.
    fn stop_position(&self) -> Option<usize> {
        self.stops
            .iter()
            .filter_map(|stop| self.text.find(stop.as_str()))
            .min()
    }

    /// Bytes at the end of the held text that may be the beginning of a stop text.
    fn possible_stop_length(&self) -> usize {
        let held = self.text.as_bytes();
        self.stops
            .iter()
            .filter_map(|stop| {
                let longest = held.len().min(stop.len().saturating_sub(1));
                (1..=longest).rev().find(|length| {
                    stop.is_char_boundary(*length) && held.ends_with(&stop.as_bytes()[..*length])
                })
            })
            .max()
            .unwrap_or(0)
    }

    fn let_out(&mut self, length: usize) -> Option<String> {
        if length == 0 {
            return None;
        }
        let rest = self.text.split_off(length);
        Some(std::mem::replace(&mut self.text, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::TextAssembler;

    fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut assembler = TextAssembler::new(&stops);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(assembler.push(piece));
        }
        out.extend(assembler.finish());
        (out, assembler.is_stopped())
    }

    #[test]
    fn a_character_split_over_tokens_comes_out_whole() {
        let (out, _) = run(&[], &[b"caf", b"\xc3", b"\xa9", b"!"]);
        assert_eq!(out, ["caf", "é", "!"]);
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced() {
        let (out, _) = run(&[], &[b"a\xffb", b"\xe2\x82"]);
        assert_eq!(out, ["a\u{fffd}b", "\u{fffd}"]);
    }

    #[test]
    fn the_answer_ends_before_the_stop_text() {
        let (out, stopped) = run(&["END"], &[b"one E", b"N", b"D two"]);
        assert_eq!(out.concat(), "one ");
        assert!(stopped);
    }

    #[test]
    fn a_beginning_of_a_stop_text_that_comes_to_nothing_is_sent() {
        let (out, stopped) = run(&["END"], &[b"one E", b"N", b"O"]);
        assert_eq!(out, ["one ", "ENO"]);
        assert!(!stopped);
    }

    #[test]
    fn a_possible_stop_at_the_very_end_is_sent() {
        let (out, stopped) = run(&["\n\n"], &[b"line\n"]);
        assert_eq!(out.concat(), "line\n");
        assert!(!stopped);
    }

    #[test]
    fn the_earliest_of_several_stop_texts_counts() {
        let (out, _) = run(&["three", "two", ""], &[b"one two three"]);
        assert_eq!(out.concat(), "one ");
    }

    #[test]
    fn stop_texts_with_wide_characters_are_held_at_their_boundaries() {
        let (out, stopped) = run(&["né"], &[b"an", b"\xc3", b"\xa9e"]);
        assert_eq!(out.concat(), "a");
        assert!(stopped);
    }
}
