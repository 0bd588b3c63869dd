//! Streams of records that outlive the process: the one thing everything durable is written through.
//!
//! A stream has a name and grows at its end. Its only write is a conditional append, and from that follow idempotent
//! submission, one writer at a time, restart and failover. What a record means is the business of `journal`; here it
//! is bytes.
//!
//! An engine implements [`Store`] and proves itself with one line, [`conformance::suite!`]. [`sqlite::Sqlite`] keeps
//! streams in one file for one host; [`memory::Memory`] keeps them as long as the process lives.

pub mod conformance;
pub mod memory;
pub mod sqlite;

use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt,
    ops::Deref,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The most bytes the records of one append may have together; larger content goes into several.
pub const APPEND_BYTES_MAX: usize = 64 << 20;

/// About the most bytes one read returns, so that a reader of large records is not handed all of them at once.
pub const READ_BYTES_MAX: usize = 4 << 20;

/// The longest name a stream may have.
pub const STREAM_ID_BYTES_MAX: usize = 200;

/// An engine that keeps streams.
///
/// `append` is the only write and it is conditional, so one host at a time can extend a stream: the loser of a race
/// gets [`StoreError::Conflict`] and has written nothing.
///
/// What is read was durable before. A future of any method may be dropped: an append that was dropped, or that failed
/// with another error than `Conflict` or a refusal of its size, is written as a whole or not at all, and reading the
/// stream tells which.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Appends `records` after `last` and returns the new last position; they are durable when this returns.
    ///
    /// The stream comes into being with its first record, which is appended after [`Position::ZERO`]. An append of no
    /// records asks whether `last` is still the last position. Appends to one stream take effect in the order in which
    /// their futures were first polled.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] if `last` is not the stream's last position, [`StoreError::TooLarge`] if the records
    /// have more than [`APPEND_BYTES_MAX`] bytes; nothing is written then.
    async fn append(&self, stream: &StreamId, last: Position, records: Vec<Bytes>) -> Result<Position, StoreError>;

    /// Reads at most `limit` records after `after`, oldest first.
    ///
    /// A read may return fewer than there are (about [`READ_BYTES_MAX`] bytes of them), but returns none only if there
    /// is none. A stream that does not exist has no records.
    ///
    /// # Errors
    ///
    /// If the engine fails or is closed.
    async fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Result<Vec<Stored>, StoreError>;

    /// Returns once the stream has a record after `after`, at once if it has one.
    ///
    /// The stream need not exist yet.
    ///
    /// # Errors
    ///
    /// If the engine fails, or is closed meanwhile.
    async fn grown(&self, stream: &StreamId, after: Position) -> Result<(), StoreError>;

    /// Lists at most `limit` streams whose names begin with `prefix` and come after `after`, in the order of their
    /// names, each with its last position.
    ///
    /// # Errors
    ///
    /// If the engine fails or is closed.
    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Position)>, StoreError>;

    /// Forgets the records up to and including `up_to`; those after it keep their positions.
    ///
    /// A stream that was trimmed to nothing still exists and knows its last position, so the next append still has to
    /// know it too.
    ///
    /// # Errors
    ///
    /// If the engine fails or is closed.
    async fn trim(&self, stream: &StreamId, up_to: Position) -> Result<(), StoreError>;

    /// Forgets a stream that ends at `last` as if it had never been: its next append is its first.
    ///
    /// It is gone as a whole and at once, and whoever waits for it to grow goes on waiting. Returns when its room is
    /// free again; an engine may clear away a long stream bit by bit, so that nobody who appends has to wait for it.
    ///
    /// Positions begin anew, so whoever kept one from before the removal must not append with it. Two who remove the
    /// same stream, or one who removes and one who begins it anew, have to agree by other means.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] if `last` is not the stream's last position; nothing is forgotten then. After another
    /// error the stream is there as a whole or not at all, and a list tells which.
    async fn remove(&self, stream: &StreamId, last: Position) -> Result<(), StoreError>;

    /// Lists at most `limit` streams that began after the one with the number `after`, in the order in which they
    /// began.
    ///
    /// A stream is given its number with its first record. Later ones have greater numbers, and none is given twice.
    ///
    /// # Errors
    ///
    /// If the engine fails or is closed.
    async fn begun(&self, after: u64, limit: usize) -> Result<Vec<Begun>, StoreError>;

    /// How much of its storage the engine uses; what was forgotten does not count.
    ///
    /// # Errors
    ///
    /// If the engine fails or is closed.
    async fn size_bytes(&self) -> Result<u64, StoreError>;
}

