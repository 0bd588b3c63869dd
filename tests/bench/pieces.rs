//! The pieces of a job by themselves, in this process: the gate, a call, an instance, the disk.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    hint::black_box,
    io::Write as _,
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use leasehold::{
    agents::{
        cache::Cache,
        compiler::{Compiler, Place, Settings},
        registry::Registry,
    },
    capability::{JobCtx, Services, World, mounts::Mounts},
    clock::Clock,
    journal::{Bounds, Journal},
    sandbox::{engine::Sandbox, instance, limits::Limits},
    store::{Begun, Position, Store, StoreError, Stored, StreamId, memory::Memory},
    tape::{Control, Tape},
};
use leasehold_core::{
    id::{JobId, Principal, SessionId, Ulid},
    job::record::{Accepted, Seed},
    lease::{Authority, Lease, gate::Gate, operation::Stat},
    protocol::{client::decode, json::Json, server::Stamp, trace::TraceId},
    secret::Secret,
    session::{Input, Output, Session, SessionConfig, Welcomed},
    time::Timestamp,
};
use leasehold_tests::agents_dir;

use crate::{Row, Times, each, shown};

/// A lease of 50 patterns of the kinds that people write.
fn fifty_patterns() -> Lease {
    let mut patterns = Vec::new();
    for n in 0..10 {
        patterns.push(format!("/workspace/project-{n}/src/**"));
        patterns.push(format!("/workspace/project-{n}/*.toml"));
        patterns.push(format!("/workspace/project-{n}/docs/**/*.md"));
        patterns.push(format!("/data/{n}/in/report-*.csv"));
        patterns.push(format!("/data/{n}/index.json"));
    }
    Lease::parse(&BTreeMap::from([("fs.read".to_owned(), patterns)])).expect("these are patterns")
}

/// One frame through a session: read, answered, and the answer written.
pub fn frame() -> Vec<Row> {
    let second = std::time::Duration::from_secs(1);
    let config = SessionConfig {
        handshake_timeout: second,
        heartbeat_interval: second,
        resume_window: second,
        spans_max: 1000,
        settle_after: second,
        followed_max: 1000,
        lag_max: 0,
        features: Vec::new(),
    };
    let (now, ulid) = (Timestamp::from_millis(0), Ulid::from_parts(0, 1));
    let mut session = Session::new(config, now, None);
    let hello = r#"{"arcp":"1.1","id":"h","type":"session.hello","payload":{"auth":{"scheme":"none"}}}"#;
    session.handle(now, ulid, Input::Frame(decode(hello)));
    let (principal, resume_token) = (Principal::new("bench"), Secret::new("token"));
    let welcomed = Welcomed { principal, resume_token, agents: vec![], resumed: None };
    session.handle(now, ulid, Input::Authenticated(Ok(welcomed)));
    let stamp = Stamp { id: ulid, now, session_id: SessionId::new(ulid), dialect: session.dialect() };
    let mut time = |text: &str, answered: bool| {
        each(100_000, || {
            let outputs = session.handle(now, ulid, Input::Frame(decode(black_box(text))));
            let frames = outputs.iter().filter_map(|output| match output {
                Output::Send(message) => Some(message.encode(&stamp)),
                _ => None,
            });
            assert_eq!(black_box(frames.count()) == 1, answered);
        })
    };
    let ping = r#"{"arcp":"1.1","id":"msg_1","type":"session.ping","session_id":"s","payload":{"nonce":"n"}}"#;
    let submit = r#"{"arcp":"1.1","id":"msg_1","type":"job.submit","session_id":"s","payload":{"agent":"echo",
        "input":{"n":1},"lease_request":{"fs.read":["/workspace/**"]}}}"#;
    vec![
        Row::new("a ping through a session: read, handled, its pong written", shown(time(ping, true)), "< 10 µs"),
        Row::new("a submission through a session: read and checked", shown(time(submit, false)), "< 10 µs"),
    ]
}

/// One decision of the gate, from parsed operation to permit or refusal.
pub fn gate() -> Vec<Row> {
    let expires_at = Some(Timestamp::from_millis(i64::MAX / 2));
    let gate = Gate::new(Authority { lease: fifty_patterns(), expires_at });
    let now = Timestamp::from_millis(0);
    let time = |path: &str, permitted: bool| {
        assert_eq!(gate.permit(now, Stat::parse(path).expect("a path")).is_ok(), permitted, "{path}");
        // Made before: reading the agent's text is not the decision.
        let mut operations = vec![Stat::parse(path).expect("a path"); 7 * 100_000].into_iter();
        each(100_000, || {
            let operation = operations.next().expect("as many as are asked for");
            black_box(gate.permit(now, black_box(operation)).is_ok());
        })
    };
    vec![
        Row::new("gate, 50 patterns: granted by the last", shown(time("/data/9/index.json", true)), "< 1 µs"),
        Row::new("gate, 50 patterns: denied", shown(time("/workspace/project-9/docs/a/b/c/d.rs", false)), "< 1 µs"),
        Row::new("gate, 50 patterns: denied at once", shown(time("/etc/passwd", false)), "< 1 µs"),
    ]
}

