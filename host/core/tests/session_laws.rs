//! The law of resume (ARCP §6.3, §8.3): whatever happens to a session, its client is told one stream.
//!
//! A world in memory stands for the host: journals of jobs, the session's own
//! stream with what is durable of it and what is not yet, and a client that
//! comes back from wherever it was. Jobs write, pages come in any order,
//! connections drop, hosts are killed; afterwards the client must have the
//! numbers 1 to n once each, the same message under the same number whenever it
//! came, and all of every job.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{CredentialId, JobId, Principal, ResultId, SessionId, Ulid},
    job::record::{Accepted, Called, End, Granted, Outcome, Record, Seed},
    lease::{Authority, Lease, amount::Budget},
    protocol::{
        client::decode,
        dialect,
        event::{Encoding, Event, Level},
        feature::{Feature, Features},
        json::Json,
        server::{JobSummary, ServerMessage, Stamp},
        status::Status,
        trace::TraceId,
    },
    secret::Secret,
    session::{
        Input, Output, Page, Session, SessionConfig, Submission, Submitted, Watched, Welcomed,
        history::{History, Refused, Resumed},
        log::{Follow, LogRecord, Opened},
        outbox::{Delivery, Outbox, ReadFrom},
    },
    time::Timestamp,
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

/// By how much a client may lag before it is told so (ARCP §6.5).
const LAG_MAX: u64 = 2;

/// How many records one page has at most.
const PAGE: usize = 3;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The client submits a job.
    Submit,
    /// The client submits a job again (ARCP §7.2).
    Resubmit(Index),
    /// A job of another session begins.
    Foreign,
    /// The client subscribes to a job, with what it told or without (ARCP §7.6).
    Subscribe(Index, bool),
    /// The oldest subscription is answered.
    Watch,
    /// The client ends a subscription.
    Unsubscribe(Index),
    /// The oldest submission is stored and answered, or refused though it is stored.
    Answer { refused: bool },
    /// A job writes a record.
    Write(Index, u8),
    /// Some of the pages that are ready are given to the session, at once.
    Pages(Vec<usize>),
    /// The oldest write to the session's stream is durable.
    Stored,
    /// What was noted is written.
    Flush,
    /// Nothing has been told for a long time.
    Settle,
    /// The client acknowledges all but the newest messages it was sent.
    Ack { without: usize },
    /// The connection drops, and the client comes back without the newest messages it was sent.
    Drop { without: usize },
    /// The host is killed: what was not durable is gone, or as much of it as was under way.
    Kill { without: usize, durable: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        3 => Just(Step::Submit),
        1 => index().prop_map(Step::Resubmit),
        1 => Just(Step::Foreign),
        2 => (index(), any::<bool>()).prop_map(|(job, history)| Step::Subscribe(job, history)),
        3 => Just(Step::Watch),
        1 => index().prop_map(Step::Unsubscribe),
        4 => prop::bool::weighted(0.1).prop_map(|refused| Step::Answer { refused }),
        12 => (index(), 0..20_u8).prop_map(|(job, kind)| Step::Write(job, kind)),
        8 => prop::collection::vec(0..8_usize, 1..4).prop_map(Step::Pages),
        5 => Just(Step::Stored),
        2 => Just(Step::Flush),
        2 => Just(Step::Settle),
        1 => (0..12_usize).prop_map(|without| Step::Ack { without }),
        2 => (0..6_usize).prop_map(|without| Step::Drop { without }),
        1 => (0..6_usize, 0..3_usize).prop_map(|(without, durable)| Step::Kill { without, durable }),
    ]
}

