//! One JSON document a line, over any pair of byte streams (ARCP §4).
//!
//! What comes in may end in `\n` or `\r\n` and may hold blank lines. What goes
//! out ends in `\n` and is never blank: there are clients that take a blank
//! line for the end, and others that read at most 64 KiB a line, which is for
//! the sender of large results to respect.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Incoming, TransportError};

/// A line-based wire.
///
/// All progress is kept here and not in futures, so `recv`, `feed` and `flush`
/// may be dropped at any await.
pub(super) struct Lines {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    line_bytes_max: usize,
    /// Read and not yet given out; its first `scanned` bytes hold no line ending.
    incoming: BytesMut,
    scanned: usize,
    /// Inside a line that was too long.
    skipping: bool,
    ended: bool,
    /// Taken and not yet written.
    outgoing: BytesMut,
}

/// How much is read at a time, and how much is fed before a write.
const CHUNK_BYTES: usize = 4 * 1024;

/// Largest buffer that an idle connection keeps.
const KEPT_BYTES_MAX: usize = 16 * 1024;

impl Lines {
    pub(super) fn new(
        reader: Box<dyn AsyncRead + Send + Unpin>,
        writer: Box<dyn AsyncWrite + Send + Unpin>,
        line_bytes_max: usize,
    ) -> Self {
        let (incoming, outgoing) = (BytesMut::new(), BytesMut::new());
        Self { reader, writer, line_bytes_max, incoming, scanned: 0, skipping: false, ended: false, outgoing }
    }

    pub(super) async fn recv(&mut self) -> Incoming {
        loop {
            while let Some(line) = self.next_line() {
                if let Some(incoming) = self.judge(&line) {
                    return incoming;
                }
            }
            if self.skipping {
                self.incoming.clear();
            } else if self.incoming.len() > self.line_bytes_max.saturating_add(1) {
                // One byte more may be the `\r` of the ending.
                self.skipping = true;
                self.incoming = BytesMut::new();
                self.scanned = 0;
                return Incoming::TooLarge;
            }
            if self.ended {
                // A last line without an ending is still a line.
                let rest = std::mem::take(&mut self.incoming);
                self.scanned = 0;
                return self.judge(&rest).unwrap_or(Incoming::Closed(None));
            }
            self.scanned = self.incoming.len();
            if self.incoming.is_empty() && self.incoming.capacity() > KEPT_BYTES_MAX {
                self.incoming = BytesMut::new();
            }
            self.incoming.reserve(CHUNK_BYTES);
            match self.reader.read_buf(&mut self.incoming).await {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "reading lines failed");
                    self.ended = true;
                }
            }
        }
    }

    /// Takes the next whole line with its ending, unless it ends one that was too long.
    fn next_line(&mut self) -> Option<BytesMut> {
        loop {
            let end = self.incoming[self.scanned..].iter().position(|byte| *byte == b'\n')?;
            let line = self.incoming.split_to(self.scanned + end + 1);
            self.scanned = 0;
            if !std::mem::take(&mut self.skipping) {
                return Some(line);
            }
        }
    }

    /// What a line is to the driver; a blank one is nothing.
    fn judge(&self, line: &[u8]) -> Option<Incoming> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.line_bytes_max {
            return Some(Incoming::TooLarge);
        }
        match std::str::from_utf8(line) {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(Incoming::Text(text.to_owned())),
            Err(_) => Some(Incoming::NotText),
        }
    }

    pub(super) async fn feed(&mut self, frame: &str) -> Result<(), TransportError> {
        if frame.trim().is_empty() {
            return Ok(());
        }
        if self.outgoing.len() >= CHUNK_BYTES {
            self.write_out().await?;
        }
        // Between the tokens of a JSON document a line ending is as good as a
        // space, and inside a string it is escaped.
        self.outgoing.extend(frame.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        self.outgoing.extend_from_slice(b"\n");
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), TransportError> {
        self.write_out().await?;
        self.writer.flush().await.map_err(failed)
    }

    async fn write_out(&mut self) -> Result<(), TransportError> {
        while !self.outgoing.is_empty() {
            match self.writer.write(&self.outgoing).await {
                Ok(0) => return Err(TransportError::Closed),
                Ok(written) => self.outgoing.advance(written),
                Err(error) => return Err(failed(error)),
            }
        }
        if self.outgoing.capacity() > KEPT_BYTES_MAX {
            self.outgoing = BytesMut::new();
        }
        Ok(())
    }

    pub(super) async fn close(mut self) {
        // A peer that has gone away already is what a close wants.
        let _ = self.flush().await;
        let _ = self.writer.shutdown().await;
    }
}

