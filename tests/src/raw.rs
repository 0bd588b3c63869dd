//! A client that sends anything and trusts nothing it receives.

use std::{
    collections::{BTreeSet, VecDeque},
    str::FromStr,
};

use leasehold::{
    client::FEATURES,
    transport::{CloseReason, Incoming, Transport, TransportError},
};
use leasehold_core::{error::ErrorCode, time::Timestamp};
use serde_json::{Value, json};

use crate::within;

/// A client of the bare wire.
///
/// Every frame it receives is held against the rules of the envelope (ARCP
/// §5, §8.3) before the test sees it, and a frame that breaks one fails the
/// test.
pub struct RawClient {
    transport: Transport,
    session_id: Option<String>,
    /// Ids of the requests that were sent; a host may answer under them.
    sent: BTreeSet<String>,
    last_seq: u64,
    /// Received while something else was waited for.
    queue: VecDeque<Value>,
}

/// Features a hello offers that says nothing else.
pub const ALL_FEATURES: [&str; 11] = FEATURES;

/// A hello's payload with a bearer token and every feature.
#[must_use]
pub fn hello(token: &str) -> Value {
    json!({
        "client": { "name": "raw", "version": "1" },
        "auth": { "scheme": "bearer", "token": token },
        "capabilities": { "encodings": ["json"], "features": ALL_FEATURES },
    })
}

