//! What an agent is told: as long as its journal knows, what it was told before; from there on, the world.
//!
//! A job that a host takes up again, after a crash or after a long wait, is run from its beginning. Whatever the agent
//! does is held against the next record of its journal: the same call gets the same answer, the same event is already
//! told, a look at the clock shows the same time. At the end of the journal the tape goes *live*: calls take effect
//! and everything is written down. So an agent never notices, and whoever watches the job sees one stream.
//!
//! An agent that does something else than it did before is *halted*. It never gets an answer again, so nothing it
//! computes from a wrong past leaves the sandbox, and the runner ends the job.
//!
//! There are two things an agent sees that are neither its own doing nor a call's answer: the time, and that it is to
//! be cancelled. Every look at them is counted, and a look that showed something new is an [`Observation`]. They are
//! written down before the next record of the agent's own, and nothing waits for the disk for their sake: an
//! observation nothing followed from may be made anew.

mod lines;
mod pending;

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::pending,
    sync::{
        Arc, Mutex as SyncMutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use leasehold_core::{
    error::ErrorCode,
    job::record::{Answer, Begun, Called, Concluded, End, Intent, Observation, Outcome, Part, Record, Redirected, Saw},
    protocol::{
        event::{Event, Level, ToolError},
        json::Json,
    },
    time::Timestamp,
};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

pub use self::pending::News;
use self::{
    lines::{LineLimit, Lines},
    pending::Pending,
};
use crate::{
    clock::Clock,
    journal::{Journal, JournalError, Mark},
    store::{Position, Store, StreamId},
};

/// How many records are read from a journal at once.
const PAGE: usize = 256;

/// Observations are written down once there are so many, though nothing has followed from them yet.
const OBSERVATIONS_MAX: usize = 1024;

/// How much may have been printed and not yet told before the agent has to wait.
const PRINTED_BYTES_MAX: usize = 64 << 10;

/// How many parts of a call are taken before its agent has taken the first of them.
const PARTS_WAITING_MAX: usize = 16;

/// An agent leaves memory for a wait that is so many times as long as it takes to run it up to there again.
const WORTH: u32 = 10;

/// How much of a call or an event is quoted when a job diverges.
const QUOTED_BYTES_MAX: usize = 300;

/// What the runner, the client's wishes and the agent's context tell each other.
#[derive(Debug, Default)]
pub struct Control {
    /// Set when the client asks for cancellation (ARCP §7.4).
    pub cancel: CancellationToken,
    /// When it asked, or when a host that took the job up again learned of it.
    pub cancelled_at: OnceLock<Timestamp>,
    /// Whether cancellation was asked for, and so need not be written down again.
    pub asked_to_cancel: AtomicBool,
    /// Whether an operation was refused because the lease had ended (ARCP §9.5).
    pub met_expiry: AtomicBool,
    /// Whether the job is over: an effect that has not begun by then does not begin.
    pub over: AtomicBool,
}

impl Control {
    /// Tells the agent that its client wants no more of it since `at`.
    pub fn cancel(&self, at: Timestamp) {
        // Whoever waits for the token finds the moment.
        self.cancelled_at.get_or_init(|| at);
        self.cancel.cancel();
    }
}

/// Why an agent gets no further on this tape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It does something else than its journal says. The text says where.
    Diverged(String),
    /// The journal cannot be read.
    Unreadable(String),
    /// An offline replay has come to where it was to stop.
    End,
    /// It waits until then, and need not be in memory meanwhile.
    Idle(Timestamp),
}

/// Why an agent is run from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The host that ran it was stopped.
    Restart,
    /// It waited for long and was taken out of memory.
    Wake,
    /// To see whether it does the same again, without any effect, up to and including a call.
    Offline {
        /// The last call that is answered; all of them if there is none.
        until: Option<u64>,
    },
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Turn {
    /// It is done for the first time, as the how-manieth of the job.
    Live(u64),
    /// It was done before, with this outcome.
    Told(Called),
    /// It was about to be done when the host was stopped, and nobody knows whether it was.
    InFlight(Intent),
}

/// What becomes of a call that takes its time.
#[derive(Debug)]
pub enum Begin {
    /// It is made for the first time, as the how-manieth of the job.
    Live(u64),
    /// It was refused before, in this way.
    Told(Called),
    /// It had begun before. What came in of it is found, or will come in once the tape is live.
    Again(Begun),
}

/// The tape of one run.
pub struct Tape {
    journal: Arc<Journal>,
    clock: Clock,
    control: Arc<Control>,
    /// How long an agent waits in memory.
    idle: Option<Duration>,
    /// One agent asks one question at a time; the lock is for the compiler.
    state: Mutex<State>,
    printed: SyncMutex<Lines>,
    /// The calls under way, which go on while the agent does something else.
    pending: SyncMutex<Pending>,
    /// Changes with everything that comes in of them.
    news: watch::Sender<u64>,
    /// Since when the agent runs, and how much of that it has waited.
    begun: Instant,
    waited: SyncMutex<Duration>,
    live: CancellationToken,
    halt: watch::Sender<Option<Halt>>,
}

struct State {
    /// What was written down, as long as some of it is left.
    script: Option<Script>,
    /// The observations between the last record of the agent's own and the next.
    observed: VecDeque<Observation>,
    /// Observations that are not written down yet.
    unwritten: Vec<Observation>,
    asks: u64,
    /// The last question whose answer was written down, or is about to be.
    observed_ask: u64,
    calls: u64,
    events: u64,
    now: Timestamp,
    cancelled: bool,
    live: bool,
    limit: LineLimit,
}

