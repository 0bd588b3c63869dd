//! A client of the bare wire that believes nothing it hears.
//!
//! Every frame is held against what the draft says of all frames (ARCP §5, §8.1, §8.3, §12) before a case sees it, so a
//! hole in `event_seq` fails whichever case it happens in.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    mem,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use leasehold_core::{error::ErrorCode, id::Ulid};
use serde_json::{Map, Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    process::{Child, ChildStdin},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::{
    skip,
    target::{Ticket, last_line},
};
use crate::{
    clock::Clock,
    transport::{Incoming, Transport},
};

/// What frames travel on.
pub enum Channel {
    /// A WebSocket.
    Socket(Box<WebSocketStream<TcpStream>>),
    /// The pipes of a child process.
    Child(Box<ChildWire>),
}

/// A child process and its pipes.
pub struct ChildWire {
    pub child: Child,
    /// Until its input was ended.
    pub stdin: Option<ChildStdin>,
    /// What it says; nothing is written through this.
    pub stdout: Transport,
    pub stderr: File,
}

/// One connection to the runtime.
pub struct Wire {
    channel: Channel,
    patience: Duration,
    session_id: Option<String>,
    welcome: Value,
    /// What both sides can do (ARCP §6.2).
    features: BTreeSet<String>,
    offered: Vec<String>,
    last_seq: Option<u64>,
    /// Jobs that were accepted on this connection.
    jobs: BTreeSet<String>,
    /// Heard while something else was waited for.
    queue: VecDeque<Value>,
    /// Whether a `session.ping` is answered and not shown.
    pub answers_pings: bool,
}

/// A frame, or how the connection ended.
pub type Heard = Result<Value, String>;

impl Wire {
    pub fn new(channel: Channel, patience: Duration) -> Self {
        Self {
            channel,
            patience,
            session_id: None,
            welcome: Value::Null,
            features: BTreeSet::new(),
            offered: Vec::new(),
            last_seq: None,
            jobs: BTreeSet::new(),
            queue: VecDeque::new(),
            answers_pings: true,
        }
    }

    /// The payload of the welcome.
    pub fn welcome(&self) -> &Value {
        &self.welcome
    }

    /// The number of the last message of the stream.
    pub fn last_seq(&self) -> u64 {
        self.last_seq.unwrap_or(0)
    }

    /// The next frames go on after this number.
    pub fn stands_at(&mut self, last_event_seq: u64) {
        self.last_seq = Some(last_event_seq);
    }

    /// Takes the next frames as those of another session.
    pub fn leave_session(&mut self) {
        self.session_id = None;
    }

    /// Whether both sides have a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(feature)
    }

    /// Skips a case whose feature the runtime does not have.
    pub fn needs(&self, feature: &str) -> Result<()> {
        if self.has(feature) { Ok(()) } else { skip(format!("the runtime has no `{feature}` (ARCP §6.2)")) }
    }

    /// What brings a client back to this session.
    pub fn ticket(&self) -> Result<Ticket> {
        let token = self.welcome["resume_token"].as_str().context("the welcome has no `resume_token`")?;
        let session_id = self.session_id.clone().context("the session has no id")?;
        Ok(Ticket { session_id, resume_token: token.to_owned(), features: self.offered.clone() })
    }

    /// Says hello, and reads the welcome.
    pub async fn hello(&mut self, hello: Value) -> Result<Value> {
        let offered = strings(&hello["capabilities"]["features"]);
        self.send("session.hello", hello).await?;
        let welcome = self.recv("session.welcome").await?;
        ensure!(welcome["type"] == "session.welcome", "a hello is answered with {}", brief(&welcome));
        self.welcomed(&welcome, &offered)?;
        Ok(welcome)
    }

    /// Takes the session of a welcome.
    pub fn welcomed(&mut self, welcome: &Value, offered: &[String]) -> Result<()> {
        let session_id = welcome["session_id"].as_str().filter(|id| !id.is_empty());
        self.session_id = Some(session_id.context("the welcome has no `session_id`")?.to_owned());
        let theirs = strings(&welcome["payload"]["capabilities"]["features"]);
        self.features = theirs.into_iter().filter(|feature| offered.contains(feature)).collect();
        self.offered = offered.to_vec();
        self.welcome = welcome["payload"].clone();
        Ok(())
    }

    /// Sends a payload in an envelope, and gives its id.
    pub async fn send(&mut self, kind: &str, payload: Value) -> Result<String> {
        self.send_with(kind, json!({}), payload).await
    }

    /// As [`send`](Self::send), with more fields in the envelope, which replace the usual ones.
    pub async fn send_with(&mut self, kind: &str, envelope: Value, payload: Value) -> Result<String> {
        let id = new_id()?;
        let frame = self.frame(kind, &id, envelope, payload);
        self.send_text(frame.to_string()).await?;
        Ok(id)
    }

    /// An envelope.
    pub fn frame(&self, kind: &str, id: &str, envelope: Value, payload: Value) -> Value {
        let mut frame = Map::new();
        frame.insert("arcp".into(), "1.1".into());
        frame.insert("id".into(), id.into());
        frame.insert("type".into(), kind.into());
        if let Some(session_id) = &self.session_id {
            frame.insert("session_id".into(), session_id.as_str().into());
        }
        frame.insert("payload".into(), payload);
        if let Value::Object(more) = envelope {
            frame.extend(more);
        }
        Value::Object(frame)
    }

    /// Sends any text as one frame.
    pub async fn send_text(&mut self, text: String) -> Result<()> {
        match &self.channel {
            Channel::Socket(_) => self.send_message(Message::text(text)).await,
            Channel::Child(_) => self.write(format!("{text}\n").as_bytes()).await,
        }
    }

    /// Sends any message of a WebSocket.
    pub async fn send_message(&mut self, message: Message) -> Result<()> {
        let Channel::Socket(socket) = &mut self.channel else { return skip("it is about WebSocket") };
        match timeout(self.patience, socket.send(message)).await {
            // A connection that is gone tells why when it is read.
            Ok(_) => Ok(()),
            Err(_) => bail!("the runtime reads no more"),
        }
    }

    /// Writes bytes to the standard input of the runtime.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Channel::Child(child) = &mut self.channel else { return skip("it is about stdio") };
        let stdin = child.stdin.as_mut().context("the input was ended")?;
        let write = async {
            stdin.write_all(bytes).await?;
            stdin.flush().await
        };
        match timeout(self.patience, write).await {
            // A process that is gone tells why when it is read.
            Ok(_) => Ok(()),
            Err(_) => bail!("the runtime reads no more"),
        }
    }

    /// Ends the input of a child, and waits for its own end.
    pub async fn end_of_input(&mut self) -> Result<()> {
        let Channel::Child(child) = &mut self.channel else { return skip("it is about stdio") };
        drop(child.stdin.take());
        timeout(self.patience, child.child.wait()).await.context("the runtime's process goes on")??;
        Ok(())
    }

    /// The next raw message of a WebSocket.
    pub async fn message(&mut self, what: &str) -> Result<Message> {
        let Channel::Socket(socket) = &mut self.channel else { return skip("it is about WebSocket") };
        match timeout(self.patience, socket.next()).await {
            Ok(Some(message)) => Ok(message?),
            Ok(None) => bail!("the connection ended before {what}"),
            Err(_) => bail!("{what} did not come within {} s", self.patience.as_secs()),
        }
    }

    /// The next frame, or how the connection ended.
    pub async fn hear(&mut self, what: &str) -> Result<Heard> {
        self.hear_within(self.patience, what).await
    }

    /// As [`hear`](Self::hear), for what takes its time.
    pub async fn hear_within(&mut self, patience: Duration, what: &str) -> Result<Heard> {
        match self.queue.pop_front() {
            Some(frame) => Ok(Ok(frame)),
            None => self.read(Instant::now() + patience, patience, what).await,
        }
    }

    /// The next frame.
    pub async fn recv(&mut self, what: &str) -> Result<Value> {
        match self.hear(what).await? {
            Ok(frame) => Ok(frame),
            Err(end) => bail!("{end} before {what} came"),
        }
    }

    async fn read(&mut self, until: Instant, patience: Duration, what: &str) -> Result<Heard> {
        loop {
            let text = match timeout(until.saturating_duration_since(Instant::now()), self.channel.text()).await {
                Err(_) => bail!("{what} did not come within {} s", patience.as_secs()),
                Ok(Err(end)) => return Ok(Err(end)),
                Ok(Ok(text)) => text,
            };
            let frame = self.check(&text)?;
            if frame["type"] == "session.ping" && self.answers_pings {
                self.pong(&frame).await?;
                continue;
            }
            return Ok(Ok(frame));
        }
    }

    /// Answers a ping.
    pub async fn pong(&mut self, ping: &Value) -> Result<()> {
        let received_at = Clock::system().now().to_string();
        let pong = json!({ "ping_nonce": ping["payload"]["nonce"], "received_at": received_at });
        self.send("session.pong", pong).await?;
        Ok(())
    }

    /// The first frame that `wanted` wants; the others stay for later.
    pub async fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        if let Some(frame) = self.queue.iter().position(&wanted).and_then(|at| self.queue.remove(at)) {
            return Ok(frame);
        }
        let until = Instant::now() + self.patience;
        loop {
            match self.read(until, self.patience, &format!("{what}{}", self.instead())).await? {
                Ok(frame) if wanted(&frame) => return Ok(frame),
                Ok(frame) => self.queue.push_back(frame),
                Err(end) => bail!("{end} before {what} came{}", self.instead()),
            }
        }
    }

    /// What has come instead of what is waited for.
    fn instead(&self) -> String {
        let kinds: Vec<&str> = self.queue.iter().filter_map(|frame| frame["type"].as_str()).take(5).collect();
        if kinds.is_empty() { String::new() } else { format!(" (what came is {})", kinds.join(", ")) }
    }

    /// The answer to a request, which is of type `kind` or a refusal.
    ///
    /// Runtimes name the request in different places, and some nowhere; then the next frame that could be an answer is.
    pub async fn reply(&mut self, id: &str, kind: &str) -> Result<Value> {
        let jobs = mem::take(&mut self.jobs);
        let reply = self.find(kind, |frame| answers(frame, id, kind, &jobs)).await;
        self.jobs = jobs;
        reply
    }

    /// Sends a request and waits for its answer.
    pub async fn request(&mut self, kind: &str, payload: Value, reply: &str) -> Result<Value> {
        let id = self.send(kind, payload).await?;
        self.reply(&id, reply).await
    }

    /// Sends a submission, and gives its answer.
    pub async fn submit(&mut self, payload: Value) -> Result<Value> {
        let id = self.send("job.submit", payload).await?;
        self.submitted(&id).await
    }

    /// The answer to a submission.
    pub async fn submitted(&mut self, id: &str) -> Result<Value> {
        let reply = self.reply(id, "job.accepted").await?;
        if let Ok(job_id) = job_id(&reply) {
            self.jobs.insert(job_id);
        }
        Ok(reply)
    }

    /// Submits, and gives the id of the accepted job.
    pub async fn job(&mut self, agent: &str, input: Value) -> Result<String> {
        let reply = self.submit(json!({ "agent": agent, "input": input })).await?;
        job_id(&reply)
    }

    /// The next frame of a job's stream: an event or its end.
    pub async fn of_job(&mut self, job_id: &str) -> Result<Value> {
        self.find(&format!("the next event of {job_id}"), |frame| is_of_job(frame, job_id)).await
    }

    /// Everything of a job up to its end, which is last.
    pub async fn follow(&mut self, job_id: &str) -> Result<Vec<Value>> {
        let mut frames = Vec::new();
        loop {
            let frame = self.of_job(job_id).await?;
            let is_end = frame["type"] != "job.event";
            frames.push(frame);
            if is_end {
                return Ok(frames);
            }
        }
    }

    /// The frame a job ends with.
    pub async fn end(&mut self, job_id: &str) -> Result<Value> {
        self.follow(job_id).await?.pop().context("a job that was followed has an end")
    }

    /// Asks for a sign of life, which a session that works gives, and gives all that came before it.
    pub async fn settle(&mut self) -> Result<Vec<Value>> {
        if self.has("heartbeat") {
            let nonce = new_id()?;
            self.send("session.ping", json!({ "nonce": nonce, "sent_at": Clock::system().now().to_string() })).await?;
            let is_pong =
                |frame: &Value| frame["type"] == "session.pong" && frame["payload"]["ping_nonce"] == nonce.as_str();
            self.find("session.pong, to see that the session works", is_pong).await?;
        } else {
            let reply = self.submit(json!({ "agent": "echo", "input": {} })).await?;
            self.end(&job_id(&reply).context("to see that the session works, echo was submitted")?).await?;
        }
        Ok(self.unread())
    }

    /// What came and was not waited for.
    pub fn unread(&mut self) -> Vec<Value> {
        self.queue.drain(..).collect()
    }

    /// One page of the listing (ARCP §6.6).
    pub async fn list(&mut self, payload: Value) -> Result<Value> {
        let id = self.send("session.list_jobs", payload).await?;
        let reply = self.reply(&id, "session.jobs").await?;
        ensure!(reply["type"] == "session.jobs", "a listing is refused: {}", brief(&reply));
        ensure!(reply["payload"]["request_id"] == id.as_str(), "`request_id` is not that of the request");
        ensure!(reply["payload"]["jobs"].is_array(), "`jobs` is no array: {}", brief(&reply));
        Ok(reply["payload"].clone())
    }

    /// All entries of a listing, page by page.
    pub async fn list_all(&mut self, filter: Value, limit: u64) -> Result<Vec<Value>> {
        let mut entries = Vec::new();
        let mut cursor = Value::Null;
        for _ in 0..PAGES_MAX {
            let page = self.list(json!({ "filter": filter, "limit": limit, "cursor": cursor })).await?;
            entries.extend(page["jobs"].as_array().into_iter().flatten().cloned());
            cursor = page["next_cursor"].clone();
            if cursor.is_null() {
                return Ok(entries);
            }
        }
        skip(format!("the runtime lists more than {PAGES_MAX} pages"))
    }

    /// A job's entry in the listing, if it has one.
    pub async fn listed(&mut self, job_id: &str) -> Result<Option<Value>> {
        let entries = self.list_all(json!({}), 100).await?;
        Ok(entries.into_iter().find(|entry| entry["job_id"] == job_id))
    }

    /// Reads the listing until a job has ended, and gives its status.
    pub async fn status_at_end(&mut self, job_id: &str) -> Result<String> {
        let until = Instant::now() + self.patience;
        loop {
            let entry = self.listed(job_id).await?.with_context(|| format!("{job_id} is not listed"))?;
            match entry["status"].as_str() {
                Some("pending" | "running") => ensure!(Instant::now() < until, "{job_id} does not end"),
                Some(status) => return Ok(status.to_owned()),
                None => bail!("an entry has no status: {}", brief(&entry)),
            }
        }
    }

    /// Asks for the end of a job, naming it in the envelope and in the payload.
    pub async fn cancel(&mut self, job_id: &str) -> Result<String> {
        // The draft shows no payload; the Python SDK's runtime wants a reason.
        let payload = json!({ "job_id": job_id, "reason": "no longer needed" });
        self.send_with("job.cancel", json!({ "job_id": job_id }), payload).await
    }

    /// Attaches to a job (ARCP §7.6).
    pub async fn subscribe(&mut self, job_id: &str, from: Option<u64>, history: bool) -> Result<Value> {
        let mut payload = json!({ "job_id": job_id, "history": history });
        if let Some(from) = from {
            payload["from_event_seq"] = from.into();
        }
        self.request("job.subscribe", payload, "job.subscribed").await
    }

    /// Holds a frame against what the draft says of every frame.
    fn check(&mut self, text: &str) -> Result<Value> {
        let frame: Value = serde_json::from_str(text)
            .with_context(|| format!("the runtime sent what is not JSON: {}", short(text)))?;
        let broken = |rule: &str| format!("{rule} (ARCP §5): {}", brief(&frame));
        ensure!(frame.is_object(), broken("a frame is a JSON object"));
        ensure!(frame["arcp"].is_string(), broken("a frame has `arcp`"));
        ensure!(frame["id"].as_str().is_some_and(|id| !id.is_empty()), broken("a frame has an `id`"));
        let kind = frame["type"].as_str().unwrap_or_default();
        ensure!(!kind.is_empty(), broken("a frame has a `type`"));
        ensure!(frame["payload"].is_object(), broken("a frame has a `payload`"));
        if let (Some(own), Some(theirs)) = (&self.session_id, frame["session_id"].as_str()) {
            ensure!(own == theirs, broken("`session_id` is that of the session"));
        }
        if matches!(kind, "job.event" | "job.result") {
            let all = ["session_id", "job_id"].iter().all(|key| frame[*key].is_string()) && frame["event_seq"].is_u64();
            ensure!(all, "an event has session_id, job_id and event_seq (ARCP §8.1): {}", brief(&frame));
        }
        if !frame["event_seq"].is_null() {
            let seq = frame["event_seq"].as_u64();
            let seq = seq.with_context(|| format!("`event_seq` is no whole number: {}", brief(&frame)))?;
            let uncounted = kind.starts_with("session.") && kind != "session.error";
            ensure!(!uncounted, "`{kind}` is not counted in event_seq (ARCP §6.4, §6.5)");
            // The draft does not say where a stream begins.
            let fits = self.last_seq.map_or(seq <= 1, |last| seq == last + 1);
            let last = self.last_seq.map_or("nothing".to_owned(), |last| last.to_string());
            ensure!(fits, "event_seq {seq} came after {last} (ARCP §8.3)");
            self.last_seq = Some(seq);
        }
        if matches!(kind, "job.error" | "session.error") {
            let payload = &frame["payload"];
            let code = serde_json::from_value::<ErrorCode>(payload["code"].clone());
            let code = code.map_err(|_| anyhow::anyhow!("no code of ARCP §12: {}", brief(&frame)))?;
            let retryable = payload["retryable"].as_bool();
            let retryable =
                retryable.with_context(|| format!("an error says `retryable` (ARCP §12): {}", brief(&frame)))?;
            match code {
                ErrorCode::LeaseExpired | ErrorCode::BudgetExhausted => {
                    ensure!(!retryable, "{} is not retryable (ARCP §12)", payload["code"]);
                }
                ErrorCode::InternalError => ensure!(retryable, "INTERNAL_ERROR is retryable (ARCP §12)"),
                _ => {}
            }
        }
        Ok(frame)
    }
}

