//! Files that were damaged: no start makes it worse or keeps quiet about it, and what is whole is still served.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use leasehold::{
    client::Submit,
    journal,
    store::{
        Position, Store, StoreError, StreamId,
        sqlite::{Sqlite, SqliteOptions, Synchronous},
    },
};
use leasehold_tests::{TestHost, within};
use serde_json::{Value, json};
use tempfile::TempDir;

/// SQLite's, on every machine of ours.
const PAGE_BYTES: usize = 4096;

/// A folder with a store in it, and what is in that store.
struct World {
    folder: TempDir,
    streams: BTreeMap<StreamId, Vec<Bytes>>,
}

impl World {
    /// A file of a few hundred pages, closed as a host does that stops.
    async fn closed() -> Self {
        let mut world = Self { folder: tempfile::tempdir().unwrap(), streams: BTreeMap::new() };
        let store = world.open(SqliteOptions::default()).unwrap();
        for number in 0..60 {
            let stream = StreamId::new(&format!("job/{number:03}")).unwrap();
            let records: Vec<_> =
                (0..4).map(|n| Bytes::from(format!("{stream} {n} ").repeat(40 + 6 * number))).collect();
            store.append(&stream, Position::ZERO, records.clone()).await.unwrap();
            world.streams.insert(stream, records);
        }
        store.close().await;
        world
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("journal.sqlite")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("journal.sqlite-wal")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }

    /// Puts `file` and `log` there in place of what was.
    fn put(&self, file: &[u8], log: Option<&[u8]>) {
        let _ = fs::remove_file(self.folder.path().join("journal.sqlite-shm"));
        let _ = fs::remove_file(self.log());
        fs::write(self.file(), file).unwrap();
        if let Some(log) = log {
            fs::write(self.log(), log).unwrap();
        }
    }

    fn open(&self, options: SqliteOptions) -> Result<Sqlite, StoreError> {
        Sqlite::open(&self.file(), options)
    }