/// Whatever leads to a store is one, so an `Arc<dyn Store>` can be handed to code that takes any.
#[async_trait]
impl<S> Store for S
where
    S: Deref<Target: Store> + Send + Sync + 'static,
{
    async fn append(&self, stream: &StreamId, last: Position, records: Vec<Bytes>) -> Result<Position, StoreError> {
        (**self).append(stream, last, records).await
    }

    async fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Result<Vec<Stored>, StoreError> {
        (**self).read(stream, after, limit).await
    }

    async fn grown(&self, stream: &StreamId, after: Position) -> Result<(), StoreError> {
        (**self).grown(stream, after).await
    }

    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Position)>, StoreError> {
        (**self).streams(prefix, after, limit).await
    }

    async fn trim(&self, stream: &StreamId, up_to: Position) -> Result<(), StoreError> {
        (**self).trim(stream, up_to).await
    }

    async fn remove(&self, stream: &StreamId, last: Position) -> Result<(), StoreError> {
        (**self).remove(stream, last).await
    }

    async fn begun(&self, after: u64, limit: usize) -> Result<Vec<Begun>, StoreError> {
        (**self).begun(after, limit).await
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        (**self).size_bytes().await
    }
}

/// A record as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where in its stream it stands.
    pub position: Position,
    /// What was appended.
    pub bytes: Bytes,
}

/// A stream in the order of their beginnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Greater than that of every stream that began before.
    pub number: u64,
    /// Its name.
    pub stream: StreamId,
    /// Its last position.
    pub last: Position,
}

/// The place of a record in its stream.
///
/// The first record has position 1 and later ones have greater positions; an engine may skip some. It is no
/// `event_seq`, which belongs to a session and has no holes (ARCP §8.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// Before the first record, and so the last position of a stream that does not exist.
    pub const ZERO: Self = Self(0);

    /// The position with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a stream, such as `job/job_01KRHAB7S00000000000000001`.
///
/// It has 1 to [`STREAM_ID_BYTES_MAX`] characters of `A-Z a-z 0-9 _ / . : -`, so every engine sorts names alike and
/// none has to escape one. A clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StreamId(Arc<str>);

