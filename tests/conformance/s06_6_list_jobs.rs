//! ARCP §6.6: what a principal can learn of its jobs.

use std::time::Duration;

use leasehold_tests::{ErrorCode::InvalidRequest, RawClient, TestHost, raw::moment};
use serde_json::{Value, json};

/// The ids of a page, newest first.
async fn ids(client: &mut RawClient, payload: Value) -> Vec<String> {
    let reply = client.request("session.list_jobs", payload).await;
    assert_eq!(reply.kind(), "session.jobs", "{}", reply.0);
    let jobs = reply.payload()["jobs"].as_array().expect("a list").iter();
    jobs.map(|job| job["job_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn a_filter_is_a_conjunction() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let echo = client.submit("echo").run().await.job_id().to_owned();
    let failed = client.submit("sleeper").input(json!({ "sec": -1 })).run().await.job_id().to_owned();
    let running = client.submit("hostile").input(json!({ "do": "wait_cancel" })).job_id().await;
    let all = [&running, &failed, &echo];
    for (filter, expected) in [
        (json!({}), &all[..]),
        (Value::Null, &all),
        (json!({ "status": null, "agent": null }), &all),
        (json!([]), &all), // how PHP writes {}
        (json!({ "status": ["success"] }), &[&echo]),
        (json!({ "status": "error" }), &[&failed]), // one text for a list of one
        (json!({ "status": ["running", "error"] }), &[&running, &failed]),
        (json!({ "status": ["pending"] }), &[]),
        (json!({ "status": ["no such status"] }), &[]),
        (json!({ "status": [] }), &[]),
        (json!({ "agent": "echo" }), &[&echo]),
        (json!({ "agent": "echo@1.0.0" }), &[&echo]),
        (json!({ "agent": "echo@2.0.0" }), &[]),
        (json!({ "agent": "ech" }), &[]),
        (json!({ "agent": "sleeper", "status": ["success"] }), &[]),
        (json!({ "agent": "sleeper", "status": ["error"] }), &[&failed]),
        (json!({ "created_after": "2999-01-01T00:00:00Z" }), &[]),
        (json!({ "created_after": "2001-01-01T00:00:00Z" }), &all),
        (json!({ "created_before": "2001-01-01T00:00:00Z" }), &[]),
        (json!({ "created_before": "2999-01-01T00:00:00Z" }), &all),
    ] {
        let found = ids(&mut client, json!({ "filter": filter })).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
    assert_eq!(ids(&mut client, json!({})).await.len(), 3);
}

#[tokio::test]
async fn an_entry_says_what_every_client_reads() {
    let host = TestHost::builder().policy("alice", json!({ "fs.read": ["/w/**"] })).start().await;
    let mut client = host.session().await;
    let submit = client.submit("chatty").input(json!({ "count": 2 }));
    let run = submit.lease(json!({ "fs.read": ["/w/a"] })).expires_at("2999-01-01T00:00:00Z").run().await;
    let id = client.send("session.list_jobs", json!({})).await;
    let reply = client.reply(&id).await;
    assert_eq!(
        (&reply.0["id"], &reply.payload()["request_id"], &reply.payload()["reply_to"]),
        (&json!(id), &json!(id), &json!(id))
    );
    assert_eq!((&reply.0["correlation_id"], reply.payload().get("next_cursor")), (&json!(id), Some(&Value::Null)));
    let mut job = reply.payload()["jobs"][0].clone();
    assert_eq!(moment(&job["created_at"].take()), moment(&run.accepted["payload"]["accepted_at"]));
    assert_eq!(moment(&job["submitted_at"].take()), moment(&run.accepted["payload"]["accepted_at"]));
    let expected = json!({
        "job_id": run.job_id(),
        "agent": "chatty@1.0.0",
        "status": "success",
        "lease": { "fs.read": ["/w/a"] },
        "lease_constraints": { "expires_at": "2999-01-01T00:00:00.000Z" },
        "parent_job_id": null,
        "created_at": null,
        "submitted_at": null,
        "trace_id": run.accepted["trace_id"],
        "last_event_seq": 3,
    });
    assert_eq!(job, expected);
}

#[tokio::test]
async fn pages_hold_every_job_once_while_new_ones_come() {
    let host = TestHost::at("2026-05-13T12:00:00Z").await;
    let mut client = host.session().await;
    let mut submitted = Vec::new();
    for _ in 0..5 {
        submitted.push(client.submit("echo").run().await.job_id().to_owned());
        host.advance(Duration::from_millis(1));
    }
    submitted.reverse();
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let reply = client.request("session.list_jobs", json!({ "limit": 2, "cursor": cursor })).await;
        let jobs = reply.payload()["jobs"].as_array().expect("a list");
        assert!(jobs.len() <= 2, "{}", reply.0);
        seen.extend(jobs.iter().map(|job| job["job_id"].as_str().unwrap().to_owned()));
        cursor = reply.payload()["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
        client.submit("echo").run().await;
        host.advance(Duration::from_millis(1));
    }
    assert_eq!(seen, submitted);
}

#[tokio::test]
async fn a_cursor_that_the_host_did_not_give_is_refused() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for payload in [
        json!({ "cursor": "bogus" }),
        json!({ "cursor": 7 }),
        json!({ "limit": -1 }),
        json!({ "filter": { "created_after": "yesterday" } }),
        json!({ "filter": ["running"] }),
    ] {
        let reply = client.request("session.list_jobs", payload.clone()).await;
        assert_eq!((reply.kind(), reply.outcome()), ("job.error", Err(InvalidRequest)), "{payload}");
    }
}

#[tokio::test]
async fn a_principal_sees_its_own_jobs_alone() {
    let host = TestHost::new().await;
    let (mut alice, mut bob) = (host.session().await, host.session_as("bob").await);
    let of_alice = alice.submit("echo").run().await.job_id().to_owned();
    let of_bob = bob.submit("echo").run().await.job_id().to_owned();
    assert_eq!(ids(&mut alice, json!({})).await, std::slice::from_ref(&of_alice));
    assert_eq!(ids(&mut bob, json!({})).await, [of_bob]);
    // A cursor is a place in one's own list, so another's shows nothing of theirs.
    let stolen = ids(&mut bob, json!({ "cursor": of_alice })).await;
    assert!(!stolen.contains(&of_alice), "{stolen:?}");
    // Another session of the same principal sees the same.
    let mut again = host.session().await;
    assert_eq!(ids(&mut again, json!({})).await, [of_alice]);
}
