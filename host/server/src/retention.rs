//! What is kept of jobs that have ended, and for how long.
//!
//! A job that has ended is kept for a time, so that its client can list it, read its events again, and submit it again
//! with the same key (ARCP §7.2). Then everything of it is removed: its idempotency key, its large answers, and last
//! its journal, so that a removal that a crash cut off is found and finished by the next pass.
//!
//! What all jobs have written is bounded, too. Above the bound the oldest jobs that have ended leave before their
//! time. What a session may still be resumed into stays even then, and nothing of a job that runs is ever touched; if
//! that leaves nothing to remove, the host accepts no job until there is room.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::try_join_all;
use leasehold_core::{id::JobId, job::record::Record, time::Timestamp};

use crate::{
    checkpoint::Checkpoint,
    config,
    jobs::Jobs,
    journal,
    store::{Position, Store, StoreError, StreamId},
};

/// How many jobs are looked at, and removed, together.
const PAGE: usize = 64;

/// How much of the budget is made free once it is exceeded, so that not every pass has to: a twentieth.
const FREED_PART: u64 = 20;

/// Of how many jobs that cannot be read the names are kept, so as to be logged once.
const UNREADABLE_MAX: usize = 1000;

/// Removes jobs whose time has come.
pub struct Retention {
    jobs: Arc<Jobs>,
    settings: config::Retention,
    /// A job stays at least so long after its end: a session that has not been told of it may be resumed until then.
    kept_at_least: Duration,
    started: Timestamp,
    unreadable: Mutex<BTreeSet<StreamId>>,
}

/// What one pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// How many jobs were removed.
    pub removed: usize,
    /// How much the store uses now.
    pub size_bytes: u64,
    /// Whether that is more than it may, so that no job is accepted.
    pub used_up: bool,
}

/// A job that has ended, and so may go.
struct Finished {
    job_id: JobId,
    stream: StreamId,
    last: Position,
    ended_at: Timestamp,
    /// The stream of its idempotency key, and until when that is bound.
    key: Option<(StreamId, Timestamp)>,
}

impl Retention {
    /// Looks after the jobs of a host whose sessions can be resumed for `resume_window` (ARCP §6.3).
    #[must_use]
    pub fn new(jobs: Arc<Jobs>, settings: config::Retention, resume_window: Duration) -> Self {
        let started = jobs.since();
        Self { jobs, settings, kept_at_least: resume_window, started, unreadable: Mutex::default() }
    }

    /// Makes a pass now and then, for ever.
    pub async fn run(self) {
        let clock = self.jobs.world().clock.clone();
        loop {
            let now = clock.now();
            match self.pass(now).await {
                Ok(Pass { removed: 0, .. }) => {}
                Ok(Pass { removed, size_bytes, .. }) => tracing::info!(removed, size_bytes, "old jobs were removed"),
                Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(%error, "old jobs could not be removed; trying again later"),
            }
            clock.sleep_until(now.saturating_add(seconds(self.settings.interval_sec.max(1)))).await;
        }
    }

    /// Notes what is settled and removes what has to go by `now`.
    ///
    /// It may be dropped at any moment; the next pass goes on.
    ///
    /// # Errors
    ///
    /// If the store fails. A job that cannot be read is left alone and is no error.
    pub async fn pass(&self, now: Timestamp) -> Result<Pass, StoreError> {
        let store = self.store();
        let mut checkpoint = Checkpoint::load(store).await?;
        if checkpoint.advance(store).await? {
            checkpoint.save(store).await?;
        }
        let kept = seconds(self.settings.finished_sec).max(self.kept_at_least);
        // A client that could not come while no host ran has its time from the start on.
        let floor = self.started.saturating_add(self.kept_at_least);
        let due = |job: &Finished| {
            let due = job.ended_at.saturating_add(kept).max(floor);
            job.key.as_ref().map_or(due, |(_, bound_until)| due.max(*bound_until))
        };
        let mut removed = self.remove_those(now, kept, due, None).await?;
        let budget = self.settings.bytes_max;
        if store.size_bytes().await? > budget {
            let due = |job: &Finished| job.ended_at.saturating_add(self.kept_at_least).max(floor);
            removed += self.remove_those(now, self.kept_at_least, due, Some(budget - budget / FREED_PART)).await?;
        }
        let size_bytes = store.size_bytes().await?;
        let used_up = size_bytes > budget;
        if used_up {
            tracing::error!(size_bytes, budget, "the disk budget is used up and no ended job is left to remove");
        }
        self.jobs.set_disk_used_up(used_up);
        Ok(Pass { removed, size_bytes, used_up })
    }