/// Takes everything and keeps nothing: a host call costs what the host does, without any commit.
struct Nowhere(Mutex<u64>);

#[async_trait::async_trait]
impl Store for Nowhere {
    async fn append(&self, _: &StreamId, _: Position, records: Vec<Bytes>) -> Result<Position, StoreError> {
        let mut last = self.0.lock().expect("nobody panics with it");
        *last += records.len() as u64;
        Ok(Position::new(*last))
    }

    async fn read(&self, _: &StreamId, _: Position, _: usize) -> Result<Vec<Stored>, StoreError> {
        Ok(Vec::new())
    }

    async fn grown(&self, _: &StreamId, _: Position) -> Result<(), StoreError> {
        std::future::pending().await
    }

    async fn streams(&self, _: &str, _: Option<&StreamId>, _: usize) -> Result<Vec<(StreamId, Position)>, StoreError> {
        Ok(Vec::new())
    }

    async fn trim(&self, _: &StreamId, _: Position) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove(&self, _: &StreamId, _: Position) -> Result<(), StoreError> {
        Ok(())
    }

    async fn begun(&self, _: u64, _: usize) -> Result<Vec<Begun>, StoreError> {
        Ok(Vec::new())
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// What a job needs besides its agent, without a host around it.
pub struct Bench {
    pub world: Arc<World>,
    pub sandbox: Arc<Sandbox>,
    pub registry: Registry,
    /// Where `registry` keeps what it has compiled.
    pub compiled: Cache,
    _cache: tempfile::TempDir,
}

impl Bench {
    fn new(store: Arc<dyn Store>) -> Self {
        Self::of(store, 64, Place::InProcess)
    }

    /// One for so many agents at once, which are compiled there.
    pub fn of(store: Arc<dyn Store>, live_agents: usize, place: Place) -> Self {
        let limits = Limits { journal_bytes_max: u64::MAX, ..Limits::default() };
        let sandbox = Arc::new(Sandbox::new(&limits, live_agents).expect("an engine can be built"));
        let cache = tempfile::tempdir().expect("a temporary folder can be made");
        let compiled = Cache::open(cache.path().join("compiled")).expect("a fresh folder is ours");
        let compiler = Compiler::new(place, Settings::default());
        let registry = Registry::new(Arc::clone(&sandbox), compiled.clone(), compiler, limits.component_bytes_max);
        let mounts = Arc::new(Mounts::open(Vec::new()).expect("no mount is no problem"));
        let world = Arc::new(World::new(Clock::system(), mounts, limits, store, Services::none()));
        Self { world, sandbox, registry, compiled, _cache: cache }
    }

    /// A context and all that it stands on, as a runner makes it for every job.
    pub fn job(&self, input: &str) -> (JobCtx, Arc<Accepted>) {
        let job_id = JobId::new(Ulid::from_parts(0, rand()));
        let accepted = Arc::new(Accepted {
            job_id,
            principal: Principal::new("bench"),
            session_id: SessionId::new(Ulid::from_parts(0, 1)),
            request_id: "bench".into(),
            at: self.world.clock.now(),
            agent: "bench@1.0.0".into(),
            digest: String::new(),
            input: Json::parse(input.to_owned()).expect("the input is JSON"),
            authority: Authority { lease: fifty_patterns(), expires_at: None },
            max_runtime_sec: None,
            parent: None,
            trace_id: TraceId::new(1),
            seed: Seed([1; 32]),
            limits: String::new(),
            key: None,
            ordinal: 1,
            first_seq: None,
            credentials: Vec::new(),
            parameters: None,
        });
        let bounds = Bounds {
            total_bytes_max: self.world.limits.journal_bytes_max,
            waiting_bytes_max: self.world.limits.journal_waiting_bytes_max,
        };
        let journal = Journal::new(Arc::clone(&self.world.store), job_id, Position::ZERO, bounds);
        let control = Arc::new(Control::default());
        let limits = Arc::new(self.world.limits.clone());
        let clock = self.world.clock.clone();
        let tape = Tape::blank(Arc::clone(&journal), clock, Arc::clone(&control), accepted.at, u32::MAX, None);
        let tape = Arc::new(tape);
        let context = JobCtx::new(Arc::clone(&self.world), Arc::clone(&accepted), limits, control, journal, tape);
        (context, accepted)
    }
}

fn rand() -> u128 {
    leasehold::clock::random_u128()
}

/// `fs.stat` of a path outside the lease, from inside the agent: call, gate, journal record, refusal, return.
pub async fn denied_call() -> Vec<Row> {
    const CALLS: u64 = 200_000;
    let bench = Bench::new(Arc::new(Nowhere(Mutex::new(0))));
    let path = agents_dir().join("hostile@1.0.0.wasm");
    let agent = bench.registry.register_file(&path, "hostile", "1.0.0").expect("the guest is an agent");
    let run = async |count: u64| {
        let input = format!(r#"{{"do":"stat_many","path":"/etc/passwd","count":{count}}}"#);
        let (context, accepted) = bench.job(&input);
        let mut store = instance::store(&bench.sandbox, &bench.world.limits, context);
        let begun = Instant::now();
        let ran = instance::run(&mut store, &agent.pre, accepted.input.as_str()).await;
        let took = begun.elapsed();
        match ran {
            instance::Ran::Returned(Ok(text)) => assert!(text.contains(&format!("\"refused\":{count}")), "{text}"),
            other => panic!("{other:?}"),
        }
        took
    };
    run(1000).await;
    let mut best = run(CALLS).await;
    for _ in 0..4 {
        best = best.min(run(CALLS).await);
    }
    let each = (best - run(0).await.min(best)) / u32::try_from(CALLS).expect("a count");
    vec![Row::new("host call `fs.stat`, denied, journal not committed", shown(each), "< 5 µs")]
}

/// Instantiate, run, drop: what a job costs beyond its protocol and its journal.
pub async fn sandbox() -> Vec<Row> {
    const RUNS: usize = 2000;
    let bench = Bench::new(Arc::new(Memory::default()));
    let register = |name: &str| {
        let path = agents_dir().join(format!("{name}@1.0.0.wasm"));
        bench.registry.register_file(&path, name, "1.0.0").expect("it is an agent")
    };
    let (echo, hostile) = (register("echo"), register("hostile"));
    let mut whole = Vec::new();
    let mut to_first_call = Vec::new();
    let mut only_instantiate = Vec::new();
    for n in 0..RUNS + 100 {
        let (context, accepted) = bench.job(r#"{"n":1}"#);
        let begun = Instant::now();
        let mut store = instance::store(&bench.sandbox, &bench.world.limits, context);
        let ran = instance::run(&mut store, &echo.pre, accepted.input.as_str()).await;
        drop(store);
        let took = begun.elapsed();
        assert!(matches!(ran, instance::Ran::Returned(Ok(_))), "{ran:?}");

        let (context, _) = bench.job("{}");
        let begun_instance = Instant::now();
        let mut store = instance::store(&bench.sandbox, &bench.world.limits, context);
        let instance = echo.pre.instantiate_async(&mut store).await.expect("it can be instantiated");
        let instantiated = begun_instance.elapsed();
        black_box(&instance);
        drop(store);

        // The only thing this one does is a host call; the end of its run is in the time too.
        let called = first_call(&bench, &hostile).await;
        if n >= 100 {
            whole.push(took);
            only_instantiate.push(instantiated);
            to_first_call.push(called);
        }
    }
    vec![
        Row::new("`echo` in the sandbox alone: instantiate, run, drop", Times::new(whole).figures(), "near 60 µs"),
        Row::new("of it: instantiate", Times::new(only_instantiate).figures(), ""),
        Row::new(
            "instantiate to the end of a run with one host call",
            Times::new(to_first_call).figures(),
            "p50 < 150 µs",
        ),
    ]
}

/// From nothing to the end of a run whose one deed is a host call: no less than the time to that call.
async fn first_call(bench: &Bench, agent: &leasehold::agents::registry::Agent) -> std::time::Duration {
    let (context, accepted) = bench.job(r#"{"do":"stat","path":"/etc/passwd"}"#);
    let begun = Instant::now();
    let mut store = instance::store(&bench.sandbox, &bench.world.limits, context);
    let ran = instance::run(&mut store, &agent.pre, accepted.input.as_str()).await;
    let took = begun.elapsed();
    assert!(matches!(ran, instance::Ran::Returned(Ok(_))), "{ran:?}");
    took
}

/// What the disk below takes for what SQLite asks of it, so that the rows beside it can be judged.
pub fn disk(what: &'static str) -> Row {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let mut file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(dir.path().join("log"))
        .expect("a fresh folder takes files");
    let mut times = Vec::new();
    for _ in 0..500 {
        file.write_all(&[0x5a; 4096]).expect("there is room");
        let begun = Instant::now();
        file.sync_data().expect("the disk works");
        times.push(begun.elapsed());
    }
    Row::new(what, Times::new(times).figures(), "")
}
