//! A job's journal: typed records over a stream of the store, within bounds and
//! with nothing after the end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use leasehold_core::{
    id::JobId,
    job::record::{Accepted, Record},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

pub use crate::writer::{Hold, Mark};
use crate::{
    clock::Clock,
    seal::{Sealer, Seals},
    store::{Position, Store, StoreError, Stored, StreamId},
    writer::Writer,
};

/// How long the end of a job waits for a store that fails, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How many records of one job are read at once.
const PAGE: usize = 64;

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

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// The records of one job, written in order.
pub struct Journal {
    store: Arc<dyn Store>,
    writer: Arc<Writer>,
    bounds: Bounds,
    job_id: JobId,
    sealer: Option<Arc<Sealer>>,
    state: Mutex<State>,
    full: watch::Sender<bool>,
}

struct State {
    total_bytes: u64,
    ended: bool,
    /// What stood there before this journal was opened: up to where it is counted, and where it ends.
    counted: Position,
    opened_at: Position,
    seals: Option<Seals>,
}

impl Journal {
    /// Opens the journal of a job whose stream ends at `last`. It is not sealed, as what is kept nowhere need not be.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, job_id: JobId, last: Position, bounds: Bounds) -> Arc<Self> {
        Self::open(store, job_id, last, bounds, None)
    }

    /// As [`new`](Self::new), and seals what is appended.
    #[must_use]
    pub fn sealed(
        store: Arc<dyn Store>,
        job_id: JobId,
        last: Position,
        bounds: Bounds,
        sealer: Arc<Sealer>,
    ) -> Arc<Self> {
        Self::open(store, job_id, last, bounds, Some(sealer))
    }

    fn open(
        store: Arc<dyn Store>,
        job_id: JobId,
        last: Position,
        bounds: Bounds,
        sealer: Option<Arc<Sealer>>,
    ) -> Arc<Self> {
        let writer = Writer::new(Arc::clone(&store), stream(job_id), last);
        let seals = sealer.clone().map(|sealer| Seals::new(sealer, job_id, last == Position::ZERO));
        let state = State { total_bytes: 0, ended: false, counted: Position::ZERO, opened_at: last, seals };
        let (state, full) = (Mutex::new(state), watch::Sender::new(false));
        Arc::new(Self { store, writer, bounds, job_id, sealer, state, full })
    }

    /// Lets records gather without writing any, until the hold is dropped.
    ///
    /// A job that begins and ends within one turn of its task is then written in one go, its acceptance with its end.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.writer.hold()
    }

    /// Appends a record and sees to it that it becomes durable soon.
    ///
    /// # Errors
    ///
    /// If the job has ended or has written all it may. The end of a job always fits.
    pub fn append(&self, record: &Record) -> Result<Mark, JournalError> {
        self.add(record, Writer::append)
    }

    /// As [`append`](Self::append), for a record that others are likely to follow: it may wait a moment for them.
    ///
    /// # Errors
    ///
    /// As for `append`.
    pub fn append_soon(&self, record: &Record) -> Result<Mark, JournalError> {
        self.add(record, Writer::append_soon)
    }

    /// Appends a record and returns once it is durable.
    ///
    /// # Errors
    ///
    /// As for [`append`](Self::append), and if the store failed.
    pub async fn append_durably(&self, record: &Record) -> Result<(), JournalError> {
        let mark = self.append(record)?;
        self.durable(mark).await
    }

    fn add(
        &self,
        record: &Record,
        append: impl FnOnce(&Arc<Writer>, [Bytes; 1]) -> Result<Mark, StoreError>,
    ) -> Result<Mark, JournalError> {
        if let Some(error) = self.writer.failure() {
            return Err(error.into());
        }
        let bytes = record.encode();
        let mut state = self.state();
        if state.ended {
            return Err(JournalError::Ended);
        }
        let ended = matches!(record, Record::Ended { .. });
        let total = state.total_bytes + bytes.len() as u64;
        // Once full, always full: a smaller record later would make a journal with a hole.
        if !ended && (*self.full.borrow() || total > self.bounds.total_bytes_max) {
            return Err(self.fill());
        }
        let closes = ended || matches!(record, Record::Stopped { .. });
        let bytes = match &mut state.seals {
            Some(seals) => seals.add(bytes, closes),
            None => bytes.into(),
        };
        state.ended = ended;
        state.total_bytes += bytes.len() as u64;
        // Under the lock, so that nothing comes after the end.
        Ok(append(&self.writer, [bytes])?)
    }

    /// Counts a record that stood there before this journal was opened, once however often it is read, and what the
    /// job keeps `elsewhere` for it. All of them are counted in their order.
    ///
    /// # Errors
    ///
    /// If the job has written all it may.
    pub fn count(&self, stored: &Stored, elsewhere: u64) -> Result<(), JournalError> {
        match self.learn(stored) {
            true => self.charge(elsewhere.saturating_add(stored.bytes.len() as u64)),
            false => Ok(()),
        }
    }

    /// Takes note of a record that stood there before; says whether it is the first time.
    fn learn(&self, stored: &Stored) -> bool {
        let mut state = self.state();
        if stored.position <= state.counted || stored.position > state.opened_at {
            return false;
        }
        state.counted = stored.position;
        let all = stored.position == state.opened_at;
        if let Some(seals) = &mut state.seals {
            seals.learn(&stored.bytes);
            if all {
                seals.learned();
            }
        }
        true
    }

    /// Reads what stood there before this journal was opened, as far as nobody else has, so that the end of the job can
    /// be sealed. Whoever is about to append it asks for that.
    pub async fn catch_up(&self) {
        while let Some(after) = self.unread() {
            match self.store.read(self.writer.stream(), after, PAGE).await {
                Ok(page) if page.is_empty() => return,
                Ok(page) => {
                    for stored in &page {
                        self.learn(stored);
                    }
                }
                Err(error) => {
                    tracing::warn!(job_id = %self.job_id, %error, "a journal cannot be read, and its end is not sealed");
                    return;
                }
            }
        }
    }

    /// After which record the past has still to be read, if it matters.
    fn unread(&self) -> Option<Position> {
        let state = self.state();
        (state.seals.is_some() && state.counted < state.opened_at).then_some(state.counted)
    }

    /// Counts bytes that the job keeps elsewhere in the store.
    ///
    /// # Errors
    ///
    /// If the job has written all it may.
    pub fn charge(&self, bytes: u64) -> Result<(), JournalError> {
        let mut state = self.state();
        state.total_bytes += bytes;
        if *self.full.borrow() || state.total_bytes > self.bounds.total_bytes_max { Err(self.fill()) } else { Ok(()) }
    }

    /// Tells whoever waits in [`failed`](Self::failed) that the journal is full.
    fn fill(&self) -> JournalError {
        self.full.send_if_modified(|full| !std::mem::replace(full, true));
        JournalError::Full(self.bounds.total_bytes_max)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the job has to end, if its journal takes no more.
    #[must_use]
    pub fn fault(&self) -> Option<JournalError> {
        let full = self.full.borrow().then_some(JournalError::Full(self.bounds.total_bytes_max));
        self.writer.failure().map(JournalError::from).or(full)
    }

    /// Returns once everything up to `mark` is durable.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub async fn durable(&self, mark: Mark) -> Result<(), JournalError> {
        Ok(self.writer.durable(mark).await?)
    }

    /// Returns once everything appended so far is durable.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub async fn flushed(&self) -> Result<(), JournalError> {
        Ok(self.writer.flushed().await?)
    }

    /// Returns once there is room for more.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub async fn room(&self) -> Result<(), JournalError> {
        let max = self.bounds.waiting_bytes_max;
        if self.writer.waiting_bytes() <= max && self.writer.failure().is_none() {
            return Ok(());
        }
        Ok(self.writer.room(max).await?)
    }

    /// Returns when the journal takes no more, and never otherwise.
    pub async fn failed(&self) -> JournalError {
        let mut full = self.full.subscribe();
        tokio::select! {
            error = self.writer.failed() => error.into(),
            _ = full.wait_for(|full| *full) => JournalError::Full(self.bounds.total_bytes_max),
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
                Err(error) => {
                    tracing::warn!(stream = %self.writer.stream(), %error, "the end of a job cannot be stored yet");
                }
            }
            clock.sleep_until(clock.now().saturating_add(pause)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn try_to_end(&self, accepted: &Record, ended: &Record) -> Result<(), StoreError> {
        let stream = self.writer.stream();
        let last = last(&self.store, stream).await?;
        let newest = self.store.read(stream, before(last), 1).await?.pop();
        if newest.is_some_and(|newest| matches!(Record::decode(&newest.bytes), Ok(Record::Ended { .. }))) {
            return Ok(());
        }
        let mut seals = self.seals_up_to(last).await?;
        let records = if last == Position::ZERO { vec![(accepted, false), (ended, true)] } else { vec![(ended, true)] };
        let encode = |(record, closes): (&Record, bool)| match &mut seals {
            Some(seals) => seals.add(record.encode(), closes),
            None => record.encode().into(),
        };
        let records = records.into_iter().map(encode).collect();
        self.store.append(stream, last, records).await.map(|_| ())
    }

    /// The chain of what is stored: after a failure that need not be what was appended.
    async fn seals_up_to(&self, last: Position) -> Result<Option<Seals>, StoreError> {
        let Some(sealer) = &self.sealer else { return Ok(None) };
        let mut seals = Seals::new(Arc::clone(sealer), self.job_id, last == Position::ZERO);
        let mut after = Position::ZERO;
        while after < last {
            let page = self.store.read(self.writer.stream(), after, PAGE).await?;
            let Some(newest) = page.last() else { break };
            after = newest.position;
            page.iter().for_each(|stored| seals.learn(&stored.bytes));
        }
        seals.learned();
        Ok(Some(seals))
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

/// Reads a page of a job's journal after `after`, as far as there is something.
///
/// # Errors
///
/// If the store fails or holds something that is no record.
pub async fn page(store: &dyn Store, job_id: JobId, after: Position) -> anyhow::Result<Vec<(u64, Record)>> {
    let stream = stream(job_id);
    let decode = |stored: Stored| match Record::decode(&stored.bytes) {
        Ok(record) => Ok((stored.position.get(), record)),
        Err(error) => Err(anyhow::anyhow!("{stream} at {}: {error}", stored.position)),
    };
    store.read(&stream, after, PAGE).await?.into_iter().map(decode).collect()
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

/// An acceptance of nothing in particular, for tests.
#[cfg(test)]
pub(crate) fn accepted_for_tests(job_id: JobId) -> Accepted {
    use leasehold_core::{
        id::{Principal, SessionId, Ulid},
        job::record::Seed,
        protocol::trace::TraceId,
        time::Timestamp,
    };
    Accepted {
        job_id,
        principal: Principal::new("alice"),
        session_id: SessionId::new(Ulid::from_parts(0, 1)),
        request_id: "m1".into(),
        at: Timestamp::from_millis(0),
        agent: "echo@1.0.0".into(),
        digest: "ab".into(),
        input: Default::default(),
        authority: Default::default(),
        max_runtime_sec: None,
        parent: None,
        trace_id: TraceId::new(1),
        seed: Seed([7; 32]),
        limits: String::new(),
        parameters: None,
        key: None,
        ordinal: 0,
        first_seq: None,
        credentials: Vec::new(),
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
        Record::Ended { at: Timestamp::from_millis(0), end, spent: None }
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