    /// Removes, the oldest first, the jobs that are `due` by `now`, which is at least `kept` after their end; with a
    /// goal, until the store uses no more than that.
    async fn remove_those(
        &self,
        now: Timestamp,
        kept: Duration,
        due: impl Fn(&Finished) -> Timestamp,
        goal: Option<u64>,
    ) -> Result<usize, StoreError> {
        let store = self.store();
        let before = store.size_bytes().await?;
        let (mut size_bytes, mut removed) = (before, 0);
        let mut after = None;
        loop {
            let page = store.streams(journal::JOBS, after.as_ref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            after = Some(last.clone());
            // An id is as old as its job, which cannot have ended before; so no later job can be due.
            let is_last = job_id(last).is_some_and(|job_id| job_id.made_at().saturating_add(kept) > now);
            let looked_at = page.into_iter().map(|(stream, last)| self.finished(stream, last, now, kept));
            let finished = try_join_all(looked_at).await?.into_iter().flatten();
            let mut going: VecDeque<Finished> = finished.filter(|job| due(job) <= now).collect();
            while !going.is_empty() {
                let together = match goal {
                    None => PAGE,
                    Some(goal) if size_bytes <= goal => return Ok(removed),
                    // As many as it takes, were they as large as those that went; jobs differ a thousandfold.
                    Some(goal) => {
                        match before.saturating_sub(size_bytes) / u64::try_from(removed.max(1)).unwrap_or(1) {
                            0 if removed == 0 => 1,
                            each => usize::try_from((size_bytes - goal) / each.max(1)).unwrap_or(PAGE).clamp(1, PAGE),
                        }
                    }
                };
                let together = together.min(going.len());
                try_join_all(going.drain(..together).map(|job| self.remove(job))).await?;
                removed += together;
                size_bytes = store.size_bytes().await?;
            }
            if is_last {
                return Ok(removed);
            }
        }
    }

    /// Looks whether a job ended at least `kept` before `now`.
    async fn finished(
        &self,
        stream: StreamId,
        last: Position,
        now: Timestamp,
        kept: Duration,
    ) -> Result<Option<Finished>, StoreError> {
        let Some(job_id) = job_id(&stream) else { return Ok(None) };
        let store = self.store();
        let read = async {
            let Some(newest) = store.read(&stream, journal::before(last), 1).await?.pop() else { return Ok(None) };
            let Record::Ended { at: ended_at, .. } = Record::decode(&newest.bytes)? else { return Ok(None) };
            if ended_at.saturating_add(kept) > now {
                return Ok(None);
            }
            let Some(accepted) = journal::accepted(store, &stream).await? else { return Ok(None) };
            if self.jobs.is_awaited(&accepted) {
                return Ok(None);
            }
            let bound_until = self.jobs.key_bound_until(&accepted);
            let key = accepted.key.map(|key| anyhow::Ok((StreamId::new(&key)?, bound_until))).transpose()?;
            anyhow::Ok(Some((ended_at, key)))
        };
        match read.await {
            Ok(found) => {
                Ok(found.map(|(ended_at, key)| Finished { job_id, stream: stream.clone(), last, ended_at, key }))
            }
            Err(error) => match error.downcast::<StoreError>() {
                Ok(error) if !matches!(error, StoreError::Unusable { .. }) => Err(error),
                Ok(error) => Ok(self.leave_alone(stream, &error)),
                Err(error) => Ok(self.leave_alone(stream, &*error)),
            },
        }
    }

    fn leave_alone<T>(&self, stream: StreamId, error: &(impl fmt::Display + ?Sized)) -> Option<T> {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if unreadable.len() < UNREADABLE_MAX && unreadable.insert(stream.clone()) {
            tracing::error!(%stream, %error, "a job cannot be read and is kept for ever");
        }
        None
    }

    /// Removes everything of a job, its journal last.
    async fn remove(&self, job: Finished) -> Result<(), StoreError> {
        let store = self.store();
        let remove = async |stream: &StreamId, last| match store.remove(stream, last).await {
            // A job that has ended writes no more, so somebody else has removed it.
            Ok(()) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        if let Some((key, _)) = &job.key {
            self.jobs.release_key(key, job.job_id).await?;
        }
        let (blobs, mut after) = (journal::blobs(job.job_id), None);
        loop {
            let page = store.streams(&blobs, after.as_ref(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            try_join_all(page.iter().map(|(stream, last)| remove(stream, *last))).await?;
        }
        self.jobs.forget(job.job_id);
        remove(&job.stream, job.last).await
    }

    fn store(&self) -> &dyn Store {
        &*self.jobs.world().store
    }
}

fn job_id(stream: &StreamId) -> Option<JobId> {
    stream.as_str().strip_prefix(journal::JOBS)?.parse().ok()
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
