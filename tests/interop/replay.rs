//! Frames as an SDK sends them, replayed against a host; what comes back is held against what that SDK reads.
//!
//! The SDKs of this folder that no package registry carries cannot be run here.
//! So each file has what its client was seen to send, and the table of what it
//! demands; the scenarios are the same for all.

use leasehold::transport::websocket::{WebSocketConfig, connect};
use leasehold_core::protocol::{
    client::{ClientMessage, decode},
    dialect::detect,
};
use leasehold_tests::{
    RawClient, TestHost,
    host::{ALICE, token},
};
use serde_json::{Value, json};

use crate::strict::{Context, check};

/// One SDK's client.
pub struct Sdk {
    /// Its dialect.
    pub name: &'static str,
    /// The id of its n-th message.
    pub id: fn(usize) -> String,
    /// What else its envelopes have: at the hello, and later, given the session.
    pub hello_envelope: fn() -> Value,
    pub envelope: fn(session_id: &str) -> Value,
    /// Its `session.hello`.
    pub hello: fn(token: &str) -> Value,
    /// What its submissions have besides `agent` and `input`.
    pub submit: fn() -> Value,
    /// The lease of a submission, in its own shape, with one US dollar to spend and all files to read.
    pub lease: fn() -> Value,
    /// What its cancellation has in the envelope and in the payload.
    pub cancel: fn(job_id: &str) -> (Value, Value),
    /// What its subscriptions have in the envelope, and in the payload; they ask for what was told before, too.
    pub subscribe: fn(job_id: &str) -> (Value, Value),
    /// Its `session.list_jobs`.
    pub list: fn() -> Value,
    /// The type with which it says goodbye.
    pub close: &'static str,
    /// The type in which it reads how a cancelled job ended.
    pub cancelled: &'static str,
    /// What it demands of what it reads, see [`crate::strict`].
    pub reads: &'static str,
}

/// `msg_<ULID>`
pub fn prefixed(n: usize) -> String {
    format!("msg_{}", ulid(n))
}

/// `<ULID>`
pub fn ulid(n: usize) -> String {
    format!("01KRHAB7S0000000000000{n:04}")
}

/// A UUID of version 7.
pub fn uuid(n: usize) -> String {
    format!("0196b1de-7b1a-7cc0-8000-{n:012}")
}

/// What most envelopes have.
pub fn plain(session_id: &str) -> Value {
    json!({ "session_id": session_id })
}

pub fn nothing() -> Value {
    json!({})
}

/// As the draft has it.
pub fn lease() -> Value {
    json!({ "fs.read": ["/**"], "cost.budget": ["USD:1"] })
}

/// The job in the envelope, the reason in the payload.
pub fn cancel(job_id: &str) -> (Value, Value) {
    (json!({ "job_id": job_id }), json!({ "reason": "enough" }))
}

/// The same with the job in both.
pub fn cancel_twice(job_id: &str) -> (Value, Value) {
    (json!({ "job_id": job_id }), json!({ "job_id": job_id, "reason": "enough" }))
}

/// A subscription that names the job in the payload alone.
pub fn subscribe(job_id: &str) -> (Value, Value) {
    (json!({}), json!({ "job_id": job_id, "from_event_seq": 0, "history": true }))
}

/// The same with the job in both.
pub fn subscribe_twice(job_id: &str) -> (Value, Value) {
    (json!({ "job_id": job_id }), json!({ "job_id": job_id, "from_event_seq": 0, "history": true }))
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A client of an SDK, connected over WebSocket.
struct Client<'a> {
    sdk: &'a Sdk,
    raw: RawClient,
    sent: usize,
    host: TestHost,
}

impl<'a> Client<'a> {
    async fn connect(sdk: &'a Sdk) -> Self {
        let host = TestHost::builder().policy(ALICE, json!({ "fs.read": ["**"] })).start().await;
        let url = host.serve_url().await;
        let transport = connect(&url, &WebSocketConfig::default()).await.expect("the host listens");
        Self { sdk, raw: RawClient::new(transport), sent: 0, host }
    }

    async fn welcomed(sdk: &'a Sdk) -> Self {
        let mut client = Self::connect(sdk).await;
        let request = client.say("session.hello", (sdk.hello_envelope)(), (sdk.hello)(&token(ALICE))).await;
        let welcome = client.raw.recv().await;
        client.reads("session.welcome", &welcome, &Context { request, ..Context::default() });
        client.raw.belongs_to(welcome["session_id"].as_str().expect("checked as it came"));
        client
    }

    /// Sends a frame, and gives its id.
    async fn say(&mut self, kind: &str, envelope: Value, payload: Value) -> String {
        self.sent += 1;
        let id = (self.sdk.id)(self.sent);
        let mut frame = json!({ "arcp": "1.1", "id": id, "type": kind, "payload": payload });
        for (key, value) in envelope.as_object().into_iter().flatten() {
            frame[key] = value.clone();
        }
        self.raw.send_frame(&frame).await;
        id
    }

