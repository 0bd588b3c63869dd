//! Frames in, frames out: how a peer is reached, and nothing of what it says (ARCP §4).
//!
//! A connection's driver owns one [`Transport`] and asks it for one thing at a
//! time: [`Transport::recv`] inside its `select!`, [`Transport::send`] when it
//! has something to say. Which wire is below makes no difference to it. A
//! transport bounds what its peer can make it keep (the size of a frame, the
//! time a write may stall, the time a close may take) and has no opinion of
//! what a frame means.

pub mod stdio;
pub mod websocket;

use std::{borrow::Cow, fmt, io, net::SocketAddr, time::Duration};

pub use leasehold_core::secret::Secret;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::timeout,
};

/// What a transport has to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// One frame.
    Text(String),
    /// A frame over the limit; its content is gone.
    ///
    /// A line-based wire skips the rest of the line and stays usable. On a
    /// WebSocket nothing can be read after it, and the driver's answer is to
    /// close with [`CloseReason::TOO_LARGE`].
    TooLarge,
    /// A frame that is not UTF-8. If its sender called it text, nothing can be
    /// read from a WebSocket after it (RFC 6455 §8.1).
    NotText,
    /// A sign of life without content: a ping, which has been answered, or a pong.
    Alive,
    /// The peer is gone, with the reason it gave. Every later `recv` says so again.
    Closed(Option<CloseReason>),
}

/// Why a frame could not be sent; the connection is over, except after `TooLarge`.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The peer is gone.
    #[error("the peer has closed the connection")]
    Closed,
    /// The frame is larger than this wire takes; nothing of it was sent.
    #[error("the frame is larger than the transport takes")]
    TooLarge,
    /// The peer has read nothing for too long.
    #[error("the peer has stopped reading")]
    Stalled,
    /// The operating system refused.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Why a connection ends, in the terms of RFC 6455 §7.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// The close code.
    pub code: u16,
    /// A short sentence for people; a WebSocket carries its first 123 bytes.
    pub reason: Cow<'static, str>,
}

impl CloseReason {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The host is shutting down.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke a rule of the transport.
    pub const PROTOCOL: u16 = 1002;
    /// What the peer called text is none.
    pub const NOT_TEXT: u16 = 1007;
    /// The peer broke a rule or is not who it must be.
    pub const POLICY: u16 = 1008;
    /// A frame was over the limit.
    pub const TOO_LARGE: u16 = 1009;
    /// A fault of the host.
    pub const INTERNAL: u16 = 1011;

    /// Makes a reason.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.reason {
            "" => write!(f, "code {}", self.code),
            reason => write!(f, "code {}: {reason}", self.code),
        }
    }
}

/// What is known of a peer before it speaks. All of it is empty for a peer that came without a network.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Where it connects from.
    pub remote: Option<SocketAddr>,
    /// The token of an `Authorization: Bearer` header, which counts like the one in the hello (ARCP §6.1).
    pub bearer: Option<Secret>,
    /// The query of the URL it asked for, without the `?`.
    pub query: Option<String>,
    /// The software it says it is.
    pub user_agent: Option<String>,
}

impl Peer {
    /// A parameter of the query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.as_deref()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// One peer's connection.
pub struct Transport {
    peer: Peer,
    wire: Wire,
}

enum Wire {
    WebSocket(Box<websocket::Socket>),
    Lines(Box<stdio::Lines>),
    Memory(Memory),
}

/// How long a close may take: telling the peer, and waiting until it has heard.
///
/// A socket that is dropped with unread input is reset, and a reset overtakes
/// the close frame; so a close reads on for a while.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl Transport {
    fn new(peer: Peer, wire: Wire) -> Self {
        Self { peer, wire }
    }

    /// Makes a transport of one JSON document a line, as stdio carries it (ARCP §4).
    ///
    /// A line of more than `frame_bytes_max` bytes, its ending not counted, is [`Incoming::TooLarge`].
    pub fn lines(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        frame_bytes_max: usize,
    ) -> Self {
        let lines = stdio::Lines::new(Box::new(reader), Box::new(writer), frame_bytes_max);
        Self::new(Peer::default(), Wire::Lines(Box::new(lines)))
    }

    /// Says what is known of the peer, where the wire itself knows nothing.
    #[must_use]
    pub fn with_peer(self, peer: Peer) -> Self {
        Self { peer, ..self }
    }

    /// What was known of the peer when it connected.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Takes the token out of the peer's facts, so that a session does not keep it for its life.
    pub fn take_bearer(&mut self) -> Option<Secret> {
        self.peer.bearer.take()
    }

    /// Takes frames of the full size from now on: the peer is not a stranger any more.
    ///
    /// Only a wire that strangers can reach makes the difference.
    pub fn admit(&mut self) {
        if let Wire::WebSocket(socket) = &mut self.wire {
            socket.admit();
        }
    }

    /// Waits for what happens next.
    ///
    /// # Cancel safety
    ///
    /// Safe in `tokio::select!`: a call that is dropped has taken nothing, and
    /// the next call continues where it stopped, even inside a frame.
    pub async fn recv(&mut self) -> Incoming {
        match &mut self.wire {
            Wire::WebSocket(socket) => socket.recv().await,
            Wire::Lines(lines) => lines.recv().await,
            Wire::Memory(memory) => memory.recv().await,
        }
    }

    /// Sends one frame and whatever was fed before it, and returns once the wire has it.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped has sent its frame whole or not at all, or leaves
    /// the rest of it to the next call; the wire stays well-formed.
    ///
    /// # Errors
    ///
    /// If the peer is gone or reads no more, or if the frame is too large.
    pub async fn send(&mut self, frame: String) -> Result<(), TransportError> {
        self.feed(frame).await?;
        self.flush().await
    }

