//! Jobs that have ended leave in time, whole, and nothing else does.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use leasehold::{
    checkpoint,
    client::{Client, ClientInfo, Submit},
    config, journal,
    retention::{Pass, Retention},
    store::{Begun, Position, Store, StoreError, Stored, StreamId, memory::Memory},
};
use leasehold_core::{id::JobId, time::Timestamp};
use leasehold_tests::{
    TestHost,
    host::{ALICE, Builder, token},
    within,
};
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);
const START: &str = "2026-05-13T19:30:00Z";

/// A store in which no change succeeds any more after so many.
#[derive(Default)]
struct Dying {
    inner: Memory,
    changes_left: AtomicU64,
}

impl Dying {
    fn new() -> Arc<Self> {
        Arc::new(Self { changes_left: AtomicU64::new(u64::MAX), ..Self::default() })
    }

    fn after(&self, changes: u64) {
        self.changes_left.store(changes, Ordering::SeqCst);
    }

    fn change(&self) -> Result<(), StoreError> {
        let left = self.changes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| StoreError::Io("the disk is gone".into()))
    }

    /// What there is, but for what the host keeps for itself.
    async fn names(&self) -> BTreeSet<String> {
        let all = self.inner.streams("", None, 1000).await.unwrap();
        let names = all.into_iter().map(|(stream, _)| stream.to_string());
        names.filter(|name| is_of_jobs(name)).collect()
    }
}

/// Whether a stream is a job's: what a host or a session notes for itself comes at moments of its own.
fn is_of_jobs(name: &str) -> bool {
    name != checkpoint::STREAM && !name.starts_with("limits/") && !name.starts_with("session/")
}

#[async_trait]
impl Store for Dying {
    async fn append(&self, stream: &StreamId, last: Position, records: Vec<Bytes>) -> Result<Position, StoreError> {
        if !stream.as_str().starts_with("session/") {
            self.change()?;
        }
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
        self.change()?;
        self.inner.trim(stream, up_to).await
    }

    async fn remove(&self, stream: &StreamId, last: Position) -> Result<(), StoreError> {
        self.change()?;
        self.inner.remove(stream, last).await
    }

    async fn begun(&self, after: u64, limit: usize) -> Result<Vec<Begun>, StoreError> {
        self.inner.begun(after, limit).await
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        self.inner.size_bytes().await
    }
}

/// A host whose clock is moved by hand, and which leaves the passes to the test.
struct World {
    store: Arc<Dying>,
    host: TestHost,
    now: Timestamp,
    settings: config::Retention,
}

impl World {
    async fn new(settings: config::Retention) -> Self {
        Self::on(Dying::new(), settings, |builder| builder).await
    }

    async fn on(store: Arc<Dying>, settings: config::Retention, change: impl FnOnce(Builder) -> Builder) -> Self {
        let settings = config::Retention { interval_sec: u32::MAX, ..settings };
        let given = settings.clone();
        let builder = TestHost::builder().at(START).store(Arc::clone(&store) as Arc<dyn Store>);
        let host = change(builder.config(|config| config.retention = given)).start().await;
        Self { store, host, now: START.parse().unwrap(), settings }
    }

    fn advance(&mut self, by: Duration) {
        self.host.advance(by);
        self.now = self.now.saturating_add(by);
    }

    async fn try_pass(&self) -> Result<Pass, StoreError> {
        let jobs = Arc::clone(self.host.host().jobs());
        let retention = Retention::new(jobs, self.settings.clone(), Duration::from_secs(600));
        within("a pass", retention.pass(self.now)).await
    }

    async fn pass(&self) -> Pass {
        self.try_pass().await.unwrap()
    }

    /// Runs a job to its end, and gives it a large answer.
    async fn finish(&self, key: Option<&str>) -> JobId {
        let mut client = self.host.client().await;
        let job_id = submit(&mut client, echo(key, json!("x"))).await.unwrap();
        end(&mut client, job_id).await;
        for part in ["one", "other"] {
            journal::store_blob(&*self.store, job_id, Bytes::from(part)).await.unwrap();
        }
        job_id
    }

