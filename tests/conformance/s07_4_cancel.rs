//! ARCP §7.4: a client that has changed its mind.

use std::time::Duration;

use leasehold_tests::{
    ErrorCode::{Cancelled, InvalidRequest, JobNotFound, PermissionDenied},
    TestHost,
};
use serde_json::{Value, json};

/// Clients name the job in different places.
#[tokio::test]
async fn a_cancelled_job_ends_once_and_says_so() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for (in_envelope, in_payload) in [(true, false), (false, true), (true, true)] {
        let job_id = client.submit("hostile").input(json!({ "do": "wait_cancel" })).job_id().await;
        let envelope = if in_envelope { json!({ "job_id": job_id }) } else { json!({}) };
        let mut payload = json!({ "reason": "enough" });
        if in_payload {
            payload["job_id"] = json!(job_id);
        }
        let cancelled = client.request_with("job.cancel", envelope, payload).await;
        assert_eq!((cancelled.kind(), &cancelled.0["job_id"]), ("job.cancelled", &json!(job_id)));
        assert_eq!(cancelled.payload(), &json!({ "job_id": job_id, "reason": "enough" }));
        assert!(cancelled.0.get("event_seq").is_none());
        let run = client.follow(&job_id).await;
        assert_eq!((run.result(), run.final_status()), (Err(Cancelled), "cancelled"));
        assert_eq!(run.terminal["payload"]["retryable"], json!(false));
        assert_eq!(client.settle().await, Vec::<Value>::new(), "one end");
        assert_eq!(client.status_at_end(&job_id).await, "cancelled");
    }
}

#[tokio::test]
async fn a_cancellation_that_names_no_job_of_the_client_is_refused() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let job_id = client.submit("hostile").input(json!({ "do": "wait_cancel" })).job_id().await;
    let other = "job_00000000000000000000000000";
    for (envelope, payload, expected) in [
        (json!({}), json!({}), InvalidRequest),
        (json!({ "job_id": job_id }), json!({ "job_id": other }), InvalidRequest),
        (json!({ "job_id": 7 }), json!({}), InvalidRequest),
        (json!({ "job_id": other }), json!({}), JobNotFound),
        (json!({ "job_id": "no id at all" }), json!({}), JobNotFound),
        (json!({}), json!({ "job_id": "" }), JobNotFound),
    ] {
        client.send_with("job.cancel", envelope.clone(), payload.clone()).await;
        let refused = leasehold_tests::Reply(client.find_type("job.error").await);
        assert_eq!(refused.outcome(), Err(expected), "{envelope} {payload}: {}", refused.0);
        assert!(refused.0.get("job_id").is_none() && refused.0.get("event_seq").is_none(), "{}", refused.0);
    }
    let mut again = host.session().await;
    let list = again.request("session.list_jobs", json!({ "filter": { "status": ["running"] } })).await;
    assert_eq!(list.payload()["jobs"][0]["job_id"], json!(job_id), "it runs on");
}

/// ARCP §7.4: only the session that submitted a job may cancel it, and a stranger does not learn that it exists.
#[tokio::test]
async fn a_job_is_cancelled_by_its_submitter_alone() {
    let host = TestHost::new().await;
    let (mut owner, mut sibling, mut stranger) =
        (host.session().await, host.session().await, host.session_as("bob").await);
    let job_id = owner.submit("hostile").input(json!({ "do": "wait_cancel" })).job_id().await;
    let unknown = "job_00000000000000000000000000";
    let of_sibling = sibling.request("job.cancel", json!({ "job_id": job_id })).await;
    assert_eq!(of_sibling.outcome(), Err(PermissionDenied), "{}", of_sibling.0);
    let of_stranger = stranger.request("job.cancel", json!({ "job_id": job_id })).await;
    let of_nothing = stranger.request("job.cancel", json!({ "job_id": unknown })).await;
    assert_eq!(of_stranger.outcome(), Err(JobNotFound), "{}", of_stranger.0);
    let anonymous = |reply: &leasehold_tests::Reply, id: &str| reply.message().replace(id, "…");
    assert_eq!(anonymous(&of_stranger, &job_id), anonymous(&of_nothing, unknown));
    assert_eq!(owner.request("job.cancel", json!({ "job_id": job_id })).await.kind(), "job.cancelled");
    assert_eq!(owner.follow(&job_id).await.final_status(), "cancelled");
}

#[tokio::test]
async fn cancelling_a_job_that_has_ended_changes_nothing() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let done = client.submit("echo").run().await.job_id().to_owned();
    for _ in 0..2 {
        assert_eq!(client.request("job.cancel", json!({ "job_id": done })).await.kind(), "job.cancelled");
    }
    assert_eq!(client.settle().await, Vec::<Value>::new());
    assert_eq!(client.status_at_end(&done).await, "success");
}

/// ARCP §7.4: an agent has its grace time, and then it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_ignores_a_cancellation_is_ended_after_its_grace_time() {
    let host = TestHost::at("2026-05-13T12:00:00Z").await;
    let mut client = host.session_offering(&[]).await;
    for busy in [false, true] {
        let job_id = client.submit("hostile").input(json!({ "do": "ignore_cancel", "busy": busy })).job_id().await;
        assert_eq!(client.request("job.cancel", json!({ "job_id": job_id })).await.kind(), "job.cancelled");
        let run = host.advancing(Duration::from_millis(100), client.follow(&job_id)).await;
        assert_eq!((run.result(), run.final_status()), (Err(Cancelled), "cancelled"), "busy: {busy}");
    }
}

#[tokio::test]
async fn a_cancellation_that_races_with_the_end_leaves_one_end() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for _ in 0..30 {
        let job_id = client.submit("echo").job_id().await;
        client.send("job.cancel", json!({ "job_id": job_id })).await;
        let run = client.follow(&job_id).await;
        client.find_type("job.cancelled").await;
        assert_eq!(client.settle().await, Vec::<Value>::new());
        assert_eq!(client.status_at_end(&job_id).await, run.final_status());
    }
}
