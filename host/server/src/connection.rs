//! The driver of one session: everything the session decides, done.
//!
//! One loop owns the transport and the session. It gives the session whatever
//! happens, does the outputs in order, and reads the journals the session
//! follows, each from its own cursor and only when the peer has taken what was
//! read before. So a slow client slows only itself, and nothing here buffers
//! more than one page of records for each job followed.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{FuturesOrdered, FuturesUnordered},
};
use leasehold_core::{
    error::Refusal,
    id::{JobId, SessionId},
    job::record::Record,
    protocol::{
        client,
        server::{ServerMessage, Stamp},
        trace::TraceId,
    },
    secret::Secret,
    session::{Close, Input, Output, Session, SessionConfig, Welcomed},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::registry::Registry,
    capability::truncate,
    clock::{self, Clock},
    jobs::Jobs,
    journal,
    policy::Policy,
    store::{Position, Store, StoreError},
    transport::{CloseReason, Incoming, Transport, TransportError},
};

/// How many records of one job are read at once.
const PAGE: usize = 64;

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
    /// The agents.
    pub registry: Arc<Registry>,
    /// Who may connect.
    pub policy: Arc<Policy>,
    /// What the operator decides of sessions.
    pub session: SessionConfig,
    /// Set when the host is about to stop.
    pub stopping: CancellationToken,
}

/// A page of a job's journal and where the next begins.
struct Page {
    job_id: JobId,
    records: Result<Vec<(Position, Record)>, String>,
}

/// One connection.
struct Driver {
    desk: Arc<Desk>,
    clock: Clock,
    store: Arc<dyn Store>,
    transport: Transport,
    session: Session,
    session_id: SessionId,
    /// Submissions are answered in the order they came: some clients tell answers apart by nothing else.
    submissions: FuturesOrdered<BoxFuture<'static, Input>>,
    requests: FuturesUnordered<BoxFuture<'static, Input>>,
    pages: FuturesUnordered<BoxFuture<'static, Page>>,
}