/// How many pages of a listing are read.
const PAGES_MAX: usize = 500;

impl Channel {
    /// The next text, or how the connection ended.
    async fn text(&mut self) -> Result<String, String> {
        match self {
            Self::Socket(socket) => loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                    Some(Ok(Message::Binary(_))) => return Err("the runtime sent a binary message".to_owned()),
                    Some(Ok(Message::Close(Some(close)))) => {
                        let reason =
                            if close.reason.is_empty() { String::new() } else { format!(": {}", close.reason) };
                        return Err(format!("the runtime closed the connection (code {}{reason})", close.code));
                    }
                    Some(Ok(Message::Close(None))) | None => {
                        return Err("the runtime closed the connection without a reason".to_owned());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(format!("the connection broke ({error})")),
                }
            },
            Self::Child(child) => loop {
                match child.stdout.recv().await {
                    Incoming::Text(text) => return Ok(text),
                    Incoming::Alive => {}
                    Incoming::TooLarge => return Err("the runtime wrote a line that is too long".to_owned()),
                    Incoming::NotText => return Err("the runtime wrote what is not UTF-8".to_owned()),
                    Incoming::Closed(_) => {
                        // Its output ended a moment before it does.
                        let status = timeout(Duration::from_secs(1), child.child.wait()).await;
                        let status = status.ok().and_then(Result::ok).map(|status| format!(" ({status})"));
                        let said = last_line(&child.stderr).map(|line| format!("; its last words: {}", short(&line)));
                        let [status, said] = [status, said].map(Option::unwrap_or_default);
                        return Err(format!("the runtime's output ended{status}{said}"));
                    }
                }
            },
        }
    }
}

