//! An ordinary ARCP client, as the command line and the tests use it (ARCP §6-§8).
//!
//! It reads and writes JSON values and none of the host's own types, so that
//! what it proves is the wire. One request is under way at a time; everything
//! else that arrives meanwhile is kept, in order, and given out by
//! [`Client::recv`]. A `session.ping` is answered whenever the client waits for
//! something, and only then.

use std::{
    collections::VecDeque,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use leasehold_core::{id::Ulid, secret::Secret, time::Timestamp};
use serde_json::{Map, Value, json};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout},
};

use crate::transport::{
    CloseReason, Incoming, Transport, TransportError,
    websocket::{self, WebSocketConfig},
};

/// The feature of keys that are made for a job (ARCP §9.8).
pub const CREDENTIALS: &str = "provisioned_credentials";

/// All features there are (ARCP §6.2), in the order of the specification.
pub const FEATURES: [&str; 11] = [
    "heartbeat",
    "ack",
    "list_jobs",
    "subscribe",
    "lease_expires_at",
    "cost.budget",
    "model.use",
    "provisioned_credentials",
    "progress",
    "result_chunk",
    "agent_versions",
];

/// Largest frame a client takes; a host keeps its own under 1 MiB.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a host may take to answer a request.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a host's process may take to end once its input has.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client waits before it tries again to reach a host, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The resume window of a host that does not name its own (ARCP §6.2).
const RESUME_WINDOW: Duration = Duration::from_secs(600);

/// Who the client is, what it can do, and whether it comes back to a session.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// The program's name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Features to offer; the session has those the host has too.
    pub features: Vec<String>,
    /// The session to resume, if not a new one (ARCP §6.3).
    pub resume: Option<Resume>,
}

impl Default for ClientInfo {
    fn default() -> Self {
        Self {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // A key takes a part of its job's money, so it is made for clients that ask for one.
            features: FEATURES.into_iter().filter(|name| *name != CREDENTIALS).map(str::to_owned).collect(),
            resume: None,
        }
    }
}

/// What brings a client back to its session: see [`Client::resume`].
#[derive(Clone, PartialEq, Eq)]
pub struct Resume {
    /// The session.
    pub session_id: String,
    /// The token of its last welcome.
    pub resume_token: String,
    /// The last event that was received.
    pub last_event_seq: u64,
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { session_id, resume_token: _, last_event_seq } = self;
        write!(f, "Resume({session_id} after {last_event_seq})")
    }
}

/// What a client asks an agent to do (ARCP §7.1). What is `None` is not sent.
#[derive(Clone, Debug, Default)]
pub struct Submit {
    /// The agent, `name` or `name@version`.
    pub agent: String,
    /// Its input.
    pub input: Value,
    /// The authority asked for, `{namespace: [pattern, …]}`.
    pub lease_request: Option<Value>,
    /// The limits asked for, `{"expires_at": …}`.
    pub lease_constraints: Option<Value>,
    /// Makes a repetition of the request the same job (ARCP §7.2).
    pub idempotency_key: Option<String>,
    /// Seconds after which the job is ended.
    pub max_runtime_sec: Option<u64>,
    /// The trace the job belongs to, 32 hexadecimal digits (ARCP §11).
    pub trace_id: Option<String>,
}

impl Submit {
    /// Asks `agent` to work on `input`.
    pub fn new(agent: impl Into<String>, input: Value) -> Self {
        Self { agent: agent.into(), input, ..Self::default() }
    }
}

/// The host's yes to a submission (ARCP §7.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The job.
    pub job_id: String,
    /// Everything the host said of it: `agent`, `lease`, `budget`, …
    pub payload: Value,
}

/// One message of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The envelope's `type`, such as `job.event`.
    pub kind: String,
    /// The envelope's `id`.
    pub id: String,
    /// The job it is about.
    pub job_id: Option<String>,
    /// Its place in the session's ordered stream (ARCP §8.3).
    pub event_seq: Option<u64>,
    /// The payload.
    pub payload: Value,
    /// The whole envelope, for what has no field of its own here.
    pub envelope: Map<String, Value>,
}