    /// Takes a frame that a later [`Transport::flush`] may send, so that many go out in few writes.
    ///
    /// It waits when the wire is full, and is dropped as safely as [`Transport::send`].
    ///
    /// # Errors
    ///
    /// As for [`Transport::send`].
    pub async fn feed(&mut self, frame: String) -> Result<(), TransportError> {
        match &mut self.wire {
            Wire::WebSocket(socket) => socket.feed(frame).await,
            Wire::Lines(lines) => lines.feed(&frame).await,
            Wire::Memory(memory) => memory.feed(frame).await,
        }
    }

    /// Sends what was fed.
    ///
    /// # Errors
    ///
    /// If the peer is gone or reads no more.
    pub async fn flush(&mut self) -> Result<(), TransportError> {
        match &mut self.wire {
            Wire::WebSocket(socket) => socket.flush().await,
            Wire::Lines(lines) => lines.flush().await,
            Wire::Memory(_) => Ok(()),
        }
    }

    /// Asks the peer for a sign of life that ARCP does not see; its answer is [`Incoming::Alive`].
    ///
    /// There are clients that answer no `session.ping`, and every WebSocket
    /// library answers this. A wire without such a thing does nothing.
    ///
    /// # Errors
    ///
    /// If the peer is gone or reads no more.
    pub async fn ping(&mut self) -> Result<(), TransportError> {
        match &mut self.wire {
            Wire::WebSocket(socket) => socket.ping().await,
            Wire::Lines(_) | Wire::Memory(_) => Ok(()),
        }
    }

    /// Whether whoever is there answers [`ping`](Self::ping).
    #[must_use]
    pub fn answers_pings(&self) -> bool {
        matches!(self.wire, Wire::WebSocket(_))
    }

    /// Ends the connection, and returns within two seconds whatever the peer does.
    pub async fn close(self, reason: CloseReason) {
        let farewell = async {
            match self.wire {
                Wire::WebSocket(socket) => socket.close(reason).await,
                Wire::Lines(lines) => lines.close().await,
                Wire::Memory(memory) => memory.close(reason).await,
            }
        };
        // A peer that does not listen is left with a closed connection, which tells it enough.
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire = match self.wire {
            Wire::WebSocket(_) => "websocket",
            Wire::Lines(_) => "lines",
            Wire::Memory(_) => "memory",
        };
        f.debug_struct("Transport").field("wire", &wire).field("peer", &self.peer).finish()
    }
}

/// Makes two ends of a connection inside this process, for tests and for a host embedded in another program.
///
/// Each direction holds [`MEMORY_FRAMES_MAX`] frames; a sender waits when it is full, as on a network.
#[must_use]
pub fn memory() -> (Transport, Transport) {
    let (left_out, right_in) = mpsc::channel(MEMORY_FRAMES_MAX);
    let (right_out, left_in) = mpsc::channel(MEMORY_FRAMES_MAX);
    let end = |incoming, outgoing| Transport::new(Peer::default(), Wire::Memory(Memory { incoming, outgoing }));
    (end(left_in, left_out), end(right_in, right_out))
}

/// How many frames one direction of a [`memory`] pair holds.
pub const MEMORY_FRAMES_MAX: usize = 64;

struct Memory {
    incoming: mpsc::Receiver<Letter>,
    outgoing: mpsc::Sender<Letter>,
}

enum Letter {
    Frame(String),
    Close(CloseReason),
}

impl Memory {
    async fn recv(&mut self) -> Incoming {
        match self.incoming.recv().await {
            Some(Letter::Frame(frame)) => Incoming::Text(frame),
            Some(Letter::Close(reason)) => {
                self.incoming.close();
                Incoming::Closed(Some(reason))
            }
            None => Incoming::Closed(None),
        }
    }

    async fn feed(&mut self, frame: String) -> Result<(), TransportError> {
        self.outgoing.send(Letter::Frame(frame)).await.map_err(|_| TransportError::Closed)
    }

    async fn close(self, reason: CloseReason) {
        // The other end may be gone already, and then there is nobody to tell.
        let _ = self.outgoing.send(Letter::Close(reason)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let peer = Peer { bearer: Some(Secret::new("hunter2")), ..Peer::default() };
        assert!(!format!("{peer:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_memory_pair_carries_frames_both_ways_and_the_reason_of_a_close() {
        let (mut host, mut client) = memory();
        client.send("a".into()).await.unwrap();
        client.feed("b".into()).await.unwrap();
        host.send("c".into()).await.unwrap();
        assert_eq!(host.recv().await, Incoming::Text("a".into()));
        assert_eq!(host.recv().await, Incoming::Text("b".into()));
        assert_eq!(client.recv().await, Incoming::Text("c".into()));
        let reason = CloseReason::new(CloseReason::POLICY, "who are you?");
        host.close(reason.clone()).await;
        assert_eq!(client.recv().await, Incoming::Closed(Some(reason)));
        assert_eq!(client.recv().await, Incoming::Closed(None));
        assert!(matches!(client.send("d".into()).await, Err(TransportError::Closed)));
    }

    #[tokio::test]
    async fn a_full_memory_pair_makes_its_sender_wait() {
        let (mut host, mut client) = memory();
        for n in 0..MEMORY_FRAMES_MAX {
            client.send(n.to_string()).await.unwrap();
        }
        assert!(futures_util::FutureExt::now_or_never(client.send("one more".into())).is_none());
        assert_eq!(host.recv().await, Incoming::Text("0".into()));
        client.send("now".into()).await.unwrap();
    }
}
