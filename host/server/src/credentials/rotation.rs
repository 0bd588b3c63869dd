//! A key of a running job makes way for the next (ARCP §9.8.2).
//!
//! The next key is made, and told to whoever has the one before, before that one
//! is revoked; in between both are worth something, so a client in the middle
//! of a request loses nothing. Each step is written to the credential's stream
//! before the next is taken, and what stands there says what the next is
//! ([`Turns`]): a host that finds a stream goes on as if it had written it.
//!
//! No money is spent twice. The keys of the host's own endpoint share what
//! counts them. Of others, the key before keeps half of what is left while both
//! are worth something, and then the new one gets what that one has not spent,
//! once that is sure to be told.
//! So where nobody tells what a key has spent, one with a budget is not replaced.

use std::{sync::Arc, time::Duration};

use leasehold_core::{
    id::CredentialId,
    job::record::{Record, Spent},
    lease::amount::{Budget, Decimal},
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use super::{
    JobFacts, KeyId, ProvisionError, Provisioner,
    keeper::{Keeper, RETRY_MIN},
    meter::{Entry, JobMeter},
    turns::{Plan, Step, Turns},
};
use crate::{
    journal::{Journal, JournalError},
    store::StoreError,
    writer::Writer,
};

/// The keys of one credential while its job runs.
pub(super) struct Rotation {
    pub keeper: Arc<Keeper>,
    pub id: CredentialId,
    /// The operator's name for who makes them.
    pub provisioner: String,
    pub facts: JobFacts,
    pub journal: Arc<Journal>,
    /// Of the credential's stream.
    pub writer: Arc<Writer>,
    /// What counts what they spend, if that is the host.
    pub meter: Option<Arc<JobMeter>>,
    pub turns: Turns,
    pub plan: Plan,
    pub retry_max: Duration,
    /// Whether the host has not got the value of the newest.
    pub is_lost: bool,
    /// Cancelled when the job ends.
    pub over: CancellationToken,
}

/// Why a step was not taken.
enum Fault {
    /// It may be taken later.
    NotNow(String),
    /// The job ends, or the store has failed: somebody else goes on.
    Over(String),
}

impl From<ProvisionError> for Fault {
    fn from(error: ProvisionError) -> Self {
        Self::NotNow(error.to_string())
    }
}

impl From<JournalError> for Fault {
    fn from(error: JournalError) -> Self {
        Self::Over(error.to_string())
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Over(error.to_string())
    }
}

impl Rotation {
    /// Whether there is anything to do while the job runs.
    pub fn is_needed(&self) -> bool {
        self.turns.next(self.plan, self.is_lost).is_some()
    }

    /// Goes on until the job ends.
    pub async fn run(mut self) {
        let (mut pause, mut not_before) = (RETRY_MIN, self.keeper.clock().now());
        while let Some((at, step)) = self.turns.next(self.plan, self.is_lost) {
            tokio::select! {
                biased;
                // Between two steps and not in one, or a key might be made after all were revoked.
                () = self.over.cancelled() => return,
                // The next host goes on from what is written down.
                () = self.keeper.stopping().cancelled() => return,
                () = self.keeper.clock().sleep_until(at.max(not_before)) => {}
            }
            let (job_id, credential) = (self.facts.job_id, self.id);
            match self.take(step).await {
                // A turn is over when it is told.
                Ok(()) if step == Step::Tell => {
                    tracing::info!(%job_id, %credential, turn = self.turns.newest(), "a key was rotated");
                    pause = RETRY_MIN;
                }
                Ok(()) => {}
                Err(Fault::Over(why)) => {
                    return tracing::info!(%job_id, %credential, why, "a key is not rotated any more");
                }
                Err(Fault::NotNow(why)) => {
                    tracing::warn!(%job_id, %credential, ?step, why, "a key could not be rotated yet");
                    not_before = self.keeper.clock().now().saturating_add(pause);
                    pause = (pause * 2).min(self.retry_max);
                }
            }
        }
    }

    async fn take(&mut self, step: Step) -> Result<(), Fault> {
        match step {
            Step::Turn => self.turn().await,
            Step::Tell => self.tell().await,
            Step::Retire(turn) => self.retire(turn).await,
        }
    }

    /// Makes the next key, whose value is kept before it is the credential's.
    async fn turn(&mut self) -> Result<(), Fault> {
        let (before, next) = (self.key(self.turns.newest()), self.key(self.turns.upcoming()));
        let keeper = Arc::clone(&self.keeper);
        let mut budget = Budget::new();
        if let Some(other) = self.other(&keeper)? {
            let bound = self.turns.bound(before.turn);
            if !bound.is_empty() {
                let spent = other.spent(&before.to_string()).await?;
                let spent = spent.ok_or_else(|| Fault::NotNow("nobody tells what it has spent".to_owned()))?;
                budget = self.turns.half(before.turn, &spent);
                if budget.values().all(|half| *half <= Decimal::ZERO) {
                    return Err(Fault::NotNow("it has spent all it may".to_owned()));
                }
            }
        }
        self.note(Entry::Turning { at: self.now(), turn: next.turn, budget: budget.clone() }).await?;
        let mut vault = None;
        match (self.other(&keeper)?, &self.meter) {
            (Some(other), _) => {
                if !budget.is_empty() {
                    let bound = self.turns.bound(before.turn);
                    other.bound(&before.to_string(), &bound).await?;
                }
                let facts = JobFacts { budget, ..self.facts.clone() };
                let issued = other.issue(self.now(), &next.to_string(), &facts).await?;
                let kept = keeper.vault().keep(next, &issued);
                kept.map_err(|error| Fault::NotNow(format!("the new key cannot be kept: {error}")))?;
            }
            (None, Some(meter)) => {
                keeper.let_in(next, meter);
                vault = Some(keeper.vault().name());
            }
            (None, None) => return Err(Fault::Over("it is not let in".to_owned())),
        }
        self.note(Entry::Turned { at: self.now(), turn: next.turn, vault }).await?;
        self.is_lost = false;
        keeper.newest_is(self.facts.job_id, next);
        Ok(())
    }

    /// Tells who has the key that there is a new one. A host that does not know whether it has done so does it again.
    async fn tell(&mut self) -> Result<(), Fault> {
        let record = Record::Rotated { at: self.now(), credential: self.id };
        self.journal.append_durably(&record).await?;
        self.note(Entry::Told { at: self.now() }).await
    }

    /// Makes a key worth nothing, and lets the newest have what it has not spent.
    async fn retire(&mut self, turn: u32) -> Result<(), Fault> {
        let (key, keeper) = (self.key(turn), Arc::clone(&self.keeper));
        let mut spent = Some(Budget::new());
        let other = self.other(&keeper)?;
        if let Some(other) = other {
            if !self.turns.is_stray(turn) {
                self.settle(other, key).await?;
                spent = final_spend(other, key, &self.turns.bound(turn)).await;
            }
            other.revoke(&key.to_string()).await?;
        }
        keeper.forget(key);
        self.note(Entry::Retired { turn, spent: spent.map(Spent) }).await?;
        let (newest, bound) = (self.key(self.turns.newest()), self.turns.bound(self.turns.newest()));
        if let Some(other) = other.filter(|_| !bound.is_empty())
            && let Err(error) = other.bound(&newest.to_string(), &bound).await
        {
            // It can spend less than it may, until its own turn is over.
            tracing::warn!(key = %newest, %error, "a key does not get what the one before it has left");
        }
        Ok(())
    }

    /// Lets a key spend nothing more, and waits until what it has spent is told: what is not would be given to the next.
    async fn settle(&self, other: &dyn Provisioner, key: KeyId) -> Result<(), Fault> {
        if self.turns.bound(key.turn).is_empty() || self.plan.settles.is_zero() {
            return Ok(());
        }
        // One of which nobody tells counts as spent.
        let Some(spent) = other.spent(&key.to_string()).await? else { return Ok(()) };
        other.bound(&key.to_string(), &spent).await?;
        let clock = self.keeper.clock();
        tokio::select! {
            biased;
            () = self.over.cancelled() => Err(Fault::Over("its job has ended".to_owned())),
            () = self.keeper.stopping().cancelled() => Err(Fault::Over("the host stops".to_owned())),
            () = clock.sleep_until(clock.now().saturating_add(self.plan.settles)) => Ok(()),
        }
    }

    /// Writes down what has been done, or is about to be.
    async fn note(&mut self, entry: Entry) -> Result<(), Fault> {
        let mark = self.writer.append([entry.encode()])?;
        self.writer.durable(mark).await?;
        self.turns.take(&entry);
        Ok(())
    }

    fn other<'a>(&self, keeper: &'a Keeper) -> Result<Option<&'a dyn Provisioner>, Fault> {
        keeper.provisioner(&self.provisioner).map_err(|why| Fault::Over(why.to_owned()))
    }

    fn key(&self, turn: u32) -> KeyId {
        KeyId { credential: self.id, turn }
    }

    fn now(&self) -> Timestamp {
        self.keeper.clock().now()
    }
}

/// What a key has spent that is about to be revoked; nothing if nobody tells, and then all it could counts as spent.
pub(super) async fn final_spend(other: &dyn Provisioner, key: KeyId, bound: &Budget) -> Option<Budget> {
    if bound.is_empty() {
        return Some(Budget::new());
    }
    match other.spent(&key.to_string()).await {
        // More than it could, if calls at once have gone beyond: that was spent, too.
        Ok(spent) => spent,
        Err(error) => {
            tracing::warn!(%key, %error, "what a key has spent cannot be read, so all it could counts as spent");
            None
        }
    }
}
