//! One job's life, from its start to its one end.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
};

use leasehold_core::{
    error::{ErrorCode, Refusal},
    job::record::{Accepted, End, Record},
    protocol::{event::Event, json::Json, status::Status},
    time::Timestamp,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    agents::registry::Agent,
    capability::{Control, JobCtx, World, bindings::types::Error, shown, truncate},
    clock,
    journal::{Journal, JournalError},
    sandbox::{
        engine::Sandbox,
        instance::{self, Ran},
    },
};

/// The most of an agent's own error message that is passed on.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The longest summary of a streamed result.
const SUMMARY_BYTES_MAX: usize = 4096;

/// Everything one run needs.
pub struct Run {
    /// What all jobs share.
    pub world: Arc<World>,
    /// The engine.
    pub sandbox: Arc<Sandbox>,
    /// The agent as it was resolved.
    pub agent: Arc<Agent>,
    /// The job.
    pub accepted: Arc<Accepted>,
    /// Its journal, which holds the acceptance.
    pub journal: Arc<Journal>,
    /// How to reach the agent.
    pub control: Arc<Control>,
}

/// What ended the wait for an agent.
enum Stop {
    /// It ended by itself.
    Ran(Ran),
    /// The client's cancellation went unheeded for the grace time (ARCP §7.4).
    Cancelled,
    /// It ran longer than it may.
    TimedOut,
    /// Its lease ended, and then its grace time (ARCP §9.5).
    LeaseExpired,
    /// Its journal takes no more.
    Journal(JournalError),
}

impl Run {
    /// Runs the job in `slot` and writes its end. Says how it ended.
    pub async fn run(self, slot: OwnedSemaphorePermit) -> Status {
        let deadline = self.deadline();
        let started = Record::Started { at: self.world.clock.now() };
        let end = match self.journal.append(&started) {
            Ok(_) => self.race(deadline).await,
            Err(error) => journal_end(&error),
        };
        let status = end.status();
        let ended = Record::Ended { at: self.world.clock.now(), end };
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

    /// Ends a job whose journal failed: its clients wait for an end, and so may a later submission with its key.
    async fn end_late(&self, error: &JournalError) -> Status {
        tracing::error!(job_id = %self.accepted.job_id, %error, "the end of a job could not be stored; trying again");
        // What waited for the store is lost, so the job has failed whatever its agent returned.
        let ended = Record::Ended { at: self.world.clock.now(), end: journal_end(error) };
        let accepted = Record::Accepted(Box::new(Accepted::clone(&self.accepted)));
        self.journal.end_late(&accepted, &ended, &self.world.clock).await;
        Status::Error
    }

    /// When the job has run for too long: as long as its client asked, within what the operator allows.
    fn deadline(&self) -> Timestamp {
        let limits = &self.world.limits;
        let asked = self.accepted.max_runtime_sec.map_or(limits.runtime_sec_default, std::num::NonZeroU32::get);
        let seconds = asked.min(limits.runtime_sec_max);
        self.accepted.at.saturating_add(std::time::Duration::from_secs(seconds.into()))
    }

    /// Races the agent against everything that may end it first.
    async fn race(&self, deadline: Timestamp) -> End {
        let result = clock::fresh(self.world.clock.now());
        let context = JobCtx::new(
            Arc::clone(&self.world),
            Arc::clone(&self.accepted),
            Arc::clone(&self.control),
            Arc::clone(&self.journal),
            result,
        );
        let mut store = instance::store(&self.sandbox, &self.world.limits, context);
        let stop = tokio::select! {
            biased;
            ran = instance::run(&mut store, &self.agent.pre, self.accepted.input.as_str()) => Stop::Ran(ran),
            () = self.after_grace(self.control.cancel.cancelled()) => Stop::Cancelled,
            () = self.world.clock.sleep_until(deadline) => Stop::TimedOut,
            () = self.lease_end() => Stop::LeaseExpired,
            error = self.journal.failed() => Stop::Journal(error),
        };
        self.control.over.store(true, Ordering::Relaxed);
        store.data_mut().abandon();
        let end = self.end(stop, store.data_mut());
        // The agent's last printed line is written when its context goes, and belongs before the end.
        drop(store);
        // An agent may not notice that its journal has ended, and what it returns then is only a part of what it did.
        self.journal.fault().map_or(end, |error| journal_end(&error))
    }

    /// Returns once `cause` has come and the agent has had its time to unwind.
    async fn after_grace(&self, cause: impl Future<Output = ()>) {
        cause.await;
        let until = self.world.clock.now().saturating_add(self.world.limits.grace());
        self.world.clock.sleep_until(until).await;
    }

    async fn lease_end(&self) {
        let Some(at) = self.accepted.authority.expires_at else { return std::future::pending().await };
        self.after_grace(self.world.clock.sleep_until(at)).await;
    }

    /// Decides the one end of the job.
    ///
    /// A cancellation that was acknowledged is how the job ends, whatever its
    /// agent returned meanwhile; so is a lease that ended under an agent that
    /// went on trying.
    fn end(&self, stop: Stop, context: &mut JobCtx) -> End {
        if let Stop::Journal(error) = stop {
            return journal_end(&error);
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
            Stop::Ran(Ran::Crashed(why)) => failed(Status::Error, ErrorCode::InternalError, &why),
            Stop::Ran(Ran::Returned(Err(error))) => agent_error(&error),
            Stop::Ran(Ran::Returned(Ok(text))) => self.success(text, context),
            Stop::Cancelled | Stop::Journal(_) => unreachable!("both were decided above"),
        }
    }

    fn expired(&self) -> End {
        let at = self.accepted.authority.expires_at.map_or_else(String::new, |at| format!(" at {at}"));
        failed(Status::Error, ErrorCode::LeaseExpired, &format!("the lease of the job expired{at}"))
    }

    fn success(&self, text: String, context: &mut JobCtx) -> End {
        let max = self.world.limits.result_bytes_max;
        if text.len() > max {
            let message = format!(
                "the agent returned {} bytes; a result in one message has at most {max}: stream it with `output`",
                text.len()
            );
            return failed(Status::Error, ErrorCode::InternalError, &message);
        }
        let result = match Json::parse(text) {
            Ok(result) => result,
            Err(error) => {
                let message = format!("the agent returned something that is no JSON text: {error}");
                return failed(Status::Error, ErrorCode::InternalError, &message);
            }
        };
        let chunks = context.chunks();
        if !chunks.begun() {
            return End::Result(result);
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
        {
            let closed = self.close_stream(last);
            if let Err(error) = closed {
                return journal_end(&error);
            }
        }
        End::Streamed { result_id: chunks.result_id(), size: chunks.size(), summary }
    }

    fn close_stream(&self, last: Event) -> Result<(), JournalError> {
        let at = self.world.clock.now();
        self.journal.append(&Record::Event { at, event: last }).map(|_| ())
    }
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
