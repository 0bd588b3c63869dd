//! The jobs of a host: submit, cancel, list (ARCP §6.6, §7).

mod children;
mod recovery;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use itertools::Itertools as _;
use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{CredentialId, JobId, Principal, SessionId},
    job::record::{Accepted, Record, Seed},
    lease::Namespace,
    protocol::{
        client::{ListJobs, unknown_job},
        credential::Credential,
        json::Json,
        server::{JobSummary, LeaseConstraints},
        status::{Status, Step},
        trace::TraceId,
    },
    secret::Secret,
    session::{Submission, Submitted},
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{recovery::limits, watching::Watchable};
use crate::{
    agents::registry::{Agent, Registry},
    capability::World,
    clock,
    config::Retention,
    credentials::keeper::Keeper,
    journal::{self, Bounds, Hold, Journal, JournalError},
    policy::Policy,
    rate::Bucket,
    runner::{Run, Turns, present},
    sandbox::engine::Sandbox,
    seal::Sealer,
    store::{Position, StoreError, StreamId},
    tape::Control,
};

/// The default and the largest page of a listing.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

/// A page ends where its frame would be larger than this; the smallest client takes 1 MiB.
const PAGE_BYTES_MAX: usize = 512 << 10;

/// About what a listed job takes besides its lease.
const SUMMARY_BYTES: usize = 512;

/// How many ended jobs are kept for listings; the oldest leave first.
const ENDED_MAX: usize = 10_000;

/// What a host signs and gives away.
pub struct Keys {
    /// What the journals of jobs are sealed with.
    pub sealer: Arc<Sealer>,
    /// Who makes keys for jobs, if anybody does (ARCP §9.8).
    pub keeper: Option<Arc<Keeper>>,
}

/// Makes jobs, runs them, and knows where they are.
pub struct Jobs {
    /// Itself, for what goes on by itself.
    this: Weak<Self>,
    world: Arc<World>,
    sandbox: Arc<Sandbox>,
    registry: Arc<Registry>,
    policy: Arc<Policy>,
    turns: Turns,
    live_agents: usize,
    retention: Retention,
    /// What the journals of jobs are sealed with.
    sealer: Arc<Sealer>,
    /// Who makes keys for jobs, if anybody does (ARCP §9.8).
    keeper: Option<Arc<Keeper>>,
    since: Timestamp,
    /// Whether the disk budget is used up, so that no job may begin.
    disk_used_up: AtomicBool,
    /// Held while an idempotency key is let go: the next to have it begins its stream anew.
    releasing: tokio::sync::Mutex<()>,
    index: Mutex<Index>,
    /// How fast each principal may submit (ARCP §14).
    paces: Mutex<HashMap<Principal, Bucket>>,
    /// What runs jobs, and what stops that.
    tasks: TaskTracker,
    frozen: CancellationToken,
    /// What earlier hosts began and did not end, until [`Jobs::resume`].
    interrupted: Mutex<Vec<recovery::Interrupted>>,
}

#[derive(Default)]
struct Index {
    jobs: HashMap<JobId, Entry>,
    by_principal: BTreeMap<Principal, BTreeSet<JobId>>,
    /// With the ordinal of the submission.
    by_session: HashMap<SessionId, BTreeSet<(u64, JobId)>>,
    ended: VecDeque<JobId>,
    /// How many jobs of each principal are running.
    running: BTreeMap<Principal, usize>,
    /// The jobs that an agent delegated and that run (ARCP §10).
    children: HashMap<JobId, BTreeSet<JobId>>,
}

struct Entry {
    principal: Principal,
    session_id: SessionId,
    ordinal: u64,
    summary: JobSummary,
    running: Option<Running>,
}

