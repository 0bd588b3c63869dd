//! A session that has been welcomed (ARCP §6.4-§7.4).

use std::time::Duration;

use super::{Close, Input, Output, SessionConfig, Submission, Welcomed, outbox::Outbox};
use crate::{
    error::Refusal,
    id::{Principal, Ulid},
    lease::{Authority, Lease, Namespace},
    protocol::{
        client::{ClientMessage, Hello, Malformed, Request, Submit},
        feature::{Feature, Features},
        server::{Accepted, ServerMessage, Welcome},
        trace::TraceId,
    },
    time::Timestamp,
};

/// The state of an open session.
pub(super) struct Open {
    principal: Principal,
    features: Features,
    outbox: Outbox,
    /// How often a peer speaks, if heartbeats were negotiated.
    interval: Option<Duration>,
    heard: Timestamp,
    spoke: Timestamp,
}

impl Open {
    pub(super) fn new(
        config: &SessionConfig,
        now: Timestamp,
        welcomed: Welcomed,
        hello: &Hello,
        request: String,
    ) -> (Self, ServerMessage) {
        let features = Features::negotiate(&hello.features);
        let interval = features.has(Feature::Heartbeat).then_some(config.heartbeat_interval);
        let seconds = |duration: Duration| u32::try_from(duration.as_secs().max(1)).unwrap_or(u32::MAX);
        let welcome = Welcome {
            request,
            resume_token: welcomed.resume_token,
            resume_window_sec: seconds(config.resume_window),
            heartbeat_interval_sec: interval.map(seconds),
            features: features.clone(),
            agents: welcomed.agents,
        };
        let open = Self {
            principal: welcomed.principal,
            outbox: Outbox::new(features.clone()),
            features,
            interval,
            heard: now,
            spoke: now,
        };
        (open, ServerMessage::Welcome(Box::new(welcome)))
    }

