//! A job's journal: typed records over a stream of the store.
//!
//! Appending is cheap and does not wait: records gather while a write is under
//! way and go to the store together, in order. Whoever must know that a record
//! is durable asks with [`Journal::durable`], and that is the rule of the house:
//! nothing leaves the host before what it depends on is durable, and nothing
//! else waits for a disk.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use leasehold_core::{
    id::JobId,
    job::record::{Accepted, Record},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::{
    clock::Clock,
    store::{Position, Store, StoreError, StreamId},
};

/// How long the end of a job waits for a store that fails, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The streams of jobs begin with this.
pub const JOBS: &str = "job/";

/// The streams of idempotency keys begin with this.
pub const KEYS: &str = "key/";

/// The stream that holds a job's records.
#[must_use]
pub fn stream(job_id: JobId) -> StreamId {
    StreamId::new(&format!("{JOBS}{job_id}")).expect("a job id is a stream name")
}

/// How much one job may have written, and how much of it may wait for the disk.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// All records of one job together.
    pub total_bytes_max: u64,
    /// Records that are not durable yet; an agent that writes faster waits.
    pub waiting_bytes_max: usize,
}

/// Why a journal takes no more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// The store failed, and says how.
    #[error("the journal cannot be written: {0}")]
    Store(String),
    /// The end of the job has been written, and nothing comes after it.
    #[error("the job has ended")]
    Ended,
    /// The job has written all it may.
    #[error("the job's journal is full: it holds {0} bytes, the most this host keeps of one job")]
    Full(u64),
}

