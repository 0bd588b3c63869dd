//! The runtime under test, and how a case gets a connection to it.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use leasehold_core::secret::Secret;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        http::Uri,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    skip,
    wire::{Channel, ChildWire, Wire, brief, is_refusal, refusal},
};
use crate::{client::FEATURES, transport::Transport};

/// Largest frame taken from a runtime. Nothing in the draft bounds one, and the tool's memory must be.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest head of an answer to an upgrade.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Where the runtime is.
#[derive(Clone, Debug)]
pub enum Address {
    /// `ws://…`, over WebSocket.
    Url(Uri),
    /// A command for the shell; each connection is a child process, spoken to over its pipes.
    Command(String),
}

/// The URL is none this tool can connect to.
#[derive(Debug, thiserror::Error)]
#[error("the URL must look like ws://host:port/arcp; TLS is not spoken")]
pub struct AddressError;

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// If it is none of the scheme `ws` with a host.
    pub fn url(text: &str) -> Result<Self, AddressError> {
        let uri: Uri = text.parse().map_err(|_| AddressError)?;
        match (uri.scheme_str(), uri.host()) {
            (Some("ws"), Some(_)) => Ok(Self::Url(uri)),
            _ => Err(AddressError),
        }
    }
}

/// A runtime, and who speaks to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it is.
    pub address: Address,
    /// The token of the principal that most cases are.
    pub token: Option<Secret>,
    /// The token of somebody else.
    pub other_token: Option<Secret>,
    /// How long the runtime may take to answer.
    pub patience: Duration,
}

/// The answer to an upgrade.
pub enum Upgrade {
    /// It was made, under a subprotocol if the runtime chose one.
    Open(Box<Wire>, Option<String>),
    /// It was refused, with this status.
    Refused(u16),
}

/// What brings a client back to its session.
#[derive(Clone)]
pub struct Ticket {
    pub session_id: String,
    pub resume_token: String,
    pub features: Vec<String>,
}

/// Where a client says that it comes back; the draft names a message and no place for it.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// `resume` in the payload of `session.hello`.
    Hello,
    /// `session.resume` as the first frame.
    First,
    /// `session.resume` after a hello and its welcome.
    After,
}

impl Target {
    /// How long a whole case may take.
    pub(super) fn case_timeout(&self) -> Duration {
        self.patience * 10
    }

    /// Skips a case that is about WebSocket.
    pub fn websocket(&self) -> Result<&Uri> {
        match &self.address {
            Address::Url(uri) => Ok(uri),
            Address::Command(_) => skip("it is about WebSocket"),
        }
    }

    /// Skips a case that is about stdio.
    pub fn stdio(&self) -> Result<()> {
        match &self.address {
            Address::Url(_) => skip("it is about stdio"),
            Address::Command(_) => Ok(()),
        }
    }

    /// Skips a case in which several connections reach the same runtime.
    pub fn shared(&self) -> Result<()> {
        match &self.address {
            Address::Url(_) => Ok(()),
            Address::Command(_) => skip("needs two connections to one runtime; over stdio there is one"),
        }
    }

    /// Skips a case that needs a runtime with tokens.
    pub fn token(&self) -> Result<&str> {
        match &self.token {
            Some(token) => Ok(token.expose()),
            None => skip("needs a runtime with tokens, and --token"),
        }
    }

    /// Skips a case that needs somebody else.
    pub fn other_token(&self) -> Result<&str> {
        match &self.other_token {
            Some(token) => Ok(token.expose()),
            None => skip("needs a second principal: --other-token"),
        }
    }

    /// Makes sure that there is something to speak to.
    ///
    /// # Errors
    ///
    /// If nobody listens, or the child process ends before it says anything.
    pub async fn reach(&self) -> Result<()> {
        let mut wire = self.connect().await?;
        if let Address::Command(_) = self.address {
            wire.send("session.hello", self.hello()).await?;
            // What it says is for the cases to judge.
            if let Ok(Err(end)) = wire.hear("an answer").await {
                bail!("{end}");
            }
        }
        Ok(())
    }

    /// A connection on which nothing has been said.
    pub(super) async fn connect(&self) -> Result<Wire> {
        match &self.address {
            Address::Command(command) => self.spawn(command),
            Address::Url(uri) => match self.upgrade(uri.path(), &[]).await? {
                Upgrade::Open(wire, _) => Ok(*wire),
                Upgrade::Refused(status) => bail!("the runtime answers the upgrade with HTTP {status}"),
            },
        }
    }

