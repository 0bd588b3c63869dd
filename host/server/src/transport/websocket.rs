//! WebSocket over a small HTTP server, and the client's side of it (ARCP §4, RFC 6455).
//!
//! [`serve`] answers three questions of HTTP (`/healthz`, the upgrade, and
//! "this speaks WebSocket"), [`serve_with`] others besides, and hands every upgraded socket to its handler as a
//! [`Transport`]. After the upgrade nothing of HTTP is left in memory: the
//! handler owns the bare socket.
//!
//! A page in the user's browser can reach a host on `localhost`, by itself or
//! through a name of its own that it points there (DNS rebinding). So the
//! upgrade checks the names it was asked under, [`WebSocketConfig::allowed_hosts`].

use std::{
    convert::Infallible,
    future::{Future, pending, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use http_body_util::{Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::Incoming as Body,
    header::{self, HeaderMap, HeaderName, HeaderValue},
    http::uri::Authority,
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError, Message,
        handshake::derive_accept_key,
        protocol::{self, CloseFrame, Role},
    },
};
use tokio_util::sync::CancellationToken;

use super::{CloseReason, Incoming, Peer, Secret, Transport, TransportError, Wire};

/// What a listener allows its peers.
#[derive(Clone, Debug)]
pub struct WebSocketConfig {
    /// Names under which the host may be asked for, in `Host` and in a browser's `Origin`.
    ///
    /// An entry without a port stands for every port. `None`, the default,
    /// means `localhost`, `127.0.0.1` and `[::1]` on a loopback listener, and
    /// every name on another.
    pub allowed_hosts: Option<Vec<String>>,
    /// Largest message taken, in bytes; 4 MiB. A larger one is [`Incoming::TooLarge`].
    pub frame_bytes_max: usize,
    /// The same for a peer that has not been admitted, see [`Transport::admit`]; 64 KiB.
    ///
    /// Anyone can connect, and what a stranger sends is kept until its frame is whole.
    pub stranger_frame_bytes_max: usize,
    /// How much is read from a socket at a time, which every connection keeps allocated; 2 KiB.
    pub read_buffer: usize,
    /// Open connections, 10 000; one more is answered with 503.
    pub connections_max: u32,
    /// Of them, connections that have not been admitted, see [`Transport::admit`], 2 000; one more is answered with 503.
    pub handshakes_max: u32,
    /// How long a peer may take from connecting to a complete upgrade; 10 s.
    pub handshake_timeout: Duration,
    /// How long a write may wait for a peer that does not read; 30 s. Then it is [`TransportError::Stalled`].
    pub write_timeout: Duration,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: None,
            frame_bytes_max: 4 * 1024 * 1024,
            stranger_frame_bytes_max: 64 * 1024,
            read_buffer: 2 * 1024,
            connections_max: 10_000,
            handshakes_max: 2_000,
            handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
        }
    }
}

impl WebSocketConfig {
    /// The limits of a peer nobody knows yet.
    fn stranger(&self) -> protocol::WebSocketConfig {
        let max = self.frame_bytes_max.min(self.stranger_frame_bytes_max);
        self.protocol().max_message_size(Some(max)).max_frame_size(Some(max))
    }

    fn protocol(&self) -> protocol::WebSocketConfig {
        protocol::WebSocketConfig::default()
            .read_buffer_size(self.read_buffer)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            // What waits while a peer does not read: one frame, and answers to its pings.
            .max_write_buffer_size(self.frame_bytes_max.saturating_add(2 * WRITE_BUFFER_BYTES))
            .max_message_size(Some(self.frame_bytes_max))
            .max_frame_size(Some(self.frame_bytes_max))
    }
}

/// What a listener answers besides WebSocket.
pub trait Pages: Send + Sync + 'static {
    /// Whether a path is among them.
    fn has(&self, path: &str) -> bool;

    /// Answers a request for one of them.
    ///
    /// Whoever asks has shown nothing yet: an answer of 401 is its connection's
    /// last, and any other one admits the connection as a welcome does.
    fn answer(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<PageBody>> + Send + '_>>;
}

/// The body of a page.
pub type PageBody = UnsyncBoxBody<Bytes, Infallible>;

/// Accepts connections until `shutdown`, and gives every one that upgrades to `handler`.
///
/// Returns when the last handler has returned. It does not tell them of the
/// shutdown: how a session ends is theirs to know.
pub async fn serve<H, F>(listener: TcpListener, config: WebSocketConfig, handler: H, shutdown: CancellationToken)
where
    H: Fn(Transport) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    serve_with(listener, config, None, handler, shutdown).await;
}

/// As [`serve`], and answers these pages, too.
pub async fn serve_with<H, F>(
    listener: TcpListener,
    config: WebSocketConfig,
    pages: Option<Arc<dyn Pages>>,
    handler: H,
    shutdown: CancellationToken,
) where
    H: Fn(Transport) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    // A listener that cannot say where it listens is treated as the one that needs more care.
    let loopback = listener.local_addr().map_or(true, |address| address.ip().is_loopback());
    let connections_max = config.connections_max;
    let places = Places::new(&config);
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let door = Arc::new(Door { hosts: Hosts::new(config.allowed_hosts.as_deref(), loopback), pages, config });
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                // Most likely the process is out of file descriptors; they come
                // back when connections end, and until then trying is of no use.
                tracing::warn!(%error, "cannot accept connections for the moment");
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        let (permit, handshake) = match places.take() {
            Some((permit, handshake)) => (permit, Some(handshake)),
            None => match Arc::clone(&refusals).try_acquire_owned() {
                Ok(permit) => (permit, None),
                Err(_) => continue,
            },
        };
        let guest = Guest { stream, remote, handshake };
        tokio::spawn(attend(guest, Arc::clone(&door), handler.clone(), shutdown.clone(), permit));
    }
    drop(listener);
    // Every permit back means every connection over; the semaphore is never closed.
    let _ = places.connections.acquire_many(connections_max).await;
}

