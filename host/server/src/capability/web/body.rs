//! The answer to a fetch, and its body part by part.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use leasehold_core::lease::target::FetchUrl;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{WebError, headers::Injections};

/// The largest part of a body that is handed out at once.
pub const PART_BYTES_MAX: usize = 64 << 10;

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Who answered in the end.
    pub url: FetchUrl,
    /// Every URL a redirect led to, in order; the last one is `url`.
    pub redirects: Vec<String>,
    /// The headers, their names in lower case, without those of the connection.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Body,
}

/// When a fetch is over, whoever still wants something of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) after: Duration,
}

impl Deadline {
    pub(super) fn after(after: Duration) -> Self {
        Self { at: Instant::now() + after, after }
    }

    pub(super) fn passed(&self) -> WebError {
        WebError::Timeout { what: "the whole request", sec: self.after.as_secs_f64() }
    }
}

/// What a body needs besides its bytes.
pub(super) struct Reading {
    pub(super) deadline: Deadline,
    pub(super) idle: Duration,
    pub(super) inline_bytes_max: u64,
    pub(super) stream_bytes_max: u64,
    pub(super) buffers: Buffers,
    pub(super) host: String,
    /// Present if the operator's headers went to whoever sends this.
    pub(super) mask: Option<Arc<Injections>>,
}

/// A body, as it comes. Dropping it closes the connection.
///
/// Nothing is decompressed: an agent that asks for gzip gets gzip, and a bomb
/// has the size it has on the wire.
pub struct Body {
    frames: Incoming,
    reading: Reading,
    /// What has come and was not handed out.
    waiting: BytesMut,
    taken: u64,
    ended: bool,
    _connection: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("host", &self.reading.host).field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Body {
    pub(super) fn new(frames: Incoming, reading: Reading, connection: AbortOnDropHandle<()>) -> Self {
        Self { frames, reading, waiting: BytesMut::new(), taken: 0, ended: false, _connection: connection }
    }

    /// The next part, at most [`PART_BYTES_MAX`] long and never empty; `None` at the end.
    ///
    /// # Errors
    ///
    /// If nothing came for too long, the connection broke, or a limit was reached.
    pub async fn next(&mut self) -> Result<Option<Bytes>, WebError> {
        loop {
            let ready = self.waiting.len() - if self.ended { 0 } else { self.open_end() };
            if ready > 0 {
                return Ok(Some(self.waiting.split_to(ready.min(PART_BYTES_MAX)).freeze()));
            }
            if self.ended {
                return Ok(None);
            }
            self.receive().await?;
        }
    }

    /// The whole rest, if it is not larger than `bytes_max` or the host's own limit.
    ///
    /// The memory counts as used until the result is dropped.
    ///
    /// # Errors
    ///
    /// As with [`next`](Self::next), and if it is larger or the host has no room for it now.
    pub async fn all(mut self, bytes_max: u64) -> Result<Bytes, WebError> {
        let limit = bytes_max.min(self.reading.inline_bytes_max);
        let too_large = || WebError::TooLarge { limit, advice: "read it in parts" };
        if self.frames.size_hint().lower() > limit {
            return Err(too_large());
        }
        let mut whole = Whole { bytes: Vec::new(), room: self.reading.buffers.take(0)? };
        while let Some(part) = self.next().await? {
            let length = whole.bytes.len() + part.len();
            if u64::try_from(length).is_ok_and(|length| length > limit) {
                return Err(too_large());
            }
            if length > whole.bytes.capacity() {
                let capacity = length.max(2 * whole.bytes.capacity());
                whole.room.merge(self.reading.buffers.take(capacity - whole.bytes.capacity())?);
                whole.bytes.reserve_exact(capacity - whole.bytes.len());
            }
            whole.bytes.extend_from_slice(&part);
        }
        Ok(Bytes::from_owner(whole))
    }

    /// How much at the end of what has come may be the beginning of a secret.
    fn open_end(&self) -> usize {
        self.reading.mask.as_ref().map_or(0, |mask| mask.open_end(&self.waiting))
    }

    /// Takes in one frame, or the end.
    async fn receive(&mut self) -> Result<(), WebError> {
        let Reading { deadline, idle, host, .. } = &self.reading;
        let until = deadline.at.min(Instant::now() + *idle);
        let frame = match timeout_at(until, self.frames.frame()).await {
            Ok(frame) => frame,
            Err(_) if until == deadline.at => return Err(deadline.passed()),
            Err(_) => return Err(WebError::Timeout { what: "the next part of the answer", sec: idle.as_secs_f64() }),
        };
        match frame {
            None => self.ended = true,
            // The connection ends with the deadline, too, and may be quicker to say so.
            Some(Err(_)) if Instant::now() >= deadline.at => return Err(deadline.passed()),
            Some(Err(error)) => {
                return Err(WebError::Broken { host: host.clone(), reason: error.to_string() });
            }
            // Trailers are nothing an agent is told of.
            Some(Ok(frame)) => self.take(frame.into_data().unwrap_or_default())?,
        }
        Ok(())
    }

    fn take(&mut self, bytes: Bytes) -> Result<(), WebError> {
        self.taken += bytes.len() as u64;
        if self.taken > self.reading.stream_bytes_max {
            let limit = self.reading.stream_bytes_max;
            return Err(WebError::TooLarge { limit, advice: "ask for a part of it" });
        }
        match &self.reading.mask {
            // What is waiting is short, or it would have been handed out.
            Some(mask) => {
                self.waiting.extend_from_slice(&bytes);
                mask.mask(&mut self.waiting);
            }
            None => self.waiting = bytes.into(),
        }
        Ok(())
    }
}

/// The memory that all bodies of all fetches take together, in KiB.
#[derive(Clone)]
pub(super) struct Buffers(Arc<Semaphore>);

impl Buffers {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes_max >> 10).min(Semaphore::MAX_PERMITS))))
    }

    /// Takes so much of it, if it is there. Nobody waits: two that wait for each other's would wait for ever.
    pub(super) fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, WebError> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).map_err(|_| WebError::Busy)?;
        Arc::clone(&self.0).try_acquire_many_owned(kib).map_err(|_| WebError::Busy)
    }
}

/// A whole body, and the room it has.
struct Whole {
    bytes: Vec<u8>,
    room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