    async fn listed(&self) -> Vec<String> {
        let jobs = within("a listing", self.host.client().await.list_jobs(Value::Null)).await.unwrap();
        jobs.iter().map(|job| job["job_id"].as_str().unwrap().to_owned()).collect()
    }
}

fn echo(key: Option<&str>, input: Value) -> Submit {
    Submit { idempotency_key: key.map(str::to_owned), ..Submit::new("echo", input) }
}

async fn submit(client: &mut Client, submission: Submit) -> Result<JobId, String> {
    let accepted = within("an answer", client.submit(submission)).await.map_err(|error| error.to_string())?;
    Ok(accepted.job_id.parse().unwrap())
}

async fn end(client: &mut Client, job_id: JobId) -> Value {
    loop {
        let frame = within("the end", client.next_event()).await.unwrap();
        if frame.is_terminal() && frame.job_id == Some(job_id.to_string()) {
            return frame.payload;
        }
    }
}

#[tokio::test]
async fn a_job_is_kept_for_its_time_and_then_nothing_of_it_is_left() {
    let mut world = World::new(config::Retention::default()).await;
    let old = world.finish(Some("k")).await;
    world.advance(HOUR);
    let young = world.finish(None).await;
    world.advance(23 * HOUR - Duration::from_secs(1));
    assert_eq!(world.pass().await.removed, 0);
    assert_eq!(world.listed().await, [young.to_string(), old.to_string()]);
    assert_eq!(submit(&mut world.host.client().await, echo(Some("k"), json!("x"))).await, Ok(old));

    world.advance(Duration::from_secs(1));
    assert_eq!(world.pass().await.removed, 1);
    assert_eq!(world.listed().await, [young.to_string()]);
    let names = world.store.names().await;
    assert!(names.iter().all(|name| name.contains(&young.to_string())), "{names:?}");
    world.advance(HOUR);
    assert_eq!(world.pass().await.removed, 1);
    assert_eq!(world.store.names().await, BTreeSet::new());
    assert_eq!(world.listed().await, [""; 0]);

    let fresh = world.finish(Some("k")).await;
    assert!(fresh > old);
}