/// How many records have been appended so far; a later question refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// The one writer of a job's stream.
pub struct Journal {
    store: Arc<dyn Store>,
    stream: StreamId,
    bounds: Bounds,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

struct State {
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    total_bytes: u64,
    appended: u64,
    last: Position,
    writing: bool,
    full: bool,
    ended: bool,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    durable: u64,
    waiting_bytes: usize,
    full: bool,
    failed: Option<JournalError>,
}

impl Journal {
    /// Opens the journal of a job whose stream ends at `last`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, job_id: JobId, last: Position, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            store,
            stream: stream(job_id),
            bounds,
            state: Mutex::new(State {
                waiting: Vec::new(),
                waiting_bytes: 0,
                total_bytes: 0,
                appended: 0,
                last,
                writing: false,
                full: false,
                ended: false,
            }),
            progress: watch::Sender::default(),
        })
    }

    /// Lets records gather without writing any, until the hold is dropped.
    ///
    /// A job that begins and ends within one turn of its task is then written in one go, its acceptance with its end.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).writing = true;
        Hold(Arc::clone(self))
    }

    /// Appends a record and sees to it that it becomes durable soon.
    ///
    /// # Errors
    ///
    /// If the job has ended or has written all it may. The end of a job always fits.
    pub fn append(self: &Arc<Self>, record: &Record) -> Result<Mark, JournalError> {
        if let Some(error) = &self.progress.borrow().failed {
            return Err(error.clone());
        }
        let bytes = Bytes::from(record.encode());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return Err(JournalError::Ended);
        }
        let total = state.total_bytes + bytes.len() as u64;
        if !matches!(record, Record::Ended { .. }) && (state.full || total > self.bounds.total_bytes_max) {
            // Once full, always full: a smaller record later would make a journal with a hole.
            state.full = true;
            drop(state);
            return Err(self.fill());
        }
        state.ended = matches!(record, Record::Ended { .. });
        state.total_bytes = total;
        state.waiting_bytes += bytes.len();
        state.waiting.push(bytes);
        state.appended += 1;
        let mark = Mark(state.appended);
        if !std::mem::replace(&mut state.writing, true) {
            tokio::spawn(Arc::clone(self).write());
        }
        Ok(mark)
    }

    /// Counts bytes that the job keeps elsewhere in the store.
    ///
    /// # Errors
    ///
    /// If the job has written all it may.
    pub fn charge(&self, bytes: u64) -> Result<(), JournalError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.total_bytes += bytes;
        state.full |= state.total_bytes > self.bounds.total_bytes_max;
        let full = state.full;
        drop(state);
        if full { Err(self.fill()) } else { Ok(()) }
    }

    /// Tells whoever waits in [`failed`](Self::failed) that the journal is full.
    fn fill(&self) -> JournalError {
        self.progress.send_if_modified(|progress| !std::mem::replace(&mut progress.full, true));
        JournalError::Full(self.bounds.total_bytes_max)
    }

    /// Why the job has to end, if its journal takes no more.
    #[must_use]
    pub fn fault(&self) -> Option<JournalError> {
        self.fault_of(&self.progress.borrow())
    }

    fn fault_of(&self, progress: &Progress) -> Option<JournalError> {
        let full = progress.full.then_some(JournalError::Full(self.bounds.total_bytes_max));
        progress.failed.clone().or(full)
    }

    /// Returns once everything up to `mark` is durable.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub async fn durable(&self, mark: Mark) -> Result<(), JournalError> {
        self.reached(|progress| progress.durable >= mark.0).await
    }

    /// Returns once everything appended so far is durable.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub async fn flushed(&self) -> Result<(), JournalError> {
        let appended = self.state.lock().unwrap_or_else(PoisonError::into_inner).appended;
        self.durable(Mark(appended)).await
    }

    /// Returns once there is room for more.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub async fn room(&self) -> Result<(), JournalError> {
        let waiting = self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting_bytes;
        if waiting <= self.bounds.waiting_bytes_max && self.progress.borrow().failed.is_none() {
            return Ok(());
        }
        // A failed journal never has room again, whatever it had when it failed.
        let roomy =
            |progress: &Progress| progress.failed.is_none() && progress.waiting_bytes <= self.bounds.waiting_bytes_max;
        self.reached(roomy).await
    }

    /// Returns when the journal takes no more, and never otherwise.
    pub async fn failed(&self) -> JournalError {
        let mut progress = self.progress.subscribe();
        let seen = progress.wait_for(|progress| self.fault_of(progress).is_some()).await;
        match seen.ok().and_then(|progress| self.fault_of(&progress)) {
            Some(error) => error,
            None => unreachable!("waited for a fault, and the sender lives as long as the journal"),
        }
    }

    async fn reached(&self, enough: impl Fn(&Progress) -> bool) -> Result<(), JournalError> {
        let mut progress = self.progress.subscribe();
        let seen = progress.wait_for(|progress| progress.failed.is_some() || enough(progress)).await;
        match seen {
            Ok(progress) if enough(&progress) => Ok(()),
            Ok(progress) => Err(progress.failed.clone().expect("waited for enough or for a failure")),
            Err(_) => unreachable!("the sender lives as long as the journal"),
        }
    }

    /// Appends the end of a job to a journal that failed, as soon as the store works again.
    ///
    /// A journal that the store never began gets `accepted` first. Nothing is appended if the failed append turns out
    /// to be written and holds an end, or if another host has ended the job.
    pub async fn end_late(&self, accepted: &Record, ended: &Record, clock: &Clock) {
        let mut pause = RETRY_MIN;
        loop {
            match self.try_to_end(accepted, ended).await {
                // The next start of the host finds a job without an end and ends it.
                Ok(()) | Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(stream = %self.stream, %error, "the end of a job cannot be stored yet"),
            }
            clock.sleep_until(clock.now().saturating_add(pause)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn try_to_end(&self, accepted: &Record, ended: &Record) -> Result<(), StoreError> {
        let last = last(&self.store, &self.stream).await?;
        let newest = self.store.read(&self.stream, before(last), 1).await?.pop();
        if newest.is_some_and(|newest| matches!(Record::decode(&newest.bytes), Ok(Record::Ended { .. }))) {
            return Ok(());
        }
        let records = if last == Position::ZERO { vec![accepted, ended] } else { vec![ended] };
        let records = records.into_iter().map(|record| Bytes::from(record.encode())).collect();
        self.store.append(&self.stream, last, records).await.map(|_| ())
    }

    /// Writes what waits until nothing does.
    async fn write(self: Arc<Self>) {
        loop {
            let (records, last, appended) = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.waiting.is_empty() {
                    state.writing = false;
                    return;
                }
                (std::mem::take(&mut state.waiting), state.last, state.appended)
            };
            let bytes: usize = records.iter().map(Bytes::len).sum();
            match self.store.append(&self.stream, last, records).await {
                Ok(last) => {
                    let waiting_bytes = {
                        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                        state.last = last;
                        state.waiting_bytes -= bytes;
                        state.waiting_bytes
                    };
                    self.progress.send_modify(|progress| {
                        progress.durable = appended;
                        progress.waiting_bytes = waiting_bytes;
                    });
                }
                // `writing` stays set, so nothing is appended after a hole.
                Err(error) => {
                    tracing::error!(stream = %self.stream, %error, "the journal cannot be written");
                    let failed = Some(JournalError::Store(error.to_string()));
                    self.progress.send_modify(|progress| progress.failed = failed);
                    return;
                }
            }
        }
    }
}

/// Keeps a [`Journal`] from writing.
pub struct Hold(Arc<Journal>);

impl Drop for Hold {
    fn drop(&mut self) {
        // Without a runtime the host is on its way out, and nobody waits for the records.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(Arc::clone(&self.0).write());
        }
    }
}