impl Index {
    fn remove(&mut self, job_id: JobId) {
        let Some(Entry { principal, session_id, ordinal, .. }) = self.jobs.remove(&job_id) else { return };
        if let Some(mine) = self.by_principal.get_mut(&principal) {
            mine.remove(&job_id);
            if mine.is_empty() {
                self.by_principal.remove(&principal);
            }
        }
        if let Some(jobs) = self.by_session.get_mut(&session_id) {
            jobs.remove(&(ordinal, job_id));
            if jobs.is_empty() {
                self.by_session.remove(&session_id);
            }
        }
    }
}

impl Entry {
    /// Ends the job in the listing, once (ARCP §7.3).
    fn end(&mut self, status: Status) {
        let next = Step::to(status).and_then(|step| self.summary.status.after(step));
        self.summary.status = next.unwrap_or(self.summary.status);
    }
}

struct Running {
    control: Arc<Control>,
    journal: Arc<Journal>,
    /// Cancelled once it does not run any more.
    over: CancellationToken,
}

/// A job that has been written down but not begun.
struct Prepared {
    accepted: Accepted,
    agent: Arc<Agent>,
    slot: OwnedSemaphorePermit,
}

impl Jobs {
    /// Makes a manager that runs at most `live_agents` jobs at once.
    #[must_use]
    pub fn new(
        world: Arc<World>,
        sandbox: Arc<Sandbox>,
        registry: Arc<Registry>,
        policy: Arc<Policy>,
        live_agents: usize,
        retention: Retention,
        keys: Keys,
    ) -> Arc<Self> {
        let turns = Turns::new(live_agents);
        let Keys { sealer, keeper } = keys;
        let (index, paces, interrupted) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (tasks, frozen) = (TaskTracker::new(), CancellationToken::new());
        let (disk_used_up, releasing) = (AtomicBool::default(), tokio::sync::Mutex::default());
        let since = world.clock.now();
        let jobs = Arc::new_cyclic(|this: &Weak<Self>| Self {
            this: this.clone(),
            since,
            world,
            sandbox,
            registry,
            policy,
            turns,
            live_agents,
            retention,
            sealer,
            keeper,
            disk_used_up,
            releasing,
            index,
            paces,
            tasks,
            frozen,
            interrupted,
        });
        let delegates: Weak<Self> = Arc::downgrade(&jobs);
        jobs.world.set_delegates(delegates);
        jobs
    }

    /// Since when this host runs.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// What all jobs share.
    #[must_use]
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Makes a job and starts it (ARCP §7.1), or finds the one that the same key made before (§7.2).
    ///
    /// Returns once the acceptance is durable; the agent may be running by then.
    ///
    /// # Errors
    ///
    /// Why there is no job. Nothing was written then, and an idempotency key stays free.
    pub async fn submit(
        self: &Arc<Self>,
        session_id: SessionId,
        trace_id: TraceId,
        submission: Submission,
    ) -> Result<Submitted, Refusal> {
        self.pace(&submission.principal)?;
        let key = submission.idempotency_key.clone().map(|key| journal::key_stream(&submission.principal, &key));
        let parameters = key.as_ref().map(|_| parameters(&submission));
        if let Some(key) = &key
            && let Some(earlier) = self.earlier(key).await?
        {
            return self.resubmitted(earlier, parameters.as_ref(), submission.takes_credentials);
        }
        self.arrival(&submission.agent).await;
        let takes_credentials = submission.takes_credentials;
        let prepared = self.prepare(session_id, trace_id, submission, parameters, key.as_ref())?;
        let (job_id, credentials) = (prepared.accepted.job_id, self.issue(&prepared.accepted).await?);
        if let Some(key) = &key {
            // The whole acceptance is written under the key first, so that a crash
            // between the two streams leaves enough to finish.
            let record = Bytes::from(Record::Accepted(Box::new(prepared.accepted.clone())).encode());
            match self.world.store.append(key, Position::ZERO, vec![record]).await {
                Ok(_) => {}
                Err(StoreError::Conflict { .. }) => {
                    self.end_keys(job_id);
                    let earlier = self.earlier(key).await?.ok_or_else(|| broken("the key's record is gone"))?;
                    let parameters = prepared.accepted.parameters.as_ref();
                    return self.resubmitted(earlier, parameters, takes_credentials);
                }
                Err(error) => {
                    self.end_keys(job_id);
                    return Err(broken(&error));
                }
            }
        }
        let submitted = self.start(prepared).await?;
        Ok(Submitted { credentials, ..submitted })
    }

