//! The driver of one session: everything the session decides, done.
//!
//! One loop owns the transport and the session. It gives the session whatever
//! happens, does the outputs in order, and reads the journals the session
//! follows, each from its own cursor and only when the peer has taken what was
//! read before. So a slow client slows only itself, and nothing here buffers
//! more than one page of records for each job followed.
//!
//! When the connection ends, what it began is finished and written down, and
//! the session is parked until its client comes back (ARCP §6.3).

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt,
    future::{AbortHandle, Aborted, BoxFuture, abortable},
    stream::{FuturesOrdered, FuturesUnordered},
};
use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{JobId, Principal, SessionId},
    job::record::Record,
    protocol::{
        client::{self, Subscribe},
        feature::Feature,
        server::{ServerMessage, Stamp},
        trace::TraceId,
    },
    session::{
        Claim, Close, Input, Output, Page, Session, SessionConfig, Submission, Watched, Welcomed, Who, log::LogRecord,
        outbox::ReadFrom, stranger,
    },
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::registry::Registry,
    capability::truncate,
    clock::{self, Clock},
    jobs::{Jobs, Watchable},
    journal,
    policy::Policy,
    rate::Bucket,
    sessions::{Attached, Sessions},
    store::{Position, Store, StoreError},
    transport::{CloseReason, Incoming, Transport, TransportError},
    writer::Mark,
};

/// How many pages are numbered together.
const PAGES_MAX: usize = 64;

/// How many records of a session may wait to be written together, and for how long.
const NOTED_MAX: usize = 64;
const NOTED_FOR: Duration = Duration::from_millis(50);

/// How many submissions, and how many other requests, of one session may wait for their answer; the next frame is not
/// read before one has it.
const SUBMISSIONS_MAX: usize = 256;

/// The most of a client's reason that is kept and given back.
const REASON_BYTES_MAX: usize = 1024;

/// How many jobs one session may follow at once.
const FOLLOWED_MAX: usize = 10_000;

/// What every connection needs of its host.
pub struct Desk {
    /// The jobs.
    pub jobs: Arc<Jobs>,
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// The agents.
    pub registry: Arc<Registry>,
    /// Who may connect.
    pub policy: Arc<Policy>,
    /// What the operator decides of sessions.
    pub session: SessionConfig,
    /// Whether a connection from another machine is encrypted where others can see it (ARCP §14).
    pub behind_tls: bool,
    /// How many requests of one connection are answered a second; one that asks for more is read more slowly (ARCP §14).
    pub answers_per_sec: u32,
    /// How long a client without heartbeats may be silent before it is asked whether it is there, and again before it is
    /// given up; for ever if it is not said.
    pub silence: Option<Duration>,
    /// Set when the host is about to stop.
    pub stopping: CancellationToken,
}

impl Desk {
    /// Finds out what a client may watch of a job, and from where on (ARCP §7.6).
    async fn watch(&self, principal: &Principal, subscribe: &Subscribe) -> Result<Watched, Refusal> {
        let Subscribe { job_id, history_after } = *subscribe;
        let Watchable { summary, session_id, budget } = self.jobs.watchable(principal, job_id).await?;
        let after = match history_after {
            Some(seq) => self.sessions.position(session_id, job_id, seq).await.map_err(|error| {
                tracing::error!(%session_id, error = format!("{error:#}"), "a session cannot be read");
                Refusal::new(ErrorCode::InternalError, "the host cannot read what the job told; try again later")
            })?,
            // Its end is told in any case.
            None if summary.status.is_terminal() => Position::ZERO,
            None => self.jobs.newest(job_id).await?,
        };
        let budget = self.jobs.left_of(job_id, &budget).await?;
        Ok(Watched { job: summary, budget, after: after.get(), replayed: history_after.is_some() })
    }
}