/// A journal that is read once more, a page at a time.
struct Script {
    again: Again,
    store: Arc<dyn Store>,
    stream: StreamId,
    after: Position,
    page: VecDeque<Record>,
    cancelling: bool,
    end: Option<End>,
}

/// How far an agent has come.
#[derive(Debug)]
pub struct Played {
    /// How many calls the agent made.
    pub calls: u64,
    /// How many events it told.
    pub events: u64,
    /// How the journal says the job ended.
    pub end: Option<End>,
}

enum Look {
    Live,
    /// As the last time.
    Same,
    New(Saw),
}

impl Tape {
    /// A tape with nothing on it, of a job accepted at `began`.
    #[must_use]
    pub fn blank(
        journal: Arc<Journal>,
        clock: Clock,
        control: Arc<Control>,
        began: Timestamp,
        lines_per_sec: u32,
        idle: Option<Duration>,
    ) -> Self {
        let state = State {
            script: None,
            observed: VecDeque::new(),
            unwritten: Vec::new(),
            asks: 0,
            observed_ask: 0,
            calls: 0,
            events: 0,
            now: began,
            cancelled: false,
            live: false,
            limit: LineLimit::new(lines_per_sec),
        };
        Self {
            journal,
            clock,
            control,
            idle,
            state: Mutex::new(state),
            printed: SyncMutex::default(),
            pending: SyncMutex::default(),
            news: watch::Sender::default(),
            begun: Instant::now(),
            waited: SyncMutex::default(),
            live: CancellationToken::new(),
            halt: watch::Sender::default(),
        }
    }

    /// Plays the journal `stream` of `store` first.
    #[must_use]
    pub fn playing(mut self, again: Again, store: Arc<dyn Store>, stream: StreamId) -> Self {
        self.state.get_mut().script = Some(Script {
            again,
            store,
            stream,
            after: Position::ZERO,
            page: VecDeque::new(),
            cancelling: false,
            end: None,
        });
        self
    }

    /// Returns when the agent is halted, and never otherwise.
    pub async fn halted(&self) -> Halt {
        let mut halt = self.halt.subscribe();
        match halt.wait_for(Option::is_some).await.map(|halt| halt.clone()) {
            Ok(Some(halt)) => halt,
            Ok(None) | Err(_) => pending().await,
        }
    }

    /// Returns once the agent does something it had not done before.
    pub async fn caught_up(&self) {
        self.live.cancelled().await;
    }

