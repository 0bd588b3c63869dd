//! A session that has been welcomed (ARCP §6.3-§7.4).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    Close, Input, Output, Page, SessionConfig, Submission, Submitted, Watched, Welcomed,
    ack::Acknowledged,
    history::Replay,
    log::{Follow, Lag, LogRecord},
    outbox::{Delivery, Outbox, ReadFrom},
};
use crate::{
    error::{ErrorCode, Refusal},
    id::{JobId, Principal, Ulid},
    job::record::{End, Record},
    lease::{Authority, Lease, Namespace},
    protocol::{
        client::{ClientMessage, Malformed, Request, Submit},
        dialect::{Asked, Dialect, Words},
        feature::{Feature, Features},
        server::{Accepted, ServerMessage, Subscribed, Welcome},
        trace::TraceId,
    },
    time::Timestamp,
};

/// The state of an open session.
pub(super) struct Open {
    principal: Principal,
    dialect: &'static Dialect,
    features: Features,
    outbox: Outbox,
    /// How far the client says it has come; a session that has not negotiated it is told nothing of its lag.
    acknowledged: Acknowledged,
    /// The way to where the session stands, if its client has come back and not got there.
    replay: Option<Replay>,
    /// How many submissions there have been.
    ordinal: u64,
    /// Answers that came too early: see [`Open::is_early`].
    late: Vec<Input>,
    /// The subscriptions under way, and whether they were ended before they were answered.
    subscribing: Vec<(String, JobId, bool)>,
    /// The jobs that the client watches, if it has to be told of each in the name of its subscription.
    watched: BTreeSet<JobId>,
    /// The subscriptions to end once it is known what the session follows.
    unsubscribing: Vec<JobId>,
    /// The submissions under way: their ordinals, and the numbers they were promised.
    submitting: VecDeque<(u64, Option<u64>)>,
    /// The newest number that a submission was promised, which the next one must not be promised again: a submission
    /// that was refused because the store failed may have been stored nevertheless.
    promised: u64,
    /// What has to wait until something is durable, for each [`Output::Store`].
    held: VecDeque<Held>,
    spans_max: usize,
    settle_after: Duration,
    followed_max: usize,
    /// Whether the host has models, and so offers `model.use`.
    has_models: bool,
    /// When the newest message was numbered, until it is written down that nothing came after it.
    told: Option<Timestamp>,
    /// How often a peer speaks, if heartbeats were negotiated.
    interval: Option<Duration>,
    heard: Timestamp,
    spoke: Timestamp,
    /// The newest ping.
    pinged: Timestamp,
}

struct Held {
    outputs: Vec<Output>,
    /// Whether an answer to a submission is among them, which no later one may overtake.
    answers: bool,
}

impl Open {
    pub(super) fn new(
        config: &SessionConfig,
        dialect: &'static Dialect,
        now: Timestamp,
        welcomed: Welcomed,
        negotiated: Features,
        request: String,
    ) -> (Self, Vec<Output>) {
        let (features, outbox, ordinal, replay, first) = match welcomed.resumed.map(|resumed| *resumed) {
            Some(it) => (it.features, it.outbox, it.ordinal, Some(it.replay), it.first),
            None => (negotiated.clone(), Outbox::new(negotiated), 0, None, Vec::new()),
        };
        let lag_max = if features.has(Feature::Ack) { config.lag_max } else { 0 };
        let has = replay.as_ref().map_or(0, Replay::skipped);
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
        let mut open = Self {
            principal: welcomed.principal,
            dialect,
            features,
            outbox,
            acknowledged: Acknowledged::new(has, lag_max),
            replay,
            ordinal,
            late: Vec::new(),
            subscribing: Vec::new(),
            watched: BTreeSet::new(),
            unsubscribing: Vec::new(),
            submitting: VecDeque::new(),
            promised: 0,
            held: VecDeque::new(),
            spans_max: config.spans_max,
            settle_after: config.settle_after,
            followed_max: config.followed_max,
            has_models: config.features.contains(&Feature::ModelUse),
            told: Some(now),
            interval,
            heard: now,
            spoke: now,
            pinged: now,
        };
        let mut outputs = vec![Output::Send(ServerMessage::Welcome(Box::new(welcome)))];
        outputs.extend(first.into_iter().map(Output::Send));
        outputs.extend(open.replay_on(now));
        (open, outputs)
    }