impl RawClient {
    /// A client that has said nothing yet.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self { transport, session_id: None, sent: BTreeSet::new(), last_seq: 0, queue: VecDeque::new() }
    }

    /// Says hello with a token and every feature, and gives the welcome's payload.
    pub async fn open(&mut self, token: &str) -> Value {
        self.open_with(hello(token)).await
    }

    /// Says hello with any payload, and gives the welcome's payload.
    ///
    /// # Panics
    ///
    /// If the answer is not a welcome.
    pub async fn open_with(&mut self, hello: Value) -> Value {
        let id = self.send("session.hello", hello).await;
        let welcome = self.recv().await;
        assert_eq!(welcome["type"], "session.welcome", "{welcome}");
        assert_eq!(welcome["id"], id, "{welcome}");
        self.session_id = welcome["session_id"].as_str().map(str::to_owned);
        welcome["payload"].clone()
    }

    /// A client that has everything of a session up to `last_event_seq`, and comes back to it (ARCP §6.3).
    #[must_use]
    pub fn standing_at(transport: Transport, last_event_seq: u64) -> Self {
        Self { last_seq: last_event_seq, ..Self::new(transport) }
    }

    /// The number of the newest message it has.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Takes the next frames as those of this session, which was opened by a hello of the test's own.
    pub fn belongs_to(&mut self, session_id: &str) {
        self.session_id = Some(session_id.to_owned());
    }

    /// Takes the next frames as those of another session, which it has up to `last_event_seq`.
    pub fn changes_session(&mut self, last_event_seq: u64) {
        (self.session_id, self.last_seq) = (None, last_event_seq);
    }

    /// The session, once it is open.
    #[must_use]
    pub fn session_id(&self) -> &str {
        self.session_id.as_deref().unwrap_or_default()
    }

    /// A fresh id for a request.
    ///
    /// Not a ULID: the host recognises SDKs by the form of theirs, and this is none of them.
    pub fn id(&mut self) -> String {
        let id = format!("request-{}", self.sent.len() + 1);
        self.sent.insert(id.clone());
        id
    }

    /// Allows an answer under an id that is sent within a text.
    pub fn id_was_sent(&mut self, id: &str) {
        self.sent.insert(id.to_owned());
    }

    /// Sends a payload in a complete envelope, and gives its id.
    pub async fn send(&mut self, kind: &str, payload: Value) -> String {
        self.send_with(kind, json!({}), payload).await
    }

    /// As [`send`](Self::send), with more fields in the envelope, which replace the usual ones.
    pub async fn send_with(&mut self, kind: &str, envelope: Value, payload: Value) -> String {
        let id = self.id();
        let mut frame = json!({ "arcp": "1.1", "id": id, "type": kind, "payload": payload });
        if let Some(session_id) = &self.session_id {
            frame["session_id"] = session_id.as_str().into();
        }
        for (key, value) in envelope.as_object().into_iter().flatten() {
            frame[key] = value.clone();
        }
        self.send_frame(&frame).await;
        frame["id"].as_str().unwrap_or_default().to_owned()
    }

    /// Sends a frame exactly as it is.
    pub async fn send_frame(&mut self, frame: &Value) {
        if let Some(id) = frame["id"].as_str() {
            self.sent.insert(id.to_owned());
        }
        self.send_text(frame.to_string()).await;
    }

    /// Sends any text.
    ///
    /// # Panics
    ///
    /// If the host has closed the connection.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.try_send_text(text).await.expect("the connection is open");
    }

    /// Sends any text, to a host that may have closed the connection.
    ///
    /// # Errors
    ///
    /// If it has.
    pub async fn try_send_text(&mut self, text: impl Into<String>) -> Result<(), TransportError> {
        within("a write", self.transport.send(text.into())).await
    }

    /// The next frame.
    ///
    /// # Panics
    ///
    /// If the connection ends instead, or the frame breaks a rule.
    pub async fn recv(&mut self) -> Value {
        match self.recv_or_close().await {
            Ok(frame) => frame,
            Err(reason) => panic!("the connection was closed: {reason:?}"),
        }
    }

    /// The next frame, or how the connection ended.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub async fn recv_or_close(&mut self) -> Result<Value, Option<CloseReason>> {
        if let Some(frame) = self.queue.pop_front() {
            return Ok(frame);
        }
        self.read().await
    }

    async fn read(&mut self) -> Result<Value, Option<CloseReason>> {
        loop {
            match within("a frame", self.transport.recv()).await {
                Incoming::Text(text) => return Ok(self.check(&text)),
                Incoming::Alive => {}
                Incoming::Closed(reason) => return Err(reason),
                incoming => panic!("the host sent {incoming:?}"),
            }
        }
    }

    /// The first frame that `wanted` wants; the others stay for later.
    pub async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(frame) = self.queue.iter().position(&wanted).and_then(|at| self.queue.remove(at)) {
            return frame;
        }
        loop {
            match self.read().await {
                Ok(frame) if wanted(&frame) => return frame,
                Ok(frame) => self.queue.push_back(frame),
                Err(reason) => panic!("the connection was closed ({reason:?}) after {:?}", self.queue),
            }
        }
    }

    /// The first frame of a type.
    pub async fn find_type(&mut self, kind: &str) -> Value {
        self.find(|frame| frame["type"] == kind).await
    }

    /// The answer to a request: the first frame outside the ordered stream that names it.
    pub async fn reply(&mut self, id: &str) -> Reply {
        let named = ["/payload/request_id", "/id", "/correlation_id"];
        let answers = |frame: &Value| named.iter().any(|path| frame.pointer(path).is_some_and(|named| named == id));
        Reply(self.find(|frame| frame.get("event_seq").is_none() && answers(frame)).await)
    }

    /// Sends a request and waits for its answer.
    pub async fn request(&mut self, kind: &str, payload: Value) -> Reply {
        let id = self.send(kind, payload).await;
        self.reply(&id).await
    }

    /// As [`request`](Self::request), with more fields in the envelope.
    pub async fn request_with(&mut self, kind: &str, envelope: Value, payload: Value) -> Reply {
        let id = self.send_with(kind, envelope, payload).await;
        self.reply(&id).await
    }

    /// Begins a submission.
    pub fn submit(&mut self, agent: &str) -> Submission<'_> {
        Submission { client: self, envelope: json!({}), payload: json!({ "agent": agent, "input": {} }) }
    }

    /// Everything of a job until its end.
    pub async fn follow(&mut self, job_id: &str) -> Run {
        let mut events = Vec::new();
        loop {
            let frame = self.find(|frame| frame.get("event_seq").is_some() && frame["job_id"] == job_id).await;
            match frame["type"].as_str() {
                Some("job.event") => events.push(frame),
                _ => return Run { accepted: Value::Null, events, terminal: frame },
            }
        }
    }

    /// Asks for the list of jobs, which a session that works answers, and gives whatever came before the answer.
    ///
    /// It proves that a host had nothing to say to what was sent before.
    pub async fn settle(&mut self) -> Vec<Value> {
        let id = self.send("session.list_jobs", json!({ "limit": 1 })).await;
        self.reply(&id).await;
        self.queue.drain(..).collect()
    }

    /// Asks for the list until a job has ended, and gives its status: for a job that another session follows.
    pub async fn status_at_end(&mut self, job_id: &str) -> String {
        loop {
            let reply = self.request("session.list_jobs", json!({})).await;
            let mut jobs = reply.payload()["jobs"].as_array().into_iter().flatten();
            let job = jobs.find(|job| job["job_id"] == job_id);
            match job.and_then(|job| job["status"].as_str()) {
                Some("pending" | "running") => {}
                Some(status) => return status.to_owned(),
                None => panic!("{job_id} is not listed: {}", reply.0),
            }
        }
    }

    /// How the connection ends; frames that come before it are dropped.
    pub async fn closed(&mut self) -> CloseReason {
        loop {
            if let Err(reason) = self.recv_or_close().await {
                return reason.expect("the host says why it closes");
            }
        }
    }

    /// Drops the connection without a word.
    pub fn hang_up(self) {}

    /// Closes the connection as a transport does, without a word of ARCP.
    pub async fn disconnect(self) {
        self.transport.close(CloseReason::new(CloseReason::NORMAL, "")).await;
    }

    /// Holds a frame against the rules of the envelope.
    fn check(&mut self, text: &str) -> Value {
        assert!(text.len() < (1 << 20) - 4096, "a frame of {} bytes; some clients take 1 MiB", text.len());
        let frame: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let text = |key: &str| frame[key].as_str().filter(|text| !text.is_empty());
        let fields = frame.as_object().unwrap_or_else(|| panic!("a frame is an object: {frame}"));

        assert_eq!(text("arcp"), Some("1.1"), "{frame}");
        let kind = text("type").unwrap_or_else(|| panic!("`type` is a text: {frame}"));
        let id = text("id").unwrap_or_else(|| panic!("`id` is a text: {frame}"));
        assert!(self.sent.contains(id) || is_prefixed_ulid(id, "msg_"), "`id` is a request's or fresh: {frame}");
        let session_id = text("session_id").unwrap_or_else(|| panic!("`session_id` is a text: {frame}"));
        if let Some(own) = &self.session_id {
            assert_eq!(session_id, own, "{frame}");
        }
        let timestamp = text("timestamp").unwrap_or_else(|| panic!("`timestamp` is a text: {frame}"));
        assert!(timestamp.len() == 24 && timestamp.parse::<Timestamp>().is_ok(), "milliseconds, UTC: {frame}");
        assert!(frame["payload"].is_object(), "{frame}");

        // Absent, not null; but these two, and what is the client's or the agent's own.
        for (key, value) in fields.iter().chain(frame["payload"].as_object().into_iter().flatten()) {
            let may_be_null = matches!(key.as_str(), "next_cursor" | "parent_job_id" | "result");
            assert!(!value.is_null() || may_be_null, "`{key}` is null: {frame}");
        }
        if let Some(trace_id) = frame.get("trace_id") {
            let trace_id = trace_id.as_str().unwrap_or_default();
            let hex = trace_id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            assert!(hex && trace_id.len() == 32 && trace_id.bytes().any(|byte| byte != b'0'), "{frame}");
        }
        if let Some(job_id) = frame.get("job_id") {
            assert!(is_prefixed_ulid(job_id.as_str().unwrap_or_default(), "job_"), "{frame}");
        }
        match frame.get("event_seq") {
            Some(seq) => {
                let in_order = ["job.event", "job.result", "job.error", "subscribe.event"];
                assert!(in_order.contains(&kind), "{frame}");
                assert_eq!(seq.as_u64(), Some(self.last_seq + 1), "dense from 1 (ARCP §8.3): {frame}");
                self.last_seq += 1;
                assert!(frame.get("job_id").is_some() && frame.get("trace_id").is_some(), "{frame}");
            }
            // A job.error outside the stream refuses a request.
            None => assert!(!matches!(kind, "job.event" | "job.result"), "{frame}"),
        }
        if matches!(kind, "job.error" | "session.error") {
            let payload = &frame["payload"];
            let code = serde_json::from_value::<ErrorCode>(payload["code"].clone());
            let code = code.unwrap_or_else(|_| panic!("a code of ARCP §12: {frame}"));
            assert_eq!(payload["retryable"], code.retryable(), "{frame}");
            assert!(payload["message"].as_str().is_some_and(|message| !message.is_empty()), "{frame}");
            assert!(payload.get("details").is_none_or(Value::is_object), "{frame}");
        }
        frame
    }
}

