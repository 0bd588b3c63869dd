//! A store that fails at the n-th append, as a disk does that is full or broken.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use leasehold::{
    checkpoint,
    client::{Client, ClientError, Submit},
    journal,
    store::{Begun, Position, Store, StoreError, Stored, StreamId, memory::Memory},
};
use leasehold_tests::{
    TestHost,
    host::{ALICE, BOB},
    journals::Past,
    mortal::{Death, Mortal},
    within,
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// A store whose appends fail from one on, for as long as it is told.
struct Failing {
    inner: Memory,
    appends: AtomicU64,
    /// The first append that fails, and the first after it that works again.
    from: AtomicU64,
    until: AtomicU64,
    /// Where a stream ends cannot be told.
    blind: AtomicBool,
    /// The streams whose appends failed.
    failures: watch::Sender<BTreeSet<StreamId>>,
    words: &'static str,
}

impl Failing {
    fn new(words: &'static str) -> Arc<Self> {
        let (from, until) = (AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
        Arc::new(Self {
            inner: Memory::default(),
            appends: AtomicU64::new(0),
            from,
            until,
            blind: AtomicBool::new(false),
            failures: watch::Sender::default(),
            words,
        })
    }

    /// Fails the n-th append from now, counted from 0, and as many as `count`.
    fn fail(&self, n: u64, count: u64) {
        let from = self.appends.load(Ordering::SeqCst) + n;
        self.until.store(from.saturating_add(count), Ordering::SeqCst);
        self.from.store(from, Ordering::SeqCst);
    }

    /// Returns once an append to each of these jobs has failed.
    async fn failed(&self, jobs: &[String]) {
        let mut failures = self.failures.subscribe();
        let all = failures.wait_for(|failures| jobs.iter().all(|job| failures.contains(&stream(job))));
        within("a failure", all).await.unwrap();
    }

    fn mend(&self) {
        self.from.store(u64::MAX, Ordering::SeqCst);
    }
}

#[async_trait]
impl Store for Failing {
    async fn append(&self, stream: &StreamId, last: Position, records: Vec<Bytes>) -> Result<Position, StoreError> {
        // What the host notes for itself comes at moments of its own.
        if stream.as_str() == checkpoint::STREAM {
            return self.inner.append(stream, last, records).await;
        }
        // Only those of jobs are counted: when a session writes depends on the time.
        let of_session = stream.as_str().starts_with("session/");
        let n = self.appends.fetch_add(u64::from(!of_session), Ordering::SeqCst);
        let until = self.until.load(Ordering::SeqCst);
        if (self.from.load(Ordering::SeqCst)..until).contains(&n) && (!of_session || until == u64::MAX) {
            self.failures.send_if_modified(|failures| failures.insert(stream.clone()));
            return Err(StoreError::Io(self.words.to_owned()));
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
        match self.blind.load(Ordering::SeqCst) && prefix.starts_with("job/") {
            true => Err(StoreError::Io(self.words.to_owned())),
            false => self.inner.streams(prefix, after, limit).await,
        }
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

const DISK_FULL: &str = "journal.sqlite: database or disk is full";

/// Whichever append fails of those that a job makes in its life, the store works again afterwards, and so does the host.
#[tokio::test]
async fn one_failed_append_costs_one_job_and_no_other() {
    for n in 0..12 {
        let store = Failing::new("the disk took a breath");
        let host = TestHost::builder().store(Arc::clone(&store) as Arc<dyn Store>).start().await;
        let mut bystander = host.client().await;
        let other = submit(&mut bystander, Submit::new("sleeper", json!({ "sec": 600 }))).await.unwrap();
        // Its journal has begun, or its first append could be the one that fails.
        within("the sleeper", store.inner.grown(&stream(&other), Position::new(1))).await.unwrap();
        let mut client = host.client().await;
        let submission = || Submit {
            idempotency_key: Some("k".into()),
            ..Submit::new("chatty", json!({ "count": 20, "delay_ms": 1 }))
        };
        store.fail(n, 1);
        let job = match submit(&mut client, submission()).await {
            Ok(job) => job,
            // A client that is told to try again does, with the same key.
            Err(error) => {
                assert_refused(&error);
                assert!(n < 2, "append {n}: {error}");
                submit(&mut client, submission()).await.unwrap_or_else(|error| panic!("append {n}: {error}"))
            }
        };
        let (events, end) = follow(&mut client, &job).await;
        match end["final_status"].as_str() {
            // The failure came before anything was promised, or after everything was written.
            Some("success") => assert_eq!(events.len(), 20, "append {n}"),
            Some("error") => {
                assert_eq!((&end["code"], &end["retryable"]), (&json!("INTERNAL_ERROR"), &json!(true)), "append {n}");
            }
            _ => panic!("append {n}: {end}"),
        }
        assert_eq!(events, (1..=events.len()).map(|n| format!("event {n}")).collect::<Vec<_>>(), "append {n}");
        assert_eq!(echo(&mut client, json!(n)).await, json!(n), "append {n}");
        assert_eq!(status(&mut bystander, &other).await, "running", "append {n}");
    }
}

#[tokio::test]
async fn on_a_full_disk_work_is_refused_and_when_there_is_space_jobs_have_an_end() {
    let store = Failing::new(DISK_FULL);
    let host = TestHost::builder().store(Arc::clone(&store) as Arc<dyn Store>).start().await;
    let mut client = host.client().await;
    let mut jobs = Vec::new();
    for _ in 0..8 {
        jobs.push(
            submit(&mut client, Submit::new("chatty", json!({ "count": 100_000, "delay_ms": 1 }))).await.unwrap(),
        );
    }
    let mut silent = jobs.clone();
    while !silent.is_empty() {
        let frame = within("an event", client.next_event()).await.unwrap();
        silent.retain(|job| Some(job) != frame.job_id.as_ref());
    }
    let mut other = host.client_as(BOB).await;
    store.fail(0, u64::MAX);
    assert_refused(&submit(&mut other, Submit::new("echo", json!(1))).await.unwrap_err());
    store.failed(&jobs).await;
    store.mend();
    let mut open = jobs.clone();
    while !open.is_empty() {
        let frame = within("the ends", client.next_event()).await.unwrap();
        if frame.is_terminal() {
            assert_eq!((&frame.payload["code"], &frame.payload["retryable"]), (&json!("INTERNAL_ERROR"), &json!(true)));
            open.retain(|job| Some(job) != frame.job_id.as_ref());
        }
    }
    for job in &jobs {
        assert_eq!(status(&mut client, job).await, "error");
    }
    assert_eq!(echo(&mut other, json!("bob")).await, json!("bob"));
}

/// What was on its way to the disk was shown to nobody, so the next host may let the agent do it again.
#[tokio::test]
async fn a_job_whose_host_could_not_store_its_end_and_is_killed_goes_on() {
    let store = Failing::new(DISK_FULL);
    let lasting = Arc::clone(&store) as Arc<dyn Store>;
    let view = Mortal::of(&lasting, Death::Never);
    let host = TestHost::builder().store(Arc::clone(&view) as Arc<dyn Store>).start().await;
    let mut client = host.client().await;
    let submission = || Submit {
        idempotency_key: Some("once".into()),
        ..Submit::new("chatty", json!({ "count": 500, "delay_ms": 1 }))
    };
    let job = submit(&mut client, submission()).await.unwrap();
    within("an event", client.next_event()).await.unwrap();
    store.fail(0, u64::MAX);
    store.failed(std::slice::from_ref(&job)).await;
    view.kill();
    drop(host);
    store.mend();
    let host = TestHost::builder().store(Arc::clone(&lasting)).start().await;
    let mut client = host.client().await;
    assert_eq!(submit(&mut client, submission()).await.unwrap(), job);
    let (_, end) = follow(&mut client, &job).await;
    assert_eq!(end["final_status"], "success", "{end}");
    let past = Past::of(&*lasting, job.parse().unwrap()).await;
    assert_eq!(past.messages(), (1..=500).map(|n| format!("event {n}")).collect::<Vec<_>>());
}

/// A refusal that says that it is the host's fault and may pass, and nothing of the host's files.
fn assert_refused(error: &ClientError) {
    let ClientError::Refused { code, message, retryable: true } = error else { panic!("{error}") };
    assert_eq!(code, "INTERNAL_ERROR");
    assert!(!message.contains("sqlite"), "{message}");
}

/// The messages that a job logs, and its end.
async fn follow(client: &mut Client, job: &str) -> (Vec<String>, Value) {
    let mut messages = Vec::new();
    loop {
        let frame = within("the job's end", client.next_event()).await.unwrap();
        if frame.job_id.as_deref() != Some(job) {
            continue;
        }
        if frame.is_terminal() {
            return (messages, frame.payload);
        }
        messages.extend(frame.payload["body"]["message"].as_str().map(str::to_owned));
    }
}

async fn echo(client: &mut Client, input: Value) -> Value {
    let job = submit(client, Submit::new("echo", input)).await.unwrap();
    follow(client, &job).await.1["result"].take()
}

async fn submit(client: &mut Client, submission: Submit) -> Result<String, ClientError> {
    within("an answer", client.submit(submission)).await.map(|accepted| accepted.job_id)
}

async fn status(client: &mut Client, job: &str) -> String {
    let jobs = within("a listing", client.list_jobs(Value::Null)).await.unwrap();
    let listed =
        jobs.iter().find(|listed| listed["job_id"] == job).unwrap_or_else(|| panic!("{job} is not in {jobs:?}"));
    listed["status"].as_str().unwrap().to_owned()
}

fn stream(job: &str) -> StreamId {
    journal::stream(job.parse().unwrap())
}

/// What a child was given is spent as long as nobody knows better: money is not given back because a disk fails.
#[tokio::test]
async fn money_of_a_child_whose_end_cannot_be_read_does_not_come_back() {
    let store = Failing::new("the disk took a breath");
    let lease = json!({ "agent.delegate": ["hostile"], "cost.budget": ["USD:1.00"] });
    let builder = TestHost::builder().store(Arc::clone(&store) as Arc<dyn Store>);
    let host = builder.policy(ALICE, lease.clone()).start().await;
    let mut session = host.session().await;
    store.blind.store(true, Ordering::SeqCst);
    let spend = json!({ "do": "metric", "name": "cost.model", "value": "0.05", "unit": "USD" });
    let child =
        json!({ "call": "delegate", "agent": "hostile", "input": spend, "lease": { "cost.budget": ["USD:0.40"] } });
    let steps = json!({ "do": "steps", "steps": [{ "do": "calls", "start": [child] }, { "do": "job" }] });
    let run = session.submit("hostile").lease(lease).input(steps).run().await;
    let told = run.result().unwrap_or_else(|_| panic!("{run:?}"));
    assert_eq!(told[0]["ok"][0]["err"]["code"], "internal-error", "{told}");
    assert_eq!(told[1]["ok"]["budget"]["USD"].as_str().map(|left| left.trim_end_matches('0')), Some("0.6"), "{told}");
}