    /// Whether what the agent does now is new.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live.is_cancelled()
    }

    /// What time it is for the agent. It never goes back.
    pub async fn now(&self) -> Timestamp {
        self.time(&mut *self.state.lock().await).await
    }

    /// Whether the agent is to be cancelled. Once it is, it stays so.
    pub async fn cancel_requested(&self) -> bool {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        match self.ask(state).await {
            Look::Live if self.control.cancel.is_cancelled() && !state.cancelled => {
                state.cancelled = true;
                self.note(state, Saw::Cancel);
            }
            Look::Live | Look::Same => {}
            Look::New(Saw::Cancel) => state.cancelled = true,
            Look::New(Saw::Time(_) | Saw::Elapsed) => {
                match self.diverged(state, "another look", "whether it is cancelled").await {}
            }
        }
        state.cancelled
    }

    /// Waits until a moment, unless the agent has waited for it before.
    ///
    /// It is no moment of the agent's until it looks at the clock again.
    pub async fn wait_until(&self, moment: Timestamp) {
        {
            let mut state = self.state.lock().await;
            let state = &mut *state;
            self.tell_printed(state).await;
            if !state.observed.is_empty() || self.front(state).await.is_some() {
                return;
            }
            self.go_live(state).await;
            // Since when it waits must outlive the host, or it would wait all over again; the last question before it
            // was the time, which may have been no news.
            if state.observed_ask < state.asks {
                let now = state.now;
                self.note(state, Saw::Time(now));
            }
            self.write_observations(state);
        }
        let left = moment.saturating_since(self.clock.now());
        let begun = Instant::now();
        // To be run again costs what it has computed so far.
        let busy = begun.duration_since(self.begun).saturating_sub(*self.waited());
        // Calls under way are in memory, and their agent with them.
        let idle = self.idle.filter(|_| self.pending().is_empty());
        let Some(idle) = idle.filter(|idle| left > *idle * 2 && left > busy * WORTH) else {
            self.clock.sleep_until(moment).await;
            *self.waited() += begun.elapsed();
            return;
        };
        self.clock.sleep_until(self.clock.now().saturating_add(idle)).await;
        let early = moment.as_millis().saturating_sub(i64::try_from(busy.as_millis() * 2).unwrap_or(i64::MAX));
        match self.halt(Halt::Idle(Timestamp::from_millis(early))).await {}
    }

    /// Tells an event, unless it has been told.
    ///
    /// # Errors
    ///
    /// If the journal takes no more.
    pub async fn event(&self, event: Event) -> Result<(), JournalError> {
        let mut state = self.state.lock().await;
        self.tell_printed(&mut state).await;
        self.tell(&mut state, event).await
    }

    /// Announces a call and says what becomes of it.
    ///
    /// # Errors
    ///
    /// If the journal takes no more.
    pub async fn call(&self, operation: &str, args: &Json) -> Result<Turn, JournalError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let call = self.announce(state).await;
        let same = |number: u64, was: &str, of: &Json| number == call && was == operation && of == args;
        loop {
            match self.next(state).await {
                None => {
                    self.journal.room().await?;
                    return Ok(Turn::Live(call));
                }
                Some(Record::Called(called)) if same(called.call, &called.operation, &called.args) => {
                    return Ok(Turn::Told(called));
                }
                Some(Record::Intent(intent)) if same(intent.call, &intent.operation, &intent.args) => {
                    match self.front(state).await {
                        // What became of it follows.
                        Some(Record::Called(_) | Record::Void { .. }) => {}
                        Some(other) => {
                            let other = describe(other);
                            match self.diverged(state, &other, &quote(operation, args)).await {}
                        }
                        None => {
                            self.go_live(state).await;
                            return Ok(Turn::InFlight(intent));
                        }
                    }
                }
                // The call begins anew.
                Some(Record::Void { call: void, .. }) if void == call => {}
                Some(other) => match self.diverged(state, &describe(&other), &quote(operation, args)).await {},
            }
        }
    }

    /// Announces a call that takes its time, and says what becomes of it.
    ///
    /// # Errors
    ///
    /// If the journal takes no more.
    pub async fn begin(&self, operation: &str, args: &Json) -> Result<Begin, JournalError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let call = self.announce(state).await;
        let same = |number: u64, was: &str, of: &Json| number == call && was == operation && of == args;
        match self.next(state).await {
            None => {
                self.journal.room().await?;
                Ok(Begin::Live(call))
            }
            Some(Record::Called(called)) if same(called.call, &called.operation, &called.args) => {
                Ok(Begin::Told(called))
            }
            Some(Record::Begun(begun)) if same(begun.call, &begun.operation, &begun.args) => {
                self.pending().begin(call, begun.reserved.clone());
                Ok(Begin::Again(begun))
            }
            Some(other) => match self.diverged(state, &describe(&other), &quote(operation, args)).await {},
        }
    }

    /// Writes down that a live call begins, after everything the agent saw before it.
    ///
    /// # Errors
    ///
    /// If the journal takes no more.
    pub async fn begun(&self, begun: Begun) -> Result<Mark, JournalError> {
        let mut state = self.state.lock().await;
        self.write_observations(&mut state);
        self.pending().begin(begun.call, begun.reserved.clone());
        self.journal.append(&Record::Begun(begun))
    }

    /// Takes note that a live call goes somewhere else; `None` if it is over.
    ///
    /// # Errors
    ///
    /// If the journal takes no more.
    pub fn redirected(&self, redirected: Redirected) -> Result<Option<Mark>, JournalError> {
        match self.pending().is_open(redirected.call) {
            true => self.journal.append(&Record::Redirected(redirected)).map(Some),
            false => Ok(None),
        }
    }

    /// Takes a part of a live call's answer; says whether anybody wants more.
    ///
    /// # Errors
    ///
    /// If the journal takes no more.
    pub async fn part(&self, part: Part) -> Result<bool, JournalError> {
        self.journal.room().await?;
        self.arrived(part.call, |journal| {
            journal.append(&Record::Part(part.clone()))?;
            Ok(News::Part(part.answer))
        })
    }

    /// Takes the end of a live call. What comes after it is nothing.
    ///
    /// # Errors
    ///
    /// If the journal takes no more.
    pub fn conclude(&self, concluded: Concluded) -> Result<(), JournalError> {
        self.arrived(concluded.call, |journal| {
            // Whoever waited for it goes on, and says what comes of that at once, or nothing for a while.
            journal.append_soon(&Record::Concluded(concluded.clone()))?;
            Ok(News::Over(concluded))
        })
        .map(drop)
    }

    /// Whether the end of a call is still to come.
    #[must_use]
    pub fn is_open(&self, call: u64) -> bool {
        self.pending().is_open(call)
    }

    /// Returns once one of `calls` has something that the agent has not taken, and says which had it first, or that
    /// `patience` was over before.
    pub async fn first(&self, calls: &[u64], patience: Option<Duration>) -> Option<usize> {
        {
            let mut state = self.state.lock().await;
            let state = &mut *state;
            self.tell_printed(state).await;
            if patience.is_some() {
                match self.ask(state).await {
                    Look::New(Saw::Elapsed) => return None,
                    Look::New(_) => match self.diverged(state, "another look", "a wait").await {},
                    Look::Live | Look::Same => {}
                }
            }
            // What came in before the agent's next record is what it could have waited for.
            let rest = match state.observed.is_empty() {
                true => self.front(state).await.map(describe),
                false => Some("another look".to_owned()),
            };
            if let Some(first) = self.pending().first(calls) {
                return Some(first);
            }
            if let Some(expected) = rest {
                match self.diverged(state, &expected, "a wait for a call").await {}
            }
            self.go_live(state).await;
        }
        let begun = Instant::now();
        let mut news = self.news.subscribe();
        let arrival = async {
            loop {
                news.borrow_and_update();
                if let Some(first) = self.pending().first(calls) {
                    return first;
                }
                // The sender lives as long as this does.
                let _ = news.changed().await;
            }
        };
        let elapsed = async {
            match patience {
                Some(patience) => self.clock.sleep_until(self.clock.now().saturating_add(patience)).await,
                None => pending().await,
            }
        };
        let first = tokio::select! {
            biased;
            first = arrival => Some(first),
            () = elapsed => None,
        };
        *self.waited() += begun.elapsed();
        if first.is_none() {
            let mut state = self.state.lock().await;
            self.note(&mut state, Saw::Elapsed);
        }
        first
    }

    /// What came in next of a call that is pending; waits for it.
    pub async fn news(&self, call: u64) -> Option<News> {
        self.first(&[call], None).await;
        let news = self.pending().take(call);
        self.news.send_modify(|changes| *changes += 1);
        news
    }

    /// The part that came in next of a call, unless it has ended.
    #[must_use]
    pub fn take_part(&self, call: u64) -> Option<Answer> {
        let part = self.pending().take_part(call);
        self.news.send_modify(|changes| *changes += 1);
        part
    }

    /// How a call failed of which no more parts come.
    #[must_use]
    pub fn failure(&self, call: u64) -> Option<(Timestamp, Outcome)> {
        self.pending().failure(call)
    }

    /// Wants no parts of a call any more, but its end.
    pub fn skip_parts(&self, call: u64) {
        self.pending().skip_parts(call);
        self.news.send_modify(|changes| *changes += 1);
    }

    /// How many parts of a call have come in, in this run and earlier ones.
    #[must_use]
    pub fn parts(&self, call: u64) -> usize {
        self.pending().parts(call)
    }

    /// Returns once there is room for a part of a call, or says that nobody wants one.
    pub async fn wants_part(&self, call: u64) -> bool {
        let mut news = self.news.subscribe();
        loop {
            news.borrow_and_update();
            let waiting = self.pending().waiting(call);
            match waiting {
                None => return false,
                Some(waiting) if waiting < PARTS_WAITING_MAX => return true,
                // The sender lives as long as this does.
                Some(_) => drop(news.changed().await),
            }
        }
    }

    /// Ends a call whose agent wants no more of it, and says how it ended.
    ///
    /// # Errors
    ///
    /// If the journal takes no more.
    pub async fn give_up(&self, call: u64) -> Result<Option<Concluded>, JournalError> {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        if !self.pending().is_open(call) {
            return Ok(self.pending().take_end(call));
        }
        // Its end was written down before whatever the agent did next.
        let rest = match state.observed.is_empty() {
            true => self.front(state).await.map(describe),
            false => Some("another look".to_owned()),
        };
        if let Some(end) = self.pending().take_end(call) {
            return Ok(Some(end));
        }
        if let Some(expected) = rest {
            match self.diverged(state, &expected, "that it wants no more of a call").await {}
        }
        self.go_live(state).await;
        self.drop_call(call, "the agent wanted no more of it")
    }

    /// Ends a call of an agent that is over, and says how it ended.
    pub fn abandon(&self, call: u64) -> Option<Concluded> {
        match self.is_live() {
            // A journal that takes no more is why the job ended, and says so itself.
            true => self.drop_call(call, "the job ended while it was under way").ok().flatten(),
            false => self.pending().take_end(call),
        }
    }

    /// Ends a call that nobody waits for, unless it has just ended by itself, and says how it ended. Of one that had
    /// not ended nobody knows what it did, so it costs all that was held for it.
    fn drop_call(&self, call: u64, why: &str) -> Result<Option<Concluded>, JournalError> {
        let end = {
            let mut pending = self.pending();
            if pending.is_open(call) {
                let code = ErrorCode::Cancelled;
                let error = ToolError { code, message: why.to_owned(), retryable: code.retryable() };
                let outcome = Outcome::Failed { error, code: "cancelled".to_owned() };
                let cost = pending.reserved(call);
                let concluded = Concluded { at: self.clock.now(), call, outcome, cost };
                self.journal.append(&Record::Concluded(concluded.clone()))?;
                pending.push(call, News::Over(concluded));
            }
            pending.take_end(call)
        };
        self.news.send_modify(|changes| *changes += 1);
        Ok(end)
    }

    /// Writes down what came in of a live call and gives it to whoever waits, both or neither.
    fn arrived(
        &self,
        call: u64,
        write: impl FnOnce(&Journal) -> Result<News, JournalError>,
    ) -> Result<bool, JournalError> {
        {
            let mut pending = self.pending();
            if !pending.is_open(call) {
                return Ok(false);
            }
            let news = write(&self.journal)?;
            pending.push(call, news);
        }
        self.news.send_modify(|arrived| *arrived += 1);
        Ok(true)
    }

    /// Counts a call.
    async fn announce(&self, state: &mut State) -> u64 {
        self.tell_printed(state).await;
        if let Some(Script { again: Again::Offline { until: Some(until) }, .. }) = &state.script
            && state.calls >= *until
        {
            match self.halt(Halt::End).await {}
        }
        state.calls += 1;
        state.calls
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record of a live call, after everything the agent saw before it.
    ///
    /// # Errors
    ///
    /// If the journal takes no more.
    pub async fn record(&self, record: &Record) -> Result<Mark, JournalError> {
        let mut state = self.state.lock().await;
        self.write_observations(&mut state);
        self.journal.append(record)
    }

    /// Halts an agent whose past cannot be read.
    pub async fn unreadable<T>(&self, why: String) -> T {
        match self.halt(Halt::Unreadable(why)).await {}
    }

    /// Takes what the agent prints. It is told with whatever the agent does next.
    pub fn print(&self, level: Level, bytes: &[u8]) {
        self.lines().print(level, bytes);
    }

    /// How much more may be printed before it is told.
    #[must_use]
    pub fn may_print(&self) -> usize {
        PRINTED_BYTES_MAX.saturating_sub(self.lines().bytes())
    }

    /// Tells what was printed.
    pub async fn flush(&self) {
        self.tell_printed(&mut *self.state.lock().await).await;
    }

    /// Tells the rest of what was printed once the agent has returned, and that it ought not to have returned if its
    /// journal goes on.
    pub async fn finish(&self) {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        self.lines().finish();
        self.tell_printed(state).await;
        let dropped = state.limit.dropped();
        self.tell_dropped(state, dropped).await;
        let rest = self.front(state).await.map(describe);
        if let Some(expected) = rest.or_else(|| (!state.observed.is_empty()).then(|| "another look".to_owned())) {
            match self.diverged(state, &expected, "its return").await {}
        }
        if !matches!(&state.script, Some(Script { again: Again::Offline { .. }, .. })) {
            self.go_live(state).await;
            // What it saw last has no record behind it, and whoever plays it again comes by there.
            self.write_observations(state);
        }
    }

    /// How far the agent has come. It must not be running.
    pub async fn played(&self) -> Played {
        let state = self.state.lock().await;
        let end = state.script.as_ref().and_then(|script| script.end.clone());
        Played { calls: state.calls, events: state.events, end }
    }

    fn waited(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, state: &mut State, event: Event) -> Result<(), JournalError> {
        state.events += 1;
        match self.next(state).await {
            None => {
                self.journal.room().await?;
                self.write_observations(state);
                self.journal.append(&Record::Event { at: self.clock.now(), event }).map(drop)
            }
            Some(Record::Event { event: was, .. }) if was == event => Ok(()),
            Some(other) => {
                let mut expected = describe(&other);
                let got = describe_event(&event);
                if expected == got {
                    expected = format!("{expected} that says something else");
                }
                match self.diverged(state, &expected, &got).await {}
            }
        }
    }

    async fn tell_printed(&self, state: &mut State) {
        loop {
            let next = self.lines().next();
            let Some((level, message)) = next else { return };
            let now = self.time(state).await;
            let Some(dropped) = state.limit.admit(now) else { continue };
            self.tell_dropped(state, dropped).await;
            // A full or failed journal ends the job by other ways; a printed line is not worth a second one.
            let _ = self.tell(state, Event::Log { level, message }).await;
        }
    }

    /// Says how many lines are missing here.
    async fn tell_dropped(&self, state: &mut State, dropped: u64) {
        if dropped > 0 {
            let message = format!("{dropped} printed lines were dropped: the agent prints faster than it may");
            // As above.
            let _ = self.tell(state, Event::Log { level: Level::Warn, message }).await;
        }
    }

    async fn time(&self, state: &mut State) -> Timestamp {
        match self.ask(state).await {
            Look::Live => {
                let now = self.clock.now();
                if now > state.now {
                    state.now = now;
                    self.note(state, Saw::Time(now));
                }
            }
            Look::Same => {}
            Look::New(Saw::Time(at)) => state.now = at,
            Look::New(Saw::Cancel | Saw::Elapsed) => {
                match self.diverged(state, "another look", "a look at the clock").await {}
            }
        }
        state.now
    }

    /// Counts a question, and finds the answer it had if it was asked before.
    async fn ask(&self, state: &mut State) -> Look {
        state.asks += 1;
        let asks = state.asks;
        loop {
            match state.observed.front() {
                Some(Observation { ask, .. }) if *ask > asks => return Look::Same,
                Some(Observation { ask, .. }) if *ask == asks => {
                    let saw = state.observed.pop_front().map(|observation| observation.saw);
                    state.observed_ask = asks;
                    return saw.map_or(Look::Same, Look::New);
                }
                Some(_) => match self.diverged(state, "another look", "this one").await {},
                None => {}
            }
            match self.front(state).await {
                Some(Record::Observed(_)) => {
                    let next = state.script.as_mut().and_then(|script| script.page.pop_front());
                    if let Some(Record::Observed(observations)) = next {
                        state.observed = observations.into();
                    }
                }
                // Nothing new was seen before what follows.
                Some(_) => return Look::Same,
                None => {
                    self.go_live(state).await;
                    return Look::Live;
                }
            }
        }
    }

    fn note(&self, state: &mut State, saw: Saw) {
        state.observed_ask = state.asks;
        state.unwritten.push(Observation { ask: state.asks, saw });
        if state.unwritten.len() >= OBSERVATIONS_MAX {
            self.write_observations(state);
        }
    }

    fn write_observations(&self, state: &mut State) {
        if !state.unwritten.is_empty() {
            // A journal that takes no more ends the job, and whatever comes next meets the same error.
            let _ = self.journal.append(&Record::Observed(std::mem::take(&mut state.unwritten)));
        }
    }

    /// Takes the next record of the agent's own; there is none once the tape is live.
    async fn next(&self, state: &mut State) -> Option<Record> {
        if !state.observed.is_empty() {
            match self.diverged(state, "another look at the clock", "something else").await {}
        }
        if self.front(state).await.is_none() {
            self.go_live(state).await;
            return None;
        }
        state.script.as_mut().and_then(|script| script.page.pop_front())
    }

    /// Shows the next record of the agent's own.
    async fn front<'s>(&self, state: &'s mut State) -> Option<&'s Record> {
        loop {
            let script = state.script.as_mut()?;
            let taken = match script.page.front() {
                None => match script.read(&self.journal).await {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => match self.halt(Halt::Unreadable(error)).await {},
                },
                Some(
                    Record::Observed(_)
                    | Record::Intent(_)
                    | Record::Void { .. }
                    | Record::Called(_)
                    | Record::Begun(_)
                    | Record::Event { .. },
                ) => break,
                Some(_) => script.page.pop_front(),
            };
            match taken {
                Some(Record::Cancelling { .. }) => script.cancelling = true,
                Some(Record::Ended { end, .. }) => script.end = Some(end),
                // Not the agent's own: it comes in beside what the agent does.
                Some(Record::Part(Part { call, answer, .. })) => self.pending().push(call, News::Part(answer)),
                Some(Record::Concluded(concluded)) => self.pending().push(concluded.call, News::Over(concluded)),
                _ => {}
            }
        }
        state.script.as_ref().and_then(|script| script.page.front())
    }

    /// From here on the agent does what it had not done before.
    async fn go_live(&self, state: &mut State) {
        if let Some(script) = &state.script {
            match script.again {
                Again::Offline { .. } => match self.halt(Halt::End).await {},
                Again::Restart => {
                    if script.cancelling {
                        self.control.asked_to_cancel.store(true, Ordering::Relaxed);
                        self.control.cancel(self.clock.now());
                    }
                    // A journal that takes no more ends the job.
                    let _ = self.journal.append(&Record::Resumed { at: self.clock.now() });
                }
                Again::Wake => {}
            }
            state.script = None;
        }
        if !std::mem::replace(&mut state.live, true) {
            self.live.cancel();
        }
    }

    async fn diverged(&self, state: &State, expected: &str, got: &str) -> Infallible {
        let call = state.calls.max(1);
        self.halt(Halt::Diverged(format!("diverged at call {call}: expected {expected}, got {got}"))).await
    }

    /// Never gives the agent an answer again.
    async fn halt(&self, halt: Halt) -> Infallible {
        self.halt.send_modify(|known| {
            known.get_or_insert(halt);
        });
        pending().await
    }
}