    /// Waits for an agent that is still being compiled, so long as the operator has it.
    async fn arrival(&self, agent: &str) {
        let clock = &self.world.clock;
        let until = clock.now().saturating_add(self.registry.compiler().patience());
        tokio::select! {
            biased;
            () = self.registry.arrival(agent) => {}
            () = clock.sleep_until(until) => {}
        }
    }

    /// Makes the keys of a job that is about to be accepted (ARCP §9.8.2).
    async fn issue(&self, accepted: &Accepted) -> Result<Vec<Credential>, Refusal> {
        match &self.keeper {
            Some(keeper) if !accepted.credentials.is_empty() => keeper.issue(accepted).await,
            _ => Ok(Vec::new()),
        }
    }

    /// The newest value of a key of a running job, for who was given the one before (ARCP §9.8.2).
    #[must_use]
    pub fn value_of_key(&self, job_id: JobId, credential: CredentialId) -> Option<Secret> {
        self.keeper.as_ref()?.value(job_id, credential)
    }

    /// Revokes the keys of a job, if it has any.
    fn end_keys(&self, job_id: JobId) {
        if let Some(keeper) = &self.keeper {
            keeper.end(job_id);
        }
    }

    /// Answers a submission whose key has been used (ARCP §7.2).
    fn resubmitted(
        &self,
        earlier: Accepted,
        parameters: Option<&String>,
        takes_credentials: bool,
    ) -> Result<Submitted, Refusal> {
        if earlier.parameters.as_ref() == parameters {
            let keeper = self.keeper.as_ref().filter(|_| takes_credentials);
            let credentials = keeper.map_or_else(Vec::new, |keeper| keeper.of(&earlier));
            return Ok(Submitted { accepted: Arc::new(earlier), fresh: false, credentials });
        }
        let message = "the idempotency_key was used for a job with other parameters; use a new key";
        Err(Refusal::new(ErrorCode::DuplicateKey, message))
    }

    /// Refuses a submission of a principal that submits too fast.
    fn pace(&self, principal: &Principal) -> Result<(), Refusal> {
        let (now, most) = (self.world.clock.now(), self.world.limits.principal_submissions_per_sec);
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = paces.entry(principal.clone()).or_insert_with(|| Bucket::new(most, now));
        pace.take(now).map_err(|at| {
            let message = format!(
                "`{principal}` submits more than {most} jobs a second, the most one principal may \
                 ([limits] principal_submissions_per_sec); try again at {at}"
            );
            Refusal::new(ErrorCode::InternalError, message)
        })
    }

    /// Checks a submission against the agents, the clock, the ceiling and the room there is.
    fn prepare(
        &self,
        session_id: SessionId,
        trace_id: TraceId,
        submission: Submission,
        parameters: Option<String>,
        key: Option<&StreamId>,
    ) -> Result<Prepared, Refusal> {
        let agent = self.registry.resolve(&submission.agent)?;
        let now = self.world.clock.now();
        // ARCP §9.5: "MUST be in the future at submission time".
        if let Some(at) = submission.authority.expires_at.filter(|at| *at <= now) {
            return Err(Refusal::invalid(format!(
                "job.submit: `payload.lease_constraints.expires_at` is {at}, which is not in the future (it is {now})"
            )));
        }
        let authority = self.policy.grant(&submission.principal, submission.authority, &submission.whole)?;
        let slot = self.room(&submission.principal)?;
        let keeper = self.keeper.as_ref().filter(|_| submission.takes_credentials);
        let may_have = |name: &str| self.policy.may_have_key_of(&submission.principal, name);
        let credentials = keeper.map_or_else(Vec::new, |keeper| keeper.grant(&authority, now, may_have));
        let accepted = Accepted {
            job_id: JobId::new(clock::fresh(now)),
            principal: submission.principal,
            session_id,
            request_id: submission.request,
            at: now,
            agent: agent.id.clone(),
            digest: agent.audit.digest.to_string(),
            input: submission.input,
            authority,
            max_runtime_sec: submission.max_runtime_sec,
            parent: None,
            trace_id,
            seed: Seed(clock::random()),
            limits: self.world.limits_name.clone(),
            parameters,
            key: key.map(ToString::to_string),
            ordinal: submission.ordinal,
            first_seq: submission.first_seq,
            credentials,
        };
        Ok(Prepared { accepted, agent, slot })
    }