/// One connection.
struct Driver {
    desk: Arc<Desk>,
    clock: Clock,
    store: Arc<dyn Store>,
    transport: Transport,
    session: Session,
    session_id: SessionId,
    /// Whether nobody else can read along, so that it may carry keys of jobs (ARCP §14).
    is_private: bool,
    /// The session's place among the others, once it is welcomed.
    attached: Option<Attached>,
    /// Set when the client has come back on another connection.
    detached: CancellationToken,
    /// Its answers.
    answers: Bucket,
    /// When the client was heard last, and when it was asked whether it is there.
    heard: Timestamp,
    probed: Option<Timestamp>,
    /// To be written to the session's stream soon, and when at the latest.
    noted: Vec<LogRecord>,
    noted_until: Option<Timestamp>,
    /// What the session waits for to be durable, oldest first.
    storing: VecDeque<Mark>,
    /// Submissions are answered in the order they came: some clients tell answers apart by nothing else.
    submissions: FuturesOrdered<BoxFuture<'static, Input>>,
    requests: FuturesUnordered<BoxFuture<'static, Input>>,
    pages: FuturesUnordered<BoxFuture<'static, ReadPage>>,
    /// What ends the reading for a following of a job.
    reading: HashMap<u64, AbortHandle>,
}

/// A page, unless its reading was ended.
type ReadPage = Result<anyhow::Result<Page>, Aborted>;

/// Serves one connection until it ends. Its jobs go on.
pub async fn drive(desk: Arc<Desk>, mut transport: Transport) {
    let clock = desk.jobs.world().clock.clone();
    let store = Arc::clone(&desk.jobs.world().store);
    let bearer = transport.take_bearer();
    let now = clock.now();
    let is_private = desk.behind_tls || is_of_this_machine(transport.peer().remote);
    let mut config = desk.session.clone();
    config.features.retain(|feature| is_private || *feature != Feature::ProvisionedCredentials);
    let session = Session::new(config, now, bearer);
    let session = match &transport.peer().user_agent {
        Some(user_agent) => session.reached_by(user_agent),
        None => session,
    };
    let session = match transport.peer().parameter("dialect") {
        Some(name) => session.speaking(name),
        None => session,
    };
    let session_id = SessionId::new(clock::fresh(now));
    let answers = Bucket::new(desk.answers_per_sec, now);
    let driver = Driver {
        desk,
        clock,
        store,
        transport,
        session,
        session_id,
        is_private,
        attached: None,
        detached: CancellationToken::new(),
        answers,
        heard: now,
        probed: None,
        noted: Vec::new(),
        noted_until: None,
        storing: VecDeque::new(),
        submissions: FuturesOrdered::new(),
        requests: FuturesUnordered::new(),
        pages: FuturesUnordered::new(),
        reading: HashMap::new(),
    };
    driver.run().await;
}

impl Driver {
    async fn run(mut self) {
        let mut stopping = false;
        loop {
            let deadline = self.session.deadline();
            let desk = Arc::clone(&self.desk);
            let full = self.submissions.len() >= SUBMISSIONS_MAX
                || self.requests.len() + self.session.waiting() >= SUBMISSIONS_MAX
                || self.pages.len() >= FOLLOWED_MAX;
            // A client that asks faster than it may is read more slowly, and not sent away.
            let answers_at = self.answers.ready_at();
            let reads = !full && answers_at <= self.clock.now();
            let silent_at = self.silent_at();
            // Nothing is numbered while it is not written down what was numbered before.
            let readable = self.storing.is_empty() && !self.pages.is_empty();
            let event = tokio::select! {
                () = self.detached.cancelled() => Event::Detached,
                () = desk.stopping.cancelled(), if !stopping => {
                    stopping = true;
                    Event::One(Input::Stopping)
                }
                Some(input) = self.submissions.next(), if !self.submissions.is_empty() && !self.session.is_replaying() => Event::One(input),
                Some(input) = self.requests.next(), if !self.requests.is_empty() => Event::One(input),
                stored = stored(self.attached.as_ref(), self.storing.front()) => Event::Stored(stored),
                incoming = self.transport.recv(), if reads => Event::Incoming(incoming),
                () = self.clock.sleep_until(answers_at), if !full && !reads => Event::Rested,
                () = wait(&self.clock, silent_at), if reads => Event::Silent,
                Some(page) = self.pages.next(), if readable => Event::Page(page),
                () = wait(&self.clock, self.noted_until) => Event::Noted,
                () = wait(&self.clock, deadline) => Event::One(Input::Tick),
            };
            let outcome = match event {
                Event::One(input) => self.give(input).await,
                Event::Incoming(incoming) => self.incoming(incoming).await,
                Event::Page(page) => self.pages(page).await,
                Event::Stored(Ok(())) => {
                    self.storing.pop_front();
                    self.give(Input::Stored).await
                }
                Event::Stored(Err(error)) => Ok(Some(broken(self.session_id, &error))),
                Event::Noted => Ok(self.write_noted().err().map(|error| broken(self.session_id, &error))),
                Event::Detached => Ok(Some(Ending::Detached)),
                Event::Rested => Ok(None),
                Event::Silent => self.probe().await,
            };
            let ending = match outcome {
                Ok(None) => match self.flush().await {
                    Ok(()) => continue,
                    Err(error) => Ending::Lost(error.to_string()),
                },
                Ok(Some(ending)) => ending,
                Err(error) => Ending::Lost(error.to_string()),
            };
            return Box::pin(self.finish(ending)).await;
        }
    }

