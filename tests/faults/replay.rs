//! A job whose host is killed at every place in its journal goes on as if nothing had been, to its client as well.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use leasehold::{
    client::{Client, ClientError, ClientInfo, Resume, Submit},
    store::{
        Store,
        memory::Memory,
        sqlite::{Sqlite, SqliteOptions, Synchronous},
    },
};
use leasehold_core::{
    job::record::{End, Outcome, Record},
    protocol::event::Event,
};
use leasehold_tests::{
    MountMode, TestHost,
    host::{ALICE, token},
    journals::Past,
    mortal::{Death, Mortal},
    random::Random,
    some_agents, within,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the job does: something of everything an agent can.
fn script() -> Value {
    json!({ "do": "steps", "steps": [
        { "do": "events_flood", "count": 2 },
        { "do": "job", "namespaces": ["fs.read"] },
        { "do": "clock" },
        { "do": "random" },
        { "do": "write", "path": "/w/a", "text": "one" },
        { "do": "read", "path": "/w/a" },
        { "do": "append", "path": "/w/a", "text": "two" },
        { "do": "stat", "path": "/w/a" },
        { "do": "create_dir", "path": "/w/d" },
        { "do": "list", "path": "/w" },
        { "do": "write", "path": "/w/d/b", "text": "b" },
        { "do": "remove", "path": "/w/d" },
        { "do": "remove", "path": "/w/d/b" },
        { "do": "remove", "path": "/w/d" },
        { "do": "read", "path": "/elsewhere" },
        { "do": "metric", "name": "cost.model", "value": "0.25", "unit": "USD" },
        { "do": "flood_stdout", "lines": 2 },
        { "do": "sleep", "ms": 3 },
        { "do": "clock" },
        { "do": "append", "path": "/w/a", "text": "three" },
        { "do": "metric", "name": "cost.model", "value": "0.80", "unit": "USD" },
        { "do": "append", "path": "/w/a", "text": "four" },
        { "do": "read_range", "path": "/w/a", "offset": 0, "length": 100 },
        { "do": "events_flood", "count": 1 },
    ]})
}

/// What the lives of a job's hosts leave behind: what its client was told, what its journal holds, and the files.
#[derive(Debug, PartialEq)]
struct Traces {
    told: Vec<Value>,
    events: Vec<Value>,
    end: Value,
    files: BTreeMap<String, String>,
}

/// How a host fared.
struct Life {
    /// How many records it wrote.
    records: u64,
    /// Whether it died as it was to, and not of old age: what a client's leaving writes comes too late for some.
    died: bool,
}

/// What outlives a host: the folder of its agents, the one that its jobs change, and its client.
struct Ground {
    agents: TempDir,
    files: TempDir,
    watcher: Arc<Mutex<Watcher>>,
}

/// A client that comes back to its session whenever there is a host again (ARCP §6.3).
#[derive(Default)]
struct Watcher {
    session: Option<Resume>,
    told: Vec<Value>,
    over: bool,
}

impl Watcher {
    /// Submits the job and listens to its end, unless that has come.
    async fn watch(watcher: &Mutex<Self>, host: &TestHost) {
        if watcher.lock().unwrap().over {
            return;
        }
        // Kept until there is another: its host may die before it has opened one.
        let session = watcher.lock().unwrap().session.clone();
        let mut client = match Self::open(host, session.clone()).await {
            Ok(client) => client,
            // Its host was killed before anything was asked of it.
            Err(ClientError::Refused { .. }) if session.is_some_and(|session| session.last_event_seq == 0) => {
                Self::open(host, None).await.unwrap()
            }
            Err(error) => panic!("{error}"),
        };
        watcher.lock().unwrap().session = client.resume();
        let submission = Submit {
            idempotency_key: Some("the job".into()),
            lease_request: Some(json!({ "fs.read": ["/w/**"], "fs.write": ["/w/**"], "cost.budget": ["USD:1.00"] })),
            ..Submit::new("hostile", script())
        };
        // Whoever does not know whether it was accepted submits again, and that is the same job.
        client.submit(submission).await.unwrap();
        loop {
            let frame = client.next_event().await.unwrap();
            let mut watcher = watcher.lock().unwrap();
            watcher.session.as_mut().unwrap().last_event_seq = frame.event_seq.unwrap();
            watcher.told.push(json!([frame.event_seq, frame.kind, frame.payload]));
            watcher.over = frame.is_terminal();
            if watcher.over {
                return;
            }
        }
    }

    async fn open(host: &TestHost, resume: Option<Resume>) -> Result<Client, ClientError> {
        Client::open(host.connect(), Some(&token(ALICE)), ClientInfo { resume, ..ClientInfo::default() }).await
    }
}

impl Ground {
    fn new() -> Self {
        let (agents, files) = (some_agents(&["hostile"]), tempfile::tempdir().unwrap());
        Self { agents, files, watcher: Arc::default() }
    }

    /// One life of a host.
    fn live(&self, store: &Arc<dyn Store>, death: Death) -> Life {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mortal = Mortal::of(store, death);
        let (view, watcher) = (Arc::clone(&mortal), Arc::clone(&self.watcher));
        let (agents, files) = (self.agents.path().to_owned(), self.files.path().to_owned());
        let died = runtime.block_on(async move {
            let life = async {
                let builder = TestHost::builder().store(Arc::clone(&view) as Arc<dyn Store>);
                let builder = builder.config(|config| config.server.agents = agents);
                let host = builder.mount_dir("/w", &files, MountMode::Rw).start().await;
                Watcher::watch(&watcher, &host).await;
                host
            };
            tokio::select! {
                host = within("the job", life) => {
                    drop(host);
                    false
                }
                () = view.died() => true,
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
        Life { records: mortal.records(), died }
    }

    fn traces(&self, store: &dyn Store) -> Traces {
        let mut jobs = tokio::runtime::Runtime::new().unwrap().block_on(Past::all(store));
        assert_eq!(jobs.len(), 1, "one key makes one job");
        let (mut events, mut end) = (Vec::new(), Value::Null);
        for record in jobs.remove(0).records {
            match record {
                Record::Event { event: Event::Metric { name, value, .. }, .. } => {
                    events.push(json!([name, value.to_string()]));
                }
                Record::Event { event, .. } => events.push(serde_json::to_value(event).unwrap()),
                Record::Called(called) => {
                    let outcome = match called.outcome {
                        Outcome::Done { summary, .. } => serde_json::from_str(summary.as_str()).unwrap(),
                        Outcome::Failed { code, .. } => json!(code),
                    };
                    events.push(json!([called.call, called.operation, outcome]));
                }
                Record::Ended { end: End::Result(result), .. } => end = serde_json::from_str(result.as_str()).unwrap(),
                Record::Ended { end: other, .. } => panic!("{other:?}"),
                _ => {}
            }
        }
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.files).unwrap().flatten() {
            files.insert(entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
        }
        let mut told = self.watcher.lock().unwrap().told.clone();
        for (seq, message) in (1..).zip(&told) {
            assert_eq!(message[0], seq, "{told:?}");
        }
        for message in &mut told {
            for field in ["ts", "completed_at", "job_id"] {
                if let Some(value) = message[2].get_mut(field) {
                    *value = Value::Null;
                }
            }
            if let Some(result) = message[2].get_mut("result") {
                blank(result);
            }
        }
        blank(&mut end);
        Traces { told, events, end, files }
    }
}

/// Leaves out of a result what differs from one job to the next, whatever happens to their hosts.
fn blank(result: &mut Value) {
    let Value::Array(steps) = result else { panic!("{result}") };
    for (step, value) in steps.iter_mut().enumerate() {
        for field in ["id", "trace_id", "unix_ns", "elapsed_ns", "random", "modified"] {
            if let Some(value) = value["ok"].get_mut(field) {
                assert!(!value.is_null(), "step {step}");
                *value = Value::Null;
            }
        }
    }
}

/// Lets a host die again and again, and the last one live; says what they leave, and how many records the first wrote.
fn lives(deaths: &[Death]) -> (u64, Traces) {
    let (ground, store) = (Ground::new(), Arc::new(Memory::default()) as Arc<dyn Store>);
    let records: Vec<u64> =
        deaths.iter().chain([&Death::Never]).map(|death| ground.live(&store, *death).records).collect();
    (records[0], ground.traces(&*store))
}

#[test]
fn undisturbed_the_job_does_all_it_was_told_to() {
    let (_, Traces { told, events, files, .. }) = lives(&[]);
    assert_eq!(told.last().unwrap()[2]["final_status"], "success");
    assert_eq!(files, BTreeMap::from([("a".into(), "onetwothree".into())]));
    // ARCP §9.6: each cost is counted once, and what overdraws the budget ends it.
    let budget: Vec<_> = events.iter().filter(|event| event[0] == "cost.budget.remaining").cloned().collect();
    assert_eq!(budget, [json!(["cost.budget.remaining", "0.75"]), json!(["cost.budget.remaining", "-0.05"])]);
    assert_eq!(events.iter().rfind(|event| event[1] == "fs.append").unwrap()[2], "budget-exhausted");
}

#[test]
fn killed_before_and_after_every_record_a_job_leaves_the_same_traces() {
    let (records, undisturbed) = lives(&[]);
    for n in 0..records {
        for death in [Death::Before(n), Death::After(n)] {
            assert_eq!(lives(&[death]).1, undisturbed, "{death:?} of {records}");
        }
    }
    println!("{} places to be killed at", records * 2);
}

#[test]
fn killed_twice_and_three_times_a_job_leaves_the_same_traces() {
    let (records, undisturbed) = lives(&[]);
    let mut random = Random::new();
    for n in 0..2 * ROUNDS {
        let deaths: Vec<_> = (0..2 + n / ROUNDS)
            .map(|_| match random.below(2) {
                0 => Death::Before(random.below(records)),
                _ => Death::After(random.below(records)),
            })
            .collect();
        assert_eq!(lives(&deaths).1, undisturbed, "{deaths:?} of {records}");
    }
}

/// How often a job is killed twice, and how often three times.
const ROUNDS: usize = 10;

/// A write that was cut off anywhere, as by a loss of power, is one that nobody was told of: it never was.
#[test]
fn whatever_the_last_write_left_of_itself_a_job_leaves_the_same_traces() {
    let (records, undisturbed) = lives(&[]);
    let mut random = Random::new();
    for n in 0..records {
        let (ground, data) = (Ground::new(), tempfile::tempdir().unwrap());
        let store = open(data.path());
        if !ground.live(&store, Death::After(n)).died {
            continue; // Its client was told of all that it wrote.
        }
        // As it lies on the disk now; a store that is closed would tidy it up.
        let torn = tempfile::tempdir().unwrap();
        for name in [FILE.to_owned(), format!("{FILE}-wal")] {
            fs::copy(data.path().join(&name), torn.path().join(&name)).unwrap();
        }
        let length = cut_last_write(&torn.path().join(format!("{FILE}-wal")), &mut random);
        let store = open(torn.path());
        ground.live(&store, Death::Never);
        assert_eq!(ground.traces(&*store), undisturbed, "record {n} of {records}, cut off at {length}");
    }
    println!("{records} places to be cut off at");
}

const FILE: &str = "journal.sqlite";

fn open(dir: &Path) -> Arc<dyn Store> {
    // What the disk holds is the test's affair, so nobody has to wait for it.
    let options = SqliteOptions { synchronous: Synchronous::Normal, ..SqliteOptions::default() };
    Arc::new(Sqlite::open(&dir.join(FILE), options).unwrap())
}

/// Shortens a write-ahead log to a length that lacks a part of its last write, and says to which.
///
/// It is a header, and frames of a header and a page each, of which the last of a write is marked:
/// <https://sqlite.org/fileformat2.html#the_write_ahead_log>.
fn cut_last_write(log: &Path, random: &mut Random) -> u64 {
    const HEADER: usize = 32;
    const FRAME_HEADER: usize = 24;
    let bytes = fs::read(log).unwrap();
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let frame = FRAME_HEADER + number(8) as usize;
    let ends = (HEADER..bytes.len()).step_by(frame).filter(|at| number(at + 4) != 0).map(|at| (at + frame) as u64);
    let ends: Vec<u64> = ends.collect();
    let [.., before, last] = ends[..] else { panic!("a host begins with more than one write") };
    let length = before + random.below(last - before);
    fs::OpenOptions::new().write(true).open(log).unwrap().set_len(length).unwrap();
    length
}