    /// When to ping, or to give the client up.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let interval = self.interval?;
        let ping = self.spoke.saturating_add(interval / 2);
        let lost = self.heard.saturating_add(interval * 2);
        Some(ping.min(lost))
    }

    pub(super) fn handle(&mut self, now: Timestamp, fresh: Ulid, input: Input) -> Vec<Output> {
        if matches!(input, Input::Frame(_) | Input::Unreadable(_) | Input::Alive) {
            self.heard = now;
        }
        let outputs = match input {
            Input::Frame(Ok(request)) => self.request(request),
            Input::Frame(Err(malformed)) => misunderstood(*malformed),
            Input::Unreadable(refusal) => refused(None, refusal),
            Input::Submitted { request, trace_id, outcome } => self.submitted(request, trace_id, outcome),
            Input::Cancelled { request, job_id, reason, outcome } => match outcome {
                Ok(trace_id) => vec![Output::Send(ServerMessage::Cancelled { request, job_id, trace_id, reason })],
                Err(refusal) => vec![
                    Output::Refused(refusal.clone()),
                    Output::Send(ServerMessage::RequestRefused {
                        request: Some(request),
                        job_id: Some(job_id),
                        refusal,
                    }),
                ],
            },
            Input::Listed { request, outcome } => match outcome {
                Ok((mut jobs, next_cursor)) => {
                    for job in &mut jobs {
                        job.last_event_seq = self.outbox.last_seq_of(job.job_id);
                    }
                    vec![Output::Send(ServerMessage::Jobs { request, jobs, next_cursor })]
                }
                Err(refusal) => refused(Some(request), refusal),
            },
            Input::Record(job_id, record) => self.outbox.push(job_id, record).into_iter().map(Output::Send).collect(),
            Input::Stopping => vec![
                Output::Send(ServerMessage::Closed { request: None, reason: Some("the host is stopping".into()) }),
                Output::Close(Close::GoingAway),
            ],
            Input::Tick => self.tick(now, fresh),
            // Answered once, before the session was open.
            Input::Authenticated(_) => vec![],
            Input::Alive => vec![],
        };
        if outputs.iter().any(|output| matches!(output, Output::Send(_))) {
            self.spoke = now;
        }
        outputs
    }

    fn request(&mut self, request: Request) -> Vec<Output> {
        let Request { id, trace_id, message, .. } = request;
        match message {
            ClientMessage::Submit(submit) => match self.submission(&id, trace_id, *submit) {
                Ok(submission) => vec![Output::Submit(Box::new(submission))],
                Err(refusal) => submit_refused(Some(id), trace_id, refusal),
            },
            ClientMessage::Cancel { job_id, reason } => {
                vec![Output::Cancel { request: id, principal: self.principal.clone(), job_id, reason }]
            }
            ClientMessage::ListJobs(list) => match self.need(Feature::ListJobs) {
                Ok(()) => vec![Output::ListJobs { request: id, principal: self.principal.clone(), list }],
                Err(refusal) => refused(Some(id), refusal),
            },
            // Answered whether or not heartbeats were negotiated: it costs nothing and some clients ask.
            ClientMessage::Ping { nonce } => vec![Output::Send(ServerMessage::Pong { request: id, nonce })],
            // A pong has done its work by arriving.
            ClientMessage::Pong => vec![],
            ClientMessage::Ack { .. } => match self.need(Feature::Ack) {
                Ok(()) => vec![],
                Err(refusal) => refused(Some(id), refusal),
            },
            ClientMessage::Close { .. } => vec![
                Output::Send(ServerMessage::Closed { request: Some(id), reason: None }),
                Output::Close(Close::Normal),
            ],
            ClientMessage::Hello(_) => refused(Some(id), Refusal::invalid("the session is open already")),
            ClientMessage::Unsupported(kind) => {
                refused(Some(id), Refusal::invalid(format!("this host does not offer `{kind}`")))
            }
            // Ignored, so that a newer client can say more than this host knows (§5).
            ClientMessage::Unknown(_) => vec![],
        }
    }

    /// Checks all of a submission that can be checked without knowing the agents.
    fn submission(&self, id: &str, trace_id: Option<TraceId>, submit: Submit) -> Result<Submission, Refusal> {
        let lease = Lease::parse(&submit.lease_request)
            .map_err(|error| Refusal::invalid(format!("job.submit: payload.{error}")))?;
        if lease.names(&Namespace::CostBudget) {
            self.need(Feature::CostBudget)?;
        }
        let expires_at = match &submit.expires_at {
            None => None,
            Some(text) => {
                self.need(Feature::LeaseExpiresAt)?;
                let at = Timestamp::parse_utc(text).map_err(|error| {
                    Refusal::invalid(format!("job.submit: `payload.lease_constraints.expires_at`: {error}"))
                })?;
                Some(at)
            }
        };
        Ok(Submission {
            request: id.to_owned(),
            principal: self.principal.clone(),
            agent: submit.agent,
            input: submit.input,
            authority: Authority { lease, expires_at },
            idempotency_key: submit.idempotency_key,
            max_runtime_sec: submit.max_runtime_sec,
            trace_id,
            first_seq: None,
        })
    }

    fn submitted(
        &mut self,
        request: String,
        trace_id: TraceId,
        outcome: Result<super::Submitted, Refusal>,
    ) -> Vec<Output> {
        match outcome {
            Err(refusal) => submit_refused(Some(request), Some(trace_id), refusal),
            Ok(super::Submitted { accepted, fresh }) => {
                let begun = self.outbox.follow(accepted.job_id, accepted.trace_id, request.clone(), !fresh);
                let follow = begun.then_some(Output::Follow { job_id: accepted.job_id, only_end: !fresh });
                let message = Accepted {
                    request,
                    job_id: accepted.job_id,
                    budget: accepted.budget(),
                    agent: accepted.agent.clone(),
                    lease: accepted.authority.lease.clone(),
                    expires_at: accepted.authority.expires_at,
                    accepted_at: accepted.at,
                    trace_id: accepted.trace_id,
                };
                let answer = Output::Send(ServerMessage::Accepted(Box::new(message)));
                std::iter::once(answer).chain(follow).collect()
            }
        }
    }

    /// A silent client is pinged, and given up only when it has answered
    /// nothing for two intervals (§6.4). Its jobs go on.
    fn tick(&self, now: Timestamp, fresh: Ulid) -> Vec<Output> {
        let Some(interval) = self.interval else { return vec![] };
        if now >= self.heard.saturating_add(interval * 2) {
            return vec![Output::Close(Close::HeartbeatLost)];
        }
        if now >= self.spoke.saturating_add(interval / 2) {
            return vec![Output::Send(ServerMessage::Ping { nonce: fresh })];
        }
        vec![]
    }

    /// ARCP §6.2: "Either peer MUST NOT use a feature outside that intersection."
    fn need(&self, feature: Feature) -> Result<(), Refusal> {
        if self.features.has(feature) {
            return Ok(());
        }
        Err(Refusal::invalid(format!("the feature `{feature}` was not negotiated; offer it in session.hello")))
    }
}

/// A frame that could not be understood ends nothing but itself.
fn misunderstood(malformed: Malformed) -> Vec<Output> {
    match malformed.kind.as_deref() {
        Some("job.submit") => submit_refused(malformed.id, malformed.trace_id, malformed.refusal),
        _ => refused(malformed.id, malformed.refusal),
    }
}

fn refused(request: Option<String>, refusal: Refusal) -> Vec<Output> {
    vec![
        Output::Refused(refusal.clone()),
        Output::Send(ServerMessage::RequestRefused { request, job_id: None, refusal }),
    ]
}

fn submit_refused(request: Option<String>, trace_id: Option<TraceId>, refusal: Refusal) -> Vec<Output> {
    vec![Output::Refused(refusal.clone()), Output::Send(ServerMessage::SubmitRefused { request, trace_id, refusal })]
}
