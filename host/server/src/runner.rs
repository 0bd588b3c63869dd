//! One job's life, from its start to its one end.
//!
//! A job may be run more than once: by the next host if this one is stopped, and by this one if the agent waits for so
//! long that it is taken out of memory meanwhile. It is one life all the same, since each run begins by doing what the
//! journal says the last one did ([`crate::tape`]).

use std::{
    convert::Infallible,
    future::{pending, ready},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use leasehold_core::{
    error::{ErrorCode, Refusal},
    job::{
        chunks::Chunks,
        record::{Accepted, End, Record, Spent},
    },
    lease::amount::{Budget, Decimal, exact_sub},
    protocol::{json::Json, status::Status},
    time::Timestamp,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use wasmtime::Store;

use crate::{
    agents::registry::Agent,
    capability::{JobCtx, World, bindings::types::Error, shown, truncate},
    credentials::keeper::Keeper,
    journal::{self, Journal, JournalError},
    sandbox::{
        engine::Sandbox,
        instance::{self, Ran},
        limits::Limits,
        pace::Credit,
    },
    tape::{Again, Control, Halt, Played, Tape},
};

/// The most of an agent's own error message that is passed on.
const MESSAGE_BYTES_MAX: usize = 4096;

/// How much of a result that the host streams is cut into chunks at a time.
const PART_BYTES: usize = 1 << 20;

/// The longest summary of a streamed result.
const SUMMARY_BYTES_MAX: usize = 4096;

/// Everything one run needs.
pub struct Run {
    /// What all jobs share.
    pub world: Arc<World>,
    /// The engine.
    pub sandbox: Arc<Sandbox>,
    /// The agent as it was resolved, or will be once it is compiled.
    pub agent: Coming,
    /// The job.
    pub accepted: Arc<Accepted>,
    /// What its agent may use: the limits of the host that accepted it.
    pub limits: Arc<Limits>,
    /// Its journal, which holds the acceptance.
    pub journal: Arc<Journal>,
    /// How to reach the agent.
    pub control: Arc<Control>,
    /// Whether an earlier host has begun it.
    pub interrupted: bool,
    /// Where agents wait for their turn to run.
    pub turns: Turns,
    /// Who makes keys for jobs, if anybody does (ARCP §9.8).
    pub keeper: Option<Arc<Keeper>>,
}

/// An agent, or why there is none.
pub type Coming = Shared<BoxFuture<'static, Result<Arc<Agent>, String>>>;

/// An agent that is there.
pub fn present(agent: Arc<Agent>) -> Coming {
    ready(Ok(agent)).boxed().shared()
}

/// Who may run, and who may catch up.
#[derive(Clone)]
pub struct Turns {
    /// One permit an agent in memory: the machine holds so many and no more.
    pub slots: Arc<Semaphore>,
    /// One permit an agent that is run from its beginning: all that were interrupted would else come at once.
    pub replays: Arc<Semaphore>,
}

/// The moments at which a job ends, if its agent has not ended it by then.
#[derive(Clone, Copy)]
struct Ends {
    /// It has run for too long.
    deadline: Timestamp,
    /// Its lease has ended, and then its grace time (ARCP §9.5).
    lease_end: Option<Timestamp>,
}

impl Turns {
    /// Turns for at most `live_agents` agents in memory.
    #[must_use]
    pub fn new(live_agents: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { slots: semaphore(live_agents), replays: semaphore(processors * REPLAYS_PER_PROCESSOR) }
    }
}

/// What came of running a finished job once more.
#[derive(Debug)]
pub struct Replayed {
    /// How many calls it made.
    pub calls: u64,
    /// How many events it told.
    pub events: u64,
    /// What it came to, or why it got no further.
    pub ended: Result<End, Halt>,
    /// What its journal says it came to, if it was read that far.
    pub recorded: Option<End>,
}

/// How one run of an agent came out.
enum Outcome {
    /// It is the end of the job.
    End(End),
    /// The agent is to be run again, not before that moment; it has been taken up, or has still to be.
    Again(Timestamp, Again),
}

/// How many agents catch up at once, for each processor. They compute, and wait for little.
const REPLAYS_PER_PROCESSOR: usize = 4;

/// How long one agent that catches up keeps others from doing so.
const CATCHING_UP_MAX: Duration = Duration::from_millis(250);

/// How long a run waits that found no memory or could not read its journal.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a journal may be unreadable in a row before its job is given up.
const UNREADABLE_MAX: u32 = 5;

/// What ended the wait for an agent.
enum Stop {
    /// It ended by itself, in this way.
    Ran(End),
    /// The client's cancellation went unheeded for the grace time (ARCP §7.4).
    Cancelled,
    /// It ran longer than it may.
    TimedOut,
    /// Its lease ended, and then its grace time (ARCP §9.5).
    LeaseExpired,
    /// Its journal takes no more.
    Journal(JournalError),
    /// It gets no further on its tape.
    Halted(Halt),
}

impl Run {
    /// Runs the job, at first in `slot` if it has one, and writes its end. Says how it ended.
    pub async fn run(self, mut slot: Option<OwnedSemaphorePermit>) -> Status {
        // What a job spent that an earlier host ran is known once it has caught up.
        let mut spent = (!self.interrupted).then(Spent::default);
        let end = self.live(&mut slot, &mut spent).await;
        let status = end.status();
        self.journal.catch_up().await;
        // No key is worth anything once the end can be read.
        if let Some(keeper) = &self.keeper {
            give_back(&mut spent, &keeper.close(self.accepted.job_id).await);
        }
        let ended = Record::Ended { at: self.world.clock.now(), end, spent };
        let written = match self.journal.append(&ended) {
            Ok(mark) => {
                // Before anyone is told: a client that submits one job after another needs one place, not two.
                drop(slot);
                self.journal.durable(mark).await
            }
            // The slot is held until the end is stored, so that a store that stays broken bounds how many wait for it.
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => status,
            Err(error) => self.end_late(&error).await,
        }
    }

    /// Runs the agent until it is done, once or more often.
    async fn live(&self, slot: &mut Option<OwnedSemaphorePermit>, spent: &mut Option<Spent>) -> End {
        let ends = self.ends();
        let mut again = self.interrupted.then_some(Again::Restart);
        let coming = tokio::select! {
            biased;
            coming = self.agent.clone() => coming,
            end = self.ended(ends) => return end,
        };
        let agent = match coming {
            Ok(agent) => agent,
            Err(why) => {
                tracing::error!(job_id = %self.accepted.job_id, why, "a job cannot go on");
                return failed(Status::Error, ErrorCode::InternalError, &why);
            }
        };
        let (mut begun, mut unreadable) = (false, 0);
        loop {
            // Nothing that ends a job waits for its turn.
            let place = tokio::select! {
                biased;
                place = self.turn(slot, again) => place,
                end = self.ended(ends) => return end,
            };
            if !std::mem::replace(&mut begun, true)
                && let Err(error) = self.journal.append(&Record::Started { at: self.world.clock.now() })
            {
                return journal_end(&error);
            }
            match self.race(&agent, ends, again, place, &mut unreadable, spent).await {
                Outcome::End(end) => return end,
                Outcome::Again(at, next) => {
                    again = Some(next);
                    // Out of memory, and out of the way of others.
                    slot.take();
                    if let Err(error) = self.journal.flushed().await {
                        return journal_end(&error);
                    }
                    tokio::select! {
                        () = self.world.clock.sleep_until(at) => {}
                        // An agent that may unwind is woken for it.
                        () = self.control.cancel.cancelled() => {}
                        () = self.until(self.accepted.authority.expires_at) => {}
                        end = self.ended(ends) => return end,
                    }
                }
            }
        }
    }

    /// Waits until the agent may be in memory and, if it has to catch up, until it may do that.
    async fn turn(
        &self,
        slot: &mut Option<OwnedSemaphorePermit>,
        again: Option<Again>,
    ) -> Option<OwnedSemaphorePermit> {
        if slot.is_none() {
            let turn = Arc::clone(&self.turns.slots).acquire_owned().await;
            *slot = Some(turn.expect("the semaphore is never closed"));
        }
        again?;
        Some(Arc::clone(&self.turns.replays).acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// Returns the end of a job whose agent is not in memory, when something ends it.
    async fn ended(&self, ends: Ends) -> End {
        let stop = tokio::select! {
            () = self.after_cancel() => Stop::Cancelled,
            () = self.world.clock.sleep_until(ends.deadline) => Stop::TimedOut,
            () = self.until(ends.lease_end) => Stop::LeaseExpired,
            error = self.journal.failed() => Stop::Journal(error),
        };
        self.end(stop)
    }

    /// Ends a job whose journal failed: its clients wait for an end, and so may a later submission with its key.
    async fn end_late(&self, error: &JournalError) -> Status {
        tracing::error!(job_id = %self.accepted.job_id, %error, "the end of a job could not be stored; trying again");
        // What waited for the store is lost, so the job has failed whatever its agent returned.
        let ended = Record::Ended { at: self.world.clock.now(), end: journal_end(error), spent: None };
        let accepted = Record::Accepted(Box::new(Accepted::clone(&self.accepted)));
        self.journal.end_late(&accepted, &ended, &self.world.clock).await;
        Status::Error
    }

    /// When the job is ended whatever it does.
    fn ends(&self) -> Ends {
        let limits = &self.world.limits;
        let asked = self.accepted.max_runtime_sec.map_or(limits.runtime_sec_default, std::num::NonZeroU32::get);
        // As long as its client asked, within what the operator allows, and from acceptance whatever came between.
        let seconds = asked.min(limits.runtime_sec_max);
        let deadline = self.accepted.at.saturating_add(Duration::from_secs(seconds.into()));
        // A host that was down when the lease ended still leaves the agent its time to unwind.
        let now = self.world.clock.now();
        let lease_end = self.accepted.authority.expires_at.map(|at| at.max(now).saturating_add(limits.grace()));
        Ends { deadline, lease_end }
    }

    /// Races the agent against everything that may end it first.
    async fn race(
        &self,
        code: &Arc<Agent>,
        ends: Ends,
        again: Option<Again>,
        place: Option<OwnedSemaphorePermit>,
        unreadable: &mut u32,
        spent: &mut Option<Spent>,
    ) -> Outcome {
        let (tape, agent) = self.stage(again);
        let stop = tokio::select! {
            biased;
            end = self.perform(code, &agent, &tape) => Stop::Ran(end),
            halt = tape.halted() => Stop::Halted(halt),
            never = holding(place, &tape) => match never {},
            () = self.after_cancel() => Stop::Cancelled,
            () = self.world.clock.sleep_until(ends.deadline) => Stop::TimedOut,
            () = self.until(ends.lease_end) => Stop::LeaseExpired,
            error = self.journal.failed() => Stop::Journal(error),
        };
        // Once it computes nowhere any more.
        let mut store = agent.lock().await;
        // Before another run of it begins, or the job ends: what it had under way has begun what it will have begun.
        store.data_mut().stop_calls().await;
        let now = self.world.clock.now();
        let next = again.filter(|_| !tape.is_live()).unwrap_or(Again::Wake);
        match &stop {
            Stop::Halted(Halt::Idle(until)) => {
                *spent = Some(store.data_mut().spent());
                return Outcome::Again(*until, next);
            }
            Stop::Halted(Halt::Unreadable(error)) => {
                *unreadable += 1;
                tracing::error!(job_id = %self.accepted.job_id, error, "the journal of a job cannot be read");
                if *unreadable < UNREADABLE_MAX {
                    return Outcome::Again(now.saturating_add(PAUSE), next);
                }
            }
            // What others take may be free later, and nothing of this run has been seen.
            Stop::Ran(End::Failed { .. }) if !tape.is_live() && store.data_mut().memory().host_full() => {
                return Outcome::Again(now.saturating_add(PAUSE), next);
            }
            _ => {}
        }
        self.control.over.store(true, Ordering::Relaxed);
        store.data_mut().abandon().await;
        // What was printed last, and what the journal knows of a cancellation, come before the end.
        let stop = match stop {
            Stop::Ran(end) => tokio::select! {
                biased;
                () = tape.finish() => Stop::Ran(end),
                halt = tape.halted() => Stop::Halted(halt),
            },
            stop => stop,
        };
        store.data_mut().end_calls();
        if tape.is_live() {
            *spent = Some(store.data_mut().spent());
        }
        let end = self.end(stop);
        // An agent may not notice that its journal has ended, and what it returns then is only a part of what it did.
        Outcome::End(self.journal.fault().map_or(end, |error| journal_end(&error)))
    }

    /// Runs a finished job once more, without any effect, to see whether it does the same again.
    ///
    /// One that computes for longer than `patience` after its last call is left at that: its host may have ended it there.
    pub async fn replay(self, until: Option<u64>, patience: Duration) -> Replayed {
        let (tape, agent) = self.stage(Some(Again::Offline { until }));
        let ended = tokio::select! {
            biased;
            ended = async {
                let end = match self.agent.clone().await {
                    Ok(code) => self.perform(&code, &agent, &tape).await,
                    Err(why) => failed(Status::Error, ErrorCode::InternalError, &why),
                };
                tape.finish().await;
                Ok(end)
            } => ended,
            halt = tape.halted() => Err(halt),
            () = tokio::time::sleep(patience) => Err(Halt::End),
        };
        let Played { calls, events, end } = tape.played().await;
        Replayed { calls, events, ended, recorded: end }
    }

    /// Puts an agent and its tape together. Whoever runs the agent has its Store to itself meanwhile.
    fn stage(&self, again: Option<Again>) -> (Arc<Tape>, Arc<Mutex<Store<JobCtx>>>) {
        let tape = Arc::new(self.tape(again));
        let context = JobCtx::new(
            Arc::clone(&self.world),
            Arc::clone(&self.accepted),
            Arc::clone(&self.limits),
            Arc::clone(&self.control),
            Arc::clone(&self.journal),
            Arc::clone(&tape),
        );
        let store = instance::store(&self.sandbox, &self.limits, context);
        (tape, Arc::new(Mutex::new(store)))
    }

    /// Runs the agent and says what its job comes to, if nothing else ends it.
    async fn perform(&self, code: &Arc<Agent>, agent: &Arc<Mutex<Store<JobCtx>>>, tape: &Tape) -> End {
        let (store, code, accepted) = (Arc::clone(agent), Arc::clone(code), Arc::clone(&self.accepted));
        // An agent has as much credit as it likes if each of its children has some.
        let credit = if accepted.parent.is_some() { Credit::none() } else { Credit::full() };
        let ran = self.sandbox.lane().pace(credit, async move {
            instance::run(&mut *store.lock_owned().await, &code.pre, accepted.input.as_str()).await
        });
        match ran.await {
            Ran::Crashed(why) => failed(Status::Error, ErrorCode::InternalError, &why),
            Ran::Returned(Err(error)) => agent_error(&error),
            Ran::Returned(Ok(text)) => self.success(text, agent.lock().await.data_mut().chunks(), tape).await,
        }
    }

    fn tape(&self, again: Option<Again>) -> Tape {
        let idle = Some(self.world.limits.idle_sec).filter(|seconds| *seconds > 0);
        let tape = Tape::blank(
            Arc::clone(&self.journal),
            self.world.clock.clone(),
            Arc::clone(&self.control),
            self.accepted.at,
            self.limits.output_lines_per_sec,
            idle.map(|seconds| Duration::from_secs(seconds.into())),
        );
        match again {
            None => tape,
            Some(again) => tape.playing(again, Arc::clone(&self.world.store), journal::stream(self.accepted.job_id)),
        }
    }

    /// Returns once the job was cancelled and the agent has had its time to unwind (ARCP §7.4).
    async fn after_cancel(&self) {
        self.control.cancel.cancelled().await;
        let at = self.control.cancelled_at.get().copied().unwrap_or_else(|| self.world.clock.now());
        self.world.clock.sleep_until(at.saturating_add(self.world.limits.grace())).await;
    }

    async fn until(&self, moment: Option<Timestamp>) {
        match moment {
            Some(at) => self.world.clock.sleep_until(at).await,
            None => pending().await,
        }
    }

    /// Decides the one end of the job.
    ///
    /// A cancellation that was acknowledged is how the job ends, whatever its
    /// agent returned meanwhile; so is a lease that ended under an agent that
    /// went on trying.
    fn end(&self, stop: Stop) -> End {
        match stop {
            Stop::Journal(error) => return journal_end(&error),
            Stop::Halted(Halt::Diverged(how)) => {
                let message = format!("the agent took another path than its journal; {how}");
                return failed(Status::Error, ErrorCode::InternalError, &message);
            }
            Stop::Halted(Halt::Unreadable(_)) => {
                let message = "the journal of the job cannot be read, so it cannot go on; see the host's log";
                return failed(Status::Error, ErrorCode::InternalError, message);
            }
            _ => {}
        }
        if self.control.cancel.is_cancelled() {
            return failed(Status::Cancelled, ErrorCode::Cancelled, "the job was cancelled by its client");
        }
        match stop {
            Stop::TimedOut => {
                failed(Status::TimedOut, ErrorCode::Timeout, "the job ran longer than its `max_runtime_sec` allows")
            }
            Stop::LeaseExpired => self.expired(),
            Stop::Ran(_) if self.control.met_expiry.load(Ordering::Relaxed) => self.expired(),
            Stop::Ran(end) => end,
            Stop::Cancelled | Stop::Journal(_) | Stop::Halted(_) => unreachable!("decided above"),
        }
    }

    fn expired(&self) -> End {
        let at = self.accepted.authority.expires_at.map_or_else(String::new, |at| format!(" at {at}"));
        tracing::info!(job_id = %self.accepted.job_id, "the lease of a job expired{at} and ended it");
        failed(Status::Error, ErrorCode::LeaseExpired, &format!("the lease of the job expired{at}"))
    }

    async fn success(&self, text: String, chunks: &mut Chunks, tape: &Tape) -> End {
        let result = match Json::parse(text) {
            Ok(result) => result,
            Err(error) => {
                let message = format!("the agent returned something that is no JSON text: {error}");
                return failed(Status::Error, ErrorCode::InternalError, &message);
            }
        };
        if !chunks.begun() {
            return match result.as_str().len() <= self.limits.result_bytes_max {
                true => End::Result(result),
                false => self.in_chunks(&result, chunks, tape).await,
            };
        }
        // ARCP §8.4: "Implementations MUST NOT mix inline result and `result_chunk`".
        let summary = match serde_json::from_str::<Option<String>>(result.as_str()) {
            Ok(summary) => summary.map(|summary| truncate(&summary, SUMMARY_BYTES_MAX).into_owned()),
            Err(_) => {
                let message = "the agent streamed its result and returned another one; \
                               after `output` it may only return null or a summary string";
                return failed(Status::Error, ErrorCode::InternalError, message);
            }
        };
        if !chunks.finished()
            && let Ok(last) = chunks.finish()
            && let Err(error) = tape.event(last).await
        {
            return journal_end(&error);
        }
        End::Streamed { result_id: chunks.result_id(), size: chunks.size(), summary }
    }

    /// Streams a result that no message has room for, as its agent could have (ARCP §8.4).
    ///
    /// It is told here and not where a session sends it: a stream is numbered like everything else that is in the
    /// journal, and a client that takes no chunks learns that there were some.
    async fn in_chunks(&self, result: &Json, chunks: &mut Chunks, tape: &Tape) -> End {
        // A text is streamed as itself, and anything else as the JSON it is.
        let text = serde_json::from_str::<String>(result.as_str());
        let (text, what) = match &text {
            Ok(text) => (text.as_str(), "text"),
            Err(_) => (result.as_str(), "JSON"),
        };
        let max = self.limits.stream_bytes_max;
        if text.len() as u64 > max {
            let message = format!("the agent returned {} bytes; a result has at most {max}, streamed", text.len());
            return failed(Status::Error, ErrorCode::InternalError, &message);
        }
        let mut rest = text;
        while !rest.is_empty() {
            // A part at a time, as the journal takes it.
            let (part, after) = rest.split_at(rest.floor_char_boundary(PART_BYTES));
            rest = after;
            for event in chunks.write_text(part).expect("the size was checked, and nothing else was written") {
                if let Err(error) = tape.event(event).await {
                    return journal_end(&error);
                }
            }
        }
        let last = chunks.finish().expect("nothing else finishes it");
        if let Err(error) = tape.event(last).await {
            return journal_end(&error);
        }
        let summary = format!("{what} of {} bytes, which is too large for one message", text.len());
        End::Streamed { result_id: chunks.result_id(), size: chunks.size(), summary: Some(summary) }
    }
}

/// Takes what keys have not spent out of what their job has; a job gives them their part as it begins.
fn give_back(spent: &mut Option<Spent>, left: &Budget) {
    for (currency, sum) in spent.iter_mut().flat_map(|spent| &mut spent.0) {
        let left = left.get(currency).copied().unwrap_or_default();
        // What cannot be counted exactly stays spent.
        *sum = exact_sub(*sum, left).filter(|sum| *sum >= Decimal::ZERO).unwrap_or(*sum);
    }
}

/// Keeps an agent's place among those that catch up until it has, or for as long as that ought to take: it may compute
/// for hours before it does anything that shows that it has.
async fn holding(place: Option<OwnedSemaphorePermit>, tape: &Tape) -> Infallible {
    if let Some(place) = place {
        tokio::select! {
            () = tape.caught_up() => {}
            () = tokio::time::sleep(CATCHING_UP_MAX) => {}
        }
        drop(place);
    }
    pending().await
}

/// The end of an agent that returned an error of its own.
fn agent_error(error: &Error) -> End {
    let code = shown(error.code);
    let message = match truncate(&error.message, MESSAGE_BYTES_MAX) {
        text if text.is_empty() => "the agent gave no reason".into(),
        text => text,
    };
    // Only the client cancels (§7.4); an agent that says so of itself has failed.
    let code = if code == ErrorCode::Cancelled { ErrorCode::InternalError } else { code };
    failed(Status::Error, code, &message)
}

fn journal_end(error: &JournalError) -> End {
    failed(Status::Error, ErrorCode::InternalError, &error.to_string())
}

fn failed(status: Status, code: ErrorCode, message: &str) -> End {
    End::Failed { status, refusal: Refusal::new(code, message) }
}
