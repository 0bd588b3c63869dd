//! Jobs that a host takes up again: time that passed meanwhile and wishes uttered before count, what was decided when
//! they began goes on to hold, and one that cannot go on has a clear end.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use leasehold::{
    client::{Client, ClientError, Submit},
    journal,
    store::{Position, Store, memory::Memory},
};
use leasehold_core::{
    error::ErrorCode,
    id::JobId,
    job::record::{End, Record},
    protocol::status::Status,
    time::Timestamp,
};
use leasehold_tests::{
    Builder, agents_dir,
    journals::Past,
    life::{Estate, lease},
    within,
};
use serde_json::{Value, json};

const NOON: &str = "2026-07-01T12:00:00.000Z";

/// Lets the clock stand this many seconds after noon.
fn noon_and(seconds: u64) -> String {
    format!("2026-07-01T12:{:02}:{:02}.000Z", seconds / 60, seconds % 60)
}

/// Submits a job of the hostile agent and returns when it has logged its first word.
async fn begin(client: &mut Client, steps: Value, submission: Submit) -> JobId {
    let mut all = vec![json!({ "do": "events_flood", "count": 1 })];
    all.extend(steps.as_array().unwrap().iter().cloned());
    let submission = Submit {
        agent: "hostile".into(),
        input: json!({ "do": "steps", "steps": all }),
        lease_request: Some(lease()),
        ..submission
    };
    let accepted = within("the acceptance", client.submit(submission)).await.unwrap();
    within("an event", client.next_event()).await.unwrap();
    accepted.job_id.parse().unwrap()
}

fn result(past: &Past) -> Value {
    match past.end() {
        Some(End::Result(result)) => serde_json::from_str(result.as_str()).unwrap(),
        other => panic!("{other:?} is no result: {past:#?}"),
    }
}

#[track_caller]
fn failed(past: &Past) -> (Status, ErrorCode, &str) {
    match past.end() {
        Some(End::Failed { status, refusal }) => (*status, refusal.code, &refusal.message),
        other => panic!("{other:?} is no failure: {past:#?}"),
    }
}

/// ARCP §7.4
#[tokio::test]
async fn a_cancellation_that_was_acknowledged_is_how_the_job_ends_after_a_restart() {
    for (steps, unwinds) in [
        (json!([{ "do": "wait_cancel", "poll_ms": 100 }]), true),
        (json!([{ "do": "ignore_cancel" }]), false),
        (json!([{ "do": "sleep", "ms": 600_000 }]), false),
    ] {
        let estate = Estate::default();
        let life = estate.host(NOON).await;
        let mut client = life.client().await;
        let job = begin(&mut client, steps, Submit::default()).await;
        within("the answer", client.cancel(&job.to_string(), Some("no more"))).await.unwrap();
        life.kill();
        let life = estate.host(&noon_and(60)).await;
        let ended = Past::ended(&*estate.store, job);
        let past = match unwinds {
            true => life.host.advancing(Duration::from_millis(10), ended).await,
            // The agent has the time to unwind that every agent has, from when the host knows of it again.
            false => life.host.advancing(Duration::from_secs(1), ended).await,
        };
        assert_eq!(failed(&past).0, Status::Cancelled, "{past:#?}");
        assert_eq!(past.count(|record| matches!(record, Record::Cancelling { .. })), 1, "{past:#?}");
    }
}

/// ARCP §7.4: the session that submitted a job may cancel it, whichever host has it.
#[tokio::test]
async fn a_job_that_was_interrupted_can_be_cancelled_by_its_session() {
    let estate = Estate::default();
    let life = estate.host(NOON).await;
    let mut client = life.client().await;
    let job = begin(&mut client, json!([{ "do": "wait_cancel" }]), Submit::default()).await;
    life.kill();
    let life = estate.host(&noon_and(1)).await;
    let refused = life.client().await.cancel(&job.to_string(), None).await;
    assert!(matches!(refused, Err(ClientError::Refused { code, .. }) if code == "PERMISSION_DENIED"));
    let mut client = life.client_of(client.resume()).await;
    within("the answer", client.cancel(&job.to_string(), None)).await.unwrap();
    let past = life.host.advancing(Duration::from_millis(10), Past::ended(&*estate.store, job)).await;
    assert_eq!(failed(&past).0, Status::Cancelled, "{past:#?}");
}

