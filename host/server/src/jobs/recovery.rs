//! What earlier hosts left in the store: jobs that ended are listed, and jobs that did not go on.

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use leasehold_core::{
    error::{ErrorCode, Refusal},
    job::record::{Accepted, End, Intent, Record},
    protocol::status::Status,
};

use super::Jobs;
use crate::{
    agents::registry::{Agent, Registry},
    capability::{self, fs, mounts::Settled},
    checkpoint::Checkpoint,
    journal::{self, Journal},
    runner::Run,
    sandbox::limits::Limits,
    store::{Begun, Position, StoreError, StreamId},
    tape::Control,
};

/// How many streams are looked at in one step when a host starts.
const PAGE: usize = 256;

/// How many of the newest records are looked at first to learn how a job stands.
const TAIL: u64 = 64;

/// How many times as many are looked at if those do not tell.
const FURTHER: u64 = 8;

/// The streams of limits begin with this.
const LIMITS: &str = "limits/";

/// A job that a host began and did not end.
pub(super) struct Interrupted {
    accepted: Arc<Accepted>,
    journal: Arc<Journal>,
    control: Arc<Control>,
    /// How often in a row a host has stopped while it took the job up again.
    stops: u32,
}

/// How the newest records of a journal say that a job stands.
#[derive(Debug, Default, PartialEq)]
struct Tail {
    status: Option<Status>,
    /// The call that was under way.
    in_flight: Option<Intent>,
    stops: u32,
    /// Whether they say what the agent did last: what comes in of its calls may lie before that, and without bound.
    tells: bool,
}

impl Tail {
    fn of(records: impl IntoIterator<Item = Record>) -> Self {
        let mut tail = Self::default();
        let mut begun = true;
        for record in records {
            tail.tells |= matches!(
                record,
                Record::Accepted(_)
                    | Record::Intent(_)
                    | Record::Called(_)
                    | Record::Void { .. }
                    | Record::Begun(_)
                    | Record::Event { .. }
                    | Record::Observed(_)
            );
            match record {
                // The first run takes nothing up again.
                Record::Accepted(_) => begun = false,
                Record::Started { .. } => tail.stops += u32::from(std::mem::replace(&mut begun, true)),
                Record::Ended { end, .. } => tail.status = Some(end.status()),
                Record::Intent(intent) => {
                    (tail.in_flight, tail.stops) = (Some(intent), 0);
                }
                Record::Called(_) | Record::Void { .. } => {
                    (tail.in_flight, tail.stops) = (None, 0);
                }
                Record::Resumed { .. } | Record::Stopped { .. } | Record::Observed(_) | Record::Event { .. } => {
                    tail.stops = 0;
                }
                Record::Begun(_) => tail.stops = 0,
                // These come in beside what the agent does.
                Record::Redirected(_) | Record::Part(_) | Record::Concluded(_) => {}
                Record::Aside { .. } | Record::Rotated { .. } | Record::Cancelling { .. } => {}
            }
        }
        tail
    }
}

impl Jobs {
    /// Reads what earlier hosts left in the store. Jobs without an end go on with [`Jobs::resume`].
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn recover(&self) -> anyhow::Result<()> {
        let store = &*self.world.store;
        self.keep_limits().await?;
        let checkpoint = Checkpoint::load(store).await?;
        for stream in &checkpoint.open {
            let last = journal::last(store, stream).await?;
            self.look_at(stream, last, true).await?;
        }
        let mut after = checkpoint.begin();
        loop {
            let page = store.begun(after, PAGE).await?;
            let Some(newest) = page.last() else { return Ok(()) };
            after = newest.number;
            for Begun { number, stream, last } in page {
                if !checkpoint.open.contains(&stream) {
                    self.look_at(&stream, last, number > checkpoint.settled).await?;
                }
            }
        }
    }

