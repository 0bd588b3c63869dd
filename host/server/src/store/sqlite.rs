//! Streams in one SQLite file, for one host.
//!
//! One thread owns the connection that writes. It takes whatever appends wait and commits them together, so the more
//! there are in flight the fewer syncs each costs; while a commit runs the next group gathers, and nobody waits for a
//! group to fill. Conditions are checked by that thread inside the transaction, which is why a lost race cannot fail
//! its neighbours. A failure of the disk does fail the whole group, and everyone in it is told.
//!
//! After a commit, and not before, the group's records go into a bounded cache (`recent.rs`). Those
//! who follow a live stream read from there and cost no SQL; history is read by a few read connections beside the
//! writer, which write-ahead logging lets run undisturbed.
//!
//! A damaged file is refused when it is opened, as far as it shows in a moment: to write among pages that contradict
//! each other may cost what can still be read. Damage that shows later fails what has to do with it and nothing else.

mod file;
mod queue;
mod reading;
mod recent;
mod sweep;

use std::{
    cell::Cell,
    collections::{HashMap, hash_map::Entry},
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use self::{
    file::{Newest, check_for_reading, failure, hold, is_damage, open_for_writing, select_newest},
    queue::Queue,
    reading::{LAST_MAX, Readers, key, select_begun, select_head, select_records, select_size_bytes, select_streams},
    recent::{Recent, record_bytes_max},
    sweep::{Sweep, select_removed, sweep},
};
use super::{Begun, Position, Store, StoreError, Stored, StreamId, Waiters, check_size, lock};

/// How a [`Sqlite`] store trades memory and safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// What an append survives once it is acknowledged.
    pub synchronous: Synchronous,
    /// A group is committed once it has this many records, even if more appends wait.
    pub group_max_records: usize,
    /// A group is committed once it has this many bytes, even if more appends wait.
    pub group_max_bytes: usize,
    /// How much memory recent records may take, overhead included.
    pub cache_bytes: usize,
    /// How many reads of history run at once; at least one.
    pub read_connections: usize,
    /// How long opening may look for damage; a file that takes longer is used with what was not looked at.
    pub check_time: Duration,
}

/// What an acknowledged append survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// The loss of power: a commit waits for the disk.
    #[default]
    Full,
    /// The death of the process, but the last commits may go with the power. The file stays sound.
    Normal,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::Full,
            group_max_records: 1024,
            group_max_bytes: 16 << 20,
            cache_bytes: 64 << 20,
            read_connections: 4,
            check_time: Duration::from_secs(1),
        }
    }
}

/// An engine that keeps streams in a SQLite file.
///
/// Only one process at a time can have the file open. Dropping the store finishes what was asked of it in the
/// background; [`Sqlite::close`] waits for that, so that the file can be opened again.
pub struct Sqlite {
    file: PathBuf,
    /// Without a bound, since a bounded queue hands out places and not turns: a sender that had to wait could be
    /// overtaken. It holds no more than the callers who wait for an answer; what others left behind is skipped.
    messages: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens the store in `file`, and makes it if there is none.
    ///
    /// It blocks for as long as the disk takes. A store that was not closed is recovered by this.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if another process has it open; [`StoreError::Unusable`] if the file is damaged, not ours,
    /// or of a newer version; [`StoreError::Io`] if it cannot be opened. Each names the file.
    pub fn open(file: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let (store, writer) = Self::assemble(file, options)?;
        writer.spawn()?;
        Ok(store)
    }

    /// Opens the store in `file` to look at it, while a host is running on it or after it was stopped or killed.
    ///
    /// It changes nothing and keeps nobody from the file. Damage is met where it is read, so what is whole can be read.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`] if the file is not ours or of another version; [`StoreError::Io`] if there is none or
    /// it cannot be opened. Each names the file.
    pub fn open_for_reading(file: &Path) -> Result<SqliteReader, StoreError> {
        check_for_reading(file).map_err(|error| error.of(file))?;
        Ok(SqliteReader { file: file.to_owned(), readers: Readers::new(file, 1) })
    }

    fn assemble(file: &Path, options: SqliteOptions) -> Result<(Self, Writer), StoreError> {
        let lock = hold(file)?;
        let opened = open_for_writing(file, &options).and_then(|connection| {
            let (newest, removed) = (select_newest(&connection)?, select_removed(&connection)?);
            Ok((connection, newest, removed))
        });
        let (connection, newest, removed) = opened.map_err(|error| error.of(file))?;
        let shared = Arc::new(Shared {
            recent: Mutex::new(Recent::with_capacity(options.cache_bytes)),
            waiters: Waiters::default(),
        });
        let (sender, messages) = mpsc::unbounded_channel();
        let writer = Writer {
            connection,
            _lock: lock,
            queue: Queue::new(messages),
            newest: Cell::new(newest),
            sweep: Sweep::of(removed),
            shared: Arc::clone(&shared),
            file: file.to_owned(),
            options,
        };
        let readers = Readers::new(file, options.read_connections);
        Ok((Self { file: file.to_owned(), messages: sender, shared, readers }, writer))
    }

    /// Closes the store, and returns when the file is complete and can be opened again.
    ///
    /// What was asked before is still done. Whoever waits for a stream to grow is told [`StoreError::Closed`], as is
    /// everyone who comes later. Closing twice is closing once.
    pub async fn close(&self) {
        self.shared.waiters.close();
        self.readers.close().await;
        // It may be closed already, and then nobody listens.
        let _ = self.messages.send(Message::Close);
        self.messages.closed().await;
    }

