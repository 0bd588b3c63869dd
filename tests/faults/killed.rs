//! `leasehold serve` under SIGKILL and SIGTERM: whatever moment it comes, what a client was told stays true, and what
//! was accepted is done once.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use leasehold::{
    client::{Client, ClientError, ClientInfo, Frame, Resume, Submit},
    store::sqlite::{Sqlite, SqliteOptions},
};
use leasehold_core::job::record::Record;
use leasehold_tests::{
    host::{ALICE, token},
    journals::Past,
    program::{self, Serve},
    random::Random,
    some_agents, within,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

/// What outlives the hosts.
struct Data {
    dir: TempDir,
    agents: TempDir,
}

impl Data {
    fn new() -> Self {
        let (dir, agents) = (tempfile::tempdir().unwrap(), some_agents(&["echo", "chatty", "sleeper", "hostile"]));
        fs::create_dir(dir.path().join("files")).unwrap();
        // An operator's host is not killed again and again before any of its jobs has gone on; this one is.
        // A kill takes nothing from the operating system, so nobody has to wait for the disk.
        let settings = "[server]\nsynchronous = \"normal\"\n[limits]\nreplays_max = 1000000\nlive_agents_max = 128\n";
        fs::write(dir.path().join("leasehold.toml"), settings).unwrap();
        Self { dir, agents }
    }

    async fn serve(&self) -> Serve {
        let mount = format!("/w={}:rw", self.dir.path().join("files").display());
        let settings = self.dir.path().join("leasehold.toml");
        let serve = Serve::on(&self.dir.path().join("data")).await.agents(self.agents.path());
        serve.args(["--mount", &mount, "--config"]).args([settings])
    }

    /// What the journals say once no host runs.
    async fn journals(&self) -> HashMap<String, Past> {
        let store = Sqlite::open(&self.dir.path().join("data/journal.sqlite"), SqliteOptions::default()).unwrap();
        let all = Past::all(&store).await;
        store.close().await;
        all.into_iter().map(|past| (past.job_id.to_string(), past)).collect()
    }
}

async fn submit(client: &mut Client, submission: &Submit) -> String {
    within("the acceptance", client.submit(submission.clone())).await.unwrap().job_id
}

async fn end_of(client: &mut Client, job: &str) -> Frame {
    loop {
        let frame = within("the end", client.next_event()).await.unwrap();
        if frame.job_id.as_deref() == Some(job) && frame.is_terminal() {
            return frame;
        }
    }
}

fn keyed(key: &str, submission: Submit) -> Submit {
    Submit { idempotency_key: Some(key.to_owned()), ..submission }
}

#[tokio::test]
async fn after_a_kill_a_finished_job_is_as_it_was_and_an_interrupted_one_goes_on() {
    let data = Data::new();
    let host = data.serve().await.start().await;
    let mut client = host.client(ALICE).await;
    let finished = keyed("finished", Submit::new("echo", json!({ "kept": true })));
    let chatty = keyed("chatty", Submit::new("chatty", json!({ "count": 300, "delay_ms": 2 })));
    let sleeper = keyed("sleeper", Submit::new("sleeper", json!({ "sec": 1 })));
    let job = submit(&mut client, &finished).await;
    let end = end_of(&mut client, &job).await;
    let interrupted = [submit(&mut client, &chatty).await, submit(&mut client, &sleeper).await];
    for _ in 0..20 {
        within("an event", client.next_event()).await.unwrap();
    }
    let _ = host.kill().await;
    let host = data.serve().await.start().await;
    let mut client = host.client(ALICE).await;
    // ARCP §7.2: the same jobs, and their ends.
    assert_eq!(submit(&mut client, &finished).await, job);
    assert_eq!(end_of(&mut client, &job).await.payload, end.payload);
    for (submission, job) in [chatty, sleeper].iter().zip(&interrupted) {
        assert_eq!(submit(&mut client, submission).await, *job);
        assert_eq!(end_of(&mut client, job).await.payload["final_status"], "success");
    }
    let _ = host.kill().await;
    let journals = data.journals().await;
    assert_eq!(journals.len(), 3);
    assert_eq!(journals[&interrupted[0]].messages(), (1..=300).map(|n| format!("event {n}")).collect::<Vec<_>>());
    for job in &interrupted {
        assert_eq!(journals[job].count(|record| matches!(record, Record::Started { .. })), 2);
        assert_eq!(journals[job].count(|record| matches!(record, Record::Resumed { .. })), 1);
    }
}

/// ARCP §6.7
#[tokio::test]
async fn a_host_that_is_told_to_stop_tells_its_sessions_and_the_next_one_goes_on() {
    let data = Data::new();
    let host = data.serve().await.start().await;
    let mut client = host.client(ALICE).await;
    let mut told = Story::default();
    let mut work: Vec<_> = (0..6).map(|n| Work::new(&format!("work-{n}"), n)).collect();
    // Of what is over soon, some may be over before the signal comes.
    work.push(Work::chatty("long", 200, 10));
    for work in &work {
        let job = submit(&mut client, &work.submission).await;
        told.accepted(job, work.clone(), 0);
    }
    for _ in 0..10 {
        told.take(&within("an event", client.next_event()).await.unwrap());
    }
    let began = Instant::now();
    let stopped = tokio::spawn(host.terminate());
    let farewell = loop {
        match within("a farewell", client.recv()).await {
            Ok(frame) if frame.kind == "session.closed" => break frame,
            Ok(frame) => told.take(&frame),
            Err(error) => panic!("the connection was closed without a word: {error}"),
        }
    };
    assert_eq!(farewell.payload["reason"], "the host is stopping");
    let resume = client.resume().unwrap();
    drop(client);
    let _ = within("the host to stop", stopped).await.unwrap().exits(0);
    // The default of `server.drain_sec`.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    let host = data.serve().await.start().await;
    let info = ClientInfo { resume: Some(resume), ..ClientInfo::default() };
    let token = token(ALICE);
    let mut client = within("the session", Client::connect_ws(&host.url, Some(&token), info)).await.unwrap();
    while told.jobs.values().any(|job| job.end.is_none()) {
        told.take(&within("an event", client.next_event()).await.unwrap());
    }
    let _ = host.terminate().await.exits(0);
    told.is_whole();
    let journals = data.journals().await;
    assert!(journals.values().any(|past| past.count(|record| matches!(record, Record::Started { .. })) > 1));
    assert_files(&data, told.jobs.values().map(|job| &job.work));
}

/// How often the host is killed with work under way.
const KILLS: u64 = 200;
const CLIENTS: u64 = 20;
const JOBS: u64 = 50;

/// `LEASEHOLD_TEST_KILLS` says how often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_host_is_killed_no_job_is_lost_no_event_is_missed_and_every_effect_takes_place_once() {
    let kills = env::var("LEASEHOLD_TEST_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let mut random = Random::new();
    let data = Data::new();
    let (tell, told) = watch::channel(Host::default());
    let frames = Arc::new(AtomicU64::new(0));
    let clients = (0..CLIENTS).map(|n| {
        // Fifty jobs, dealt to twenty clients.
        let jobs = JOBS / CLIENTS + u64::from(n < JOBS % CLIENTS);
        tokio::spawn(Tenant::new(n, jobs, Arc::clone(&frames), told.clone()).live())
    });
    let clients: Vec<_> = clients.collect();
    for _ in 0..kills {
        let starting = data.serve().await.spawn();
        if random.below(8) == 0 {
            let _ = starting.kill_after(Duration::from_millis(random.below(150))).await;
            continue;
        }
        let host = within("the host", starting.ready()).await;
        tell.send_modify(|known| known.url = Some(host.url.clone()));
        // The moment of the kill: so many frames from now.
        let until = frames.load(Ordering::Relaxed) + random.below(30);
        let reached = async {
            while frames.load(Ordering::Relaxed) < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within("events", reached).await;
        tell.send_modify(|known| known.url = None);
        let _ = host.kill().await;
    }
    let host = data.serve().await.start().await;
    tell.send_modify(|known| *known = Host { url: Some(host.url.clone()), last: true });
    let mut jobs = BTreeMap::new();
    for client in clients {
        let story = client.await.unwrap();
        story.is_whole();
        jobs.extend(story.jobs);
    }
    let listed = within("a listing", host.client(ALICE).await.list_jobs(Value::Null)).await.unwrap();
    let _ = host.kill().await;
    let journals = data.journals().await;
    // Every job that was accepted is there, and no other: a submission that was repeated is the same job.
    assert_eq!((journals.len(), listed.len().min(10_000)), (jobs.len(), jobs.len().min(10_000)));
    let (mut runs, mut cut_off) = (0, 0);
    for (job, told) in &jobs {
        let past = &journals[job];
        assert_eq!(past.messages(), told.work.messages());
        runs += past.count(|record| matches!(record, Record::Started { .. }));
        cut_off += past.records.windows(3).filter(|records| is_cut_off(records)).count();
    }
    assert_files(&data, jobs.values().map(|job| &job.work));
    // And some of them, run once more from what so many hosts wrote, do the same.
    let folder = data.dir.path().join("data").display().to_string();
    for job in jobs.keys().rev().take(5) {
        let again = program::run(["replay", job, "--data", &folder, "--json"]).await.exits(0).json();
        assert_eq!(again["identical"], true, "{again}");
    }
    let (frames, jobs) = (frames.load(Ordering::Relaxed), jobs.len());
    println!("{kills} kills, {jobs} jobs in {runs} runs, {frames} frames, {cut_off} effects cut off");
}

/// Whether an effect was under way when its host was killed.
fn is_cut_off(records: &[Record]) -> bool {
    use Record::{Called, Intent, Started, Void};
    matches!(records, [Intent(_), Started { .. } | Void { .. }, _] | [Intent(_), Called(_), Started { .. }])
}

/// Where the host is, if there is one, and whether it is the last.
#[derive(Clone, Debug, Default)]
struct Host {
    url: Option<String>,
    last: bool,
}

/// A job of which it is known what it does.
#[derive(Clone, Debug)]
struct Work {
    submission: Submit,
    result: Value,
    /// How many events it tells.
    events: usize,
    /// The file that it adds lines to, and the lines.
    lines: Option<(String, Vec<String>)>,
}

impl Work {
    /// One of several kinds, all of them over soon, though not before the next kill.
    fn new(key: &str, kind: u64) -> Self {
        let work =
            |submission, result, events| Self { submission: keyed(key, submission), result, events, lines: None };
        match kind % 6 {
            0 => work(Submit::new("echo", json!({ "key": key })), json!({ "key": key }), 0),
            1 => work(Submit::new("sleeper", json!({ "sec": 0.3 })), json!({ "slept": 0.3 }), 0),
            2 => Self::chatty(key, 60, 0),
            3 => Self::chatty(key, 30, 10),
            kind => {
                // A file of its own, or one that many write to.
                let file = if kind == 4 { key } else { "shared" };
                let lines: Vec<_> = (0..5).map(|n| format!("{key} {n}")).collect();
                let append =
                    |line| json!({ "do": "append", "path": format!("/w/{file}"), "text": format!("{line}\n") });
                let nap = json!({ "do": "sleep", "ms": 5 });
                let steps: Vec<_> = lines.iter().flat_map(|line| [append(line), nap.clone()]).collect();
                let submission = Submit {
                    lease_request: Some(json!({ "fs.write": ["/w/**"] })),
                    ..Submit::new("hostile", json!({ "do": "steps", "steps": steps }))
                };
                let result = steps.iter().map(|_| json!({ "ok": null })).collect();
                Self { lines: Some((file.to_owned(), lines)), ..work(submission, result, 0) }
            }
        }
    }

    fn chatty(key: &str, count: usize, delay_ms: u64) -> Self {
        let submission = Submit::new("chatty", json!({ "count": count, "delay_ms": delay_ms }));
        Self { submission: keyed(key, submission), result: json!({ "count": count }), events: count, lines: None }
    }

    fn messages(&self) -> Vec<String> {
        (1..=self.events).map(|n| format!("event {n}")).collect()
    }
}

/// Every line that was added stands in its file once, and nothing else does.
fn assert_files<'a>(data: &Data, work: impl Iterator<Item = &'a Work>) {
    let mut expected: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, lines) in work.filter_map(|work| work.lines.as_ref()) {
        expected.entry(file).or_default().extend(lines.iter().map(String::as_str));
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(data.dir.path().join("files")).unwrap().flatten() {
        found.insert(entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
    }
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>());
    for (file, mut lines) in expected {
        let mut there: Vec<_> = found[file].lines().collect();
        lines.sort_unstable();
        there.sort_unstable();
        assert_eq!(there, lines, "{file}");
    }
}

/// Everything that a session was told, over however many connections.
#[derive(Debug, Default)]
struct Story {
    last_seq: u64,
    jobs: BTreeMap<String, Told>,
    /// Of jobs whose acceptance was lost on its way.
    unclaimed: Vec<Frame>,
}

/// What it was told of one job.
#[derive(Debug)]
struct Told {
    work: Work,
    messages: Vec<String>,
    end: Option<Value>,
    /// How often it was submitted again, and may have ended by then.
    again: u64,
}

impl Story {
    fn accepted(&mut self, job: String, work: Work, again: u64) {
        let known = self.jobs.insert(job, Told { work, messages: Vec::new(), end: None, again });
        assert!(known.is_none(), "a job was accepted twice for two keys: {known:?}");
        for frame in std::mem::take(&mut self.unclaimed) {
            self.told(&frame);
        }
    }

    fn take(&mut self, frame: &Frame) {
        let Some(seq) = frame.event_seq else { return };
        assert_eq!(seq, self.last_seq + 1, "{frame:?}");
        self.last_seq = seq;
        self.told(frame);
    }

    fn told(&mut self, frame: &Frame) {
        let Some(job) = frame.job_id.as_ref().and_then(|job| self.jobs.get_mut(job)) else {
            self.unclaimed.push(frame.clone());
            return;
        };
        if let Some(end) = &job.end {
            // ARCP §7.2: who submits a job that has ended is told of its end once more.
            assert_eq!(frame.payload, *end, "a job goes on after its end: {frame:?}");
            job.again = job.again.checked_sub(1).unwrap_or_else(|| panic!("a job ends once more: {frame:?}"));
            return;
        }
        match frame.event() {
            _ if frame.is_terminal() => job.end = Some(frame.payload.clone()),
            Some(("log", body)) => job.messages.push(body["message"].as_str().unwrap().to_owned()),
            _ => {}
        }
    }

    fn open(&self) -> usize {
        self.jobs.values().filter(|job| job.end.is_none()).count()
    }

    /// Each job was told from its beginning to its end, and came to what it would have come to undisturbed.
    fn is_whole(&self) {
        assert!(self.unclaimed.is_empty(), "nobody submitted these: {:?}", self.unclaimed);
        for (job, Told { work, messages, end, .. }) in &self.jobs {
            assert_eq!(*messages, work.messages(), "{job}");
            let end = end.as_ref().unwrap_or_else(|| panic!("{job} has no end"));
            assert_eq!((&end["final_status"], &end["result"]), (&json!("success"), &work.result), "{job}: {end}");
        }
    }
}

/// A client with one session that outlives every host, and a few jobs under way at any time.
struct Tenant {
    number: u64,
    jobs: u64,
    frames: Arc<AtomicU64>,
    host: watch::Receiver<Host>,
    made: u64,
    /// Submitted, or about to be, and not answered; and how often.
    wanted: Option<(Work, u64)>,
    story: Story,
}

impl Tenant {
    fn new(number: u64, jobs: u64, frames: Arc<AtomicU64>, host: watch::Receiver<Host>) -> Self {
        Self { number, jobs, frames, host, made: 0, wanted: None, story: Story::default() }
    }

    /// Lives until the last host has ended the last job.
    async fn live(mut self) -> Story {
        let token = token(ALICE);
        let mut resume: Option<Resume> = None;
        loop {
            let host = within("a host", self.host.wait_for(|host| host.url.is_some())).await.unwrap().clone();
            let info = ClientInfo { resume: resume.clone(), ..ClientInfo::default() };
            let url = host.url.as_deref().unwrap();
            let mut client = match within("a session", Client::connect_ws(url, Some(&token), info)).await {
                Ok(client) => client,
                Err(ClientError::Refused { .. }) if self.story.last_seq == 0 && self.story.jobs.is_empty() => {
                    // Nothing was promised in it yet, so nothing was kept of it.
                    resume = None;
                    continue;
                }
                Err(error) => {
                    assert!(
                        !matches!(error, ClientError::Refused { .. }),
                        "{error}: {:?} after {resume:?}",
                        self.story
                    );
                    is_loss(&error);
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let error = match self.work(&mut client).await {
                Ok(()) => return self.story,
                Err(error) => error,
            };
            is_loss(&error);
            for frame in client.drain().collect::<Vec<_>>() {
                self.take(&frame);
            }
            resume = client.resume();
            assert_eq!(resume.as_ref().unwrap().last_event_seq, self.story.last_seq);
        }
    }

    fn take(&mut self, frame: &Frame) {
        self.story.take(frame);
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps its jobs under way and listens, until the host is gone, or is the last and has ended them all.
    async fn work(&mut self, client: &mut Client) -> Result<(), ClientError> {
        loop {
            let last = self.host.borrow().last;
            if self.wanted.is_none() && !last && (self.story.open() as u64) < self.jobs {
                self.made += 1;
                let key = format!("tenant-{}-{}", self.number, self.made);
                self.wanted = Some((Work::new(&key, self.number + self.made), 0));
            }
            if let Some((work, attempts)) = &mut self.wanted {
                *attempts += 1;
                let accepted = within("an acceptance", client.submit(work.submission.clone())).await?;
                let (work, attempts) = self.wanted.take().expect("it is wanted");
                self.story.accepted(accepted.job_id, work, attempts - 1);
                continue;
            }
            if last && self.story.open() == 0 {
                return Ok(());
            }
            let frame = within("an event", client.next_event()).await?;
            self.take(&frame);
        }
    }
}

/// Whether an error says no more than that the host is gone.
#[track_caller]
fn is_loss(error: &ClientError) {
    assert!(
        matches!(error, ClientError::Connect { .. } | ClientError::Closed(_) | ClientError::Silent(_)),
        "a host that is killed says nothing: {error}"
    );
}