/// ARCP §7.3: "`timed_out` when `max_runtime_sec` is exceeded".
#[tokio::test]
async fn the_time_a_job_may_run_goes_on_while_the_host_is_down() {
    let estate = Estate::default();
    let life = estate.host(NOON).await;
    let mut client = life.client().await;
    let submission = Submit { max_runtime_sec: Some(10), ..Submit::default() };
    let job = begin(&mut client, json!([{ "do": "sleep", "ms": 600_000 }]), submission).await;
    life.kill();
    let _life = estate.host(&noon_and(11)).await;
    let past = Past::ended(&*estate.store, job).await;
    assert_eq!(failed(&past).0, Status::TimedOut, "{past:#?}");
}

/// ARCP §9.5
#[tokio::test]
async fn a_lease_that_ends_while_the_host_is_down_has_ended() {
    let steps = json!([{ "do": "sleep", "ms": 10_000 }, { "do": "write", "path": "/w/late", "text": "late" }]);
    for (steps, asks) in [(steps, true), (json!([{ "do": "sleep", "ms": 600_000 }]), false)] {
        let estate = Estate::default();
        let life = estate.host(NOON).await;
        let mut client = life.client().await;
        let constraints = json!({ "expires_at": noon_and(9) });
        let submission = Submit { lease_constraints: Some(constraints), ..Submit::default() };
        let job = begin(&mut client, steps, submission).await;
        life.kill();
        let life = estate.host(&noon_and(11)).await;
        let ended = Past::ended(&*estate.store, job);
        // An agent that asks for nothing has its time to unwind nevertheless.
        let past = if asks { ended.await } else { life.host.advancing(Duration::from_secs(1), ended).await };
        assert_eq!(failed(&past).1, ErrorCode::LeaseExpired, "{past:#?}");
        assert!(!estate.files.path().join("late").exists());
    }
}

/// The clock is moved to the very moment at which the job has slept enough, and no further.
#[tokio::test]
async fn a_job_that_sleeps_through_restarts_sleeps_what_is_left() {
    // That it looked at the clock in the moment in which it begins to sleep must not hide when that was.
    for before in [json!([]), json!([{ "do": "clock" }]), json!([{ "do": "clock" }, { "do": "stat", "path": "/w" }])] {
        let estate = Estate::default();
        let mut life = estate.host(NOON).await;
        let mut client = life.client().await;
        let mut steps = before.as_array().unwrap().clone();
        steps.extend([json!({ "do": "sleep", "ms": 10_000 }), json!({ "do": "clock" })]);
        let job = begin(&mut client, json!(steps), Submit::default()).await;
        Past::until(&*estate.store, job, |newest| matches!(newest, Record::Observed(_))).await;
        for seconds in [4, 7] {
            life.kill();
            life = estate.host(&noon_and(seconds)).await;
            Past::until(&*estate.store, job, |newest| matches!(newest, Record::Resumed { .. })).await;
        }
        life.host.advance(Duration::from_secs(3));
        let past = Past::ended(&*estate.store, job).await;
        let result = result(&past);
        let awake: i64 = result.as_array().unwrap().last().unwrap()["ok"]["unix_ns"].as_str().unwrap().parse().unwrap();
        assert_eq!(awake / 1_000_000, noon_and(10).parse::<Timestamp>().unwrap().as_millis(), "{past:#?}");
    }
}

/// What the store holds, as if it had been written otherwise.
async fn rewritten(store: &dyn Store, rewrite: impl Fn(String) -> String) -> Arc<dyn Store> {
    let other = Memory::default();
    for begun in store.begun(0, 1000).await.unwrap() {
        let records = store.read(&begun.stream, Position::ZERO, 1000).await.unwrap().into_iter();
        let records = records.map(|stored| match begun.stream.as_str().starts_with(journal::JOBS) {
            true => Bytes::from(rewrite(String::from_utf8(stored.bytes.to_vec()).unwrap())),
            false => stored.bytes,
        });
        other.append(&begun.stream, Position::ZERO, records.collect()).await.unwrap();
    }
    Arc::new(other)
}