    /// Asks for an upgrade at a path, with more headers or other ones.
    pub async fn upgrade(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<Upgrade> {
        let uri = self.websocket()?;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let authority = uri.authority().context("the URL has a host")?;
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let key = generate_key();
        // Written by hand: a library would insist on a subprotocol that was offered, and the runtime need not take it.
        let mut request = format!(
            "GET {path}{query} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\n"
        );
        if headers.iter().all(|(name, _)| *name != "host") {
            request.push_str(&format!("host: {authority}\r\n"));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let exchange = async {
            let mut stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
            stream.set_nodelay(true)?;
            stream.write_all(request.as_bytes()).await?;
            let mut head = Vec::new();
            // Byte by byte, so that nothing of the first frame is taken.
            while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
                head.push(stream.read_u8().await?);
            }
            io::Result::Ok((stream, head))
        };
        let (stream, head) = match timeout(self.patience, exchange).await {
            Ok(exchange) => exchange.context("cannot connect to the runtime")?,
            Err(_) => bail!("the runtime did not answer the upgrade within {} s", self.patience.as_secs()),
        };
        let head = String::from_utf8_lossy(&head);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.context("the answer to the upgrade is not HTTP")?;
        if status != 101 {
            return Ok(Upgrade::Refused(status));
        }
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let accept = field("sec-websocket-accept");
        ensure!(accept == Some(derive_accept_key(key.as_bytes())), "the upgrade is answered with a wrong key");
        let config =
            WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        let wire = Wire::new(Channel::Socket(Box::new(socket)), self.patience);
        Ok(Upgrade::Open(Box::new(wire), field("sec-websocket-protocol")))
    }

    fn spawn(&self, command: &str) -> Result<Wire> {
        let stderr = tempfile::tempfile()?;
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a shell for the runtime")?;
        let stdin = child.stdin.take().context("the runtime's stdin is piped")?;
        let stdout = child.stdout.take().context("the runtime's stdout is piped")?;
        // Frames are written by hand: some of them are no frames.
        let stdout = Transport::lines(stdout, tokio::io::sink(), FRAME_BYTES_MAX);
        Ok(Wire::new(Channel::Child(Box::new(ChildWire { child, stdin: Some(stdin), stdout, stderr })), self.patience))
    }

    /// The payload of a hello that offers everything.
    pub fn hello(&self) -> Value {
        self.hello_of(self.token.as_ref().map(Secret::expose), &FEATURES)
    }

    /// The payload of a hello that offers these features.
    pub fn hello_with(&self, features: &[&str]) -> Value {
        self.hello_of(self.token.as_ref().map(Secret::expose), features)
    }

    /// The payload of somebody's hello.
    pub fn hello_of(&self, token: Option<&str>, features: &[&str]) -> Value {
        json!({
            "client": { "name": "leasehold-conformance", "version": env!("CARGO_PKG_VERSION") },
            "auth": token.map_or(json!({ "scheme": "none" }), |token| json!({ "scheme": "bearer", "token": token })),
            "capabilities": { "encodings": ["json"], "features": features },
        })
    }

    /// A new session that offers everything.
    pub async fn open(&self) -> Result<Wire> {
        self.open_with(self.hello()).await
    }

    /// A new session of a hello.
    pub async fn open_with(&self, hello: Value) -> Result<Wire> {
        let mut wire = self.connect().await?;
        wire.hello(hello).await?;
        Ok(wire)
    }

    /// A new session of somebody else.
    pub async fn open_other(&self) -> Result<Wire> {
        self.open_with(self.hello_of(Some(self.other_token()?), &FEATURES)).await
    }

    /// Comes back to a session in the form the runtime understands.
    pub async fn resume(&self, ticket: &Ticket, last_event_seq: u64) -> Result<Wire> {
        let mut refusals = Vec::new();
        for form in [Form::Hello, Form::First, Form::After] {
            match self.try_resume(form, self.hello(), ticket, last_event_seq).await? {
                Ok(wire) => return Ok(wire),
                Err(refusal) => refusals.push(format!("{form:?}: {refusal}")),
            }
        }
        bail!("the session cannot be resumed ({})", refusals.join("; "))
    }

    /// Comes back to a session, or says how the runtime refused.
    pub async fn try_resume(
        &self,
        form: Form,
        mut hello: Value,
        ticket: &Ticket,
        last_event_seq: u64,
    ) -> Result<Result<Wire, String>> {
        let mut wire = self.connect().await?;
        wire.stands_at(last_event_seq);
        let resume = json!({
            "session_id": ticket.session_id, "resume_token": ticket.resume_token, "last_event_seq": last_event_seq,
        });
        match form {
            Form::Hello => {
                hello["resume"] = resume;
                wire.send("session.hello", hello).await?;
            }
            Form::First => {
                wire.send("session.resume", resume).await?;
            }
            Form::After => {
                wire.hello(hello).await?;
                wire.leave_session();
                wire.stands_at(last_event_seq);
                wire.send("session.resume", resume).await?;
            }
        }
        match wire.hear("the answer to a resume").await? {
            Err(end) => Ok(Err(end)),
            Ok(frame) if is_refusal(&frame) => Ok(Err(refusal(&frame).to_owned())),
            Ok(frame) => {
                ensure!(frame["type"] == "session.welcome", "a resume is answered with {}", brief(&frame));
                if frame["session_id"] != ticket.session_id {
                    return Ok(Err("the runtime opened another session".to_owned()));
                }
                wire.welcomed(&frame, &ticket.features)?;
                Ok(Ok(wire))
            }
        }
    }

    /// Asserts that a session cannot be had this way.
    pub async fn is_refused_resume(&self, hello: Value, ticket: &Ticket, last_event_seq: u64) -> Result<()> {
        for form in [Form::Hello, Form::First, Form::After] {
            if self.try_resume(form, hello.clone(), ticket, last_event_seq).await?.is_ok() {
                bail!("the session was resumed");
            }
        }
        Ok(())
    }
}

/// The last line of a child's standard error, which often says why it ended.
pub(super) fn last_line(mut stderr: &std::fs::File) -> Option<String> {
    let length = stderr.metadata().ok()?.len();
    stderr.seek(SeekFrom::Start(length.saturating_sub(2048))).ok()?;
    let mut text = Vec::new();
    stderr.take(2048).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}