    /// What can be read: the streams that are whole, and why others are not.
    async fn read(&self, store: &dyn Store) -> (usize, Vec<StoreError>) {
        let (mut whole, mut errors) = (0, vec![]);
        for (stream, records) in &self.streams {
            match store.read(stream, Position::ZERO, 100).await {
                Ok(read) if read.iter().map(|record| &record.bytes).eq(records) => whole += 1,
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        (whole, errors)
    }
}

fn check_nothing() -> SqliteOptions {
    SqliteOptions { check_time: Duration::ZERO, synchronous: Synchronous::Normal, ..SqliteOptions::default() }
}

fn check_everything() -> SqliteOptions {
    SqliteOptions { check_time: Duration::from_secs(60), ..SqliteOptions::default() }
}

/// Says which file it is about and what to do.
fn assert_helps(error: &StoreError, file: &Path, case: &str) {
    let said = error.to_string();
    assert!(said.starts_with(&format!("{} ", file.display())), "{case}: {said}");
    let way_out = [".recover", "data folder", "another file", "leasehold that wrote it"];
    assert!(way_out.iter().any(|way| said.contains(way)), "{case}: {said}");
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_refused_and_left_as_it_is() {
    let world = World::closed().await;
    let whole = world.bytes();
    let half = whole.len() / 2 / PAGE_BYTES * PAGE_BYTES;
    for length in
        [1, 15, 16, 50, 100, 101, PAGE_BYTES - 1, PAGE_BYTES, half, half + 1, whole.len() - PAGE_BYTES, whole.len() - 1]
    {
        world.put(&whole[..length], None);
        for options in [check_nothing(), check_everything()] {
            let Err(error) = world.open(options) else { panic!("{length} of {} bytes are taken for all", whole.len()) };
            assert_helps(&error, &world.file(), &format!("{length} bytes"));
        }
        assert_eq!(world.bytes(), whole[..length], "{length} bytes");
    }
}

#[tokio::test]
async fn an_empty_file_is_a_fresh_store_unless_its_log_is_there() {
    let world = World::closed().await;
    let whole = world.bytes();
    world.put(&[], None);
    let store = world.open(SqliteOptions::default()).unwrap();
    assert_eq!(store.streams("", None, 9).await, Ok(vec![]));
    store.append(&StreamId::new("a").unwrap(), Position::ZERO, vec!["x".into()]).await.unwrap();
    let log = fs::read(world.log()).unwrap();
    store.close().await;

    world.put(&[], Some(&log));
    let error = world.open(SqliteOptions::default()).unwrap_err();
    assert_helps(&error, &world.file(), "a log alone");
    assert_eq!(fs::read(world.log()).unwrap(), log, "it may be all there is");
    fs::remove_file(world.file()).unwrap();
    assert!(world.open(SqliteOptions::default()).is_err());
    assert!(!world.file().exists());

    world.put(&whole, None);
    let store = world.open(SqliteOptions::default()).unwrap();
    assert_eq!(world.read(&store).await.0, world.streams.len());
}

/// Any byte of the header, and any bit of it: it does not matter, or the file is refused.
#[tokio::test]
async fn a_damaged_header_costs_nothing_or_is_refused() {
    let world = World::closed().await;
    let whole = world.bytes();
    let (mut refused, mut harmless) = (0, 0);
    for at in 0..100 {
        for flip in [0x01, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            world.put(&damaged, None);
            match world.open(check_everything()) {
                Err(error) => {
                    assert_helps(&error, &world.file(), &format!("byte {at} ^ {flip:#x}"));
                    refused += 1;
                }
                Ok(store) => {
                    assert_eq!(world.read(&store).await, (world.streams.len(), vec![]), "byte {at} ^ {flip:#x}");
                    store.close().await;
                    harmless += 1;
                }
            }
        }
    }
    assert!(refused > 50 && harmless > 50, "{refused} were refused and {harmless} taken");
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let world = World::closed().await;
    let mut newer = world.bytes();
    newer[60..64].copy_from_slice(&9_u32.to_be_bytes());
    world.put(&newer, None);
    for error in
        [world.open(SqliteOptions::default()).unwrap_err(), Sqlite::open_for_reading(&world.file()).unwrap_err()]
    {
        let said = error.to_string();
        for part in ["has format 9", "up to 2", "fresh data folder"] {
            assert!(said.contains(part), "{said}");
        }
    }
    assert_eq!(world.bytes(), newer);
}

/// Page after page is overwritten. A check that gets through refuses the file; without it, and for a reader, the damage
/// costs what it hit: nothing hangs, and every error names the file.
#[tokio::test]
async fn a_damaged_page_is_found_or_costs_only_what_was_on_it() {
    let world = World::closed().await;
    let whole = world.bytes();
    let (pages, mut found, mut most_lost) = (whole.len() / PAGE_BYTES, 0, 0);
    for page in (1..pages).step_by(2) {
        let mut damaged = whole.clone();
        damaged[page * PAGE_BYTES..][..64].fill(0xee);
        world.put(&damaged, None);
        match world.open(check_everything()) {
            Err(error) => {
                found += 1;
                assert_helps(&error, &world.file(), &format!("page {page}"));
                assert_eq!(world.bytes(), damaged, "page {page}");
            }
            // It lies in the middle of a record.
            Ok(store) => store.close().await,
        }
        world.put(&damaged, None);
        // An inner page leads to many, and its loss is not what this counts.
        let Ok(store) = world.open(check_nothing()) else { continue };
        let (whole_streams, errors) = world.read(&store).await;
        errors.iter().for_each(|error| assert_helps(error, &world.file(), &format!("page {page}")));
        let lost = world.streams.len() - whole_streams;
        most_lost = most_lost.max(lost);
        let reader = Sqlite::open_for_reading(&world.file()).unwrap();
        let read = world.read(&reader).await;
        assert_eq!((read.0, read.1.len()), (whole_streams, errors.len()), "page {page}");
        // The others can still be appended to, in one commit with those that cannot.
        let appends = world.streams.iter().map(|(stream, records)| {
            let last = Position::new(records.len() as u64);
            store.append(stream, last, vec![Bytes::from_static(b"more")])
        });
        let outcomes = futures_util::future::join_all(appends).await;
        let failed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let failed = failed.inspect(|error| assert_helps(error, &world.file(), &format!("page {page}"))).count();
        assert!(failed <= lost.max(20), "page {page}: {failed} of {} appends failed", world.streams.len());
        store.close().await;
    }
    assert!(pages > 100 && found > pages / 6, "{found} of {pages}");
    assert!(most_lost > 0);
}

/// The log as a kill or a loss of power leaves it: cut at any length, or with any of its bytes wrong.
///
/// What is read is then what had been committed before that place, all of it and nothing else.
#[tokio::test]
async fn a_torn_log_is_as_if_its_last_commits_had_never_been() {
    let world = World { folder: tempfile::tempdir().unwrap(), streams: BTreeMap::new() };
    let store = world.open(SqliteOptions::default()).unwrap();
    let stream = StreamId::new("job/a").unwrap();
    // After each commit, how long the log is.
    let mut ends = vec![fs::metadata(world.log()).unwrap().len()];
    for number in 0..40_u64 {
        let record = Bytes::from(vec![b'x'; usize::try_from(number).unwrap() * 150]);
        store.append(&stream, Position::new(number), vec![record]).await.unwrap();
        ends.push(fs::metadata(world.log()).unwrap().len());
    }
    let (file, log) = (world.bytes(), fs::read(world.log()).unwrap());
    store.close().await;
    let committed = |length: usize| ends.iter().filter(|end| **end <= length as u64).count().saturating_sub(1);
    let check = async |damaged: &[u8], length: usize, case: &str| {
        world.put(&file, Some(damaged));
        let store = world.open(check_nothing()).unwrap_or_else(|error| panic!("{case}: {error}"));
        let read = store.read(&stream, Position::ZERO, 100).await.unwrap();
        assert_eq!(read.len(), committed(length), "{case}");
        assert!(read.iter().enumerate().all(|(number, record)| record.bytes.len() == number * 150), "{case}");
        // And it goes on from there.
        let last = read.last().map_or(Position::ZERO, |record| record.position);
        assert!(store.append(&stream, last, vec!["on".into()]).await.is_ok(), "{case}");
        store.close().await;
    };
    // Frames have a header of 24 bytes, so this step hits every place of one.
    for length in (usize::try_from(ends[1]).unwrap()..=log.len()).step_by(2029) {
        check(&log[..length], length, &format!("cut to {length}")).await;
        if length < log.len() {
            let mut damaged = log.clone();
            damaged[length] ^= 0x10;
            check(&damaged, length, &format!("byte {length}")).await;
        }
    }
}

/// What cannot be read is logged and left alone, and everyone else is served as ever.
#[tokio::test]
async fn a_host_on_a_damaged_file_serves_the_jobs_that_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal.sqlite");
    let mut jobs = vec![];
    {
        let store = Arc::new(Sqlite::open(&file, SqliteOptions::default()).unwrap());
        let host = TestHost::builder().store(Arc::clone(&store) as Arc<dyn Store>).start().await;
        let mut client = host.client().await;
        for number in 0..12 {
            let submission = Submit {
                idempotency_key: Some(number.to_string()),
                ..Submit::new("echo", json!({ "text": format!("{number:03}").repeat(3000) }))
            };
            let job = within("an answer", client.submit(submission)).await.unwrap().job_id;
            while !within("the end", client.next_event()).await.unwrap().is_terminal() {}
            jobs.push(job);
        }
        drop(client);
        host.stop().await;
        store.close().await;
    }
    // The page with the beginning of one job's journal, found by what nobody else has written.
    let mut bytes = fs::read(&file).unwrap();
    let needle = format!(r#"{{"record":"accepted","body":{{"job_id":"{}""#, jobs[5]);
    let places: Vec<usize> =
        bytes.windows(needle.len()).enumerate().filter(|(_, at)| *at == needle.as_bytes()).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at / PAGE_BYTES * PAGE_BYTES..][..PAGE_BYTES].fill(0xee);
    }
    fs::write(&file, &bytes).unwrap();

    let error = Sqlite::open(&file, check_everything()).unwrap_err();
    assert_helps(&error, &file, "a job's first page");
    let store = Arc::new(Sqlite::open(&file, check_nothing()).unwrap());
    let host = TestHost::builder().store(Arc::clone(&store) as Arc<dyn Store>).start().await;
    let mut client = host.client().await;
    let listed = within("a listing", client.list_jobs(Value::Null)).await.unwrap();
    let listed: Vec<_> = listed.iter().filter_map(|job| job["job_id"].as_str()).collect();
    assert!(!listed.contains(&jobs[5].as_str()), "nobody knows whose it was");
    assert!(listed.len() >= 8, "its neighbours on the page may have gone with it: {listed:?}");
    for job in &listed {
        let stream = journal::stream(job.parse().unwrap());
        assert!(store.read(&stream, Position::ZERO, 100).await.is_ok_and(|read| read.len() >= 3), "{job}");
    }
    // And new jobs run.
    within("an answer", client.submit(Submit::new("echo", json!("after")))).await.unwrap();
    let end = loop {
        let frame = within("the end", client.next_event()).await.unwrap();
        if frame.is_terminal() {
            break frame.payload;
        }
    };
    assert_eq!(end["result"], "after");
}