/// Connects to a host as its client. `wss` is not spoken here; it ends in front of a host.
///
/// # Errors
///
/// If the URL is not one of `ws`, if nobody answers within ten seconds, or if the answer is not an upgrade.
pub async fn connect(url: &str, config: &WebSocketConfig) -> Result<Transport, ConnectError> {
    let uri: Uri = url.parse().map_err(|_| ConnectError::Url)?;
    let host = match (uri.scheme_str(), uri.host()) {
        (Some("ws"), Some(host)) => host.trim_start_matches('[').trim_end_matches(']'),
        _ => return Err(ConnectError::Url),
    };
    let handshake = Box::pin(async {
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
        stream.set_nodelay(true)?;
        let remote = stream.peer_addr().ok();
        let (stream, _) =
            client_async_with_config(&uri, Tracked::client(Box::new(stream)), Some(config.protocol())).await?;
        let socket = Socket::new(stream, Role::Client, config);
        Ok(Transport::new(Peer { remote, ..Peer::default() }, Wire::WebSocket(Box::new(socket))))
    });
    timeout(config.handshake_timeout, handshake).await.map_err(|_| ConnectError::Timeout)?
}

/// Why a client has no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not a URL that can be connected to.
    #[error("the URL must look like ws://host:port/arcp; TLS is not spoken")]
    Url,
    /// Nobody listens, or the network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An HTTP server that does not upgrade, with the status it gave.
    #[error("the server answered HTTP {0} instead of upgrading to WebSocket")]
    Status(StatusCode),
    /// An answer that is not an upgrade to WebSocket.
    #[error("the server does not speak WebSocket: {0}")]
    Protocol(String),
    /// No answer in time.
    #[error("the server did not answer in time")]
    Timeout,
}

impl From<WsError> for ConnectError {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Io(error) => Self::Io(error),
            WsError::Http(response) => Self::Status(response.status()),
            WsError::Url(_) => Self::Url,
            error => Self::Protocol(error.to_string()),
        }
    }
}

// The socket ----------------------------------------------------------------

/// An upgraded socket.
pub(super) struct Socket {
    stream: WebSocketStream<Tracked>,
    role: Role,
    protocol: protocol::WebSocketConfig,
    write_timeout: Duration,
    /// The place of a peer that has not been admitted.
    handshake: Option<OwnedSemaphorePermit>,
    /// The limits have changed and the stream does not know of it yet.
    changed: bool,
    /// A pong has come and was not reported yet.
    alive: bool,
    /// Something was fed since the last flush.
    fed: bool,
    /// Nothing can be read any more.
    ended: bool,
    /// It ended with an error, so the peer may not know of it.
    failed: bool,
    /// The close code for what the peer did, if it broke a rule of WebSocket itself.
    fault: Option<u16>,
    #[cfg(test)]
    trims: usize,
}

impl Socket {
    fn new(stream: WebSocketStream<Tracked>, role: Role, config: &WebSocketConfig) -> Self {
        Self {
            stream,
            role,
            protocol: config.protocol(),
            write_timeout: config.write_timeout,
            handshake: None,
            changed: false,
            alive: false,
            fed: false,
            ended: false,
            failed: false,
            fault: None,
            #[cfg(test)]
            trims: 0,
        }
    }

    pub(super) async fn recv(&mut self) -> Incoming {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        while !self.ended {
            let incoming = match self.stream.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(Message::Text(text)))) => Incoming::Text(text.as_str().to_owned()),
                // There are clients that call JSON binary.
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => match std::str::from_utf8(&bytes) {
                    Ok(text) => Incoming::Text(text.to_owned()),
                    Err(_) => Incoming::NotText,
                },
                Poll::Ready(Some(Ok(Message::Close(frame)))) => {
                    self.ended = true;
                    // The answer to a close is queued; one more poll writes it.
                    let _ = self.stream.poll_next_unpin(cx);
                    Incoming::Closed(frame.map(|frame| CloseReason::new(frame.code.into(), frame.reason.to_string())))
                }
                // Reported one by one, so that whoever asks here decides how many are answered a second.
                Poll::Ready(Some(Ok(Message::Ping(_)))) => {
                    // An error comes back with the next poll, and so does what could not be written now.
                    let _ = self.stream.poll_flush_unpin(cx);
                    Incoming::Alive
                }
                Poll::Ready(Some(Ok(Message::Pong(_) | Message::Frame(_)))) => {
                    // Nobody answers it, so it is reported only when there is nothing better to report.
                    self.alive = true;
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    (self.ended, self.failed) = (true, true);
                    match error {
                        WsError::Capacity(_) => Incoming::TooLarge,
                        WsError::Utf8(_) => {
                            self.fault = Some(CloseReason::NOT_TEXT);
                            Incoming::NotText
                        }
                        error => {
                            self.fault = matches!(error, WsError::Protocol(_)).then_some(CloseReason::PROTOCOL);
                            tracing::debug!(%error, "a socket has failed");
                            Incoming::Closed(None)
                        }
                    }
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    Incoming::Closed(None)
                }
                Poll::Pending if self.trim() => continue,
                Poll::Pending if self.alive => Incoming::Alive,
                Poll::Pending => return Poll::Pending,
            };
            self.alive = false;
            return Poll::Ready(incoming);
        }
        Poll::Ready(Incoming::Closed(None))
    }

    pub(super) async fn feed(&mut self, frame: String) -> Result<(), TransportError> {
        self.push(Message::text(frame)).await
    }

    pub(super) async fn ping(&mut self) -> Result<(), TransportError> {
        self.push(Message::Ping(Bytes::new())).await?;
        self.flush().await
    }

    async fn push(&mut self, message: Message) -> Result<(), TransportError> {
        self.fed = true;
        in_time(self.write_timeout, self.stream.feed(message)).await
    }

    pub(super) async fn flush(&mut self) -> Result<(), TransportError> {
        in_time(self.write_timeout, self.stream.flush()).await?;
        self.fed = false;
        Ok(())
    }

    /// Gives back the buffers that a large frame has grown, if nothing is in them.
    ///
    /// The protocol's buffers grow to the largest frame and stay so, which for
    /// ten thousand idle sessions is the difference between megabytes and
    /// gigabytes. They can only be given back with the whole protocol state, so
    /// this waits for a moment when that state says nothing: no part of a frame
    /// read, all that was written sent.
    fn trim(&mut self) -> bool {
        let tracked = self.stream.get_ref();
        if self.fed || !tracked.is_at_rest() || !(self.changed || tracked.is_wasteful()) {
            return false;
        }
        let Some(tracked) = self.stream.get_mut().take() else { return false };
        let fresh = WebSocketStream::from_raw_socket(tracked, self.role, Some(self.protocol));
        self.stream = fresh.now_or_never().expect("making a stream without a handshake waits for nothing");
        self.changed = false;
        #[cfg(test)]
        {
            self.trims += 1;
        }
        true
    }

    /// Raises the limits. They hold from the next moment at which nothing is half read.
    pub(super) fn admit(&mut self) {
        self.changed = true;
        self.handshake = None;
    }

    /// Says farewell and waits until the peer has closed; the caller bounds the time.
    pub(super) async fn close(mut self, reason: CloseReason) {
        let code = self.fault.unwrap_or(reason.code);
        let frame = CloseFrame { code: code.into(), reason: shorten(&reason.reason).into() };
        // An error means that the peer is gone or has closed first; what follows holds for both.
        let _ = self.stream.send(Message::Close(Some(frame))).await;
        while let Some(message) = self.stream.next().await {
            self.failed |= message.is_err();
        }
        let socket = self.stream.get_mut();
        let _ = socket.shutdown().await;
        if self.failed {
            // The peer may still be sending what nobody reads, and a socket
            // dropped with unread input takes the close frame with it.
            let mut unread = vec![0; WRITE_BUFFER_BYTES];
            while let Ok(1..) = socket.read(&mut unread).await {}
        }
    }
}

