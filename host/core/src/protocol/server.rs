//! What the host says (ARCP §6-§8), from types to text.
//!
//! Whoever answers says *what*; how a frame looks is decided here, once: the
//! envelope is stamped in [`ServerMessage::encode`] and nowhere else.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{
    client::VERSION,
    credential::{self, Credential},
    dialect::{Asked, BudgetForm, Dialect, EventForm, LeaseForm, RefusalForm, StoppedForm, Words, family_b},
    event::{Event, Payload},
    feature::Features,
    json::Json,
    status::Status,
    trace::TraceId,
};
use crate::{
    error::{ErrorCode, Refusal},
    id::{CredentialId, JobId, ResultId, SessionId, SubscriptionId, Ulid},
    lease::{Lease, Namespace, amount::Currency},
    secret::Secret,
    time::Timestamp,
};

/// A message to a client.
#[derive(Debug)]
pub enum ServerMessage {
    /// `session.welcome` (§6.2).
    Welcome(Box<Welcome>),
    /// The answer to a request that is refused. Which frame that is differs from SDK to SDK more than anything else.
    Refused {
        /// What it asked for.
        asked: Asked,
        /// The request.
        request: Option<String>,
        /// The job it was about.
        job_id: Option<JobId>,
        /// The request's trace.
        trace_id: Option<TraceId>,
        /// Why.
        refusal: Refusal,
    },
    /// `session.ping` (§6.4).
    Ping {
        /// To come back in the pong.
        nonce: Ulid,
    },
    /// `session.pong` (§6.4).
    Pong {
        /// The ping.
        request: String,
        /// From the ping.
        nonce: String,
        /// Whether that was a plain `ping`, which the draft does not have.
        plain: bool,
    },
    /// `session.closed` (§6.7).
    Closed {
        /// The close.
        request: Option<String>,
        /// Why, if the host closes.
        reason: Option<String>,
    },
    /// `session.jobs` (§6.6).
    Jobs {
        /// The listing request.
        request: String,
        /// This page.
        jobs: Vec<JobSummary>,
        /// Where the next page begins.
        next_cursor: Option<String>,
    },
    /// `job.accepted` (§7.1).
    Accepted(Box<Accepted>),
    /// `job.cancelled` (§7.4): cancellation is under way.
    Cancelled {
        /// The cancel.
        request: String,
        /// The job.
        job_id: JobId,
        /// The job's trace.
        trace_id: TraceId,
        /// The client's own words.
        reason: Option<String>,
    },
    /// `job.subscribed` (§7.6).
    Subscribed(Box<Subscribed>),
    /// `job.event` (§8.1).
    Event {
        /// Where it stands in the session's stream and which job it is of.
        place: Place,
        /// The submission that made the job, unless it is another session's.
        request: Option<String>,
        /// When it happened.
        ts: Timestamp,
        /// What happened.
        event: Event,
    },
    /// `job.event` with the new value of one of the job's keys (§9.8.2), for the session that was given the key.
    Rotated {
        /// Where it stands in the session's stream and which job it is of.
        place: Place,
        /// The submission that made the job.
        request: Option<String>,
        /// When it happened.
        ts: Timestamp,
        /// Which key.
        credential: CredentialId,
        /// Its newest value, which the driver puts in: what is stored has none. None if it is worth nothing any more,
        /// or others could read along.
        value: Option<Secret>,
    },
    /// `job.result` or `job.error` (§7.3).
    Terminal {
        /// Where it stands in the session's stream and which job it is of.
        place: Place,
        /// The submission it answers, unless the job is another session's.
        request: Option<String>,
        /// When the job ended.
        completed_at: Timestamp,
        /// How.
        terminal: Terminal,
    },
}

/// The place of a message in a session's ordered stream (§8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Dense, from 1, of one session.
    pub event_seq: u64,
    /// The job.
    pub job_id: JobId,
    /// The job's trace.
    pub trace_id: TraceId,
}

/// The facts of a `session.welcome` (§6.2).
#[derive(Debug)]
pub struct Welcome {
    /// The hello.
    pub request: String,
    /// For a resume (§6.3).
    pub resume_token: Secret,
    /// How long a lost session can be resumed.
    pub resume_window_sec: u32,
    /// How often a peer speaks, if heartbeats were negotiated.
    pub heartbeat_interval_sec: Option<u32>,
    /// What both peers want.
    pub features: Features,
    /// The inventory.
    pub agents: Vec<AgentInfo>,
}

/// An agent of the inventory (§6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentInfo {
    /// Its name.
    pub name: String,
    /// Its versions, oldest first.
    pub versions: Vec<String>,
    /// The version of a bare name.
    pub default: String,
}