/// What happens to a session that mostly watches (ARCP §7.6): few jobs, seen again and again.
fn watching_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        1 => Just(Step::Foreign),
        1 => Just(Step::Submit),
        1 => index().prop_map(Step::Resubmit),
        2 => Just(Step::Answer { refused: false }),
        4 => (index(), any::<bool>()).prop_map(|(job, history)| Step::Subscribe(job, history)),
        4 => Just(Step::Watch),
        3 => index().prop_map(Step::Unsubscribe),
        6 => (index(), 2..20_u8).prop_map(|(job, kind)| Step::Write(job, kind)),
        1 => index().prop_map(|job| Step::Write(job, 0)),
        8 => prop::collection::vec(0..8_usize, 1..4).prop_map(Step::Pages),
        6 => Just(Step::Stored),
        1 => Just(Step::Flush),
        1 => Just(Step::Settle),
        2 => (0..12_usize).prop_map(|without| Step::Ack { without }),
        2 => (0..30_usize).prop_map(|without| Step::Drop { without }),
        1 => (0..30_usize, 0..3_usize).prop_map(|(without, durable)| Step::Kill { without, durable }),
    ]
}

#[test]
fn whatever_happens_the_client_is_told_one_stream() {
    hold(vec![vec![], vec!["ack".to_owned()], features()], prop::collection::vec(step(), 0..120));
}

/// ARCP §7.6, §6.3.
#[test]
fn whatever_happens_a_client_that_watches_is_told_one_stream() {
    hold(vec![features()], prop::collection::vec(watching_step(), 0..120));
}

/// The feature of keys that are made for a job (ARCP §9.8).
const KEYS: &str = "provisioned_credentials";

fn features() -> Vec<String> {
    ["ack", "result_chunk", "progress", "subscribe", KEYS].map(str::to_owned).to_vec()
}

fn hold(features: Vec<Vec<String>>, steps: impl Strategy<Value = Vec<Step>>) {
    // So few spans between checkpoints that streams are trimmed, or so many that they never are.
    let spans_max = prop_oneof![Just(3_usize), Just(1_000)];
    let worlds = (prop::sample::select(features), spans_max, steps);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) });
    let outcome = runner.run(&worlds, |(features, spans_max, steps)| {
        let mut world = World::new(&features, spans_max);
        for step in steps {
            world.step(step);
        }
        world.finish();
        Ok(())
    });
    outcome.expect("the law holds");
}

struct World {
    config: SessionConfig,
    features: Vec<String>,
    session: Session,
    jobs: Vec<Job>,
    /// Under way, oldest first.
    submissions: VecDeque<(Submission, Option<usize>)>,
    subscriptions: VecDeque<(String, JobId, bool)>,
    /// All subscriptions there were, and whether each was ended after it was asked for.
    asked: Vec<(JobId, bool)>,
    /// What the client was told it watches, and has not ended.
    watching: BTreeSet<JobId>,
    reads: Vec<(JobId, u64, ReadFrom, bool)>,
    log: Vec<LogRecord>,
    noted: Vec<LogRecord>,
    /// On their way to the disk, oldest first, and whether the session waits for it.
    storing: VecDeque<(Vec<LogRecord>, bool)>,
    /// What the client has, by number.
    told: Vec<String>,
    /// What was ever sent under a number.
    sent: BTreeMap<u64, String>,
    /// Answers to resubmissions: the job and the newest number at that time.
    again: Vec<(JobId, usize)>,
}

struct Job {
    accepted: Accepted,
    records: Vec<(u64, Record)>,
    /// Its submission was refused though it was stored.
    disowned: bool,
    /// It is another session's.
    foreign: bool,
}

impl Job {
    fn is_over(&self) -> bool {
        matches!(self.records.last(), Some((_, Record::Ended { .. })))
    }

    fn last(&self) -> u64 {
        self.records.last().map_or(0, |(position, _)| *position)
    }

    fn write(&mut self, record: Record) {
        // An engine may skip positions.
        let position = self.last() + 1 + self.records.len() as u64 % 2;
        self.records.push((position, record));
    }

    fn page(&self, after: u64) -> Vec<(u64, Record)> {
        self.records.iter().filter(|(position, _)| *position > after).take(PAGE).cloned().collect()
    }
}