impl StreamId {
    /// Names a stream.
    ///
    /// # Errors
    ///
    /// If the name is empty, too long, or has another character.
    pub fn new(name: &str) -> Result<Self, StreamIdError> {
        if name.is_empty() || name.len() > STREAM_ID_BYTES_MAX {
            return Err(StreamIdError::Length(name.len()));
        }
        match name.chars().find(|c| !c.is_ascii_alphanumeric() && !"_/.:-".contains(*c)) {
            Some(character) => Err(StreamIdError::Character(character)),
            None => Ok(Self(name.into())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<StreamId> for String {
    fn from(stream: StreamId) -> Self {
        stream.0.as_ref().to_owned()
    }
}

impl TryFrom<String> for StreamId {
    type Error = StreamIdError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl FromStr for StreamId {
    type Err = StreamIdError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for StreamId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why a text names no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamIdError {
    /// Empty or too long.
    #[error("a stream's name has 1 to {STREAM_ID_BYTES_MAX} characters, not {0}")]
    Length(usize),
    /// A character that no name has.
    #[error("a stream's name consists of letters, digits and `_/.:-`, and has no {0:?}")]
    Character(char),
}

/// Why a store did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Someone else appended first, or the caller was behind; nothing was written.
    #[error("the stream's last position is {last}, not the one the append expected")]
    Conflict {
        /// Where the stream ends.
        last: Position,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The records of one append are too large together; nothing was written.
    #[error("an append of {0} bytes is larger than {APPEND_BYTES_MAX}")]
    TooLarge(usize),
    /// The engine has no position left for the stream; nothing was written.
    #[error("the stream {0} can take no more records")]
    Full(StreamId),
    /// The store was opened for reading; nothing was written.
    #[error("{} was opened for reading only; what changes it is for the host that serves it", .0.display())]
    ReadOnly(PathBuf),
    /// Another process holds the data, and two would overwrite each other.
    #[error("another leasehold host uses {} ({holder})", file.display())]
    InUse {
        /// The data.
        file: PathBuf,
        /// Who holds it, as far as is known.
        holder: String,
    },
    /// The data is not what this engine can work with.
    #[error("{} {reason}", file.display())]
    Unusable {
        /// The data.
        file: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The storage beneath the engine failed; the text says where and how.
    #[error("{0}")]
    Io(String),
}

/// Refuses an append that is too large, alike in every engine.
fn check_size(records: &[Bytes]) -> Result<(), StoreError> {
    let size_bytes = records.iter().fold(0_usize, |sum, record| sum.saturating_add(record.len()));
    if size_bytes > APPEND_BYTES_MAX { Err(StoreError::TooLarge(size_bytes)) } else { Ok(()) }
}

/// Takes from `records` what one read may return: at most `limit`, about [`READ_BYTES_MAX`] bytes, and at least one.
fn page(records: impl Iterator<Item = Stored>, limit: usize) -> Vec<Stored> {
    let mut size_bytes = 0_usize;
    records
        .take(limit)
        .take_while(|record| {
            let first = size_bytes == 0;
            size_bytes = size_bytes.saturating_add(record.bytes.len().max(1));
            first || size_bytes <= READ_BYTES_MAX
        })
        .collect()
}

/// Locks what no holder can leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of a store's lock panics")
}

/// Those who wait for streams to grow, for engines whose writers and readers are in one process.
///
/// It has an entry for a stream only as long as someone waits for it. Waiters are told the last position that can be
/// read, so a wake costs no look into the store.
#[derive(Debug)]
struct Waiters {
    /// `None` once the store is closed.
    streams: Mutex<Option<HashMap<StreamId, Awaited>>>,
}

#[derive(Debug)]
struct Awaited {
    last: watch::Sender<Position>,
    waiters: usize,
}

/// One who waits. It has to enter before it looks whether the stream has grown, or it would miss what comes between.
struct Waiter<'a> {
    of: &'a Waiters,
    stream: StreamId,
    last: watch::Receiver<Position>,
}

impl Default for Waiters {
    fn default() -> Self {
        Self { streams: Mutex::new(Some(HashMap::new())) }
    }
}

impl Waiters {
    fn enter(&self, stream: &StreamId) -> Result<Waiter<'_>, StoreError> {
        let mut streams = lock(&self.streams);
        let streams = streams.as_mut().ok_or(StoreError::Closed)?;
        let awaited = streams
            .entry(stream.clone())
            .or_insert_with(|| Awaited { last: watch::Sender::new(Position::ZERO), waiters: 0 });
        awaited.waiters += 1;
        Ok(Waiter { of: self, stream: stream.clone(), last: awaited.last.subscribe() })
    }

    /// Tells those who wait for one of `changed` where it ends now, [`Position::ZERO`] if there is nothing to read.
    fn announce<'s>(&self, changed: impl IntoIterator<Item = (&'s StreamId, Position)>) {
        if let Some(streams) = lock(&self.streams).as_ref().filter(|streams| !streams.is_empty()) {
            for (stream, last) in changed {
                if let Some(awaited) = streams.get(stream) {
                    awaited.last.send_if_modified(|known| std::mem::replace(known, last) != last);
                }
            }
        }
    }

    /// Sends everyone away, and whoever comes later.
    fn close(&self) {
        *lock(&self.streams) = None;
    }

    fn is_closed(&self) -> bool {
        lock(&self.streams).is_none()
    }
}

impl Waiter<'_> {
    /// Returns once the stream is known to have a record after `after`.
    async fn past(mut self, after: Position) -> Result<(), StoreError> {
        self.last.wait_for(|last| *last > after).await.map(drop).map_err(|_| StoreError::Closed)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut streams = lock(&self.of.streams);
        let Some(streams) = streams.as_mut() else { return };
        if let Some(awaited) = streams.get_mut(&self.stream) {
            awaited.waiters -= 1;
            if awaited.waiters == 0 {
                streams.remove(&self.stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_a_plain_name() {
        let longest = "x".repeat(STREAM_ID_BYTES_MAX);
        for (name, expected) in [
            ("job/job_01KRHAB7S00000000000000001", Ok(())),
            ("a.b:c-D_9", Ok(())),
            (longest.as_str(), Ok(())),
            ("", Err(StreamIdError::Length(0))),
            (&format!("{longest}x"), Err(StreamIdError::Length(STREAM_ID_BYTES_MAX + 1))),
            ("job/ä", Err(StreamIdError::Character('ä'))),
            ("a b", Err(StreamIdError::Character(' '))),
            ("a\0", Err(StreamIdError::Character('\0'))),
            ("a%", Err(StreamIdError::Character('%'))), // a wildcard of SQL
        ] {
            assert_eq!(name.parse::<StreamId>().map(|id| assert_eq!(id.as_str(), name)), expected, "{name}");
        }
    }

    #[test]
    fn a_page_ends_at_its_bytes_but_is_never_empty() {
        let stored = |size| Stored { position: Position::new(1), bytes: Bytes::from(vec![0; size]) };
        for (sizes, limit, expected) in [
            (vec![1, 1, 1], 2, 2),
            (vec![1, 1, 1], 0, 0),
            (vec![READ_BYTES_MAX + 1, 1], 9, 1),
            (vec![READ_BYTES_MAX - 1, 1, 1], 9, 2),
            (vec![0, READ_BYTES_MAX, 1], 9, 1),
        ] {
            assert_eq!(page(sizes.iter().copied().map(stored), limit).len(), expected, "{sizes:?} {limit}");
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_waiter_that_left() {
        let waiters = Waiters::default();
        let stream = StreamId::new("a").unwrap();
        let (one, other) = (waiters.enter(&stream).unwrap(), waiters.enter(&stream).unwrap());
        drop(one);
        assert_eq!(lock(&waiters.streams).as_ref().unwrap().len(), 1);
        waiters.announce([(&stream, Position::new(1))]);
        assert_eq!(other.past(Position::ZERO).await, Ok(()));
        assert!(lock(&waiters.streams).as_ref().unwrap().is_empty());
    }
}