/// The facts of a `job.accepted` (§7.1).
#[derive(Debug)]
pub struct Accepted {
    /// The submit.
    pub request: String,
    /// The new job.
    pub job_id: JobId,
    /// `name@version`.
    pub agent: String,
    /// The effective lease.
    pub lease: Lease,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// The counters, if the lease has a budget.
    pub budget: BTreeMap<Currency, Decimal>,
    /// When.
    pub accepted_at: Timestamp,
    /// The job's trace.
    pub trace_id: TraceId,
    /// The keys that were made for it (§9.8), for the session that submitted it.
    pub credentials: Vec<Credential>,
}

/// The facts of a `job.subscribed` (§7.6): what an observer may know of a job's authority, and never its credentials.
#[derive(Debug)]
pub struct Subscribed {
    /// The subscription.
    pub request: String,
    /// The job as a listing tells of it.
    pub job: JobSummary,
    /// What is left of its budget, if it has one.
    pub budget: BTreeMap<Currency, Decimal>,
    /// The newest number of this session; what is told of the job comes after it.
    pub subscribed_from: u64,
    /// Whether what the job told before is told, too.
    pub replayed: bool,
}

/// One job of a listing (§6.6).
#[derive(Clone, Debug, Serialize)]
pub struct JobSummary {
    /// The job.
    pub job_id: JobId,
    /// `name@version`.
    pub agent: String,
    /// Where it is.
    pub status: Status,
    /// The effective lease, as it is written: a listing keeps many and asks none.
    pub lease: Json,
    /// Its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_constraints: Option<LeaseConstraints>,
    /// The job that delegated it.
    pub parent_job_id: Option<JobId>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The same, as one SDK spells it.
    pub submitted_at: Timestamp,
    /// Its trace.
    pub trace_id: TraceId,
    /// The number of its newest event in the session that submitted it.
    pub last_event_seq: u64,
}

/// `lease_constraints` (§7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseConstraints {
    /// When the lease ends.
    pub expires_at: Timestamp,
}

/// How a job ended (§7.3).
#[derive(Clone, Debug, PartialEq)]
pub enum Terminal {
    /// `success` with the result in the message.
    Inline(Json),
    /// `success` with a streamed result (§8.4).
    Streamed {
        /// Which.
        result_id: ResultId,
        /// Its decoded bytes.
        result_size: u64,
        /// The agent's own words.
        summary: Option<String>,
    },
    /// `error`, `cancelled` or `timed_out`.
    Failed {
        /// Which of the three.
        status: Status,
        /// Why.
        refusal: Refusal,
    },
}

/// What a frame needs besides its message.
pub struct Stamp<'a> {
    /// A fresh id, unless the message echoes one.
    pub id: Ulid,
    /// The moment of sending.
    pub now: Timestamp,
    /// The session, or a stand-in before there is one: some clients drop frames without.
    pub session_id: SessionId,
    /// How the client reads.
    pub dialect: &'a Dialect,
}

/// The envelope of §5. Absent fields are left out: some clients refuse `null`.
#[derive(Serialize)]
struct Envelope<'a, P> {
    arcp: &'static str,
    id: Id<'a>,
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Timestamp,
    session_id: SessionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<TraceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_id: Option<SubscriptionId>,
    payload: P,
}

enum Id<'a> {
    Fresh(Ulid),
    /// Some clients find the answer to a request by the request's own id.
    Echo(&'a str),
}

impl Serialize for Id<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fresh(ulid) => serializer.collect_str(&format_args!("msg_{ulid}")),
            Self::Echo(id) => serializer.serialize_str(id),
        }
    }
}

/// The parts of an envelope that differ from message to message.
#[derive(Default)]
pub(super) struct Head<'a> {
    pub kind: &'static str,
    pub echo: Option<&'a str>,
    pub correlation_id: Option<&'a str>,
    pub job_id: Option<JobId>,
    pub trace_id: Option<TraceId>,
    pub event_seq: Option<u64>,
    pub subscription_id: Option<SubscriptionId>,
}

impl<'a> Head<'a> {
    pub fn of(kind: &'static str) -> Self {
        Self { kind, ..Self::default() }
    }

    pub fn echo(self, request: impl Into<Option<&'a str>>) -> Self {
        Self { echo: request.into(), ..self }
    }

    pub fn correlated(self, request: impl Into<Option<&'a str>>) -> Self {
        Self { correlation_id: request.into(), ..self }
    }

    pub fn job(self, job_id: JobId, trace_id: TraceId) -> Self {
        Self { job_id: Some(job_id), trace_id: Some(trace_id), ..self }
    }

    pub fn place(self, place: &Place) -> Self {
        Self { event_seq: Some(place.event_seq), ..self.job(place.job_id, place.trace_id) }
    }
}

