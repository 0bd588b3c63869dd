//! Connections that drop at any moment, and readers that are slow or do not read: the stream stays one stream, and
//! what nobody takes is not piled up (ARCP §6.3, §8.3).

use leasehold::{
    client::{Client, ClientInfo, Frame, Resume, Submit},
    transport::Incoming,
};
use leasehold_tests::{
    TestHost,
    host::{ALICE, token},
    within,
};
use serde_json::{Value, json};

const EVENTS: u64 = 1_000;

async fn submit(client: &mut Client, submit: Submit) -> String {
    within("the acceptance", client.submit(submit)).await.unwrap().job_id
}

async fn next(client: &mut Client) -> Frame {
    within("an event", client.next_event()).await.unwrap()
}

async fn come_back(host: &TestHost, resume: Resume) -> Client {
    let info = ClientInfo { resume: Some(resume), ..ClientInfo::default() };
    within("the session", Client::open(host.connect(), Some(&token(ALICE)), info)).await.unwrap()
}

/// What has to be the same whenever a message is sent.
fn lasting(frame: &Frame) -> (Option<u64>, String, Option<String>, Value) {
    (frame.event_seq, frame.kind.clone(), frame.job_id.clone(), frame.payload.clone())
}

#[tokio::test]
async fn a_connection_may_drop_after_every_single_event() {
    let host = TestHost::new().await;
    let mut client = host.client().await;
    submit(&mut client, Submit::new("chatty", json!({ "count": EVENTS }))).await;
    for seq in 1..=EVENTS {
        // The client counts: a gap or a repetition is an error of its own.
        let frame = next(&mut client).await;
        assert_eq!(frame.event_seq, Some(seq));
        assert_eq!(frame.payload["body"]["message"], format!("event {seq}"));
        let resume = Resume { last_event_seq: seq, ..client.resume().unwrap() };
        drop(client);
        client = come_back(&host, resume).await;
    }
    assert!(next(&mut client).await.is_terminal());
}

#[tokio::test]
async fn several_jobs_are_one_stream_wherever_it_is_taken_up_again() {
    let host = TestHost::new().await;
    let mut client = host.client().await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(submit(&mut client, Submit::new("chatty", json!({ "count": 40, "delay_ms": 1 }))).await);
    }
    let mut told = Vec::new();
    let mut ends = 0;
    while ends < jobs.len() {
        let frame = next(&mut client).await;
        ends += usize::from(frame.is_terminal());
        told.push(lasting(&frame));
        // Now and then the connection is lost, and with it some messages that were on their way or had come.
        if told.len() % 7 == 0 {
            let kept = told.len() - told.len() % 5;
            let lost = told.split_off(kept);
            ends -= lost.iter().filter(|(_, kind, ..)| kind != "job.event").count();
            let resume = Resume { last_event_seq: kept as u64, ..client.resume().unwrap() };
            drop(client);
            client = come_back(&host, resume).await;
            for lost in lost {
                let again = lasting(&next(&mut client).await);
                assert_eq!(again, lost);
                ends += usize::from(again.1 != "job.event");
                told.push(again);
            }
        }
    }
    let numbers: Vec<u64> = told.iter().filter_map(|(seq, ..)| *seq).collect();
    assert_eq!(numbers, (1..=4 * 41).collect::<Vec<_>>());
    for job in &jobs {
        let messages = told.iter().filter(|(_, kind, of, _)| kind == "job.event" && of.as_ref() == Some(job));
        let messages: Vec<_> = messages.map(|(.., payload)| payload["body"]["message"].clone()).collect();
        assert_eq!(messages, (1..=40).map(|n| json!(format!("event {n}"))).collect::<Vec<_>>());
    }
}

/// A reader that takes nothing keeps the host from reading ahead, and neither the job nor another session from going on.
#[tokio::test]
async fn a_client_that_does_not_read_is_told_later_and_nothing_is_kept_for_it() {
    let host = TestHost::new().await;
    let mut transport = host.connect();
    let auth = json!({ "scheme": "bearer", "token": token(ALICE) });
    for (kind, payload) in [
        ("session.hello", json!({ "auth": auth })),
        ("job.submit", json!({ "agent": "chatty", "input": { "count": 20_000 } })),
    ] {
        let frame = json!({ "arcp": "1.1", "id": kind, "type": kind, "payload": payload });
        within("a write", transport.send(frame.to_string())).await.unwrap();
    }
    // The job comes to its end though nobody listens to it.
    let mut other = host.client().await;
    let job = loop {
        let jobs = within("a listing", other.list_jobs(json!({ "agent": "chatty" }))).await.unwrap();
        match jobs.first() {
            Some(job) if job["status"] == "success" => break job["job_id"].clone(),
            _ => tokio::task::yield_now().await,
        }
    };
    drop(other);
    let mut last = 0;
    loop {
        let Incoming::Text(text) = within("a frame", transport.recv()).await else { panic!("the connection is open") };
        let frame: Value = serde_json::from_str(&text).unwrap();
        if let Some(seq) = frame["event_seq"].as_u64() {
            assert_eq!((seq, &frame["job_id"]), (last + 1, &job));
            last = seq;
            if frame["type"] == "job.result" {
                break;
            }
        }
    }
    assert_eq!(last, 20_001);
}

#[tokio::test]
async fn a_slow_reader_misses_nothing() {
    let host = TestHost::new().await;
    let mut client = host.client().await;
    submit(&mut client, Submit::new("chatty", json!({ "count": 500 }))).await;
    for seq in 1..=500 {
        if seq % 50 == 0 {
            // As slow as the other work of this process makes it.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(next(&mut client).await.event_seq, Some(seq));
    }
    assert!(next(&mut client).await.is_terminal());
    client.close().await.unwrap();
}