/// Whether `frame` answers the request `id` with `kind` or a refusal.
fn answers(frame: &Value, id: &str, kind: &str, jobs: &BTreeSet<String>) -> bool {
    let of_stream = !frame["event_seq"].is_null() && frame["job_id"].as_str().is_some_and(|id| jobs.contains(id));
    if of_stream || !(frame["type"] == kind || is_refusal(frame)) {
        return false;
    }
    let named = [&frame["payload"]["request_id"], &frame["payload"]["reply_to"], &frame["correlation_id"]];
    let mut named = named.into_iter().filter_map(Value::as_str).peekable();
    let names_nobody = named.peek().is_none();
    frame["id"] == id || named.any(|named| named == id) || names_nobody
}

/// Whether a frame says no.
pub fn is_refusal(frame: &Value) -> bool {
    matches!(frame["type"].as_str(), Some("job.error" | "session.error" | "nack"))
}

/// The code of a refusal.
pub fn refusal(frame: &Value) -> &str {
    let code = frame["payload"]["code"].as_str().or_else(|| frame["payload"]["error"]["code"].as_str());
    code.unwrap_or_default()
}

/// Asserts that a frame is a refusal with one of these codes.
pub fn is_refused(frame: &Value, codes: &[&str]) -> Result<()> {
    let wanted = codes.join(" or ");
    ensure!(is_refusal(frame), "it is answered with {} and not with {wanted}", brief(frame));
    ensure!(codes.contains(&refusal(frame)), "it is refused with {} and not with {wanted}", brief(frame));
    Ok(())
}