impl ServerMessage {
    /// What a job tells, once more as whoever only watches it is told.
    pub(crate) fn as_watched(&self) -> Option<Self> {
        match self {
            Self::Event { place, ts, event, .. } => {
                Some(Self::Event { place: *place, request: None, ts: *ts, event: event.clone() })
            }
            Self::Terminal { place, completed_at, terminal, .. } => {
                let (place, terminal) = (*place, terminal.clone());
                Some(Self::Terminal { place, request: None, completed_at: *completed_at, terminal })
            }
            _ => None,
        }
    }

    /// The message's number in the ordered stream, if it belongs there (§8.3).
    #[must_use]
    pub fn event_seq(&self) -> Option<u64> {
        match self {
            Self::Event { place, .. } | Self::Rotated { place, .. } | Self::Terminal { place, .. } => {
                Some(place.event_seq)
            }
            _ => None,
        }
    }

    /// Writes the frame.
    #[must_use]
    pub fn encode(&self, stamp: &Stamp<'_>) -> String {
        if stamp.dialect.words == Words::Rfc {
            return family_b::encode(self, stamp);
        }
        let write = |head: Head<'_>, payload: &dyn ErasedPayload| payload.frame(head, stamp);
        match self {
            Self::Welcome(welcome) => {
                let head = Head::of("session.welcome").echo(&*welcome.request).correlated(&*welcome.request);
                write(head, &payload::Welcome::new(welcome, stamp))
            }
            Self::Refused { asked, request, job_id, trace_id, refusal } => {
                let (request, trace_id) = (request.as_deref(), *trace_id);
                let why = payload::Refused::new(request, refusal);
                let head = |kind| Head { trace_id, ..Head::of(kind) };
                match stamp.dialect.refusals.form(*asked) {
                    RefusalForm::SessionError => write(head("session.error").echo(request), &why),
                    RefusalForm::JobError => {
                        write(head("job.error").echo(request).correlated(request), &why.of_job(*job_id))
                    }
                    RefusalForm::JobErrorOfIt => {
                        let head = Head { job_id: *job_id, ..head("job.error").echo(request) };
                        write(head, &why.of_job(*job_id))
                    }
                    RefusalForm::JobErrorOfNone => {
                        // Made of the frame's own id, which no job has.
                        let none = Some(JobId::new(stamp.id));
                        write(Head { job_id: none, ..head("job.error") }, &why.of_job(none))
                    }
                    RefusalForm::Nack => write(head("nack").correlated(request), &payload::Nack::new(refusal)),
                    RefusalForm::SessionRejected => {
                        let unknown = refusal.code == ErrorCode::Unauthenticated;
                        let kind = if unknown { "session.unauthenticated" } else { "session.rejected" };
                        write(head(kind).correlated(request), &payload::Nack::new(refusal))
                    }
                }
            }
            Self::Ping { nonce } => {
                write(Head::of("session.ping"), &payload::Ping { nonce: format!("p_{nonce}"), sent_at: stamp.now })
            }
            Self::Pong { request, nonce, .. } => {
                let head = Head::of("session.pong").correlated(&**request);
                write(head, &payload::Pong { ping_nonce: nonce, received_at: stamp.now })
            }
            Self::Closed { request, reason } => {
                let head = Head::of("session.closed").echo(request.as_deref());
                write(head, &payload::Reason { reason: reason.as_deref() })
            }
            Self::Jobs { request, jobs, next_cursor } => {
                let head = Head::of("session.jobs").echo(&**request).correlated(&**request);
                let next_cursor = next_cursor.as_deref();
                write(head, &payload::Jobs { request_id: request, reply_to: request, jobs, next_cursor })
            }
            Self::Accepted(accepted) => {
                let head = Head::of("job.accepted").echo(&*accepted.request).job(accepted.job_id, accepted.trace_id);
                write(head, &payload::Accepted::new(accepted, stamp.dialect))
            }
            Self::Cancelled { request, job_id, trace_id, reason } => {
                let head = Head::of("job.cancelled").echo(&**request).job(*job_id, *trace_id);
                write(head, &payload::Cancelled { job_id: *job_id, reason: reason.as_deref() })
            }
            Self::Subscribed(subscribed) => {
                let Subscribed { request, job, .. } = &**subscribed;
                let head = Head::of("job.subscribed").echo(&**request).job(job.job_id, job.trace_id);
                write(head.correlated(&**request), &payload::Subscribed::new(subscribed, stamp.dialect))
            }
            Self::Event { place, ts, event, .. } => {
                // A delegation is told in the lease's own form, or without it.
                let other = (stamp.dialect.lease != LeaseForm::Map).then(|| event.without_lease()).flatten();
                let event = other.as_ref().unwrap_or(event);
                payload::told(place, &Payload { event, ts: *ts }, stamp)
            }
            Self::Rotated { place, ts, credential, value, .. } => {
                payload::told(place, &credential::Rotated { id: *credential, value: value.as_ref(), ts: *ts }, stamp)
            }
            Self::Terminal { place, request, completed_at, terminal } => {
                let (kind, payload) = payload::Terminal::new(place.job_id, *completed_at, terminal, stamp.dialect);
                write(Head::of(kind).place(place).correlated(request.as_deref()), &payload)
            }
        }
    }
}