impl Frame {
    fn parse(text: &str) -> Result<Self, ClientError> {
        let mut envelope: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| ClientError::Protocol(format!("a frame is not a JSON object: {error}")))?;
        let text = |key| envelope.get(key).and_then(Value::as_str).map(str::to_owned);
        let (Some(kind), Some(id)) = (text("type"), text("id")) else {
            return Err(ClientError::Protocol("a frame has no `type` or no `id`".to_owned()));
        };
        let job_id = text("job_id");
        let event_seq = envelope.get("event_seq").filter(|seq| !seq.is_null());
        let event_seq = match event_seq.map(|seq| seq.as_u64().ok_or(seq)).transpose() {
            Ok(event_seq) => event_seq,
            Err(seq) => return Err(ClientError::Protocol(format!("`event_seq` is {seq}"))),
        };
        let payload = envelope.remove("payload").unwrap_or_else(|| json!({}));
        Ok(Self { kind, id, job_id, event_seq, payload, envelope })
    }

    /// The kind of a `job.event`, such as `progress`, and its body (ARCP §8.2).
    #[must_use]
    pub fn event(&self) -> Option<(&str, &Value)> {
        let kind = self.payload.get("kind").and_then(Value::as_str)?;
        (self.kind == "job.event").then_some((kind, self.payload.get("body")?))
    }

    /// Whether the job of this frame ends with it.
    ///
    /// A `job.error` outside the ordered stream refuses a request and ends nothing.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.event_seq.is_some() && matches!(self.kind.as_str(), "job.result" | "job.error")
    }

    /// The refusal or the failure that this frame reports.
    #[must_use]
    pub fn error(&self) -> Option<ClientError> {
        if !matches!(self.kind.as_str(), "session.error" | "job.error") {
            return None;
        }
        let text = |key| self.payload.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (code, message) = (text("code"), text("message"));
        let retryable = self.payload.get("retryable").and_then(Value::as_bool).unwrap_or(false);
        Some(match code.as_str() {
            "UNAUTHENTICATED" => ClientError::Unauthenticated { message },
            _ => ClientError::Refused { code, message, retryable },
        })
    }

    /// How this frame stands to the request `id`, to which `reply` would be the answer.
    ///
    /// Hosts correlate in different ways, and some not at all. A frame of the
    /// ordered stream is never an answer, even if it names a request: the end
    /// of a job may name the submission it began with.
    fn answers(&self, id: &str, reply: &str) -> bool {
        let is_error = matches!(self.kind.as_str(), "session.error" | "job.error");
        if self.event_seq.is_some() || !(is_error || self.kind == reply) {
            return false;
        }
        let named = [self.payload.get("request_id"), self.payload.get("reply_to"), self.envelope.get("correlation_id")];
        let mut named = named.into_iter().flatten().filter_map(Value::as_str).peekable();
        let speaks_of_another = named.peek().is_some();
        // Only one request is under way, so what names none is taken for its
        // answer; except a `job.error`, which may be a late word on a cancel.
        self.id == id || named.any(|named| named == id) || (!speaks_of_another && self.kind != "job.error")
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no host, or none that speaks WebSocket; the command line exits with 3.
    #[error("cannot connect to {target}: {reason}")]
    Connect {
        /// The URL or the program.
        target: String,
        /// What went wrong.
        reason: String,
    },
    /// The token is missing or wrong (ARCP §6.1).
    #[error("the host does not accept the token: {message}")]
    Unauthenticated {
        /// What the host says.
        message: String,
    },
    /// The host refuses, with a code of ARCP §12.
    #[error("{code}: {message}")]
    Refused {
        /// The code.
        code: String,
        /// What the host says.
        message: String,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
    /// An event is missing; the session is broken and can be resumed (ARCP §8.3).
    #[error("event {expected} is missing, {got} came instead")]
    Gap {
        /// The number that had to come.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// The host said something that is not ARCP.
    #[error("the host broke the protocol: {0}")]
    Protocol(String),
    /// The host does not answer.
    #[error("the host did not answer `{0}` in time")]
    Silent(&'static str),
    /// The connection is over.
    #[error("the connection is closed{}", .0.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    Closed(Option<CloseReason>),
}

/// A session with a host.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    /// The host, if it is a process of this client's.
    child: Option<Child>,
    session_id: String,
    welcome: Value,
    /// The number of the last event that has arrived, given out or not.
    last_event_seq: u64,
    /// Arrived while something else was waited for.
    queue: VecDeque<Frame>,
    /// How to reach the host again, if there is a way.
    home: Option<Home>,
}

/// Where a client's host is.
#[derive(Debug)]
struct Home {
    url: String,
    token: Option<Secret>,
    info: ClientInfo,
}

impl Client {
    /// Connects to a host over WebSocket and opens a session.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`] if there is no host at `url`; else as [`Client::open`].
    pub async fn connect_ws(url: &str, token: Option<&str>, info: ClientInfo) -> Result<Self, ClientError> {
        let config = WebSocketConfig { frame_bytes_max: FRAME_BYTES_MAX, ..WebSocketConfig::default() };
        let transport = websocket::connect(url, &config)
            .await
            .map_err(|error| ClientError::Connect { target: url.to_owned(), reason: error.to_string() })?;
        let home = Home { url: url.to_owned(), token: token.map(Secret::new), info: info.clone() };
        let mut client = Self::open(transport, token, info).await?;
        client.home = Some(home);
        Ok(client)
    }

    /// Whether the session outlives its connection: see [`come_back`](Self::come_back).
    #[must_use]
    pub fn can_come_back(&self) -> bool {
        self.home.is_some() && self.resume().is_some()
    }

    /// Comes back to the session over a new connection, and goes on where it stands (ARCP §6.3).
    ///
    /// Tries again and again, less and less often, as long as the host keeps the session. Dropped, it can be called
    /// again.
    ///
    /// # Errors
    ///
    /// Why the session cannot be had any more, or why the host could not be reached for so long.
    pub async fn come_back(&mut self) -> Result<(), ClientError> {
        let window = self.welcome.get("resume_window_sec").and_then(Value::as_u64);
        let until = Instant::now() + window.map_or(RESUME_WINDOW, Duration::from_secs);
        let mut pause = RETRY_MIN;
        loop {
            let (Some(home), Some(resume)) = (&self.home, self.resume()) else { return Err(ClientError::Closed(None)) };
            let info = ClientInfo { resume: Some(resume), ..home.info.clone() };
            let token = home.token.as_ref().map(Secret::expose);
            let error = match timeout(REPLY_TIMEOUT, Box::pin(Self::connect_ws(&home.url, token, info))).await {
                Ok(Ok(client)) => {
                    // What has arrived and was not given out is the same session's.
                    let Self { transport, welcome, queue, .. } = client;
                    (self.transport, self.welcome) = (transport, welcome);
                    self.queue.extend(queue);
                    self.last_event_seq = self.last_event_seq.max(client.last_event_seq);
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(_) => ClientError::Silent("session.hello"),
            };
            let passes = match &error {
                ClientError::Connect { .. } | ClientError::Closed(_) | ClientError::Silent(_) => true,
                ClientError::Refused { retryable, .. } => *retryable,
                _ => false,
            };
            if !passes || Instant::now() + pause > until {
                return Err(error);
            }
            // Many clients lose their host at the same moment, and must not all return at one.
            tokio::time::sleep(pause.mul_f64(0.5 + jitter() / 2.0)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Starts a host as a child process, speaks to it over its stdin and stdout, and opens a session.
    ///
    /// The child ends with the client; its stderr stays where `command` points it.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`] if the program does not start; else as [`Client::open`].
    pub async fn connect_child(
        mut command: Command,
        token: Option<&str>,
        info: ClientInfo,
    ) -> Result<Self, ClientError> {
        let target = command.as_std().get_program().to_string_lossy().into_owned();
        let failed = |reason| ClientError::Connect { target: target.clone(), reason };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("the program has no stdin or stdout".to_owned()));
        };
        let transport = Transport::lines(stdout, stdin, FRAME_BYTES_MAX);
        let mut client = Self::open(transport, token, info).await?;
        client.child = Some(child);
        Ok(client)
    }

    /// Opens a session over a transport: hello and welcome, or resumes one (ARCP §6.2, §6.3).
    ///
    /// # Errors
    ///
    /// [`ClientError::Unauthenticated`] or [`ClientError::Refused`] if the host
    /// says no, and other errors if it says nothing that can be understood.
    pub async fn open(transport: Transport, token: Option<&str>, info: ClientInfo) -> Result<Self, ClientError> {
        let ClientInfo { name, version, features, resume } = info;
        let mut hello = json!({
            "client": { "name": name, "version": version },
            "auth": token.map_or(json!({ "scheme": "none" }), |token| json!({ "scheme": "bearer", "token": token })),
            "capabilities": { "encodings": ["json"], "features": features },
        });
        let last_event_seq = resume.as_ref().map_or(0, |resume| resume.last_event_seq);
        if let Some(Resume { session_id, resume_token, last_event_seq }) = resume {
            hello["resume"] = json!({
                "session_id": session_id, "resume_token": resume_token, "last_event_seq": last_event_seq,
            });
        }
        let mut client = Self {
            transport,
            child: None,
            session_id: String::new(),
            welcome: Value::Null,
            last_event_seq,
            queue: VecDeque::new(),
            home: None,
        };
        let welcome = client.request("session.hello", Map::new(), hello, "session.welcome").await?;
        let session_id = welcome.envelope.get("session_id").or_else(|| welcome.payload.get("session_id"));
        let Some(session_id) = session_id.and_then(Value::as_str).filter(|id| !id.is_empty()) else {
            return Err(ClientError::Protocol("the welcome has no `session_id`".to_owned()));
        };
        client.session_id = session_id.to_owned();
        client.welcome = welcome.payload;
        Ok(client)
    }

    /// The session's id.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// The payload of the welcome: runtime, heartbeat, agents, features.
    #[must_use]
    pub fn welcome(&self) -> &Value {
        &self.welcome
    }

    /// Whether both sides have `feature`.
    #[must_use]
    pub fn has_feature(&self, feature: &str) -> bool {
        let features = self.welcome.pointer("/capabilities/features").and_then(Value::as_array);
        features.is_some_and(|features| features.iter().any(|own| own == feature))
    }

    /// What another client needs to go on where this one stands (ARCP §6.3).
    ///
    /// Frames that have arrived and were not received count as received, so
    /// take them with [`Client::drain`] first.
    #[must_use]
    pub fn resume(&self) -> Option<Resume> {
        let resume_token = self.welcome.get("resume_token").and_then(Value::as_str)?.to_owned();
        Some(Resume { session_id: self.session_id.clone(), resume_token, last_event_seq: self.last_event_seq })
    }

    /// Submits a job, and returns when the host has accepted it (ARCP §7.1).
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the host's reason; other errors mean that the session is over.
    pub async fn submit(&mut self, submit: Submit) -> Result<Accepted, ClientError> {
        let mut payload = json!({ "agent": submit.agent, "input": submit.input });
        let optional = [
            ("lease_request", submit.lease_request),
            ("lease_constraints", submit.lease_constraints),
            ("idempotency_key", submit.idempotency_key.map(Value::from)),
            ("max_runtime_sec", submit.max_runtime_sec.map(Value::from)),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                payload[key] = value;
            }
        }
        let trace_id = submit.trace_id.map(|trace_id| ("trace_id".to_owned(), Value::from(trace_id)));
        let accepted = self.request("job.submit", trace_id.into_iter().collect(), payload, "job.accepted").await?;
        let job_id = accepted.payload.get("job_id").and_then(Value::as_str).map(str::to_owned).or(accepted.job_id);
        let Some(job_id) = job_id else {
            return Err(ClientError::Protocol("`job.accepted` has no `job_id`".to_owned()));
        };
        Ok(Accepted { job_id, payload: accepted.payload })
    }

    /// Cancels a job, and returns when the host has taken note (ARCP §7.4).
    ///
    /// The job ends with a `job.error` of its own, when the agent has stopped.
    ///
    /// # Errors
    ///
    /// If the host refuses or does not answer.
    pub async fn cancel(&mut self, job_id: &str, reason: Option<&str>) -> Result<(), ClientError> {
        let mut payload = json!({ "job_id": job_id });
        if let Some(reason) = reason {
            payload["reason"] = reason.into();
        }
        self.request("job.cancel", of_job(job_id), payload, "job.cancelled").await.map(|_| ())
    }

    /// Lists the jobs the host lets this client see, over all pages (ARCP §6.6).
    ///
    /// # Errors
    ///
    /// If the host refuses or does not answer.
    pub async fn list_jobs(&mut self, filter: Value) -> Result<Vec<Value>, ClientError> {
        let filter = if filter.is_null() { json!({}) } else { filter };
        let mut jobs = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let payload = json!({ "filter": filter, "limit": 100, "cursor": cursor });
            let mut page = self.request("session.list_jobs", Map::new(), payload, "session.jobs").await?;
            let Some(Value::Array(more)) = page.payload.get_mut("jobs").map(Value::take) else {
                return Err(ClientError::Protocol("`session.jobs` has no `jobs`".to_owned()));
            };
            jobs.extend(more);
            match page.payload.get_mut("next_cursor").map(Value::take) {
                None | Some(Value::Null) => return Ok(jobs),
                Some(next) if next == cursor => {
                    return Err(ClientError::Protocol("`session.jobs` points to itself".to_owned()));
                }
                Some(next) => cursor = next,
            }
        }
    }

    /// Attaches to a job, and with `after` first replays its events after that number (ARCP §7.6).
    ///
    /// Returns the payload of `job.subscribed`.
    ///
    /// # Errors
    ///
    /// If the host refuses or does not answer.
    pub async fn subscribe(&mut self, job_id: &str, after: Option<u64>) -> Result<Value, ClientError> {
        let mut payload = json!({ "job_id": job_id });
        if let Some(after) = after {
            payload["from_event_seq"] = after.into();
            payload["history"] = true.into();
        }
        Ok(self.request("job.subscribe", of_job(job_id), payload, "job.subscribed").await?.payload)
    }

    /// Detaches from a job; the host answers nothing.
    ///
    /// # Errors
    ///
    /// If the request cannot be sent.
    pub async fn unsubscribe(&mut self, job_id: &str) -> Result<(), ClientError> {
        self.send("job.unsubscribe", of_job(job_id), json!({ "job_id": job_id })).await.map(|_| ())
    }

    /// Tells the host that everything up to `seq` has been dealt with (ARCP §6.5).
    ///
    /// # Errors
    ///
    /// If it cannot be sent.
    pub async fn ack(&mut self, seq: u64) -> Result<(), ClientError> {
        self.send("session.ack", Map::new(), json!({ "last_processed_seq": seq })).await.map(|_| ())
    }

    /// Sends an envelope of any type and returns its id; the answer, if any, arrives with [`Client::recv`].
    ///
    /// `envelope` holds further fields, such as `job_id`.
    ///
    /// # Errors
    ///
    /// If it cannot be sent.
    pub async fn send(
        &mut self,
        kind: &str,
        envelope: Map<String, Value>,
        payload: Value,
    ) -> Result<String, ClientError> {
        let id = new_id();
        let mut frame = envelope;
        frame.insert("arcp".to_owned(), "1.1".into());
        frame.insert("id".to_owned(), id.as_str().into());
        frame.insert("type".to_owned(), kind.into());
        frame.insert("payload".to_owned(), payload);
        if !self.session_id.is_empty() {
            frame.insert("session_id".to_owned(), self.session_id.as_str().into());
        }
        match self.transport.send(Value::Object(frame).to_string()).await {
            Ok(()) => Ok(id),
            Err(TransportError::TooLarge) => Err(ClientError::Protocol("the request is too large to send".to_owned())),
            Err(_) => Err(timeout(EXIT_TIMEOUT, self.last_words()).await.unwrap_or(ClientError::Closed(None))),
        }
    }

    /// Why a connection that takes nothing any more has ended: a host says so before it closes.
    async fn last_words(&mut self) -> ClientError {
        loop {
            match self.transport.recv().await {
                Incoming::Text(text) => match Frame::parse(&text).and_then(|frame| self.count(frame)) {
                    Ok(frame) if frame.kind == "session.error" => {
                        return frame.error().unwrap_or(ClientError::Closed(None));
                    }
                    Ok(frame) => self.queue.push_back(frame),
                    Err(error) => return error,
                },
                Incoming::Alive => {}
                Incoming::TooLarge | Incoming::NotText => return ClientError::Closed(None),
                Incoming::Closed(reason) => return ClientError::Closed(reason),
            }
        }
    }

    /// The next frame, of whatever type, oldest first.
    ///
    /// Safe in `tokio::select!`: a call that is dropped loses no frame, though
    /// the answer to a `session.ping` may be left out.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`] at the end; [`ClientError::Gap`] if an event is
    /// missing, and again at every event after it.
    pub async fn recv(&mut self) -> Result<Frame, ClientError> {
        match self.queue.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read().await,
        }
    }

    /// The next frame of the ordered stream: an event, a result or an error of a job (ARCP §8.3).
    ///
    /// Frames outside that stream stay for [`Client::recv`].
    ///
    /// # Errors
    ///
    /// As for [`Client::recv`].
    pub async fn next_event(&mut self) -> Result<Frame, ClientError> {
        if let Some(event) = self.queue.iter().position(|frame| frame.event_seq.is_some()) {
            return Ok(self.queue.remove(event).expect("the position was found in this queue"));
        }
        loop {
            let frame = self.read().await?;
            if frame.event_seq.is_some() {
                return Ok(frame);
            }
            self.queue.push_back(frame);
        }
    }

    /// Takes every frame that has arrived and was not received.
    pub fn drain(&mut self) -> impl Iterator<Item = Frame> + '_ {
        self.queue.drain(..)
    }

    /// Ends the session in good order (ARCP §6.7). Its jobs go on.
    ///
    /// # Errors
    ///
    /// If the host does not confirm. The connection is closed nevertheless.
    pub async fn close(mut self) -> Result<(), ClientError> {
        let confirmed = self.request("session.close", Map::new(), json!({}), "session.closed").await;
        self.transport.close(CloseReason::new(CloseReason::NORMAL, "")).await;
        if let Some(mut child) = self.child {
            // A host ends when its input does; one that does not is killed as `child` is dropped.
            let _ = timeout(EXIT_TIMEOUT, child.wait()).await;
        }
        match confirmed {
            // A host may close the connection before its word is read.
            Ok(_) | Err(ClientError::Closed(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and waits for its answer; what else arrives is kept.
    async fn request(
        &mut self,
        kind: &'static str,
        envelope: Map<String, Value>,
        payload: Value,
        reply: &str,
    ) -> Result<Frame, ClientError> {
        let id = self.send(kind, envelope, payload).await?;
        let answered = async {
            loop {
                let frame = self.read().await?;
                if frame.answers(&id, reply) {
                    return Ok::<_, ClientError>(frame);
                }
                self.queue.push_back(frame);
            }
        };
        let frame = timeout(REPLY_TIMEOUT, answered).await.map_err(|_| ClientError::Silent(kind))??;
        match frame.error() {
            Some(error) => Err(error),
            None => Ok(frame),
        }
    }

    /// Reads one frame, checks its number, and answers it if it is a ping.
    async fn read(&mut self) -> Result<Frame, ClientError> {
        loop {
            let frame = match self.transport.recv().await {
                Incoming::Text(text) => Frame::parse(&text)?,
                Incoming::Alive => continue,
                Incoming::TooLarge => return Err(ClientError::Protocol("a frame is too large".to_owned())),
                Incoming::NotText => return Err(ClientError::Protocol("a frame is not UTF-8".to_owned())),
                Incoming::Closed(reason) => return Err(ClientError::Closed(reason)),
            };
            if frame.kind == "session.ping" {
                let nonce = frame.payload.get("nonce").cloned().unwrap_or_default();
                let pong = json!({ "ping_nonce": nonce, "received_at": now().to_string() });
                self.send("session.pong", Map::new(), pong).await?;
                continue;
            }
            return self.count(frame);
        }
    }

    /// Checks the number of a frame that has one (ARCP §8.3).
    fn count(&mut self, frame: Frame) -> Result<Frame, ClientError> {
        if let Some(got) = frame.event_seq {
            let expected = self.last_event_seq.saturating_add(1);
            if got != expected {
                return Err(ClientError::Gap { expected, got });
            }
            self.last_event_seq = got;
        }
        Ok(frame)
    }
}

/// Puts a streamed result together from the bodies of its `result_chunk` events (ARCP §8.4).
///
/// The chunks may come in any order, of one result only.
///
/// # Errors
///
/// If a chunk is missing, is there twice, belongs to another result, or cannot be decoded.
pub fn assemble<'a>(chunks: impl IntoIterator<Item = &'a Value>) -> Result<Vec<u8>, ClientError> {
    let broken = |what: String| ClientError::Protocol(format!("a streamed result is broken: {what}"));
    let mut chunks: Vec<(u64, &Value)> = chunks
        .into_iter()
        .map(|chunk| {
            Ok((chunk["chunk_seq"].as_u64().ok_or_else(|| broken("a chunk has no number".to_owned()))?, chunk))
        })
        .collect::<Result<_, ClientError>>()?;
    chunks.sort_by_key(|(seq, _)| *seq);
    let Some((last, first)) = chunks.last().map(|(seq, _)| *seq).zip(chunks.first().map(|(_, chunk)| *chunk)) else {
        return Err(broken("it has no chunks".to_owned()));
    };
    let mut result = Vec::new();
    for (expected, (seq, chunk)) in (0..).zip(chunks) {
        if seq != expected {
            return Err(broken(format!("chunk {expected} is missing or chunk {seq} is there twice")));
        }
        if chunk["result_id"] != first["result_id"] {
            return Err(broken(format!("chunk {seq} belongs to another result")));
        }
        if chunk["more"].as_bool() != Some(seq != last) {
            return Err(broken(format!("chunk {seq} is not marked as what it is, the last or not the last")));
        }
        match (chunk["encoding"].as_str(), chunk["data"].as_str()) {
            (Some("utf8"), Some(data)) => result.extend_from_slice(data.as_bytes()),
            (Some("base64"), Some(data)) => STANDARD
                .decode_vec(data, &mut result)
                .map_err(|error| broken(format!("chunk {seq} is not base64: {error}")))?,
            _ => return Err(broken(format!("chunk {seq} has no data in utf8 or base64"))),
        }
    }
    Ok(result)
}

fn of_job(job_id: &str) -> Map<String, Value> {
    Map::from_iter([("job_id".to_owned(), job_id.into())])
}

/// The time of the machine the client runs on.
#[allow(clippy::disallowed_methods, reason = "a client has no host whose clock it could ask")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A number from 0 to 1.
fn jitter() -> f64 {
    let mut random = [0; 4];
    getrandom::fill(&mut random).expect("an operating system has randomness");
    f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)
}

/// An id that no other message has, `msg_<ULID>`.
fn new_id() -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("an operating system has randomness");
    let millis = u64::try_from(now().as_millis()).unwrap_or(0);
    format!("msg_{}", Ulid::from_parts(millis, u128::from_ne_bytes(random)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::memory;

    /// The host's side of a conversation that a test has written beforehand.
    struct Script(Transport);

    impl Script {
        /// Expects a message of this type, and returns it.
        async fn hear(&mut self, kind: &str) -> Value {
            let Incoming::Text(text) = self.0.recv().await else { panic!("nothing to hear") };
            let frame: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(frame["type"], kind, "{frame}");
            assert_eq!(frame["arcp"], "1.1");
            let ulid = frame["id"].as_str().unwrap().strip_prefix("msg_").unwrap();
            assert!(Ulid::from_string(ulid).is_ok(), "{ulid}");
            frame
        }

        async fn say(&mut self, frame: Value) {
            self.0.send(frame.to_string()).await.unwrap();
        }

        async fn welcome(&mut self) -> Value {
            let hello = self.hear("session.hello").await;
            self.say(json!({
                "arcp": "1.1", "id": hello["id"], "type": "session.welcome", "session_id": "sess_1",
                "payload": { "resume_token": "rt_1", "capabilities": { "features": ["ack"] } },
            }))
            .await;
            hello
        }
    }

    fn event(seq: u64, body: &str) -> Value {
        json!({
            "arcp": "1.1", "id": "msg_x", "type": "job.event", "session_id": "sess_1", "job_id": "job_1",
            "event_seq": seq, "payload": { "kind": "thought", "body": { "text": body } },
        })
    }

    /// A client that has been welcomed, and its host.
    async fn session() -> (Client, Script) {
        let (near, far) = memory();
        let mut host = Script(far);
        let (client, _) = tokio::join!(Client::open(near, Some("t"), ClientInfo::default()), host.welcome());
        (client.unwrap(), host)
    }

    /// ARCP §5: what this client does not know, whoever uses it may.
    #[tokio::test]
    async fn what_is_unknown_in_an_envelope_goes_both_ways() {
        let (mut client, mut host) = session().await;
        let more = json!({ "extensions": { "x": [1.0, null] }, "span_id": "s" });
        let unknown = more.as_object().unwrap().clone();
        client.send("x-vendor.acme.ask", unknown.clone(), json!({})).await.unwrap();
        let heard = host.hear("x-vendor.acme.ask").await;
        let mut said = event(1, "t");
        for (key, value) in unknown {
            assert_eq!(heard[&key], value);
            said[&key] = value;
        }
        host.say(said).await;
        let frame = client.recv().await.unwrap();
        assert_eq!(
            (&frame.envelope["extensions"], &frame.envelope["span_id"]),
            (&more["extensions"], &more["span_id"])
        );
    }

    #[tokio::test]
    async fn a_hello_says_who_and_what_and_the_welcome_is_kept() {
        let (near, far) = memory();
        let mut host = Script(far);
        let resume = Resume { session_id: "sess_1".into(), resume_token: "rt_0".into(), last_event_seq: 7 };
        let info = ClientInfo { resume: Some(resume), ..ClientInfo::default() };
        let (client, hello) = tokio::join!(Client::open(near, Some("t0ken"), info), host.welcome());
        let mut client = client.unwrap();
        assert_eq!(hello["payload"]["auth"], json!({ "scheme": "bearer", "token": "t0ken" }));
        assert_eq!(hello["payload"]["capabilities"]["features"].as_array().unwrap().len(), FEATURES.len() - 1);
        let resume = json!({ "session_id": "sess_1", "resume_token": "rt_0", "last_event_seq": 7 });
        assert_eq!(hello["payload"]["resume"], resume);
        assert!(hello.get("session_id").is_none());
        assert_eq!(client.session_id(), "sess_1");
        assert!(client.has_feature("ack") && !client.has_feature("heartbeat"));
        // A resumed session goes on counting where the old one stopped.
        host.say(event(8, "next")).await;
        assert_eq!(client.next_event().await.unwrap().event_seq, Some(8));
        let resume = client.resume().unwrap();
        assert_eq!((&*resume.resume_token, resume.last_event_seq), ("rt_1", 8));
        assert!(!format!("{resume:?}").contains("rt_1"));
    }

    #[tokio::test]
    async fn a_refused_hello_is_told_apart() {
        let table = [
            ("session.error", "UNAUTHENTICATED", "the host does not accept the token: no"),
            ("session.error", "RESUME_WINDOW_EXPIRED", "RESUME_WINDOW_EXPIRED: no"),
            ("job.error", "UNAUTHENTICATED", "the host does not accept the token: no"),
        ];
        for (kind, code, expected) in table {
            let (near, far) = memory();
            let mut host = Script(far);
            let refusal = async {
                let hello = host.hear("session.hello").await;
                let payload = json!({ "code": code, "message": "no", "retryable": false });
                host.say(json!({ "arcp": "1.1", "id": hello["id"], "type": kind, "payload": payload })).await;
            };
            let (client, ()) = tokio::join!(Client::open(near, None, ClientInfo::default()), refusal);
            assert_eq!(client.unwrap_err().to_string(), expected);
        }
        let (near, far) = memory();
        far.close(CloseReason::new(CloseReason::POLICY, "too slow")).await;
        let error = Client::open(near, None, ClientInfo::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "the connection is closed (code 1008: too slow)");
    }

    #[tokio::test]
    async fn what_arrives_while_an_answer_is_awaited_is_kept_in_order() {
        let (mut client, mut host) = session().await;
        let hosting = async {
            let submit = host.hear("job.submit").await;
            assert_eq!((&submit["session_id"], &submit["trace_id"]), (&json!("sess_1"), &json!("0af7")));
            assert_eq!(submit["payload"], json!({ "agent": "echo", "input": { "a": 1 }, "max_runtime_sec": 5 }));
            host.say(event(1, "one")).await;
            host.say(json!({ "arcp": "1.1", "id": "msg_y", "type": "x-vendor.note" })).await;
            // The end of another job may name any submission and is no answer to this.
            let mut end = event(2, "two");
            end["type"] = "job.error".into();
            end["correlation_id"] = submit["id"].clone();
            host.say(end).await;
            let payload = json!({ "job_id": "job_2", "request_id": submit["id"], "lease": {} });
            host.say(json!({ "arcp": "1.1", "id": "msg_z", "type": "job.accepted", "payload": payload })).await;
            host.say(event(3, "three")).await;
        };
        let submit = Submit {
            max_runtime_sec: Some(5),
            trace_id: Some("0af7".into()),
            ..Submit::new("echo", json!({ "a": 1 }))
        };
        let (accepted, ()) = tokio::join!(client.submit(submit), hosting);
        assert_eq!(accepted.unwrap().job_id, "job_2");
        let first = client.next_event().await.unwrap();
        assert_eq!(first.event(), Some(("thought", &json!({ "text": "one" }))));
        assert_eq!(client.recv().await.unwrap().kind, "x-vendor.note");
        assert!(client.next_event().await.unwrap().is_terminal());
        assert_eq!(client.next_event().await.unwrap().event_seq, Some(3));
    }

    #[tokio::test]
    async fn each_form_of_refusal_reaches_the_request_it_answers() {
        let table = [
            (json!({ "type": "session.error", "id": "R" }), json!({})),
            (json!({ "type": "session.error", "id": "msg_o" }), json!({ "request_id": "R" })),
            (json!({ "type": "session.error", "id": "msg_o" }), json!({ "reply_to": "R" })),
            (json!({ "type": "session.error", "id": "msg_o" }), json!({})),
            (json!({ "type": "job.error", "id": "R" }), json!({})),
            (json!({ "type": "job.error", "id": "msg_o", "job_id": "job_fresh" }), json!({ "request_id": "R" })),
            (json!({ "type": "job.error", "id": "msg_o", "correlation_id": "R" }), json!({})),
        ];
        for (mut envelope, mut payload) in table {
            let (mut client, mut host) = session().await;
            let hosting = async {
                let submit = host.hear("job.submit").await;
                // A word on something else comes first, and is no answer.
                let other = json!({ "request_id": "msg_other", "code": "JOB_NOT_FOUND", "message": "other" });
                host.say(json!({ "arcp": "1.1", "id": "msg_a", "type": "job.error", "payload": other })).await;
                for value in envelope.as_object_mut().unwrap().values_mut().filter(|value| *value == "R") {
                    *value = submit["id"].clone();
                }
                for value in payload.as_object_mut().unwrap().values_mut() {
                    *value = submit["id"].clone();
                }
                payload["code"] = "DUPLICATE_KEY".into();
                payload["message"] = "taken".into();
                envelope["payload"] = payload;
                host.say(envelope).await;
            };
            let (refused, ()) = tokio::join!(client.submit(Submit::new("a", Value::Null)), hosting);
            let Err(ClientError::Refused { code, message, retryable: false }) = refused else { panic!("{refused:?}") };
            assert_eq!((&*code, &*message), ("DUPLICATE_KEY", "taken"));
            assert_eq!(client.recv().await.unwrap().payload["message"], "other");
        }
    }

    #[tokio::test]
    async fn a_ping_is_answered_and_not_given_out() {
        let (mut client, mut host) = session().await;
        host.say(json!({ "arcp": "1.1", "id": "m", "type": "session.ping", "payload": { "nonce": "p_1" } })).await;
        host.say(event(1, "one")).await;
        assert_eq!(client.recv().await.unwrap().event_seq, Some(1));
        let pong = host.hear("session.pong").await;
        assert_eq!(pong["payload"]["ping_nonce"], "p_1");
        assert!(pong["payload"]["received_at"].as_str().unwrap().ends_with('Z'));
    }

    /// ARCP §8.3: "A client that receives an unexpected gap SHOULD treat the session as broken".
    #[tokio::test]
    async fn a_gap_or_a_repetition_in_the_stream_is_an_error() {
        for (seqs, expected, got) in [(&[2][..], 1, 2), (&[1, 1], 2, 1), (&[1, 2, 4], 3, 4), (&[0], 1, 0)] {
            let (mut client, mut host) = session().await;
            for seq in seqs {
                host.say(event(*seq, "")).await;
            }
            for _ in 1..seqs.len() {
                client.recv().await.unwrap();
            }
            let error = client.recv().await.unwrap_err().to_string();
            assert_eq!(error, format!("event {expected} is missing, {got} came instead"));
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_not_arcp_is_an_error() {
        for text in ["{", "[]", "{}", "{\"type\":\"a\"}", "{\"type\":\"a\",\"id\":\"b\",\"event_seq\":-1}"] {
            let (mut client, mut host) = session().await;
            host.0.send(text.to_owned()).await.unwrap();
            assert!(matches!(client.recv().await, Err(ClientError::Protocol(_))), "{text}");
        }
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_last_page() {
        let (mut client, mut host) = session().await;
        let hosting = async {
            for (cursor, next) in [(Value::Null, json!("c1")), (json!("c1"), Value::Null)] {
                let list = host.hear("session.list_jobs").await;
                assert_eq!(list["payload"]["filter"], json!({ "agent": "echo" }));
                assert_eq!(list["payload"]["cursor"], cursor);
                let payload = json!({ "request_id": list["id"], "jobs": [{ "page": cursor }], "next_cursor": next });
                host.say(json!({ "arcp": "1.1", "id": "m", "type": "session.jobs", "payload": payload })).await;
            }
        };
        let (jobs, ()) = tokio::join!(client.list_jobs(json!({ "agent": "echo" })), hosting);
        assert_eq!(jobs.unwrap(), [json!({ "page": null }), json!({ "page": "c1" })]);
    }

    #[tokio::test]
    async fn cancel_subscribe_ack_and_close_are_what_the_wire_expects() {
        let (mut client, mut host) = session().await;
        let hosting = async {
            let cancel = host.hear("job.cancel").await;
            assert_eq!((&cancel["job_id"], &cancel["payload"]["reason"]), (&json!("job_1"), &json!("enough")));
            host.say(json!({ "arcp": "1.1", "id": cancel["id"], "type": "job.cancelled", "payload": {} })).await;
            let subscribe = host.hear("job.subscribe").await;
            let payload = json!({ "job_id": "job_1", "from_event_seq": 0, "history": true });
            assert_eq!(subscribe["payload"], payload);
            let payload = json!({ "request_id": subscribe["id"], "current_status": "running" });
            host.say(json!({ "arcp": "1.1", "id": "m", "type": "job.subscribed", "payload": payload })).await;
            assert_eq!(host.hear("job.unsubscribe").await["payload"]["job_id"], "job_1");
            assert_eq!(host.hear("session.ack").await["payload"]["last_processed_seq"], 3);
            let close = host.hear("session.close").await;
            host.say(json!({ "arcp": "1.1", "id": close["id"], "type": "session.closed", "payload": {} })).await;
            host.0.recv().await
        };
        let talking = async {
            client.cancel("job_1", Some("enough")).await.unwrap();
            assert_eq!(client.subscribe("job_1", Some(0)).await.unwrap()["current_status"], "running");
            client.unsubscribe("job_1").await.unwrap();
            client.ack(3).await.unwrap();
            client.close().await.unwrap();
        };
        let (end, ()) = tokio::join!(hosting, talking);
        assert_eq!(end, Incoming::Closed(Some(CloseReason::new(CloseReason::NORMAL, ""))));
    }

    #[tokio::test]
    async fn a_child_process_is_spoken_to_over_its_stdin_and_stdout() {
        let error = Client::connect_child(Command::new("/no/such/program"), None, ClientInfo::default()).await;
        assert!(matches!(error, Err(ClientError::Connect { target, .. }) if target == "/no/such/program"));
        let mut shell = Command::new("sh");
        let welcome = r#"{"arcp":"1.1","id":"m","type":"session.welcome","session_id":"sess_1","payload":{}}"#;
        let closed = r#"{"arcp":"1.1","id":"m","type":"session.closed","payload":{}}"#;
        shell.arg("-c").arg(format!("read hello; echo '{welcome}'; read close; echo '{closed}'; read rest"));
        let client = Client::connect_child(shell, None, ClientInfo::default()).await.unwrap();
        assert_eq!(client.session_id(), "sess_1");
        client.close().await.unwrap();
    }

    #[test]
    fn a_streamed_result_is_its_chunks_in_their_order() {
        let chunk = |seq: u64, data: &str, encoding: &str, more: bool| json!({ "result_id": "res_1", "chunk_seq": seq, "data": data, "encoding": encoding, "more": more });
        let other = json!({ "result_id": "res_2", "chunk_seq": 1, "data": "", "encoding": "utf8", "more": false });
        let table = [
            (vec![chunk(0, "", "utf8", false)], Some("")),
            (vec![chunk(0, "a", "utf8", true), chunk(1, "b", "utf8", false)], Some("ab")),
            (vec![chunk(1, "b", "utf8", false), chunk(0, "YQ==", "base64", true)], Some("ab")),
            (vec![], None),
            (vec![chunk(0, "a", "utf8", true)], None), // the last is missing
            (vec![chunk(1, "b", "utf8", false)], None),
            (vec![chunk(0, "a", "utf8", false), chunk(1, "b", "utf8", false)], None),
            (vec![chunk(0, "a", "utf8", true), chunk(0, "a", "utf8", false)], None),
            (vec![chunk(0, "a", "utf8", true), other], None),
            (vec![chunk(0, "***", "base64", false)], None),
            (vec![chunk(0, "a", "latin1", false)], None),
            (vec![json!("no object")], None),
        ];
        for (chunks, expected) in table {
            let result = assemble(&chunks).ok();
            assert_eq!(result.as_deref(), expected.map(str::as_bytes), "{chunks:?}");
        }
    }
}
