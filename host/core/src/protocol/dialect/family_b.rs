//! Clients from before the draft: crates.io `arcp` 2.0, Kotlin, Swift, older PHP.
//!
//! They have other words for the same things: `session.open` for
//! `session.hello`, `tool.invoke` for `job.submit`, a type of its own for each
//! kind of event. Here their words become the draft's, and the draft's become
//! theirs; the session knows of nothing but the draft.
//!
//! What is told of a job of their own names the invocation, and only what comes in
//! the name of a subscription reaches those who subscribed; so a client that
//! watches a job of its own is told each message twice, under one number.
//!
//! Answers name their request in `correlation_id` and never in `id`, and a type
//! that is unknown to such a client ends it, so nothing is sent but what it knows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Asked, Dialect, RefusalForm::Nack, Refusals, Words, generic};
use crate::{
    error::{ErrorCode, Refusal},
    id::{JobId, SessionId, SubscriptionId},
    lease::{Lease, Namespace},
    protocol::{
        client::{ClientMessage, Patterns, Submit, Subscribe, key, payload, unknown_job},
        credential::ROTATED,
        event::{Encoding, Event, Level, Payload},
        feature::{Feature, Features},
        json::Json,
        server::{AgentInfo, ErasedPayload, Head, JobSummary, Place, ServerMessage, Stamp, Terminal},
        status::Status,
    },
    time::Timestamp,
};

pub const DIALECT: Dialect = Dialect {
    name: "family_b",
    words: Words::Rfc,
    refusals: Refusals { session: Nack, submit: Nack, list: Nack, subscribe: Nack, other: Nack },
    // Its client, too, has to be told of a subscription before it takes what comes of it.
    subscribe_pause: super::python::DIALECT.subscribe_pause,
    ..generic::DIALECT
};

// What comes in ---------------------------------------------------------------