/// A payload whose frame can be written without naming its type.
pub(super) trait ErasedPayload {
    fn frame(&self, head: Head<'_>, stamp: &Stamp<'_>) -> String;
}

impl<P: Serialize> ErasedPayload for P {
    fn frame(&self, head: Head<'_>, stamp: &Stamp<'_>) -> String {
        let envelope = Envelope {
            arcp: VERSION,
            id: head.echo.map_or(Id::Fresh(stamp.id), Id::Echo),
            kind: head.kind,
            timestamp: stamp.now,
            session_id: stamp.session_id,
            correlation_id: head.correlation_id,
            job_id: head.job_id,
            trace_id: head.trace_id,
            event_seq: head.event_seq,
            subscription_id: head.subscription_id,
            payload: self,
        };
        serde_json::to_string(&envelope).expect("a frame of ours is JSON")
    }
}

/// How large a result may be that is written twice into one frame.
const TWICE_BYTES_MAX: usize = 256 << 10;

/// Payloads as they are written.
mod payload {
    use super::{
        AgentInfo, BTreeMap, BudgetForm, Currency, Decimal, Dialect, ErasedPayload, ErrorCode, EventForm, Features,
        Head, JobId, JobSummary, Json, LeaseConstraints, LeaseForm, Namespace, Place, RawValue, Refusal, ResultId,
        Serialize, SerializeMap, Serializer, SessionId, Stamp, Status, StoppedForm, TWICE_BYTES_MAX, Timestamp,
        TraceId,
    };
    use crate::protocol::credential::{BEARER, Shown};

