//! What hosts leave of their jobs in a store, and the rules it keeps whatever became of the hosts.

use leasehold::{
    journal,
    store::{Position, Store},
};
use leasehold_core::{
    id::JobId,
    job::record::{End, Record},
    protocol::event::Event,
};

use tokio::time::timeout;

use crate::PATIENCE;

/// How many records are read at once.
const PAGE: usize = 1000;

/// The journal of one job.
#[derive(Debug)]
pub struct Past {
    /// The job.
    pub job_id: JobId,
    /// Everything that was written down.
    pub records: Vec<Record>,
}

impl Past {
    /// Reads a job's journal, and holds it against the rules of all journals.
    ///
    /// # Panics
    ///
    /// If it breaks one, or cannot be read.
    pub async fn of(store: &dyn Store, job_id: JobId) -> Self {
        let (mut records, mut after) = (Vec::new(), Position::ZERO);
        loop {
            let page = store.read(&journal::stream(job_id), after, PAGE).await.expect("a journal can be read");
            let Some(last) = page.last() else { break };
            after = last.position;
            records.extend(page.iter().map(|stored| Record::decode(&stored.bytes).expect("a record is one of ours")));
        }
        let past = Self { job_id, records };
        past.keeps_the_rules();
        past
    }

    /// Reads the journals of all jobs, oldest first.
    ///
    /// # Panics
    ///
    /// As [`of`](Self::of).
    pub async fn all(store: &dyn Store) -> Vec<Self> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = store.streams(journal::JOBS, after.as_ref(), PAGE).await.expect("streams can be listed");
            let Some((last, _)) = page.last() else { return all };
            after = Some(last.clone());
            for (stream, _) in page {
                let job_id = stream.as_str()[journal::JOBS.len()..].parse().expect("a journal is named after its job");
                all.push(Self::of(store, job_id).await);
            }
        }
    }

    /// Waits for the end of a job, and reads its journal.
    ///
    /// # Panics
    ///
    /// As [`until`](Self::until).
    pub async fn ended(store: &dyn Store, job_id: JobId) -> Self {
        Self::until(store, job_id, |newest| matches!(newest, Record::Ended { .. })).await
    }

    /// Waits until the newest record of a job is a certain one, and reads its journal.
    ///
    /// # Panics
    ///
    /// If it never is, and as [`of`](Self::of).
    pub async fn until(store: &dyn Store, job_id: JobId, is_it: impl Fn(&Record) -> bool) -> Self {
        let waiting = async {
            let stream = journal::stream(job_id);
            let mut seen = Position::ZERO;
            loop {
                store.grown(&stream, seen).await.expect("the store works");
                let page = store.read(&stream, seen, PAGE).await.expect("a journal can be read");
                let Some(last) = page.last() else { continue };
                seen = last.position;
                if is_it(&Record::decode(&last.bytes).expect("a record is one of ours")) {
                    return;
                }
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(()) => Self::of(store, job_id).await,
            Err(_) => panic!("waited in vain for {:#?} to go on", Self::of(store, job_id).await),
        }
    }

    /// How the job ended.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.records.iter().find_map(|record| match record {
            Record::Ended { end, .. } => Some(end),
            _ => None,
        })
    }

    /// What the job logged.
    #[must_use]
    pub fn messages(&self) -> Vec<&str> {
        let message = |record| match record {
            &Record::Event { event: Event::Log { ref message, .. }, .. } => Some(message.as_str()),
            _ => None,
        };
        self.records.iter().filter_map(message).collect()
    }

    /// How many of the records are of a kind.
    #[must_use]
    pub fn count(&self, is_one: impl Fn(&Record) -> bool) -> usize {
        self.records.iter().filter(|record| is_one(record)).count()
    }

    /// There is one acceptance, with which the journal begins; nothing comes after an end; every call has its turn and
    /// one outcome; a replay comes to its end once after each start.
    fn keeps_the_rules(&self) {
        let (mut calls, mut intent, mut catching_up) = (0, None, false);
        let mut under_way = std::collections::BTreeSet::new();
        for (n, record) in self.records.iter().enumerate() {
            let fits = match record {
                Record::Accepted(accepted) => n == 0 && accepted.job_id == self.job_id,
                Record::Started { .. } => {
                    catching_up = true;
                    true
                }
                Record::Resumed { .. } => std::mem::take(&mut catching_up),
                Record::Intent(begun) => intent.replace(begun.call).is_none() && begun.call == calls + 1,
                Record::Void { call, .. } => intent.take() == Some(*call),
                Record::Called(called) => {
                    calls += 1;
                    called.call == calls && intent.take().is_none_or(|intent| intent == calls)
                }
                Record::Begun(begun) => {
                    calls += 1;
                    begun.call == calls && under_way.insert(calls)
                }
                Record::Redirected(redirected) => under_way.contains(&redirected.call),
                Record::Part(part) => under_way.contains(&part.call),
                Record::Concluded(concluded) => under_way.remove(&concluded.call),
                Record::Ended { .. } => n + 1 == self.records.len(),
                Record::Stopped { .. } | Record::Observed(_) => true,
                Record::Event { .. } | Record::Aside { .. } | Record::Rotated { .. } => true,
                Record::Cancelling { .. } => true,
            };
            let first = n != 0 || matches!(record, Record::Accepted(_));
            assert!(fits && first, "record {n} of {}, {record:?}, is out of place in {:#?}", self.job_id, self.records);
        }
    }
}