#[tokio::test]
async fn the_host_makes_its_passes_by_itself() {
    let store = Dying::new();
    let host = TestHost::builder().at(START).store(Arc::clone(&store) as Arc<dyn Store>).start().await;
    let mut client = host.client().await;
    let job_id = submit(&mut client, echo(Some("k"), json!("x"))).await.unwrap();
    end(&mut client, job_id).await;
    host.advancing(HOUR, async {
        while !store.names().await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A job that runs is as it was, its key too, however old it is and however full the disk.
#[tokio::test]
async fn nothing_of_a_job_that_runs_is_removed() {
    let settings = config::Retention { finished_sec: 0, idempotency_sec: 3600, ..Default::default() };
    let long = |builder: Builder| {
        builder.limits(|limits| (limits.runtime_sec_default, limits.runtime_sec_max) = (u32::MAX, u32::MAX))
    };
    let mut world = World::on(Dying::new(), settings, long).await;
    let sleep = || Submit { idempotency_key: Some("k".into()), ..Submit::new("sleeper", json!({ "sec": 600 })) };
    let job_id = submit(&mut world.host.client().await, sleep()).await.unwrap();
    journal::store_blob(&*world.store, job_id, Bytes::from_static(b"x")).await.unwrap();
    within("the start", world.store.grown(&journal::stream(job_id), Position::new(1))).await.unwrap();
    let before = world.store.names().await;
    assert_eq!(before.len(), 3);
    world.settings.bytes_max = 1;
    for _ in 0..3 {
        world.advance(48 * HOUR);
        let pass = world.pass().await;
        assert_eq!((pass.removed, pass.used_up), (0, true));
        assert_eq!(world.store.names().await, before);
        // The same job, and so nothing that the budget would refuse.
        assert_eq!(submit(&mut world.host.client().await, sleep()).await, Ok(job_id));
    }
}

/// A key outlives its time only with a job that runs; what it is bound to next has nothing to do with the job before.
#[tokio::test]
async fn an_expired_key_makes_a_fresh_job_and_stays_with_it() {
    let settings = config::Retention { finished_sec: 48 * 3600, idempotency_sec: 24 * 3600, ..Default::default() };
    let mut world = World::new(settings).await;
    let old = world.finish(Some("k")).await;
    world.advance(24 * HOUR - Duration::from_secs(1));
    let mut client = world.host.client().await;
    assert_eq!(submit(&mut client, echo(Some("k"), json!("x"))).await, Ok(old));
    let refused = submit(&mut client, echo(Some("k"), json!("y"))).await.unwrap_err();
    assert!(refused.contains("DUPLICATE_KEY") || refused.contains("other parameters"), "{refused}");
    world.advance(Duration::from_secs(1));

    // All at once, and one of them makes the job.
    let mut clients = vec![];
    for _ in 0..8 {
        clients.push(world.host.client().await);
    }
    let answers = clients.iter_mut().map(|client| submit(client, echo(Some("k"), json!("y"))));
    let answers: BTreeSet<_> = futures_util::future::join_all(answers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let fresh = *answers.first().unwrap();
    assert!(fresh > old);
    world.advance(24 * HOUR);
    assert_eq!(world.pass().await.removed, 1, "the old one");
    let bound = world.store.names().await.into_iter().filter(|name| name.starts_with("key/")).collect::<Vec<_>>();
    assert_eq!(bound.len(), 1, "the key is the new job's");
    let streams = world.store.streams("job/", None, 9).await.unwrap();
    assert_eq!(streams[0].0, journal::stream(fresh));
}

#[tokio::test]
async fn a_key_that_is_kept_longer_than_jobs_keeps_its_job() {
    let settings = config::Retention { finished_sec: 3600, idempotency_sec: 7200, ..Default::default() };
    let mut world = World::new(settings).await;
    let with = world.finish(Some("k")).await;
    world.finish(None).await;
    world.advance(HOUR);
    assert_eq!(world.pass().await.removed, 1);
    assert_eq!(world.listed().await, [with.to_string()]);
    world.advance(HOUR);
    assert_eq!(world.pass().await.removed, 1);
}

#[tokio::test]
async fn above_the_disk_budget_the_oldest_leave_and_then_nothing_is_accepted() {
    const LARGE: usize = 100_000;
    // Each job writes its input and its result.
    let settings = config::Retention { bytes_max: 10 * 2 * LARGE as u64, ..Default::default() };
    let mut world = World::new(settings).await;
    let mut jobs = vec![];
    for _ in 0..16 {
        let mut client = world.host.client().await;
        let job_id = submit(&mut client, echo(None, json!("x".repeat(LARGE)))).await.unwrap();
        end(&mut client, job_id).await;
        jobs.push(job_id.to_string());
        world.advance(Duration::from_secs(1));
    }
    let pass = world.pass().await;
    assert_eq!((pass.removed, pass.used_up), (0, true), "their sessions may still be resumed");
    let refused = submit(&mut world.host.client().await, echo(None, json!("x"))).await.unwrap_err();
    assert!(refused.contains("disk budget") && refused.contains("bytes_max"), "{refused}");

    world.advance(Duration::from_secs(589));
    let pass = world.pass().await;
    assert_eq!((pass.removed, pass.used_up), (6, true), "those whose time to be resumed is over");
    world.advance(Duration::from_secs(60));
    let pass = world.pass().await;
    assert_eq!((pass.removed, pass.used_up), (1, false), "no more than it takes");
    jobs.reverse();
    assert_eq!(world.listed().await, jobs[..9]);
    assert!(submit(&mut world.host.client().await, echo(None, json!("x"))).await.is_ok());
}

/// Whichever change is the last that succeeds, what is left can be told from a job that is whole, and goes later.
#[tokio::test]
async fn a_removal_that_is_cut_off_anywhere_is_finished_by_the_next_pass() {
    for changes in 0.. {
        let mut world = World::new(config::Retention::default()).await;
        let job_id = world.finish(Some("k")).await;
        let whole = world.store.names().await;
        assert_eq!(whole.len(), 4, "{whole:?}");
        // What is settled is noted first, and is not what this is about.
        world.pass().await;
        world.advance(24 * HOUR);
        world.store.after(changes);
        let cut_off = world.try_pass().await;
        world.store.after(u64::MAX);
        let left = world.store.names().await;
        assert!(left.is_subset(&whole));
        assert!(left.is_empty() || left.contains(journal::stream(job_id).as_str()), "{changes}: {left:?}");
        // Another host may be the one that goes on.
        let other = World::on(Arc::clone(&world.store), world.settings.clone(), |builder| builder).await;
        let other = World { now: world.now, ..other };
        other.pass().await;
        assert_eq!(world.store.names().await, BTreeSet::new(), "{changes}");
        if cut_off.is_ok() {
            assert_eq!(changes, 4);
            return;
        }
    }
}

/// A job that cannot be read is no reason to keep the others, nor to remove it.
#[tokio::test]
async fn what_cannot_be_read_is_left_alone() {
    let mut world = World::new(config::Retention::default()).await;
    let stream = StreamId::new("job/job_00000000000000000000000001").unwrap();
    world.store.append(&stream, Position::ZERO, vec![Bytes::from_static(b"no record")]).await.unwrap();
    let other = StreamId::new("job/something-else").unwrap();
    world.store.append(&other, Position::ZERO, vec![Bytes::from_static(b"no record")]).await.unwrap();
    world.finish(None).await;
    world.advance(25 * HOUR);
    assert_eq!(world.pass().await.removed, 1);
    let left = [stream, other].map(|stream| stream.to_string());
    assert_eq!(world.store.names().await, left.into());
}

/// A start that skips what is settled still finds every job that has not ended, however old, and every key without its
/// job.
#[tokio::test]
async fn a_start_after_a_checkpoint_misses_nothing() {
    let mut world = World::new(config::Retention::default()).await;
    let (kept, running) = (world.finish(Some("kept")).await, Submit::new("sleeper", json!({ "sec": 600 })));
    let running = submit(&mut world.host.client().await, running).await.unwrap();
    within("the start", world.store.grown(&journal::stream(running), Position::new(1))).await.unwrap();
    world.pass().await;
    let late = world.finish(None).await;
    world.advance(Duration::from_secs(1));

    // As a kill between the two appends of a submission leaves it.
    let keyed = world.finish(Some("cut off")).await;
    let (stream, last) = (journal::stream(keyed), journal::last(&*world.store, &journal::stream(keyed)).await.unwrap());
    world.store.remove(&stream, last).await.unwrap();

    let checkpoint = checkpoint::Checkpoint::load(&*world.store).await.unwrap();
    assert_eq!(checkpoint.open, [journal::stream(running)].into());
    assert!(checkpoint.settled > 0);
    let other = World::on(Arc::clone(&world.store), world.settings.clone(), |builder| builder).await;
    let mut expected = [kept, running, late, keyed].map(|job_id| job_id.to_string());
    expected.sort_by(|one, other| other.cmp(one));
    assert_eq!(other.listed().await, expected);
    // It is run, and its client finds it.
    let mut client = other.host.client().await;
    assert_eq!(submit(&mut client, echo(Some("cut off"), json!("x"))).await, Ok(keyed));
    assert_eq!(end(&mut client, keyed).await["final_status"], "success");
}

/// ARCP §6.3: a client that was there all the time has everything, however long ago that was.
#[tokio::test]
async fn a_client_that_has_everything_comes_back_though_its_jobs_were_removed() {
    let mut world = World::new(config::Retention::default()).await;
    let mut client = world.host.client().await;
    let job_id = submit(&mut client, echo(None, json!("x"))).await.unwrap();
    end(&mut client, job_id).await;
    let session = client.resume().unwrap();
    let stream = StreamId::new(&format!("session/{}", client.session_id())).unwrap();
    let written = journal::last(&*world.store, &stream).await.unwrap();
    world.advance(24 * HOUR);
    within("the session to settle", world.store.grown(&stream, written)).await.unwrap();
    assert_eq!(world.pass().await.removed, 1);
    drop(client);
    let info = ClientInfo { resume: Some(session), ..ClientInfo::default() };
    let alice = token(ALICE);
    let opened = Client::open(world.host.connect(), Some(&alice), info);
    let mut client = within("a welcome", opened).await.unwrap();
    let job_id = submit(&mut client, echo(None, json!("y"))).await.unwrap();
    end(&mut client, job_id).await;
    assert_eq!(client.resume().unwrap().last_event_seq, 2);
}