    /// When a client that sends no heartbeats is asked whether it is there, or given up.
    fn silent_at(&self) -> Option<Timestamp> {
        let silence = self.desk.silence?;
        let asks = self.session.is_open() && !self.session.has_heartbeat() && self.transport.answers_pings();
        asks.then(|| self.probed.unwrap_or(self.heard).saturating_add(silence))
    }

    /// Asks a silent client whether it is there, once.
    async fn probe(&mut self) -> Result<Option<Ending>, TransportError> {
        if self.probed.is_some() {
            return Ok(Some(Ending::Lost("the peer was silent and answered no ping".into())));
        }
        self.probed = Some(self.clock.now());
        self.transport.ping().await?;
        Ok(None)
    }

    /// What came over the wire.
    async fn incoming(&mut self, incoming: Incoming) -> Result<Option<Ending>, TransportError> {
        let now = self.clock.now();
        (self.heard, self.probed) = (now, None);
        // A client that says goodbye has read what came before.
        let speaks = matches!(incoming, Incoming::Text(_) | Incoming::Alive | Incoming::Closed(Some(_)));
        if let Some(attached) = self.attached.as_mut().filter(|_| speaks) {
            attached.heard();
        }
        let input = match incoming {
            Incoming::Text(text) => Input::Frame(client::decode_as(self.session.dialect(), &text)),
            Incoming::Alive => Input::Alive,
            Incoming::NotText => Input::Unreadable(Refusal::invalid("a frame must be UTF-8 text")),
            Incoming::TooLarge => {
                let refusal = Refusal::invalid("the frame is larger than this host takes");
                let ending = self.give(Input::Unreadable(refusal)).await?;
                let close = CloseReason::new(CloseReason::TOO_LARGE, "the frame is too large");
                return Ok(Some(ending.unwrap_or(Ending::Close(close))));
            }
            Incoming::Closed(reason) => {
                return Ok(Some(Ending::Gone(reason.map(|reason| reason.to_string()))));
            }
        };
        if asks(&input) {
            // There is one, or nothing would have been read; if the clock was set back meanwhile, the next one waits.
            let _ = self.answers.take(now);
        }
        self.give(input).await
    }

    /// Gives the session the pages that are there, so that what has to be written of them is written at once.
    async fn pages(&mut self, first: ReadPage) -> Result<Option<Ending>, TransportError> {
        let mut pages = Vec::new();
        let mut next = Some(first);
        while let Some(page) = next.take() {
            match page {
                Ok(Ok(page)) => {
                    self.reading.remove(&page.turn);
                    if let Some((_, Record::Ended { end, .. })) = page.records.last() {
                        // Whoever is told of an end finds it in the next listing, though the runner may not be back.
                        self.desk.jobs.note_end(page.job_id, end.status());
                    }
                    pages.push(page);
                }
                // Its client has unsubscribed.
                Err(Aborted) => {}
                Ok(Err(error)) => {
                    let error = format!("{error:#}");
                    tracing::error!(session_id = %self.session_id, error, "a journal cannot be read");
                    let reason = CloseReason::new(CloseReason::INTERNAL, "the host cannot read a journal");
                    return Ok(Some(Ending::Close(reason)));
                }
            }
            if pages.len() < PAGES_MAX {
                next = self.pages.next().now_or_never().flatten();
            }
        }
        self.give(Input::Pages(pages)).await
    }