    /// Finds a place for one more job of a principal.
    fn room(&self, principal: &Principal) -> Result<OwnedSemaphorePermit, Refusal> {
        if self.disk_used_up.load(Ordering::Relaxed) {
            let message = format!(
                "the host has used up its disk budget of {} bytes ([retention] bytes_max) and has no more ended jobs \
                 to remove; try again when running jobs have ended",
                self.retention.bytes_max
            );
            return Err(Refusal::new(ErrorCode::InternalError, message));
        }
        let (mine, most) = (self.running(principal), self.world.limits.principal_jobs_max);
        if mine >= most {
            let message = format!("{mine} jobs of `{}` are running, the most one principal may have", principal);
            return Err(Refusal::new(ErrorCode::InternalError, message));
        }
        Arc::clone(&self.turns.slots).try_acquire_owned().map_err(|_| {
            let message = format!("the host runs {} jobs, as many as it can hold; try again later", self.live_agents);
            Refusal::new(ErrorCode::InternalError, message)
        })
    }

    /// Writes the acceptance down and starts the agent.
    ///
    /// The agent need not wait for the disk: nothing it does leaves the host
    /// before its acceptance, which stands before it in the same journal.
    async fn start(self: &Arc<Self>, prepared: Prepared) -> Result<Submitted, Refusal> {
        let Prepared { accepted, agent, slot } = prepared;
        let journal = self.journal(accepted.job_id, Position::ZERO);
        let hold = journal.hold();
        let record = Record::Accepted(Box::new(accepted));
        let appended = journal.append(&record);
        let Record::Accepted(accepted) = record else { unreachable!("made above") };
        let accepted = Arc::new(*accepted);
        let mark = appended.map_err(|error| {
            self.end_keys(accepted.job_id);
            broken(&error)
        })?;
        if let Some(keeper) = &self.keeper {
            keeper.admit(&accepted, &journal);
        }
        let control = Arc::new(Control::default());
        self.remember(&accepted, Status::Running, Some((&control, &journal)));
        tracing::info!(
            job_id = %accepted.job_id, session_id = %accepted.session_id, principal = %accepted.principal,
            agent = %accepted.agent, trace_id = %accepted.trace_id, "job accepted"
        );
        let run = Run {
            world: Arc::clone(&self.world),
            sandbox: Arc::clone(&self.sandbox),
            agent: present(agent),
            accepted: Arc::clone(&accepted),
            limits: Arc::new(self.world.limits.clone()),
            journal: Arc::clone(&journal),
            control,
            interrupted: false,
            turns: self.turns.clone(),
            keeper: self.keeper.clone(),
        };
        self.tasks.spawn(Arc::clone(self).see_through(run, Some(slot), Some(hold)));
        journal.durable(mark).await.map_err(|error| broken(&error))?;
        Ok(Submitted { accepted, fresh: true, credentials: Vec::new() })
    }