/// Serves one connection until it ends. Its jobs go on.
pub async fn drive(desk: Arc<Desk>, mut transport: Transport) {
    let clock = desk.jobs.world().clock.clone();
    let store = Arc::clone(&desk.jobs.world().store);
    let bearer = transport.take_bearer();
    let now = clock.now();
    let session = Session::new(desk.session.clone(), now, bearer);
    let session_id = SessionId::new(clock::fresh(now));
    let driver = Driver {
        desk,
        clock,
        store,
        transport,
        session,
        session_id,
        submissions: FuturesOrdered::new(),
        requests: FuturesUnordered::new(),
        pages: FuturesUnordered::new(),
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
                || self.requests.len() >= SUBMISSIONS_MAX
                || self.pages.len() >= FOLLOWED_MAX;
            let input = tokio::select! {
                () = desk.stopping.cancelled(), if !stopping => {
                    stopping = true;
                    Event::One(Input::Stopping)
                }
                Some(input) = self.submissions.next(), if !self.submissions.is_empty() => Event::One(input),
                Some(input) = self.requests.next(), if !self.requests.is_empty() => Event::One(input),
                incoming = self.transport.recv(), if !full => Event::Incoming(incoming),
                Some(page) = self.pages.next(), if !self.pages.is_empty() => Event::Page(page),
                () = wait(&self.clock, deadline) => Event::One(Input::Tick),
            };
            let outcome = match input {
                Event::One(input) => self.give(input).await,
                Event::Incoming(incoming) => self.incoming(incoming).await,
                Event::Page(page) => self.page(page).await,
            };
            let ending = match outcome {
                Ok(None) => match self.flush().await {
                    Ok(()) => continue,
                    Err(error) => Ending::Lost(error.to_string()),
                },
                Ok(Some(ending)) => ending,
                Err(error) => Ending::Lost(error.to_string()),
            };
            return self.finish(ending).await;
        }
    }

    /// What came over the wire.
    async fn incoming(&mut self, incoming: Incoming) -> Result<Option<Ending>, TransportError> {
        let input = match incoming {
            Incoming::Text(text) => Input::Frame(client::decode(&text)),
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
        self.give(input).await
    }

    /// Gives the session a page of records, and asks for the next.
    async fn page(&mut self, page: Page) -> Result<Option<Ending>, TransportError> {
        let records = match page.records {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(session_id = %self.session_id, job_id = %page.job_id, error, "a journal cannot be read");
                return Ok(Some(Ending::Close(CloseReason::new(
                    CloseReason::INTERNAL,
                    "the host cannot read a journal",
                ))));
            }
        };
        let mut cursor = None;
        for (position, record) in records {
            let ended = matches!(record, Record::Ended { .. });
            if let Record::Ended { end, .. } = &record {
                // Whoever is told of an end finds it in the next listing, though the runner may not be back yet.
                self.desk.jobs.note_end(page.job_id, end.status());
            }
            let ending = self.give(Input::Record(page.job_id, record)).await?;
            if ending.is_some() {
                return Ok(ending);
            }
            cursor = (!ended).then_some(position);
        }
        if let Some(cursor) = cursor {
            self.follow(page.job_id, cursor);
        }
        Ok(None)
    }

    /// Advances the session by one input and does what it says.
    async fn give(&mut self, input: Input) -> Result<Option<Ending>, TransportError> {
        let mut next = Some(input);
        let mut ending = None;
        while let Some(input) = next.take() {
            let now = self.clock.now();
            for output in self.session.handle(now, clock::fresh(now), input) {
                match output {
                    Output::Send(message) => {
                        if matches!(message, ServerMessage::Welcome(_)) {
                            self.transport.admit();
                        }
                        self.send(&message).await?;
                    }
                    Output::Authenticate(token) => next = Some(self.authenticate(token.as_ref())),
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
                    Output::Follow { job_id, only_end: false } => self.follow(job_id, Position::ZERO),
                    Output::Follow { job_id, only_end: true } => self.follow_end(job_id),
                    Output::Refused(refusal) => {
                        tracing::warn!(
                            session_id = %self.session_id, code = %refusal.code, reason = refusal.message, "refused"
                        );
                    }
                    Output::Close(close) => ending = Some(Ending::Close(close_reason(close))),
                }
            }
        }
        Ok(ending)
    }

    async fn send(&mut self, message: &ServerMessage) -> Result<(), TransportError> {
        if let ServerMessage::Event { place, .. } | ServerMessage::Terminal { place, .. } = message {
            tracing::trace!(session_id = %self.session_id, job_id = %place.job_id, event_seq = place.event_seq, "sent");
        }
        let now = self.clock.now();
        let dialect = self.session.dialect();
        let stamp = Stamp { id: clock::fresh(now), now, session_id: self.session_id, dialect };
        let frame = message.encode(&stamp);
        self.transport.feed(frame).await
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.transport.flush().await
    }

    fn authenticate(&self, token: Option<&Secret>) -> Input {
        let Some(principal) = self.desk.policy.authenticate(token) else {
            return Input::Authenticated(None);
        };
        let peer = self.transport.peer();
        tracing::info!(
            session_id = %self.session_id, principal = %principal, dialect = self.session.dialect().name,
            remote = peer.remote.map(tracing::field::display), "session opened"
        );
        Input::Authenticated(Some(Welcomed {
            principal,
            resume_token: Secret::new(format!("rt_{:032x}", clock::random_u128())),
            agents: self.desk.registry.inventory(),
        }))
    }

    fn submit(&mut self, submission: leasehold_core::session::Submission) {
        let (jobs, session_id) = (Arc::clone(&self.desk.jobs), self.session_id);
        let request = submission.request.clone();
        let trace_id = submission.trace_id.unwrap_or_else(|| TraceId::new(clock::random_u128()));
        // Started at once, so that submissions that wait for the disk wait together.
        let task = tokio::spawn(async move { jobs.submit(session_id, trace_id, submission).await });
        self.submissions.push_back(Box::pin(async move {
            let outcome = task.await.unwrap_or_else(|panic| {
                tracing::error!(%panic, "a submission panicked");
                let message = "the host failed to take the job; try again later";
                Err(Refusal::new(leasehold_core::error::ErrorCode::InternalError, message))
            });
            Input::Submitted { request, trace_id, outcome }
        }));
    }

    /// Reads the next page of a job's journal, as soon as there is one.
    fn follow(&self, job_id: JobId, after: Position) {
        let store = Arc::clone(&self.store);
        self.pages.push(Box::pin(async move {
            let records = next_page(&*store, job_id, after).await;
            Page { job_id, records }
        }));
    }

    /// Reads a job's journal from its newest record, which is the end of a job that has ended.
    fn follow_end(&self, job_id: JobId) {
        let store = Arc::clone(&self.store);
        self.pages.push(Box::pin(async move {
            let records = match journal::newest(&*store, job_id).await {
                Ok(after) => next_page(&*store, job_id, after).await,
                Err(error) => Err(error.to_string()),
            };
            Page { job_id, records }
        }));
    }

    async fn finish(mut self, ending: Ending) {
        let session_id = self.session_id;
        match ending {
            Ending::Close(reason) => {
                tracing::info!(%session_id, %reason, "session closed");
                // The reason has been logged; a peer that is gone cannot be told.
                let _ = self.flush().await;
                self.transport.close(reason).await;
            }
            Ending::Gone(reason) => {
                tracing::info!(%session_id, reason, "session ended by its client");
                self.transport.close(CloseReason::new(CloseReason::NORMAL, "")).await;
            }
            Ending::Lost(error) => tracing::info!(%session_id, error, "session lost"),
        }
    }
}

enum Event {
    One(Input),
    Incoming(Incoming),
    Page(Page),
}

/// How a connection ends.
enum Ending {
    /// The host closes it.
    Close(CloseReason),
    /// The client closed it.
    Gone(Option<String>),
    /// It broke.
    Lost(String),
}

async fn next_page(store: &dyn Store, job_id: JobId, after: Position) -> Result<Vec<(Position, Record)>, String> {
    let stream = journal::stream(job_id);
    let stored = async {
        store.grown(&stream, after).await?;
        store.read(&stream, after, PAGE).await
    };
    let stored = stored.await.map_err(|error: StoreError| error.to_string())?;
    let decode = |stored: crate::store::Stored| match Record::decode(&stored.bytes) {
        Ok(record) => Ok((stored.position, record)),
        Err(error) => Err(format!("{stream} at {}: {error}", stored.position)),
    };
    stored.into_iter().map(decode).collect()
}

async fn wait(clock: &Clock, deadline: Option<leasehold_core::time::Timestamp>) {
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
        Close::HeartbeatLost => CloseReason::new(CloseReason::POLICY, "HEARTBEAT_LOST"),
    }
}
