//! MCP over the pipes of a child: one JSON-RPC message a line.
//!
//! A line that is no message is skipped, as programs print what they like. A
//! line that is too long is never held in memory: if it begins like an answer,
//! the call that waits for it is told so, and the others go on.

use std::{future::Future, io, sync::Arc};

use bytes::{Buf as _, BytesMut};
use rmcp::{
    RoleClient,
    model::{ErrorCode, ErrorData, RequestId, ServerJsonRpcMessage},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStdin, ChildStdout},
    sync::Mutex,
};

/// Our own error for an answer that was not read. JSON-RPC leaves the codes outside of -32768 to -32000 to applications.
pub(super) const TOO_LARGE: ErrorCode = ErrorCode(-31_413);

/// Where an answer's id is looked for: servers write it before the result.
const HEAD_BYTES: usize = 256;

const READ_BYTES: usize = 64 << 10;

/// The client's end of the pipes.
pub(super) struct Pipes {
    server: String,
    stdout: ChildStdout,
    stdin: Arc<Mutex<Option<ChildStdin>>>,
    message_bytes_max: usize,
    /// What was read and is no whole line yet.
    buffer: BytesMut,
    /// How much of it is known to hold no end of a line.
    searched: usize,
    /// Whether the rest of the line is thrown away.
    skipping: bool,
}

impl Pipes {
    pub(super) fn new(server: &str, stdin: ChildStdin, stdout: ChildStdout, message_bytes_max: usize) -> Self {
        Self {
            server: server.to_owned(),
            stdout,
            stdin: Arc::new(Mutex::new(Some(stdin))),
            message_bytes_max,
            buffer: BytesMut::new(),
            searched: 0,
            skipping: false,
        }
    }

    /// The next message in what was read.
    fn next(&mut self) -> Option<ServerJsonRpcMessage> {
        while let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if line.len() > self.message_bytes_max {
                if let Some(message) = self.too_large(&line) {
                    return Some(message);
                }
            } else if let Some(message) = self.parse(&line) {
                return Some(message);
            }
        }
        self.searched = self.buffer.len();
        if self.skipping {
            self.buffer.clear();
            self.searched = 0;
        } else if self.buffer.len() > self.message_bytes_max {
            let line = self.buffer.split();
            self.searched = 0;
            self.skipping = true;
            return self.too_large(&line);
        }
        None
    }

    fn parse(&self, line: &[u8]) -> Option<ServerJsonRpcMessage> {
        if line.trim_ascii().is_empty() {
            return None;
        }
        match serde_json::from_slice(line) {
            Ok(message) => Some(message),
            Err(error) => {
                tracing::debug!(server = self.server, %error, "skipped a line that is no message");
                None
            }
        }
    }

    fn too_large(&self, line: &[u8]) -> Option<ServerJsonRpcMessage> {
        tracing::warn!(server = self.server, max = self.message_bytes_max, "skipped a message that is too large");
        let id = answered(&line[..line.len().min(HEAD_BYTES)])?;
        Some(ServerJsonRpcMessage::error(ErrorData::new(TOO_LARGE, "too large", None), Some(id)))
    }
}

/// The id in the beginning of an answer. A message with a method is none.
fn answered(head: &[u8]) -> Option<RequestId> {
    let head = String::from_utf8_lossy(head);
    let result = head.find("\"result\"").unwrap_or(head.len());
    let head = &head[..result];
    let after = head.split_once("\"id\"").filter(|_| !head.contains("\"method\""))?.1;
    let number = after.trim_start().strip_prefix(':')?.trim_start();
    let end = number.find(|c: char| !c.is_ascii_digit())?;
    number[..end].parse().ok().map(RequestId::Number)
}

impl Transport<RoleClient> for Pipes {
    type Error = io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let stdin = self.stdin.clone();
        async move {
            let mut line = serde_json::to_vec(&message)?;
            line.push(b'\n');
            let mut stdin = stdin.lock().await;
            stdin.as_mut().ok_or(io::ErrorKind::NotConnected)?.write_all(&line).await
        }
    }

    /// Nothing is lost when this is dropped while it waits: what was read stays in the buffer.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            if let Some(message) = self.next() {
                return Some(message);
            }
            self.buffer.reserve(READ_BYTES);
            match self.stdout.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.stdin.lock().await.take();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_large_is_told_apart_by_its_beginning() {
        for (head, id) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text""#, Some(7)),
            (r#"{"jsonrpc": "2.0", "id" : 12 , "result": {"#, Some(12)),
            (r#"{"id":3,"jsonrpc":"2.0","result":{"id":4"#, Some(3)),
            (r#"{"jsonrpc":"2.0","result":{"id":4,"#, None),
            (r#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage""#, None),
            (r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"id":4,"#, None),
            (r#"{"jsonrpc":"2.0","id":"x","result""#, None),
            (r#"{"jsonrpc":"2.0","id":99999999999999999999,"result""#, None),
            ("garbage", None),
        ] {
            assert_eq!(answered(head.as_bytes()), id.map(RequestId::Number), "{head}");
        }
    }
}