    /// Runs a job to its end, whatever happens.
    async fn see_through(self: Arc<Self>, run: Run, slot: Option<OwnedSemaphorePermit>, hold: Option<Hold>) {
        let job_id = run.accepted.job_id;
        // A panic in the host's own code ends one job, not the host.
        let mut run = Box::pin(AssertUnwindSafe(run.run(slot)).catch_unwind());
        // A job that is over after one turn needs one commit; any other is written from here on.
        let first = futures_util::poll!(&mut run);
        drop(hold);
        let outcome = match first {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => tokio::select! {
                outcome = &mut run => outcome,
                // The next host goes on from what is in the journal.
                () = self.frozen.cancelled() => return,
            },
        };
        let status = match outcome {
            Ok(status) => status,
            Err(_) => {
                tracing::error!(%job_id, "the runner of a job panicked");
                self.end_by_force(job_id, "the host failed while it ran the job").await;
                Status::Error
            }
        };
        self.ended(job_id, status);
        tracing::info!(%job_id, status = %status, "job ended");
    }

    /// Stops every job where it is, between two calls if `patience` lasts, with everything it did in its journal.
    ///
    /// The jobs have not ended: the next host goes on with them.
    pub async fn stop(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.world.drain()).await.is_err() {
            tracing::warn!(
                "some calls were still under way when the host stopped; their outcome is found out at the next start"
            );
        }
        self.frozen.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.sandbox.lane().is_empty().await;
        let journals: Vec<_> = {
            let index = self.index();
            index.jobs.values().filter_map(|entry| Some(Arc::clone(&entry.running.as_ref()?.journal))).collect()
        };
        let at = self.world.clock.now();
        for journal in &journals {
            // One that has ended or failed takes no more.
            let _ = journal.append(&Record::Stopped { at });
        }
        for journal in journals {
            // One that failed has said so.
            let _ = tokio::time::timeout(patience, journal.flushed()).await;
        }
    }

    fn journal(&self, job_id: JobId, last: Position) -> Arc<Journal> {
        let limits = &self.world.limits;
        let bounds =
            Bounds { total_bytes_max: limits.journal_bytes_max, waiting_bytes_max: limits.journal_waiting_bytes_max };
        Journal::sealed(Arc::clone(&self.world.store), job_id, last, bounds, Arc::clone(&self.sealer))
    }

    /// The acceptance that an idempotency key is bound to. A key that was bound for long enough is let go.
    async fn earlier(self: &Arc<Self>, key: &StreamId) -> Result<Option<Accepted>, Refusal> {
        let bound = journal::accepted(&*self.world.store, key).await.map_err(|error| broken(&error))?;
        match bound {
            Some(accepted)
                if self.key_bound_until(&accepted) <= self.world.clock.now() && !self.is_running(accepted.job_id) =>
            {
                self.release_key(key, accepted.job_id).await.map_err(|error| broken(&error))?;
                Ok(None)
            }
            bound => Ok(bound),
        }
    }

    /// Until when the idempotency key of a job leads to it, if it has one (ARCP §7.2).
    #[must_use]
    pub fn key_bound_until(&self, accepted: &Accepted) -> Timestamp {
        accepted.at.saturating_add(Duration::from_secs(self.retention.idempotency_sec.into()))
    }

    /// Lets go of an idempotency key if it is bound to this job.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn release_key(&self, key: &StreamId, job_id: JobId) -> Result<(), StoreError> {
        // A key that was bound anew ends at the same position as before, so the store cannot tell. Whoever lets go of
        // one therefore looks and removes with nobody else doing so in between.
        let _alone = self.releasing.lock().await;
        let store = &*self.world.store;
        let Some(bound) = store.read(key, Position::ZERO, 1).await?.pop() else { return Ok(()) };
        match Record::decode(&bound.bytes) {
            Ok(Record::Accepted(accepted)) if accepted.job_id == job_id => {}
            _ => return Ok(()),
        }
        match store.remove(key, bound.position).await {
            Ok(()) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a job that is about to be removed out of the listing.
    pub fn forget(&self, job_id: JobId) {
        self.index().remove(job_id);
    }

    /// Says whether all that jobs may have written has been written, so that no new one may begin.
    pub fn set_disk_used_up(&self, used_up: bool) {
        self.disk_used_up.store(used_up, Ordering::Relaxed);
    }

    /// Asks a job to stop (ARCP §7.4). Asking again, or after its end, is answered alike.
    ///
    /// # Errors
    ///
    /// `JOB_NOT_FOUND` if the principal has no such job, `PERMISSION_DENIED` if another session submitted it.
    pub async fn cancel(
        &self,
        session_id: SessionId,
        principal: &Principal,
        job_id: JobId,
        reason: Option<&str>,
    ) -> Result<TraceId, Refusal> {
        let (trace_id, running) = {
            let index = self.index();
            let entry = index.jobs.get(&job_id).filter(|entry| entry.principal == *principal);
            let entry = entry.ok_or_else(|| unknown_job(&job_id.to_string()))?;
            if entry.session_id != session_id && !self.policy.may_cancel_from_any_session(principal) {
                let message = "only the session that submitted a job may cancel it (`cancels_from_any_session` in the \
                               host's policy lets others)";
                return Err(Refusal::new(ErrorCode::PermissionDenied, message));
            }
            let running = entry.running.as_ref();
            (entry.summary.trace_id, running.map(|it| (Arc::clone(&it.control), Arc::clone(&it.journal))))
        };
        if let Some((control, journal)) = running {
            self.cancel_children(job_id, "the job that delegated this one is cancelled");
            stop(job_id, &control, &journal, self.world.clock.now(), reason).await;
        }
        Ok(trace_id)
    }

    /// One page of a principal's jobs, newest first, and where the next begins (ARCP §6.6).
    ///
    /// # Errors
    ///
    /// `INVALID_REQUEST` for a cursor that is none.
    pub fn list(&self, principal: &Principal, list: &ListJobs) -> Result<(Vec<JobSummary>, Option<String>), Refusal> {
        let limit = list.limit.map_or(PAGE_DEFAULT, |limit| usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX));
        let before =
            match list.cursor.as_deref() {
                None => None,
                // The last job of the page before: new jobs come in ahead of it and move nothing.
                Some(cursor) => {
                    let cursor = cursor.parse::<JobId>();
                    Some(cursor.map_err(|_| {
                        Refusal::invalid("session.list_jobs: `payload.cursor` is not one this host gave")
                    })?)
                }
            };
        let index = self.index();
        let mut page: Vec<JobSummary> = Vec::new();
        let mut bytes = 0;
        let shown = index.by_principal.iter().filter(|(owner, _)| self.policy.may_observe(principal, owner));
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        let shown = shown.map(|(_, jobs)| jobs.range((Bound::Unbounded, end)).rev());
        for job_id in shown.kmerge_by(|one, other| one > other) {
            let summary = &index.jobs[job_id].summary;
            if !matches(summary, list) {
                continue;
            }
            bytes += summary.lease.as_str().len() + SUMMARY_BYTES;
            if page.len() == limit || (bytes > PAGE_BYTES_MAX && !page.is_empty()) {
                let cursor = page.last().map(|last| last.job_id.to_string());
                return Ok((page, cursor));
            }
            page.push(summary.clone());
        }
        Ok((page, None))
    }

    /// The jobs that a session submitted after its submission `ordinal`, in their order.
    #[must_use]
    pub fn of_session(&self, session_id: SessionId, ordinal: u64) -> Vec<JobId> {
        let index = self.index();
        let jobs = index.by_session.get(&session_id).into_iter().flatten();
        jobs.filter(|(of, _)| *of > ordinal).map(|(_, job_id)| *job_id).collect()
    }

    /// Whether a job is listed, and so not removed; an ended one may be so old that it is kept without being listed.
    #[must_use]
    pub fn lists(&self, job_id: JobId) -> bool {
        self.index().jobs.contains_key(&job_id)
    }

    /// Lists a job with the status its journal ends with.
    pub fn note_end(&self, job_id: JobId, status: Status) {
        if let Some(entry) = self.index().jobs.get_mut(&job_id) {
            entry.end(status);
        }
    }

    /// How many jobs of a principal are running.
    fn running(&self, principal: &Principal) -> usize {
        self.index().running.get(principal).copied().unwrap_or_default()
    }

    fn is_running(&self, job_id: JobId) -> bool {
        self.index().jobs.get(&job_id).is_some_and(|entry| entry.running.is_some())
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Every change below is one step, so a panic elsewhere leaves nothing half done.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, accepted: &Accepted, status: Status, running: Option<(&Arc<Control>, &Arc<Journal>)>) {
        let summary = summary(accepted, status);
        let running = running.map(|(control, journal)| Running {
            control: Arc::clone(control),
            journal: Arc::clone(journal),
            over: CancellationToken::new(),
        });
        let Accepted { session_id, ordinal, .. } = *accepted;
        let entry = Entry { principal: accepted.principal.clone(), session_id, ordinal, summary, running };
        let mut index = self.index();
        if entry.running.is_some() {
            *index.running.entry(accepted.principal.clone()).or_default() += 1;
            if let Some(parent) = &accepted.parent {
                index.children.entry(parent.job_id).or_default().insert(accepted.job_id);
            }
        }
        index.by_principal.entry(accepted.principal.clone()).or_default().insert(accepted.job_id);
        // Its session did not submit a job that an agent delegated, and is not told of it unless it asks.
        if accepted.parent.is_none() {
            index.by_session.entry(session_id).or_default().insert((ordinal, accepted.job_id));
        }
        index.jobs.insert(accepted.job_id, entry);
    }

    fn ended(&self, job_id: JobId, status: Status) {
        self.cancel_children(job_id, "the job that delegated this one has ended");
        self.end_keys(job_id);
        let mut index = self.index();
        let index = &mut *index;
        if let Some(entry) = index.jobs.get_mut(&job_id) {
            entry.end(status);
            if let Some(ended) = entry.running.take() {
                if let Some(running) = index.running.get_mut(&entry.principal) {
                    *running = running.saturating_sub(1);
                }
                let parent = entry.summary.parent_job_id;
                if let Some(children) = parent.and_then(|parent| index.children.get_mut(&parent)) {
                    children.remove(&job_id);
                }
                ended.over.cancel();
            }
        }
        index.children.remove(&job_id);
        index.ended.push_back(job_id);
        while index.ended.len() > ENDED_MAX
            && let Some(oldest) = index.ended.pop_front()
        {
            // One that was removed has left already.
            index.remove(oldest);
        }
    }
}

