//! The file itself: who may have it, what has to stand in it, and what is said when it cannot be used.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::{SqliteOptions, Synchronous};
use crate::store::StoreError;

/// Keeps other processes from the file, and other stores in this one, for as long as the result lives.
///
/// SQLite's own locks would do, but its exclusive mode also shuts out the connections that read.
pub(super) fn hold(file: &Path) -> Result<File, StoreError> {
    let mut path = OsString::from(file);
    path.push(".lock");
    let path = PathBuf::from(path);
    let io = |error| StoreError::Io(format!("cannot open {}: {error}", path.display()));
    let mut held = private(OpenOptions::new().read(true).write(true).create(true)).open(&path).map_err(io)?;
    match try_for_a_moment(&held) {
        Ok(()) => {
            let written = held.set_len(0).and_then(|()| write!(held, "process {}", std::process::id()));
            written.map(|()| held).map_err(io)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The name of the holder is a help, and its lack no reason to say less.
            let _ = held.take(64).read_to_string(&mut holder);
            holder.retain(|c| !c.is_control());
            let holder = if holder.is_empty() { "an unknown process".into() } else { holder };
            Err(StoreError::InUse { file: file.to_owned(), holder })
        }
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Tries to lock a file. One who is on his way out is waited for, as is a process that was just forked from one who holds
/// the lock and has not begun to run its own program.
fn try_for_a_moment(file: &File) -> Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_PATIENCE / 50),
            outcome => return outcome,
        }
    }
}

/// Journals hold what agents were told, so a file is made for its owner alone.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("{0}")]
    Unusable(String),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Says which format the file has, 0 if it has nothing in it yet.
fn check_format(connection: &Connection) -> Result<i32, OpenError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    let (application, version) = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
    if application == 0 && version == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(OpenError::Unusable("is a database of another program; name another file for the store".into()));
    }
    if !(1..=FORMAT_VERSION).contains(&version) {
        return Err(OpenError::Unusable(format!(
            "has format {version}, and this host knows formats up to {FORMAT_VERSION}; use the leasehold that wrote \
             it or a newer one, or name a fresh data folder"
        )));
    }
    Ok(version)
}

pub(super) fn open_for_writing(file: &Path, options: &SqliteOptions) -> Result<Connection, OpenError> {
    refuse_what_is_left(file)?;
    // SQLite would make the file readable to all, and its log likewise.
    drop(private(OpenOptions::new().write(true).create(true)).open(file)?);
    let mut connection =
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let version = check_format(&connection)?;
    if version != 0 && !options.check_time.is_zero() {
        check_structure(&mut connection, options.check_time)?;
    }
    let journal: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if journal != "wal" {
        return Err(OpenError::Unusable("is on a file system without shared memory; put it on a local disk".into()));
    }
    connection.pragma_update(
        None,
        "synchronous",
        match options.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        },
    )?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    if version < FORMAT_VERSION {
        let formats = &FORMATS[usize::try_from(version).unwrap_or_default()..];
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {}
             PRAGMA application_id = {APPLICATION_ID};
             PRAGMA user_version = {FORMAT_VERSION};
             COMMIT;",
            formats.concat()
        ))?;
    }
    // Damage to what every access needs is better found now than at the first append.
    for table in ["streams", "records", "removed", "newest"] {
        connection.query_row(&format!("SELECT * FROM {table} LIMIT 1"), [], |_| Ok(())).optional()?;
    }
    Ok(connection)
}

/// Refuses what SQLite would take for a fresh file: one of a few bytes, and one that has lost everything but its log,
/// which SQLite would delete.
fn refuse_what_is_left(file: &Path) -> Result<(), OpenError> {
    let mut log = OsString::from(file);
    log.push("-wal");
    let size_bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    match (size_bytes(file), size_bytes(Path::new(&log))) {
        (0, 0) => Ok(()),
        (0, _) => Err(OpenError::Unusable(format!(
            "is empty or gone, and its log {} is not; {WAY_OUT}; without that, move the log away",
            log.display()
        ))),
        (1..HEADER_BYTES, _) => {
            Err(OpenError::Unusable(format!("is not a store, or all but its beginning is gone; {WAY_OUT}")))
        }
        // A log may hold the last page, should a crash have cut off its copying.
        (size_bytes, 0) if size_bytes % page_bytes(file)? != 0 => {
            Err(OpenError::Unusable(format!("is damaged (its end is gone); {WAY_OUT}")))
        }
        _ => Ok(()),
    }
}

/// The size of the file's pages, or 1 if it says none.
fn page_bytes(file: &Path) -> std::io::Result<u64> {
    let mut header = [0; 18];
    File::open(file)?.read_exact(&mut header)?;
    let is_database = header.starts_with(b"SQLite format 3\0");
    Ok(match u16::from_be_bytes([header[16], header[17]]) {
        1 if is_database => 1 << 16,
        size if is_database && size.is_power_of_two() => size.into(),
        _ => 1,
    })
}