/// The job of a `job.accepted`.
pub fn job_id(reply: &Value) -> Result<String> {
    ensure!(reply["type"] == "job.accepted", "a submission is answered with {}", brief(reply));
    let job_id = reply["payload"]["job_id"].as_str().filter(|id| !id.is_empty());
    Ok(job_id.with_context(|| format!("job.accepted has no `job_id`: {}", brief(reply)))?.to_owned())
}

/// Whether a frame is an event of a job or its end.
pub fn is_of_job(frame: &Value, job_id: &str) -> bool {
    let kind = frame["type"].as_str().unwrap_or_default();
    let ends = matches!(kind, "job.result" | "job.error") && frame["payload"]["final_status"].is_string();
    frame["job_id"] == job_id && (kind == "job.event" || ends)
}

/// Asserts that a job ended well.
pub fn succeeded(end: &Value) -> Result<()> {
    let fine = end["type"] == "job.result" && end["payload"]["final_status"] == "success";
    ensure!(fine, "the job ended with {}", brief(end));
    Ok(())
}

/// The result in a `job.result`; the draft does not name its key.
pub fn result(end: &Value) -> &Value {
    ["result", "output"].iter().map(|key| &end["payload"][*key]).find(|value| !value.is_null()).unwrap_or(&Value::Null)
}

/// The payloads of frames, which are the same whoever reads them and however often.
pub fn payloads(frames: &[Value]) -> Vec<Value> {
    frames.iter().map(|frame| frame["payload"].clone()).collect()
}

/// The texts of an array.
pub fn strings(array: &Value) -> Vec<String> {
    array.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A frame in few words, without what is secret in it.
pub fn brief(frame: &Value) -> String {
    let mut frame = frame.clone();
    if let Some(payload) = frame.get_mut("payload").and_then(Value::as_object_mut) {
        payload.remove("resume_token");
        payload.remove("credentials");
    }
    let kind = frame["type"].as_str().unwrap_or_default();
    let shown = if kind.is_empty() { &frame } else { &frame["payload"] };
    short(&format!("{kind} {shown}"))
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHORT_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// How much of a frame is shown.
const SHORT_CHARS: usize = 160;

/// An id that no other message has.
///
/// Its form is none of an SDK's, so that no runtime takes the suite for one, and one that every SDK's runtime takes.
pub fn new_id() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let millis = u64::try_from(Clock::system().now().as_millis()).unwrap_or(0);
    Ok(format!("req_{}", Ulid::from_parts(millis, u128::from_ne_bytes(random))))
}