/// Tells a job that it is to stop, and writes it down, once.
async fn stop(job_id: JobId, control: &Control, journal: &Journal, at: Timestamp, reason: Option<&str>) {
    if control.asked_to_cancel.swap(true, Ordering::Relaxed) {
        return;
    }
    // Before it is written down: a job that ends meanwhile ends as cancelled, or had ended already.
    control.cancel(at);
    let record = Record::Cancelling { at, reason: reason.map(str::to_owned) };
    match journal.append_durably(&record).await {
        Ok(()) | Err(JournalError::Ended) => {}
        // The cancellation goes ahead: a job whose journal fails is ending anyway.
        Err(error) => tracing::warn!(%job_id, %error, "a cancellation could not be stored"),
    }
}

fn summary(accepted: &Accepted, status: Status) -> JobSummary {
    JobSummary {
        job_id: accepted.job_id,
        agent: accepted.agent.clone(),
        status,
        lease: Json::of(&accepted.authority.lease),
        lease_constraints: accepted.authority.expires_at.map(|expires_at| LeaseConstraints { expires_at }),
        parent_job_id: accepted.parent.as_ref().map(|parent| parent.job_id),
        created_at: accepted.at,
        submitted_at: accepted.at,
        trace_id: accepted.trace_id,
        last_event_seq: 0,
    }
}