fn failed(error: io::Error) -> TransportError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => TransportError::Closed,
        _ => TransportError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{CloseReason, Transport};

    fn text(line: &str) -> Incoming {
        Incoming::Text(line.to_owned())
    }

    /// Everything a transport of ten-byte lines says of the writes, in order.
    async fn heard(writes: &[&[u8]]) -> Vec<Incoming> {
        let (near, mut far) = tokio::io::duplex(8);
        let (reader, writer) = tokio::io::split(near);
        let mut lines = Transport::lines(reader, writer, 10);
        let writing = async {
            for bytes in writes {
                far.write_all(bytes).await.unwrap();
            }
            far.shutdown().await.unwrap();
        };
        let reading = async {
            let mut heard = Vec::new();
            loop {
                match lines.recv().await {
                    Incoming::Closed(None) => return heard,
                    incoming => heard.push(incoming),
                }
            }
        };
        tokio::join!(writing, reading).1
    }

    #[tokio::test]
    async fn a_line_is_a_frame_however_its_bytes_arrive() {
        let (a, b) = (text("{\"a\":1}"), text("{\"b\":2}"));
        let table: &[(&[&[u8]], &[Incoming])] = &[
            (&[b"{\"a\":1}\n{\"b\":2}\n"], &[a.clone(), b.clone()]),
            (&[b"{\"a\":", b"1}", b"\n{\"b\":2}\n"], &[a.clone(), b.clone()]),
            (&[b"{\"a\":1}\r\n{\"b\":2}\r", b"\n"], &[a.clone(), b.clone()]),
            (&[b"\n\r\n  \n{\"a\":1}\n\n\n"], std::slice::from_ref(&a)),
            (&[b"{\"a\":1}\n{\"b\":2}"], &[a.clone(), b.clone()]), // the last ending may be missing
            (&[b""], &[]),
            (&[b"0123456789\n"], &[text("0123456789")]), // exactly at the limit
            (&[b"0123456789\r\n"], &[text("0123456789")]), // an ending does not count
            (&[b"0123456789", b"\r", b"\n"], &[text("0123456789")]),
            (&[b"0123456789a\n{\"b\":2}\n"], &[Incoming::TooLarge, b.clone()]),
            (&[b"0123456789abcdefghijklmnopqrstuvwxyz\n{\"b\":2}\n"], &[Incoming::TooLarge, b.clone()]),
            (&[b"0123456789abcdefghijklmnopqrstuvwxyz"], &[Incoming::TooLarge]),
            (&[b"\xff\xfe\n{\"b\":2}\n"], &[Incoming::NotText, b.clone()]),
        ];
        for (writes, expected) in table {
            assert_eq!(heard(writes).await, *expected, "{writes:?}");
        }
    }

    #[tokio::test]
    async fn a_receive_that_is_dropped_loses_nothing() {
        let (near, mut far) = tokio::io::duplex(5);
        let (reader, writer) = tokio::io::split(near);
        let mut lines = Transport::lines(reader, writer, 100);
        let writing = async {
            for n in 0..200 {
                far.write_all(format!("line {n}\n").as_bytes()).await.unwrap();
            }
        };
        let reading = async {
            let mut next = 0;
            while next < 200 {
                tokio::select! {
                    biased;
                    incoming = lines.recv() => {
                        assert_eq!(incoming, text(&format!("line {next}")));
                        next += 1;
                    }
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        tokio::join!(writing, reading);
    }

    #[tokio::test]
    async fn what_goes_out_is_one_line_a_frame_and_never_blank() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(near);
        let mut lines = Transport::lines(reader, writer, 10);
        for frame in ["{\"a\":1}", "", " \n", "{\n\"b\":2\r\n}"] {
            lines.feed(frame.into()).await.unwrap();
        }
        lines.flush().await.unwrap();
        lines.send("{}".into()).await.unwrap();
        lines.feed("[]".into()).await.unwrap();
        lines.close(CloseReason::new(CloseReason::NORMAL, "")).await;
        let mut written = String::new();
        far.read_to_string(&mut written).await.unwrap();
        assert_eq!(written, "{\"a\":1}\n{ \"b\":2  }\n{}\n[]\n");
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_to_the_sender() {
        let (near, far) = tokio::io::duplex(8);
        let (reader, writer) = tokio::io::split(near);
        let mut lines = Transport::lines(reader, writer, 10);
        drop(far);
        assert!(matches!(lines.send("{}".into()).await, Err(TransportError::Closed)));
    }
}
