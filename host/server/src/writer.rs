//! The one writer of a stream.
//!
//! Appending does not wait: records gather while a write is under way and go to
//! the store together, in order. Whoever must know that a record is durable
//! asks with [`Writer::durable`], and that is the rule of the house: nothing
//! leaves the host before what it depends on is durable, and nothing else waits
//! for a disk. A record that others are likely to follow at once may wait for
//! them a moment, or until somebody asks.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    clock::Clock,
    store::{Position, Store, StoreError, StreamId},
};

/// How long a writer that is patient waits for a store that fails, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How long a record that nobody asks for waits for others.
const LINGER: Duration = Duration::from_millis(1);

/// About how much goes to the store in one write. Others wait meanwhile, and have theirs written after it.
const WRITE_BYTES: usize = 32 << 10;

/// How many records have been appended so far; a later question refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// Gathers records and writes them.
///
/// Its appends are conditional, so a stream that has a second writer fails one of the two, for ever.
pub struct Writer {
    store: Arc<dyn Store>,
    stream: StreamId,
    /// Set if a store that fails is tried again.
    patience: Option<Clock>,
    /// How long a record that nobody asks for waits for others.
    linger: Duration,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

struct State {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    appended: u64,
    last: Position,
    /// A write is under way, is held back, or has failed.
    writing: bool,
    /// A write begins soon.
    lingering: bool,
}

struct Waiting {
    record: Bytes,
    /// Whether the next one was appended together with this, and so is written together with it.
    with_next: bool,
}

impl State {
    /// Takes what is to be written next.
    fn take(&mut self) -> Vec<Bytes> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(Waiting { record, with_next }) = self.waiting.pop_front() {
            bytes += record.len();
            taken.push(record);
            if bytes >= WRITE_BYTES && !with_next {
                break;
            }
        }
        taken
    }
}

#[derive(Clone, Debug, Default)]
struct Progress {
    durable: u64,
    failed: Option<StoreError>,
}