impl World {
    fn new(features: &[String], spans_max: usize) -> Self {
        let config = SessionConfig {
            handshake_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(30),
            resume_window: Duration::from_secs(600),
            spans_max,
            settle_after: Duration::ZERO,
            followed_max: usize::MAX,
            lag_max: LAG_MAX,
            features: vec![Feature::ProvisionedCredentials],
        };
        let mut world = Self {
            session: Session::new(config.clone(), NOW, None),
            config,
            features: features.to_vec(),
            jobs: Vec::new(),
            submissions: VecDeque::new(),
            subscriptions: VecDeque::new(),
            asked: Vec::new(),
            watching: BTreeSet::new(),
            reads: Vec::new(),
            log: vec![LogRecord::Opened(opened(features)), token()],
            noted: Vec::new(),
            storing: VecDeque::new(),
            told: Vec::new(),
            sent: BTreeMap::new(),
            again: Vec::new(),
        };
        world.welcome(None);
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Submit => self.submit(None),
            Step::Resubmit(index) if !self.jobs.is_empty() => self.submit(Some(index.index(self.jobs.len()))),
            Step::Resubmit(_) => {}
            Step::Foreign => self.begin_foreign(),
            Step::Subscribe(index, history) if !self.jobs.is_empty() => self.subscribe(index, history),
            Step::Subscribe(..) => {}
            Step::Watch => self.watch(),
            Step::Unsubscribe(index) if !self.jobs.is_empty() => {
                let job_id = self.jobs[index.index(self.jobs.len())].accepted.job_id;
                let text =
                    format!(r#"{{"arcp":"1.1","id":"u","type":"job.unsubscribe","payload":{{"job_id":"{job_id}"}}}}"#);
                self.watching.remove(&job_id);
                self.asked.iter_mut().filter(|(of, _)| *of == job_id).for_each(|(_, ended)| *ended = true);
                self.give(Input::Frame(decode(&text)));
            }
            Step::Unsubscribe(_) => {}
            Step::Answer { refused } => self.answer(refused),
            Step::Write(index, kind) if !self.jobs.is_empty() => {
                let at = index.index(self.jobs.len());
                let job = &mut self.jobs[at];
                if !job.is_over() {
                    job.write(record(kind));
                }
            }
            Step::Write(..) => {}
            Step::Pages(indices) => self.pages(&indices),
            Step::Stored => self.stored(),
            Step::Flush => self.flush(false),
            Step::Settle => self.give(Input::Tick),
            Step::Ack { without } => {
                let processed = self.told.len().saturating_sub(without);
                let text = format!(
                    r#"{{"arcp":"1.1","id":"k","type":"session.ack","payload":{{"last_processed_seq":{processed}}}}}"#
                );
                let outputs = self.session.handle(NOW, ULID, Input::Frame(decode(&text)));
                let refused = outputs.iter().any(|output| matches!(output, Output::Refused(_)));
                assert_eq!(refused, !self.features.contains(&"ack".to_owned()));
            }
            Step::Drop { without } => {
                self.session.handle(NOW, ULID, Input::Gone);
                while !self.submissions.is_empty() {
                    self.answer(false);
                }
                self.flush(false);
                while let Some((records, _)) = self.storing.pop_front() {
                    self.write(records);
                }
                self.come_back(without);
            }
            Step::Kill { without, durable } => {
                // Stored or not, nobody was told.
                for (submission, again) in std::mem::take(&mut self.submissions) {
                    if again.is_none() && durable > 0 {
                        self.accept(&submission, false);
                    }
                }
                for (records, _) in std::mem::take(&mut self.storing).into_iter().take(durable) {
                    self.write(records);
                }
                self.noted.clear();
                self.come_back(without);
            }
        }
    }

    fn submit(&mut self, again: Option<usize>) {
        let text = r#"{"arcp":"1.1","id":"s","type":"job.submit","payload":{"agent":"a"}}"#;
        let outputs = self.session.handle(NOW, ULID, Input::Frame(decode(text)));
        for output in outputs {
            let Output::Submit(submission) = output else { panic!("{output:?}") };
            self.submissions.push_back((*submission, again));
        }
    }

