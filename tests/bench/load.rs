//! Jobs over a loopback WebSocket, as many and as fast as they come back.
//!
//! The load is bare: it writes texts and looks for words in what it receives,
//! so that on a machine of two cores the host is what is measured.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use leasehold::transport::{
    Incoming, Transport,
    websocket::{self, WebSocketConfig},
};
use leasehold_tests::agents_dir;

use crate::{
    Row, Times, pieces,
    program::{Program, TOKEN},
};

/// Jobs one after the other.
const SEQUENTIAL: usize = 2000;

/// Sessions at once, and how many jobs of each are under way.
const SESSIONS: usize = 4;
const IN_FLIGHT: usize = 16;

/// How long the throughput is measured.
const SPELL: Duration = Duration::from_secs(8);

/// One session of a client that only counts.
pub struct Bare {
    transport: Transport,
    session_id: String,
    sent: u64,
}

impl Bare {
    /// Connects and says hello. Ids are ULIDs: there are runtimes that take nothing else.
    pub async fn connect(url: &str, token: &str) -> Self {
        Self::offering(url, token, &[]).await
    }

    /// As [`connect`](Self::connect), with features.
    pub async fn offering(url: &str, token: &str, features: &[&str]) -> Self {
        let transport = websocket::connect(url, &WebSocketConfig::default()).await.expect("the host listens");
        let mut bare = Self { transport, session_id: String::new(), sent: 0 };
        let hello = serde_json::json!({
            "arcp": "1.1",
            "id": "01BENCH0000000000000000000",
            "type": "session.hello",
            "payload": {
                "client": { "name": "bench", "version": "1" },
                "auth": { "scheme": "bearer", "token": token },
                "capabilities": { "encodings": ["json"], "features": features },
            },
        });
        bare.transport.send(hello.to_string()).await.expect("the host reads");
        let welcome = bare.text().await;
        assert!(welcome.contains("session.welcome"), "{welcome}");
        let welcome: serde_json::Value = serde_json::from_str(&welcome).expect("a welcome is JSON");
        let session_id = welcome["session_id"].as_str().or(welcome["payload"]["session_id"].as_str());
        bare.session_id = session_id.expect("a session has an id").to_owned();
        bare
    }

    /// Sends a submission, to be flushed with those after it.
    pub async fn feed(&mut self, agent: &str, input: &str) {
        self.feed_payload(&format!("{{\"agent\":\"{agent}\",\"input\":{input}}}")).await;
    }

    /// As [`feed`](Self::feed), with a payload of the caller's own.
    pub async fn feed_payload(&mut self, payload: &str) {
        self.sent += 1;
        let (sent, session_id) = (self.sent, &self.session_id);
        let frame = format!(
            "{{\"arcp\":\"1.1\",\"id\":\"01BENCH{sent:019}\",\"type\":\"job.submit\",\"session_id\":\"{session_id}\",\
             \"payload\":{payload}}}"
        );
        self.transport.feed(frame).await.expect("the host reads");
    }

    /// Sends what was fed.
    pub async fn flush(&mut self) {
        self.transport.flush().await.expect("the host reads");
    }