#[derive(Deserialize)]
struct Invoke {
    tool: String,
    #[serde(default)]
    arguments: Json,
    #[serde(default)]
    cost_budget: Option<Patterns>,
    #[serde(default)]
    lease_request: Option<BTreeMap<String, Option<Patterns>>>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
struct Cancel {
    #[serde(default)]
    target: Option<String>,
    target_id: String,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Ping {
    #[serde(default)]
    nonce: Option<String>,
}

#[derive(Deserialize)]
struct Watch {
    #[serde(default)]
    filter: Option<Filter>,
}

#[derive(Default, Deserialize)]
struct Filter {
    #[serde(default)]
    job_id: Option<Patterns>,
}

#[derive(Deserialize)]
struct Unsubscribe {
    subscription_id: String,
}

/// Reads what the draft has no such type for.
pub fn understand(kind: &str, raw: &str, envelope_key: Option<&str>) -> Option<Result<ClientMessage, Refusal>> {
    Some(match kind {
        "tool.invoke" => payload(kind, raw).and_then(|invoke| submit(invoke, envelope_key)),
        "cancel" => payload(kind, raw).and_then(cancel),
        "ping" => payload(kind, raw)
            .map(|Ping { nonce }| ClientMessage::Ping { nonce: nonce.unwrap_or_default(), plain: true }),
        "subscribe" => payload(kind, raw).and_then(subscribe),
        "unsubscribe" => payload(kind, raw).and_then(|Unsubscribe { subscription_id }| {
            let named = subscription_id.parse::<SubscriptionId>();
            let job_id = named.map_err(|_| unknown_job(&subscription_id))?;
            Ok(ClientMessage::Unsubscribe { job_id: JobId::new(job_id.ulid()) })
        }),
        "artifact.put" | "artifact.fetch" => Err(Refusal::invalid(format!("this host keeps no artifacts: `{kind}`"))),
        _ => return None,
    })
}

fn submit(invoke: Invoke, envelope_key: Option<&str>) -> Result<ClientMessage, Refusal> {
    let written = invoke.lease_request.unwrap_or_default();
    let mut lease_request: BTreeMap<String, Vec<String>> = written
        .into_iter()
        .filter_map(|(namespace, patterns)| patterns.map(|Patterns(patterns)| (namespace, patterns)))
        .collect();
    let expires_at = lease_request.remove("expires_at").and_then(|texts| texts.into_iter().next());
    for (written, namespace) in [("cost_budget", Namespace::CostBudget), ("model_use", Namespace::ModelUse)] {
        if let Some(patterns) = lease_request.remove(written) {
            lease_request.insert(namespace.to_string(), patterns);
        }
    }
    // What stands in the lease is the newer form of the two.
    if let Some(Patterns(amounts)) = invoke.cost_budget {
        lease_request.entry(Namespace::CostBudget.to_string()).or_insert(amounts);
    }
    Ok(ClientMessage::Submit(Box::new(Submit {
        agent: invoke.tool,
        input: invoke.arguments,
        lease_request,
        whole: Vec::new(),
        expires_at,
        max_budget: Vec::new(),
        idempotency_key: key(invoke.idempotency_key, envelope_key)?,
        max_runtime_sec: None,
    })))
}

fn cancel(Cancel { target, target_id, reason }: Cancel) -> Result<ClientMessage, Refusal> {
    match target.as_deref() {
        None | Some("job") => {
            let job_id = target_id.parse().map_err(|_| unknown_job(&target_id))?;
            Ok(ClientMessage::Cancel { job_id, reason })
        }
        Some(_) => Err(Refusal::invalid("cancel: only a `job` can be the `target`")),
    }
}

/// A subscription is to one job, whose id makes its own.
fn subscribe(Watch { filter }: Watch) -> Result<ClientMessage, Refusal> {
    let Patterns(jobs) = filter.unwrap_or_default().job_id.unwrap_or(Patterns(Vec::new()));
    match &jobs[..] {
        [job_id] => {
            let job_id = job_id.parse().map_err(|_| unknown_job(job_id))?;
            Ok(ClientMessage::Subscribe(Subscribe { job_id, history_after: None }))
        }
        _ => Err(Refusal::invalid("subscribe: `payload.filter.job_id` must name one job")),
    }
}

// What goes out ---------------------------------------------------------------

/// Writes a message of the draft in the words of before it.
pub fn encode(message: &ServerMessage, stamp: &Stamp<'_>) -> String {
    let write = |head: Head<'_>, payload: &dyn ErasedPayload| payload.frame(head, stamp);
    match message {
        ServerMessage::Welcome(welcome) => {
            let (kind, version) = ("leasehold", env!("CARGO_PKG_VERSION"));
            let accepted = Accepted {
                session_id: stamp.session_id,
                runtime: Runtime { kind, name: kind, version },
                capabilities: Capabilities {
                    durable_jobs: true,
                    subscriptions: welcome.features.has(Feature::Subscribe),
                    model_use: welcome.features.has(Feature::ModelUse),
                    provisioned_credentials: welcome.features.has(Feature::ProvisionedCredentials),
                    features: &welcome.features,
                    agents: &welcome.agents,
                },
                resume_token: welcome.resume_token.expose(),
                resume_window_sec: welcome.resume_window_sec,
            };
            write(Head::of("session.accepted").correlated(&*welcome.request), &accepted)
        }
        ServerMessage::Refused { asked, request, job_id, refusal, .. } => {
            let head = |kind| Head::of(kind).correlated(request.as_deref());
            match (asked, job_id) {
                (Asked::Session, _) if refusal.code == ErrorCode::Unauthenticated => {
                    write(head("session.unauthenticated"), &Why::of(refusal))
                }
                (Asked::Session, _) => write(head("session.rejected"), &Why::of(refusal)),
                (Asked::Cancel, Some(target_id)) => {
                    let refused = CancelRefused { target_id: *target_id, reason: &refusal.message };
                    write(head("cancel.refused"), &refused)
                }
                _ => write(head("nack"), &Why::of(refusal)),
            }
        }
        ServerMessage::Ping { nonce } => write(Head::of("ping"), &Nonce { nonce: &format!("p_{nonce}") }),
        ServerMessage::Pong { request, nonce, plain: true } => {
            write(Head::of("pong").correlated(&**request), &Nonce { nonce })
        }
        ServerMessage::Pong { request, nonce, plain: false } => {
            let pong = SessionPong { ping_nonce: nonce, received_at: stamp.now };
            write(Head::of("session.pong").correlated(&**request), &pong)
        }
        ServerMessage::Closed { request, reason } => {
            let head = Head::of("session.close").correlated(request.as_deref());
            write(head, &Reason { reason: reason.as_deref() })
        }
        ServerMessage::Jobs { request, jobs, next_cursor } => {
            let jobs = jobs.iter().map(Listed::of).collect();
            let listing = Jobs { request_id: request, jobs, next_cursor: next_cursor.as_deref() };
            write(Head::of("session.jobs").correlated(&**request), &listing)
        }
        ServerMessage::Accepted(accepted) => {
            let head = Head::of("job.accepted").job(accepted.job_id, accepted.trace_id).correlated(&*accepted.request);
            write(head, &JobAccepted { job_id: accepted.job_id, agent: &accepted.agent, lease: &accepted.lease })
        }
        ServerMessage::Cancelled { request, job_id, trace_id, .. } => {
            let head = Head::of("cancel.accepted").job(*job_id, *trace_id).correlated(&**request);
            write(head, &CancelAccepted { target_id: *job_id })
        }
        ServerMessage::Subscribed(subscribed) => {
            let subscription_id = SubscriptionId::new(subscribed.job.job_id.ulid());
            let head = Head::of("subscribe.accepted").correlated(&*subscribed.request);
            let head = Head { subscription_id: Some(subscription_id), ..head };
            write(head, &SubscribeAccepted { subscription_id })
        }
        ServerMessage::Event { place, request, ts, event } => {
            let (kind, payload) = told(event, *ts);
            tell(place, request.as_deref(), kind, &*payload, stamp)
        }
        // Such a client is given no key, and has no word for a new one.
        ServerMessage::Rotated { place, request, ts, credential, .. } => {
            let event = Event::Status { phase: ROTATED.to_owned(), message: Some(credential.to_string()) };
            let (kind, payload) = told(&event, *ts);
            tell(place, request.as_deref(), kind, &*payload, stamp)
        }
        ServerMessage::Terminal { place, request, terminal, .. } => {
            let (kind, payload) = ended(terminal);
            tell(place, request.as_deref(), kind, &*payload, stamp)
        }
    }
}

/// What is told of a job: as it is to the session that submitted it, wrapped to one that watches.
fn tell(
    place: &Place,
    request: Option<&str>,
    kind: &'static str,
    payload: &dyn ErasedPayload,
    stamp: &Stamp<'_>,
) -> String {
    let plain = payload.frame(Head::of(kind).place(place).correlated(request), stamp);
    if request.is_some() {
        return plain;
    }
    let event = RawValue::from_string(plain).expect("a frame of ours is JSON");
    let subscription_id = Some(SubscriptionId::new(place.job_id.ulid()));
    Wrapped { event: &event }.frame(Head { subscription_id, ..Head::of("subscribe.event").place(place) }, stamp)
}

/// The type for an event, and its payload.
fn told(event: &Event, ts: Timestamp) -> (&'static str, Box<dyn ErasedPayload + '_>) {
    match event {
        Event::Log { level, message } => ("log", Box::new(Log { level: *level, message })),
        Event::Metric { name, value, unit, dimensions } => {
            let value = RawValue::from_string(value.to_string()).expect("a decimal is a number");
            let unit = unit.as_deref().unwrap_or_default();
            ("metric", Box::new(Metric { name, value, unit, dims: dimensions }))
        }
        Event::Progress { current, total, units, message } => {
            #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more digits")]
            let percent = total.filter(|total| *total > 0).map(|total| *current as f64 / total as f64 * 100.0);
            let (units, message) = (units.as_deref(), message.as_deref());
            ("job.progress", Box::new(Progress { percent, message, current: *current, total: *total, units }))
        }
        Event::ResultChunk { result_id, chunk_seq, data, encoding, more } => {
            let (chunk_seq, encoding, more) = (*chunk_seq, *encoding, *more);
            let chunk = Chunk { result_id: result_id.to_string(), chunk_seq, data, encoding, more };
            ("job.result_chunk", Box::new(chunk))
        }
        // They have no type for the rest, so it is the draft's own `job.event` by that name.
        event => ("event.emit", Box::new(Emit { name: "job.event", data: Payload { event, ts } })),
    }
}

/// The type for the end of a job, and its payload.
fn ended(terminal: &Terminal) -> (&'static str, Box<dyn ErasedPayload + '_>) {
    match terminal {
        Terminal::Inline(value) => {
            ("job.completed", Box::new(Completed { value: Some(value), ..Completed::default() }))
        }
        Terminal::Streamed { result_id, result_size, summary } => {
            let streamed = Completed {
                value: None,
                result_id: Some(result_id.to_string()),
                result_size: Some(*result_size),
                summary: summary.as_deref(),
            };
            ("job.completed", Box::new(streamed))
        }
        Terminal::Failed { status: Status::Cancelled, refusal } => {
            ("job.cancelled", Box::new(Reason { reason: Some(&refusal.message) }))
        }
        Terminal::Failed { refusal, .. } => ("job.failed", Box::new(Why::of(refusal))),
    }
}

/// The code these clients know for one of the draft's; one they do not know ends their reader.
fn code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidRequest => "INVALID_ARGUMENT",
        ErrorCode::JobNotFound | ErrorCode::AgentNotAvailable => "NOT_FOUND",
        ErrorCode::DuplicateKey => "ALREADY_EXISTS",
        ErrorCode::Timeout => "DEADLINE_EXCEEDED",
        ErrorCode::ResumeWindowExpired => "FAILED_PRECONDITION",
        ErrorCode::InternalError => "INTERNAL",
        ErrorCode::PermissionDenied
        | ErrorCode::LeaseSubsetViolation
        | ErrorCode::AgentVersionNotAvailable
        | ErrorCode::Cancelled
        | ErrorCode::HeartbeatLost
        | ErrorCode::LeaseExpired
        | ErrorCode::BudgetExhausted
        | ErrorCode::Unauthenticated => code.as_str(),
    }
}

