//! Reading from the file, beside whoever writes it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params, types::Type};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Head,
    file::{failure, is_damage, open_for_reading},
};
use crate::store::{Begun, Position, StoreError, Stored, StreamId, lock, page};

/// The connections that read history, opened when they are first needed.
#[derive(Debug)]
pub(super) struct Readers {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    connections: usize,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// Reads `file` with at most so many connections, and at least one.
    pub(super) fn new(file: &Path, connections: usize) -> Arc<Self> {
        let connections = connections.clamp(1, READ_CONNECTIONS_MAX);
        let permits = Arc::new(Semaphore::new(connections));
        Arc::new(Self { file: file.to_owned(), idle: Mutex::default(), connections, permits })
    }

    pub(super) async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        // In a task of its own: a caller that is not polled for a while must not sit on a permit it was handed.
        let readers = Arc::clone(self);
        let read = AbortOnDropHandle::new(tokio::spawn(async move { readers.read_with(read).await }));
        read.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn read_with<T: Send + 'static>(
        self: Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(&self);
        let task = spawn_blocking(move || {
            // Until the connection is back: `close` counts permits.
            let _permit = permit;
            let idle = lock(&readers.idle).pop();
            let done = idle.map_or_else(|| open_for_reading(&readers.file), Ok).and_then(|connection| {
                let done = read(&connection)?;
                lock(&readers.idle).push(connection);
                Ok(done)
            });
            done.map_err(|error| failure("read", &readers.file, &error))
        });
        task.await.unwrap_or_else(|error| {
            Err(StoreError::Io(format!("a read of {} did not end: {error}", self.file.display())))
        })
    }

    /// Waits for those who read, and lets nobody in again.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.connections).expect("READ_CONNECTIONS_MAX is small");
        // Fails if they are closed already.
        let _all = self.permits.acquire_many(all).await;
        self.permits.close();
        lock(&self.idle).clear();
    }
}

/// Where a stream stands, by its name.
pub(super) fn select_head(connection: &Connection, stream: &StreamId) -> rusqlite::Result<Head> {
    let row = connection
        .prepare_cached(
            "SELECT id, trimmed, (SELECT key & 4294967295 FROM records
                                  WHERE key > (id << 32) AND key <= ((id << 32) | 4294967295)
                                  ORDER BY key DESC LIMIT 1)
             FROM streams WHERE name = ?1",
        )?
        .query_row([stream.as_str()], |row| {
            let (trimmed, last): (u32, Option<u32>) = (row.get(1)?, row.get(2)?);
            Ok(Head { id: row.get(0)?, trimmed: trimmed.into(), last: last.unwrap_or(trimmed).into() })
        });
    Ok(row.optional()?.unwrap_or_default())
}

pub(super) fn select_records(
    connection: &Connection,
    stream: &StreamId,
    after: Position,
    limit: usize,
) -> rusqlite::Result<Vec<Stored>> {
    // One statement sees one moment: in two, the stream's place in the file might be another's by the second.
    let mut select = connection.prepare_cached(
        "SELECT key, bytes FROM streams CROSS JOIN records
         WHERE name = ?1 AND key > (id << 32 | ?2) AND key <= (id << 32 | 4294967295) ORDER BY key LIMIT ?3",
    )?;
    let after = after.get().min(LAST_MAX).cast_signed();
    let rows = select.query_map(params![stream.as_str(), after, sql_limit(limit)], |row| {
        let number = row.get::<_, i64>(0)?.cast_unsigned() & LAST_MAX;
        let bytes = Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?);
        Ok(Stored { position: Position::new(number), bytes })
    })?;
    let mut failed = Ok(());
    let records = page(rows.map_while(|row| row.map_err(|error| failed = Err(error)).ok()), limit);
    failed.map(|()| records)
}

pub(super) fn select_streams(
    connection: &Connection,
    prefix: &str,
    after: Option<&StreamId>,
    limit: usize,
) -> rusqlite::Result<Vec<(StreamId, Position)>> {
    // Every character of a name sorts before this one, so between the two is what begins with the prefix.
    let end = format!("{prefix}\u{7f}");
    let listed = select_list(
        connection,
        "name >= ?1 AND name < ?2 AND name > ?3 ORDER BY name LIMIT ?4",
        params![prefix, end, after.map_or("", StreamId::as_str), sql_limit(limit)],
    )?;
    Ok(listed.into_iter().map(|begun| (begun.stream, begun.last)).collect())
}

pub(super) fn select_begun(connection: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<Begun>> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    select_list(connection, "number > ?1 ORDER BY number LIMIT ?2", params![after, sql_limit(limit)])
}

/// Lists streams. One whose end is damaged does not keep the others from being listed: it seems to have no records, and
/// whoever reads it or appends to it learns of the damage.
fn select_list(connection: &Connection, which: &str, params: impl Params + Copy) -> rusqlite::Result<Vec<Begun>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT number, name, coalesce((SELECT key & 4294967295 FROM records
                                        WHERE key > (id << 32) AND key <= ((id << 32) | 4294967295)
                                        ORDER BY key DESC LIMIT 1), trimmed)
         FROM streams WHERE {which}"
    ))?;
    match select.query_map(params, begun)?.collect() {
        Err(error) if is_damage(&error) => {}
        listed => return listed,
    }
    let mut select = connection.prepare_cached(&format!("SELECT number, name, trimmed FROM streams WHERE {which}"))?;
    let mut listed: Vec<Begun> = select.query_map(params, begun)?.collect::<rusqlite::Result<_>>()?;
    for begun in &mut listed {
        match select_head(connection, &begun.stream) {
            Ok(head) => begun.last = head.last(),
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listed)
}

fn begun(row: &Row<'_>) -> rusqlite::Result<Begun> {
    let name = row.get_ref(1)?.as_str()?;
    let stream = StreamId::new(name)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error)))?;
    let number = row.get::<_, i64>(0)?.cast_unsigned();
    Ok(Begun { number, stream, last: Position::new(row.get::<_, u32>(2)?.into()) })
}

/// The pages in use; those that were given back stay in the file for what comes.
pub(super) fn select_size_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |sql| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, u32>(0)).map(u64::from);
    let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
    Ok(pages * number("PRAGMA page_size")?)
}

/// The key of a record: the stream's place in the file and the position in one integer, which is the table's own row number.
/// So a record is found without an index, and a stream's records lie side by side.
pub(super) fn key(id: i64, number: u64) -> i64 {
    (id << 32) | number.cast_signed()
}

pub(super) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The greatest position that fits a key.
pub(super) const LAST_MAX: u64 = 0xffff_ffff;

/// More would only wait for the same disk.
const READ_CONNECTIONS_MAX: usize = 64;