    /// Advances the session by one input and does what it says.
    async fn give(&mut self, input: Input) -> Result<Option<Ending>, TransportError> {
        let mut next = Some(input);
        let mut ending = None;
        while let Some(input) = next.take() {
            let now = self.clock.now();
            for output in self.session.handle(now, clock::fresh(now), input) {
                match output {
                    Output::Send(mut message) => {
                        self.add_value(&mut message);
                        let is_welcome = matches!(message, ServerMessage::Welcome(_));
                        if is_welcome {
                            self.transport.admit();
                        }
                        self.send(&message).await?;
                        if is_welcome && self.attached.as_ref().is_some_and(Attached::is_unheard) {
                            // The answer tells that the client has its new token.
                            self.transport.ping().await?;
                        }
                    }
                    Output::Authenticate { who, claim } => {
                        // Boxed, so that a connection does not carry its greeting about for as long as it lives.
                        next = Some(Box::pin(self.authenticate(who, claim)).await);
                    }
                    Output::Submit(submission) => self.submit(*submission),
                    Output::Cancel { request, principal, job_id, reason } => {
                        let (jobs, session_id) = (Arc::clone(&self.desk.jobs), self.session_id);
                        let reason = reason.map(|reason| truncate(&reason, REASON_BYTES_MAX).into_owned());
                        self.requests.push(Box::pin(async move {
                            let outcome = jobs.cancel(session_id, &principal, job_id, reason.as_deref()).await;
                            Input::Cancelled { request, job_id, reason, outcome }
                        }));
                    }
                    Output::ListJobs { request, principal, list } => {
                        let outcome = self.desk.jobs.list(&principal, &list);
                        next = Some(Input::Listed { request, outcome });
                    }
                    Output::Subscribe { request, principal, subscribe } => {
                        let (desk, job_id) = (Arc::clone(&self.desk), subscribe.job_id);
                        self.requests.push(Box::pin(async move {
                            let outcome = desk.watch(&principal, &subscribe).await;
                            Input::Subscribed { request, job_id, outcome }
                        }));
                    }
                    Output::Unread { turn } => {
                        if let Some(reading) = self.reading.remove(&turn) {
                            reading.abort();
                        }
                    }
                    Output::Read { job_id, turn, from, wait, pause } => self.read(job_id, turn, from, wait, pause),
                    Output::Store(records) => {
                        self.noted.extend(records);
                        match self.write_noted() {
                            Ok(mark) => self.storing.extend(mark),
                            Err(error) => ending = Some(broken(self.session_id, &error)),
                        }
                    }
                    Output::Note(record) => {
                        self.noted.push(record);
                        self.noted_until.get_or_insert(now.saturating_add(NOTED_FOR));
                    }
                    Output::Checkpoint(checkpoint) => {
                        let written = self.write_noted();
                        let written = written.and_then(|_| match &mut self.attached {
                            Some(attached) => attached.checkpoint(checkpoint),
                            None => Ok(()),
                        });
                        if let Err(error) = written {
                            ending = Some(broken(self.session_id, &error));
                        }
                    }
                    Output::Refused(refusal) => {
                        tracing::warn!(
                            session_id = %self.session_id, code = %refusal.code, reason = refusal.message, "refused"
                        );
                    }
                    Output::Close(close) => ending = Some(Ending::Close(close_reason(close))),
                }
            }
        }
        if self.noted.len() >= NOTED_MAX
            && let Err(error) = self.write_noted()
        {
            ending = Some(broken(self.session_id, &error));
        }
        Ok(ending)
    }

    /// Puts the value of a key into the message that there is a new one, which is stored without it (ARCP §9.8.2).
    fn add_value(&self, message: &mut ServerMessage) {
        if let ServerMessage::Rotated { place, credential, value, .. } = message
            && self.is_private
        {
            *value = self.desk.jobs.value_of_key(place.job_id, *credential);
        }
    }

    async fn send(&mut self, message: &ServerMessage) -> Result<(), TransportError> {
        if let ServerMessage::Event { place, .. } | ServerMessage::Terminal { place, .. } = message {
            tracing::trace!(session_id = %self.session_id, job_id = %place.job_id, event_seq = place.event_seq, "sent");
        }
        let now = self.clock.now();
        let dialect = self.session.dialect();
        let stamp = Stamp { id: clock::fresh(now), now, session_id: self.session_id, dialect };
        let frame = message.encode(&stamp);
        // A client that has come back need not wait for a connection that takes nothing any more.
        tokio::select! {
            biased;
            fed = self.transport.feed(frame) => fed,
            () = self.detached.cancelled() => Err(TransportError::Closed),
        }
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        tokio::select! {
            biased;
            flushed = self.transport.flush() => flushed,
            () = self.detached.cancelled() => Err(TransportError::Closed),
        }
    }