/// The word for a status.
pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Pending => "accepted",
        Status::Running => "running",
        Status::Success => "completed",
        Status::Error | Status::TimedOut => "failed",
        Status::Cancelled => "cancelled",
    }
}

#[derive(Serialize)]
struct Accepted<'a> {
    session_id: SessionId,
    runtime: Runtime,
    capabilities: Capabilities<'a>,
    resume_token: &'a str,
    resume_window_sec: u32,
}

#[derive(Serialize)]
struct Runtime {
    kind: &'static str,
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Capabilities<'a> {
    durable_jobs: bool,
    subscriptions: bool,
    model_use: bool,
    provisioned_credentials: bool,
    features: &'a Features,
    agents: &'a [AgentInfo],
}

/// A refusal in every place where one of these clients looks for it.
#[derive(Serialize)]
struct Why<'a> {
    code: &'static str,
    message: &'a str,
    retryable: bool,
    error: Inner<'a>,
    detail: &'a str,
}

#[derive(Serialize)]
struct Inner<'a> {
    code: &'static str,
    message: &'a str,
}

impl<'a> Why<'a> {
    fn of(refusal: &'a Refusal) -> Self {
        let (code, message) = (code(refusal.code), &*refusal.message);
        let retryable = refusal.code.retryable();
        Self { code, message, retryable, error: Inner { code, message }, detail: message }
    }
}