    /// Looks at a job, or at a key of which it is not known that its job was written. Damage to one is no error.
    async fn look_at(&self, stream: &StreamId, last: Position, is_open: bool) -> anyhow::Result<()> {
        let looked = match stream.as_str() {
            name if name.starts_with(journal::JOBS) => self.recover_one(stream, last).await,
            name if name.starts_with(journal::KEYS) && is_open => self.complete(stream).await,
            _ => Ok(()),
        };
        match looked {
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Io(_) | StoreError::Closed)) => Err(error),
            Err(error) => {
                tracing::error!(%stream, error = format!("{error:#}"), "a job cannot be read and is left alone");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Lets the jobs go on that earlier hosts did not end. The agents have to be registered, and the start to have succeeded.
    pub fn resume(self: &Arc<Self>) {
        let interrupted = std::mem::take(&mut *lock(&self.interrupted));
        self.cancel_orphans();
        if let Some(keeper) = self.keeper.clone() {
            let jobs = Arc::clone(self);
            self.tasks.spawn(async move {
                if let Err(error) = keeper.sweep(|job_id| jobs.is_running(job_id)).await {
                    tracing::error!(%error, "the keys of jobs that have ended cannot be found; the next start looks again");
                }
            });
        }
        if !interrupted.is_empty() {
            tracing::info!(jobs = interrupted.len(), "jobs that were interrupted go on");
        }
        for job in interrupted {
            self.tasks.spawn(Arc::clone(self).go_on(job));
        }
    }

    async fn go_on(self: Arc<Self>, job: Interrupted) {
        let Interrupted { accepted, journal, control, stops } = job;
        let job_id = accepted.job_id;
        let limits = match self.limits_again(&accepted, stops).await {
            Ok(limits) => limits,
            Err(why) => {
                tracing::error!(%job_id, why, "a job that was interrupted cannot go on");
                self.end_by_force(job_id, &why).await;
                return self.ended(job_id, Status::Error);
            }
        };
        let run = Run {
            world: Arc::clone(&self.world),
            sandbox: Arc::clone(&self.sandbox),
            // Whatever ends a job ends it also while its agent is still being compiled.
            agent: agent_again(Arc::clone(&self.registry), Arc::clone(&accepted)).boxed().shared(),
            accepted,
            limits,
            journal,
            control,
            interrupted: true,
            turns: self.turns.clone(),
            keeper: self.keeper.clone(),
        };
        self.see_through(run, None, None).await;
    }

    /// The limits that a job began with, if it may go on.
    async fn limits_again(&self, accepted: &Accepted, stops: u32) -> Result<Arc<Limits>, String> {
        let most = self.world.limits.replays_max;
        if stops >= most {
            return Err(format!(
                "the host was stopped {most} times in a row while it took the job up again, so the job is given up"
            ));
        }
        let limits = self.limits_of(accepted).await;
        if let Some((name, was, is)) = limits.exceeds(&self.world.limits) {
            return Err(format!(
                "the job was accepted with limits.{name} = {was}, and the host now has {is}; \
                 an agent cannot be run again with less than it had"
            ));
        }
        Ok(limits)
    }

    async fn recover_one(&self, stream: &StreamId, end: Position) -> anyhow::Result<()> {
        let store = &*self.world.store;
        let Some(accepted) = journal::accepted(store, stream).await? else { return Ok(()) };
        let tail = async |count: u64| {
            let records = store.read(stream, Position::new(end.get().saturating_sub(count)), usize::MAX).await?;
            let records = records.iter().map(|stored| Record::decode(&stored.bytes)).collect::<Result<Vec<_>, _>>()?;
            anyhow::Ok(Tail::of(records))
        };
        // Most jobs have ended, and their last record says so.
        let mut tail_of = tail(1).await?;
        let mut count = TAIL.max(u64::from(self.world.limits.replays_max).saturating_mul(4));
        while tail_of.status.is_none() {
            tail_of = tail(count).await?;
            if tail_of.tells || count >= end.get() {
                break;
            }
            count = count.saturating_mul(FURTHER);
        }
        let tail = tail_of;
        if let Some(status) = tail.status {
            self.remember(&accepted, status, None);
            self.ended(accepted.job_id, status);
            return Ok(());
        }
        let accepted = Arc::new(accepted);
        let (control, journal) = (Arc::new(Control::default()), self.journal(accepted.job_id, end));
        if let Some(intent) = tail.in_flight {
            self.settle(&accepted, &journal, intent).await?;
        }
        if let Some(keeper) = self.keeper.as_ref().filter(|_| !accepted.credentials.is_empty()) {
            keeper.take_up(&accepted, &journal).await?;
        }
        self.remember(&accepted, Status::Running, Some((&control, &journal)));
        lock(&self.interrupted).push(Interrupted { accepted, journal, control, stops: tail.stops });
        Ok(())
    }

    /// Finds out what became of a call that was under way, as far as that can be done before its agent runs again.
    ///
    /// Every job's is settled before any job goes on, or one's next change would be taken for another's last.
    async fn settle(&self, accepted: &Arc<Accepted>, journal: &Arc<Journal>, intent: Intent) -> anyhow::Result<()> {
        let (mounts, at) = (Arc::clone(&self.world.mounts), self.world.clock.now());
        let (of, call) = (Arc::clone(accepted), intent.call);
        let asked = intent.clone();
        let settled = tokio::task::spawn_blocking(move || fs::settle(&mounts, &of, &asked)).await?;
        tracing::info!(job_id = %accepted.job_id, call, operation = intent.operation, ?settled, "a call was cut off");
        let record = match settled {
            Settled::Done => capability::settled(intent, at),
            Settled::NotDone => Record::Void { at, call },
            // The agent runs again, and brings what it wanted to write.
            Settled::Torn => return Ok(()),
            Settled::Unknown { why } => capability::unsettled(intent, at, &why),
        };
        let mark = journal.append(&record)?;
        Ok(journal.durable(mark).await?)
    }

    /// Writes the journal of a job whose host was killed after it had written the idempotency key and before the job.
    async fn complete(&self, key: &StreamId) -> anyhow::Result<()> {
        let store = &*self.world.store;
        let Some(accepted) = journal::accepted(store, key).await? else { return Ok(()) };
        let stream = journal::stream(accepted.job_id);
        if journal::last(store, &stream).await? != Position::ZERO {
            return Ok(());
        }
        let record = Record::Accepted(Box::new(accepted));
        match store.append(&stream, Position::ZERO, vec![Bytes::from(record.encode())]).await {
            // It has begun now, as the newest, and is looked at last.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes down what agents may use from now on, once, for the host that takes their jobs up again.
    async fn keep_limits(&self) -> anyhow::Result<()> {
        let stream = StreamId::new(&format!("{LIMITS}{}", self.world.limits_name))?;
        let limits = Bytes::from(serde_json::to_vec(&self.world.limits)?);
        match self.world.store.append(&stream, Position::ZERO, vec![limits]).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The limits under which a job was accepted.
    async fn limits_of(&self, accepted: &Accepted) -> Arc<Limits> {
        if accepted.limits == self.world.limits_name {
            return Arc::new(self.world.limits.clone());
        }
        match limits(&*self.world.store, &accepted.limits).await {
            Ok(limits) => Arc::new(limits),
            Err(error) => {
                // A replay that meets another limit diverges, and says so.
                tracing::warn!(job_id = %accepted.job_id, %error, "the limits of a job cannot be read");
                Arc::new(self.world.limits.clone())
            }
        }
    }

    /// Ends a job whose runner is gone.
    pub(super) async fn end_by_force(&self, job_id: leasehold_core::id::JobId, why: &str) {
        let journal =
            self.index().jobs.get(&job_id).and_then(|entry| Some(Arc::clone(&entry.running.as_ref()?.journal)));
        let Some(journal) = journal else { return };
        let refusal = Refusal::new(ErrorCode::InternalError, why);
        let end = End::Failed { status: Status::Error, refusal };
        journal.catch_up().await;
        let ended = Record::Ended { at: self.world.clock.now(), end, spent: None };
        if let Err(error) = journal.append_durably(&ended).await {
            tracing::error!(%job_id, %error, "the end of a job could not be stored");
        }
    }
}

/// Reads limits by their name.
///
/// # Errors
///
/// If the store does not have them.
pub async fn limits(store: &dyn crate::store::Store, name: &str) -> anyhow::Result<Limits> {
    let stream = StreamId::new(&format!("{LIMITS}{name}"))?;
    let stored = store.read(&stream, Position::ZERO, 1).await?.pop();
    let stored = stored.ok_or_else(|| anyhow::anyhow!("the stream {stream} is gone"))?;
    Ok(serde_json::from_slice(&stored.bytes)?)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What it guards is replaced in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds the agent that a job began with; never, if the host stops meanwhile: the next one takes the job up.
async fn agent_again(registry: Arc<Registry>, accepted: Arc<Accepted>) -> Result<Arc<Agent>, String> {
    // Most often it is what is being compiled, and waiting so takes no thread from anybody.
    registry.arrival(&accepted.agent).await;
    let found = {
        let registry = Arc::clone(&registry);
        tokio::task::spawn_blocking(move || registry.pinned(&accepted.agent, &accepted.digest)).await
    };
    match found {
        Ok(Ok(agent)) => Ok(agent),
        Ok(Err(_)) if registry.compiler().is_stopping() => pending().await,
        Ok(Err(why)) => Err(why),
        Err(error) if error.is_cancelled() => pending().await,
        Err(_) => Err("the host failed while it prepared the agent".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::{protocol::json::Json, time::Timestamp};

    use super::*;

    #[test]
    fn the_newest_records_say_how_a_job_stands() {
        let at = Timestamp::from_millis(0);
        let started = || Record::Started { at };
        let resumed = || Record::Resumed { at };
        let intent = || Intent { at, call: 1, operation: "fs.write".into(), args: Json::default(), before: None };
        let ended = || Record::Ended { at, end: End::Result(Json::default()), spent: None };
        for (records, expected) in [
            (vec![], Tail::default()),
            (vec![started()], Tail { stops: 1, ..Tail::default() }),
            (vec![started(), resumed(), started(), started()], Tail { stops: 2, ..Tail::default() }),
            (vec![started(), resumed()], Tail::default()),
            (vec![started(), Record::Intent(intent())], Tail { in_flight: Some(intent()), ..Tail::default() }),
            (vec![Record::Intent(intent()), Record::Void { at, call: 1 }], Tail::default()),
            (
                vec![Record::Intent(intent()), started(), started()],
                Tail { in_flight: Some(intent()), stops: 2, ..Tail::default() },
            ),
            (vec![started(), ended()], Tail { status: Some(Status::Success), stops: 1, ..Tail::default() }),
        ] {
            let tells = records.iter().any(|record| {
                !matches!(record, Record::Started { .. } | Record::Ended { .. } | Record::Resumed { .. })
            });
            assert_eq!(Tail::of(records), Tail { tells, ..expected });
        }
    }

    /// What comes in of calls may follow a change that was cut off, as much of it as there is.
    #[test]
    fn what_only_came_in_does_not_tell_what_the_agent_did_last() {
        let at = Timestamp::from_millis(0);
        let part = || {
            let answer = leasehold_core::job::record::Answer::Json(Json::default());
            Record::Part(leasehold_core::job::record::Part { at, call: 2, answer })
        };
        let intent = Intent { at, call: 3, operation: "fs.write".into(), args: Json::default(), before: None };
        let newest: Vec<Record> = (0..100).map(|_| part()).collect();
        assert!(!Tail::of(newest.clone()).tells);
        let tail = Tail::of([Record::Intent(intent.clone())].into_iter().chain(newest));
        assert!(tail.tells && tail.in_flight == Some(intent));
    }
}
