//! What it costs to go on: a journal played again, a host started over its unfinished jobs, and the disk at all.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use leasehold::{
    client::Submit,
    config::Config,
    journal,
    replay::replay,
    store::{
        Begun, Position, Store, StoreError, Stored, StreamId,
        memory::Memory,
        sqlite::{Sqlite, SqliteOptions},
    },
};
use leasehold_core::job::record::Record;
use leasehold_tests::{MountMode, TestHost, host, shared_data_dir};
use serde_json::json;

use crate::{
    Row,
    load::{self, Bare, folder_of},
    program::{Program, TOKEN},
    shown,
};

const CALLS: u64 = 10_000;
const UNFINISHED: usize = 1000;

/// A job of many calls, run once more from its journal.
pub async fn played_again() -> Vec<Row> {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let dir = tempfile::tempdir().expect("a folder");
    let builder = TestHost::builder().store(Arc::clone(&store)).mount_dir("/w", dir.path(), MountMode::Ro);
    let host = builder.start().await;
    std::fs::write(dir.path().join("a"), "a").expect("the folder is ours");
    let mut client = host.client().await;
    let input = json!({ "do": "stat_many", "path": "/w/a", "count": CALLS });
    let submit = Submit { lease_request: Some(json!({ "fs.read": ["/w/**"] })), ..Submit::new("hostile", input) };
    let begun = Instant::now();
    let job = client.submit(submit).await.expect("the host takes it").job_id;
    while !client.next_event().await.expect("it ends").is_terminal() {}
    let first = begun.elapsed();
    let mut config = Config::default();
    config.server.data = shared_data_dir().to_owned();
    let begun = Instant::now();
    let replayed = replay(&config, store, job.parse().expect("an id"), None).await.expect("it can be run again");
    assert_eq!((replayed.calls, replayed.ended.ok()), (CALLS, replayed.recorded));
    vec![
        Row::new("a job of 10,000 calls, the first time, with its client (store in memory)", shown(first), ""),
        Row::new("the same from its journal, engine and component included", shown(begun.elapsed()), "< 1 s"),
    ]
}

/// A host that is killed with many jobs under way, and started again.
pub async fn restart() -> Vec<Row> {
    let (agents, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    folder_of(&["sleeper", "echo"], agents.path());
    let data = data.path().join("host");
    let host = Program::leasehold(agents.path(), &data);
    let mut session = Bare::connect(&host.url, TOKEN).await;
    for _ in 0..UNFINISHED {
        session.feed("sleeper", r#"{"sec":600}"#).await;
        session.flush().await;
        session.wait("job.accepted\"").await;
    }
    session.echo().await;
    // With SIGKILL.
    drop(host);
    let begun = Instant::now();
    let host = Program::leasehold(agents.path(), &data);
    let mut session = Bare::connect(&host.url, TOKEN).await;
    let served = begun.elapsed();
    session.echo().await;
    let worked = begun.elapsed();
    while live(&data).await < UNFINISHED {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    vec![
        Row::new("restart over 1,000 unfinished jobs: until a client is welcomed", shown(served), "< 2 s"),
        Row::new("until its first job has its result", shown(worked), ""),
        Row::new("until all 1,000 are live again", shown(begun.elapsed()), "< 20 s"),
    ]
}

/// How many jobs have caught up.
async fn live(data: &Path) -> usize {
    let store = Sqlite::open_for_reading(&data.join("journal.sqlite")).expect("the host's file can be read");
    let mut live = 0;
    for (stream, last) in store.streams(journal::JOBS, None, usize::MAX).await.expect("it can be listed") {
        let newest = store.read(&stream, Position::new(last.get().saturating_sub(4)), 4).await.expect("it can be read");
        let resumed = |stored: &Stored| matches!(Record::decode(&stored.bytes), Ok(Record::Resumed { .. }));
        live += usize::from(newest.iter().any(resumed));
    }
    live
}

/// The same load over a store in memory and over one on the disk.
pub async fn stores() -> Vec<Row> {
    let dir = tempfile::tempdir().expect("a folder");
    let sqlite = Sqlite::open(&dir.path().join("journal.sqlite"), SqliteOptions::default()).expect("a fresh file");
    let (memory, sqlite) = (Counting::over(Memory::default()), Counting::over(sqlite));
    let (mut jobs, mut alone) = (Vec::new(), Vec::new());
    for store in [&memory, &sqlite] {
        let builder = TestHost::builder().store(Arc::clone(store) as Arc<dyn Store>);
        let host = builder.limits(|limits| limits.live_agents_max = 256).start().await;
        let url = host.serve_url().await;
        let token = host::token(host::ALICE);
        alone.push(load::latency(&url, &token).await.figures());
        jobs.push(load::throughput(&url, &token).await);
    }
    let part = (1.0 - jobs[1] / jobs[0]) * 100.0;
    vec![
        Row::new("`echo` submit to result in this process: store in memory", &*alone[0], ""),
        Row::new("the same, SQLite FULL", &*alone[1], ""),
        Row::new("`echo` jobs/s at 4 × 16 in this process: store in memory", format!("{:.0}", jobs[0]), ""),
        Row::new("the same, SQLite FULL", format!("{:.0}", jobs[1]), ""),
        Row::new("what the disk takes of it", format!("{part:.0} %"), "< 30 %"),
        Row::new("appends a job", format!("{:.2}", sqlite.appends_each()), ""),
    ]
}

/// Counts what is asked of a store.
struct Counting {
    inner: Box<dyn Store>,
    appends: AtomicU64,
    jobs: AtomicU64,
}

impl Counting {
    fn over(inner: impl Store) -> Arc<Self> {
        Arc::new(Self { inner: Box::new(inner), appends: AtomicU64::new(0), jobs: AtomicU64::new(0) })
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn appends_each(&self) -> f64 {
        self.appends.load(Ordering::Relaxed) as f64 / self.jobs.load(Ordering::Relaxed).max(1) as f64
    }
}

#[async_trait]
impl Store for Counting {
    async fn append(&self, stream: &StreamId, last: Position, records: Vec<Bytes>) -> Result<Position, StoreError> {
        self.appends.fetch_add(1, Ordering::Relaxed);
        let begins = last == Position::ZERO && stream.as_str().starts_with(journal::JOBS);
        self.jobs.fetch_add(u64::from(begins), Ordering::Relaxed);
        self.inner.append(stream, last, records).await
    }

    async fn read(&self, stream: &StreamId, after: Position, limit: usize) -> Result<Vec<Stored>, StoreError> {
        self.inner.read(stream, after, limit).await
    }

    async fn grown(&self, stream: &StreamId, after: Position) -> Result<(), StoreError> {
        self.inner.grown(stream, after).await
    }

    async fn streams(
        &self,
        prefix: &str,
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<Vec<(StreamId, Position)>, StoreError> {
        self.inner.streams(prefix, after, limit).await
    }

    async fn trim(&self, stream: &StreamId, up_to: Position) -> Result<(), StoreError> {
        self.inner.trim(stream, up_to).await
    }

    async fn remove(&self, stream: &StreamId, last: Position) -> Result<(), StoreError> {
        self.inner.remove(stream, last).await
    }

    async fn begun(&self, after: u64, limit: usize) -> Result<Vec<Begun>, StoreError> {
        self.inner.begun(after, limit).await
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        self.inner.size_bytes().await
    }
}
