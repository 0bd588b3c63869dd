//! Calls under way, and the jobs of other agents among them, go on when their host is killed: each once, and each paid
//! for once.

use std::{fs, path::Path, sync::Arc, time::Duration};

use leasehold::{
    client::{Client, ClientInfo, Submit},
    store::{Store, memory::Memory},
};
use leasehold_core::job::record::{End, Record};
use leasehold_tests::{
    MountMode, TestHost,
    host::{ALICE, token},
    journals::Past,
    mortal::{Death, Mortal},
    random::Random,
    some_agents, within,
};
use serde_json::{Value, json};

/// Three children, each of which writes a line and spends five cents of the ten it is given; then a fourth in turn,
/// and what is left.
fn script() -> Value {
    let child = |name: &str| {
        json!({
            "call": "delegate", "agent": "hostile",
            "input": { "do": "steps", "steps": [
                { "do": "append", "path": format!("/w/{name}"), "text": "once\n" },
                { "do": "metric", "name": "cost.model", "value": "0.05", "unit": "USD" },
                { "do": "events_flood", "count": 3 },
            ]},
            "lease": { "fs.write": ["/w/**"], "cost.budget": ["USD:0.10"] },
        })
    };
    json!({ "do": "steps", "steps": [
        { "do": "calls", "start": [child("a"), child("b"), child("c")] },
        { "do": "metric", "name": "cost.model", "value": "0.01", "unit": "USD" },
        { "do": "calls", "then": "stream", "start": [child("d")] },
        { "do": "job" },
    ]})
}

fn live(store: &Arc<dyn Store>, agents: &Path, files: &Path, death: Death) -> (u64, bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mortal = Mortal::of(store, death);
    let view = Arc::clone(&mortal);
    let died = runtime.block_on(async {
        let life = async {
            let builder = TestHost::builder().store(Arc::clone(&view) as Arc<dyn Store>);
            let builder = builder
                .config(|config| config.server.agents = agents.to_owned())
                .policy(ALICE, json!({ "fs.write": ["/w/**"], "agent.delegate": ["*"], "cost.budget": ["USD:1.00"] }));
            let host = builder.mount_dir("/w", files, MountMode::Rw).start().await;
            let mut client = Client::open(host.connect(), Some(&token(ALICE)), ClientInfo::default()).await.unwrap();
            let submission = Submit {
                idempotency_key: Some("the job".into()),
                lease_request: Some(json!({
                    "fs.write": ["/w/**"], "agent.delegate": ["hostile"], "cost.budget": ["USD:1.00"],
                })),
                ..Submit::new("hostile", script())
            };
            client.submit(submission).await.unwrap();
            while !client.next_event().await.unwrap().is_terminal() {}
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
    (mortal.records(), died)
}

/// Lets hosts die in these ways, and one live; gives how many records the first wrote.
fn lives(deaths: &[Death]) -> u64 {
    let (agents, files) = (some_agents(&["hostile"]), tempfile::tempdir().unwrap());
    let store = Arc::new(Memory::default()) as Arc<dyn Store>;
    let lives: Vec<_> =
        deaths.iter().chain([&Death::Never]).map(|death| live(&store, agents.path(), files.path(), *death)).collect();

    let jobs = tokio::runtime::Runtime::new().unwrap().block_on(Past::all(&*store));
    assert_eq!(jobs.len(), 5, "{deaths:?}: the job and its four children");
    for name in ["a", "b", "c", "d"] {
        assert_eq!(fs::read_to_string(files.path().join(name)).unwrap(), "once\n", "{deaths:?}: {name}");
    }
    let parent =
        jobs.iter().find(|job| matches!(&job.records[0], Record::Accepted(accepted) if accepted.parent.is_none()));
    let Some(End::Result(result)) = parent.and_then(|job| job.end()) else { panic!("{deaths:?}: {jobs:#?}") };
    let result: Value = serde_json::from_str(result.as_str()).unwrap();
    for outcome in result[0]["ok"].as_array().unwrap() {
        assert!(outcome.get("ok").is_some(), "{deaths:?}: {result}");
    }
    let stream = &result[2]["ok"][0]["ok"];
    let logs = stream["parts"].as_array().unwrap().iter().filter(|part| part["kind"] == "log").count();
    assert_eq!((logs, stream["end"].get("ok").is_some()), (3, true), "{deaths:?}: {result}");
    assert_eq!(result[3]["ok"]["budget"]["USD"], "0.79", "{deaths:?}: {result}");
    lives[0].0
}

#[test]
fn killed_at_every_record_each_child_is_made_once_and_paid_for_once() {
    let records = lives(&[]);
    // The order of what comes in differs from run to run, so the n-th record is not always the same; every place is
    // met sooner or later.
    for n in 0..records {
        lives(&[if n % 2 == 0 { Death::Before(n) } else { Death::After(n) }]);
    }
    let mut random = Random::new();
    for _ in 0..10 {
        lives(&[Death::After(random.below(records)), Death::Before(random.below(records))]);
    }
    println!("{} places to be killed at", records + 20);
}