    async fn text(&mut self) -> String {
        loop {
            match self.transport.recv().await {
                Incoming::Text(text) => return text,
                Incoming::Alive => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The job that was accepted.
    pub async fn job_id(&mut self) -> String {
        let accepted: serde_json::Value = serde_json::from_str(&self.text().await).expect("a frame is JSON");
        accepted["payload"]["job_id"].as_str().expect("an acceptance names a job").to_owned()
    }

    /// Subscribes to a job with all it told.
    pub async fn subscribe(&mut self, job_id: &str) {
        let session_id = &self.session_id;
        let frame = format!(
            "{{\"arcp\":\"1.1\",\"id\":\"01BENCH{:019}\",\"type\":\"job.subscribe\",\"session_id\":\"{session_id}\",\
             \"job_id\":\"{job_id}\",\"payload\":{{\"job_id\":\"{job_id}\",\"history\":true}}}}",
            0
        );
        self.transport.send(frame).await.expect("the host reads");
    }

    /// Reads the events of the only job that the session is told of, and its end; none may be missing.
    pub async fn events_of_one_job(&mut self, count: u64) {
        const SEQ: &str = "\"event_seq\":";
        let (mut first, mut last) = (None, None);
        loop {
            let text = self.text().await;
            let Some(at) = text.find(SEQ) else { continue };
            let digits = &text[at + SEQ.len()..];
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            let seq: u64 = digits[..end].parse().expect("a number");
            assert_eq!(seq, last.map_or(seq, |last| last + 1), "the numbers have no gap");
            let first = *first.get_or_insert(seq);
            last = Some(seq);
            if text.contains("job.result\"") {
                assert_eq!(seq - first, count, "an event for each, and the end");
                return;
            }
        }
    }

    /// Answers pings until it is dropped.
    pub async fn answer_pings(&mut self) {
        loop {
            let text = self.text().await;
            let frame: serde_json::Value = serde_json::from_str(&text).expect("a frame is JSON");
            if frame["type"] == "session.ping" {
                let pong = serde_json::json!({
                    "arcp": "1.1",
                    "id": "01BENCH0000000000000000000",
                    "type": "session.pong",
                    "session_id": self.session_id,
                    "payload": { "ping_nonce": frame["payload"]["nonce"], "received_at": frame["timestamp"] },
                });
                self.transport.send(pong.to_string()).await.expect("the host reads");
            }
        }
    }

    /// Waits for a frame of this type.
    pub async fn wait(&mut self, kind: &str) {
        loop {
            let text = self.text().await;
            let head = &text[..text.floor_char_boundary(512)];
            if text.contains(kind) {
                return;
            }
            assert!(!text.contains("job.error\"") && !text.contains("session.error\""), "{head}");
        }
    }

    /// Waits for the end of a job, whatever it is.
    pub async fn wait_for_end(&mut self) {
        loop {
            let text = self.text().await;
            let head = &text[..text.floor_char_boundary(512)];
            if ["job.result\"", "job.error\"", "session.error\""].iter().any(|end| head.contains(end)) {
                return;
            }
        }
    }

    /// One job from its submission to its result.
    pub async fn echo(&mut self) -> Duration {
        let begun = Instant::now();
        self.feed("echo", r#"{"n":1}"#).await;
        self.flush().await;
        self.wait("job.result\"").await;
        begun.elapsed()
    }
}

/// Submit to result, one job at a time.
pub async fn latency(url: &str, token: &str) -> Times {
    let mut session = Bare::connect(url, token).await;
    let mut times = Vec::new();
    for n in 0..SEQUENTIAL + 200 {
        let took = session.echo().await;
        if n >= 200 {
            times.push(took);
        }
    }
    Times::new(times)
}

/// Jobs a second with [`SESSIONS`] sessions of [`IN_FLIGHT`] jobs each.
pub async fn throughput(url: &str, token: &str) -> f64 {
    let until = Instant::now() + SPELL;
    let begun = Instant::now();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let mut session = Bare::connect(url, token).await;
        sessions.push(tokio::spawn(async move {
            for _ in 0..IN_FLIGHT {
                session.feed("echo", r#"{"n":1}"#).await;
            }
            session.flush().await;
            let mut done = 0_u32;
            while Instant::now() < until {
                session.wait("job.result\"").await;
                done += 1;
                session.feed("echo", r#"{"n":1}"#).await;
                session.flush().await;
            }
            done
        }));
    }
    let mut done = 0;
    for session in sessions {
        done += session.await.expect("a session of the load does not fail");
    }
    f64::from(done) / begun.elapsed().as_secs_f64()
}

/// A folder with only these agents.
pub fn folder_of(agents: &[&str], dir: &Path) {
    for agent in agents {
        let file = format!("{agent}@1.0.0.wasm");
        std::fs::copy(agents_dir().join(&file), dir.join(&file)).expect("the agents were built");
    }
}

/// The host under load, with its journal on the disk.
pub async fn echo() -> Vec<Row> {
    let (agents, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    folder_of(&["echo", "hello-rust", "chatty", "sleeper", "summarize-files"], agents.path());
    // The first start compiles, the second is what an operator sees from then on.
    drop(Program::leasehold(agents.path(), &data.path().join("host")));
    let host = Program::leasehold(agents.path(), &data.path().join("host"));
    let ready = host.ready;
    let before = pieces::disk("this disk: fdatasync of 4 KiB appended, before");
    let latency = latency(&host.url, TOKEN).await;
    let jobs = throughput(&host.url, TOKEN).await;
    let after = pieces::disk("the same, after");
    vec![
        Row::new("start to ready line, five agents, compiled before", crate::shown(ready), "< 1 s"),
        before,
        Row::new("`echo` over WebSocket, SQLite FULL: submit to result", latency.figures(), "p50 < 0.5 ms"),
        Row::new("`echo` jobs/s, 4 sessions × 16 in flight, SQLite FULL", format!("{jobs:.0}"), "≥ 8000"),
        after,
    ]
}
