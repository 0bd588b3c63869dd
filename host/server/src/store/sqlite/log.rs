//! Taking the write-ahead log into the file, beside whoever writes.
//!
//! What is committed stands in the log, and is copied into the file once the log is long. Copying and syncing so much takes
//! as long as a hundred commits, so a thread and a connection of its own do it while others commit. The writer itself copies
//! only what was added meanwhile, if it is little: after that it begins the log anew.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, TryRecvError},
    },
    thread::{self, JoinHandle},
};

use rusqlite::Connection;

use super::file::{OpenError, open_for_copying};

/// How long the log grows before it is taken into the file, in pages of 4 KiB.
const PAGES_MAX: u32 = 4000;

/// What the writer copies by itself, which is about as much as a commit writes.
const REST_MAX: u32 = 128;

/// A log that is so long is copied by the writer itself: it is faster than the one who copies for it.
const PAGES_OVERLONG: u32 = 8 * PAGES_MAX;

/// How much is added to a log that could not be begun anew before the next try.
const PAGES_BETWEEN: u32 = PAGES_MAX / 4;

/// The log, as the thread sees it that writes.
pub(super) struct Log {
    /// How long it is since the last commit.
    pages: Arc<AtomicU32>,
    /// Asks for a copy of everything that stands in the log; the thread ends with it.
    asks: Option<mpsc::Sender<()>>,
    /// How many pages of the log stood in the file after a copy.
    copied: mpsc::Receiver<rusqlite::Result<u32>>,
    copier: Option<JoinHandle<()>>,
    copying: bool,
    /// From which length on something is done.
    due: u32,
}

impl Log {
    /// The log of the connection that writes `file`, and the thread that copies it.
    pub(super) fn open(file: &Path, connection: &mut Connection) -> Result<Self, OpenError> {
        let pages = Arc::new(AtomicU32::new(0));
        let noted = Arc::clone(&pages);
        connection.wal_hook(Some(move |_: &mut _, pages: i32| {
            noted.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))?;
        let (asks, asked) = mpsc::channel::<()>();
        let (done, copied) = mpsc::channel();
        let file = file.to_owned();
        let copier = thread::Builder::new().name("leasehold-log".into()).spawn(move || {
            let mut connection = None;
            while asked.recv().is_ok() {
                let copied = match &connection {
                    Some(connection) => copy(connection),
                    None => open_for_copying(&file).and_then(|opened| copy(connection.insert(opened))),
                };
                if done.send(copied).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { pages, asks: Some(asks), copied, copier: Some(copier), copying: false, due: PAGES_MAX })
    }

    /// Sees to it that the log does not grow for ever. To be called after each commit.
    pub(super) fn keep_short(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < PAGES_MAX {
            // It was begun anew.
            self.due = PAGES_MAX;
        }
        let mut in_file = Ok(0);
        if self.copying {
            match self.copied.try_recv() {
                Ok(copied) => in_file = copied,
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.asks = None,
            }
            self.copying = false;
        }
        if pages < self.due {
            return;
        }
        if let Ok(in_file) = in_file
            && pages.saturating_sub(in_file) > REST_MAX
            && pages < PAGES_OVERLONG
            && self.ask()
        {
            return;
        }
        if let Err(error) = in_file.and_then(|_| copy(connection)) {
            // Nothing is lost by it but room.
            tracing::warn!(%error, "the write-ahead log cannot be taken into the store yet");
        }
        self.due = pages.saturating_add(PAGES_BETWEEN);
    }

    fn ask(&mut self) -> bool {
        self.copying = self.asks.as_ref().is_some_and(|asks| asks.send(()).is_ok());
        self.copying
    }

    /// Returns once nothing is copied any more, and ends the thread.
    pub(super) fn close(&mut self) {
        self.asks = None;
        // If it panicked, it copies nothing either.
        let _ = self.copier.take().map(JoinHandle::join);
    }
}

/// Copies what the log holds into the file, as far as nobody reads the file as it was, and returns how many pages of the log
/// stand there now.
fn copy(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(2)).map(|copied| {
        // Less than nothing if somebody else copies.
        u32::try_from(copied).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::{super::file::open_for_writing, *};
    use crate::store::sqlite::SqliteOptions;

    fn insert(connection: &Connection, key: u32) {
        let sql = "INSERT INTO records (key, bytes) VALUES (?1, zeroblob(65536))";
        connection.prepare_cached(sql).unwrap().execute([key]).unwrap();
    }

    #[test]
    fn a_log_is_begun_anew_whoever_writes_meanwhile() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("store.db");
        let mut connection = open_for_writing(&file, &SqliteOptions::default()).unwrap();
        let mut log = Log::open(&file, &mut connection).unwrap();
        let (mut longest, mut begun_anew, mut before) = (0, 0, 0);
        // 17 pages each.
        for key in 0..4096 {
            insert(&connection, key);
            log.keep_short(&connection);
            let pages = log.pages.load(Ordering::Relaxed);
            begun_anew += u32::from(pages < before);
            (before, longest) = (pages, longest.max(pages));
        }
        assert!(begun_anew >= 1, "its longest was {longest} pages");
        assert!(longest < 2 * PAGES_OVERLONG, "{longest} pages");
        log.close();
        let ended = log.asks.is_none() && log.copier.is_none();
        assert!(ended && !log.ask());
    }

    #[test]
    fn a_log_whose_copier_is_gone_is_copied_by_the_writer() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("store.db");
        let mut connection = open_for_writing(&file, &SqliteOptions::default()).unwrap();
        let mut log = Log::open(&file, &mut connection).unwrap();
        log.close();
        let mut longest = 0;
        for key in 0..1024 {
            insert(&connection, key);
            log.keep_short(&connection);
            longest = longest.max(log.pages.load(Ordering::Relaxed));
        }
        assert!((PAGES_MAX..PAGES_MAX + 64).contains(&longest), "{longest} pages");
    }
}