/// Looks for pages that contradict each other, for no longer than `check_time`.
fn check_structure(connection: &mut Connection, check_time: Duration) -> Result<(), OpenError> {
    let begun = Instant::now();
    connection.progress_handler(CHECK_STEPS, Some(move || begun.elapsed() >= check_time))?;
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Ok(found) if found != "ok" => {
            let found = found.replace('\n', " ");
            Err(OpenError::Unusable(format!("is damaged ({}); {WAY_OUT}", found.trim())))
        }
        // It was not finished, and what it looked at was in order.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(()),
        found => Ok(found.map(drop)?),
    }
}

/// What the newest stream was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    /// Its number in the order of beginnings.
    pub(super) number: i64,
    /// Its place in the file.
    pub(super) id: i64,
}

impl Newest {
    /// What the next stream is given: the next number, and the next place that is not taken.
    pub(super) fn next(self, is_taken: impl Fn(i64) -> rusqlite::Result<bool>) -> rusqlite::Result<Self> {
        let mut id = self.id;
        loop {
            id = if id < ID_MAX { id + 1 } else { 1 };
            if !is_taken(id)? {
                return Ok(Self { number: self.number + 1, id });
            }
        }
    }
}

pub(super) fn select_newest(connection: &Connection) -> rusqlite::Result<Newest> {
    connection.query_row(
        "SELECT * FROM (SELECT number, id FROM streams ORDER BY number DESC LIMIT 1)
         UNION ALL SELECT number, id FROM newest ORDER BY number DESC LIMIT 1",
        [],
        |row| Ok(Newest { number: row.get(0)?, id: row.get(1)? }),
    )
}

/// Opens a file that a host is writing, or that it left behind: what its log holds is read from there.
pub(super) fn open_for_reading(file: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Refuses a file that cannot be read as a store.
pub(super) fn check_for_reading(file: &Path) -> Result<(), OpenError> {
    match check_format(&open_for_reading(file)?)? {
        FORMAT_VERSION => Ok(()),
        0 => Err(OpenError::Unusable("is not a store".into())),
        version => Err(OpenError::Unusable(format!(
            "has format {version}; start the host once, which brings it to format {FORMAT_VERSION}"
        ))),
    }
}

impl OpenError {
    pub(super) fn of(self, file: &Path) -> StoreError {
        match self {
            Self::Unusable(reason) => StoreError::Unusable { file: file.to_owned(), reason },
            // It understands our statements, so it must be the file that it does not.
            Self::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                StoreError::Unusable { file: file.to_owned(), reason: format!("is damaged ({error}); {WAY_OUT}") }
            }
            Self::Sqlite(error) => failure("open", file, &error),
            Self::Io(error) => StoreError::Io(format!("cannot open {}: {error}", file.display())),
        }
    }
}

/// Whether the file contradicts itself.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

pub(super) fn failure(doing: &str, file: &Path, error: &rusqlite::Error) -> StoreError {
    let reason = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            format!("is not a store, or its beginning is damaged; {WAY_OUT}, or name another data folder")
        }
        Some(ErrorCode::DatabaseCorrupt) => format!("is damaged ({error}); {WAY_OUT}"),
        _ => return StoreError::Io(format!("cannot {doing} {}: {error}", file.display())),
    };
    StoreError::Unusable { file: file.to_owned(), reason }
}

/// What to do about damage.
const WAY_OUT: &str = "stop the host, keep a copy of the file and of its -wal, and put a backup in its place, or what \
                       `sqlite3 FILE .recover | sqlite3 NEW` can still read of it, or start with a fresh data folder";

/// "LEAS", by which `file` and we tell our files from others.
pub(super) const APPLICATION_ID: i32 = 0x4c45_4153;

/// Counts the changes of the file's format.
pub(super) const FORMAT_VERSION: i32 = 2;

/// What makes each format of the one before.
const FORMATS: [&str; FORMAT_VERSION as usize] = [
    "CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, trimmed INTEGER NOT NULL) STRICT;
     CREATE TABLE records (key INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;",
    // Streams are numbered and can be removed.
    "ALTER TABLE streams ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
     UPDATE streams SET number = id;
     CREATE UNIQUE INDEX streams_by_number ON streams (number);
     CREATE TABLE removed (id INTEGER PRIMARY KEY) STRICT;
     CREATE TABLE newest (number INTEGER NOT NULL, id INTEGER NOT NULL) STRICT;
     INSERT INTO newest VALUES (0, 0);",
];

/// The greatest place that fits a key.
const ID_MAX: i64 = 0x7fff_ffff;

/// What a file of SQLite begins with.
const HEADER_BYTES: u64 = 100;

/// How many steps a check takes between two looks at the time, well below a millisecond.
const CHECK_STEPS: i32 = 1000;

/// How long to wait for another process that is about to let go of the file.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// How long to bear with a tool, such as a backup, that has locked the file.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the write-ahead log grows before it is taken into the file, in pages of 4 KiB.
pub(super) const WAL_PAGES: u32 = 4000;

/// A log that a large append has made longer is cut to this.
pub(super) const WAL_BYTES_KEPT: u32 = 64 << 20;

/// What the writer keeps of the file in memory, so that an append finds its page there.
pub(super) const WRITER_CACHE_KIB: i32 = 32 << 10;