/// The streams of a job's large answers begin with this.
#[must_use]
pub fn blobs(job_id: JobId) -> String {
    format!("blob/{job_id}/")
}

fn blob(job_id: JobId, sha256: &str) -> Option<StreamId> {
    StreamId::new(&format!("{}{sha256}", blobs(job_id))).ok()
}

/// Stores bytes of a job in a stream named after their digest, once however often they come, and gives the digest.
///
/// # Errors
///
/// If the store fails.
pub async fn store_blob(store: &dyn Store, job_id: JobId, bytes: Bytes) -> Result<String, StoreError> {
    let sha256 = format!("{:x}", Sha256::digest(&bytes));
    let stream = blob(job_id, &sha256).expect("a digest is a stream name");
    match store.append(&stream, Position::ZERO, vec![bytes]).await {
        // The job had the same answer before.
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(sha256),
        Err(error) => Err(error),
    }
}

/// Reads what [`store_blob`] stored.
///
/// # Errors
///
/// If the store fails, or has no such bytes.
pub async fn read_blob(store: &dyn Store, job_id: JobId, sha256: &str) -> anyhow::Result<Bytes> {
    let stream = blob(job_id, sha256).ok_or_else(|| anyhow::anyhow!("`{sha256}` is no digest"))?;
    let stored = store.read(&stream, Position::ZERO, 1).await?.pop();
    let bytes = stored.ok_or_else(|| anyhow::anyhow!("the stream {stream} is gone"))?.bytes;
    anyhow::ensure!(format!("{:x}", Sha256::digest(&bytes)) == sha256, "the stream {stream} holds other bytes");
    Ok(bytes)
}

/// The position before the newest record of a job's journal.
///
/// # Errors
///
/// If the store fails.
pub async fn newest(store: &dyn Store, job_id: JobId) -> Result<Position, StoreError> {
    last(store, &stream(job_id)).await.map(before)
}

/// The last position of a stream.
///
/// # Errors
///
/// If the store fails.
pub async fn last(store: &dyn Store, stream: &StreamId) -> Result<Position, StoreError> {
    let found = store.streams(stream.as_str(), None, 1).await?;
    Ok(found.into_iter().find(|(found, _)| found == stream).map_or(Position::ZERO, |(_, last)| last))
}

/// From where a reader is given the record at `position` first.
#[must_use]
pub fn before(position: Position) -> Position {
    Position::new(position.get().saturating_sub(1))
}

/// The stream that binds a principal's idempotency key to a job (ARCP §7.2).
#[must_use]
pub fn key_stream(principal: &leasehold_core::id::Principal, key: &str) -> StreamId {
    let mut hash = Sha256::new();
    // The length keeps `("ab", "c")` apart from `("a", "bc")`.
    hash.update((principal.as_str().len() as u64).to_le_bytes());
    hash.update(principal.as_str());
    hash.update(key);
    StreamId::new(&format!("{KEYS}{:x}", hash.finalize())).expect("a digest is a stream name")
}