impl Writer {
    /// Writes on where the stream ends, at `last`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, stream: StreamId, last: Position) -> Arc<Self> {
        Self::make(store, stream, last, None, LINGER)
    }

    /// As [`new`](Self::new), and when the store fails, goes on as soon as it works again.
    #[must_use]
    pub fn patient(store: Arc<dyn Store>, stream: StreamId, last: Position, clock: Clock) -> Arc<Self> {
        Self::make(store, stream, last, Some(clock), LINGER)
    }

    fn make(
        store: Arc<dyn Store>,
        stream: StreamId,
        last: Position,
        patience: Option<Clock>,
        linger: Duration,
    ) -> Arc<Self> {
        let state =
            State { waiting: VecDeque::new(), waiting_bytes: 0, appended: 0, last, writing: false, lingering: false };
        Arc::new(Self { store, stream, patience, linger, state: Mutex::new(state), progress: watch::Sender::default() })
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The last position that is known to be durable.
    #[must_use]
    pub fn last(&self) -> Position {
        self.state().last
    }

    /// Lets records gather without writing any, until the hold is dropped.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.state().writing = true;
        Hold(Arc::clone(self))
    }

    /// Appends records, one after the other, and sees to it that they become durable soon.
    ///
    /// # Errors
    ///
    /// If the store has failed; nothing is appended after a hole.
    pub fn append(self: &Arc<Self>, records: impl IntoIterator<Item = Bytes>) -> Result<Mark, StoreError> {
        let mark = self.gather(records)?;
        self.hurry();
        Ok(mark)
    }

    /// As [`append`](Self::append), but the records may wait a moment for others, and go to the store with them.
    ///
    /// # Errors
    ///
    /// As for `append`.
    pub fn append_soon(self: &Arc<Self>, records: impl IntoIterator<Item = Bytes>) -> Result<Mark, StoreError> {
        let mark = self.gather(records)?;
        let mut state = self.state();
        if !state.writing && !std::mem::replace(&mut state.lingering, true) {
            let writer = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(writer.linger).await;
                writer.state().lingering = false;
                writer.hurry();
            });
        }
        Ok(mark)
    }

    fn gather(&self, records: impl IntoIterator<Item = Bytes>) -> Result<Mark, StoreError> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let mut state = self.state();
        let mut records = records.into_iter().peekable();
        while let Some(record) = records.next() {
            state.waiting_bytes += record.len();
            state.waiting.push_back(Waiting { record, with_next: records.peek().is_some() });
            state.appended += 1;
        }
        Ok(Mark(state.appended))
    }

    /// Begins to write what waits, unless a write is under way: that goes on until nothing waits.
    fn hurry(self: &Arc<Self>) {
        let mut state = self.state();
        if !state.waiting.is_empty() && !std::mem::replace(&mut state.writing, true) {
            tokio::spawn(Arc::clone(self).write());
        }
    }

    /// How many bytes are not durable yet.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.state().waiting_bytes
    }

    /// Why nothing can be written any more.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.progress.borrow().failed.clone()
    }

    /// Returns once everything up to `mark` is durable.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub async fn durable(self: &Arc<Self>, mark: Mark) -> Result<(), StoreError> {
        self.reached(|progress| progress.durable >= mark.0).await
    }

    /// Returns once everything appended so far is durable.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub async fn flushed(self: &Arc<Self>) -> Result<(), StoreError> {
        let appended = self.state().appended;
        self.durable(Mark(appended)).await
    }

    /// Returns once at most `bytes` wait.
    ///
    /// # Errors
    ///
    /// If the store failed. It then never has room again, whatever it had when it failed.
    pub async fn room(self: &Arc<Self>, bytes: usize) -> Result<(), StoreError> {
        // What was appended during a write counts, however long that takes.
        self.reached(|progress| progress.failed.is_none() && self.waiting_bytes() <= bytes).await
    }

    /// Returns when the store has failed, and never otherwise.
    pub async fn failed(self: &Arc<Self>) -> StoreError {
        match self.reached(|_| false).await {
            Err(error) => error,
            Ok(()) => unreachable!("nothing but a failure is waited for"),
        }
    }

    async fn reached(self: &Arc<Self>, enough: impl Fn(&Progress) -> bool) -> Result<(), StoreError> {
        self.hurry();
        let mut progress = self.progress.subscribe();
        let seen = progress.wait_for(|progress| progress.failed.is_some() || enough(progress)).await;
        match seen {
            Ok(progress) if enough(&progress) => Ok(()),
            Ok(progress) => Err(progress.failed.clone().expect("waited for enough or for a failure")),
            Err(_) => unreachable!("the sender lives as long as the writer"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits until nothing does.
    async fn write(self: Arc<Self>) {
        loop {
            let (records, last) = {
                let mut state = self.state();
                let records = state.take();
                if records.is_empty() {
                    state.writing = false;
                    return;
                }
                (records, state.last)
            };
            let (count, bytes) = (records.len() as u64, records.iter().map(Bytes::len).sum::<usize>());
            match self.put(last, records).await {
                Ok(last) => {
                    {
                        let mut state = self.state();
                        state.last = last;
                        state.waiting_bytes -= bytes;
                    }
                    self.progress.send_modify(|progress| progress.durable += count);
                }
                // `writing` stays set, so nothing is appended after a hole.
                Err(error) => {
                    tracing::error!(stream = %self.stream, %error, "the stream cannot be written");
                    self.progress.send_modify(|progress| progress.failed = Some(error));
                    return;
                }
            }
        }
    }
}

impl Writer {
    async fn put(&self, last: Position, records: Vec<Bytes>) -> Result<Position, StoreError> {
        let Some(clock) = &self.patience else { return self.store.append(&self.stream, last, records).await };
        let mut pause = RETRY_MIN;
        let mut outcome = self.store.append(&self.stream, last, records.clone()).await;
        // A store that fails in another way has written all or nothing, and tells which when it works again.
        while let Err(error @ (StoreError::Io(_) | StoreError::Full(_))) = outcome {
            tracing::warn!(stream = %self.stream, %error, "the stream cannot be written yet");
            clock.sleep_until(clock.now().saturating_add(pause)).await;
            pause = (pause * 2).min(RETRY_MAX);
            outcome = match self.store.read(&self.stream, last, records.len()).await {
                Ok(found) if found.is_empty() => self.store.append(&self.stream, last, records.clone()).await,
                Ok(found) if found.iter().map(|stored| &stored.bytes).eq(&records) => {
                    Ok(found.last().map_or(last, |newest| newest.position))
                }
                Ok(found) => Err(StoreError::Conflict { last: found.last().map_or(last, |newest| newest.position) }),
                Err(error) => Err(error),
            };
        }
        outcome
    }
}

/// Keeps a [`Writer`] from writing.
pub struct Hold(Arc<Writer>);

impl Drop for Hold {
    fn drop(&mut self) {
        // Without a runtime the host is on its way out, and nobody waits for the records.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(Arc::clone(&self.0).write());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    fn writer(store: &Arc<dyn Store>) -> Arc<Writer> {
        Writer::new(Arc::clone(store), StreamId::new("s").unwrap(), Position::ZERO)
    }

    fn record(n: u8) -> [Bytes; 1] {
        [Bytes::from(vec![n])]
    }

    async fn stored(store: &Arc<dyn Store>) -> Vec<u8> {
        let stored = store.read(&StreamId::new("s").unwrap(), Position::ZERO, 1000).await.unwrap();
        stored.iter().map(|stored| stored.bytes[0]).collect()
    }

    #[tokio::test]
    async fn what_is_durable_can_be_read_back_in_order() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let writer = writer(&store);
        let mut mark = None;
        for n in 0..100 {
            mark = Some(writer.append(record(n)).unwrap());
        }
        writer.durable(mark.unwrap()).await.unwrap();
        assert_eq!(stored(&store).await, (0..100).collect::<Vec<_>>());
        assert_eq!(writer.last(), Position::new(100));
    }

    #[tokio::test]
    async fn records_that_gather_under_a_hold_are_written_together() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let writer = writer(&store);
        let hold = writer.hold();
        let first = writer.append(record(1)).unwrap();
        tokio::task::yield_now().await;
        assert!(stored(&store).await.is_empty());
        writer.append(record(2)).unwrap();
        drop(hold);
        writer.durable(first).await.unwrap();
        assert_eq!(stored(&store).await, [1, 2]);
    }

    #[tokio::test]
    async fn much_goes_to_the_store_in_several_writes_and_what_belongs_together_in_one() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let large = || Bytes::from(vec![0; WRITE_BYTES]);
        let held = writer(&store);
        let _hold = held.hold();
        held.append([large(), large()]).unwrap();
        held.append([large()]).unwrap();
        let taken = || held.state().take().len();
        assert_eq!((taken(), taken(), taken()), (2, 1, 0));

        let writer = writer(&store);
        let hold = writer.hold();
        for n in 0..5 {
            writer.append([record(n)[0].clone(), large()]).unwrap();
        }
        drop(hold);
        writer.flushed().await.unwrap();
        assert_eq!(stored(&store).await, [0, 0, 1, 0, 2, 0, 3, 0, 4, 0]);
        assert_eq!((writer.waiting_bytes(), writer.last()), (0, Position::new(10)));
    }

    #[tokio::test]
    async fn there_is_no_room_while_what_was_appended_waits_for_a_store_that_takes_its_time() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let writer = writer(&store);
        let hold = writer.hold();
        writer.append([Bytes::from(vec![0; 100])]).unwrap();
        let mut room = Box::pin(writer.room(99));
        assert!(futures_util::poll!(&mut room).is_pending());
        writer.room(100).await.unwrap();
        drop(hold);
        room.await.unwrap();
    }

    fn writer_that_lingers(store: &Arc<dyn Store>, linger: Duration) -> Arc<Writer> {
        Writer::make(Arc::clone(store), StreamId::new("s").unwrap(), Position::ZERO, None, linger)
    }

    #[tokio::test]
    async fn a_record_that_may_wait_is_written_with_the_next_or_when_it_is_asked_for() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let writer = writer_that_lingers(&store, Duration::from_secs(3600));
        writer.append_soon(record(1)).unwrap();
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        assert!(stored(&store).await.is_empty());
        let mark = writer.append(record(2)).unwrap();
        writer.reached(|progress| progress.durable >= mark.0).await.unwrap();
        assert_eq!(stored(&store).await, [1, 2]);
        let mark = writer.append_soon(record(3)).unwrap();
        writer.durable(mark).await.unwrap();
        assert_eq!(stored(&store).await, [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_record_that_may_wait_is_written_after_a_moment() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let writer = writer_that_lingers(&store, Duration::from_millis(1));
        for n in 1..=2 {
            writer.append_soon(record(n)).unwrap();
            writer.progress.subscribe().wait_for(|progress| progress.durable == u64::from(n)).await.unwrap();
        }
        assert_eq!(stored(&store).await, [1, 2]);
    }

    #[tokio::test]
    async fn a_second_writer_of_the_same_stream_is_fenced() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let (first, second) = (writer(&store), writer(&store));
        let mark = first.append(record(1)).unwrap();
        first.durable(mark).await.unwrap();
        let mark = second.append(record(2)).unwrap();
        assert!(second.durable(mark).await.is_err());
        assert!(second.room(usize::MAX).await.is_err());
        assert!(matches!(second.failed().await, StoreError::Conflict { .. }));
        assert!(second.append(record(3)).is_err());
    }
}