    /// Whose session it is.
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether nothing has been asked of the session yet.
    pub(super) fn is_unused(&self) -> bool {
        self.ordinal == 0 && self.outbox.last_seq() == 0 && self.outbox.is_idle() && self.replay.is_none()
    }

    /// Whether the client is still being told what it was told before.
    pub(super) fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// The connection is gone, and with it whoever waits for the answer to a subscription.
    pub(super) fn leave(&mut self) {
        self.late.retain(|late| matches!(late, Input::Submitted { .. }));
    }

    /// Which following of a job this is.
    #[cfg(test)]
    pub(super) fn turn(&self, job_id: JobId) -> Option<u64> {
        self.outbox.turn(job_id)
    }

    /// Whether heartbeats were negotiated.
    pub(super) fn has_heartbeat(&self) -> bool {
        self.interval.is_some()
    }

    /// When to ping, or to give the client up.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let lost = self.interval.map(|interval| self.heard.saturating_add(interval * 2));
        let ping = self.interval.map(|interval| self.ping_at(interval));
        [lost, ping, self.settles_at()].into_iter().flatten().min()
    }

    /// When to write down that nothing came after the newest message.
    fn settles_at(&self) -> Option<Timestamp> {
        let settled = self.outbox.is_settled() && self.replay.is_none() && self.held.is_empty();
        self.told.filter(|_| settled).map(|told| told.saturating_add(self.settle_after))
    }

    /// When to ping: after a silence of the host, so that the client knows it is there; and after one of the client,
    /// which may have nothing to say to a host that speaks all the time.
    fn ping_at(&self, interval: Duration) -> Timestamp {
        let idle = self.spoke.saturating_add(interval / 2);
        idle.min(self.heard.max(self.pinged).saturating_add(interval))
    }

    pub(super) fn handle(&mut self, now: Timestamp, fresh: Ulid, input: Input) -> Vec<Output> {
        if matches!(input, Input::Frame(_) | Input::Unreadable(_) | Input::Alive) {
            self.heard = now;
        }
        let last_seq = self.outbox.last_seq();
        let outputs = match input {
            Input::Frame(Ok(request)) => self.request(request),
            Input::Frame(Err(malformed)) => misunderstood(*malformed),
            Input::Unreadable(refusal) => refused(About::of(Asked::Other, None), refusal),
            early if self.is_early(&early) => {
                self.late.push(early);
                vec![]
            }
            Input::Submitted { request, trace_id, outcome } => {
                let mut outputs = self.submitted(request, trace_id, outcome);
                outputs.extend(self.answer_late(now));
                outputs
            }
            Input::Subscribed { request, job_id, outcome } => self.subscribed(request, job_id, outcome),
            Input::Cancelled { request, job_id, reason, outcome } => match outcome {
                Ok(trace_id) => vec![Output::Send(ServerMessage::Cancelled { request, job_id, trace_id, reason })],
                Err(refusal) => {
                    refused(About { job_id: Some(job_id), ..About::of(Asked::Cancel, Some(request)) }, refusal)
                }
            },
            Input::Listed { request, outcome } => match outcome {
                Ok((mut jobs, next_cursor)) => {
                    for job in &mut jobs {
                        job.last_event_seq = self.outbox.last_seq_of(job.job_id);
                    }
                    vec![Output::Send(ServerMessage::Jobs { request, jobs, next_cursor })]
                }
                Err(refusal) => refused(About::of(Asked::List, Some(request)), refusal),
            },
            Input::Pages(pages) => self.pages(now, pages),
            Input::Stored => {
                let mut outputs = self.held.pop_front().map_or_else(Vec::new, |held| held.outputs);
                // What was to be read may have been unsubscribed from meanwhile.
                outputs.retain(|output| match output {
                    Output::Read { job_id, turn, .. } => self.outbox.turn(*job_id) == Some(*turn),
                    _ => true,
                });
                outputs.extend(self.answer_late(now));
                outputs
            }
            Input::Stopping => vec![
                Output::Send(ServerMessage::Closed { request: None, reason: Some("the host is stopping".into()) }),
                Output::Close(Close::GoingAway),
            ],
            Input::Tick => self.tick(now, fresh),
            // Answered once, before the session was open.
            Input::Authenticated(_) => vec![],
            Input::Alive | Input::Gone => vec![],
        };
        if outputs.iter().any(|output| matches!(output, Output::Send(_))) {
            self.spoke = now;
        }
        if self.outbox.last_seq() > last_seq {
            self.told = Some(now);
        }
        outputs
    }

    fn request(&mut self, request: Request) -> Vec<Output> {
        let Request { id, trace_id, message, .. } = request;
        let about = |asked| About { trace_id, ..About::of(asked, Some(id.clone())) };
        let no = |asked, refusal| refused(about(asked), refusal);
        let no_job = |asked, job_id, refusal| refused(About { job_id: Some(job_id), ..about(asked) }, refusal);
        match message {
            ClientMessage::Submit(submit) => match self.submission(&id, trace_id, *submit) {
                Ok(submission) => vec![Output::Submit(Box::new(submission))],
                Err(refusal) => no(Asked::Submit, refusal),
            },
            ClientMessage::Cancel { job_id, reason } => {
                vec![Output::Cancel { request: id, principal: self.principal.clone(), job_id, reason }]
            }
            ClientMessage::ListJobs(list) => match self.need(Feature::ListJobs) {
                Ok(()) => vec![Output::ListJobs { request: id, principal: self.principal.clone(), list }],
                Err(refusal) => no(Asked::List, refusal),
            },
            // Answered whether or not heartbeats were negotiated: it costs nothing and some clients ask.
            ClientMessage::Ping { nonce, plain } => {
                vec![Output::Send(ServerMessage::Pong { request: id, nonce, plain })]
            }
            // A pong has done its work by arriving.
            ClientMessage::Pong => vec![],
            ClientMessage::Ack { last_processed_seq } => match self.need(Feature::Ack) {
                Ok(()) => {
                    self.acknowledged.take(last_processed_seq, self.outbox.last_seq());
                    vec![]
                }
                Err(refusal) => no(Asked::Other, refusal),
            },
            ClientMessage::Close { .. } => vec![
                Output::Send(ServerMessage::Closed { request: Some(id), reason: None }),
                Output::Close(Close::Normal),
            ],
            ClientMessage::Hello(_) => no(Asked::Other, Refusal::invalid("the session is open already")),
            ClientMessage::Resume(_) => {
                no(Asked::Other, Refusal::invalid("this session is in use; resume another on a connection of its own"))
            }
            ClientMessage::Subscribe(subscribe) => match self.may_follow() {
                Ok(()) => {
                    self.subscribing.push((id.clone(), subscribe.job_id, false));
                    vec![Output::Subscribe { request: id, principal: self.principal.clone(), subscribe }]
                }
                Err(refusal) => no_job(Asked::Subscribe, subscribe.job_id, refusal),
            },
            ClientMessage::Unsubscribe { job_id } => match self.need(Feature::Subscribe) {
                Ok(()) => self.unsubscribe(job_id),
                Err(refusal) => no_job(Asked::Other, job_id, refusal),
            },
            // Ignored, so that a newer client can say more than this host knows (§5).
            ClientMessage::Unknown(_) => vec![],
        }
    }

    /// Checks all of a submission that can be checked without knowing the agents.
    fn submission(&mut self, id: &str, trace_id: Option<TraceId>, submit: Submit) -> Result<Submission, Refusal> {
        let lease = Lease::parse(&submit.lease_request)
            .map_err(|error| Refusal::invalid(format!("job.submit: payload.{error}")))?;
        if lease.names(&Namespace::CostBudget) {
            self.need(Feature::CostBudget)?;
        }
        // A host without models has none that a grant could reach, and takes it as it takes names it does not know.
        if lease.names(&Namespace::ModelUse) && self.has_models {
            self.need(Feature::ModelUse)?;
        }
        let whole = Lease::parse_namespaces(&submit.whole)
            .map_err(|error| Refusal::invalid(format!("job.submit: payload.lease_request.capabilities: {error}")))?;
        if !submit.max_budget.is_empty() {
            within(submit.max_budget, &lease)?;
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
        let first_seq = self.promise();
        self.ordinal += 1;
        self.submitting.push_back((self.ordinal, first_seq));
        Ok(Submission {
            request: id.to_owned(),
            principal: self.principal.clone(),
            agent: submit.agent,
            input: submit.input,
            authority: Authority { lease, expires_at },
            whole,
            idempotency_key: submit.idempotency_key,
            max_runtime_sec: submit.max_runtime_sec,
            trace_id,
            ordinal: self.ordinal,
            first_seq,
            takes_credentials: self.takes_credentials(),
        })
    }

    /// Whether the client reads the keys of a job. Those from before the draft have no word for them.
    fn takes_credentials(&self) -> bool {
        self.features.has(Feature::ProvisionedCredentials) && self.dialect.words == Words::Draft
    }

    /// The number of the next message, if it will be of the job that is submitted now: nothing else is told or could
    /// be before it, and what was told is written down.
    fn promise(&mut self) -> Option<u64> {
        let next = self.outbox.last_seq() + 1;
        let alone = self.submitting.is_empty() && self.outbox.is_idle();
        let certain = self.replay.is_none() && self.held.is_empty() && next > self.promised;
        (alone && certain).then(|| {
            self.promised = next;
            next
        })
    }

    fn submitted(&mut self, request: String, trace_id: TraceId, outcome: Result<Submitted, Refusal>) -> Vec<Output> {
        let Some((ordinal, promised)) = self.submitting.pop_front() else { return vec![] };
        let (outputs, store) = match outcome {
            Err(refusal) => {
                let about = About { trace_id: Some(trace_id), ..About::of(Asked::Submit, Some(request)) };
                (refused(about, refusal), None)
            }
            Ok(Submitted { accepted, fresh, credentials }) => {
                let job_id = accepted.job_id;
                let first = promised.filter(|_| fresh && accepted.first_seq == promised);
                let has_keys = self.takes_credentials() && !accepted.credentials.is_empty();
                let follow = Follow {
                    ordinal,
                    job_id,
                    trace_id: accepted.trace_id,
                    request: Some(request.clone()),
                    only_end: !fresh,
                    first,
                    after: 0,
                    keys_after: has_keys.then_some(0),
                };
                let begun = self.outbox.follow(follow.clone());
                let message = Accepted {
                    request: request.clone(),
                    job_id,
                    budget: accepted.budget(),
                    agent: accepted.agent.clone(),
                    lease: accepted.authority.lease.clone(),
                    expires_at: accepted.authority.expires_at,
                    accepted_at: accepted.at,
                    trace_id: accepted.trace_id,
                    credentials: if self.takes_credentials() { credentials } else { Vec::new() },
                };
                let mut outputs = vec![Output::Send(ServerMessage::Accepted(Box::new(message)))];
                let record = LogRecord::Follow(follow);
                if begun {
                    outputs.extend(self.read(job_id, false));
                }
                match (begun, fresh) {
                    (false, _) => {
                        let adopted = self.outbox.adopt(job_id, &request, has_keys);
                        (outputs, adopted.map(|record| Output::Store(vec![record])))
                    }
                    (true, true) => {
                        outputs.push(Output::Note(record));
                        (outputs, None)
                    }
                    // Its acceptance does not name this session, so nothing but this record says that it is told.
                    (true, false) => (outputs, Some(Output::Store(vec![record]))),
                }
            }
        };
        match (store, self.held.iter_mut().rfind(|held| held.answers)) {
            (Some(store), _) => {
                self.held.push_back(Held { outputs, answers: true });
                vec![store]
            }
            (None, Some(held)) => {
                // The order of what is written down is that of the submissions.
                let (notes, rest) = outputs.into_iter().partition(|output| matches!(output, Output::Note(_)));
                held.outputs.extend::<Vec<_>>(rest);
                notes
            }
            (None, None) => outputs,
        }
    }

    /// Whether there is room for a subscription.
    fn may_follow(&self) -> Result<(), Refusal> {
        self.need(Feature::Subscribe)?;
        let followed = self.outbox.followed().count() + self.subscribing.len();
        if followed < self.followed_max {
            return Ok(());
        }
        let message =
            format!("this session is told of {followed} jobs, the most it may be; unsubscribe from some first");
        Err(Refusal::new(ErrorCode::InternalError, message))
    }

    /// How many answers wait.
    pub(super) fn waiting(&self) -> usize {
        self.late.len()
    }

    /// Whether an answer has to wait: during a replay it is not known what the session follows, and while a submission
    /// has been promised the next number, nothing else may begin to be told. What was read waits if it would be taken
    /// for the answer to a submission.
    fn is_early(&self, input: &Input) -> bool {
        let promised = || self.submitting.iter().any(|(_, first)| first.is_some());
        match input {
            Input::Submitted { .. } => self.replay.is_some(),
            Input::Subscribed { .. } => self.replay.is_some() || promised(),
            Input::Pages(pages) => self.replay.is_none() && self.is_mistakable(pages),
            _ => false,
        }
    }

    /// Whether one of the pages ends a job that the client only watches in a way that some SDK's client takes for the
    /// refusal of a submission that is under way: see [`Dialect::mistakes_ends`].
    fn is_mistakable(&self, pages: &[Page]) -> bool {
        let fails = |page: &Page| {
            let failed = |(_, record): &(u64, Record)| matches!(record, Record::Ended { end: End::Failed { .. }, .. });
            page.records.last().is_some_and(failed) && self.outbox.request_of(page.job_id).is_none()
        };
        self.dialect.mistakes_ends && !self.submitting.is_empty() && pages.iter().any(fails)
    }

    fn answer_late(&mut self, now: Timestamp) -> Vec<Output> {
        let mut outputs = Vec::new();
        for late in std::mem::take(&mut self.late) {
            match late {
                early if self.is_early(&early) => self.late.push(early),
                // As it would have been read later.
                Input::Pages(pages) if !self.held.is_empty() => self.late.push(Input::Pages(pages)),
                Input::Pages(pages) => outputs.extend(self.pages(now, pages)),
                Input::Submitted { request, trace_id, outcome } => {
                    outputs.extend(self.submitted(request, trace_id, outcome));
                }
                Input::Subscribed { request, job_id, outcome } => {
                    outputs.extend(self.subscribed(request, job_id, outcome));
                }
                _ => {}
            }
        }
        outputs
    }

    /// Begins to read a job that the session has begun to follow.
    fn read(&mut self, job_id: JobId, pause: bool) -> Option<Output> {
        let turn = self.outbox.turn(job_id)?;
        Some(Output::Read { job_id, turn, from: self.outbox.begin(job_id), wait: true, pause })
    }

    /// Answers a subscription, and begins to tell of the job (§7.6).
    ///
    /// Whoever is told of the job already, because it submitted it or subscribed before, is not told twice.
    fn subscribed(&mut self, request: String, job_id: JobId, outcome: Result<Watched, Refusal>) -> Vec<Output> {
        let asked = self.subscribing.iter().position(|(id, of, _)| (id, of) == (&request, &job_id));
        let Some((.., ended_again)) = asked.map(|at| self.subscribing.remove(at)) else { return vec![] };
        let Watched { job, budget, after, replayed } = match outcome {
            Ok(watched) => watched,
            Err(refusal) => {
                let about = About { job_id: Some(job_id), ..About::of(Asked::Subscribe, Some(request)) };
                return refused(about, refusal);
            }
        };
        let follow = Follow {
            ordinal: 0,
            job_id,
            trace_id: job.trace_id,
            // One that was submitted again is told to its end whatever becomes of the subscription.
            request: self.outbox.request_of(job_id),
            only_end: job.status.is_terminal() && !replayed,
            first: None,
            after,
            keys_after: self.outbox.keys_after(job_id),
        };
        if self.dialect.words == Words::Rfc && !ended_again {
            self.watched.insert(job_id);
        }
        let told = self.outbox.tells_all_of(job_id);
        let (replayed, subscribed_from) = (replayed && !told, self.outbox.last_seq());
        let subscribed = Subscribed { request, job, budget, subscribed_from, replayed };
        let mut outputs = vec![Output::Send(ServerMessage::Subscribed(Box::new(subscribed)))];
        if told || ended_again {
            // What says that the job is told may still be on its way to the disk.
            return match self.held.back_mut() {
                Some(held) => {
                    held.outputs.extend(outputs);
                    vec![]
                }
                None => outputs,
            };
        }
        // Of one that was submitted again, only the end would have been told.
        let unread = self.outbox.turn(job_id);
        self.outbox.drop(job_id);
        self.outbox.follow(follow.clone());
        outputs.extend(self.read(job_id, true));
        self.held.push_back(Held { outputs, answers: false });
        let unread = unread.map(|turn| Output::Unread { turn });
        unread.into_iter().chain([Output::Store(vec![LogRecord::Follow(follow)])]).collect()
    }

    /// Ends a subscription, also one that is not answered yet; of an unknown one nothing is said (§7.6).
    fn unsubscribe(&mut self, job_id: JobId) -> Vec<Output> {
        self.watched.remove(&job_id);
        for (_, of, ended_again) in &mut self.subscribing {
            *ended_again |= *of == job_id;
        }
        if self.replay.is_some() {
            self.unsubscribing.push(job_id);
            return vec![];
        }
        self.end_subscription(job_id)
    }

    fn end_subscription(&mut self, job_id: JobId) -> Vec<Output> {
        let turn = self.outbox.turn(job_id);
        let records = self.outbox.unsubscribe(job_id);
        if records.is_empty() {
            return vec![];
        }
        // Nothing else is told before it is written down that this is told no more.
        let outputs = self.read(job_id, false).into_iter().collect();
        self.held.push_back(Held { outputs, answers: false });
        let mut outputs: Vec<Output> = turn.map(|turn| Output::Unread { turn }).into_iter().collect();
        outputs.push(Output::Store(records));
        outputs.extend(self.checkpoint());
        outputs
    }

    /// Numbers what was read, and reads on.
    fn pages(&mut self, now: Timestamp, pages: Vec<Page>) -> Vec<Output> {
        if let Some(mut replay) = self.replay.take() {
            let Some(page) = pages.into_iter().next() else { return vec![] };
            let Ok(delivery) = replay.give(&mut self.outbox, page.records) else { return lost() };
            self.replay = Some(replay);
            let mut outputs = self.deliver(delivery);
            outputs.extend(self.replay_on(now));
            return outputs;
        }
        let (mut delivery, mut reads) = (Delivery::default(), Vec::new());
        for Page { job_id, turn, after, records } in pages {
            if self.outbox.turn(job_id) != Some(turn) {
                continue;
            }
            self.outbox.skip(job_id, after);
            let (mut cursor, mut ended) = (after, false);
            for (position, record) in records {
                (cursor, ended) = (position, matches!(record, Record::Ended { .. }));
                let last_seq = self.outbox.last_seq();
                self.outbox.push(job_id, position, record, &mut delivery);
                if ended {
                    break;
                }
                if self.outbox.last_seq() > last_seq {
                    self.signal(now, job_id, &mut delivery);
                }
            }
            if !ended {
                let from = ReadFrom::After(cursor);
                reads.push(Output::Read { job_id, turn, from, wait: true, pause: false });
            }
        }
        let mut outputs = self.deliver(delivery);
        outputs.extend(reads);
        outputs
    }

    /// Tells a client that lags that it does, as an event of the job of which it has just been told something (§6.5).
    fn signal(&mut self, at: Timestamp, job_id: JobId, delivery: &mut Delivery) {
        if let Some(acknowledged) = self.acknowledged.lags(self.outbox.last_seq()) {
            self.outbox.signal(job_id, Lag { at, acknowledged }, delivery);
        }
    }

    /// Sends messages once it is written down which numbers they have.
    fn deliver(&mut self, delivery: Delivery) -> Vec<Output> {
        let Delivery { messages, spans, switched } = delivery;
        let messages = messages.into_iter().flat_map(|message| self.in_the_name_of_all(message)).map(Output::Send);
        let messages: Vec<Output> = messages.collect();
        let spans = (!spans.is_empty()).then_some(LogRecord::Spans(spans));
        let mut outputs = match spans {
            Some(spans) if switched => {
                self.held.push_back(Held { outputs: messages, answers: false });
                vec![Output::Store(vec![spans])]
            }
            spans => spans.map(Output::Note).into_iter().chain(messages).collect(),
        };
        outputs.extend(self.checkpoint());
        outputs
    }

    /// A message, and the same once more if a client of before the draft watches a job of its own.
    fn in_the_name_of_all(&mut self, message: ServerMessage) -> impl Iterator<Item = ServerMessage> + use<> {
        let mut again = None;
        if !self.watched.is_empty()
            && let ServerMessage::Event { place, request, .. } | ServerMessage::Terminal { place, request, .. } =
                &message
        {
            let is_over = matches!(message, ServerMessage::Terminal { .. });
            let watches =
                if is_over { self.watched.remove(&place.job_id) } else { self.watched.contains(&place.job_id) };
            again = message.as_watched().filter(|_| watches && request.is_some());
        }
        again.into_iter().chain([message])
    }

    /// Writes down where the session stands, if much has been written since that was done.
    fn checkpoint(&mut self) -> Option<Output> {
        if self.replay.is_some() || self.outbox.written() < self.spans_max {
            return None;
        }
        let answered = self.submitting.front().map_or(self.ordinal, |(ordinal, _)| ordinal - 1);
        Some(Output::Checkpoint(self.outbox.checkpoint(answered)))
    }

    /// Asks for what is to be replayed next; at the end, for what comes then.
    fn replay_on(&mut self, now: Timestamp) -> Vec<Output> {
        let Some(mut replay) = self.replay.take() else { return vec![] };
        let mut messages = Vec::new();
        let next = replay.next(&mut self.outbox, &mut messages);
        let mut outputs: Vec<Output> = messages.into_iter().map(Output::Send).collect();
        match next {
            Ok(Some((job_id, after))) => {
                self.replay = Some(replay);
                let from = ReadFrom::After(after);
                outputs.push(Output::Read { job_id, turn: 0, from, wait: false, pause: false });
                outputs
            }
            Ok(None) => {
                let mut jobs: Vec<JobId> = self.outbox.followed().collect();
                jobs.sort_unstable();
                outputs.extend(jobs.into_iter().filter_map(|job_id| self.read(job_id, false)));
                outputs.extend(self.checkpoint());
                for job_id in std::mem::take(&mut self.unsubscribing) {
                    outputs.extend(self.end_subscription(job_id));
                }
                outputs.extend(self.answer_late(now));
                outputs
            }
            Err(_) => lost(),
        }
    }

    /// A silent client is pinged, and given up only when it has answered
    /// nothing for two intervals (§6.4). Its jobs go on.
    fn tick(&mut self, now: Timestamp, fresh: Ulid) -> Vec<Output> {
        let mut outputs = Vec::new();
        if self.settles_at().is_some_and(|at| now >= at) {
            self.told = None;
            outputs.push(Output::Note(self.outbox.settle()));
        }
        let Some(interval) = self.interval else { return outputs };
        if now >= self.heard.saturating_add(interval * 2) {
            outputs.push(Output::Close(Close::HeartbeatLost));
        } else if now >= self.ping_at(interval) {
            self.pinged = now;
            outputs.push(Output::Send(ServerMessage::Ping { nonce: fresh }));
        }
        outputs
    }

    /// ARCP §6.2: "Either peer MUST NOT use a feature outside that intersection."
    fn need(&self, feature: Feature) -> Result<(), Refusal> {
        if self.features.has(feature) {
            return Ok(());
        }
        Err(Refusal::invalid(format!("the feature `{feature}` was not negotiated; offer it in session.hello")))
    }
}

