//! A session goes through hosts that are killed: to its client it is one stream (ARCP §6.3, §8.3).

use std::collections::BTreeMap;

use leasehold::client::{Client, ClientInfo, Frame, Resume, Submit};
use leasehold_tests::{
    host::{ALICE, token},
    program::{Serve, Served},
    within,
};
use serde_json::{Value, json};

const KILLS: usize = 10;
const EVENTS: u64 = 150;

/// What a client was told under a number.
type Told = (String, Option<String>, Value);

fn lasting(frame: &Frame) -> Told {
    (frame.kind.clone(), frame.job_id.clone(), frame.payload.clone())
}

#[tokio::test]
async fn several_jobs_are_one_stream_however_often_the_host_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut host = Serve::on(&data).await.start().await;
    let mut client = host.client(ALICE).await;
    let mut told: BTreeMap<u64, Told> = BTreeMap::new();
    let mut jobs = Vec::new();
    for kill in 0..KILLS {
        // One more job a host, and now and then one that nobody waits to hear accepted.
        jobs.push(submit(&mut client).await);
        if kill % 3 == 0 {
            let payload = json!({ "agent": "echo", "input": kill });
            client.send("job.submit", serde_json::Map::new(), payload).await.unwrap();
        }
        for _ in 0..10 + 7 * kill {
            if told.len() as u64 >= jobs.len() as u64 * (EVENTS + 1) {
                break;
            }
            let frame = within("an event", client.next_event()).await.unwrap();
            note(&mut told, &frame);
        }
        client.drain().filter(|frame| frame.event_seq.is_some()).for_each(|frame| note(&mut told, &frame));
        let resume = client.resume().unwrap();
        let _ = host.kill().await;
        // The client has lost what was on its way, and some that had come.
        let last_event_seq = resume.last_event_seq.saturating_sub(kill as u64 * 2);
        host = Serve::on(&data).await.start().await;
        client = come_back(&host, Resume { last_event_seq, ..resume }).await;
    }
    let mut open = jobs.clone();
    let ended = |told: &BTreeMap<u64, Told>, job: &str| {
        told.values().any(|(kind, of, _)| kind == "job.result" && of.as_deref() == Some(job))
    };
    open.retain(|job| !ended(&told, job));
    while !open.is_empty() {
        let frame = within("an event", client.next_event()).await.unwrap();
        note(&mut told, &frame);
        open.retain(|job| !ended(&told, job));
    }
    assert!(told.keys().copied().eq(1..=told.len() as u64));
    for job in &jobs {
        // A client that acknowledges nothing is told that it lags, among the rest (ARCP §6.5).
        let logged = |payload: &Value| payload["kind"] == "log";
        let of_job = told.values().filter(|(_, of, payload)| of.as_ref() == Some(job) && logged(payload));
        let messages: Vec<_> = of_job.filter_map(|(.., payload)| payload["body"]["message"].as_str()).collect();
        assert_eq!(messages, (1..=EVENTS).map(|n| format!("event {n}")).collect::<Vec<_>>(), "{job}");
    }
}

/// What comes again has to be what came before.
fn note(told: &mut BTreeMap<u64, Told>, frame: &Frame) {
    let now = lasting(frame);
    let before = told.entry(frame.event_seq.unwrap()).or_insert_with(|| now.clone());
    assert_eq!(*before, now);
}

async fn submit(client: &mut Client) -> String {
    let submission = Submit::new("chatty", json!({ "count": EVENTS, "delay_ms": 2 }));
    within("the acceptance", client.submit(submission)).await.unwrap().job_id
}

async fn come_back(host: &Served, resume: Resume) -> Client {
    let info = ClientInfo { resume: Some(resume), ..ClientInfo::default() };
    within("the session", Client::connect_ws(&host.url, Some(&token(ALICE)), info)).await.unwrap()
}