#[derive(Serialize)]
struct CancelRefused<'a> {
    target_id: JobId,
    reason: &'a str,
}

#[derive(Serialize)]
struct CancelAccepted {
    target_id: JobId,
}

#[derive(Serialize)]
struct Nonce<'a> {
    nonce: &'a str,
}

#[derive(Serialize)]
struct SessionPong<'a> {
    ping_nonce: &'a str,
    received_at: Timestamp,
}

#[derive(Serialize)]
struct Reason<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Jobs<'a> {
    request_id: &'a str,
    jobs: Vec<Listed<'a>>,
    next_cursor: Option<&'a str>,
}

#[derive(Serialize)]
struct Listed<'a> {
    job_id: JobId,
    agent: &'a str,
    status: &'static str,
    lease: &'a Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_job_id: Option<JobId>,
    created_at: Timestamp,
    trace_id: String,
    last_event_seq: u64,
}

impl<'a> Listed<'a> {
    fn of(job: &'a JobSummary) -> Self {
        Self {
            job_id: job.job_id,
            agent: &job.agent,
            status: status(job.status),
            lease: &job.lease,
            parent_job_id: job.parent_job_id,
            created_at: job.created_at,
            trace_id: job.trace_id.to_string(),
            last_event_seq: job.last_event_seq,
        }
    }
}

