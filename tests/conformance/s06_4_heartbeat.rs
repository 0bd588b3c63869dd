//! ARCP §6.4: signs of life.

use std::time::Duration;

use leasehold_tests::{RawClient, TestHost, raw::moment};
use serde_json::json;

const INTERVAL: Duration = Duration::from_secs(30);

async fn host() -> TestHost {
    TestHost::at("2026-05-13T12:00:00Z").await
}

/// The next ping of the host; there is nothing else to hear.
async fn pinged(client: &mut RawClient) -> serde_json::Value {
    let ping = client.recv().await;
    assert_eq!(ping["type"], "session.ping", "{ping}");
    ping
}

#[tokio::test]
async fn an_idle_client_is_pinged_within_its_interval() {
    let host = host().await;
    let mut client = host.session().await;
    host.advance(INTERVAL);
    let ping = pinged(&mut client).await;
    assert!(ping["payload"]["nonce"].as_str().is_some_and(|nonce| !nonce.is_empty()), "{ping}");
    assert_eq!(ping["payload"]["sent_at"], "2026-05-13T12:00:30.000Z");
    assert!(ping.get("event_seq").is_none(), "{ping}");
}

#[tokio::test]
async fn a_ping_is_answered_with_its_nonce() {
    let host = host().await;
    let mut negotiated = host.session().await;
    let mut not = host.session_offering(&[]).await;
    for client in [&mut negotiated, &mut not] {
        let id = client.send("session.ping", json!({ "nonce": "n-1", "sent_at": "2026-05-13T12:00:00Z" })).await;
        let pong = client.recv().await;
        assert_eq!(pong["type"], "session.pong", "{pong}");
        assert_eq!((&pong["payload"]["ping_nonce"], &pong["correlation_id"]), (&json!("n-1"), &json!(id)));
        moment(&pong["payload"]["received_at"]);
    }
}

/// ARCP §6.4: two intervals of silence, and the connection is given up; the jobs are not.
#[tokio::test]
async fn a_silent_client_is_given_up_after_two_intervals_and_its_job_goes_on() {
    let host = host().await;
    let mut client = host.session().await;
    let job_id = client.submit("chatty").input(json!({ "count": 1, "start_delay_ms": 200 })).job_id().await;
    host.advance(2 * INTERVAL - Duration::from_secs(1));
    pinged(&mut client).await;
    host.advance(Duration::from_secs(1));
    let closed = client.closed().await;
    assert_eq!(closed.reason, "HEARTBEAT_LOST");
    let mut other = host.session().await;
    assert_eq!(other.status_at_end(&job_id).await, "success");
}

/// Some clients never ping, and one says in every pong that it was received in the year 1.
#[tokio::test]
async fn a_client_that_only_answers_is_alive() {
    let host = host().await;
    let mut client = host.session().await;
    for n in 0..10 {
        host.advance(INTERVAL);
        let ping = pinged(&mut client).await;
        let pong = json!({ "ping_nonce": ping["payload"]["nonce"], "received_at": "0001-01-01T00:00:00Z" });
        client.send("session.pong", pong).await;
        // The pong has been read once what follows it is answered.
        let reply = client.request("session.ping", json!({ "nonce": "n" })).await;
        assert_eq!(reply.kind(), "session.pong", "round {n}");
    }
}

#[tokio::test]
async fn a_client_without_heartbeats_is_left_alone() {
    let host = host().await;
    let mut client = host.session_offering(&["list_jobs"]).await;
    host.advance(100 * INTERVAL);
    assert_eq!(client.settle().await, Vec::<serde_json::Value>::new());
}

/// ARCP §8.3: the client on the bare wire fails this test if a number is left out.
#[tokio::test]
async fn heartbeats_take_no_number_of_the_stream() {
    let host = host().await;
    let mut client = host.session().await;
    for round in 0..3 {
        let run = client.submit("chatty").input(json!({ "count": 1 })).run().await;
        assert_eq!(run.events[0]["event_seq"], json!(2 * round + 1));
        host.advance(INTERVAL);
        let ping = pinged(&mut client).await;
        client.send("session.pong", json!({ "ping_nonce": ping["payload"]["nonce"] })).await;
        client.request("session.ping", json!({ "nonce": "n" })).await;
    }
}