    fn answer(&mut self, refused: bool) {
        let Some((submission, again)) = self.submissions.pop_front() else { return };
        let (accepted, fresh) = match again {
            Some(job) => (self.jobs[job].accepted.clone(), false),
            None => (self.accept(&submission, refused), true),
        };
        let outcome = match refused {
            true => Err(Refusal::new(ErrorCode::InternalError, "the disk")),
            false => Ok(Submitted { accepted: accepted.into(), fresh, credentials: Vec::new() }),
        };
        self.give(Input::Submitted { request: "s".into(), trace_id: TraceId::new(1), outcome });
    }

    fn begin_foreign(&mut self) {
        let session_id = SessionId::new(Ulid::from_parts(0, 2));
        let accepted = Accepted { session_id, ..self.accepted("f", 1, None) };
        let records = vec![(1, Record::Accepted(Box::new(accepted.clone())))];
        self.jobs.push(Job { accepted, records, disowned: false, foreign: true });
    }

    fn subscribe(&mut self, index: Index, history: bool) {
        let job_id = self.jobs[index.index(self.jobs.len())].accepted.job_id;
        let payload = format!(r#"{{"job_id":"{job_id}","history":{history}}}"#);
        let request = self.asked.len();
        self.asked.push((job_id, false));
        let text = format!(r#"{{"arcp":"1.1","id":"{request}","type":"job.subscribe","payload":{payload}}}"#);
        let features = self.session.handle(NOW, ULID, Input::Frame(decode(&text)));
        for output in features {
            match output {
                Output::Subscribe { request, subscribe, .. } => {
                    self.subscriptions.push_back((request, subscribe.job_id, history));
                }
                Output::Send(_) | Output::Refused(_) => assert!(!self.features.contains(&"subscribe".to_owned())),
                other => panic!("{other:?}"),
            }
        }
    }

    fn watch(&mut self) {
        let Some((request, job_id, replayed)) = self.subscriptions.pop_front() else { return };
        let job = self.job(job_id);
        let status = if job.is_over() { Status::Success } else { Status::Running };
        let after = if replayed || job.is_over() { 0 } else { job.last() };
        let job = JobSummary {
            job_id,
            agent: String::new(),
            status,
            lease: Json::default(),
            lease_constraints: None,
            parent_job_id: None,
            created_at: NOW,
            submitted_at: NOW,
            trace_id: job.accepted.trace_id,
            last_event_seq: 0,
        };
        let outcome = Ok(Watched { job, budget: BTreeMap::new(), after, replayed });
        self.give(Input::Subscribed { request, job_id, outcome });
    }

    fn accept(&mut self, submission: &Submission, disowned: bool) -> Accepted {
        let Submission { request, ordinal, first_seq, .. } = submission;
        let accepted = self.accepted(request, *ordinal, *first_seq);
        let records = vec![(1, Record::Accepted(Box::new(accepted.clone())))];
        self.jobs.push(Job { accepted: accepted.clone(), records, disowned, foreign: false });
        accepted
    }

    /// The next job. Whoever knows of keys is given one.
    fn accepted(&self, request: &str, ordinal: u64, first_seq: Option<u64>) -> Accepted {
        let accepted = accepted(self.jobs.len() as u128 + 1, request, ordinal, first_seq);
        let (id, budget) = (CredentialId::new(accepted.job_id.ulid()), Budget::new());
        let granted = Granted { id, provisioner: "own".into(), budget };
        let credentials = if self.features.iter().any(|name| name == KEYS) { vec![granted] } else { vec![] };
        Accepted { credentials, ..accepted }
    }

    /// Gives the session pages that are ready; none while it waits for its stream.
    fn pages(&mut self, indices: &[usize]) {
        if self.storing.iter().any(|(_, waits)| *waits) {
            return;
        }
        let mut pages: Vec<Page> = Vec::new();
        for index in indices {
            if self.reads.is_empty() {
                break;
            }
            let at = index % self.reads.len();
            let (job_id, turn, from, waits) = self.reads[at];
            let job = self.job(job_id);
            let after = match from {
                ReadFrom::After(after) => after,
                ReadFrom::Newest => job.last() - 1,
            };
            let records = job.page(after);
            if records.is_empty() && waits {
                continue;
            }
            self.reads.remove(at);
            pages.push(Page { job_id, turn, after, records });
        }
        if !pages.is_empty() {
            self.give(Input::Pages(pages));
        }
    }

    fn stored(&mut self) {
        let Some((records, waits)) = self.storing.pop_front() else { return };
        self.write(records);
        if waits {
            self.give(Input::Stored);
        }
    }

    fn flush(&mut self, waits: bool) {
        let noted = std::mem::take(&mut self.noted);
        if waits || !noted.is_empty() {
            self.storing.push_back((noted, waits));
        }
    }

    /// Makes records durable, and forgets what is before the checkpoint before the newest.
    fn write(&mut self, records: Vec<LogRecord>) {
        self.log.extend(records);
        let opened: Vec<usize> =
            (0..self.log.len()).filter(|at| matches!(self.log[*at], LogRecord::Opened(_))).collect();
        if let [.., before, _] = opened[..] {
            // Not always all of it.
            self.log.drain(..before.saturating_sub(self.log.len() % 3));
        }
    }

    fn give(&mut self, input: Input) {
        let outputs = self.session.handle(NOW, ULID, input);
        self.act(outputs);
    }

    fn act(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(message) => self.receive(&message),
                Output::Read { job_id, turn, from, wait, .. } => self.reads.push((job_id, turn, from, wait)),
                Output::Unread { turn } => self.reads.retain(|(_, of, ..)| *of != turn),
                Output::Store(records) => {
                    self.noted.extend(records);
                    self.flush(true);
                }
                Output::Note(record) => self.noted.push(record),
                Output::Checkpoint(checkpoint) => {
                    let opened = LogRecord::Opened(opened(&self.features));
                    self.noted.extend([opened, token(), LogRecord::Checkpoint(checkpoint)]);
                }
                Output::Refused(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn receive(&mut self, message: &ServerMessage) {
        if let ServerMessage::Accepted(accepted) = message {
            // A job that is accepted again is told from here on at the latest.
            if accepted.request == "s" && self.jobs.iter().any(|job| job.accepted.job_id == accepted.job_id) {
                self.again.push((accepted.job_id, self.told.len()));
            }
        }
        if let ServerMessage::Subscribed(subscribed) = message {
            let (job_id, ended) = self.asked[subscribed.request.parse::<usize>().expect("a number")];
            assert_eq!(job_id, subscribed.job.job_id);
            if !ended {
                self.watching.insert(job_id);
            }
        }
        let Some(seq) = message.event_seq() else { return };
        assert_eq!(seq, self.told.len() as u64 + 1, "{message:?}");
        let frame = frame(message);
        if is_signal(&frame) {
            let acknowledged = frame.split("only ").nth(1).and_then(|rest| rest.split(' ').next());
            let acknowledged: u64 = acknowledged.expect("it is named").parse().expect("a number");
            assert!(seq - 1 - acknowledged > LAG_MAX && !self.features.is_empty(), "{frame}");
        }
        let earlier = self.sent.entry(seq).or_insert_with(|| frame.clone());
        assert_eq!(*earlier, frame, "the same number, another message");
        self.told.push(frame);
    }

    /// Resumes from where the client says it stands, on a host that knows nothing but what is stored.
    fn come_back(&mut self, without: usize) {
        self.reads.clear();
        self.subscriptions.clear();
        self.noted.clear();
        let told = self.told.len();
        // Neither of these changes anything, so each can be asked first.
        let ahead = self.resumed(told as u64 + 1_000);
        assert!(matches!(ahead, Some(Err(Refused::Ahead(_)))), "{ahead:?}");
        let behind = told.saturating_sub(without);
        let (have, resumed) = match self.resumed(behind as u64) {
            Some(resumed) => (behind, resumed),
            // What was trimmed cannot be had again; what the client was sent last always can.
            None => (told, self.resumed(told as u64).expect("what was sent last is kept")),
        };
        let (resumed, missing) = resumed.expect("the client says the truth");
        self.told.truncate(have);
        self.log.extend(missing);
        self.log.push(token());
        self.session = Session::new(self.config.clone(), NOW, None);
        self.welcome(Some(Box::new(resumed)));
    }

    fn resumed(&self, last_event_seq: u64) -> Option<Result<(Resumed, Vec<LogRecord>), Refused>> {
        let mut history = History::default();
        self.log.iter().cloned().for_each(|record| history.take(record));
        let own = self.jobs.iter().filter(|job| !job.foreign);
        let missing = history.complete(own.map(|job| job.accepted.clone()).collect());
        let stored = history.open_job().map_or(0, |job_id| self.job(job_id).last());
        let mut resumed = history.resume(last_event_seq, stored)?;
        let mut page = None;
        loop {
            match resumed.advance(page.take()) {
                Ok(Some((job_id, after))) => page = Some(self.job(job_id).page(after)),
                Ok(None) => return Some(Ok((resumed, missing))),
                Err(refused) => return Some(Err(refused)),
            }
        }
    }

    fn welcome(&mut self, resumed: Option<Box<Resumed>>) {
        let features = serde_json::to_string(&self.features).expect("names are JSON");
        let text = format!(
            r#"{{"arcp":"1.1","id":"h","type":"session.hello","payload":{{"capabilities":{{"features":{features}}}}}}}"#
        );
        let outputs = self.session.handle(NOW, ULID, Input::Frame(decode(&text)));
        assert!(matches!(outputs[..], [Output::Authenticate { .. }]));
        let (principal, resume_token) = (Principal::new("alice"), Secret::new("rt"));
        self.give(Input::Authenticated(Ok(Welcomed { principal, resume_token, agents: vec![], resumed })));
    }

    fn job(&self, job_id: JobId) -> &Job {
        self.jobs.iter().find(|job| job.accepted.job_id == job_id).expect("only jobs of this world are named")
    }

    /// Lets everything come to its end, and holds the client's stream against the journals.
    fn finish(&mut self) {
        while !self.submissions.is_empty() {
            self.answer(false);
        }
        while !self.subscriptions.is_empty() {
            self.watch();
        }
        for job in &mut self.jobs {
            if !job.is_over() {
                job.write(record(0));
            }
        }
        for _ in 0..10_000 {
            self.flush(false);
            while !self.storing.is_empty() {
                self.stored();
            }
            if self.reads.is_empty() {
                break;
            }
            self.pages(&[0, 1, 2, 3]);
        }
        for job in &self.jobs {
            let (id, expected) = (job.accepted.job_id, self.expected(job));
            let named = format!("\"job_id\":\"{id}\"");
            let told = self
                .told
                .iter()
                .filter(|frame| frame.contains(&named) && !is_signal(frame))
                .map(|frame| without_seq(frame));
            let told: Vec<String> = told.collect();
            if told.is_empty() && job.disowned {
                continue;
            }
            assert!(told.starts_with(&expected) || job.disowned || job.foreign, "{told:#?}\n{expected:#?}");
            let end = expected.last().expect("a job has an end");
            // What comes besides is the end again, for a submission that was repeated, or what was subscribed to.
            assert!(told.iter().all(|frame| expected.contains(frame)), "{told:#?}\n{expected:#?}");
            assert!(!self.watching.contains(&id) || told.contains(end), "{id} is watched and its end not told");
            for (_, newest) in self.again.iter().filter(|(again, _)| *again == id) {
                let after = &self.told[(*newest).min(self.told.len())..];
                assert!(after.iter().any(|frame| without_seq(frame) == *end), "{id} was accepted and its end not told");
            }
        }
    }

    /// What a client is told of a job, if it is told of nothing else.
    fn expected(&self, job: &Job) -> Vec<String> {
        let mut outbox = Outbox::new(Features::negotiate(&self.features, &[Feature::ProvisionedCredentials]));
        let Accepted { job_id, trace_id, request_id, .. } = job.accepted.clone();
        let (request, keys_after) = (Some(request_id), (!job.accepted.credentials.is_empty()).then_some(0));
        let (only_end, first, after) = (false, None, 0);
        outbox.follow(Follow { ordinal: 1, job_id, trace_id, request, only_end, first, after, keys_after });
        let mut delivery = Delivery::default();
        for (position, record) in job.records.clone() {
            outbox.push(job_id, position, record, &mut delivery);
        }
        delivery.messages.iter().map(|message| without_seq(&frame(message))).collect()
    }
}

const NOW: Timestamp = Timestamp::from_millis(0);
const ULID: Ulid = Ulid::from_parts(0, 1);

fn opened(features: &[String]) -> Opened {
    let features = Features::negotiate(features, &[Feature::ProvisionedCredentials]);
    Opened { at: NOW, principal: Principal::new("alice"), features, dialect: "generic".into() }
}

fn token() -> LogRecord {
    LogRecord::Token { at: NOW, sha256: String::new(), used: None }
}

fn accepted(n: u128, request: &str, ordinal: u64, first_seq: Option<u64>) -> Accepted {
    Accepted {
        job_id: JobId::new(Ulid::from_parts(0, n)),
        principal: Principal::new("alice"),
        session_id: SessionId::new(ULID),
        request_id: request.to_owned(),
        at: NOW,
        agent: "a@1.0.0".into(),
        digest: String::new(),
        input: Json::default(),
        authority: Authority { lease: Lease::default(), expires_at: None },
        max_runtime_sec: None,
        parent: None,
        trace_id: TraceId::new(n),
        seed: Seed([0; 32]),
        limits: String::new(),
        parameters: None,
        key: None,
        ordinal,
        first_seq,
        credentials: Vec::new(),
    }
}

/// Messages that differ, so that no two can be taken for each other.
fn record(kind: u8) -> Record {
    use std::cell::Cell;
    thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });
    let count = COUNT.with(|count| {
        count.set(count.get() + 1);
        count.get()
    });
    let (at, result_id) = (NOW, ResultId::new(ULID));
    let text = count.to_string();
    match kind {
        0 => Record::Ended { at, end: End::Result(Json::of(&count)), spent: None },
        1 => Record::Ended { at, end: End::Streamed { result_id, size: 1, summary: Some(text) }, spent: None },
        2..5 => Record::Started { at },
        5..8 => Record::Called(Called {
            at,
            call: count,
            operation: "fs.read".into(),
            args: Json::default(),
            outcome: Outcome::Done { summary: Json::default(), answer: None },
        }),
        8..10 => {
            Record::Event { at, event: Event::Progress { current: 1, total: None, units: None, message: Some(text) } }
        }
        10..14 => {
            let (chunk_seq, encoding) = (count, Encoding::Utf8);
            Record::Event { at, event: Event::ResultChunk { result_id, chunk_seq, data: text, encoding, more: true } }
        }
        14 => Record::Rotated { at, credential: CredentialId::new(Ulid::from_parts(0, count.into())) },
        _ => Record::Event { at, event: Event::Log { level: Level::Info, message: text } },
    }
}

fn frame(message: &ServerMessage) -> String {
    message.encode(&Stamp { id: ULID, now: NOW, session_id: SessionId::new(ULID), dialect: dialect::GENERIC })
}

/// Whether it is the message that stands in no journal (ARCP §6.5).
fn is_signal(frame: &str) -> bool {
    frame.contains("back_pressure")
}

fn without_seq(frame: &str) -> String {
    let mut value: serde_json::Value = serde_json::from_str(frame).expect("a frame is JSON");
    let frame = value.as_object_mut().expect("a frame is an object");
    frame.remove("event_seq");
    // Whoever subscribed has submitted nothing.
    frame.remove("correlation_id");
    value.to_string()
}
