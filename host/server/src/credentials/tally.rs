//! What came of each call of a job's key, written into the job's journal (ARCP §14).
//!
//! A key is used from outside, as often as its holder likes, and a call that is refused costs nothing. So the first
//! call of a kind is told at once and those that follow within a second together: all stand in the journal, and no
//! key fills it by being refused.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use leasehold_core::{
    id::CredentialId,
    job::{key_calls::Kind, record::Record},
};
use tokio::runtime::Handle;

use crate::{clock::Clock, journal::Journal};

/// For how long calls of one kind are counted before they are told.
const WINDOW: Duration = Duration::from_secs(1);

/// How many kinds are told apart within that time: whoever holds a key may ask for any names.
const KINDS_MAX: usize = 16;

/// Counts the calls of one credential.
pub(super) struct Tally {
    id: CredentialId,
    clock: Clock,
    journal: Arc<Journal>,
    /// Where what waits is told; whoever counts a call may be dropped anywhere.
    runtime: Handle,
    /// The kinds that were told within this window, and how many more calls of each came since.
    waiting: Mutex<BTreeMap<Kind, u64>>,
}

impl Tally {
    /// Of the keys of a job that has this journal.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn new(id: CredentialId, clock: Clock, journal: Arc<Journal>) -> Arc<Self> {
        Arc::new(Self { id, clock, journal, runtime: Handle::current(), waiting: Mutex::default() })
    }

    /// Counts a call.
    pub fn count(self: &Arc<Self>, mut kind: Kind) {
        let (is_first, opens) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= KINDS_MAX && !waiting.contains_key(&kind) {
                kind = kind.of_any_model();
            }
            let opens = waiting.is_empty();
            let more = waiting.get_mut(&kind).map(|more| *more += 1);
            if more.is_none() {
                waiting.insert(kind.clone(), 0);
            }
            (more.is_none(), opens)
        };
        if is_first {
            self.tell(&kind, 1);
        }
        if opens {
            let (tally, until) = (Arc::clone(self), self.clock.now().saturating_add(WINDOW));
            self.runtime.spawn(async move {
                tally.clock.sleep_until(until).await;
                tally.flush();
            });
        }
    }

    /// Tells what waits.
    pub fn flush(&self) {
        let waiting = mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for (kind, more) in waiting.into_iter().filter(|(_, more)| *more > 0) {
            self.tell(&kind, more);
        }
    }

    fn tell(&self, kind: &Kind, count: u64) {
        // A job that has ended, or whose journal is full and which ends by that, is told nothing more.
        let _ = self.journal.append(&Record::Aside { at: self.clock.now(), event: kind.told(self.id, count) });
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::{
        error::ErrorCode,
        id::{JobId, Ulid},
        job::{key_calls::told_by, record::End},
        lease::target::ModelName,
        protocol::json::Json,
        time::Timestamp,
    };

    use super::*;
    use crate::{
        journal::{self, Bounds},
        store::{Position, Store, memory::Memory},
    };

    const BOUNDS: Bounds = Bounds { total_bytes_max: 1 << 20, waiting_bytes_max: 1 << 16 };

    async fn told(journal: &Journal, store: &dyn Store, job_id: JobId) -> Vec<u64> {
        journal.flushed().await.unwrap();
        let records = journal::page(store, job_id, Position::ZERO).await.unwrap().into_iter();
        let count = |(_, record)| match record {
            Record::Aside { event, .. } => told_by(&event).map(|(_, count)| count),
            _ => None,
        };
        records.filter_map(count).collect()
    }

    /// ARCP §14: nothing is left out, and a key that is used without end writes two records of a kind a second.
    #[tokio::test]
    async fn calls_of_a_kind_are_told_together_and_none_is_left_out() {
        let (store, job_id): (Arc<dyn Store>, _) = (Arc::new(Memory::default()), JobId::new(Ulid::from_parts(0, 1)));
        let journal = Journal::new(Arc::clone(&store), job_id, Position::ZERO, BOUNDS);
        journal.append(&Record::Accepted(Box::new(journal::accepted_for_tests(job_id)))).unwrap();
        let (clock, hands) = Clock::manual(Timestamp::from_millis(0));
        let tally = Tally::new(CredentialId::new(Ulid::from_parts(0, 2)), clock, Arc::clone(&journal));
        let model = ModelName::parse("fast/small").unwrap();
        let refused = || tally.count(Kind::denied(&model, ErrorCode::PermissionDenied));
        (0..1000).for_each(|_| refused());
        tally.count(Kind::allowed(&model, None));
        assert_eq!(told(&journal, &*store, job_id).await, [1, 1], "the first of each kind");
        hands.advance(WINDOW);
        while told(&journal, &*store, job_id).await.len() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(told(&journal, &*store, job_id).await, [1, 1, 999]);
        (0..3).for_each(|_| refused());
        tally.flush();
        assert_eq!(told(&journal, &*store, job_id).await, [1, 1, 999, 1, 2]);
        hands.advance(WINDOW);
        tally.flush();
        for n in 0..1000 {
            tally.count(Kind::denied(&ModelName::parse(&format!("fast/{n}")).unwrap(), ErrorCode::PermissionDenied));
        }
        tally.flush();
        let kinds = told(&journal, &*store, job_id).await.split_off(5);
        assert_eq!((kinds.len(), kinds.iter().sum::<u64>()), (KINDS_MAX + 2, 1000), "{kinds:?}");
        let before = told(&journal, &*store, job_id).await.len();
        let end = End::Result(Json::default());
        journal.append(&Record::Ended { at: Timestamp::from_millis(0), end, spent: None }).unwrap();
        refused();
        assert_eq!(told(&journal, &*store, job_id).await.len(), before, "nothing comes after the end");
    }
}
