//! ARCP §6.5: how far a client says it has read, and what it is told when that is not far.

use std::sync::Arc;

use leasehold::store::{Store, memory::Memory};
use leasehold_tests::{
    RawClient, TestHost,
    host::{ALICE, token},
    raw::hello,
};
use serde_json::{Value, json};

/// By how much a client may lag here.
const LAG: u64 = 10;

const NEVER: [u64; 0] = [];

async fn host(store: &Arc<dyn Store>) -> TestHost {
    let builder = TestHost::builder().store(Arc::clone(store));
    builder.config(|config| config.server.back_pressure_lag = LAG).start().await
}

fn store() -> Arc<dyn Store> {
    Arc::new(Memory::default())
}

/// The numbers under which the client was told that it lags, while a job emitted `count` events.
async fn told(client: &mut RawClient, count: u64) -> Vec<u64> {
    let run = client.submit("chatty").input(json!({ "count": count })).run().await;
    assert_eq!(run.final_status(), "success");
    assert_eq!(run.bodies("log").len() as u64, count, "nothing is lost");
    let lags = run.events.iter().filter(|event| event["payload"]["body"]["phase"] == "back_pressure");
    let numbers = lags.map(|event| {
        assert_eq!((&event["type"], &event["payload"]["kind"]), (&json!("job.event"), &json!("status")), "{event}");
        assert!(event["payload"]["body"]["message"].is_string(), "{event}");
        event["event_seq"].as_u64().expect("it has a number")
    });
    numbers.collect()
}

async fn ack(client: &mut RawClient, processed: u64) {
    client.send("session.ack", json!({ "last_processed_seq": processed })).await;
    assert_eq!(client.settle().await, Vec::<Value>::new(), "an acknowledgement is not answered");
}

#[tokio::test]
async fn a_client_that_lags_is_told_once_and_loses_nothing() {
    let host = host(&store()).await;
    let mut client = host.session().await;
    assert_eq!(told(&mut client, LAG).await, NEVER, "it has not acknowledged anything and need not");
    assert_eq!(told(&mut client, 30).await, [LAG + 3], "with the end of the first job there is one too many");
    assert_eq!(told(&mut client, 30).await, NEVER, "it knows");
    let last = client.last_seq();
    ack(&mut client, last - LAG / 2 - 1).await;
    assert_eq!(told(&mut client, 30).await, NEVER, "it has not caught up");
    let last = client.last_seq();
    ack(&mut client, last - LAG / 2).await;
    assert_eq!(told(&mut client, 30).await, [last + LAG / 2 + 2]);
    // Senseless ones change nothing.
    ack(&mut client, 0).await;
    ack(&mut client, 1_000_000).await;
    ack(&mut client, 3).await;
    assert_eq!(told(&mut client, LAG - 1).await, NEVER);
}

#[tokio::test]
async fn a_client_that_does_not_acknowledge_is_told_nothing_of_a_lag() {
    let host = host(&store()).await;
    let mut client = host.session_offering(&["heartbeat"]).await;
    assert_eq!(told(&mut client, 3 * LAG).await, NEVER);
}

/// ARCP §6.3: what stands in no journal is told again under its number, too, also by a host that has just started.
#[tokio::test]
async fn a_client_that_comes_back_is_told_again_that_it_lagged() {
    let store = store();
    let first = host(&store).await;
    let mut client = first.raw();
    let welcome = client.open(&token(ALICE)).await;
    assert_eq!(told(&mut client, 30).await, [LAG + 2]);
    let (last, session_id) = (client.last_seq(), client.session_id().to_owned());
    drop(client);
    first.stop().await;
    let mut resume_token = welcome["resume_token"].clone();
    for (have, again) in [(0, 1), (LAG + 1, 1), (LAG + 2, 0), (last, 0)] {
        let host = host(&store).await;
        let mut client = RawClient::standing_at(host.connect(), have);
        let mut hello = hello(&token(ALICE));
        hello["resume"] = json!({ "session_id": session_id, "resume_token": resume_token, "last_event_seq": have });
        resume_token = client.open_with(hello).await["resume_token"].clone();
        let mut frames = Vec::new();
        while client.last_seq() < last {
            frames.push(client.recv().await);
        }
        frames.extend(client.settle().await);
        let lags = frames.iter().filter(|frame| frame["payload"]["body"]["phase"] == "back_pressure");
        let numbers: Vec<&Value> = lags.map(|frame| &frame["event_seq"]).collect();
        assert_eq!(numbers, vec![&json!(LAG + 2); again], "from {have} on");
        assert_eq!(client.last_seq(), last);
        drop(client);
        host.stop().await;
    }
}
