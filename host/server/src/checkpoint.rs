//! How far a host has seen everything to be settled, so that the next start need not look at all there is.
//!
//! A start has to find the jobs that have not ended and the idempotency keys whose jobs were never written. Streams
//! are numbered in the order in which they begin, so all that a start can have missed began after the number noted
//! here, or is named here as open. The order is the store's own: a clock that was set back would have put new jobs
//! before old ones by their ids, and a key's name tells no time at all.
//!
//! A checkpoint is only a shortcut. Without one, or with one that cannot be read, a start looks at everything.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use leasehold_core::job::record::Record;
use serde::{Deserialize, Serialize};

use crate::{
    journal,
    store::{Position, Store, StoreError, StreamId},
};

/// The stream of checkpoints, of which the newest counts.
pub const STREAM: &str = "host/checkpoint";

/// How many streams are looked at in one step.
const PAGE: usize = 256;

/// The most open streams a checkpoint names; it stays behind what began after that many.
const OPEN_MAX: usize = 10_000;

/// Every so many jobs a number is remembered, and so many of them; together they span the jobs of a listing.
const JOBS_A_MARK: usize = 1000;
const MARKS: usize = 11;

/// What is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Of the streams that began up to this number, each job has ended and each key has its job, but for the open ones.
    pub settled: u64,
    /// The streams of jobs and keys of which that was not so.
    pub open: BTreeSet<StreamId>,
    /// Numbers of jobs, each [`JOBS_A_MARK`] after the one before; only the newest are kept.
    marks: VecDeque<u64>,
    /// How many jobs have begun since the last of them.
    jobs_since: usize,
}

impl Checkpoint {
    /// Reads the newest checkpoint, or one that has settled nothing.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let last = journal::last(store, &stream()).await?;
        let newest = store.read(&stream(), journal::before(last), 1).await?.pop();
        let Some(newest) = newest else { return Ok(Self::default()) };
        Ok(serde_json::from_slice(&newest.bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "the last checkpoint cannot be read; this start looks at everything");
            Self::default()
        }))
    }

    /// The number after which begins what a start looks at: what may not be settled, and the jobs of a listing.
    #[must_use]
    pub fn begin(&self) -> u64 {
        // Before the eleventh mark there are not enough jobs to leave any out.
        let listed = self.marks.front().filter(|_| self.marks.len() == MARKS).map_or(0, |mark| mark.saturating_sub(1));
        listed.min(self.settled)
    }

    /// Looks at what was open and at what has begun since. Says whether anything is new.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn advance(&mut self, store: &dyn Store) -> Result<bool, StoreError> {
        let before = (self.settled, self.open.len());
        for stream in self.open.clone() {
            let last = journal::last(store, &stream).await?;
            if is_settled(store, &stream, last).await? {
                self.open.remove(&stream);
            }
        }
        loop {
            let page = store.begun(self.settled, PAGE).await?;
            if page.is_empty() {
                return Ok(before != (self.settled, self.open.len()));
            }
            for begun in page {
                if !is_settled(store, &begun.stream, begun.last).await? {
                    if self.open.len() >= OPEN_MAX {
                        return Ok(before != (self.settled, self.open.len()));
                    }
                    self.open.insert(begun.stream.clone());
                }
                if begun.stream.as_str().starts_with(journal::JOBS) {
                    self.count(begun.number);
                }
                self.settled = begun.number;
            }
        }
    }

    fn count(&mut self, number: u64) {
        self.jobs_since += 1;
        if self.marks.is_empty() || self.jobs_since >= JOBS_A_MARK {
            self.jobs_since = 0;
            self.marks.push_back(number);
            if self.marks.len() > MARKS {
                self.marks.pop_front();
            }
        }
    }

    /// Writes it down in place of the one before.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn save(&self, store: &dyn Store) -> Result<(), StoreError> {
        let last = journal::last(store, &stream()).await?;
        let bytes = serde_json::to_vec(self).map_err(|error| StoreError::Io(error.to_string()))?;
        store.append(&stream(), last, vec![Bytes::from(bytes)]).await?;
        store.trim(&stream(), last).await
    }
}

/// Whether a job has ended, or a key's job is there; anything else has nothing to settle.
///
/// What is damaged stays open: a later start may find the file mended.
async fn is_settled(store: &dyn Store, stream: &StreamId, last: Position) -> Result<bool, StoreError> {
    let name = stream.as_str();
    let settled = if name.starts_with(journal::JOBS) {
        match store.read(stream, journal::before(last), 1).await {
            Ok(newest) => {
                newest.first().is_none_or(|newest| matches!(Record::decode(&newest.bytes), Ok(Record::Ended { .. })))
            }
            Err(StoreError::Unusable { .. }) => false,
            Err(error) => return Err(error),
        }
    } else if name.starts_with(journal::KEYS) {
        match journal::accepted(store, stream).await {
            Ok(None) => true,
            Ok(Some(accepted)) => journal::last(store, &journal::stream(accepted.job_id)).await? != Position::ZERO,
            Err(_) => false,
        }
    } else {
        true
    };
    Ok(settled)
}