fn is_prefixed_ulid(text: &str, prefix: &str) -> bool {
    let digit = |byte: u8| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&byte);
    text.strip_prefix(prefix).is_some_and(|ulid| ulid.len() == 26 && ulid.bytes().all(digit))
}

/// A submission on its way.
#[must_use = "a submission is sent by `reply`, `run` or `send`"]
pub struct Submission<'a> {
    client: &'a mut RawClient,
    envelope: Value,
    payload: Value,
}

impl Submission<'_> {
    /// What the agent is given.
    pub fn input(self, input: Value) -> Self {
        self.field("input", input)
    }

    /// Asks for authority.
    pub fn lease(self, lease: Value) -> Self {
        self.field("lease_request", lease)
    }

    /// Asks for an end of the authority.
    pub fn expires_at(self, expires_at: impl Into<Value>) -> Self {
        self.field("lease_constraints", json!({ "expires_at": expires_at.into() }))
    }

    /// Makes a repetition the same job.
    pub fn key(self, key: &str) -> Self {
        self.field("idempotency_key", key.into())
    }

    /// Sets any field of the payload.
    pub fn field(mut self, key: &str, value: Value) -> Self {
        self.payload[key] = value;
        self
    }

    /// Sets any field of the envelope.
    pub fn envelope(mut self, key: &str, value: Value) -> Self {
        self.envelope[key] = value;
        self
    }

    /// Sends it, and gives its id.
    pub async fn send(self) -> String {
        self.client.send_with("job.submit", self.envelope, self.payload).await
    }

    /// Sends it, and waits for its answer.
    pub async fn reply(self) -> Reply {
        let Self { client, envelope, payload } = self;
        client.request_with("job.submit", envelope, payload).await
    }

    /// Sends it, and gives the id of the job.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub async fn job_id(self) -> String {
        self.reply().await.job_id()
    }

    /// Sends it, and waits for the end of its job.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub async fn run(self) -> Run {
        let Self { client, envelope, payload } = self;
        let reply = client.request_with("job.submit", envelope, payload).await;
        let job_id = reply.job_id();
        let run = client.follow(&job_id).await;
        Run { accepted: reply.0, ..run }
    }
}

