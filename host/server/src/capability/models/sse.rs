//! Server-sent events, as far as a streamed completion needs them, without a socket.
//!
//! Bytes go in as they come, the data of whole events comes out. What an
//! upstream can make us keep is one event.

use super::error::ModelError;

/// Reads a stream of events.
#[derive(Debug)]
pub(super) struct Events {
    /// The line that is being read.
    line: Vec<u8>,
    /// The data of the event that is being read.
    data: Vec<u8>,
    /// The last line ended with a carriage return, so a line feed now ends none.
    after_return: bool,
    bytes_max: usize,
}

impl Events {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { line: Vec::new(), data: Vec::new(), after_return: false, bytes_max }
    }

    /// Takes bytes, and gives the data of each event that they complete to `found`.
    ///
    /// # Errors
    ///
    /// If an event is larger than it may be, or its data is no text.
    pub(super) fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(String)) -> Result<(), ModelError> {
        for &byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.after_return) => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    if let Some(data) = self.end_line()? {
                        found(data);
                    }
                }
                _ => {
                    self.after_return = false;
                    if self.line.len() + self.data.len() >= self.bytes_max {
                        return Err(ModelError::AnswerTooLarge { bytes_max: self.bytes_max });
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    /// Takes a line; an empty one ends an event.
    fn end_line(&mut self) -> Result<Option<String>, ModelError> {
        if self.line.is_empty() {
            let data = std::mem::take(&mut self.data);
            if data.is_empty() {
                return Ok(None);
            }
            return String::from_utf8(data).map(Some).map_err(|_| ModelError::broken("a chunk is not a text"));
        }
        // Comments, names and numbers of events say nothing that is needed here.
        if let Some(data) = self.line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        self.line.clear();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[&[u8]], bytes_max: usize) -> Result<Vec<String>, ModelError> {
        let (mut events, mut found) = (Events::new(bytes_max), Vec::new());
        for part in parts {
            events.feed(part, |data| found.push(data))?;
        }
        Ok(found)
    }

    #[test]
    fn an_event_is_its_data_wherever_the_bytes_are_cut() {
        for (stream, expected) in [
            ("data: a\n\ndata: b\n\n", &["a", "b"][..]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("data:a\n\n", &["a"]),
            ("data: a\ndata: b\n\n", &["a\nb"]),
            (": a comment\n\nevent: x\nid: 7\nretry: 1\ndata: a\n\n", &["a"]),
            ("data: half", &[]),
            ("data: no blank line\n", &[]),
            ("\n\n\n", &[]),
            ("data: ü\n\n", &["ü"]),
        ] {
            assert_eq!(read(&[stream.as_bytes()], 99).unwrap(), expected, "{stream:?}");
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes, 99).unwrap(), expected, "{stream:?}, byte by byte");
        }
    }

    #[test]
    fn an_event_is_bounded_however_it_grows() {
        let long_line = "x".repeat(100);
        let many_lines = "data: xxxxxxxx\n".repeat(10);
        for stream in [&long_line, &many_lines] {
            assert!(matches!(read(&[stream.as_bytes()], 50), Err(ModelError::AnswerTooLarge { bytes_max: 50 })));
        }
        assert!(read(&["data: xxxxxxxx\n\n".repeat(10).as_bytes()], 50).is_ok(), "many small ones are not large");
        assert!(read(&[b"data: \xff\n\n"], 50).is_err());
    }
}