    #[derive(Serialize)]
    pub struct Welcome<'a> {
        session_id: SessionId,
        accepted_at: Timestamp,
        runtime: Runtime,
        // One SDK reads the runtime from two plain fields.
        runtime_name: &'static str,
        runtime_version: &'static str,
        resume_token: &'a str,
        resume_window_sec: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        heartbeat_interval_sec: Option<u32>,
        capabilities: Capabilities<'a>,
    }

    #[derive(Serialize)]
    struct Runtime {
        name: &'static str,
        version: &'static str,
        kind: &'static str,
    }

    #[derive(Serialize)]
    struct Capabilities<'a> {
        encodings: [&'static str; 1],
        features: &'a Features,
        agents: &'a [AgentInfo],
    }

    impl<'a> Welcome<'a> {
        pub fn new(welcome: &'a super::Welcome, stamp: &Stamp<'_>) -> Self {
            let (name, version) = ("leasehold", env!("CARGO_PKG_VERSION"));
            Self {
                session_id: stamp.session_id,
                accepted_at: stamp.now,
                runtime: Runtime { name, version, kind: name },
                runtime_name: name,
                runtime_version: version,
                resume_token: welcome.resume_token.expose(),
                resume_window_sec: welcome.resume_window_sec,
                heartbeat_interval_sec: welcome.heartbeat_interval_sec,
                capabilities: Capabilities {
                    encodings: ["json"],
                    features: &welcome.features,
                    agents: &welcome.agents,
                },
            }
        }
    }

    #[derive(Serialize)]
    pub struct Refused<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        job_id: Option<JobId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        final_status: Option<Status>,
        code: ErrorCode,
        message: &'a str,
        retryable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<&'a str>,
    }

    impl<'a> Refused<'a> {
        pub fn new(request: Option<&'a str>, refusal: &'a Refusal) -> Self {
            Self {
                job_id: None,
                final_status: None,
                code: refusal.code,
                message: &refusal.message,
                retryable: refusal.code.retryable(),
                request_id: request,
                reply_to: request,
            }
        }

        /// Adds what a `job.error` has besides.
        pub fn of_job(self, job_id: Option<JobId>) -> Self {
            Self { job_id, final_status: Some(Status::Error), ..self }
        }
    }

    /// A refusal as those SDKs read it that know no `request_id`: some look into `error`, some beside it.
    #[derive(Serialize)]
    pub struct Nack<'a> {
        code: ErrorCode,
        message: &'a str,
        retryable: bool,
        error: Why<'a>,
    }

    #[derive(Serialize)]
    struct Why<'a> {
        code: ErrorCode,
        message: &'a str,
        retryable: bool,
    }

    impl<'a> Nack<'a> {
        pub fn new(refusal: &'a Refusal) -> Self {
            let (code, message, retryable) = (refusal.code, &*refusal.message, refusal.code.retryable());
            Self { code, message, retryable, error: Why { code, message, retryable } }
        }
    }

    /// What is told of a job, as the client takes it.
    pub fn told(place: &Place, payload: &dyn ErasedPayload, stamp: &Stamp<'_>) -> String {
        let plain = payload.frame(Head::of("job.event").place(place), stamp);
        match stamp.dialect.event {
            EventForm::Plain => plain,
            EventForm::Wrapped => {
                let event = RawValue::from_string(plain).expect("a frame of ours is JSON");
                Wrapped { event: &event }.frame(Head::of("subscribe.event").place(place), stamp)
            }
        }
    }

    #[derive(Serialize)]
    struct Wrapped<'a> {
        event: &'a RawValue,
    }

    #[derive(Serialize)]
    pub struct Ping {
        pub nonce: String,
        pub sent_at: Timestamp,
    }

    #[derive(Serialize)]
    pub struct Pong<'a> {
        pub ping_nonce: &'a str,
        pub received_at: Timestamp,
    }

    #[derive(Serialize)]
    pub struct Reason<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        pub reason: Option<&'a str>,
    }

    #[derive(Serialize)]
    pub struct Jobs<'a> {
        pub request_id: &'a str,
        pub reply_to: &'a str,
        pub jobs: &'a [JobSummary],
        // The one field that is `null` rather than absent: a client pages until it is.
        pub next_cursor: Option<&'a str>,
    }

    #[derive(Serialize)]
    pub struct Cancelled<'a> {
        pub job_id: JobId,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub reason: Option<&'a str>,
    }

    #[derive(Serialize)]
    pub struct Accepted<'a> {
        job_id: JobId,
        agent: &'a str,
        lease: Effective<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        lease_constraints: Option<LeaseConstraints>,
        #[serde(skip_serializing_if = "Option::is_none")]
        budget: Option<Budget<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        credentials: Vec<Shown<'a>>,
        accepted_at: Timestamp,
        trace_id: TraceId,
        request_id: &'a str,
        reply_to: &'a str,
    }

    impl<'a> Accepted<'a> {
        pub fn new(accepted: &'a super::Accepted, dialect: &'a Dialect) -> Self {
            let budget = Budget { counters: &accepted.budget, form: &dialect.budget };
            let readable = |credential: &&super::Credential| !dialect.only_bearer || credential.scheme == BEARER;
            Self {
                credentials: accepted.credentials.iter().filter(readable).map(Shown).collect(),
                job_id: accepted.job_id,
                agent: &accepted.agent,
                lease: Effective { accepted, form: &dialect.lease },
                lease_constraints: accepted.expires_at.map(|expires_at| LeaseConstraints { expires_at }),
                budget: (!accepted.budget.is_empty()).then_some(budget),
                accepted_at: accepted.accepted_at,
                trace_id: accepted.trace_id,
                request_id: &accepted.request,
                reply_to: &accepted.request,
            }
        }
    }

    #[derive(Serialize)]
    pub struct Subscribed<'a> {
        job_id: JobId,
        current_status: Status,
        agent: &'a str,
        lease: &'a Json,
        #[serde(skip_serializing_if = "Option::is_none")]
        lease_constraints: Option<&'a LeaseConstraints>,
        #[serde(skip_serializing_if = "Option::is_none")]
        budget: Option<Budget<'a>>,
        parent_job_id: Option<JobId>,
        trace_id: TraceId,
        subscribed_from: u64,
        replayed: bool,
        request_id: &'a str,
        reply_to: &'a str,
    }

    impl<'a> Subscribed<'a> {
        pub fn new(subscribed: &'a super::Subscribed, dialect: &'a Dialect) -> Self {
            let super::Subscribed { request, job, budget, subscribed_from, replayed } = subscribed;
            let counters = Budget { counters: budget, form: &dialect.budget };
            Self {
                job_id: job.job_id,
                current_status: job.status,
                agent: &job.agent,
                lease: &job.lease,
                lease_constraints: job.lease_constraints.as_ref(),
                budget: (!budget.is_empty()).then_some(counters),
                parent_job_id: job.parent_job_id,
                trace_id: job.trace_id,
                subscribed_from: *subscribed_from,
                replayed: *replayed,
                request_id: request,
                reply_to: request,
            }
        }
    }

    struct Effective<'a> {
        accepted: &'a super::Accepted,
        form: &'a LeaseForm,
    }

    impl Serialize for Effective<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            /// A lease that is named, and that grants a capability whole or not at all.
            #[derive(Serialize)]
            struct Named<'a> {
                id: String,
                capabilities: Vec<&'a str>,
                #[serde(rename = "cost.budget", skip_serializing_if = "Vec::is_empty")]
                cost_budget: Vec<String>,
                #[serde(rename = "model.use", skip_serializing_if = "Vec::is_empty")]
                model_use: Vec<String>,
                #[serde(skip_serializing_if = "Option::is_none")]
                expires_at: Option<Timestamp>,
                issued_at: Timestamp,
            }

            let super::Accepted { job_id, lease, expires_at, accepted_at, .. } = self.accepted;
            if *self.form == LeaseForm::Map {
                return lease.serialize(serializer);
            }
            let listed = |namespace: &&Namespace| !matches!(namespace, Namespace::CostBudget | Namespace::ModelUse);
            let named = Named {
                // A job has one lease.
                id: format!("lse_{}", job_id.ulid()),
                capabilities: lease.namespaces().filter(listed).map(Namespace::as_str).collect(),
                cost_budget: lease.texts(&Namespace::CostBudget),
                model_use: lease.texts(&Namespace::ModelUse),
                expires_at: *expires_at,
                issued_at: *accepted_at,
            };
            named.serialize(serializer)
        }
    }

    struct Budget<'a> {
        counters: &'a BTreeMap<Currency, Decimal>,
        form: &'a BudgetForm,
    }

    impl Serialize for Budget<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(self.counters.len()))?;
            for (currency, left) in self.counters {
                match self.form {
                    BudgetForm::Number => {
                        let exact = RawValue::from_string(left.to_string()).map_err(serde::ser::Error::custom)?;
                        map.serialize_entry(currency.as_str(), &exact)?;
                    }
                    BudgetForm::Amount => map.serialize_entry(currency.as_str(), &format!("{currency}:{left}"))?,
                }
            }
            map.end()
        }
    }

    #[derive(Serialize)]
    pub struct Terminal<'a> {
        job_id: JobId,
        final_status: Status,
        completed_at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a Json>,
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<&'a Json>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result_id: Option<ResultId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result_size: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        summary: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retryable: Option<bool>,
    }

    impl<'a> Terminal<'a> {
        /// The type of the message and its payload.
        pub fn new(
            job_id: JobId,
            completed_at: Timestamp,
            terminal: &'a super::Terminal,
            dialect: &Dialect,
        ) -> (&'static str, Self) {
            let bare = |final_status| Self {
                job_id,
                final_status,
                completed_at,
                result: None,
                output: None,
                result_id: None,
                result_size: None,
                summary: None,
                code: None,
                message: None,
                retryable: None,
            };
            match terminal {
                super::Terminal::Inline(value) => {
                    let output = dialect.output.then_some(value);
                    // Twice a large value would be a frame this client does not take.
                    let result = Some(value).filter(|_| output.is_none() || value.as_str().len() <= TWICE_BYTES_MAX);
                    ("job.result", Self { result, output, ..bare(Status::Success) })
                }
                super::Terminal::Streamed { result_id, result_size, summary } => {
                    let streamed = Self {
                        result_id: Some(*result_id),
                        result_size: Some(*result_size),
                        summary: summary.as_deref(),
                        ..bare(Status::Success)
                    };
                    ("job.result", streamed)
                }
                super::Terminal::Failed { status, refusal }
                    if *status != Status::Error && dialect.stopped == StoppedForm::Result =>
                {
                    ("job.result", Self { summary: Some(&refusal.message), ..bare(*status) })
                }
                super::Terminal::Failed { status, refusal } => {
                    let failed = Self {
                        code: Some(refusal.code),
                        message: Some(&refusal.message),
                        retryable: Some(refusal.code.retryable()),
                        ..bare(*status)
                    };
                    ("job.error", failed)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        id::CredentialId,
        protocol::{credential::Constraints, dialect},
    };

    const ULID: Ulid = Ulid::from_parts(0, 7);

    fn written(message: &ServerMessage, dialect: &Dialect) -> Value {
        let stamp = Stamp { id: ULID, now: Timestamp::from_millis(0), session_id: SessionId::new(ULID), dialect };
        serde_json::from_str(&message.encode(&stamp)).unwrap()
    }

    fn job() -> JobId {
        JobId::new(Ulid::from_parts(0, 1))
    }

    fn place() -> Place {
        Place { event_seq: 3, job_id: job(), trace_id: TraceId::new(1) }
    }

    fn credential(scheme: &str) -> Credential {
        Credential {
            id: CredentialId::new(Ulid::from_parts(0, 9)),
            scheme: scheme.into(),
            value: Secret::new("the-value"),
            endpoint: "https://a.test/v1".into(),
            profile: None,
            constraints: Constraints::default(),
        }
    }

    /// ARCP §9.8.2, and where each SDK looks for it.
    #[test]
    fn a_new_value_of_a_key_is_where_every_client_looks_for_it_and_is_left_out_if_there_is_none() {
        let (credential, ts) = (CredentialId::new(Ulid::from_parts(0, 9)), Timestamp::from_millis(0));
        let id = credential.to_string();
        for dialect in dialect::ALL.into_iter().filter(|dialect| dialect.words == Words::Draft) {
            let frame = |value: Option<&str>| {
                let value = value.map(Secret::new);
                let message = ServerMessage::Rotated { place: place(), request: None, ts, credential, value };
                written(&message, dialect)
            };
            let event = frame(Some("sk-new"));
            let event = if dialect.event == EventForm::Wrapped { &event["payload"]["event"] } else { &event };
            assert_eq!((&event["type"], &event["payload"]["kind"]), (&json!("job.event"), &json!("status")));
            let body = &event["payload"]["body"];
            let pair = json!({ "id": id, "value": "sk-new" });
            let expected = json!({
                "phase": "credential_rotated", "message": id, "id": id, "value": "sk-new", "credential_id": id,
                "credential_value": "sk-new", "details": pair, "fields": pair,
            });
            assert_eq!(*body, expected, "{}", dialect.name);
            assert!(!frame(None).to_string().contains("value"), "{}", frame(None));
        }
    }

    /// Each row is a request that a dialect refuses: the frame's type, whose id it has, the job it names.
    #[test]
    fn a_request_is_refused_as_the_client_that_made_it_reads_it() {
        use Asked::{List, Other, Session, Submit, Subscribe};
        let (session, job_error) = ("session.error", "job.error");
        let (named, unknown) = (job().to_string(), JobId::new(ULID).to_string());
        let (it, none) = (Some(&*named), Some(&*unknown));
        for (names, asked, kind, echoes, job_id) in [
            (&["generic", "python", "go", "csharp", "fsharp", "ruby", "typescript"][..], Session, session, true, None),
            (&["java", "echo"], Session, job_error, true, None),
            (&["php"], Session, "session.rejected", false, None),
            (&["generic", "python", "go", "csharp", "ruby"], Submit, session, true, None),
            (&["fsharp", "java", "echo"], Submit, job_error, true, None),
            (&["typescript"], Submit, job_error, false, none),
            (&["php"], Submit, "nack", false, None),
            (&["python", "go", "csharp", "fsharp", "ruby", "typescript"], List, session, true, None),
            (&["generic", "java", "echo"], List, job_error, true, None),
            (&["php"], List, "nack", false, None),
            (&["python", "go", "csharp", "fsharp", "typescript"], Subscribe, session, true, None),
            (&["generic"], Subscribe, job_error, true, None),
            (&["java", "echo", "ruby"], Subscribe, job_error, true, it),
            (&["php"], Subscribe, "nack", false, None),
            (
                &["generic", "python", "go", "csharp", "fsharp", "ruby", "typescript", "java", "echo"],
                Other,
                job_error,
                true,
                None,
            ),
            (&["php"], Other, "nack", false, None),
        ] {
            for name in names {
                let refusal = Refusal::invalid("no");
                let message = ServerMessage::Refused {
                    asked,
                    request: Some("R".into()),
                    job_id: Some(job()),
                    trace_id: Some(TraceId::new(1)),
                    refusal,
                };
                let frame = written(&message, dialect::find(name).unwrap());
                let shown = (frame["type"].as_str(), frame["id"] == "R", frame["job_id"].as_str());
                assert_eq!(shown, (Some(kind), echoes, job_id), "{name}: {frame}");
                assert!(frame.get("event_seq").is_none() && frame["trace_id"].is_string(), "{name}: {frame}");
                let payload = &frame["payload"];
                assert_eq!(
                    (&payload["code"], &payload["message"]),
                    (&json!("INVALID_REQUEST"), &json!("no")),
                    "{name}"
                );
                assert!(payload["request_id"] == "R" || frame["correlation_id"] == "R", "{name}: {frame}");
                // A `job.error` says how, and a `session.error` ends nothing.
                assert_eq!(payload.get("final_status").is_some(), kind == job_error, "{name}: {frame}");
            }
        }
    }

    /// ARCP §7.1, §9.6: the counters and the lease of an acceptance.
    #[test]
    fn an_acceptance_has_its_money_and_its_lease_in_the_form_that_is_read() {
        let lease = [("fs.read", "/a/**"), ("cost.budget", "USD:5.00"), ("model.use", "m/*")];
        let lease = lease.map(|(namespace, pattern)| (namespace.to_owned(), vec![pattern.to_owned()]));
        let lease = Lease::parse(&BTreeMap::from(lease)).unwrap();
        let message = ServerMessage::Accepted(Box::new(Accepted {
            request: "R".into(),
            job_id: job(),
            agent: "a@1".into(),
            budget: lease.budget().clone(),
            lease,
            expires_at: Some(Timestamp::from_millis(1000)),
            accepted_at: Timestamp::from_millis(0),
            trace_id: TraceId::new(1),
            credentials: ["bearer", "basic"].map(credential).into(),
        }));
        assert!(!format!("{message:?}").contains("the-value"), "{message:?}");
        for dialect in dialect::ALL.into_iter().filter(|dialect| dialect.words == Words::Draft) {
            let frame = written(&message, dialect);
            let payload = &frame["payload"];
            let (number, amount) = (json!({ "USD": 5.00 }), json!({ "USD": "USD:5.00" }));
            assert_eq!(payload["budget"], if dialect.name == "python" { amount } else { number }, "{}", dialect.name);
            let map = json!({ "fs.read": ["/a/**"], "cost.budget": ["USD:5.00"], "model.use": ["m/*"] });
            let named = json!({ "id": format!("lse_{}", Ulid::from_parts(0, 1)), "capabilities": ["fs.read"],
                "cost.budget": ["USD:5.00"], "model.use": ["m/*"], "expires_at": "1970-01-01T00:00:01.000Z",
                "issued_at": "1970-01-01T00:00:00.000Z" });
            assert_eq!(payload["lease"], if dialect.name == "ruby" { named } else { map }, "{}", dialect.name);
            // Two SDKs drop an acceptance with another scheme than the one they know.
            let readable = if matches!(dialect.name, "python" | "typescript") { 1 } else { 2 };
            assert_eq!(payload["credentials"].as_array().unwrap().len(), readable, "{}", dialect.name);
            let id = credential("bearer").id.to_string();
            let shown = json!({ "id": id, "scheme": "bearer", "value": "the-value", "endpoint": "https://a.test/v1" });
            assert_eq!(payload["credentials"][0], shown);
            // The first frame that a correlating client is answered with must be the end of its call.
            assert!(frame.get("correlation_id").is_none() && frame["id"] == "R", "{frame}");
        }
    }

    /// ARCP §7.3: each row is an end, and the frame a dialect has for it.
    #[test]
    fn an_end_is_written_in_the_type_that_is_read() {
        let large = Json::of(&"x".repeat(TWICE_BYTES_MAX));
        let failed = |status, code| Terminal::Failed { status, refusal: Refusal::new(code, "why") };
        let inline = Terminal::Inline(Json::of(&1));
        let cancelled = failed(Status::Cancelled, ErrorCode::Cancelled);
        let timed_out = failed(Status::TimedOut, ErrorCode::Timeout);
        for (terminal, name, kind, has) in [
            (&inline, "generic", "job.result", &["result"][..]),
            (&inline, "go", "job.result", &["result", "output"]),
            (&Terminal::Inline(large.clone()), "go", "job.result", &["output"]), // twice would be too large a frame
            (&Terminal::Inline(large), "generic", "job.result", &["result"]),
            (&cancelled, "generic", "job.error", &["code", "message", "retryable"]),
            (&cancelled, "java", "job.error", &["code", "message", "retryable"]),
            (&cancelled, "python", "job.result", &["summary"]),
            (&timed_out, "generic", "job.error", &["code", "message", "retryable"]),
            (&timed_out, "python", "job.result", &["summary"]),
            (
                &failed(Status::Error, ErrorCode::InternalError),
                "python",
                "job.error",
                &["code", "message", "retryable"],
            ),
        ] {
            let (place, completed_at) = (place(), Timestamp::from_millis(0));
            let message =
                ServerMessage::Terminal { place, request: Some("R".into()), completed_at, terminal: terminal.clone() };
            let frame = written(&message, dialect::find(name).unwrap());
            assert_eq!((&frame["type"], &frame["correlation_id"]), (&json!(kind), &json!("R")), "{name}: {frame}");
            let mut keys: Vec<&str> = frame["payload"].as_object().unwrap().keys().map(String::as_str).collect();
            keys.retain(|key| !["job_id", "final_status", "completed_at"].contains(key));
            let mut has = has.to_vec();
            keys.sort_unstable();
            has.sort_unstable();
            assert_eq!(keys, has, "{name}: {frame}");
        }
    }

    /// ARCP §8.1
    #[test]
    fn an_event_is_wrapped_for_a_client_that_reads_no_other() {
        let event = Event::Thought { text: "t".into() };
        let message = ServerMessage::Event { place: place(), request: None, ts: Timestamp::from_millis(0), event };
        let plain = written(&message, dialect::GENERIC);
        let wrapped = written(&message, dialect::find("php").unwrap());
        assert_eq!((&wrapped["type"], &wrapped["payload"]["event"]), (&json!("subscribe.event"), &plain));
        assert_eq!((&wrapped["job_id"], &wrapped["event_seq"]), (&plain["job_id"], &json!(3)));
    }
}