/// A reason a close frame has room for: a control frame holds 125 bytes, two are the code.
fn shorten(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(123)]
}

async fn in_time(limit: Duration, write: impl Future<Output = Result<(), WsError>>) -> Result<(), TransportError> {
    match timeout(limit, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(WsError::WriteBufferFull(_))) => Err(TransportError::TooLarge),
        Ok(Err(WsError::Io(error))) if !is_gone(&error) => Err(TransportError::Io(error)),
        Ok(Err(_)) => Err(TransportError::Closed),
        Err(_) => Err(TransportError::Stalled),
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

/// A byte stream in both directions: a TCP socket, or what another program's HTTP server has made of one.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A byte stream that follows the frames read from it, and so knows when it is between two messages.
struct Tracked {
    /// Taken when the protocol state around it is replaced.
    socket: Option<Box<dyn Stream>>,
    /// The header of the frame that is being read, as far as it has come.
    header: [u8; 14],
    header_bytes: usize,
    payload_left: u64,
    /// The last data frame was not the last of its message.
    fragmented: bool,
    /// The last write took all it was given.
    drained: bool,
    /// The largest frame read or write tried so far, or `None` where nobody asks.
    largest: Option<u64>,
}

impl Tracked {
    /// Follows a server's socket; `read` is what the HTTP side has read beyond the upgrade.
    fn server(socket: Box<dyn Stream>, read: &[u8]) -> Self {
        let mut tracked = Self { largest: Some(0), ..Self::client(socket) };
        tracked.advance(read);
        tracked
    }

    /// A client's socket, of which there are few and whose first bytes are not frames.
    fn client(socket: Box<dyn Stream>) -> Self {
        Self {
            socket: Some(socket),
            header: [0; 14],
            header_bytes: 0,
            payload_left: 0,
            fragmented: false,
            drained: true,
            largest: None,
        }
    }

    fn take(&mut self) -> Option<Self> {
        self.socket.take().map(|socket| Self::server(socket, &[]))
    }

    /// Whether nothing is half read or half written.
    fn is_at_rest(&self) -> bool {
        self.header_bytes == 0 && self.payload_left == 0 && !self.fragmented && self.drained
    }

    /// Whether a large frame has grown the buffers.
    fn is_wasteful(&self) -> bool {
        self.largest.is_some_and(|largest| largest > KEPT_BYTES_MAX)
    }

    /// Follows `bytes`, which were read (RFC 6455 §5.2).
    fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let payload = bytes.len().min(usize::try_from(self.payload_left).unwrap_or(usize::MAX));
                self.payload_left -= payload as u64;
                bytes = &bytes[payload..];
                continue;
            }
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            bytes = rest;
            if let Some(payload) = payload_bytes(&self.header[..self.header_bytes]) {
                let (is_final, is_data) = (self.header[0] & 0x80 != 0, self.header[0] & 0x08 == 0);
                if is_data {
                    self.fragmented = !is_final;
                }
                self.header_bytes = 0;
                self.payload_left = payload;
                self.largest = self.largest.map(|largest| largest.max(payload));
            }
        }
    }

    fn socket(&mut self) -> io::Result<Pin<&mut (dyn Stream + 'static)>> {
        self.socket.as_deref_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// The payload length that a complete frame header announces.
fn payload_bytes(header: &[u8]) -> Option<u64> {
    let mask = if header.get(1)? & 0x80 == 0 { 0 } else { 4 };
    let (length, payload) = match header[1] & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(header.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(header.get(2..10)?.try_into().ok()?)),
        payload => (2, u64::from(payload)),
    };
    (header.len() == length + mask).then_some(payload)
}