impl Script {
    /// Reads on; `false` at the end.
    async fn read(&mut self, journal: &Journal) -> Result<bool, String> {
        let page = self.store.read(&self.stream, self.after, PAGE).await.map_err(|error| error.to_string())?;
        let Some(last) = page.last() else { return Ok(false) };
        self.after = last.position;
        for stored in &page {
            let record = Record::decode(&stored.bytes)
                .map_err(|error| format!("{} at {}: {error}", self.stream, stored.position))?;
            if self.again == Again::Restart {
                let answer = match &record {
                    Record::Called(Called { outcome: Outcome::Done { answer, .. }, .. })
                    | Record::Concluded(Concluded { outcome: Outcome::Done { answer, .. }, .. }) => answer.as_ref(),
                    Record::Part(part) => Some(&part.answer),
                    _ => None,
                };
                let elsewhere = match answer {
                    Some(Answer::Blob { size, .. }) => *size,
                    _ => 0,
                };
                // What an earlier host wrote counts too; should it be too much, the job ends by that.
                let _ = journal.count(stored, elsewhere);
            }
            self.page.push_back(record);
        }
        Ok(true)
    }
}

fn describe(record: &Record) -> String {
    match record {
        Record::Called(Called { operation, args, .. })
        | Record::Intent(Intent { operation, args, .. })
        | Record::Begun(Begun { operation, args, .. }) => quote(operation, args),
        Record::Event { event, .. } => describe_event(event),
        Record::Observed(_) => "another look at the clock".to_owned(),
        _ => "something of the host's own".to_owned(),
    }
}