fn stream() -> StreamId {
    StreamId::new(STREAM).expect("a plain name")
}

#[cfg(test)]
mod tests {
    use leasehold_core::{
        id::{JobId, Ulid},
        job::record::End,
        protocol::json::Json,
        time::Timestamp,
    };

    use super::*;
    use crate::store::memory::Memory;

    const AT: Timestamp = Timestamp::from_millis(0);

    fn job(number: u128) -> JobId {
        JobId::new(Ulid::from_parts(0, number))
    }

    fn key(number: u128) -> StreamId {
        StreamId::new(&format!("{}{number}", journal::KEYS)).unwrap()
    }

    fn accepted(number: u128) -> Record {
        Record::Accepted(Box::new(journal::accepted_for_tests(job(number))))
    }

    fn ended() -> Record {
        Record::Ended { at: AT, end: End::Result(Json::default()), spent: None }
    }

    async fn write(store: &Memory, stream: &StreamId, records: &[Record]) {
        let last = journal::last(store, stream).await.unwrap();
        let records = records.iter().map(|record| Bytes::from(record.encode())).collect();
        store.append(stream, last, records).await.unwrap();
    }

    #[tokio::test]
    async fn what_has_not_ended_stays_open_until_it_has() {
        let store = Memory::default();
        let mut checkpoint = Checkpoint::load(&store).await.unwrap();
        assert!(!checkpoint.advance(&store).await.unwrap(), "there is nothing");
        write(&store, &journal::stream(job(1)), &[accepted(1), ended()]).await;
        write(&store, &journal::stream(job(2)), &[accepted(2)]).await;
        write(&store, &key(3), &[accepted(3)]).await;
        write(&store, &key(1), &[accepted(1)]).await;
        store.append(&StreamId::new("job/no-job").unwrap(), Position::ZERO, vec!["x".into()]).await.unwrap();
        store.append(&StreamId::new("other").unwrap(), Position::ZERO, vec!["x".into()]).await.unwrap();
        assert!(checkpoint.advance(&store).await.unwrap());
        let open = |streams: &[StreamId]| streams.iter().cloned().collect::<BTreeSet<_>>();
        let unreadable = StreamId::new("job/no-job").unwrap();
        assert_eq!(checkpoint.settled, 6);
        assert_eq!(checkpoint.open, open(&[journal::stream(job(2)), key(3), unreadable.clone()]));

        // A job that was late by its number, as the key's job always is.
        write(&store, &journal::stream(job(3)), &[accepted(3)]).await;
        write(&store, &journal::stream(job(2)), &[ended()]).await;
        assert!(checkpoint.advance(&store).await.unwrap());
        assert_eq!(checkpoint.open, open(&[journal::stream(job(3)), unreadable.clone()]));
        store.remove(&unreadable, Position::new(1)).await.unwrap();
        write(&store, &journal::stream(job(3)), &[ended()]).await;
        assert!(checkpoint.advance(&store).await.unwrap());
        assert_eq!((checkpoint.settled, checkpoint.open.len()), (7, 0));
        assert!(!checkpoint.advance(&store).await.unwrap(), "nothing is new");
    }

    #[tokio::test]
    async fn the_newest_checkpoint_counts_and_no_other_is_kept() {
        let store = Memory::default();
        for settled in 1..=3 {
            let checkpoint = Checkpoint { settled, open: [key(1)].into(), ..Checkpoint::default() };
            checkpoint.save(&store).await.unwrap();
            assert_eq!(Checkpoint::load(&store).await, Ok(checkpoint));
            assert_eq!(store.read(&stream(), Position::ZERO, 9).await.unwrap().len(), 1);
        }
        store.append(&stream(), Position::new(3), vec!["no checkpoint".into()]).await.unwrap();
        assert_eq!(Checkpoint::load(&store).await, Ok(Checkpoint::default()), "a start looks at everything");
    }

    #[test]
    fn a_start_leaves_out_only_what_is_settled_and_in_no_listing() {
        let mut checkpoint = Checkpoint::default();
        for number in 1..=25_000 {
            checkpoint.settled = number * 2;
            checkpoint.count(number * 2);
            let left_out = checkpoint.begin() / 2;
            assert!(number - left_out >= number.min(10_000), "{left_out} of {number} are left out");
            assert!(number - left_out <= 11_001, "{left_out} of {number} are left out");
        }
        assert!(serde_json::to_vec(&checkpoint).unwrap().len() < 200);
        checkpoint.settled = 7;
        assert_eq!(checkpoint.begin(), 7);
    }
}