    /// Has the writer do something, for one stream in the order in which this was first polled.
    async fn ask(&self, stream: &StreamId, action: Action) -> Result<Head, StoreError> {
        if self.shared.waiters.is_closed() {
            return Err(StoreError::Closed);
        }
        let (reply, outcome) = oneshot::channel();
        let command = Command { stream: stream.clone(), action, reply };
        self.messages.send(Message::Do(command)).map_err(|_| StoreError::Closed)?;
        outcome.await.unwrap_or(Err(StoreError::Closed))
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn append(&self, stream: &StreamId, last: Position, records: Vec<Bytes>) -> Result<Position, StoreError> {
        check_size(&records)?;
        Ok(self.ask(stream, Action::Append { last, records }).await?.last())
    }

    async fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Result<Vec<Stored>, StoreError> {
        if self.shared.waiters.is_closed() {
            return Err(StoreError::Closed);
        }
        if let Some(records) = lock(&self.shared.recent).read(stream, after, limit) {
            return Ok(records);
        }
        let stream = stream.clone();
        self.readers.with(move |connection| select_records(connection, &stream, after, limit)).await
    }

    async fn grown(&self, stream: &StreamId, after: Position) -> Result<(), StoreError> {
        let waiter = self.shared.waiters.enter(stream)?;
        let known = lock(&self.shared.recent).head(stream);
        let head = match known {
            Some(head) => head,
            None => self.ask(stream, Action::Look).await?,
        };
        if head.has_after(after) { Ok(()) } else { waiter.past(after).await }
    }

    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Position)>, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.readers.with(move |connection| select_streams(connection, &prefix, after.as_ref(), limit)).await
    }

    async fn trim(&self, stream: &StreamId, up_to: Position) -> Result<(), StoreError> {
        self.ask(stream, Action::Trim { up_to }).await.map(drop)
    }

    async fn remove(&self, stream: &StreamId, last: Position) -> Result<(), StoreError> {
        self.ask(stream, Action::Remove { last }).await.map(drop)
    }

    async fn begun(&self, after: u64, limit: usize) -> Result<Vec<Begun>, StoreError> {
        self.readers.with(move |connection| select_begun(connection, after, limit)).await
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        self.readers.with(select_size_bytes).await
    }
}

/// A [`Sqlite`] store that can only be read: see [`Sqlite::open_for_reading`].
#[derive(Debug)]
pub struct SqliteReader {
    file: PathBuf,
    readers: Arc<Readers>,
}

#[async_trait]
impl Store for SqliteReader {
    async fn append(&self, _: &StreamId, _: Position, _: Vec<Bytes>) -> Result<Position, StoreError> {
        Err(StoreError::ReadOnly(self.file.clone()))
    }

    async fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let stream = stream.clone();
        self.readers.with(move |connection| select_records(connection, &stream, after, limit)).await
    }

    async fn grown(&self, stream: &StreamId, after: Position) -> Result<(), StoreError> {
        // Who writes is another process and tells nobody.
        while self.read(stream, after, 1).await?.is_empty() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Position)>, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.readers.with(move |connection| select_streams(connection, &prefix, after.as_ref(), limit)).await
    }

    async fn trim(&self, _: &StreamId, _: Position) -> Result<(), StoreError> {
        Err(StoreError::ReadOnly(self.file.clone()))
    }

    async fn remove(&self, _: &StreamId, _: Position) -> Result<(), StoreError> {
        Err(StoreError::ReadOnly(self.file.clone()))
    }

    async fn begun(&self, after: u64, limit: usize) -> Result<Vec<Begun>, StoreError> {
        self.readers.with(move |connection| select_begun(connection, after, limit)).await
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        self.readers.with(select_size_bytes).await
    }
}

/// What the writer and those who read share.
struct Shared {
    recent: Mutex<Recent>,
    waiters: Waiters,
}

enum Message {
    Do(Command),
    Close,
}

struct Command {
    stream: StreamId,
    action: Action,
    reply: oneshot::Sender<Outcome>,
}

enum Action {
    Append {
        last: Position,
        records: Vec<Bytes>,
    },
    Trim {
        up_to: Position,
    },
    Remove {
        last: Position,
    },
    /// Says where the stream ends. The writer is asked, since it alone knows without a race.
    Look,
}

impl Command {
    /// How many records and bytes it writes.
    fn size(&self) -> (usize, usize) {
        match &self.action {
            Action::Append { records, .. } => (records.len(), records.iter().map(Bytes::len).sum()),
            Action::Trim { .. } | Action::Remove { .. } | Action::Look => (0, 0),
        }
    }
}

type Outcome = Result<Head, StoreError>;

/// Where a stream begins and ends: its records are those after `trimmed`, up to `last`, without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    /// The stream's place in the file, if it exists.
    id: Option<i64>,
    trimmed: u64,
    last: u64,
}

impl Head {
    fn last(self) -> Position {
        Position::new(self.last)
    }

    fn has_after(self, after: Position) -> bool {
        self.last > self.trimmed.max(after.get())
    }
}

/// What a group does to one stream, known to nobody until it is committed.
#[derive(Default)]
struct Change {
    /// Whether it was removed, and `added` is all that it has.
    anew: bool,
    head: Head,
    added: Vec<Bytes>,
}

/// The thread that writes. Its fields are dropped in this order: the file is complete before it is unlocked, and
/// unlocked before [`Sqlite::close`] returns, which waits for `queue` to go.
struct Writer {
    connection: Connection,
    _lock: File,
    queue: Queue,
    newest: Cell<Newest>,
    sweep: Sweep,
    shared: Arc<Shared>,
    file: PathBuf,
    options: SqliteOptions,
}