impl AsyncRead for Tracked {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(this.socket()?.poll_read(cx, buffer))?;
        if this.largest.is_some() {
            this.advance(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.drained = false;
        this.largest = this.largest.map(|largest| largest.max(bytes.len() as u64));
        let written = ready!(this.socket()?.poll_write(cx, bytes))?;
        this.drained = written == bytes.len();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket()?.poll_shutdown(cx)
    }
}

// The door ------------------------------------------------------------------

/// What all connections of a listener share.
struct Door {
    config: WebSocketConfig,
    hosts: Hosts,
    pages: Option<Arc<dyn Pages>>,
}

/// A connection that has just been accepted.
struct Guest {
    stream: TcpStream,
    remote: SocketAddr,
    /// Its place, unless there are as many connections as there may be.
    handshake: Option<OwnedSemaphorePermit>,
}

async fn attend<H, F>(
    guest: Guest,
    door: Arc<Door>,
    handler: H,
    shutdown: CancellationToken,
    permit: OwnedSemaphorePermit,
) where
    H: Fn(Transport) -> F,
    F: Future<Output = ()>,
{
    // Boxed, so that a session's task does not keep room for HTTP.
    let upgraded = Box::pin(async {
        let reads_pages = AtomicBool::new(false);
        let overdue = async {
            sleep(door.config.handshake_timeout).await;
            if reads_pages.load(Ordering::Relaxed) {
                pending::<()>().await; // then its end is HTTP's to know
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => None,
            () = overdue => None,
            upgraded = upgrade(guest, &door, &reads_pages) => upgraded,
        }
    })
    .await;
    drop((door, shutdown));
    if let Some(transport) = upgraded {
        handler(transport).await;
    }
    drop(permit);
}

/// Speaks HTTP until the connection ends or becomes a WebSocket.
async fn upgrade(guest: Guest, door: &Door, reads_pages: &AtomicBool) -> Option<Transport> {
    let Guest { stream, remote, handshake } = guest;
    let full = handshake.is_none();
    let handshake = Mutex::new(handshake);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a socket has failed");
        return None;
    }
    let upgrade = Mutex::new(None);
    let service = service_fn(|request: Request<Body>| {
        let page = door.pages.as_ref().filter(|pages| !full && pages.has(request.uri().path()));
        let answer = match page {
            Some(pages) => Ok(pages.answer(request)),
            None => {
                let (response, asked) = door.answer(request, Some(remote), full);
                *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = asked;
                Err(response.map(UnsyncBoxBody::new))
            }
        };
        let handshake = &handshake;
        async move {
            let page = match answer {
                Err(response) => return Ok::<_, Infallible>(response),
                Ok(page) => page,
            };
            reads_pages.store(true, Ordering::Relaxed);
            let response = page.await;
            match response.status() {
                StatusCode::UNAUTHORIZED => reads_pages.store(false, Ordering::Relaxed),
                _ => drop(handshake.lock().unwrap_or_else(PoisonError::into_inner).take()),
            }
            Ok(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(door.config.handshake_timeout)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, %remote, "a connection has failed before its upgrade");
        return None;
    }
    let (upgraded, peer) = upgrade.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    let parts = upgraded.await.ok()?.downcast::<TokioIo<TcpStream>>().ok()?;
    let handshake = handshake.into_inner().unwrap_or_else(PoisonError::into_inner);
    let socket = door.socket(Box::new(parts.io.into_inner()), parts.read_buf.to_vec(), handshake).await;
    Some(Transport::new(peer, Wire::WebSocket(Box::new(socket))))
}

/// How many connections there may be, and how many of them that have not been admitted.
struct Places {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl Places {
    fn new(config: &WebSocketConfig) -> Self {
        let places = |max: u32| Arc::new(Semaphore::new(max as usize));
        Self { connections: places(config.connections_max), handshakes: places(config.handshakes_max) }
    }

    /// A place among both, if there is one.
    fn take(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let connection = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        Some((connection, Arc::clone(&self.handshakes).try_acquire_owned().ok()?))
    }
}

/// A host's place in the HTTP server of another program, which accepts the connections.
///
/// It bounds and checks them as a listener does. It cannot know where that
/// server listens, so without [`WebSocketConfig::allowed_hosts`] it answers to
/// the names of loopback only.
pub struct Route {
    door: Arc<Door>,
    places: Places,
}

impl Route {
    /// Makes a place for connections that are bounded and checked as `config` says.
    #[must_use]
    pub fn new(config: WebSocketConfig) -> Self {
        let places = Places::new(&config);
        let door = Door { hosts: Hosts::new(config.allowed_hosts.as_deref(), true), pages: None, config };
        Self { door: Arc::new(door), places }
    }

    /// Answers a request of a peer. If it upgrades, `handler` serves it, in a task of its own.
    pub fn answer<B, H, F>(&self, request: Request<B>, remote: Option<SocketAddr>, handler: H) -> Response<Full<Bytes>>
    where
        H: FnOnce(Transport) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let (permit, handshake) = self.places.take().unzip();
        let (response, asked) = self.door.answer(request, remote, handshake.is_none());
        if let Some((upgraded, peer)) = asked {
            let door = Arc::clone(&self.door);
            tokio::spawn(async move {
                let upgraded = timeout(door.config.handshake_timeout, upgraded).await;
                if let Ok(Ok(upgraded)) = upgraded {
                    let socket = door.socket(Box::new(TokioIo::new(upgraded)), Vec::new(), handshake).await;
                    handler(Transport::new(peer, Wire::WebSocket(Box::new(socket)))).await;
                }
                drop(permit);
            });
        }
        response
    }
}

type Answer = Response<Full<Bytes>>;
type Asked = (OnUpgrade, Peer);

impl Door {
    /// Speaks WebSocket over a stream that was upgraded, of which `read` was read already.
    async fn socket(&self, stream: Box<dyn Stream>, read: Vec<u8>, handshake: Option<OwnedSemaphorePermit>) -> Socket {
        let tracked = Tracked::server(stream, &read);
        let stranger = self.config.stranger();
        let stream = WebSocketStream::from_partially_read(tracked, read, Role::Server, Some(stranger)).await;
        Socket { handshake, ..Socket::new(stream, Role::Server, &self.config) }
    }

    /// Answers one request; an upgrade comes with what is needed to complete it.
    fn answer<B>(&self, mut request: Request<B>, remote: Option<SocketAddr>, full: bool) -> (Answer, Option<Asked>) {
        if let Some(refusal) = self.refuse(&request, full) {
            return (refusal, None);
        }
        let headers = request.headers();
        let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key)) else {
            return (say(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be sixteen bytes in base64"), None);
        };
        let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is a header value");
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response = with(response, header::CONNECTION, "Upgrade");
        response = with(response, header::UPGRADE, "websocket");
        // A subprotocol must not be answered that was not offered.
        if has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL, str::eq) {
            response = with(response, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        }
        let peer = Peer {
            remote,
            bearer: bearer(headers),
            query: request.uri().query().map(str::to_owned),
            user_agent: text(headers, &header::USER_AGENT).map(|agent| agent.chars().take(200).collect()),
        };
        (response, Some((hyper::upgrade::on(&mut request), peer)))
    }

    /// The answer to everything that is not an upgrade, or not one for this host.
    fn refuse<B>(&self, request: &Request<B>, full: bool) -> Option<Answer> {
        let (path, headers) = (request.uri().path(), request.headers());
        // A host that is full is alive, and restarting it would help nobody.
        if path == "/healthz" {
            return Some(match *request.method() {
                Method::GET | Method::HEAD => say(StatusCode::OK, "ok"),
                _ => with(say(StatusCode::METHOD_NOT_ALLOWED, "use GET"), header::ALLOW, "GET, HEAD"),
            });
        }
        if full {
            let sentence = "all connections of this host are taken, or too many begin at once; try again";
            let response = say(StatusCode::SERVICE_UNAVAILABLE, sentence);
            return Some(with(response, header::RETRY_AFTER, "1"));
        }
        if path != "/" && !path.ends_with("/arcp") {
            return Some(say(StatusCode::NOT_FOUND, "nothing here: ARCP is at /arcp, health at /healthz"));
        }
        let upgrades = has_token(headers, &header::CONNECTION, "upgrade", str::eq_ignore_ascii_case)
            && has_token(headers, &header::UPGRADE, "websocket", str::eq_ignore_ascii_case);
        if !upgrades || request.method() != Method::GET || request.version() != Version::HTTP_11 {
            let sentence = "this is an ARCP host: connect with a WebSocket client, for example to ws://<host>/arcp";
            let response = with(say(StatusCode::UPGRADE_REQUIRED, sentence), header::UPGRADE, "websocket");
            return Some(with(response, header::CONNECTION, "Upgrade, close"));
        }
        if text(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
            let response = say(StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken here");
            return Some(with(response, header::SEC_WEBSOCKET_VERSION, "13"));
        }
        let host = request.uri().authority().map(Authority::as_str).or_else(|| text(headers, &header::HOST));
        if !self.hosts.allow(host) {
            return Some(say(StatusCode::FORBIDDEN, "this host does not answer to that name: see allowed_hosts"));
        }
        // Only browsers send an origin, and `null` is one that hides its name.
        let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        if origin.is_some_and(|origin| !self.hosts.allow(origin.split_once("://").map(|(_, host)| host))) {
            return Some(say(StatusCode::FORBIDDEN, "pages of that origin may not connect: see allowed_hosts"));
        }
        None
    }
}

/// The names a listener answers to; `None` is every name.
struct Hosts(Option<Vec<String>>);

impl Hosts {
    fn new(allowed: Option<&[String]>, loopback: bool) -> Self {
        let loopbacks = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        Self(match allowed {
            Some(allowed) => Some(allowed.to_vec()),
            None if loopback => Some(loopbacks.to_vec()),
            None => None,
        })
    }

    /// Whether `authority`, a host with or without a port, is one of the names.
    fn allow(&self, authority: Option<&str>) -> bool {
        let Some(allowed) = &self.0 else { return true };
        // `user@host` parses, but is neither a `Host` nor an `Origin`.
        let Some(authority) = authority.filter(|text| !text.contains('@')).and_then(|text| text.parse().ok()) else {
            return false;
        };
        let authority: Authority = authority;
        let names = [authority.host(), authority.host().trim_matches(['[', ']']), authority.as_str()];
        allowed.iter().any(|allowed| names.iter().any(|name| name.eq_ignore_ascii_case(allowed)))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the comma-separated list of a header, however many lines it takes, holds `token`.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str, eq: fn(&str, &str) -> bool) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|entry| eq(entry.trim(), token))
}

fn is_key(key: &HeaderValue) -> bool {
    base64::engine::general_purpose::STANDARD.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16)
}

fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let (scheme, token) = text(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| Secret::new(token))
}

fn say(status: StatusCode, sentence: &str) -> Answer {
    let mut response = Response::new(Full::from(format!("{sentence}\n")));
    *response.status_mut() = status;
    // A connection that does not upgrade has no reason to stay.
    response = with(response, header::CONNECTION, "close");
    with(response, header::CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut response: Answer, name: HeaderName, value: &'static str) -> Answer {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// Whether an error of `accept` concerns only the connection it would have given.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The subprotocol a client may offer; none asks for it.
const SUBPROTOCOL: &str = "arcp.v1";

/// How much of a handshake is read; a token and a few headers fit many times.
const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;

/// How many connections too many are told so at a time; others are closed without a word.
const REFUSALS_MAX: usize = 64;

/// How long to wait when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// How much is fed before it is written: a batch of small events goes out in one packet.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;

/// Largest frame whose buffer an idle connection keeps.
const KEPT_BYTES_MAX: u64 = 8 * 1024;

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio_tungstenite::tungstenite::{
        client::IntoClientRequest,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    };

    use super::*;

    /// A listener whose handler passes its transports to the test.
    struct Host {
        address: SocketAddr,
        transports: mpsc::UnboundedReceiver<Transport>,
        shutdown: CancellationToken,
    }

    impl Host {
        async fn start(config: WebSocketConfig) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (sender, transports) = mpsc::unbounded_channel();
            let shutdown = CancellationToken::new();
            let handler = move |transport| {
                let sender = sender.clone();
                async move { sender.send(transport).unwrap() }
            };
            tokio::spawn(serve(listener, config, handler, shutdown.clone()));
            Self { address, transports, shutdown }
        }

        async fn default() -> Self {
            Self::start(admitting()).await
        }

        /// A client and the host's side of it.
        async fn pair(&mut self) -> (WebSocketStream<TcpStream>, Transport) {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("ws://{}/arcp", self.address).into_client_request().unwrap();
            let (client, _) = client_async_with_config(request, stream, None).await.unwrap();
            (client, self.transports.recv().await.unwrap())
        }

        /// Sends a request as it stands and returns all of the answer up to its blank line.
        async fn ask(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => answer.push(byte),
                    Err(_) => break,
                }
            }
            String::from_utf8(answer).unwrap().to_lowercase()
        }
    }

    fn text(frame: &str) -> Incoming {
        Incoming::Text(frame.to_owned())
    }

    /// The handshake of RFC 6455 §1.3, with `extra` headers.
    fn handshake(path: &str, host: &str, extra: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
        )
    }

    #[tokio::test]
    async fn each_request_has_its_status() {
        let host = Host::default().await;
        const V13: &str = "Sec-WebSocket-Version: 13\r\n";
        let table = [
            (handshake("/arcp", "localhost", V13), 101),
            (handshake("/", "localhost:7777", V13), 101),
            (handshake("/some/prefix/arcp?dialect=go", "127.0.0.1:1", V13), 101),
            (handshake("/arcp", "[::1]:7777", V13), 101),
            (handshake("/arcp", "LOCALHOST", &format!("{V13}Origin: http://localhost:3000\r\n")), 101),
            (handshake("/other", "localhost", V13), 404),
            (handshake("/arcp/", "localhost", V13), 404),
            (handshake("/arcp", "evil.example", V13), 403),
            (handshake("/arcp", "localhost.evil.example", V13), 403),
            (handshake("/arcp", "evil@localhost", V13), 403),
            (handshake("/arcp", "", V13), 403),
            (handshake("/arcp", "localhost", &format!("{V13}Origin: https://evil.example\r\n")), 403),
            (handshake("/arcp", "localhost", &format!("{V13}Origin: null\r\n")), 403),
            (handshake("/arcp", "localhost", "Sec-WebSocket-Version: 8\r\n"), 426),
            (handshake("/arcp", "localhost", ""), 426),
            (handshake("/arcp", "localhost", V13).replace("dGhl", "dGh"), 400),
            (handshake("/arcp", "localhost", V13).replace("GET", "POST"), 426),
            (handshake("/healthz", "anything.example", ""), 200),
            ("GET /arcp HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 426),
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".into(), 200),
            ("DELETE /healthz HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
            ("nonsense\r\n\r\n".into(), 400),
        ];
        for (request, expected) in table {
            let answer = host.ask(&request).await;
            assert!(answer.starts_with(&format!("http/1.1 {expected}")), "{request}\n{answer}");
        }
    }

    #[tokio::test]
    async fn the_answer_to_a_handshake_is_that_of_the_rfc() {
        let host = Host::default().await;
        let answer = host.ask(&handshake("/arcp", "localhost", "Sec-WebSocket-Version: 13\r\n")).await;
        assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
        assert!(answer.contains("connection: upgrade\r\n") && answer.contains("upgrade: websocket\r\n"), "{answer}");
        assert!(!answer.contains("sec-websocket-protocol"), "{answer}");
        let offer = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: graphql, arcp.v1\r\n";
        let answer = host.ask(&handshake("/arcp", "localhost", offer)).await;
        assert!(answer.contains("sec-websocket-protocol: arcp.v1\r\n"), "{answer}");
        let offer = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: graphql\r\n";
        let answer = host.ask(&handshake("/arcp", "localhost", offer)).await;
        assert!(answer.starts_with("http/1.1 101") && !answer.contains("sec-websocket-protocol"), "{answer}");
        let answer = host.ask(&handshake("/arcp", "localhost", "Sec-WebSocket-Version: 8\r\n")).await;
        assert!(answer.contains("sec-websocket-version: 13\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_peer_brings_what_its_request_said() {
        let mut host = Host::default().await;
        let extra = "Sec-WebSocket-Version: 13\r\nauthorization: bearer  t0ken\r\nUser-Agent: ws/8\r\n";
        host.ask(&handshake("/arcp?dialect=go", "localhost", extra)).await;
        let mut transport = host.transports.recv().await.unwrap();
        assert!(transport.peer().remote.unwrap().ip().is_loopback());
        assert_eq!(transport.peer().query.as_deref(), Some("dialect=go"));
        assert_eq!(transport.peer().user_agent.as_deref(), Some("ws/8"));
        assert_eq!(transport.take_bearer().unwrap().expose(), "t0ken");
        assert!(transport.peer().bearer.is_none());
    }

    #[test]
    fn a_name_is_allowed_with_any_port_unless_it_names_one() {
        let allowed = ["host.example", "other.example:7777", "::1"].map(str::to_owned);
        let hosts = Hosts::new(Some(&allowed), true);
        for (authority, expected) in [
            ("host.example", true),
            ("HOST.example:1", true),
            ("other.example:7777", true),
            ("other.example", false),
            ("other.example:7778", false),
            ("[::1]:7777", true),
            ("localhost", false), // a list of one's own replaces the default
            ("xhost.example", false),
            ("a@host.example", false),
            ("", false),
        ] {
            assert_eq!(hosts.allow(Some(authority)), expected, "{authority}");
        }
        assert!(!hosts.allow(None));
        assert!(Hosts::new(None, false).allow(Some("any.example")));
    }

    #[tokio::test]
    async fn a_plain_request_is_told_what_this_is_and_what_to_do() {
        let host = Host::default().await;
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream.write_all(b"GET /arcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, sentence) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        assert!(head.starts_with("http/1.1 426 upgrade required\r\n"), "{head}");
        for header in ["upgrade: websocket", "connection: upgrade, close", "content-type: text/plain; charset=utf-8"] {
            assert!(head.lines().any(|line| line == header), "{header}: {head}");
        }
        assert!(sentence.contains("ARCP host") && sentence.contains("ws://<host>/arcp"), "{sentence}");
    }

    /// ARCP §14.
    #[tokio::test]
    async fn those_who_have_not_been_admitted_leave_room_for_others() {
        let config = WebSocketConfig { handshakes_max: 1, ..WebSocketConfig::default() };
        let mut host = Host::start(config).await;
        let request = handshake("/arcp", "localhost", "Sec-WebSocket-Version: 13\r\n");
        let mut open = Vec::new();
        for _ in 0..3 {
            let (client, mut transport) = host.pair().await;
            assert!(host.ask(&request).await.starts_with("http/1.1 503"));
            transport.admit();
            open.push((client, transport));
        }
    }

    /// A ping is answered when it is taken, so whoever takes few a second answers few.
    #[tokio::test]
    async fn pings_are_taken_and_answered_one_by_one() {
        let mut host = Host::default().await;
        let (mut client, mut transport) = host.pair().await;
        for n in 0..3 {
            client.send(Message::Ping(vec![n].into())).await.unwrap();
        }
        for n in 0..3 {
            assert_eq!(transport.recv().await, Incoming::Alive);
            assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong(vec![n].into()));
            assert!(client.next().now_or_never().is_none());
        }
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so_and_health_is_still_answered() {
        let mut host = Host::start(WebSocketConfig { connections_max: 1, ..WebSocketConfig::default() }).await;
        // A connection that has not asked for anything counts.
        let idle = TcpStream::connect(host.address).await.unwrap();
        let request = handshake("/arcp", "localhost", "Sec-WebSocket-Version: 13\r\n");
        assert!(host.ask(&request).await.starts_with("http/1.1 503"));
        assert!(host.ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("http/1.1 200"));
        drop(idle);
        while !host.ask(&request).await.starts_with("http/1.1 101") {}
        host.transports.recv().await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_does_not_finish_its_handshake_is_dropped() {
        let config = WebSocketConfig { handshake_timeout: Duration::from_millis(20), ..WebSocketConfig::default() };
        let host = Host::start(config).await;
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream.write_all(b"GET /arcp HTTP/1.1\r\nHost: loc").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/1.1 101"));
    }

    #[tokio::test]
    async fn serving_ends_when_the_last_handler_has() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let handler = async |mut transport: Transport| {
            assert_eq!(transport.recv().await, text("last words"));
        };
        let handler = move |transport| handler(transport);
        let serving = tokio::spawn(serve(listener, WebSocketConfig::default(), handler, shutdown.clone()));
        let mut client = connect(&format!("ws://{address}/arcp"), &WebSocketConfig::default()).await.unwrap();
        shutdown.cancel();
        while TcpStream::connect(address).await.is_ok() {}
        assert!(!serving.is_finished());
        client.send("last words".into()).await.unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_message_is_a_frame_whether_text_binary_or_in_fragments() {
        let mut host = Host::default().await;
        let (mut client, mut transport) = host.pair().await;
        let part = |bytes: &'static str, code, last| {
            Message::Frame(Frame::message(bytes.as_bytes(), OpCode::Data(code), last))
        };
        for message in [
            Message::text("whole"),
            Message::binary(&b"{\"a\":1}"[..]),
            Message::binary(&b"\xff\xfe"[..]),
            part("in ", Data::Text, false),
            Message::Ping(Bytes::from_static(b"between")),
            part("three ", Data::Continue, false),
            part("parts", Data::Continue, true),
        ] {
            client.send(message).await.unwrap();
        }
        let mut heard = Vec::new();
        while heard.len() < 4 {
            match transport.recv().await {
                Incoming::Alive => {} // whether a ping is seen alone depends on the packets
                incoming => heard.push(incoming),
            }
        }
        assert_eq!(heard, [text("whole"), text("{\"a\":1}"), Incoming::NotText, text("in three parts")]);
    }

    #[tokio::test]
    async fn a_ping_is_answered_without_being_asked_for() {
        let mut host = Host::default().await;
        let (mut client, mut transport) = host.pair().await;
        client.send(Message::Ping(Bytes::from_static(b"hello?"))).await.unwrap();
        assert_eq!(transport.recv().await, Incoming::Alive);
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"hello?")));
        transport.ping().await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Ping(Bytes::new()));
        client.flush().await.unwrap();
        assert_eq!(transport.recv().await, Incoming::Alive);
    }

    #[tokio::test]
    async fn a_frame_at_the_limit_is_taken_and_one_over_it_closes_with_1009() {
        let config = WebSocketConfig { frame_bytes_max: 100_000, ..admitting() };
        let mut host = Host::start(config).await;
        let (mut client, mut transport) = host.pair().await;
        client.send(Message::text("x".repeat(100_000))).await.unwrap();
        assert_eq!(transport.recv().await, text(&"x".repeat(100_000)));
        let closing = async {
            assert_eq!(transport.recv().await, Incoming::TooLarge);
            assert_eq!(transport.recv().await, Incoming::Closed(None));
            transport.close(CloseReason::new(CloseReason::TOO_LARGE, "frames are at most 100000 bytes")).await;
        };
        let sending = async move {
            // Far more than the sockets buffer, so that most of it is never read.
            client.send(Message::text("x".repeat(8_000_000))).await.unwrap();
            client.next().await.unwrap().unwrap()
        };
        let ((), Message::Close(Some(frame))) = tokio::join!(closing, sending) else { panic!("no close frame") };
        assert_eq!(u16::from(frame.code), CloseReason::TOO_LARGE);
        // The listener lives.
        let (mut client, mut transport) = host.pair().await;
        client.send(Message::text("next")).await.unwrap();
        assert_eq!(transport.recv().await, text("next"));
    }

    #[tokio::test]
    async fn fragments_together_over_the_limit_are_too_large() {
        let config = WebSocketConfig { frame_bytes_max: 100, ..WebSocketConfig::default() };
        let mut host = Host::start(config).await;
        let (mut client, mut transport) = host.pair().await;
        for code in [Data::Text, Data::Continue] {
            let part = Frame::message(vec![b'x'; 60], OpCode::Data(code), false);
            client.send(Message::Frame(part)).await.unwrap();
        }
        assert_eq!(transport.recv().await, Incoming::TooLarge);
    }

    #[tokio::test]
    async fn a_close_carries_its_reason_both_ways() {
        let mut host = Host::default().await;
        let url = format!("ws://{}/arcp", host.address);
        let long = "é".repeat(200);
        for (sent, heard) in [("who are you?", "who are you?"), (&*long, &*"é".repeat(61)), ("", "")] {
            let heard = CloseReason::new(CloseReason::POLICY, heard.to_owned());
            let sent = CloseReason::new(CloseReason::POLICY, sent.to_owned());
            let mut client = connect(&url, &WebSocketConfig::default()).await.unwrap();
            let mut transport = host.transports.recv().await.unwrap();
            let ((), incoming) = tokio::join!(transport.close(sent.clone()), async {
                let incoming = client.recv().await;
                assert_eq!(client.recv().await, Incoming::Closed(None));
                incoming
            });
            assert_eq!(incoming, Incoming::Closed(Some(heard.clone())));

            let client = connect(&url, &WebSocketConfig::default()).await.unwrap();
            transport = host.transports.recv().await.unwrap();
            let ((), incoming) = tokio::join!(client.close(sent), async {
                let incoming = transport.recv().await;
                assert!(matches!(transport.send("late".into()).await, Err(TransportError::Closed)));
                drop(transport);
                incoming
            });
            assert_eq!(incoming, Incoming::Closed(Some(heard)));
        }
    }

    #[tokio::test]
    async fn a_receive_that_is_dropped_loses_nothing() {
        let mut host = Host::default().await;
        let (mut client, mut transport) = host.pair().await;
        let writing = async {
            for n in 0..300 {
                // Some are larger than one read.
                client.send(Message::text(format!("{n} {}", "x".repeat(n * 37 % 9000)))).await.unwrap();
            }
        };
        let reading = async {
            let mut next = 0;
            while next < 300 {
                tokio::select! {
                    biased;
                    incoming = transport.recv() => {
                        assert_eq!(incoming, text(&format!("{next} {}", "x".repeat(next * 37 % 9000))));
                        next += 1;
                    }
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        tokio::join!(writing, reading);
    }

    #[tokio::test]
    async fn fed_frames_arrive_in_order_with_one_flush() {
        let mut host = Host::default().await;
        let (mut client, mut transport) = host.pair().await;
        for n in 0..100 {
            transport.feed(n.to_string()).await.unwrap();
        }
        transport.flush().await.unwrap();
        for n in 0..100 {
            assert_eq!(client.next().await.unwrap().unwrap(), Message::text(n.to_string()));
        }
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_stalls_a_write_for_so_long() {
        let config = WebSocketConfig { write_timeout: Duration::from_millis(20), ..WebSocketConfig::default() };
        let mut host = Host::start(config).await;
        let (_client, mut transport) = host.pair().await;
        let error = loop {
            if let Err(error) = transport.send("x".repeat(1_000_000)).await {
                break error;
            }
        };
        assert!(matches!(error, TransportError::Stalled), "{error}");
    }

    /// A listener that takes every peer for one it knows.
    fn admitting() -> WebSocketConfig {
        WebSocketConfig { stranger_frame_bytes_max: usize::MAX, ..WebSocketConfig::default() }
    }

    #[tokio::test]
    async fn a_stranger_sends_small_frames_until_it_is_admitted() {
        let mut host = Host::start(WebSocketConfig::default()).await;
        let large = "x".repeat(100_000);
        let (mut client, mut transport) = host.pair().await;
        client.send(Message::text(large.clone())).await.unwrap();
        assert_eq!(transport.recv().await, Incoming::TooLarge);
        let (mut client, mut transport) = host.pair().await;
        transport.admit();
        // Nothing is half read, so the limits change before the next frame comes.
        assert!(futures_util::FutureExt::now_or_never(transport.recv()).is_none());
        client.send(Message::text(large.clone())).await.unwrap();
        assert_eq!(transport.recv().await, text(&large));
    }

    #[tokio::test]
    async fn the_buffers_of_a_large_frame_are_given_back_when_idle() {
        let mut host = Host::default().await;
        let (mut client, mut transport) = host.pair().await;
        for round in 1..=3 {
            let large = "x".repeat(1_000_000 + round);
            let part = |bytes: String, code, last| Message::Frame(Frame::message(bytes, OpCode::Data(code), last));
            client.send(part(large.clone(), Data::Text, false)).await.unwrap();
            client.send(Message::Ping(Bytes::new())).await.unwrap();
            // Between the fragments of a message nothing can be given back.
            assert_eq!(transport.recv().await, Incoming::Alive);
            assert_eq!(trims(&transport), round - 1);
            client.send(part(" end".into(), Data::Continue, true)).await.unwrap();
            assert_eq!(transport.recv().await, text(&format!("{large} end")));
            assert!(transport.recv().now_or_never().is_none());
            assert_eq!(trims(&transport), round);
            client.send(Message::text("small")).await.unwrap();
            assert_eq!(transport.recv().await, text("small"));
        }
        let (sent, _) = tokio::join!(transport.send("y".repeat(1_000_000)), async {
            while !matches!(client.next().await, Some(Ok(Message::Text(_)))) {}
        });
        sent.unwrap();
        assert!(transport.recv().now_or_never().is_none());
        assert_eq!(trims(&transport), 4);
    }

    fn trims(transport: &Transport) -> usize {
        match &transport.wire {
            Wire::WebSocket(socket) => socket.trims,
            _ => unreachable!("made by a WebSocket listener"),
        }
    }

    #[test]
    fn the_length_in_a_header_is_read_as_the_rfc_writes_it() {
        for (header, expected) in [
            (&[0x81][..], None),
            (&[0x81, 0x05], Some(5)),
            (&[0x81, 0x85, 1, 2, 3], None), // the mask is not whole
            (&[0x81, 0x85, 1, 2, 3, 4], Some(5)),
            (&[0x82, 0x7e, 0x01], None),
            (&[0x82, 0x7e, 0x01, 0x00], Some(256)),
            (&[0x82, 0xfe, 0x01, 0x00, 1, 2, 3, 4], Some(256)),
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0], Some(65536)),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], Some(65536)),
        ] {
            assert_eq!(payload_bytes(header), expected, "{header:x?}");
        }
    }

    #[tokio::test]
    async fn a_client_learns_why_it_cannot_connect() {
        let host = Host::default().await;
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let table = [
            (format!("ws://{}/other", host.address), "the server answered HTTP 404 Not Found"),
            (format!("ws://{free}/arcp"), "Connection refused"),
            (format!("wss://{}/arcp", host.address), "the URL must look like"),
            ("not a url".into(), "the URL must look like"),
        ];
        for (url, expected) in table {
            let error = connect(&url, &WebSocketConfig::default()).await.unwrap_err();
            assert!(error.to_string().starts_with(expected), "{url}: {error}");
        }
        host.shutdown.cancel();
    }
}
