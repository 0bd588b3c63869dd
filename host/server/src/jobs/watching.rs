//! Who may watch a job, and from where on (ARCP §7.6).

use leasehold_core::{
    error::{ErrorCode, Refusal},
    id::{JobId, Principal, SessionId},
    job::{balance::Balance, record::Record},
    lease::amount::Budget,
    protocol::{client::unknown_job, server::JobSummary, status::Status},
};

use super::{Jobs, broken, summary};
use crate::{journal, store::Position};

/// A job that a principal may watch.
pub struct Watchable {
    /// As a listing tells of it.
    pub summary: JobSummary,
    /// The session that submitted it, whose numbers a subscription may begin after.
    pub session_id: SessionId,
    /// What its lease began with.
    pub budget: Budget,
}

impl Jobs {
    /// Finds a job that a principal wants to watch. Each attempt is logged (ARCP §14).
    ///
    /// # Errors
    ///
    /// `JOB_NOT_FOUND` if there is none, `PERMISSION_DENIED` if it is another principal's and the policy does not say
    /// that this one may.
    pub async fn watchable(&self, principal: &Principal, job_id: JobId) -> Result<Watchable, Refusal> {
        let store = &*self.world.store;
        let accepted = journal::accepted(store, &journal::stream(job_id)).await.map_err(|error| broken(&error))?;
        let Some(accepted) = accepted else { return Err(unknown_job(&job_id.to_string())) };
        let owner = &accepted.principal;
        if !self.policy.may_observe(principal, owner) {
            tracing::warn!(%principal, %job_id, %owner, "subscription denied");
            let message = "the job is another principal's, and the host's policy does not let you watch it";
            return Err(Refusal::new(ErrorCode::PermissionDenied, message));
        }
        tracing::info!(%principal, %job_id, %owner, "subscription");
        let listed = self.index().jobs.get(&job_id).map(|entry| entry.summary.clone());
        let summary = match listed {
            Some(summary) => summary,
            // So long ago that it is not listed any more.
            None => {
                let before = journal::newest(store, job_id).await.map_err(|error| broken(&error))?;
                let newest = journal::page(store, job_id, before).await.map_err(|error| broken(&error))?.pop();
                let status = match newest {
                    Some((_, Record::Ended { end, .. })) => end.status(),
                    Some(_) => Status::Running,
                    None => return Err(unknown_job(&job_id.to_string())),
                };
                summary(&accepted, status)
            }
        };
        Ok(Watchable { summary, session_id: accepted.session_id, budget: accepted.authority.lease.budget().clone() })
    }

    /// The newest position in a job's journal, after which it is told live.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn newest(&self, job_id: JobId) -> Result<Position, Refusal> {
        journal::last(&*self.world.store, &journal::stream(job_id)).await.map_err(|error| broken(&error))
    }

    /// What is left of a job's budget, as its journal says (ARCP §9.6).
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn left_of(&self, job_id: JobId, budget: &Budget) -> Result<Budget, Refusal> {
        let mut balance = Balance::new(budget);
        let mut after = Position::ZERO;
        // Without a budget there is nothing to be counted.
        while !budget.is_empty() {
            let page = journal::page(&*self.world.store, job_id, after).await.map_err(|error| broken(&error))?;
            let Some((last, _)) = page.last() else { break };
            after = Position::new(*last);
            page.into_iter().for_each(|(_, record)| balance.take(record));
        }
        Ok(balance.left())
    }
}