    /// As [`say`](Self::say), in the session.
    async fn ask(&mut self, kind: &str, envelope: Value, payload: Value) -> String {
        let mut all = (self.sdk.envelope)(self.raw.session_id());
        for (key, value) in envelope.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        self.say(kind, all, payload).await
    }

    async fn submit(&mut self, agent: &str, input: Value, more: Value) -> Context {
        let mut payload = (self.sdk.submit)();
        (payload["agent"], payload["input"]) = (agent.into(), input);
        for (key, value) in more.as_object().into_iter().flatten() {
            payload[key] = value.clone();
        }
        let request = self.ask("job.submit", json!({ "trace_id": TRACE }), payload).await;
        Context { request, trace_id: TRACE.to_owned(), job_id: String::new() }
    }

    /// Submits, and reads that a job was made of it.
    async fn accepted(&mut self, agent: &str, input: Value, more: Value) -> (Context, Value) {
        let mut context = self.submit(agent, input, more).await;
        let accepted = self.raw.recv().await;
        accepted["job_id"].as_str().unwrap_or_default().clone_into(&mut context.job_id);
        self.reads("job.accepted", &accepted, &context);
        (context, accepted)
    }

    fn reads(&self, what: &str, frame: &Value, context: &Context) {
        let kind = what.strip_prefix("watched.").unwrap_or(what);
        if !kind.starts_with("refused.") && !kind.starts_with("event.") {
            assert_eq!(frame["type"], kind, "{frame}");
        }
        check(self.sdk.reads, what, frame, context);
    }

    /// Reads frames until one of this type, and holds all of them against the table.
    async fn until(&mut self, wanted: &str, context: &Context) -> Value {
        loop {
            let frame = self.raw.recv().await;
            let found = frame["type"].as_str().unwrap_or_default().to_owned();
            let is_wanted = wanted.strip_prefix("watched.").unwrap_or(wanted) == found;
            self.reads(if is_wanted { wanted } else { &found }, &frame, context);
            let event = if found == "subscribe.event" { &frame["payload"]["event"] } else { &frame };
            if event["type"] == "job.event" {
                let kind = event["payload"]["kind"].as_str().expect("an event has a kind");
                // Only what an SDK is strict about has lines of its own.
                if self.sdk.reads.contains(&format!("event.{kind} ")) {
                    self.reads(&format!("event.{kind}"), event, context);
                }
            }
            if is_wanted {
                return frame;
            }
        }
    }

    /// A listing, which proves that the session lives.
    async fn list(&mut self) -> Value {
        let request = self.ask("session.list_jobs", json!({}), (self.sdk.list)()).await;
        self.until("session.jobs", &Context { request, ..Context::default() }).await
    }
}

pub async fn is_recognised_and_welcomed(sdk: &Sdk) {
    let mut frame = json!({ "arcp": "1.1", "id": (sdk.id)(1), "type": "session.hello",
        "payload": (sdk.hello)("t") });
    for (key, value) in (sdk.hello_envelope)().as_object().into_iter().flatten() {
        frame[key] = value.clone();
    }
    match decode(&frame.to_string()).expect("its hello is understood").message {
        ClientMessage::Hello(hello) => assert_eq!(detect(&(sdk.id)(1), &hello, None).name, sdk.name),
        other => panic!("{other:?}"),
    }
    let mut client = Client::welcomed(sdk).await;
    client.list().await;
    let request = client.ask(sdk.close, json!({}), json!({ "reason": "done" })).await;
    client.until("session.closed", &Context { request, ..Context::default() }).await;
    assert_eq!(client.raw.closed().await.code, 1000);
}

pub async fn is_told_that_its_token_is_wrong(sdk: &Sdk) {
    let mut client = Client::connect(sdk).await;
    let request = client.say("session.hello", (sdk.hello_envelope)(), (sdk.hello)("wrong")).await;
    let refused = client.raw.recv().await;
    client.reads("refused.session", &refused, &Context { request, ..Context::default() });
    assert_eq!(client.raw.closed().await.code, 1008);
}

pub async fn runs_a_job_to_its_result(sdk: &Sdk) {
    let mut client = Client::welcomed(sdk).await;
    let more = json!({ "lease_request": (sdk.lease)() });
    let (context, accepted) = client.accepted("echo", json!({ "n": [1, null] }), more).await;
    assert!(accepted["payload"].get("budget").is_some(), "{accepted}");
    let result = client.until("job.result", &context).await;
    let value = ["result", "output"].map(|key| &result["payload"][key]);
    assert!(value.contains(&&json!({ "n": [1, null] })), "{result}");
    let listed = client.list().await;
    assert_eq!(listed["payload"]["jobs"][0]["job_id"], context.job_id, "{listed}");
}

