//! ARCP §7.3: how jobs end.

use std::time::Duration;

use leasehold_tests::{
    ErrorCode::{InternalError, InvalidRequest, PermissionDenied, Timeout},
    TestHost, host,
    raw::hello,
};
use serde_json::json;

/// An agent that dies is the agent's fault, and the message says no more than its client may know.
#[tokio::test]
async fn an_agent_that_dies_ends_its_job_with_an_internal_error() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for deed in [json!({ "do": "panic" }), json!({ "do": "trap" }), json!({ "do": "exit", "code": 3 })] {
        let run = client.submit("hostile").input(deed.clone()).run().await;
        assert_eq!((run.result(), run.final_status()), (Err(InternalError), "error"), "{deed}");
        assert_eq!((&run.terminal["type"], &run.terminal["payload"]["retryable"]), (&json!("job.error"), &json!(true)));
        for leak in ["backtrace", ".rs:", "0x", "wasm function"] {
            assert!(!run.message().contains(leak), "{deed}: {}", run.message());
        }
        assert!(run.terminal["payload"].get("completed_at").is_some());
    }
    client.submit("echo").run().await;
}

#[tokio::test]
async fn an_agent_that_fails_chooses_its_code() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for (code, expected) in [
        ("invalid-request", InvalidRequest),
        ("permission-denied", PermissionDenied),
        ("internal-error", InternalError),
        ("timeout", Timeout),
        // Only a client cancels.
        ("cancelled", InternalError),
    ] {
        let run = client.submit("hostile").input(json!({ "do": "fail", "code": code })).run().await;
        assert_eq!((run.result(), run.final_status()), (Err(expected), "error"), "{code}");
        assert_eq!(run.message(), "on purpose", "{code}");
    }
}

/// ARCP §7.3: `timed_out`, whatever the agent is doing.
#[tokio::test]
async fn a_job_that_runs_longer_than_it_may_is_timed_out() {
    let host = TestHost::at("2026-05-13T12:00:00Z").await;
    let mut client = host.session().await;
    for input in [json!({ "do": "sleep", "ms": 1_000_000 }), json!({ "do": "spin" }), json!({ "do": "ignore_cancel" })]
    {
        let job_id = client.submit("hostile").input(input.clone()).field("max_runtime_sec", json!(1)).job_id().await;
        host.advance(Duration::from_secs(1));
        let run = client.follow(&job_id).await;
        assert_eq!((run.result(), run.final_status()), (Err(Timeout), "timed_out"), "{input}");
        assert_eq!(client.status_at_end(&job_id).await, "timed_out");
    }
}

/// PyPI `agentruntimecontrolprotocol` 1.1.3 ends its reader at a `job.error` that is not `error`.
#[tokio::test]
async fn a_stopped_job_is_a_result_to_the_python_client() {
    let server = TestHost::at("2026-05-13T12:00:00Z").await;
    let mut client = server.raw();
    let mut hello = hello(&host::token("alice"));
    hello["capabilities"]["features"] = json!([
        "heartbeat",
        "ack",
        "list_jobs",
        "subscribe",
        "lease_expires_at",
        "cost.budget",
        "progress",
        "result_chunk",
        "agent_versions"
    ]);
    client.send_with("session.hello", json!({ "id": "01KRHAB7S00000000000000001" }), hello).await;
    assert_eq!(client.recv().await["type"], "session.welcome");
    let sleeper = json!({ "agent": "sleeper", "input": { "sec": 1000 }, "max_runtime_sec": 1 });
    let timed_out = client.request("job.submit", sleeper.clone()).await.job_id();
    server.advance(Duration::from_secs(1));
    let run = client.follow(&timed_out).await;
    assert_eq!((&run.terminal["type"], run.final_status()), (&json!("job.result"), "timed_out"));
    let cancelled = client.request("job.submit", sleeper).await.job_id();
    client.send_with("job.cancel", json!({ "job_id": cancelled }), json!({ "reason": "enough" })).await;
    let run = server.advancing(Duration::from_millis(100), client.follow(&cancelled)).await;
    assert_eq!((&run.terminal["type"], run.final_status()), (&json!("job.result"), "cancelled"));
    assert!(run.terminal["payload"]["completed_at"].is_string(), "{}", run.terminal);
}
