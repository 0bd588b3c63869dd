//! One client's session, as a machine without clocks, sockets or tasks (ARCP §6).
//!
//! Bytes, timers and jobs belong to the driver (`server::connection`). The
//! driver calls [`Session::handle`] with whatever happened, does every
//! [`Output`] in order, and calls again with [`Input::Tick`] no later than
//! [`Session::deadline`].

mod open;
pub mod outbox;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use self::open::Open;
use crate::{
    error::{ErrorCode, Refusal},
    id::{JobId, Principal, Ulid},
    job::record::{Accepted, Record},
    lease::Authority,
    protocol::{
        client::{ClientMessage, Hello, ListJobs, Malformed, Request},
        dialect::{self, Dialect},
        json::Json,
        server::{AgentInfo, JobSummary, ServerMessage},
        trace::TraceId,
    },
    secret::Secret,
    time::Timestamp,
};

/// What an operator decides of every session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// How long a client may take to say hello.
    pub handshake_timeout: Duration,
    /// How often a peer speaks (§6.4).
    pub heartbeat_interval: Duration,
    /// How long a lost session can be resumed (§6.3).
    pub resume_window: Duration,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A frame came in.
    Frame(Result<Request, Box<Malformed>>),
    /// The frame could not even be read as text.
    Unreadable(Refusal),
    /// The answer to [`Output::Authenticate`].
    Authenticated(Option<Welcomed>),
    /// The answer to [`Output::Submit`].
    Submitted {
        /// The submit.
        request: String,
        /// Its trace.
        trace_id: TraceId,
        /// The job, or why there is none.
        outcome: Result<Submitted, Refusal>,
    },
    /// The answer to [`Output::Cancel`].
    Cancelled {
        /// The cancel.
        request: String,
        /// The job.
        job_id: JobId,
        /// The client's words.
        reason: Option<String>,
        /// The job's trace, or why it is not cancelled.
        outcome: Result<TraceId, Refusal>,
    },
    /// The answer to [`Output::ListJobs`].
    Listed {
        /// The listing request.
        request: String,
        /// One page and where the next begins, or why not.
        outcome: Result<(Vec<JobSummary>, Option<String>), Refusal>,
    },
    /// A record of a followed job, read back from the store.
    Record(JobId, Record),
    /// The peer gave a sign of life that is no frame, such as a WebSocket pong.
    Alive,
    /// The host is about to stop.
    Stopping,
    /// The deadline has come, or any other moment.
    Tick,
}

/// What the host knows of an authenticated client.
#[derive(Debug)]
pub struct Welcomed {
    /// Who it is.
    pub principal: Principal,
    /// For a resume (§6.3).
    pub resume_token: Secret,
    /// What can be run.
    pub agents: Vec<AgentInfo>,
}

/// A submission that made a job, or found the one it made before (§7.2).
#[derive(Debug)]
pub struct Submitted {
    /// The job as accepted.
    pub accepted: Arc<Accepted>,
    /// Whether this submission made it.
    pub fresh: bool,
}

/// A submission whose form has been checked, for the driver to carry out.
#[derive(Debug)]
pub struct Submission {
    /// The envelope id of the submit.
    pub request: String,
    /// Who submits.
    pub principal: Principal,
    /// `name` or `name@version` (§7.5).
    pub agent: String,
    /// What the agent is given.
    pub input: Json,
    /// The authority asked for (§9).
    pub authority: Authority,
    /// Makes a repeated submission harmless (§7.2).
    pub idempotency_key: Option<String>,
    /// How long the job may run.
    pub max_runtime_sec: Option<NonZeroU32>,
    /// Its trace, if the client has one.
    pub trace_id: Option<TraceId>,
    /// The number its first message will have, if the session has nothing else to tell.
    pub first_seq: Option<u64>,
}

/// Something for the driver to do.
#[derive(Debug)]
pub enum Output {
    /// Write this message.
    Send(ServerMessage),
    /// Find out whose token this is; the answer is [`Input::Authenticated`].
    Authenticate(Option<Secret>),
    /// Make a job; the answer is [`Input::Submitted`], in the order of the submissions.
    Submit(Box<Submission>),
    /// Cancel a job of this session (§7.4); the answer is [`Input::Cancelled`].
    Cancel {
        /// The cancel.
        request: String,
        /// Who asks.
        principal: Principal,
        /// The job.
        job_id: JobId,
        /// The client's words.
        reason: Option<String>,
    },
    /// Look up the principal's jobs (§6.6); the answer is [`Input::Listed`].
    ListJobs {
        /// The listing request.
        request: String,
        /// Who asks.
        principal: Principal,
        /// Which jobs.
        list: ListJobs,
    },
    /// Read this job's journal, and give each record as [`Input::Record`].
    Follow {
        /// The job.
        job_id: JobId,
        /// Whether only its end matters, and what stands before it need not be read.
        only_end: bool,
    },
    /// Log that a request was refused and why.
    Refused(Refusal),
    /// End the connection.
    Close(Close),
}

/// Why a connection ends, which decides the WebSocket close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// As the client asked (1000).
    Normal,
    /// The host stops (1001).
    GoingAway,
    /// The client broke the rules or is not let in (1008).
    Policy,
    /// The client has fallen silent (1008).
    HeartbeatLost,
}

/// A session.
pub struct Session {
    config: SessionConfig,
    header_token: Option<Secret>,
    dialect: &'static Dialect,
    phase: Phase,
}

