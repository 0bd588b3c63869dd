//! One client's session, as a machine without clocks, sockets or tasks (ARCP §6).
//!
//! Bytes, timers and jobs belong to the driver (`server::connection`). The
//! driver calls [`Session::handle`] with whatever happened, does every
//! [`Output`] in order, and calls again with [`Input::Tick`] no later than
//! [`Session::deadline`].

mod ack;
pub mod history;
pub mod log;
mod open;
pub mod outbox;

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use rust_decimal::Decimal;

use self::{
    history::Resumed,
    log::{Checkpoint, LogRecord},
    open::Open,
    outbox::ReadFrom,
};
use crate::{
    error::{ErrorCode, Refusal},
    id::{JobId, Principal, Ulid},
    job::record::{Accepted, Record},
    lease::{Authority, Namespace, amount::Currency},
    protocol::{
        client::{ClientMessage, Hello, ListJobs, Malformed, Request, Resume, Subscribe},
        credential::Credential,
        dialect::{self, Asked, Dialect},
        feature::{Feature, Features},
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
    /// How many spans are written between two checkpoints of a session, see [`log`].
    pub spans_max: usize,
    /// How long after the newest message, if that was a job's last, it is written down that there was nothing after
    /// it: the job's journal is not needed any more then to know that.
    pub settle_after: Duration,
    /// How many jobs one session is told of at once before a subscription is refused (§7.6).
    pub followed_max: usize,
    /// By how many numbers a client that acknowledges may lag before it is told so; 0: by any number (§6.5).
    pub lag_max: u64,
    /// What this host does besides [`Feature::SUPPORTED`] (§6.2).
    pub features: Vec<Feature>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A frame came in.
    Frame(Result<Request, Box<Malformed>>),
    /// The frame could not even be read as text.
    Unreadable(Refusal),
    /// The answer to [`Output::Authenticate`].
    Authenticated(Result<Welcomed, Refusal>),
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
    /// The answer to [`Output::Subscribe`].
    Subscribed {
        /// The subscription.
        request: String,
        /// The job.
        job_id: JobId,
        /// What there is to be watched, or why it may not be.
        outcome: Result<Watched, Refusal>,
    },
    /// The answer to [`Output::ListJobs`].
    Listed {
        /// The listing request.
        request: String,
        /// One page and where the next begins, or why not.
        outcome: Result<(Vec<JobSummary>, Option<String>), Refusal>,
    },
    /// What was read for [`Output::Read`], of one job or of several; not between an [`Output::Store`] and its answer.
    Pages(Vec<Page>),
    /// The answer to the oldest [`Output::Store`] without one.
    Stored,
    /// The peer gave a sign of life that is no frame, such as a WebSocket pong.
    Alive,
    /// The host is about to stop.
    Stopping,
    /// The connection is gone. What is still under way belongs to the session.
    Gone,
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
    /// The session it has come back to, if it asked for one.
    pub resumed: Option<Box<Resumed>>,
}

/// A job that a client may watch (§7.6).
#[derive(Debug)]
pub struct Watched {
    /// The job as a listing tells of it.
    pub job: JobSummary,
    /// What is left of its budget, if it has one.
    pub budget: BTreeMap<Currency, Decimal>,
    /// The position in its journal after which it is told; the whole end of one that has ended is told in any case.
    pub after: u64,
    /// Whether what it told before is told, too.
    pub replayed: bool,
}

/// Who a client says it is.
#[derive(Debug)]
pub enum Who {
    /// Whoever has this token.
    Token(Option<Secret>),
    /// Whom it was found to be when its fresh session was welcomed.
    Known(Principal),
}

/// Which session a client wants.
#[derive(Debug)]
pub enum Claim {
    /// A new one.
    New {
        /// What was negotiated.
        features: Features,
        /// How the client reads.
        dialect: &'static Dialect,
    },
    /// An earlier one.
    Resume(Resume),
}

/// Records of one job, in the order of its journal.
#[derive(Debug)]
pub struct Page {
    /// The job.
    pub job_id: JobId,
    /// Which following of the job it was read for, from [`Output::Read`].
    pub turn: u64,
    /// The position after which it was read.
    pub after: u64,
    /// The records with their positions; none only if there was nothing and nothing was waited for.
    pub records: Vec<(u64, Record)>,
}

/// A submission that made a job, or found the one it made before (§7.2).
#[derive(Debug)]
pub struct Submitted {
    /// The job as accepted.
    pub accepted: Arc<Accepted>,
    /// Whether this submission made it.
    pub fresh: bool,
    /// The keys that were made for it (§9.8), while they are worth something.
    pub credentials: Vec<Credential>,
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
    /// Namespaces of which all is asked for besides that the principal may have.
    pub whole: Vec<Namespace>,
    /// Makes a repeated submission harmless (§7.2).
    pub idempotency_key: Option<String>,
    /// How long the job may run.
    pub max_runtime_sec: Option<NonZeroU32>,
    /// Its trace, if the client has one.
    pub trace_id: Option<TraceId>,
    /// The how-manieth submission of the session it is.
    pub ordinal: u64,
    /// The number its first message will have, if the session has nothing else to tell.
    pub first_seq: Option<u64>,
    /// Whether its client takes keys that are made for the job (§9.8).
    pub takes_credentials: bool,
}

/// Something for the driver to do.
#[derive(Debug)]
pub enum Output {
    /// Write this message.
    Send(ServerMessage),
    /// Find out who this is and begin or find the session; the answer is [`Input::Authenticated`].
    Authenticate {
        /// Who.
        who: Who,
        /// Which session.
        claim: Claim,
    },
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
    /// Find out whether a job may be watched (§7.6); the answer is [`Input::Subscribed`].
    Subscribe {
        /// The subscription.
        request: String,
        /// Who asks.
        principal: Principal,
        /// Which job, and from where on.
        subscribe: Subscribe,
    },
    /// Forget the [`Output::Read`] of this following of a job: its client has unsubscribed.
    Unread {
        /// Which.
        turn: u64,
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
    /// Read one page of this job's journal; the answer is one of [`Input::Pages`].
    Read {
        /// The job.
        job_id: JobId,
        /// Which following of the job it is for.
        turn: u64,
        /// From where.
        from: ReadFrom,
        /// Whether to wait until there is something.
        wait: bool,
        /// Whether the client has just been told that it is subscribed: see [`Dialect::subscribe_pause`].
        ///
        /// [`Dialect::subscribe_pause`]: crate::protocol::dialect::Dialect::subscribe_pause
        pause: bool,
    },
    /// Append these records to the session's stream, after all that was noted; the answer is [`Input::Stored`] once
    /// they are durable.
    Store(Vec<LogRecord>),
    /// Append this record to the session's stream some time soon. It may be lost if the host is killed.
    Note(LogRecord),
    /// As [`Output::Note`]; and what stands before the checkpoint before this one can be forgotten.
    Checkpoint(Checkpoint),
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
    /// The host cannot go on (1011).
    Internal,
}

/// A session.
pub struct Session {
    config: SessionConfig,
    header_token: Option<Secret>,
    dialect: &'static Dialect,
    /// The software its connection says it is.
    user_agent: Option<String>,
    /// What the client has asked for besides, and whether there is such a dialect.
    asked: Option<Result<&'static Dialect, Refusal>>,
    phase: Phase,
}

enum Phase {
    /// Nothing heard yet; the instant is the end of patience.
    Greeting { until: Timestamp },
    /// The driver is looking the client up.
    Authenticating { request: String, features: Features },
    /// In use.
    Open(Box<Open>),
    /// Over. Submissions that are under way still find the session they belong to.
    Closed(Option<Box<Open>>),
}

impl Session {
    /// Begins with a fresh connection; `header_token` came with the transport itself.
    #[must_use]
    pub fn new(config: SessionConfig, now: Timestamp, header_token: Option<Secret>) -> Self {
        let until = now.saturating_add(config.handshake_timeout);
        let (dialect, phase) = (dialect::GENERIC, Phase::Greeting { until });
        Self { config, header_token, dialect, user_agent: None, asked: None, phase }
    }

    /// Takes note of the software that the connection says it is, before anybody has spoken.
    #[must_use]
    pub fn reached_by(self, user_agent: &str) -> Self {
        Self { user_agent: Some(user_agent.to_owned()), ..self }
    }

    /// Speaks the dialect of this name whatever the hello is like.
    #[must_use]
    pub fn speaking(self, name: &str) -> Self {
        let asked = dialect::asked(name);
        Self { dialect: asked.as_ref().map_or(self.dialect, |dialect| *dialect), asked: Some(asked), ..self }
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

    /// Whether its client is still being told what it was told before. Answers to its submissions can wait meanwhile.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.is_replaying())
    }

    /// Whether it looks for signs of life of its client by itself (§6.4).
    #[must_use]
    pub fn has_heartbeat(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.has_heartbeat())
    }

    /// How many answers wait until it is known what the session follows. Whoever gives it answers should ask for no
    /// more meanwhile.
    #[must_use]
    pub fn waiting(&self) -> usize {
        if let Phase::Open(open) = &self.phase { open.waiting() } else { 0 }
    }

    /// When [`Input::Tick`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Greeting { until } => Some(*until),
            Phase::Open(open) => open.deadline(),
            Phase::Authenticating { .. } | Phase::Closed(_) => None,
        }
    }

    /// Advances by one input. `fresh` is a ULID no message has used yet.
    pub fn handle(&mut self, now: Timestamp, fresh: Ulid, input: Input) -> Vec<Output> {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed(None));
        let (next, outputs) = match (phase, input) {
            (Phase::Greeting { .. }, Input::Frame(Ok(Request { id, message: ClientMessage::Hello(hello), .. }))) => {
                let asked = self.asked.clone();
                self.dialect = match asked {
                    Some(Ok(dialect)) => dialect,
                    _ => dialect::detect(&id, &hello, self.user_agent.as_deref()),
                };
                let known = asked.unwrap_or(Ok(self.dialect));
                match known.and_then(|_| admit(&hello, self.header_token.take())) {
                    Ok(token) => {
                        let features = Features::negotiate(&hello.features, &self.config.features);
                        let claim = match hello.resume {
                            Some(resume) => Claim::Resume(resume),
                            None => Claim::New { features: features.clone(), dialect: self.dialect },
                        };
                        let authenticate = Output::Authenticate { who: Who::Token(token), claim };
                        (Phase::Authenticating { request: id, features }, vec![authenticate])
                    }
                    Err(refusal) => refuse(Some(id), refusal),
                }
            }
            // ARCP §6.3 lets a client begin with it; who it is has to stand in the header then.
            (Phase::Greeting { .. }, Input::Frame(Ok(Request { id, message: ClientMessage::Resume(resume), .. }))) => {
                let who = Who::Token(self.header_token.take());
                let authenticate = Output::Authenticate { who, claim: Claim::Resume(resume) };
                (Phase::Authenticating { request: id, features: Features::default() }, vec![authenticate])
            }
            (Phase::Authenticating { request, features }, Input::Authenticated(Ok(welcomed))) => {
                if let (Some(resumed), None) = (&welcomed.resumed, &self.asked) {
                    self.dialect = resumed.dialect;
                }
                let (open, outputs) = Open::new(&self.config, self.dialect, now, welcomed, features, request);
                (Phase::Open(Box::new(open)), outputs)
            }
            (Phase::Authenticating { request, .. }, Input::Authenticated(Err(refusal))) => {
                refuse(Some(request), refusal)
            }
            // Some clients say hello to be let in and ask for their session then.
            (Phase::Open(open), Input::Frame(Ok(Request { id, message: ClientMessage::Resume(resume), .. })))
                if open.is_unused() =>
            {
                let who = Who::Known(open.principal().clone());
                let authenticate = Output::Authenticate { who, claim: Claim::Resume(resume) };
                (Phase::Authenticating { request: id, features: Features::default() }, vec![authenticate])
            }
            (Phase::Open(mut open), Input::Gone) => {
                open.leave();
                (Phase::Closed(Some(open)), vec![])
            }
            (Phase::Open(mut open), input) => {
                let outputs = open.handle(now, fresh, input);
                let over = outputs.iter().any(|output| matches!(output, Output::Close(_)));
                (if over { Phase::Closed(Some(open)) } else { Phase::Open(open) }, outputs)
            }
            // Nobody is told any more, but what comes of a submission is the session's.
            (Phase::Closed(Some(mut open)), input @ Input::Submitted { .. }) => {
                let outputs = open.handle(now, fresh, input).into_iter().flat_map(|output| match output {
                    Output::Note(record) => vec![record],
                    Output::Store(records) => records,
                    _ => vec![],
                });
                let outputs = outputs.map(Output::Note).collect();
                (Phase::Closed(Some(open)), outputs)
            }
            // A closed session stays closed, whatever still arrives.
            (Phase::Closed(open), _) => (Phase::Closed(open), vec![]),
            (_, Input::Gone) => (Phase::Closed(None), vec![]),
            (Phase::Greeting { until }, Input::Tick) if now < until => (Phase::Greeting { until }, vec![]),
            (Phase::Greeting { .. }, Input::Tick) => {
                refuse(None, Refusal::new(ErrorCode::Unauthenticated, "no session.hello arrived in time"))
            }
            (Phase::Greeting { until }, Input::Alive) => (Phase::Greeting { until }, vec![]),
            (Phase::Authenticating { request, features }, Input::Tick | Input::Alive) => {
                (Phase::Authenticating { request, features }, vec![])
            }
            (Phase::Greeting { .. } | Phase::Authenticating { .. }, Input::Stopping) => {
                (Phase::Closed(None), vec![Output::Close(Close::GoingAway)])
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

/// The refusal of a peer that nobody knows.
#[must_use]
pub fn stranger() -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, "the token is missing or unknown; ask the operator for one")
}

/// The refusal of a resume, which is the same whatever the reason: a guess must not learn how near it came (§6.3).
#[must_use]
pub fn expired() -> Refusal {
    let message = "there is no such session to resume, or not any more; say hello without `resume`";
    Refusal::new(ErrorCode::ResumeWindowExpired, message)
}

/// Checks what a hello says of itself, and finds the token.
fn admit(hello: &Hello, header: Option<Secret>) -> Result<Option<Secret>, Refusal> {
    if !hello.encodings.is_empty() && !hello.encodings.iter().any(|encoding| encoding == "json") {
        return Err(Refusal::invalid("session.hello: `capabilities.encodings` must hold `json`"));
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
    let log = Output::Refused(refusal.clone());
    let message = ServerMessage::Refused { asked: Asked::Session, request, job_id: None, trace_id: None, refusal };
    (Phase::Closed(None), vec![log, Output::Send(message), Output::Close(Close::Policy)])
}

#[cfg(test)]
mod tests;