impl Writer {
    fn spawn(self) -> Result<(), StoreError> {
        let file = self.file.clone();
        match thread::Builder::new().name("leasehold-store".into()).spawn(move || self.run()) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(StoreError::Io(format!("cannot start the thread that writes {}: {error}", file.display())))
            }
        }
    }

    fn run(mut self) {
        loop {
            self.wait();
            if self.queue.is_over() {
                return;
            }
            let group = self.queue.group(&self.options);
            if group.is_empty() {
                continue;
            }
            self.see_through(group);
        }
    }

    /// Does a group and tells everyone in it.
    fn see_through(&mut self, group: Vec<Command>) {
        match self.commit(&group) {
            Ok((outcomes, changes)) => {
                self.publish(changes);
                for (command, outcome) in group.into_iter().zip(outcomes) {
                    if let (Action::Remove { .. }, Ok(Head { id: Some(id), .. })) = (&command.action, &outcome) {
                        self.sweep.add(*id, command.reply);
                        continue;
                    }
                    // Whoever asked may have gone; the append stands.
                    let _ = command.reply.send(outcome);
                }
            }
            // The damage may be where only one of them writes.
            Err(error) if is_damage(&error) && group.len() > 1 => {
                for command in group {
                    self.see_through(vec![command]);
                }
            }
            Err(error) => {
                let error = failure("write", &self.file, &error);
                tracing::error!(%error, appends = group.len(), "a group of appends failed");
                for command in group {
                    let _ = command.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Waits for something to do. While there is nothing, and now and then while there is, what was removed is cleared
    /// away.
    fn wait(&mut self) {
        loop {
            self.queue.receive();
            if !self.sweep.is_done() && self.sweep.is_due(self.queue.is_empty()) {
                self.sweep.step(|places| transaction(&self.connection, || sweep(&self.connection, places)));
            } else {
                return self.queue.wait();
            }
            if !self.queue.is_empty() || self.queue.is_over() {
                return;
            }
        }
    }

    /// Does a group in one transaction. If it fails, nothing of it was done and nothing in memory has changed.
    fn commit(&self, group: &[Command]) -> rusqlite::Result<(Vec<Outcome>, HashMap<StreamId, Change>)> {
        transaction(&self.connection, || self.perform(group))
    }

    fn perform(&self, group: &[Command]) -> rusqlite::Result<(Vec<Outcome>, HashMap<StreamId, Change>)> {
        let mut outcomes = Vec::with_capacity(group.len());
        let mut changes: HashMap<StreamId, Change> = HashMap::with_capacity(group.len());
        for Command { stream, action, .. } in group {
            let change = match changes.entry(stream.clone()) {
                Entry::Occupied(change) => change.into_mut(),
                Entry::Vacant(unchanged) => {
                    let known = lock(&self.shared.recent).head(stream);
                    let head = known.map_or_else(|| select_head(&self.connection, stream), Ok)?;
                    unchanged.insert(Change { head, ..Change::default() })
                }
            };
            outcomes.push(match action {
                Action::Append { last, .. } if *last != change.head.last() => {
                    Err(StoreError::Conflict { last: change.head.last() })
                }
                Action::Append { records, .. } => self.append(stream, change, records)?,
                Action::Trim { up_to } => {
                    self.trim(&mut change.head, up_to.get())?;
                    Ok(change.head)
                }
                Action::Remove { last } if *last != change.head.last() => {
                    Err(StoreError::Conflict { last: change.head.last() })
                }
                Action::Remove { .. } => Ok(self.remove(change)?),
                Action::Look => Ok(change.head),
            });
        }
        Ok((outcomes, changes))
    }

    fn append(&self, stream: &StreamId, change: &mut Change, records: &[Bytes]) -> rusqlite::Result<Outcome> {
        let Change { head, added, .. } = change;
        if records.is_empty() {
            return Ok(Ok(*head));
        }
        if head.last + records.len() as u64 > LAST_MAX {
            return Ok(Err(StoreError::Full(stream.clone())));
        }
        let id = match head.id {
            Some(id) => id,
            None => self.begin(stream)?,
        };
        head.id = Some(id);
        let mut insert = self.connection.prepare_cached("INSERT INTO records (key, bytes) VALUES (?1, ?2)")?;
        let cacheable_bytes = record_bytes_max(self.options.cache_bytes);
        for record in records {
            head.last += 1;
            insert.execute(params![key(id, head.last), &record[..]])?;
            // Copied, because it may be a small part of a large buffer, which the cache would keep alive.
            added.push(if record.len() > cacheable_bytes { record.clone() } else { Bytes::copy_from_slice(record) });
        }
        Ok(Ok(*head))
    }

    /// Makes a stream, with the next number and the next free place.
    fn begin(&self, stream: &StreamId) -> rusqlite::Result<i64> {
        let newest = self.newest.get().next(|id| {
            // Places are used again when all have been, which takes two thousand million streams.
            let mut taken = self.connection.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM streams WHERE id = ?1) OR EXISTS (SELECT 1 FROM removed WHERE id = ?1)",
            )?;
            taken.query_row([id], |row| row.get(0))
        })?;
        // Should the transaction fail, this number and place are skipped.
        self.newest.set(newest);
        self.connection
            .prepare_cached("INSERT INTO streams (id, name, trimmed, number) VALUES (?1, ?2, 0, ?3)")?
            .insert(params![newest.id, stream.as_str(), newest.number])?;
        Ok(newest.id)
    }

    /// Takes a stream out of the file but for its records, and returns what it was.
    fn remove(&self, change: &mut Change) -> rusqlite::Result<Head> {
        let Some(id) = change.head.id else { return Ok(change.head) };
        self.connection.prepare_cached("DELETE FROM streams WHERE id = ?1")?.execute([id])?;
        self.connection.prepare_cached("INSERT INTO removed (id) VALUES (?1)")?.execute([id])?;
        // It may have been the newest, and no other may have its number.
        let newest = self.newest.get();
        self.connection
            .prepare_cached("UPDATE newest SET number = ?1, id = ?2")?
            .execute([newest.number, newest.id])?;
        let removed = change.head;
        *change = Change { anew: true, ..Change::default() };
        Ok(removed)
    }

    fn trim(&self, head: &mut Head, up_to: u64) -> rusqlite::Result<()> {
        let up_to = up_to.min(head.last);
        if let Some(id) = head.id.filter(|_| up_to > head.trimmed) {
            self.connection
                .prepare_cached("DELETE FROM records WHERE key > ?1 AND key <= ?2")?
                .execute([key(id, head.trimmed), key(id, up_to)])?;
            self.connection.prepare_cached("UPDATE streams SET trimmed = ?2 WHERE id = ?1")?.execute(params![
                id,
                // No greater than a key's position, so it fits.
                up_to.cast_signed()
            ])?;
            head.trimmed = up_to;
        }
        Ok(())
    }

    /// Lets everyone see what was committed, before those who asked for it are told.
    fn publish(&self, changes: HashMap<StreamId, Change>) {
        let last = |change: &Change| {
            if change.head.has_after(Position::ZERO) { change.head.last() } else { Position::ZERO }
        };
        let ends: Vec<_> = changes.iter().map(|(stream, change)| (stream.clone(), last(change), change.anew)).collect();
        // Who looks into the cache must find those who wait there to know no less, nor of records that are gone.
        let shrunk = ends.iter().filter(|(_, last, anew)| *anew || *last == Position::ZERO);
        self.shared.waiters.announce(shrunk.map(|(stream, ..)| (stream, Position::ZERO)));
        {
            let mut recent = lock(&self.shared.recent);
            for (stream, change) in changes {
                recent.note(stream, change);
            }
        }
        self.shared.waiters.announce(ends.iter().map(|(stream, last, _)| (stream, *last)));
    }
}

impl Drop for Writer {
    /// Also runs should the thread panic, so that nobody waits for a writer that is gone.
    fn drop(&mut self) {
        self.shared.waiters.close();
        let checkpoint = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checkpoint {
            // Nothing is lost: the log is read when the file is opened again.
            tracing::warn!(file = %self.file.display(), %error, "the write-ahead log was not taken into the store");
        }
    }
}

/// Does something as a whole or not at all.
fn transaction<T>(connection: &Connection, work: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let done = work().and_then(|done| {
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(done)
    });
    // Some failures have ended the transaction by themselves.
    if done.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    done
}

/// How often one who waits for another process to write looks whether it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::{
        env,
        future::{Future, poll_fn},
        io::{BufRead as _, BufReader},
        ops::Deref,
        pin::Pin,
        process::{self, Stdio},
        task::Poll,
    };

    use tempfile::TempDir;

    use super::{queue::GROUP_COMMANDS_MAX, recent::NAMED_BYTES, *};

    /// A store with the directory it lives in.
    struct Temporary {
        store: Sqlite,
        directory: TempDir,
    }

    impl Temporary {
        fn open(options: SqliteOptions) -> Self {
            let directory = TempDir::new().unwrap();
            Self { store: Sqlite::open(&directory.path().join("store.db"), options).unwrap(), directory }
        }

        async fn reopen(self) -> Self {
            self.store.close().await;
            let store = Sqlite::open(&self.store.file, SqliteOptions::default()).unwrap();
            Self { store, directory: self.directory }
        }
    }

    impl Deref for Temporary {
        type Target = Sqlite;

        fn deref(&self) -> &Sqlite {
            &self.store
        }
    }

    crate::store::conformance::suite!(Temporary::open(SqliteOptions::default()));

    /// Every read and every condition goes to the file.
    mod without_a_cache {
        use super::*;

        crate::store::conformance::suite!(Temporary::open(SqliteOptions {
            cache_bytes: 0,
            read_connections: 1,
            ..SqliteOptions::default()
        }));
    }

    /// What is cached changes all the time, and no two appends share a commit.
    mod with_a_small_cache_and_no_groups {
        use super::*;

        crate::store::conformance::suite!(Temporary::open(SqliteOptions {
            cache_bytes: 4096,
            group_max_records: 1,
            synchronous: Synchronous::Normal,
            ..SqliteOptions::default()
        }));
    }

    fn id(name: impl fmt::Display) -> StreamId {
        StreamId::new(&name.to_string()).unwrap()
    }

    fn text(text: impl fmt::Display) -> Bytes {
        text.to_string().into()
    }

    async fn poll_once<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }

    /// What comes of a future that was polled once.
    async fn outcome<T>(future: impl Future<Output = T>, polled: Poll<T>) -> T {
        match polled {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => future.await,
        }
    }

    #[tokio::test]
    async fn a_closed_store_opens_again_with_everything_in_it() {
        let store = Temporary::open(SqliteOptions::default());
        let last = store.append(&id("a"), Position::ZERO, vec![text("x"), text("y")]).await.unwrap();
        store.trim(&id("a"), Position::new(1)).await.unwrap();
        store.close().await;
        assert!(!store.directory.path().join("store.db-wal").exists(), "the log was taken into the file");
        let store = store.reopen().await;
        let read = store.read(&id("a"), Position::ZERO, 9).await.unwrap();
        assert_eq!(read, [Stored { position: last, bytes: text("y") }]);
        assert_eq!(store.append(&id("a"), last, vec![text("z")]).await, Ok(Position::new(3)));
    }

    #[tokio::test]
    async fn a_closed_store_does_what_it_was_asked_before_and_nothing_after() {
        let store = Temporary::open(SqliteOptions::default());
        let (a, b) = (id("a"), id("b"));
        let mut waiting = std::pin::pin!(store.grown(&b, Position::ZERO));
        assert!(poll_once(waiting.as_mut()).await.is_pending());
        let mut before = std::pin::pin!(store.append(&a, Position::ZERO, vec![text("x")]));
        let polled = poll_once(before.as_mut()).await;
        tokio::join!(store.close(), store.close());
        assert_eq!(outcome(before, polled).await, Ok(Position::new(1)));
        assert_eq!(waiting.await, Err(StoreError::Closed));
        assert_eq!(store.append(&a, Position::new(1), vec![text("y")]).await, Err(StoreError::Closed));
        assert_eq!(store.read(&a, Position::ZERO, 1).await, Err(StoreError::Closed));
        assert_eq!(store.grown(&a, Position::ZERO).await, Err(StoreError::Closed));
        assert_eq!(store.streams("", None, 1).await, Err(StoreError::Closed));
        assert_eq!(store.trim(&a, Position::new(1)).await, Err(StoreError::Closed));
        store.close().await;
    }

    #[tokio::test]
    async fn a_store_in_use_is_not_opened_twice() {
        let store = Temporary::open(SqliteOptions::default());
        let error = Sqlite::open(&store.file, SqliteOptions::default()).unwrap_err();
        let holder = format!("process {}", process::id());
        assert_eq!(error, StoreError::InUse { file: store.file.clone(), holder });
        assert!(error.to_string().starts_with("another leasehold host uses /"), "{error}");
        assert!(store.append(&id("a"), Position::ZERO, vec![text("x")]).await.is_ok(), "and the first goes on");
    }

    /// Whatever is in the file, the error names it and the file stays as it was.
    #[test]
    fn a_file_that_is_no_store_of_ours_is_refused() {
        let database =
            |sql: &'static str| move |file: &Path| Connection::open(file).unwrap().execute_batch(sql).unwrap();
        let newer = move |file: &Path| {
            drop(open_for_writing(file, &SqliteOptions::default()).unwrap());
            database("PRAGMA user_version = 3")(file);
        };
        let hollow = move |file: &Path| {
            drop(open_for_writing(file, &SqliteOptions::default()).unwrap());
            let mut bytes = std::fs::read(file).unwrap();
            bytes[100..].fill(0xee);
            std::fs::write(file, bytes).unwrap();
        };
        type Make<'a> = &'a dyn Fn(&Path);
        let table: [(&str, Make); 5] = [
            ("is not a store", &|file| std::fs::write(file, "a text ".repeat(1000)).unwrap()),
            ("is a database of another program", &database("CREATE TABLE other (x)")),
            ("is a database of another program", &database("PRAGMA application_id = 7")),
            ("has format 3, and this host knows formats up to 2", &newer),
            ("is damaged", &hollow),
        ];
        for (reason, make) in table {
            let directory = TempDir::new().unwrap();
            let file = directory.path().join("store.db");
            make(&file);
            let before = std::fs::read(&file).unwrap();
            let error = Sqlite::open(&file, SqliteOptions::default()).unwrap_err();
            let expected = format!("{} {reason}", file.display());
            assert!(error.to_string().starts_with(&expected), "{error}, not {expected}");
            assert_eq!(std::fs::read(&file).unwrap(), before, "{reason}");
        }
        let nowhere = Sqlite::open(Path::new("/nowhere/store.db"), SqliteOptions::default()).unwrap_err();
        assert!(nowhere.to_string().starts_with("cannot open /nowhere/store.db"), "{nowhere}");
    }

    #[tokio::test]
    async fn a_store_can_be_read_beside_its_host_and_after_it() {
        let store = Temporary::open(SqliteOptions::default());
        let (a, b) = (id("a"), id("b"));
        store.append(&a, Position::ZERO, vec![text("x"), text("y")]).await.unwrap();
        let reader = Sqlite::open_for_reading(&store.file).unwrap();
        assert_eq!(reader.read(&a, Position::new(1), 9).await.unwrap()[0].bytes, "y");
        assert_eq!(reader.streams("", None, 9).await, Ok(vec![(a.clone(), Position::new(2))]));
        assert_eq!(reader.begun(0, 9).await, store.begun(0, 9).await);
        assert_eq!(reader.size_bytes().await, store.size_bytes().await);
        let mut waiting = std::pin::pin!(reader.grown(&b, Position::ZERO));
        assert!(poll_once(waiting.as_mut()).await.is_pending());
        store.append(&b, Position::ZERO, vec![text("z")]).await.unwrap();
        assert_eq!(waiting.await, Ok(()));
        let refused = StoreError::ReadOnly(store.file.clone());
        assert_eq!(reader.append(&a, Position::new(2), vec![text("x")]).await, Err(refused.clone()));
        assert_eq!(reader.remove(&a, Position::new(2)).await, Err(refused.clone()));
        assert_eq!(reader.trim(&a, Position::new(2)).await, Err(refused));

        // As a kill leaves it: with a log that nobody has taken into the file.
        let killed = TempDir::new().unwrap();
        let file = killed.path().join("store.db");
        for name in ["store.db", "store.db-wal"] {
            std::fs::copy(store.directory.path().join(name), killed.path().join(name)).unwrap();
        }
        let log = std::fs::read(killed.path().join("store.db-wal")).unwrap();
        let reader = Sqlite::open_for_reading(&file).unwrap();
        assert_eq!(reader.read(&b, Position::ZERO, 9).await.unwrap()[0].bytes, "z");
        reader.readers.close().await;
        assert_eq!(std::fs::read(killed.path().join("store.db-wal")).unwrap(), log, "it is left as it was");

        let store = store.reopen().await;
        store.close().await;
        let reader = Sqlite::open_for_reading(&store.file).unwrap();
        assert_eq!(reader.read(&a, Position::ZERO, 9).await.unwrap().len(), 2, "and after a clean stop");
        let nothing = Sqlite::open_for_reading(&killed.path().join("nothing.db")).unwrap_err();
        assert!(nothing.to_string().starts_with("cannot open /"), "{nothing}");
        assert!(!killed.path().join("nothing.db").exists());
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_a_store() {
        use std::os::unix::fs::PermissionsExt as _;

        let store = Temporary::open(SqliteOptions::default());
        for entry in std::fs::read_dir(store.directory.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
    }

    /// More than fit one group, while the writer is already at work.
    #[tokio::test]
    async fn appends_take_effect_in_the_order_they_were_first_polled() {
        let store = Temporary::open(SqliteOptions::default());
        let stream = id("a");
        let expected = 2 * GROUP_COMMANDS_MAX as u64;
        let mut appends = vec![];
        for number in 0..expected {
            let mut append = Box::pin(store.append(&stream, Position::new(number), vec![text(number)]));
            let polled = poll_once(append.as_mut()).await;
            appends.push((append, polled));
        }
        for (number, (append, polled)) in (1..).zip(appends) {
            assert_eq!(outcome(append, polled).await, Ok(Position::new(number)));
        }
    }

    /// Large ones may have to wait for others; what follows them in their stream then waits, too.
    #[tokio::test]
    async fn appends_to_a_stream_keep_their_order_whatever_their_size() {
        const SIZES: [usize; 6] = [300 << 10, 1, 20 << 10, 300 << 10, 1, 1];
        let store = Temporary::open(SqliteOptions::default());
        let streams = [id("a"), id("b"), id("c")];
        let mut appends = vec![];
        for stream in &streams {
            for (size, number) in SIZES.into_iter().zip(0..) {
                let record = vec![vec![b'x'; size].into()];
                let mut append = Box::pin(store.append(stream, Position::new(number), record));
                let polled = poll_once(append.as_mut()).await;
                appends.push((append, polled, number + 1));
            }
        }
        for (append, polled, last) in appends {
            assert_eq!(outcome(append, polled).await, Ok(Position::new(last)));
        }
        for stream in &streams {
            let read = store.read(stream, Position::ZERO, 9).await.unwrap();
            assert_eq!(read.iter().map(|stored| stored.bytes.len()).collect::<Vec<_>>(), SIZES);
        }
    }

    #[tokio::test]
    async fn an_append_whose_caller_left_is_whole_or_absent() {
        let store = Temporary::open(SqliteOptions { group_max_records: 8, ..SqliteOptions::default() });
        for number in 0..500 {
            let (stream, batch) = (id(number % 50), vec![text(number); 3]);
            let last = store.append(&stream, Position::new(u64::MAX), vec![]).await;
            let Err(StoreError::Conflict { last }) = last else { panic!("{last:?}") };
            let mut append = Box::pin(store.append(&stream, last, batch));
            if poll_once(append.as_mut()).await.is_pending() && number % 3 == 0 {
                append.await.unwrap();
            }
        }
        let store = store.reopen().await;
        for (stream, last) in store.streams("", None, 100).await.unwrap() {
            let read = store.read(&stream, Position::ZERO, 100).await.unwrap();
            assert_eq!(read.len() as u64, last.get());
            assert!(read.chunks(3).all(|batch| batch.len() == 3 && batch.iter().all(|r| r.bytes == batch[0].bytes)));
        }
    }

    /// The disk is full for the one, so it is for all who share its commit, and the store goes on when there is room.
    #[tokio::test]
    async fn a_failed_commit_fails_its_whole_group_and_changes_nothing() {
        let directory = TempDir::new().unwrap();
        let (store, writer) = Sqlite::assemble(&directory.path().join("store.db"), SqliteOptions::default()).unwrap();
        writer.connection.pragma_update(None, "max_page_count", 20).unwrap();
        let (a, b) = (id("a"), id("b"));
        let mut small = std::pin::pin!(store.append(&a, Position::ZERO, vec![text("x")]));
        let mut large = std::pin::pin!(store.append(&b, Position::ZERO, vec![vec![0; 1 << 20].into()]));
        let mut late = std::pin::pin!(store.append(&a, Position::ZERO, vec![text("z")]));
        assert!(poll_once(small.as_mut()).await.is_pending());
        assert!(poll_once(large.as_mut()).await.is_pending());
        assert!(poll_once(late.as_mut()).await.is_pending());
        writer.spawn().unwrap();
        for outcome in [small.await, large.await, late.await] {
            assert!(matches!(&outcome, Err(StoreError::Io(text)) if text.contains("full")), "{outcome:?}");
        }
        assert_eq!(store.read(&a, Position::ZERO, 9).await, Ok(vec![]));
        assert_eq!(store.streams("", None, 9).await, Ok(vec![]));
        assert_eq!(store.append(&a, Position::ZERO, vec![text("y")]).await, Ok(Position::new(1)));
        assert_eq!(store.grown(&a, Position::ZERO).await, Ok(()));
    }

    #[tokio::test]
    async fn a_stream_that_is_full_takes_no_more_and_harms_no_other() {
        let store = Temporary::open(SqliteOptions::default());
        let nearly_full = Head { id: None, trimmed: LAST_MAX - 1, last: LAST_MAX - 1 };
        lock(&store.shared.recent).note(id("a"), Change { head: nearly_full, ..Change::default() });
        let last = store.append(&id("a"), nearly_full.last(), vec![text("x")]).await.unwrap();
        assert_eq!(last, Position::new(LAST_MAX));
        assert_eq!(store.append(&id("a"), last, vec![text("y")]).await, Err(StoreError::Full(id("a"))));
        assert_eq!(store.append(&id("b"), Position::ZERO, vec![text("y")]).await, Ok(Position::new(1)));
        let store = store.reopen().await;
        assert_eq!(store.read(&id("a"), Position::new(LAST_MAX - 1), 9).await.unwrap().len(), 1);
        assert_eq!(store.read(&id("a"), last, 9).await, Ok(vec![]));
    }

    /// A kill comes while a long stream is being cleared away, and another while the newest has just gone.
    #[tokio::test]
    async fn a_removed_stream_is_cleared_away_by_the_next_start_and_its_number_is_not_given_again() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("store.db");
        let (store, writer) = Sqlite::assemble(&file, SqliteOptions::default()).unwrap();
        let one_by_one = |action| {
            let (reply, mut outcome) = oneshot::channel();
            let command = Command { stream: id("a"), action, reply };
            let (outcomes, changes) = writer.commit(std::slice::from_ref(&command)).unwrap();
            writer.publish(changes);
            let _ = command.reply.send(outcomes.into_iter().next().unwrap());
            outcome.try_recv().unwrap().unwrap()
        };
        let head = one_by_one(Action::Append { last: Position::ZERO, records: vec![text("x"); 3000] });
        one_by_one(Action::Remove { last: head.last() });
        assert_eq!(store.streams("", None, 9).await, Ok(vec![]));
        let mut steps = Sweep::of([head.id.unwrap()].into());
        steps.step(|places| transaction(&writer.connection, || sweep(&writer.connection, places)));
        assert!(!steps.is_done(), "one step is not enough");
        drop((store, writer));

        let store = Temporary { store: Sqlite::open(&file, SqliteOptions::default()).unwrap(), directory };
        assert_eq!(store.append(&id("b"), Position::ZERO, vec![text("y")]).await, Ok(Position::new(1)));
        let begun = store.begun(0, 9).await.unwrap();
        assert_eq!(begun, [Begun { number: 2, stream: id("b"), last: Position::new(1) }]);
        store.remove(&id("b"), Position::new(1)).await.unwrap();
        let count =
            |sql: &str| Connection::open(&file).unwrap().query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
        assert_eq!((count("SELECT count(*) FROM records"), count("SELECT count(*) FROM removed")), (0, 0));
        let store = store.reopen().await;
        store.append(&id("c"), Position::ZERO, vec![text("z")]).await.unwrap();
        assert_eq!(store.begun(0, 9).await.unwrap()[0].number, 3);
    }

    #[test]
    fn a_place_is_used_again_only_when_all_have_been_and_it_is_free() {
        let taken = |taken: &'static [i64]| move |id: i64| Ok(taken.contains(&id));
        for (newest, taken, expected) in [
            ((7, 4), taken(&[]), (8, 5)),
            ((7, 0x7fff_ffff), taken(&[]), (8, 1)),
            ((7, 0x7fff_fffe), taken(&[0x7fff_ffff, 1, 2, 4]), (8, 3)),
        ] {
            let next = Newest { number: newest.0, id: newest.1 }.next(taken).unwrap();
            assert_eq!((next.number, next.id), expected);
        }
        assert_eq!(key(0x7fff_ffff, LAST_MAX), i64::MAX);
    }

    #[tokio::test]
    async fn a_file_of_the_first_format_is_brought_up_to_date() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("store.db");
        Connection::open(&file)
            .unwrap()
            .execute_batch(
                "CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, trimmed INTEGER NOT NULL) STRICT;
                 CREATE TABLE records (key INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
                 INSERT INTO streams VALUES (1, 'b', 0), (2, 'a', 1);
                 INSERT INTO records VALUES (1 << 32 | 1, x'61'), (2 << 32 | 2, x'62');
                 PRAGMA application_id = 1279607123;
                 PRAGMA user_version = 1;",
            )
            .unwrap();
        let mut store = Temporary { store: Sqlite::open(&file, SqliteOptions::default()).unwrap(), directory };
        for _ in 0..2 {
            let begun = |number, name, last| Begun { number, stream: id(name), last: Position::new(last) };
            assert_eq!(store.begun(0, 9).await, Ok(vec![begun(1, "b", 1), begun(2, "a", 2)]));
            assert_eq!(store.read(&id("a"), Position::ZERO, 9).await.unwrap()[0].bytes, "b");
            let c = store.append(&id("c"), Position::ZERO, vec![text("c")]).await.unwrap();
            assert_eq!(store.begun(2, 9).await.unwrap()[0].stream, id("c"));
            store.remove(&id("c"), c).await.unwrap();
            store = store.reopen().await;
        }
    }

    /// Streams come and go, and of those that are quiet nothing stays in memory.
    #[tokio::test]
    async fn memory_is_bounded_however_many_streams_there_were() {
        let cache_bytes = 100 * NAMED_BYTES;
        let store = Arc::new(Temporary::open(SqliteOptions { cache_bytes, ..SqliteOptions::default() }));
        for round in 0..100 {
            let mut jobs = tokio::task::JoinSet::new();
            for number in 0..50 {
                let (store, stream) = (Arc::clone(&store), id(format_args!("job/{round}/{number}")));
                jobs.spawn(async move {
                    let last = store.append(&stream, Position::ZERO, vec![text("x"); 3]).await.unwrap();
                    store.grown(&stream, Position::ZERO).await.unwrap();
                    let last = match number % 2 {
                        0 => store.trim(&stream, last).await.map(|()| last),
                        _ => store.remove(&stream, last).await.map(|()| Position::ZERO),
                    };
                    let last = store.append(&stream, last.unwrap(), vec![text("y")]).await.unwrap();
                    let mut leaving = std::pin::pin!(store.grown(&stream, last));
                    assert!(poll_once(leaving.as_mut()).await.is_pending());
                });
            }
            jobs.join_all().await;
        }
        assert_eq!(store.streams("", None, 9999).await.unwrap().len(), 5000);
        let recent = lock(&store.shared.recent);
        let tail_bytes: usize = recent.streams.values().flat_map(|known| &known.tail).map(Bytes::len).sum();
        assert_eq!(recent.tail_bytes, tail_bytes);
        assert_eq!(recent.order.len(), recent.streams.values().map(|known| known.named).sum::<usize>());
        assert!(tail_bytes + recent.order.len() * NAMED_BYTES <= cache_bytes);
        assert!(recent.streams.len() <= 100, "{}", recent.streams.len());
        assert!(lock(&store.shared.waiters.streams).as_ref().unwrap().is_empty());
    }

    /// Each row is a change to one stream and what the cache can then answer for, as the positions after which it knows.
    #[test]
    fn the_cache_answers_only_for_what_it_has_without_a_gap() {
        let mut recent = Recent::with_capacity(8 * NAMED_BYTES);
        let mut head = Head { id: Some(1), trimmed: 0, last: 10 };
        let big = record_bytes_max(recent.bytes_max) + 1;
        for (added, trimmed, known_after) in [
            (vec![], 0, 10..=11),     // the stream was only looked at
            (vec![1, 1], 0, 10..=13), // 11, 12
            (vec![1], 11, 0..=14),    // all that is left, whatever the reader has seen
            (vec![1], 0, 0..=15),
            (vec![1, big, 1], 0, 16..=18), // 16 is in the file
            (vec![big], 0, 18..=19),
            (vec![1], 0, 18..=20),
        ] {
            head.last += added.len() as u64;
            head.trimmed = head.trimmed.max(trimmed);
            let added = added.into_iter().map(|size| Bytes::from(vec![7; size])).collect::<Vec<_>>();
            recent.note(id("a"), Change { head, added, anew: false });
            for after in 0..=22 {
                let read = recent.read(&id("a"), Position::new(after), 99);
                let expected = (after >= *known_after.start())
                    .then(|| (after.max(head.trimmed) + 1..=head.last).map(Position::new).collect::<Vec<_>>());
                let read = read.map(|read| read.iter().map(|record| record.position).collect::<Vec<_>>());
                assert_eq!(read, expected, "after {after} of {head:?}");
            }
        }
    }

    const CRASHING: &str = "LEASEHOLD_TEST_CRASHING_STORE";

    /// The test starts itself as another process, which says what was acknowledged until it is killed.
    #[test]
    fn an_acknowledged_record_outlives_a_killed_process() {
        if let Some(file) = env::var_os(CRASHING) {
            return append_until_killed(Path::new(&file));
        }
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("store.db");
        let mut acknowledged: HashMap<StreamId, u64> = HashMap::new();
        for life in 1..=3 {
            let test = concat!(module_path!(), "::an_acknowledged_record_outlives_a_killed_process");
            let (_, test) = test.split_once("::").unwrap();
            let mut child = process::Command::new(env::current_exe().unwrap())
                .args([test, "--exact", "--nocapture"])
                .env(CRASHING, &file)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut told = 0;
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                let line = line.unwrap();
                let Some((_, said)) = line.split_once("acknowledged ") else { continue };
                let Some((stream, position)) = said.strip_suffix('.').and_then(|said| said.split_once(' ')) else {
                    continue; // cut off by the kill
                };
                acknowledged.insert(id(stream), position.parse().unwrap());
                told += 1;
                if told == 500 {
                    child.kill().unwrap();
                }
            }
            assert!(!child.wait().unwrap().success(), "it was killed");
            assert!(told >= 500, "{told} in life {life}");

            crate::store::conformance::run(async {
                let store = Sqlite::open(&file, SqliteOptions::default()).unwrap();
                for (stream, last) in &acknowledged {
                    let (mut after, mut numbers) = (Position::ZERO, 1..);
                    loop {
                        let read = store.read(stream, after, 1000).await.unwrap();
                        let Some(end) = read.last() else { break };
                        after = end.position;
                        for record in read {
                            let number = numbers.next().unwrap();
                            assert_eq!(record.position.get(), number);
                            assert_eq!(record.bytes, text(format_args!("{stream} {number}")));
                        }
                    }
                    assert!(after.get() >= *last, "{stream} ends at {after}, but {last} was acknowledged");
                }
                store.close().await;
            });
        }
    }

    fn append_until_killed(file: &Path) {
        crate::store::conformance::run(async {
            let store = Arc::new(Sqlite::open(file, SqliteOptions::default()).unwrap());
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..8 {
                let (store, stream) = (Arc::clone(&store), id(format!("job/{writer}")));
                writers.spawn(async move {
                    let Err(StoreError::Conflict { mut last }) =
                        store.append(&stream, Position::new(u64::MAX), vec![]).await
                    else {
                        panic!("no stream ends there")
                    };
                    loop {
                        let number = last.get() + 1;
                        let record = text(format_args!("{stream} {number}"));
                        last = store.append(&stream, last, vec![record]).await.unwrap();
                        println!("acknowledged {stream} {last}.");
                    }
                });
            }
            writers.join_all().await;
        });
    }
}