/// Reads the acceptance a journal begins with.
///
/// # Errors
///
/// If the store fails, or the stream does not begin with an acceptance.
pub async fn accepted(store: &dyn Store, stream: &StreamId) -> anyhow::Result<Option<Accepted>> {
    let Some(first) = store.read(stream, Position::ZERO, 1).await?.pop() else { return Ok(None) };
    match Record::decode(&first.bytes)? {
        Record::Accepted(accepted) => Ok(Some(*accepted)),
        other => anyhow::bail!("the stream {stream} begins with {other:?}, not with an acceptance"),
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::{id::Ulid, time::Timestamp};

    use super::*;
    use crate::store::memory::Memory;

    const BOUNDS: Bounds = Bounds { total_bytes_max: 1 << 20, waiting_bytes_max: 1 << 16 };

    fn record(millis: i64) -> Record {
        Record::Started { at: Timestamp::from_millis(millis) }
    }

    fn ended() -> Record {
        let end = leasehold_core::job::record::End::Result(leasehold_core::protocol::json::Json::default());
        Record::Ended { at: Timestamp::from_millis(0), end }
    }

    #[tokio::test]
    async fn what_is_durable_can_be_read_back_in_order() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let job_id = JobId::new(Ulid::from_parts(0, 1));
        let journal = Journal::new(Arc::clone(&store), job_id, Position::ZERO, BOUNDS);
        let mut mark = None;
        for millis in 0..100 {
            mark = Some(journal.append(&record(millis)).unwrap());
        }
        journal.durable(mark.unwrap()).await.unwrap();
        let stored = store.read(&stream(job_id), Position::ZERO, 1000).await.unwrap();
        let read: Vec<Record> = stored.iter().map(|stored| Record::decode(&stored.bytes).unwrap()).collect();
        assert_eq!(read, (0..100).map(record).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn records_that_gather_under_a_hold_are_written_together() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let job_id = JobId::new(Ulid::from_parts(0, 1));
        let journal = Journal::new(Arc::clone(&store), job_id, Position::ZERO, BOUNDS);
        let hold = journal.hold();
        let first = journal.append(&record(1)).unwrap();
        tokio::task::yield_now().await;
        assert!(store.read(&stream(job_id), Position::ZERO, 10).await.unwrap().is_empty());
        journal.append(&record(2)).unwrap();
        drop(hold);
        journal.durable(first).await.unwrap();
        assert_eq!(store.read(&stream(job_id), Position::ZERO, 10).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_second_writer_of_the_same_stream_is_fenced() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let job_id = JobId::new(Ulid::from_parts(0, 1));
        let first = Journal::new(Arc::clone(&store), job_id, Position::ZERO, BOUNDS);
        let second = Journal::new(store, job_id, Position::ZERO, BOUNDS);
        let mark = first.append(&record(1)).unwrap();
        first.durable(mark).await.unwrap();
        let mark = second.append(&record(2)).unwrap();
        assert!(second.durable(mark).await.is_err());
        assert!(second.room().await.is_err());
        assert!(matches!(second.failed().await, JournalError::Store(_)));
    }

    #[tokio::test]
    async fn a_full_journal_takes_only_the_end() {
        let bounds = Bounds { total_bytes_max: 100, ..BOUNDS };
        let journal =
            Journal::new(Arc::new(Memory::default()), JobId::new(Ulid::from_parts(0, 1)), Position::ZERO, bounds);
        assert!(journal.append(&record(1)).is_ok());
        assert!(matches!(journal.append(&record(2)), Err(JournalError::Full(100))));
        let mark = journal.append(&ended()).unwrap();
        journal.durable(mark).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_written_after_the_end() {
        let job_id = JobId::new(Ulid::from_parts(0, 1));
        let journal = Journal::new(Arc::new(Memory::default()), job_id, Position::ZERO, BOUNDS);
        journal.append(&ended()).unwrap();
        assert!(matches!(journal.append(&record(1)), Err(JournalError::Ended)));
        assert!(matches!(journal.append(&ended()), Err(JournalError::Ended)));
    }

    #[tokio::test]
    async fn the_same_bytes_are_stored_once() {
        let store = Memory::default();
        let first = store_blob(&store, JobId::new(Ulid::from_parts(0, 1)), Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(
            store_blob(&store, JobId::new(Ulid::from_parts(0, 1)), Bytes::from_static(b"x")).await.unwrap(),
            first
        );
        assert_eq!(store.streams("blob/", None, 10).await.unwrap().len(), 1);
    }
}
