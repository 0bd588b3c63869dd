//! A job whose host is killed at every place in its journal goes on as if nothing had been.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use leasehold::{
    client::Submit,
    journal,
    store::{Position, Store, memory::Memory},
};
use leasehold_core::{
    id::JobId,
    job::record::{End, Outcome, Record},
    protocol::event::Event,
};
use leasehold_tests::{
    MountMode, TestHost,
    mortal::{Death, Mortal},
    within,
};
use serde_json::{Value, json};

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

/// What is left of a life: what its watchers saw, and the files.
#[derive(Debug, PartialEq)]
struct Traces {
    events: Vec<Value>,
    end: Value,
    files: BTreeMap<String, String>,
}

/// One life of a host; gives the job if the client was told of it.
fn live(store: &Arc<dyn Store>, dir: &Path, death: Death) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mortal = Mortal::of(store, death);
    let view = Arc::clone(&mortal);
    let dir = dir.to_owned();
    runtime.block_on(async move {
        let life = async {
            let builder = TestHost::builder().store(Arc::clone(&view) as Arc<dyn Store>);
            let host = builder.mount_dir("/w", &dir, MountMode::Rw).start().await;
            let mut client = host.client().await;
            let lease = json!({ "fs.read": ["/w/**"], "fs.write": ["/w/**"], "cost.budget": ["USD:1.00"] });
            let submission = Submit {
                idempotency_key: Some("the job".into()),
                lease_request: Some(lease),
                ..Submit::new("hostile", script())
            };
            let accepted = client.submit(submission).await.unwrap();
            loop {
                let frame = client.next_event().await.unwrap();
                if frame.is_terminal() && frame.job_id.as_deref() == Some(&accepted.job_id) {
                    break host;
                }
            }
        };
        tokio::select! {
            host = within("the job", life) => drop(host),
            () = view.died() => {}
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    mortal.appends()
}

async fn traces(store: &dyn Store, dir: &Path) -> Traces {
    let streams = store.streams(journal::JOBS, None, 10).await.unwrap();
    assert_eq!(streams.len(), 1, "one key makes one job");
    let job_id: JobId = streams[0].0.as_str()[journal::JOBS.len()..].parse().unwrap();
    let records = store.read(&journal::stream(job_id), Position::ZERO, 10_000).await.unwrap();
    let (mut events, mut end) = (Vec::new(), Value::Null);
    for stored in records {
        assert!(end.is_null(), "nothing comes after the end");
        match Record::decode(&stored.bytes).unwrap() {
            Record::Event { event: Event::Metric { name, value, .. }, .. } => {
                events.push(json!([name, value.to_string()]))
            }
            Record::Event { event, .. } => events.push(serde_json::to_value(event).unwrap()),
            Record::Called(called) => {
                let outcome = match called.outcome {
                    Outcome::Done { summary, .. } => serde_json::from_str(summary.as_str()).unwrap(),
                    Outcome::Failed { code, .. } => json!(code),
                };
                events.push(json!([called.call, called.operation, outcome]));
            }
            Record::Ended { end: End::Result(result), .. } => {
                end = serde_json::from_str(result.as_str()).unwrap();
            }
            Record::Ended { end: other, .. } => panic!("{other:?}"),
            _ => {}
        }
    }
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        files.insert(entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
    }
    // What differs from one job to the next, whatever happens to their hosts.
    for (step, value) in end.as_array_mut().unwrap().iter_mut().enumerate() {
        for field in ["id", "trace_id", "unix_ns", "elapsed_ns", "random", "modified"] {
            if let Some(value) = value["ok"].get_mut(field) {
                assert!(!value.is_null(), "step {step}");
                *value = Value::Null;
            }
        }
    }
    Traces { events, end, files }
}

#[test]
fn killed_before_and_after_every_append_a_job_leaves_the_same_traces() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = |death: Death| {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let dir = tempfile::tempdir().unwrap();
        let appends = live(&store, dir.path(), death);
        if death != Death::Never {
            live(&store, dir.path(), Death::Never);
        }
        (appends, runtime.block_on(traces(&*store, dir.path())))
    };
    let (appends, undisturbed) = run(Death::Never);
    assert_eq!(undisturbed.files, BTreeMap::from([("a".into(), "onetwothree".into())]), "{undisturbed:#?}");
    for n in 0..appends {
        for death in [Death::Before(n), Death::After(n)] {
            let (_, traces) = run(death);
            assert_eq!(traces, undisturbed, "{death:?} of {appends}");
        }
    }
    println!("{} places to be killed at", appends * 2);
}
