//! Jobs that an agent delegated (ARCP §10).

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::JobId,
    job::record::{Accepted, Parent, Seed},
};

use super::{Jobs, Prepared, broken, stop};
use crate::{
    capability::delegate::{Child, Delegates},
    clock, journal,
};

#[async_trait]
impl Delegates for Jobs {
    fn resolve(&self, agent: &str) -> Result<(), Refusal> {
        self.registry.offers(agent)
    }

    async fn start(&self, parent: &Accepted, child: Child) -> Result<(), Refusal> {
        let Some(jobs) = self.this.upgrade() else {
            return Err(Refusal::new(ErrorCode::InternalError, "the host is about to stop"));
        };
        let (stream, store) = (journal::stream(child.job_id), &*self.world.store);
        if journal::accepted(store, &stream).await.map_err(|error| broken(&error))?.is_some() {
            return Ok(());
        }
        self.arrival(&child.agent).await;
        let agent = self.registry.resolve(&child.agent)?;
        let slot = self.room(&parent.principal)?;
        let depth = parent.parent.as_ref().map_or(0, |parent| parent.depth) + 1;
        let accepted = Accepted {
            job_id: child.job_id,
            principal: parent.principal.clone(),
            session_id: parent.session_id,
            request_id: parent.request_id.clone(),
            at: child.at,
            agent: agent.id.clone(),
            digest: agent.audit.digest.to_string(),
            input: child.input,
            authority: child.authority,
            max_runtime_sec: child.max_runtime_sec,
            parent: Some(Parent { job_id: parent.job_id, depth }),
            trace_id: parent.trace_id,
            seed: Seed(clock::random()),
            limits: self.world.limits_name.clone(),
            parameters: None,
            key: None,
            ordinal: 0,
            first_seq: None,
            credentials: Vec::new(),
        };
        jobs.start(Prepared { accepted, agent, slot }).await.map(drop)
    }

    async fn over(&self, job_id: JobId) {
        let running = self.index().jobs.get(&job_id).and_then(|entry| Some(entry.running.as_ref()?.over.clone()));
        if let Some(over) = running {
            over.cancelled().await;
        }
    }

    fn cancel(&self, job_id: JobId, reason: &str) {
        let Some(jobs) = self.this.upgrade() else { return };
        let running = {
            let index = self.index();
            let running = index.jobs.get(&job_id).and_then(|entry| entry.running.as_ref());
            running.map(|running| (Arc::clone(&running.control), Arc::clone(&running.journal)))
        };
        if let Some((control, journal)) = running {
            self.cancel_children(job_id, reason);
            let (at, reason) = (self.world.clock.now(), reason.to_owned());
            jobs.tasks.spawn(async move { stop(job_id, &control, &journal, at, Some(&reason)).await });
        }
    }
}

impl Jobs {
    /// Asks all jobs to stop that the agent of this one delegated.
    pub(super) fn cancel_children(&self, parent: JobId, reason: &str) {
        let children: Vec<JobId> = self.index().children.get(&parent).into_iter().flatten().copied().collect();
        for child in children {
            Delegates::cancel(self, child, reason);
        }
    }

    /// Asks the jobs to stop whose parent ended while no host could tell them.
    pub(super) fn cancel_orphans(&self) {
        let orphans: Vec<JobId> = {
            let index = self.index();
            let ended = |parent: &JobId| index.jobs.get(parent).is_none_or(|entry| entry.running.is_none());
            index.children.iter().filter(|(parent, _)| ended(parent)).flat_map(|(_, jobs)| jobs).copied().collect()
        };
        for orphan in orphans {
            Delegates::cancel(self, orphan, "the job that delegated this one has ended");
        }
    }

    /// Whether a job that ended may still be asked for by the one that delegated it.
    #[must_use]
    pub fn is_awaited(&self, accepted: &Accepted) -> bool {
        accepted.parent.as_ref().is_some_and(|parent| self.is_running(parent.job_id))
    }
}