pub async fn reads_every_kind_of_event(sdk: &Sdk) {
    let mut client = Client::welcomed(sdk).await;
    let steps = json!([
        { "do": "events_flood", "count": 1 },
        { "do": "big_argument", "bytes": 3, "via": "thought" },
        { "do": "forge_status", "phase": "reading" },
        { "do": "metric", "name": "t", "value": "0.250", "unit": "s", "dimensions": { "a": "1" } },
        { "do": "bad_progress", "current": 3, "total": 4 },
        { "do": "bad_artifact", "uri": "file:///w/a", "sha256": "0".repeat(64) },
        { "do": "bad_vendor", "kind": "x-vendor.acme.k", "body": "{}" },
        { "do": "read", "path": "/nowhere" },
    ]);
    let input = json!({ "do": "steps", "steps": steps });
    let (context, _) = client.accepted("hostile", input, json!({ "lease_request": (sdk.lease)() })).await;
    client.until("job.result", &context).await;
}

pub async fn is_refused_one_submission_and_goes_on(sdk: &Sdk) {
    let mut client = Client::welcomed(sdk).await;
    let (sleeper, _) = client.accepted("sleeper", json!({ "sec": 600 }), json!({})).await;
    let refused = client.submit("nobody", json!({}), json!({})).await;
    let frame = client.raw.recv().await;
    client.reads("refused.submit", &frame, &Context { job_id: sleeper.job_id.clone(), ..refused });
    let listed = client.list().await;
    assert_eq!(listed["payload"]["jobs"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["payload"]["jobs"][0]["status"], "running", "{listed}");
}

pub async fn cancels_a_job(sdk: &Sdk) {
    let mut client = Client::welcomed(sdk).await;
    let (submitted, _) = client.accepted("sleeper", json!({ "sec": 600 }), json!({})).await;
    let (envelope, payload) = (sdk.cancel)(&submitted.job_id);
    let request = client.ask("job.cancel", envelope, payload).await;
    let cancelled = client.until("job.cancelled", &Context { request, ..submitted.clone() }).await;
    assert_eq!(cancelled["payload"]["reason"], "enough", "{cancelled}");
    let end = client.until(sdk.cancelled, &submitted).await;
    assert_eq!(end["payload"]["final_status"], "cancelled", "{end}");
}

pub async fn is_refused_a_listing(sdk: &Sdk) {
    let mut client = Client::welcomed(sdk).await;
    let mut payload = (sdk.list)();
    payload["cursor"] = "no such cursor".into();
    let request = client.ask("session.list_jobs", json!({}), payload).await;
    let refused = client.raw.recv().await;
    client.reads("refused.list", &refused, &Context { request, ..Context::default() });
    client.list().await;
}

/// ARCP §7.6
pub async fn watches_a_job_of_another_session(sdk: &Sdk) {
    let mut client = Client::welcomed(sdk).await;
    let mut owner = client.host.session().await;
    let run = owner.submit("chatty").input(json!({ "count": 3 })).run().await;
    let (envelope, payload) = (sdk.subscribe)(run.job_id());
    let request = client.ask("job.subscribe", envelope, payload).await;
    let context = Context { request, job_id: run.job_id().to_owned(), ..Context::default() };
    let subscribed = client.raw.recv().await;
    client.reads("job.subscribed", &subscribed, &context);
    // It submitted nothing that this could be the end of.
    let end = client.until("watched.job.result", &context).await;
    assert_eq!((&end["event_seq"], &end["payload"]["final_status"]), (&json!(4), &json!("success")), "{end}");
}

/// ARCP §7.6
pub async fn is_refused_a_subscription(sdk: &Sdk) {
    let mut client = Client::welcomed(sdk).await;
    let unknown = format!("job_{}", ulid(1));
    let (envelope, payload) = (sdk.subscribe)(&unknown);
    let request = client.ask("job.subscribe", envelope, payload).await;
    let refused = client.raw.recv().await;
    client.reads("refused.subscribe", &refused, &Context { request, job_id: unknown, ..Context::default() });
    client.list().await;
}

/// The scenarios of one SDK.
macro_rules! replays {
    ($sdk:expr) => {
        replays! { $sdk;
            is_recognised_and_welcomed is_told_that_its_token_is_wrong runs_a_job_to_its_result
            reads_every_kind_of_event is_refused_one_submission_and_goes_on cancels_a_job is_refused_a_listing
            watches_a_job_of_another_session is_refused_a_subscription
        }
    };
    ($sdk:expr; $($scenario:ident)*) => {
        $(
            #[tokio::test]
            async fn $scenario() {
                crate::replay::$scenario(&$sdk).await;
            }
        )*
    };
}
pub(crate) use replays;