#[tokio::test]
async fn a_job_whose_journal_says_something_else_than_it_does_is_ended_and_told_where() {
    let steps = json!([
        { "do": "write", "path": "/w/a", "text": "one" },
        { "do": "read", "path": "/w/a" },
        { "do": "events_flood", "count": 1 },
        { "do": "sleep", "ms": 600_000 },
    ]);
    let changes = [
        ("called", r#""fs.write""#, r#""fs.remove""#, "diverged at call 1"),
        ("called", "/w/a", "/w/b", "diverged at call 1"),
        ("event", r#""message":"0""#, r#""message":"1""#, "diverged at call 1"),
        ("event", r#""level":"info""#, r#""level":"warn""#, "diverged at call 1"),
        ("accepted", r#"/w/a","text""#, r#"/w/b","text""#, "diverged at call 1"),
        ("accepted", r#""do":"read","path":"/w/a""#, r#""do":"read","path":"/w/b""#, "diverged at call 2"),
    ];
    let mut estate = Estate::default();
    let life = estate.host(NOON).await;
    let job = begin(&mut life.client().await, steps, Submit::default()).await;
    Past::until(&*estate.store, job, |newest| matches!(newest, Record::Observed(_))).await;
    life.kill();
    let left = Arc::clone(&estate.store);
    for (kind, was, is, said) in changes {
        let changed = AtomicBool::new(false);
        estate.store = rewritten(&*left, |record| {
            let is_it =
                record.starts_with(&format!(r#"{{"record":"{kind}""#)) && !changed.swap(true, Ordering::Relaxed);
            if is_it { record.replacen(was, is, 1) } else { record }
        })
        .await;
        let life = estate.host(&noon_and(1)).await;
        let past = Past::ended(&*estate.store, job).await;
        let (status, code, message) = failed(&past);
        assert_eq!((status, code), (Status::Error, ErrorCode::InternalError));
        assert!(message.contains(said), "{kind}, {is} for {was}: {message}");
        life.kill();
    }
    // Nothing that followed from a wrong past was done.
    assert_eq!(fs::read_to_string(estate.files.path().join("a")).unwrap(), "one");
    assert!(!estate.files.path().join("b").exists());
}

#[tokio::test]
async fn a_job_whose_host_stops_whenever_it_takes_it_up_is_given_up() {
    let mut estate = Estate::default();
    let life = estate.host(NOON).await;
    let job = begin(&mut life.client().await, json!([{ "do": "sleep", "ms": 10_000 }]), Submit::default()).await;
    Past::until(&*estate.store, job, |newest| matches!(newest, Record::Observed(_))).await;
    life.kill();
    let left = Arc::clone(&estate.store);
    for (stops, goes_on) in [(2, true), (3, false)] {
        estate.store = rewritten(&*left, |record| record).await;
        let started = Bytes::from(Record::Started { at: NOON.parse().unwrap() }.encode());
        let last = estate.store.streams(journal::JOBS, None, 1).await.unwrap()[0].1;
        estate.store.append(&journal::stream(job), last, vec![started; stops]).await.unwrap();
        let life = estate.host(&noon_and(10)).await;
        let past = Past::ended(&*estate.store, job).await;
        match goes_on {
            true => drop(result(&past)),
            false => {
                let (status, code, message) = failed(&past);
                assert_eq!((status, code), (Status::Error, ErrorCode::InternalError));
                assert!(message.contains("stopped 3 times in a row"), "{message}");
            }
        }
        life.kill();
    }
}

/// What a job began with is kept, so an operator can deploy a new build while jobs of the old one are under way.
#[tokio::test]
async fn a_job_goes_on_with_the_component_it_began_with() {
    let data = tempfile::tempdir().unwrap();
    for (change, gone) in [("replaced", false), ("removed", false), ("removed and forgotten", true)] {
        let estate = Estate::default();
        let settings = |builder: Builder| builder.config(|config| config.server.data = data.path().join("data"));
        let life = estate.host_with(NOON, settings).await;
        let mut client = life.client().await;
        let job = begin(&mut client, json!([{ "do": "sleep", "ms": 10_000 }]), Submit::default()).await;
        Past::until(&*estate.store, job, |newest| matches!(newest, Record::Observed(_))).await;
        life.kill();
        let component = estate.agents.path().join("hostile@1.0.0.wasm");
        match change {
            "replaced" => drop(fs::copy(agents_dir().join("echo@1.0.0.wasm"), component).unwrap()),
            _ => fs::remove_file(component).unwrap(),
        }
        if gone {
            fs::remove_dir_all(data.path()).unwrap();
        }
        let life = estate.host_with(&noon_and(10), settings).await;
        let past = Past::ended(&*estate.store, job).await;
        match gone {
            false => drop(result(&past)),
            true => {
                let (_, code, message) = failed(&past);
                assert_eq!(code, ErrorCode::InternalError);
                assert!(message.contains("hostile@1.0.0") && message.contains("gone from this host"), "{message}");
            }
        }
        life.kill();
    }
}