enum Phase {
    /// Nothing heard yet; the instant is the end of patience.
    Greeting { until: Timestamp },
    /// The driver is looking the token up.
    Authenticating { hello: Hello, request: String },
    /// In use.
    Open(Box<Open>),
    /// Over.
    Closed,
}

impl Session {
    /// Begins with a fresh connection; `header_token` came with the transport itself.
    #[must_use]
    pub fn new(config: SessionConfig, now: Timestamp, header_token: Option<Secret>) -> Self {
        let until = now.saturating_add(config.handshake_timeout);
        Self { config, header_token, dialect: dialect::GENERIC, phase: Phase::Greeting { until } }
    }

    /// How the client reads.
    #[must_use]
    pub fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    /// Whether the session has been welcomed and is not over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// When [`Input::Tick`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Greeting { until } => Some(*until),
            Phase::Open(open) => open.deadline(),
            Phase::Authenticating { .. } | Phase::Closed => None,
        }
    }

    /// Advances by one input. `fresh` is a ULID no message has used yet.
    pub fn handle(&mut self, now: Timestamp, fresh: Ulid, input: Input) -> Vec<Output> {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let (next, outputs) = match (phase, input) {
            (Phase::Greeting { .. }, Input::Frame(Ok(Request { id, message: ClientMessage::Hello(hello), .. }))) => {
                self.dialect = dialect::detect(&id, &hello);
                match admit(&hello, self.header_token.take()) {
                    Ok(token) => (Phase::Authenticating { hello, request: id }, vec![Output::Authenticate(token)]),
                    Err(refusal) => refuse(Some(id), refusal),
                }
            }
            (Phase::Authenticating { hello, request }, Input::Authenticated(Some(welcomed))) => {
                let (open, welcome) = Open::new(&self.config, now, welcomed, &hello, request);
                (Phase::Open(Box::new(open)), vec![Output::Send(welcome)])
            }
            (Phase::Authenticating { request, .. }, Input::Authenticated(None)) => {
                let message = "the token is missing or unknown; ask the operator for one";
                refuse(Some(request), Refusal::new(ErrorCode::Unauthenticated, message))
            }
            (Phase::Open(mut open), input) => {
                let outputs = open.handle(now, fresh, input);
                let over = outputs.iter().any(|output| matches!(output, Output::Close(_)));
                (if over { Phase::Closed } else { Phase::Open(open) }, outputs)
            }
            // A closed session stays closed, whatever still arrives.
            (Phase::Closed, _) => (Phase::Closed, vec![]),
            (Phase::Greeting { until }, Input::Tick) if now < until => (Phase::Greeting { until }, vec![]),
            (Phase::Greeting { .. }, Input::Tick) => {
                refuse(None, Refusal::new(ErrorCode::Unauthenticated, "no session.hello arrived in time"))
            }
            (Phase::Greeting { until }, Input::Alive) => (Phase::Greeting { until }, vec![]),
            (Phase::Authenticating { hello, request }, Input::Tick | Input::Alive) => {
                (Phase::Authenticating { hello, request }, vec![])
            }
            (Phase::Greeting { .. } | Phase::Authenticating { .. }, Input::Stopping) => {
                (Phase::Closed, vec![Output::Close(Close::GoingAway)])
            }
            (Phase::Greeting { .. }, Input::Frame(Err(malformed))) => refuse(malformed.id, malformed.refusal),
            (Phase::Greeting { .. }, Input::Unreadable(refusal)) => refuse(None, refusal),
            // A client that speaks before its welcome has been authorised for
            // nothing, so nothing is answered but the refusal.
            (Phase::Greeting { .. } | Phase::Authenticating { .. }, input) => {
                let request = if let Input::Frame(Ok(request)) = input { Some(request.id) } else { None };
                let message = "a session begins with session.hello, and goes on after session.welcome";
                refuse(request, Refusal::new(ErrorCode::Unauthenticated, message))
            }
        };
        self.phase = next;
        outputs
    }
}

/// Checks what a hello says of itself, and finds the token.
fn admit(hello: &Hello, header: Option<Secret>) -> Result<Option<Secret>, Refusal> {
    if !hello.encodings.is_empty() && !hello.encodings.iter().any(|encoding| encoding == "json") {
        return Err(Refusal::invalid("session.hello: `capabilities.encodings` must hold `json`"));
    }
    if hello.resumes {
        let message = "this host cannot resume sessions yet; say hello without `resume`";
        return Err(Refusal::new(ErrorCode::ResumeWindowExpired, message));
    }
    match hello.scheme.as_deref() {
        None | Some("bearer" | "none" | "anonymous") => {}
        Some(_) => {
            let message = "session.hello: `auth.scheme` must be `bearer`";
            return Err(Refusal::new(ErrorCode::Unauthenticated, message));
        }
    }
    match (hello.token.clone(), header) {
        (Some(token), Some(header)) if token != header => Err(Refusal::new(
            ErrorCode::Unauthenticated,
            "the token of session.hello and the one of the Authorization header differ",
        )),
        (token, header) => Ok(token.or(header)),
    }
}

/// Ends a handshake: the reason, then the connection.
fn refuse(request: Option<String>, refusal: Refusal) -> (Phase, Vec<Output>) {
    let outputs = vec![
        Output::Refused(refusal.clone()),
        Output::Send(ServerMessage::HandshakeRefused { request, refusal }),
        Output::Close(Close::Policy),
    ];
    (Phase::Closed, outputs)
}

#[cfg(test)]
mod tests;