/// Holds the budget that a client asks for against the most it says it wants.
fn within(max_budget: Vec<String>, lease: &Lease) -> Result<(), Refusal> {
    let of_money = |amounts| Lease::parse(&BTreeMap::from([(Namespace::CostBudget.to_string(), amounts)]));
    let max = of_money(max_budget)
        .map_err(|error| Refusal::invalid(format!("job.submit: payload.lease_constraints.max_budget: {error}")))?;
    let max = Authority { lease: max, expires_at: None };
    let lease = of_money(lease.texts(&Namespace::CostBudget))?;
    max.delegate(max.lease.budget(), Authority { lease, expires_at: None })?;
    Ok(())
}

/// Ends a connection that cannot be told what comes next.
fn lost() -> Vec<Output> {
    let refusal = Refusal::new(ErrorCode::InternalError, "the journals do not hold what the client was told");
    vec![Output::Refused(refusal), Output::Close(Close::Internal)]
}

/// A frame that could not be understood ends nothing but itself.
fn misunderstood(malformed: Malformed) -> Vec<Output> {
    let Malformed { id, kind, trace_id, refusal } = malformed;
    let asked = kind.as_deref().map_or(Asked::Other, Asked::by);
    refused(About { trace_id, ..About::of(asked, id) }, refusal)
}

/// The request that a refusal answers.
struct About {
    asked: Asked,
    request: Option<String>,
    job_id: Option<JobId>,
    trace_id: Option<TraceId>,
}

impl About {
    fn of(asked: Asked, request: Option<String>) -> Self {
        Self { asked, request, job_id: None, trace_id: None }
    }
}

/// Refuses a request, which ends nothing but itself.
fn refused(about: About, refusal: Refusal) -> Vec<Output> {
    let About { asked, request, job_id, trace_id } = about;
    let log = Output::Refused(refusal.clone());
    vec![log, Output::Send(ServerMessage::Refused { asked, request, job_id, trace_id, refusal })]
}
