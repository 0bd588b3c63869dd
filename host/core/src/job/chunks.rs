//! A streamed result in the making (ARCP §8.4).

use crate::{
    id::ResultId,
    protocol::event::{Encoding, Event},
};

/// How large a streamed result may become.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one chunk, as it stands in the frame: JSON escapes and base64 included.
    pub chunk_bytes_max: usize,
    /// Of the whole, decoded.
    pub total_bytes_max: u64,
}

/// The stream a job has begun.
#[derive(Debug)]
pub struct Chunks {
    limits: Limits,
    result_id: ResultId,
    encoding: Option<Encoding>,
    next_seq: u64,
    size: u64,
    finished: bool,
}

/// Why a part of a result was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The stream has been closed.
    #[error("the result is finished; nothing can be written after `finish`")]
    Finished,
    /// Text after bytes or bytes after text.
    #[error("one result is either text or bytes; this one began as {0}")]
    Mixed(&'static str),
    /// The result would be larger than the host allows.
    #[error("the result would be over {0} bytes, the most this host streams")]
    TooLarge(u64),
}

impl Chunks {
    /// Begins a stream.
    #[must_use]
    pub fn new(result_id: ResultId, limits: Limits) -> Self {
        Self { limits, result_id, encoding: None, next_seq: 0, size: 0, finished: false }
    }

    /// Which result this is.
    #[must_use]
    pub fn result_id(&self) -> ResultId {
        self.result_id
    }

    /// How many decoded bytes it has so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether anything was written or the stream was closed.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.next_seq > 0
    }

    /// Adds text, cut into chunks between characters.
    ///
    /// # Errors
    ///
    /// If the stream is closed, holds bytes, or would become too large; then nothing was added.
    pub fn write_text(&mut self, text: &str) -> Result<Vec<Event>, ChunkError> {
        self.admit(Encoding::Utf8, text.len())?;
        let mut events = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(escaped_prefix(rest, self.limits.chunk_bytes_max));
            events.push(self.chunk(part.to_owned(), Encoding::Utf8, true));
            rest = after;
        }
        Ok(events)
    }

    /// Adds bytes; `base64` encodes each chunk.
    ///
    /// # Errors
    ///
    /// If the stream is closed, holds text, or would become too large; then nothing was added.
    pub fn write_bytes(&mut self, bytes: &[u8], base64: impl Fn(&[u8]) -> String) -> Result<Vec<Event>, ChunkError> {
        self.admit(Encoding::Base64, bytes.len())?;
        // Three bytes become four characters.
        let step = (self.limits.chunk_bytes_max / 4 * 3).max(3);
        Ok(bytes.chunks(step).map(|part| self.chunk(base64(part), Encoding::Base64, true)).collect())
    }

    /// Closes the stream with an empty last chunk, which is how it can be told
    /// apart from a stream that goes on.
    ///
    /// # Errors
    ///
    /// If it is closed already.
    pub fn finish(&mut self) -> Result<Event, ChunkError> {
        if self.finished {
            return Err(ChunkError::Finished);
        }
        self.finished = true;
        let encoding = self.encoding.unwrap_or(Encoding::Utf8);
        Ok(self.chunk(String::new(), encoding, false))
    }

    /// Whether the stream was closed.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.finished
    }

    fn admit(&mut self, encoding: Encoding, bytes: usize) -> Result<(), ChunkError> {
        if self.finished {
            return Err(ChunkError::Finished);
        }
        match *self.encoding.get_or_insert(encoding) {
            Encoding::Utf8 if encoding != Encoding::Utf8 => return Err(ChunkError::Mixed("text")),
            Encoding::Base64 if encoding != Encoding::Base64 => return Err(ChunkError::Mixed("bytes")),
            Encoding::Utf8 | Encoding::Base64 => {}
        }
        let size = self.size.saturating_add(bytes as u64);
        if size > self.limits.total_bytes_max {
            return Err(ChunkError::TooLarge(self.limits.total_bytes_max));
        }
        self.size = size;
        Ok(())
    }

    fn chunk(&mut self, data: String, encoding: Encoding, more: bool) -> Event {
        let chunk_seq = self.next_seq;
        self.next_seq += 1;
        Event::ResultChunk { result_id: self.result_id, chunk_seq, data, encoding, more }
    }
}

/// How much of `text` fits into `max` bytes of a JSON string; at least one character.
fn escaped_prefix(text: &str, max: usize) -> usize {
    let mut room = max;
    for (at, character) in text.char_indices() {
        let needed = match character {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => character.len_utf8(),
        };
        if needed > room && at > 0 {
            return at;
        }
        room = room.saturating_sub(needed);
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Ulid;

    fn stream(chunk_bytes_max: usize, total_bytes_max: u64) -> Chunks {
        Chunks::new(ResultId::new(Ulid::from_parts(0, 1)), Limits { chunk_bytes_max, total_bytes_max })
    }

    fn parts(events: &[Event]) -> Vec<(u64, &str, bool)> {
        let part = |event| match event {
            &Event::ResultChunk { chunk_seq, ref data, more, .. } => (chunk_seq, data.as_str(), more),
            other => panic!("{other:?}"),
        };
        events.iter().map(part).collect()
    }

    /// ARCP §8.4: "0-based monotonic chunk index", "`false` on the final chunk".
    #[test]
    fn chunks_are_counted_from_zero_and_the_last_says_so() {
        let mut stream = stream(100, 100);
        let mut events = stream.write_text("a").unwrap();
        events.extend(stream.write_text("b").unwrap());
        events.push(stream.finish().unwrap());
        assert_eq!(parts(&events), [(0, "a", true), (1, "b", true), (2, "", false)]);
        assert_eq!(stream.size(), 2);
    }

    #[test]
    fn text_is_cut_between_characters_and_by_its_size_in_the_frame() {
        for (text, max, expected) in [
            ("abcdef", 4, vec!["abcd", "ef"]),
            ("ääää", 5, vec!["ää", "ää"]),
            ("a\n\nb", 3, vec!["a\n", "\nb"]),
            ("\u{1}\u{1}", 6, vec!["\u{1}", "\u{1}"]),
            ("ä", 1, vec!["ä"]), // a character is never cut, whatever the limit
        ] {
            let events = stream(max, 100).write_text(text).unwrap();
            assert_eq!(parts(&events).iter().map(|part| part.1).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_does_not_fit_the_stream_is_refused_and_changes_nothing() {
        let mut stream = stream(100, 3);
        stream.write_text("ab").unwrap();
        assert_eq!(stream.write_text("cd"), Err(ChunkError::TooLarge(3)));
        assert_eq!(stream.write_bytes(b"c", |_| String::new()), Err(ChunkError::Mixed("text")));
        assert_eq!(parts(&stream.write_text("c").unwrap()), [(1, "c", true)]);
        stream.finish().unwrap();
        assert_eq!(stream.write_text(""), Err(ChunkError::Finished));
        assert_eq!(stream.finish(), Err(ChunkError::Finished));
    }

    #[test]
    fn bytes_are_cut_so_that_base64_fits() {
        let events = stream(8, 100).write_bytes(&[0; 13], |part| "x".repeat(part.len().div_ceil(3) * 4)).unwrap();
        assert_eq!(parts(&events), [(0, "xxxxxxxx", true), (1, "xxxxxxxx", true), (2, "xxxx", true)]);
    }
}