fn matches(summary: &JobSummary, list: &ListJobs) -> bool {
    let agent = |wanted: &String| match wanted.contains('@') {
        true => summary.agent == *wanted,
        false => summary.agent.split('@').next() == Some(wanted),
    };
    let status = |wanted: &Vec<Status>| wanted.contains(&summary.status);
    let after = |after: &Timestamp| summary.created_at > *after;
    let before = |before: &Timestamp| summary.created_at < *before;
    list.agent.as_ref().is_none_or(agent)
        && list.statuses.as_ref().is_none_or(status)
        && list.created_after.as_ref().is_none_or(after)
        && list.created_before.as_ref().is_none_or(before)
}

/// A digest that is equal for submissions that ask for the same, however they are spelled.
fn parameters(submission: &Submission) -> String {
    let mut canonical = serde_json::json!({
        "agent": submission.agent,
        "input": canonical(&submission.input),
        "lease": submission.authority.lease,
        "expires_at": submission.authority.expires_at,
        "max_runtime_sec": submission.max_runtime_sec,
    });
    if !submission.whole.is_empty() {
        canonical["whole"] = submission.whole.iter().map(Namespace::as_str).collect();
    }
    format!("{:x}", Sha256::digest(canonical.to_string()))
}

/// The input with its keys sorted and its numbers in one form: `1.0` is 1.
///
/// Where that form would lose something, a digit of a long number or one of two equal keys, the text itself stands for
/// the input: two submissions are then the same only if they are written alike.
fn canonical(input: &Json) -> serde_json::Value {
    if loses_something(input.as_str()) {
        return input.as_str().into();
    }
    fn settle(value: &mut serde_json::Value) {
        use serde_json::Value;
        match value {
            Value::Number(number) => {
                let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
                if let Some(float) = float {
                    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
                    let whole = float as i64;
                    *value = whole.into();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(settle),
            Value::Object(fields) => fields.values_mut().for_each(settle),
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }
    // A value that fits `Json` parses; should it not, its text is as good.
    let mut value = serde_json::from_str(input.as_str()).unwrap_or_else(|_| input.as_str().into());
    settle(&mut value);
    value
}

/// Whether a number has more digits than a float holds, or an object has a key twice.
fn loses_something(json: &str) -> bool {
    const EXACT_DIGITS: usize = 15;
    let (mut digits, mut keys, mut in_string, mut escaped) = (0, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'0'..=b'9' => digits += 1,
            b'.' | b'-' | b'+' | b'e' | b'E' => {}
            b':' => (keys, digits) = (keys + 1, 0),
            _ => digits = 0,
        }
        if digits > EXACT_DIGITS {
            return true;
        }
    }
    fn keys_of(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(items) => items.iter().map(keys_of).sum(),
            serde_json::Value::Object(fields) => fields.len() + fields.values().map(keys_of).sum::<usize>(),
            _ => 0,
        }
    }
    serde_json::from_str(json).map_or(true, |value| keys_of(&value) != keys)
}

fn broken(error: &(impl std::fmt::Display + ?Sized)) -> Refusal {
    tracing::error!(error = format!("{error:#}"), "the store failed");
    Refusal::new(ErrorCode::InternalError, "the host could not store the job; try again later")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ARCP §7.2: "identical parameters".
    #[test]
    fn inputs_that_say_the_same_have_one_canonical_form() {
        let form = |text: &str| canonical(&Json::parse(text.to_owned()).unwrap()).to_string();
        assert_eq!(form(r#"{"b":1.0,"a":[2e0]}"#), form(r#"{ "a": [2], "b": 1 }"#));
        assert_ne!(form(r#"{"a":1}"#), form(r#"{"a":"1"}"#));
        assert_ne!(form(r#"[1,2]"#), form(r#"[2,1]"#));
        assert_ne!(form("0.1"), form("0.2"));
        assert_ne!(form(r#"{"n":12345678901234567890123}"#), form(r#"{"n":12345678901234567890124}"#));
        assert_ne!(form(r#"{"a":1,"a":2}"#), form(r#"{"a":2}"#));
    }
}