    /// Finds out who the client is, and begins or finds its session.
    ///
    /// Nothing else is done meanwhile: until it is welcomed, a client may ask for nothing.
    async fn authenticate(&mut self, who: Who, claim: Claim) -> Input {
        let principal = match who {
            Who::Token(token) => match self.desk.policy.authenticate(token.as_ref()) {
                Some(principal) => principal,
                None => return Input::Authenticated(Err(stranger())),
            },
            Who::Known(principal) => principal,
        };
        let sessions = &self.desk.sessions;
        let found = match claim {
            Claim::New { features, dialect } => {
                let opened = sessions.open(self.session_id, principal.clone(), features, dialect).await;
                opened.map(|(attached, token)| (attached, token, None))
            }
            Claim::Resume(resume) => {
                let found = sessions.resume(&principal, &resume).await;
                found.map(|found| (found.attached, found.token, Some(Box::new(found.resumed))))
            }
        };
        let (attached, resume_token, resumed) = match found {
            Ok(found) => found,
            Err(refusal) => return Input::Authenticated(Err(refusal)),
        };
        (self.session_id, self.detached) = (attached.session_id(), attached.detached().clone());
        if let Some(unused) = self.attached.replace(attached) {
            unused.discard();
        }
        let remote = self.transport.peer().remote.map(tracing::field::display);
        let what = if resumed.is_some() { "session resumed" } else { "session opened" };
        let dialect = resumed.as_ref().map_or(self.session.dialect(), |resumed| resumed.dialect).name;
        tracing::info!(session_id = %self.session_id, %principal, dialect, remote, "{what}");
        let agents = self.desk.registry.inventory();
        Input::Authenticated(Ok(Welcomed { principal, resume_token, agents, resumed }))
    }

    fn submit(&mut self, mut submission: Submission) {
        // A session may have been opened on another connection.
        submission.takes_credentials &= self.is_private;
        let (jobs, session_id) = (Arc::clone(&self.desk.jobs), self.session_id);
        let request = submission.request.clone();
        let trace_id = submission.trace_id.unwrap_or_else(|| TraceId::new(clock::random_u128()));
        // Started at once, so that submissions that wait for the disk wait together.
        let task = tokio::spawn(async move { jobs.submit(session_id, trace_id, submission).await });
        self.submissions.push_back(Box::pin(async move {
            let outcome = task.await.unwrap_or_else(|panic| {
                tracing::error!(%panic, "a submission panicked");
                let message = "the host failed to take the job; try again later";
                Err(Refusal::new(ErrorCode::InternalError, message))
            });
            Input::Submitted { request, trace_id, outcome }
        }));
    }

    /// Reads a page of a job's journal.
    fn read(&mut self, job_id: JobId, turn: u64, from: ReadFrom, wait: bool, pause: bool) {
        let (store, jobs, clock) = (Arc::clone(&self.store), Arc::clone(&self.desk.jobs), self.clock.clone());
        let pause = pause.then_some(self.session.dialect().subscribe_pause).filter(|pause| !pause.is_zero());
        let page = async move {
            if let Some(pause) = pause {
                clock.sleep_until(clock.now().saturating_add(pause)).await;
            }
            // Nothing grows any more of a job whose time was over before its client had read it.
            if wait && !jobs.lists(job_id) && journal::accepted(&*store, &journal::stream(job_id)).await?.is_none() {
                anyhow::bail!("{job_id} was removed before its client had read it");
            }
            let after = match from {
                ReadFrom::After(after) => Position::new(after),
                ReadFrom::Newest => journal::newest(&*store, job_id).await?,
            };
            if wait {
                store.grown(&journal::stream(job_id), after).await?;
            }
            Ok(Page { job_id, turn, after: after.get(), records: journal::page(&*store, job_id, after).await? })
        };
        let (page, reading) = abortable(page);
        self.reading.insert(turn, reading);
        self.pages.push(Box::pin(page));
    }

