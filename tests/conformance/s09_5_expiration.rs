//! ARCP §9.5: leases that end.

use std::time::Duration;

use leasehold_tests::{
    ErrorCode::{InvalidRequest, LeaseExpired},
    MountMode, TestHost,
};
use serde_json::{Value, json};

/// ARCP §9.5: "MUST be UTC (`Z` suffix), and MUST be in the future at submission time".
#[tokio::test]
async fn expires_at_is_utc_and_in_the_future() {
    let host = TestHost::at("2026-05-13T12:00:00Z").await;
    let mut client = host.session().await;
    for (expires_at, expected) in [
        (json!("2026-05-13T12:00:01Z"), Ok("2026-05-13T12:00:01.000Z")),
        (json!("2026-05-13T12:00:00.001Z"), Ok("2026-05-13T12:00:00.001Z")),
        (json!("2026-05-13T12:00:01+00:00"), Ok("2026-05-13T12:00:01.000Z")), // how Python writes it
        (json!("2026-05-13T12:00:00Z"), Err(InvalidRequest)),                 // now is not the future
        (json!("2026-05-13T11:59:59Z"), Err(InvalidRequest)),
        (json!("2026-05-13T14:00:01+02:00"), Err(InvalidRequest)), // the same second, but not UTC
        (json!("2026-05-13T12:00:01"), Err(InvalidRequest)),
        (json!("2026-02-30T12:00:01Z"), Err(InvalidRequest)),
        (json!("tomorrow"), Err(InvalidRequest)),
        (json!(""), Err(InvalidRequest)),
        (json!(1_800_000_000), Err(InvalidRequest)),
    ] {
        let reply = client.submit("echo").expires_at(expires_at.clone()).reply().await;
        assert_eq!(reply.outcome(), expected.map(|_| ()), "{expires_at}: {}", reply.0);
        match expected {
            Ok(echoed) => assert_eq!(reply.payload()["lease_constraints"]["expires_at"], echoed),
            Err(_) => assert!(reply.message().contains("expires_at"), "{}", reply.message()),
        }
    }
}

/// ARCP §9.5: the next operation fails, and then the job does.
#[tokio::test]
async fn a_lease_that_ends_under_a_running_job_ends_the_job() {
    let host = TestHost::builder().at("2026-05-13T12:00:00Z").mount("/w", MountMode::Ro).start().await;
    let mut client = host.session_offering(&["lease_expires_at"]).await;
    let stat = json!({ "do": "stat", "path": "/w" });
    let steps = json!({ "do": "steps", "steps": [stat, { "do": "sleep", "ms": 1_000 }, stat] });
    let submit = client.submit("hostile").input(steps).lease(json!({ "fs.read": ["/w/**"] }));
    let job_id = submit.expires_at("2026-05-13T12:01:00Z").job_id().await;
    let first = client.find(|frame| frame["payload"]["kind"] == "tool_result").await;
    assert!(first["payload"]["body"].get("result").is_some(), "{first}");
    host.advance(Duration::from_secs(60));
    let run = client.follow(&job_id).await;
    let results = run.bodies("tool_result");
    let error = &results.last().expect("the second call")["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("LEASE_EXPIRED"), &json!(false)));
    assert_eq!((run.result(), run.final_status()), (Err(LeaseExpired), "error"));
    assert_eq!(run.terminal["payload"]["retryable"], json!(false));
}

/// An agent that asks for nothing any more has its grace time.
#[tokio::test]
async fn a_job_that_outstays_its_lease_is_ended_after_its_grace_time() {
    let host = TestHost::at("2026-05-13T12:00:00Z").await;
    let mut client = host.session_offering(&["lease_expires_at", "list_jobs"]).await;
    let submit = client.submit("hostile").input(json!({ "do": "sleep", "ms": 86_400_000 }));
    let job_id = submit.expires_at("2026-05-13T12:01:00Z").job_id().await;
    host.advance(Duration::from_secs(64));
    assert_eq!(client.settle().await, Vec::<Value>::new(), "it has five seconds of grace");
    let run = host.advancing(Duration::from_secs(1), client.follow(&job_id)).await;
    assert_eq!((run.result(), run.final_status()), (Err(LeaseExpired), "error"));
}