#[derive(Serialize)]
struct JobAccepted<'a> {
    job_id: JobId,
    agent: &'a str,
    lease: &'a Lease,
}

#[derive(Serialize)]
struct SubscribeAccepted {
    subscription_id: SubscriptionId,
}

#[derive(Serialize)]
struct Wrapped<'a> {
    event: &'a RawValue,
}

#[derive(Serialize)]
struct Log<'a> {
    level: Level,
    message: &'a str,
}

#[derive(Serialize)]
struct Metric<'a> {
    name: &'a str,
    value: Box<RawValue>,
    unit: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    dims: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Progress<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    current: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    units: Option<&'a str>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    result_id: String,
    chunk_seq: u64,
    data: &'a str,
    encoding: Encoding,
    more: bool,
}

#[derive(Serialize)]
struct Emit<'a> {
    name: &'static str,
    data: Payload<'a>,
}

#[derive(Default, Serialize)]
struct Completed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        id::Ulid,
        protocol::{client::decode_as, dialect::detect, server, trace::TraceId},
        secret::Secret,
    };

    const JOB: &str = "job_00000000000000000000000001";
    const SUB: &str = "sub_00000000000000000000000001";

    fn read(kind: &str, payload: &Value) -> Result<ClientMessage, String> {
        let frame = json!({ "arcp": "1.1", "id": "msg_R", "type": kind, "payload": payload });
        let understood = decode_as(&DIALECT, &frame.to_string());
        understood.map(|request| request.message).map_err(|malformed| malformed.refusal.message)
    }

    fn written(message: &ServerMessage) -> Value {
        let (id, now) = (Ulid::from_parts(0, 7), Timestamp::from_millis(0));
        let frame = message.encode(&Stamp { id, now, session_id: SessionId::new(id), dialect: &DIALECT });
        serde_json::from_str(&frame).unwrap()
    }

    #[test]
    fn a_session_that_is_opened_is_of_this_family_whatever_else_it_says() {
        let open = json!({ "arcp": "1.1", "id": "msg_01KRHAB7S00000000000000001", "type": "session.open",
            "timestamp": "2026-05-13T19:30:00Z", "payload": { "auth": { "scheme": "bearer", "token": "t" },
            "client": { "kind": "c", "version": "1" }, "capabilities": { "streaming": true, "anonymous": false } } });
        let request = decode_as(generic_dialect(), &open.to_string()).unwrap();
        let ClientMessage::Hello(hello) = request.message else { panic!() };
        assert_eq!(detect(&request.id, &hello, None), &DIALECT);
        // Features had no names then, so what the words can carry is offered.
        assert!(
            hello.features.iter().any(|name| name == "progress") && hello.features.iter().all(|name| name != "ack")
        );
    }

    fn generic_dialect() -> &'static Dialect {
        super::super::GENERIC
    }

    #[test]
    fn a_draft_client_does_not_speak_these_words() {
        let frame = json!({ "arcp": "1.1", "id": "1", "type": "tool.invoke", "payload": { "tool": "a" } });
        let request = decode_as(generic_dialect(), &frame.to_string()).unwrap();
        assert!(matches!(request.message, ClientMessage::Unknown(_)));
    }

    #[test]
    fn an_invocation_is_a_submission() {
        let lease = json!({ "cost_budget": ["USD:1"], "model_use": ["m/*"], "fs.read": ["/a/**"],
            "expires_at": "2026-05-13T19:30:00Z", "net.fetch": null });
        for (payload, patterns, expires) in [
            (json!({ "tool": "a", "arguments": { "x": 1.0 } }), vec![], None),
            (
                json!({ "tool": "a", "arguments": { "x": 1.0 }, "cost_budget": ["USD:2"] }),
                vec![("cost.budget", "USD:2")],
                None,
            ),
            (
                json!({ "tool": "a", "arguments": { "x": 1.0 }, "cost_budget": ["USD:2"], "lease_request": lease }),
                vec![("cost.budget", "USD:1"), ("fs.read", "/a/**"), ("model.use", "m/*")],
                Some("2026-05-13T19:30:00Z"),
            ),
        ] {
            let Ok(ClientMessage::Submit(submit)) = read("tool.invoke", &payload) else { panic!("{payload}") };
            assert_eq!((&*submit.agent, submit.input.as_str()), ("a", r#"{"x":1.0}"#));
            let lease: Vec<(&str, &str)> =
                submit.lease_request.iter().map(|(namespace, patterns)| (&**namespace, &*patterns[0])).collect();
            assert_eq!((lease, submit.expires_at.as_deref()), (patterns, expires), "{payload}");
        }
        assert!(read("tool.invoke", &json!({})).unwrap_err().contains("missing field `tool`"));
    }

    /// Each row is a request, and the draft's message it becomes or the words it is refused with.
    #[test]
    fn every_other_request_becomes_one_of_the_draft() {
        for (kind, payload, expected) in [
            (
                "cancel",
                json!({ "target": "job", "target_id": JOB, "reason": "r", "deadline_ms": 5 }),
                "Cancel { job_id",
            ),
            ("cancel", json!({ "target": "session", "target_id": "sess_1" }), "only a `job`"),
            ("cancel", json!({ "target": "job", "target_id": "job_x" }), "no job `job_x`"),
            ("ping", json!({ "nonce": "n" }), r#"Ping { nonce: "n", plain: true }"#),
            ("ping", json!({}), r#"Ping { nonce: "", plain: true }"#),
            ("session.ping", json!({ "nonce": "n" }), r#"Ping { nonce: "n", plain: false }"#),
            ("subscribe", json!({ "filter": { "job_id": [JOB], "types": ["log"] } }), "Subscribe(Subscribe"),
            ("subscribe", json!({ "filter": {} }), "must name one job"),
            ("unsubscribe", json!({ "subscription_id": SUB }), "Unsubscribe { job_id"),
            ("unsubscribe", json!({ "subscription_id": "sub_x" }), "no job `sub_x`"),
            ("session.close", json!({}), "Close"),
            ("session.list_jobs", json!({}), "ListJobs"),
            ("session.list_jobs", json!({ "filter": { "status": ["completed"] } }), "statuses: Some([Success])"),
            ("session.list_jobs", json!({ "filter": { "status": ["failed"] } }), "statuses: Some([Error, TimedOut])"),
            ("session.list_jobs", json!({ "filter": { "status": ["pending"] } }), "statuses: Some([Pending])"),
            ("session.list_jobs", json!({ "filter": { "status": ["paused"] } }), "statuses: Some([])"),
            ("artifact.put", json!({}), "no artifacts"),
            ("permission.grant", json!({}), "Unknown"),
        ] {
            let said = match read(kind, &payload) {
                Ok(message) => format!("{message:?}"),
                Err(refused) => refused,
            };
            assert!(said.contains(expected), "{kind} {payload}: {said}");
        }
    }

    /// Each row is a message of the draft: its type before the draft, and a part of its payload.
    #[test]
    fn every_answer_has_a_type_of_its_own() {
        let (job_id, trace_id) = (JobId::new(Ulid::from_parts(0, 1)), TraceId::new(1));
        let (place, ts) = (Place { event_seq: 1, job_id, trace_id }, Timestamp::from_millis(0));
        let request = || Some("msg_R".to_owned());
        let refused = |asked, code, job_id| ServerMessage::Refused {
            asked,
            request: request(),
            job_id,
            trace_id: None,
            refusal: Refusal::new(code, "why"),
        };
        let event = |event| ServerMessage::Event { place, request: request(), ts, event };
        let ended = |terminal| ServerMessage::Terminal { place, request: request(), completed_at: ts, terminal };
        let failed = |status, code| ended(Terminal::Failed { status, refusal: Refusal::new(code, "why") });
        let text = |text: &str| text.to_owned();
        let welcome = server::Welcome {
            request: text("msg_R"),
            resume_token: Secret::new("rt"),
            resume_window_sec: 600,
            heartbeat_interval_sec: None,
            features: Features::negotiate(&[], &[]),
            agents: vec![],
        };
        let why = |code: &str, retryable: bool| {
            json!({ "code": code, "message": "why", "retryable": retryable, "detail": "why",
                "error": { "code": code, "message": "why" } })
        };
        for (message, kind, payload) in [
            (ServerMessage::Welcome(Box::new(welcome)), "session.accepted", json!({ "resume_token": "rt" })),
            (
                refused(Asked::Session, ErrorCode::Unauthenticated, None),
                "session.unauthenticated",
                why("UNAUTHENTICATED", false),
            ),
            (
                refused(Asked::Session, ErrorCode::InvalidRequest, None),
                "session.rejected",
                why("INVALID_ARGUMENT", false),
            ),
            (refused(Asked::Submit, ErrorCode::AgentNotAvailable, None), "nack", why("NOT_FOUND", true)),
            (
                refused(Asked::Cancel, ErrorCode::JobNotFound, Some(job_id)),
                "cancel.refused",
                json!({ "target_id": JOB, "reason": "why" }),
            ),
            (refused(Asked::Cancel, ErrorCode::JobNotFound, None), "nack", why("NOT_FOUND", false)),
            (
                ServerMessage::Pong { request: text("msg_R"), nonce: text("n"), plain: true },
                "pong",
                json!({ "nonce": "n" }),
            ),
            (
                ServerMessage::Pong { request: text("msg_R"), nonce: text("n"), plain: false },
                "session.pong",
                json!({ "ping_nonce": "n" }),
            ),
            (ServerMessage::Closed { request: request(), reason: None }, "session.close", json!({})),
            (
                ServerMessage::Cancelled { request: text("msg_R"), job_id, trace_id, reason: None },
                "cancel.accepted",
                json!({ "target_id": JOB }),
            ),
            (
                event(Event::Log { level: Level::Warn, message: text("m") }),
                "log",
                json!({ "level": "warn", "message": "m" }),
            ),
            (
                event(Event::Metric {
                    name: text("n"),
                    value: "0.5".parse().unwrap(),
                    unit: None,
                    dimensions: BTreeMap::new(),
                }),
                "metric",
                json!({ "name": "n", "value": 0.5, "unit": "" }),
            ),
            (
                event(Event::Progress { current: 1, total: Some(4), units: None, message: None }),
                "job.progress",
                json!({ "percent": 25.0, "current": 1, "total": 4 }),
            ),
            (
                event(Event::Progress { current: 1, total: Some(0), units: None, message: None }),
                "job.progress",
                json!({ "current": 1 }),
            ),
            (event(Event::Thought { text: text("t") }), "event.emit", json!({ "name": "job.event" })),
            (ended(Terminal::Inline(Json::of(&1))), "job.completed", json!({ "value": 1 })),
            (failed(Status::Error, ErrorCode::InternalError), "job.failed", why("INTERNAL", true)),
            (failed(Status::TimedOut, ErrorCode::Timeout), "job.failed", why("DEADLINE_EXCEEDED", true)),
            (failed(Status::Cancelled, ErrorCode::Cancelled), "job.cancelled", json!({ "reason": "why" })),
        ] {
            let frame = written(&message);
            assert_eq!((&frame["type"], &frame["correlation_id"]), (&json!(kind), &json!("msg_R")), "{frame}");
            assert_eq!(
                frame["id"],
                format!("msg_{}", Ulid::from_parts(0, 7)),
                "an answer has an id of its own: {frame}"
            );
            for (key, value) in payload.as_object().unwrap() {
                assert_eq!(&frame["payload"][key], value, "{key}: {frame}");
            }
        }
    }

    /// ARCP §7.6
    #[test]
    fn what_a_watcher_is_told_comes_in_the_name_of_its_subscription() {
        let (job_id, trace_id) = (JobId::new(Ulid::from_parts(0, 1)), TraceId::new(1));
        let (place, ts) = (Place { event_seq: 1, job_id, trace_id }, Timestamp::from_millis(0));
        let event = Event::Log { level: Level::Info, message: "m".into() };
        let end = ServerMessage::Terminal {
            place,
            request: None,
            completed_at: ts,
            terminal: Terminal::Inline(Json::of(&1)),
        };
        for (message, kind) in
            [(ServerMessage::Event { place, request: None, ts, event }, "log"), (end, "job.completed")]
        {
            let frame = written(&message);
            assert_eq!(
                (&frame["type"], &frame["subscription_id"]),
                (&json!("subscribe.event"), &json!(SUB)),
                "{frame}"
            );
            let event = &frame["payload"]["event"];
            assert_eq!((&event["type"], &event["job_id"]), (&json!(kind), &json!(JOB)), "{frame}");
            assert!(event["timestamp"].is_string() && event.get("correlation_id").is_none(), "{frame}");
        }
    }
}