fn describe_event(event: &Event) -> String {
    let kind = serde_json::to_value(event).ok().and_then(|event| Some(event["kind"].as_str()?.to_owned()));
    format!("the event `{}`", kind.unwrap_or_default())
}

fn quote(operation: &str, args: &Json) -> String {
    let text = format!("`{operation} {}`", args.as_str());
    match text.len() > QUOTED_BYTES_MAX {
        true => format!("{}…`", &text[..text.floor_char_boundary(QUOTED_BYTES_MAX)]),
        false => text,
    }
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape").field("live", &self.is_live()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::id::{JobId, Ulid};
    use tokio::time::timeout;

    use super::*;
    use crate::{
        clock::Hands,
        journal::{self, Bounds},
        store::memory::Memory,
    };

    const BOUNDS: Bounds = Bounds { total_bytes_max: 1 << 20, waiting_bytes_max: 1 << 16 };

    /// A job's journal, and a clock that stands still.
    struct Job {
        store: Arc<dyn Store>,
        job_id: JobId,
        clock: Clock,
        hands: Hands,
    }

    impl Job {
        fn new() -> Self {
            let (clock, hands) = Clock::manual(Timestamp::from_millis(1000));
            Self { store: Arc::new(Memory::default()), job_id: JobId::new(Ulid::from_parts(0, 1)), clock, hands }
        }

        async fn tape(&self, again: Option<Again>) -> (Tape, Arc<Control>) {
            let stream = journal::stream(self.job_id);
            let last = journal::newest(&*self.store, self.job_id).await.unwrap();
            let records = self.store.read(&stream, last, 10).await.unwrap();
            let last = records.last().map_or(Position::ZERO, |newest| newest.position);
            let journal = Journal::new(Arc::clone(&self.store), self.job_id, last, BOUNDS);
            let control = Arc::new(Control::default());
            let began = Timestamp::from_millis(0);
            let idle = Some(Duration::from_secs(30));
            let tape = Tape::blank(journal, self.clock.clone(), Arc::clone(&control), began, 2, idle);
            let tape = match again {
                Some(again) => tape.playing(again, Arc::clone(&self.store), stream),
                None => tape,
            };
            (tape, control)
        }

        /// What is written down, by its kind.
        async fn kinds(&self) -> Vec<String> {
            let stored = self.store.read(&journal::stream(self.job_id), Position::ZERO, 100).await.unwrap();
            let kind = |stored: &crate::store::Stored| {
                let record: serde_json::Value = serde_json::from_slice(&stored.bytes).unwrap();
                record["record"].as_str().unwrap().to_owned()
            };
            stored.iter().map(kind).collect()
        }
    }

    fn args() -> Json {
        Json::parse(r#"{"path":"/a"}"#.into()).unwrap()
    }

    fn status(phase: &str) -> Event {
        Event::Status { phase: phase.into(), message: None }
    }

    /// Looks at the clock, tells an event, makes a call, prints, looks again, and asks about its cancellation.
    async fn live(tape: &Tape, hands: &Hands) -> (Timestamp, Timestamp, bool, String) {
        let first = tape.now().await;
        tape.event(status("begun")).await.unwrap();
        let told = match tape.call("fs.read", &args()).await.unwrap() {
            Turn::Live(call) => {
                let outcome = Outcome::Done { summary: Json::default(), answer: None };
                let at = tape.clock.now();
                let called = Called { at, call, operation: "fs.read".into(), args: args(), outcome };
                tape.record(&Record::Called(called)).await.unwrap();
                "live"
            }
            Turn::Told(_) => "told",
            Turn::InFlight(_) => "in flight",
        };
        tape.print(Level::Info, b"a\nb\nc\n");
        hands.advance(Duration::from_secs(5));
        tape.wait_until(first.saturating_add(Duration::from_secs(5))).await;
        let second = tape.now().await;
        let cancelled = tape.cancel_requested().await;
        tape.event(status("ended")).await.unwrap();
        (first, second, cancelled, told.to_owned())
    }

    #[tokio::test]
    async fn a_second_run_is_told_what_the_first_was_and_writes_nothing_down_but_that_it_has_caught_up() {
        let job = Job::new();
        let (tape, control) = job.tape(None).await;
        control.cancel(Timestamp::from_millis(1));
        let seen = live(&tape, &job.hands).await;
        tape.finish().await;
        tape.journal.flushed().await.unwrap();
        assert!(seen.2 && seen.1 > seen.0);
        let kinds = job.kinds().await;
        // Two lines of three: more may not be printed in a second.
        assert_eq!(kinds.iter().filter(|kind| *kind == "event").count(), 5, "{kinds:?}");
        job.hands.advance(Duration::from_secs(1000));
        let (again, control) = job.tape(Some(Again::Restart)).await;
        let same = live(&again, &job.hands).await;
        assert_eq!((same.0, same.1, same.2, same.3.as_str()), (seen.0, seen.1, seen.2, "told"));
        again.finish().await;
        again.journal.flushed().await.unwrap();
        assert_eq!(job.kinds().await, [kinds, vec!["resumed".into()]].concat());
        // The client's wish stands in a record of its own, which this journal has not.
        assert!(!control.cancel.is_cancelled() && again.is_live());
    }

    #[tokio::test]
    async fn what_an_agent_saw_last_is_part_of_its_journal_too() {
        let job = Job::new();
        let (tape, _) = job.tape(None).await;
        tape.event(status("begun")).await.unwrap();
        job.hands.advance(Duration::from_secs(3));
        let seen = tape.now().await;
        tape.finish().await;
        tape.journal.flushed().await.unwrap();
        assert_eq!(job.kinds().await, ["event", "observed"]);
        job.hands.advance(Duration::from_secs(1000));
        let (again, _) = job.tape(Some(Again::Restart)).await;
        again.event(status("begun")).await.unwrap();
        assert_eq!(again.now().await, seen);
        again.finish().await;
        assert!(again.is_live());
    }

    #[tokio::test]
    async fn what_the_agent_does_next_is_new_once_its_journal_is_at_an_end() {
        let job = Job::new();
        let (tape, _) = job.tape(None).await;
        tape.event(status("begun")).await.unwrap();
        tape.journal.append(&Record::Cancelling { at: Timestamp::from_millis(0), reason: None }).unwrap();
        tape.journal.flushed().await.unwrap();
        let (again, control) = job.tape(Some(Again::Restart)).await;
        again.event(status("begun")).await.unwrap();
        assert!(!again.is_live() && !control.cancel.is_cancelled());
        again.event(status("more")).await.unwrap();
        assert!(again.is_live() && control.cancel.is_cancelled());
        again.journal.flushed().await.unwrap();
        assert_eq!(job.kinds().await, ["event", "cancelling", "resumed", "event"]);
    }

    #[tokio::test]
    async fn an_agent_that_does_something_else_gets_no_answer_and_it_is_said_where() {
        type Deed = fn(Arc<Tape>) -> futures_util::future::BoxFuture<'static, ()>;
        let job = Job::new();
        let (tape, _) = job.tape(None).await;
        tape.now().await;
        live(&tape, &job.hands).await;
        tape.journal.flushed().await.unwrap();
        let table: [(Deed, &str); 5] = [
            (
                |tape| Box::pin(async move { drop(tape.event(status("begun")).await) }),
                "diverged at call 1: expected another look at the clock, got the event `status`",
            ),
            (
                |tape| {
                    Box::pin(async move {
                        tape.now().await;
                        drop(tape.event(status("other")).await);
                    })
                },
                "diverged at call 1: expected the event `status` that says something else, got the event `status`",
            ),
            (
                |tape| {
                    Box::pin(async move {
                        tape.now().await;
                        drop(tape.event(status("begun")).await);
                        drop(tape.call("fs.write", &args()).await);
                    })
                },
                r#"diverged at call 1: expected `fs.read {"path":"/a"}`, got `fs.write {"path":"/a"}`"#,
            ),
            (
                |tape| {
                    Box::pin(async move {
                        tape.now().await;
                        drop(tape.event(status("begun")).await);
                        drop(tape.event(status("more")).await);
                    })
                },
                r#"diverged at call 1: expected `fs.read {"path":"/a"}`, got the event `status`"#,
            ),
            (
                |tape| {
                    Box::pin(async move {
                        tape.now().await;
                        tape.finish().await;
                    })
                },
                "diverged at call 1: expected the event `status`, got its return",
            ),
        ];
        for (deed, expected) in table {
            let (again, _) = job.tape(Some(Again::Restart)).await;
            let again = Arc::new(again);
            tokio::select! {
                () = deed(Arc::clone(&again)) => panic!("it got an answer, and not: {expected}"),
                halt = again.halted() => assert_eq!(halt, Halt::Diverged(expected.to_owned())),
            }
        }
    }

    #[tokio::test]
    async fn a_call_that_was_cut_off_is_found_so_unless_it_was_settled() {
        let at = Timestamp::from_millis(0);
        let intent = || Intent { at, call: 1, operation: "fs.write".into(), args: args(), before: None };
        let called = || {
            let outcome = Outcome::Done { summary: Json::default(), answer: None };
            Record::Called(Called { at, call: 1, operation: "fs.write".into(), args: args(), outcome })
        };
        for (rest, expected) in [
            (vec![], "in flight"),
            (vec![Record::Started { at }], "in flight"),
            (vec![called()], "told"),
            (vec![Record::Started { at }, called()], "told"),
            (vec![Record::Void { at, call: 1 }], "live"),
            (vec![Record::Void { at, call: 1 }, Record::Intent(intent()), called()], "told"),
            (vec![Record::Void { at, call: 1 }, Record::Intent(intent())], "in flight"),
        ] {
            let job = Job::new();
            let (tape, _) = job.tape(None).await;
            for record in [vec![Record::Intent(intent())], rest.clone()].concat() {
                tape.journal.append(&record).unwrap();
            }
            tape.journal.flushed().await.unwrap();
            let (again, _) = job.tape(Some(Again::Restart)).await;
            let turn = match again.call("fs.write", &args()).await.unwrap() {
                Turn::Live(1) => "live",
                Turn::Told(_) => "told",
                Turn::InFlight(found) if found == intent() => "in flight",
                other => panic!("{other:?}"),
            };
            assert_eq!(turn, expected, "{rest:?}");
        }
    }

    #[tokio::test]
    async fn an_offline_replay_ends_where_its_journal_does_or_where_it_was_told_to() {
        let job = Job::new();
        let (tape, _) = job.tape(None).await;
        for call in 1..=3 {
            let Turn::Live(number) = tape.call("fs.read", &args()).await.unwrap() else { panic!("it is new") };
            assert_eq!(number, call);
            let outcome = Outcome::Done { summary: Json::default(), answer: None };
            let at = Timestamp::from_millis(0);
            let called = Called { at, call, operation: "fs.read".into(), args: args(), outcome };
            tape.record(&Record::Called(called)).await.unwrap();
        }
        tape.journal.flushed().await.unwrap();
        for (until, calls) in [(None, 3), (Some(2), 2), (Some(9), 3)] {
            let (again, _) = job.tape(Some(Again::Offline { until })).await;
            let run = async {
                loop {
                    let turn = again.call("fs.read", &args()).await.unwrap();
                    assert!(matches!(turn, Turn::Told(_)), "nothing takes effect");
                }
            };
            let halt = tokio::select! {
                halt = again.halted() => halt,
                () = run => unreachable!("it goes on for ever"),
            };
            assert_eq!(halt, Halt::End, "{until:?}");
            assert_eq!(again.played().await.calls.min(calls), calls, "{until:?}");
        }
        assert_eq!(job.kinds().await, ["called"; 3]);
    }

    #[tokio::test]
    async fn an_agent_that_waits_for_long_leaves_memory_and_waits_only_for_what_is_left() {
        let job = Job::new();
        let (tape, _) = job.tape(None).await;
        let until = tape.now().await.saturating_add(Duration::from_secs(100));
        let waiting = async {
            tape.wait_until(until).await;
            "waited"
        };
        let halted = async {
            tokio::task::yield_now().await;
            job.hands.advance(Duration::from_secs(30));
            tape.halted().await;
            "halted"
        };
        let first = tokio::select! { ended = waiting => ended, ended = halted => ended };
        assert_eq!(first, "halted");
        tape.journal.flushed().await.unwrap();
        assert_eq!(job.kinds().await, ["observed"], "since when it waits is written down");
        job.hands.advance(Duration::from_secs(50));
        let (again, _) = job.tape(Some(Again::Wake)).await;
        assert_eq!(again.now().await.saturating_add(Duration::from_secs(100)), until);
        let mut rest = std::pin::pin!(again.wait_until(until));
        assert!(timeout(Duration::ZERO, &mut rest).await.is_err());
        job.hands.advance(Duration::from_secs(20));
        rest.await;
    }
}
