//! What an agent prints: bytes that become lines, as many a second as it may.

use std::collections::VecDeque;

use leasehold_core::{protocol::event::Level, time::Timestamp};

/// The longest line that is put together before it is cut.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Printed lines that wait to be told, and the beginnings of the next ones.
#[derive(Debug, Default)]
pub(super) struct Lines {
    whole: VecDeque<(Level, String)>,
    bytes: usize,
    /// What was printed after the last line feed, to standard output and to standard error.
    begun: [Vec<u8>; 2],
}

impl Lines {
    /// Takes what was printed.
    pub(super) fn print(&mut self, level: Level, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                let begun = self.begun(level);
                begun.extend_from_slice(part);
                if begun.ends_with(b"\n") {
                    self.end(level);
                } else if begun.len() >= LINE_BYTES_MAX {
                    let next = begun.split_off(whole_chars(begun));
                    self.end(level);
                    *self.begun(level) = next;
                }
            }
        }
    }

    /// Ends the lines that lack their line feed, when nothing more comes.
    pub(super) fn finish(&mut self) {
        self.end(Level::Info);
        self.end(Level::Warn);
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next line.
    pub(super) fn next(&mut self) -> Option<(Level, String)> {
        let next = self.whole.pop_front()?;
        self.bytes -= next.1.len();
        Some(next)
    }

    fn begun(&mut self, level: Level) -> &mut Vec<u8> {
        let [out, err] = &mut self.begun;
        if level == Level::Info { out } else { err }
    }

    fn end(&mut self, level: Level) {
        let line = std::mem::take(self.begun(level));
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        if !text.is_empty() {
            self.bytes += text.len();
            self.whole.push_back((level, text.to_owned()));
        }
    }
}

/// How many bytes come before a character that the end cuts in two, or that is none.
fn whole_chars(bytes: &[u8]) -> usize {
    bytes.len() - bytes.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len())
}

/// A bucket of lines that fills up by the second.
#[derive(Debug, Default)]
pub(super) struct LineLimit {
    per_sec: u32,
    second: i64,
    used: u32,
    dropped: u64,
}

impl LineLimit {
    pub(super) fn new(per_sec: u32) -> Self {
        Self { per_sec, ..Self::default() }
    }

    /// Whether a line may pass now, and how many were dropped before it.
    pub(super) fn admit(&mut self, now: Timestamp) -> Option<u64> {
        let second = now.as_millis().div_euclid(1000);
        if second != self.second {
            (self.second, self.used) = (second, 0);
        }
        if self.used >= self.per_sec {
            self.dropped += 1;
            return None;
        }
        self.used += 1;
        Some(self.dropped())
    }

    /// How many lines were dropped that nobody has been told of.
    pub(super) fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_dropped_and_counted() {
        let mut limit = LineLimit::new(2);
        let at = |millis| Timestamp::from_millis(millis);
        let admitted: Vec<_> = [0, 1, 2, 3, 1000, 1001].map(|millis| limit.admit(at(millis))).into();
        assert_eq!(admitted, [Some(0), Some(0), None, None, Some(2), Some(0)]);
    }

    #[test]
    fn bytes_become_lines_of_bounded_length() {
        let mut lines = Lines::default();
        lines.print(Level::Info, b"one\r\ntwo\n\nthr");
        lines.print(Level::Warn, b"other\n");
        lines.print(Level::Info, b"ee");
        lines.print(Level::Warn, &[b'x'; LINE_BYTES_MAX + 1]);
        lines.finish();
        let mut texts = Vec::new();
        while let Some((_, line)) = lines.next() {
            texts.push(if line.len() > 9 { line.len().to_string() } else { line });
        }
        assert_eq!(texts, ["one", "two", "other", &LINE_BYTES_MAX.to_string(), "three", "x"]);
        assert_eq!(lines.bytes(), 0);
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        for (character, before) in [("€", 0), ("€", 1), ("€", 2), ("😀", 1), ("😀", 3)] {
            let text = format!("{}{}", "x".repeat(before), character.repeat(LINE_BYTES_MAX));
            let mut lines = Lines::default();
            // However it comes: a runtime writes when its buffer is full.
            text.as_bytes().chunks(1000).for_each(|part| lines.print(Level::Info, part));
            lines.finish();
            let told: Vec<String> = std::iter::from_fn(|| lines.next()).map(|(_, line)| line).collect();
            assert!(told.len() > 1 && told.iter().all(|line| line.len() < 2 * LINE_BYTES_MAX), "{character}");
            assert_eq!(told.concat(), text, "{character} after {before}");
        }
    }

    #[test]
    fn what_is_no_text_ends_all_the_same() {
        let mut lines = Lines::default();
        lines.print(Level::Info, &[0xff; 3 * LINE_BYTES_MAX]);
        lines.print(Level::Info, "€".as_bytes().split_last().unwrap().1);
        lines.finish();
        let told: String = std::iter::from_fn(|| lines.next()).map(|(_, line)| line).collect();
        // One mark for each byte, and one for a character that broke off.
        assert_eq!(told, "\u{fffd}".repeat(3 * LINE_BYTES_MAX + 1));
    }
}