/// The answer to a request, as a whole frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply(pub Value);

impl Reply {
    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &Value {
        &self.0["payload"]
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0["type"].as_str().unwrap_or_default()
    }

    /// Whether it was a yes, and if not, the code.
    ///
    /// # Panics
    ///
    /// If it is an error without a code, which [`RawClient`] lets nobody have.
    pub fn outcome(&self) -> Result<(), ErrorCode> {
        match self.kind() {
            "job.error" | "session.error" => {
                Err(serde_json::from_value(self.payload()["code"].clone()).expect("the code was checked as it came"))
            }
            _ => Ok(()),
        }
    }

    /// What a refusal says.
    #[must_use]
    pub fn message(&self) -> &str {
        self.payload()["message"].as_str().unwrap_or_default()
    }

    /// The job that was accepted.
    ///
    /// # Panics
    ///
    /// If it is anything else.
    #[must_use]
    pub fn job_id(&self) -> String {
        assert_eq!(self.kind(), "job.accepted", "{}", self.0);
        self.payload()["job_id"].as_str().expect("a job has an id").to_owned()
    }
}

/// All that was said of a job.
#[derive(Clone, Debug)]
pub struct Run {
    /// The frame that accepted it, if it was seen.
    pub accepted: Value,
    /// Its events.
    pub events: Vec<Value>,
    /// Its end.
    pub terminal: Value,
}

impl Run {
    /// The job.
    #[must_use]
    pub fn job_id(&self) -> &str {
        self.terminal["job_id"].as_str().unwrap_or_default()
    }

    /// The bodies of its events of one kind (ARCP §8.2).
    #[must_use]
    pub fn bodies(&self, kind: &str) -> Vec<Value> {
        let of_kind = self.events.iter().filter(|event| event["payload"]["kind"] == kind);
        of_kind.map(|event| event["payload"]["body"].clone()).collect()
    }

    /// The result that came in the message, or the code it failed with.
    pub fn result(&self) -> Result<Value, ErrorCode> {
        Reply(self.terminal.clone()).outcome().map(|()| self.terminal["payload"]["result"].clone())
    }

    /// What a failed job says.
    #[must_use]
    pub fn message(&self) -> &str {
        self.terminal["payload"]["message"].as_str().unwrap_or_default()
    }

    /// How it ended, in the word of ARCP §7.3.
    #[must_use]
    pub fn final_status(&self) -> &str {
        self.terminal["payload"]["final_status"].as_str().unwrap_or_default()
    }
}

/// Reads a code as the wire spells it.
///
/// # Panics
///
/// If it is none.
#[must_use]
pub fn code(text: &str) -> ErrorCode {
    serde_json::from_value(Value::from(text)).unwrap_or_else(|_| panic!("{text} is a code of ARCP §12"))
}

/// Reads a moment, which every member that ends in `_at` or is named `ts` must be.
///
/// # Panics
///
/// If it is none.
#[expect(clippy::must_use_candidate, reason = "to read it is to check it")]
pub fn moment(text: &Value) -> Timestamp {
    Timestamp::from_str(text.as_str().unwrap_or_default()).unwrap_or_else(|_| panic!("{text} is a moment"))
}
