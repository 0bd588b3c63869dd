//! Agents that wait for long: they leave memory, others have their place, and they never notice.

use std::time::Duration;

use leasehold::client::{Client, ClientError, Submit};
use leasehold_core::{
    id::JobId,
    job::record::{End, Record, Saw},
    protocol::status::Status,
    time::Timestamp,
};
use leasehold_tests::{
    Builder,
    journals::Past,
    life::{Estate, Life, lease},
    within,
};
use serde_json::{Value, json};

const NOON: &str = "2026-07-01T12:00:00.000Z";
const SECOND: Duration = Duration::from_secs(1);

/// There is room for one agent in memory, and one that waits does not stay there.
fn one_place(builder: Builder) -> Builder {
    builder.limits(|limits| (limits.idle_sec, limits.live_agents_max) = (1, 1))
}

async fn submit(client: &mut Client, steps: Value) -> Result<JobId, ClientError> {
    let submission =
        Submit { lease_request: Some(lease()), ..Submit::new("hostile", json!({ "do": "steps", "steps": steps })) };
    let accepted = within("an answer", client.submit(submission)).await?;
    Ok(accepted.job_id.parse().unwrap())
}

/// Lets time pass until a job is out of the way of another, and gives the other.
async fn make_way(life: &Life, client: &mut Client, steps: &Value) -> (JobId, u32) {
    for seconds in 1.. {
        life.host.advance(SECOND);
        match submit(client, steps.clone()).await {
            Ok(job) => return (job, seconds),
            Err(ClientError::Refused { retryable: true, .. }) if seconds < 500 => {}
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("it is refused or not")
}

#[tokio::test]
async fn an_agent_that_waits_for_long_gives_its_place_to_others_and_goes_on_when_it_has_waited() {
    let estate = Estate::default();
    let life = estate.host_with(NOON, one_place).await;
    let mut client = life.client().await;
    let steps = json!([
        { "do": "append", "path": "/w/a", "text": "before" },
        { "do": "events_flood", "count": 1 },
        { "do": "sleep", "ms": 1_000_000 },
        { "do": "clock" },
        { "do": "append", "path": "/w/a", "text": "after" },
        { "do": "sleep", "ms": 1_000_000 },
        { "do": "append", "path": "/w/a", "text": "late" },
    ]);
    let sleeper = submit(&mut client, steps).await.unwrap();
    let waits = |newest: &Record| matches!(newest, Record::Observed(_));
    Past::until(&*estate.store, sleeper, waits).await;
    let (other, waited) = make_way(&life, &mut client, &json!([{ "do": "noop" }])).await;
    assert!(matches!(Past::ended(&*estate.store, other).await.end(), Some(End::Result(_))));
    // To the moment itself, and the place is free.
    life.host.advance(SECOND * (1000 - waited));
    let awake = at(1000);
    let waits = |newest: &Record| matches!(newest, Record::Observed(seen) if seen.iter().any(|seen| seen.saw == awake));
    Past::until(&*estate.store, sleeper, waits).await;
    let (other, _) = make_way(&life, &mut client, &json!([{ "do": "noop" }])).await;
    assert!(matches!(Past::ended(&*estate.store, other).await.end(), Some(End::Result(_))));
    let past = life.host.advancing(SECOND, Past::ended(&*estate.store, sleeper)).await;
    let Some(End::Result(result)) = past.end() else { panic!("{past:#?}") };
    let result: Value = serde_json::from_str(result.as_str()).unwrap();
    let looked: i64 = result[3]["ok"]["unix_ns"].as_str().unwrap().parse().unwrap();
    assert_eq!(Saw::Time(Timestamp::from_millis(looked / 1_000_000)), awake, "{past:#?}");
    assert_eq!(std::fs::read_to_string(estate.files.path().join("a")).unwrap(), "beforeafterlate");
    assert_eq!(past.messages().len(), 1, "{past:#?}");
    // It is one run as far as anybody can tell.
    assert_eq!(past.count(|record| matches!(record, Record::Started { .. } | Record::Resumed { .. })), 1, "{past:#?}");
}

/// What an agent sees that looks at the clock so many seconds after noon.
fn at(seconds: u64) -> Saw {
    Saw::Time(NOON.parse::<Timestamp>().unwrap().saturating_add(SECOND * u32::try_from(seconds).unwrap()))
}

/// ARCP §7.4
#[tokio::test]
async fn an_agent_that_is_not_in_memory_can_be_cancelled() {
    let estate = Estate::default();
    let life = estate.host_with(NOON, one_place).await;
    let mut client = life.client().await;
    let sleeper = submit(&mut client, json!([{ "do": "sleep", "ms": 2_000_000 }])).await.unwrap();
    let (other, _) = make_way(&life, &mut client, &json!([{ "do": "noop" }])).await;
    Past::ended(&*estate.store, other).await;
    within("the answer", client.cancel(&sleeper.to_string(), None)).await.unwrap();
    let past = life.host.advancing(SECOND, Past::ended(&*estate.store, sleeper)).await;
    let Some(End::Failed { status: Status::Cancelled, .. }) = past.end() else { panic!("{past:#?}") };
}

/// ARCP §7.3, §9.5
#[tokio::test]
async fn an_agent_that_is_not_in_memory_ends_when_its_time_is_up() {
    for (submission, expected) in [
        (Submit { max_runtime_sec: Some(500), ..Submit::default() }, Status::TimedOut),
        (
            Submit { lease_constraints: Some(json!({ "expires_at": "2026-07-01T12:08:00Z" })), ..Submit::default() },
            Status::Error,
        ),
    ] {
        let estate = Estate::default();
        let life = estate.host_with(NOON, one_place).await;
        let mut client = life.client().await;
        let submission = Submit {
            agent: "hostile".into(),
            input: json!({ "do": "sleep", "ms": 2_000_000 }),
            lease_request: Some(lease()),
            ..submission
        };
        let sleeper = within("the acceptance", client.submit(submission)).await.unwrap().job_id.parse().unwrap();
        let (other, _) = make_way(&life, &mut client, &json!([{ "do": "noop" }])).await;
        Past::ended(&*estate.store, other).await;
        let past = life.host.advancing(SECOND, Past::ended(&*estate.store, sleeper)).await;
        let Some(End::Failed { status, .. }) = past.end() else { panic!("{past:#?}") };
        assert_eq!(*status, expected);
    }
}

/// A job that was taken up again has its past counted once, however often it leaves memory after that.
#[tokio::test]
async fn what_a_job_has_written_counts_once_however_often_it_is_run_again() {
    let estate = Estate::default();
    let settings = |builder| one_place(builder).limits(|limits| limits.journal_bytes_max = 40_000);
    let life = estate.host_with(NOON, settings).await;
    let mut client = life.client().await;
    let naps = json!({ "do": "sleep", "ms": 10_000 });
    let steps = json!([{ "do": "events_flood", "count": 1, "bytes": 10_000 }, naps, naps, naps, naps, naps, naps]);
    let job = submit(&mut client, steps).await.unwrap();
    Past::until(&*estate.store, job, |newest| matches!(newest, Record::Observed(_))).await;
    life.kill();
    let life = estate.host_with(NOON, settings).await;
    let past = life.host.advancing(SECOND, Past::ended(&*estate.store, job)).await;
    assert!(matches!(past.end(), Some(End::Result(_))), "{past:#?}");
}
