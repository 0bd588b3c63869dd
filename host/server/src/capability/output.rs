//! The interface `output`: a streamed result (ARCP §8.4).

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use leasehold_core::{job::chunks::ChunkError, protocol::event::Event};

use super::{
    JobCtx,
    bindings::{
        output,
        types::{Error, ErrorCode},
    },
};

impl output::Host for JobCtx {
    async fn write_text(&mut self, text: String) -> Result<(), Error> {
        let chunks = self.chunks.write_text(&text)?;
        self.emit_all(chunks).await
    }

    async fn write_bytes(&mut self, bytes: Vec<u8>) -> Result<(), Error> {
        let chunks = self.chunks.write_bytes(&bytes, |part| BASE64.encode(part))?;
        self.emit_all(chunks).await
    }

    async fn finish(&mut self) -> Result<(), Error> {
        let last = self.chunks.finish()?;
        self.emit(last).await
    }
}

impl JobCtx {
    async fn emit_all(&mut self, events: Vec<Event>) -> Result<(), Error> {
        for event in events {
            self.emit(event).await?;
        }
        Ok(())
    }
}

impl From<ChunkError> for Error {
    fn from(error: ChunkError) -> Self {
        let code = match error {
            ChunkError::TooLarge(_) => ErrorCode::TooLarge,
            ChunkError::Finished | ChunkError::Mixed(_) => ErrorCode::InvalidRequest,
        };
        Self { code, message: error.to_string() }
    }
}