    /// Appends what was noted.
    fn write_noted(&mut self) -> Result<Option<Mark>, StoreError> {
        self.noted_until = None;
        let noted = std::mem::take(&mut self.noted);
        self.attached.as_ref().map(|attached| attached.append(&noted)).transpose()
    }

    /// Ends the connection, and parks the session. Neither waits for the other.
    async fn finish(self, ending: Ending) {
        let Self { mut transport, mut session, attached, mut noted, mut submissions, mut requests, clock, .. } = self;
        let session_id = self.session_id;
        let farewell = async {
            match ending {
                Ending::Close(reason) => {
                    tracing::info!(%session_id, %reason, "session closed");
                    // The reason has been logged; a peer that is gone cannot be told.
                    let _ = transport.flush().await;
                    transport.close(reason).await;
                }
                Ending::Gone(reason) => {
                    tracing::info!(%session_id, reason, "session ended by its client");
                    transport.close(CloseReason::new(CloseReason::NORMAL, "")).await;
                }
                Ending::Lost(error) => tracing::info!(%session_id, error, "session lost"),
                Ending::Detached => {
                    tracing::info!(%session_id, "session taken over");
                    let reason = "the session was resumed on another connection";
                    transport.close(CloseReason::new(CloseReason::POLICY, reason)).await;
                }
            }
        };
        let parking = async {
            let Some(attached) = attached else { return };
            let now = clock.now();
            session.handle(now, clock::fresh(now), Input::Gone);
            // A cancellation that was asked for is carried out, though nobody is told.
            while requests.next().await.is_some() {}
            while let Some(input) = submissions.next().await {
                for output in session.handle(now, clock::fresh(now), input) {
                    if let Output::Note(record) = output {
                        noted.push(record);
                    }
                }
            }
            attached.park(&noted).await;
        };
        tokio::join!(farewell, parking);
    }
}

enum Event {
    One(Input),
    Incoming(Incoming),
    Page(ReadPage),
    Stored(Result<(), StoreError>),
    Noted,
    Detached,
    /// There may be another answer.
    Rested,
    /// The client has been silent.
    Silent,
}

/// How a connection ends.
enum Ending {
    /// The host closes it.
    Close(CloseReason),
    /// The client closed it.
    Gone(Option<String>),
    /// It broke.
    Lost(String),
    /// The client has come back on another.
    Detached,
}

/// Ends a connection whose numbers cannot be written down any more.
fn broken(session_id: SessionId, error: &StoreError) -> Ending {
    tracing::error!(%session_id, %error, "the stream of a session cannot be written");
    Ending::Close(CloseReason::new(CloseReason::INTERNAL, "the host cannot store the session"))
}

/// Whether a client gets an answer at once, whatever it says. Submissions have a bound of their own, and nobody answers
/// an acknowledgement or a pong.
fn asks(input: &Input) -> bool {
    use client::ClientMessage::{Ack, Pong, Submit};
    let Input::Frame(Ok(request)) = input else { return true };
    !matches!(request.message, Ack { .. } | Pong | Submit(_))
}

/// Returns when what the session waits for is durable.
async fn stored(attached: Option<&Attached>, mark: Option<&Mark>) -> Result<(), StoreError> {
    match (attached, mark) {
        (Some(attached), Some(mark)) => attached.writer().durable(*mark).await,
        _ => std::future::pending().await,
    }
}

/// Whether a peer is in this process or on this machine.
fn is_of_this_machine(remote: Option<SocketAddr>) -> bool {
    remote.is_none_or(|remote| remote.ip().to_canonical().is_loopback())
}

async fn wait(clock: &Clock, deadline: Option<Timestamp>) {
    match deadline {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn close_reason(close: Close) -> CloseReason {
    match close {
        Close::Normal => CloseReason::new(CloseReason::NORMAL, "closed as asked"),
        Close::GoingAway => CloseReason::new(CloseReason::GOING_AWAY, "the host is stopping"),
        Close::Policy => CloseReason::new(CloseReason::POLICY, "the session was refused"),
        Close::Internal => CloseReason::new(CloseReason::INTERNAL, "the host cannot read a journal"),
        Close::HeartbeatLost => CloseReason::new(CloseReason::POLICY, "HEARTBEAT_LOST"),
    }
}
