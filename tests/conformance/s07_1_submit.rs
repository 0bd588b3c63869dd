//! ARCP §7.1: asking for a job.

use leasehold_tests::{
    ErrorCode::{AgentNotAvailable, InvalidRequest, LeaseSubsetViolation},
    TestHost,
    raw::moment,
};
use serde_json::{Value, json};

#[tokio::test]
async fn an_acceptance_can_be_told_apart_by_every_client() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let id = client.send("job.submit", json!({ "agent": "echo", "input": { "a": [1, null] } })).await;
    let accepted = client.recv().await;
    let payload = &accepted["payload"];
    assert_eq!((&accepted["type"], &accepted["id"]), (&json!("job.accepted"), &json!(id)));
    assert_eq!((&payload["request_id"], &payload["reply_to"]), (&json!(id), &json!(id)));
    assert_eq!((&payload["job_id"], &payload["trace_id"]), (&accepted["job_id"], &accepted["trace_id"]));
    assert_eq!((&payload["agent"], &payload["lease"]), (&json!("echo@1.0.0"), &json!({})));
    moment(&payload["accepted_at"]);
    for absent in ["budget", "credentials", "lease_constraints"] {
        assert!(payload.get(absent).is_none(), "{accepted}");
    }
    assert!(accepted.get("event_seq").is_none());
    let run = client.follow(accepted["job_id"].as_str().unwrap()).await;
    let payload = &run.terminal["payload"];
    assert_eq!((&run.terminal["type"], run.final_status()), (&json!("job.result"), "success"));
    assert_eq!((&payload["result"], &payload["job_id"]), (&json!({ "a": [1, null] }), &accepted["job_id"]));
    assert!(moment(&payload["completed_at"]) >= moment(&accepted["payload"]["accepted_at"]));
    // Two more SDKs find the end of a job by the id of its submission.
    assert_eq!(run.terminal["correlation_id"], json!(id));
}

/// Some clients know only the order, so every submission has one answer and they come in order.
#[tokio::test]
async fn pipelined_submissions_are_answered_in_order() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let mut sent = Vec::new();
    for n in 0..30 {
        let agent = if n % 3 == 1 { "nobody" } else { "echo" };
        let expected = if n % 3 == 1 { "session.error" } else { "job.accepted" };
        sent.push((client.submit(agent).input(json!(n)).send().await, expected));
    }
    for (id, expected) in sent {
        let answer =
            client.find(|frame| matches!(frame["type"].as_str(), Some("job.accepted" | "session.error"))).await;
        assert_eq!((&answer["id"], &answer["type"]), (&json!(id), &json!(expected)));
        assert_eq!(answer["payload"]["request_id"], json!(id));
    }
}

/// ARCP §7.1: each row is one payload, the code and the word the refusal must hold.
#[tokio::test]
async fn a_submission_that_is_no_submission_is_refused_by_name() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let agent = |agent: Value| json!({ "agent": agent });
    let lease = |lease: Value| json!({ "agent": "echo", "lease_request": lease });
    let runtime = |seconds: Value| json!({ "agent": "echo", "max_runtime_sec": seconds });
    for (payload, expected, said) in [
        (json!({}), InvalidRequest, "agent"),
        (json!([]), InvalidRequest, "payload"),
        (json!(["echo", 1]), InvalidRequest, "payload"),
        (json!("echo"), InvalidRequest, "payload"),
        (agent(Value::Null), InvalidRequest, "payload.agent"),
        (agent(json!(7)), InvalidRequest, "payload.agent"),
        (agent(json!("")), InvalidRequest, "payload.agent"),
        (agent(json!("Bad Name!")), InvalidRequest, "payload.agent"),
        (agent(json!("../echo")), InvalidRequest, "payload.agent"),
        (agent(json!("nobody")), AgentNotAvailable, "nobody"),
        (lease(json!([])), InvalidRequest, "payload.lease_request"),
        (lease(json!({ "fs.read": 7 })), InvalidRequest, "payload.lease_request.fs.read"),
        (lease(json!({ "fs.read": ["/a", 7] })), InvalidRequest, "payload.lease_request.fs.read[1]"),
        (lease(json!({ "fs.read": [""] })), InvalidRequest, "lease_request"),
        (lease(json!({ "fs.read": ["relative"] })), InvalidRequest, "lease_request"),
        (lease(json!({ "fs.read": ["/a/../b"] })), InvalidRequest, "lease_request"),
        (lease(json!({ "fs.exec": ["/bin/**"] })), InvalidRequest, "fs.exec"),
        (lease(json!({ "": ["x"] })), InvalidRequest, "lease_request"),
        (lease(json!({ "fs.read": ["/etc/**"] })), LeaseSubsetViolation, "fs.read"),
        (runtime(json!(-1)), InvalidRequest, "max_runtime_sec"),
        (runtime(json!(1.5)), InvalidRequest, "max_runtime_sec"),
        (runtime(json!("60")), InvalidRequest, "max_runtime_sec"),
        (runtime(json!(1e12)), InvalidRequest, "max_runtime_sec"),
        (json!({ "agent": "echo", "idempotency_key": 7 }), InvalidRequest, "idempotency_key"),
        (json!({ "agent": "echo", "lease_constraints": ["x"] }), InvalidRequest, "lease_constraints"),
        (json!({ "agent": "echo", "lease_constraints": "x" }), InvalidRequest, "lease_constraints"),
    ] {
        let reply = client.request("job.submit", payload.clone()).await;
        assert_eq!((reply.kind(), reply.outcome()), ("session.error", Err(expected)), "{payload}: {}", reply.0);
        assert!(reply.message().contains(said), "{payload}: {}", reply.message());
        assert!(reply.0.get("job_id").is_none() && reply.payload().get("job_id").is_none(), "{payload}: {}", reply.0);
    }
    assert_eq!(client.request("session.list_jobs", json!({})).await.payload()["jobs"], json!([]));
    client.submit("echo").run().await;
}

#[tokio::test]
async fn what_a_submission_leaves_out_or_writes_oddly_is_taken_for_what_is_meant() {
    let host = TestHost::builder().policy("alice", json!({ "x-vendor.acme.db": ["**"] })).start().await;
    let mut client = host.session().await;
    for (payload, result) in [
        (json!({ "agent": "echo" }), Value::Null),
        (json!({ "agent": "echo", "input": null }), Value::Null),
        (json!({ "agent": "echo", "input": [] }), json!([])),
        (json!({ "agent": "echo", "input": "text" }), json!("text")),
        (json!({ "agent": "echo", "input": 1e300 }), json!(1e300)),
        (json!({ "agent": "echo", "input": 1, "lease_request": null, "lease_constraints": null }), json!(1)),
        (json!({ "agent": "echo", "input": 1, "idempotency_key": null, "max_runtime_sec": null }), json!(1)),
        (json!({ "agent": "echo", "input": 1, "max_runtime_sec": 60.0 }), json!(1)),
        (json!({ "agent": "echo", "input": 1, "lease_request": {}, "lease_constraints": {} }), json!(1)),
        (json!({ "agent": "echo", "input": 1, "lease_constraints": [] }), json!(1)), // how PHP writes {}
        (json!({ "agent": "echo", "input": 1, "lease_request": { "x-vendor.acme.db": ["a"] } }), json!(1)),
        (json!({ "agent": "echo", "input": 1, "parent_job_id": null, "x-unknown": {} }), json!(1)),
    ] {
        let reply = client.request("job.submit", payload.clone()).await;
        assert_eq!(reply.kind(), "job.accepted", "{payload}: {}", reply.0);
        let run = client.follow(&reply.job_id()).await;
        assert_eq!(run.result(), Ok(result), "{payload}");
    }
}

/// ARCP §9.1: the lease of an acceptance is the one that holds.
#[tokio::test]
async fn an_acceptance_shows_the_lease_that_holds() {
    let ceiling = json!({ "fs.read": ["/w/**"], "cost.budget": ["USD:10"], "x-vendor.acme.db": ["**"] });
    let host = TestHost::builder().policy("alice", ceiling).start().await;
    let mut client = host.session().await;
    let request = json!({ "fs.read": ["/w/a", "/w/b/**"], "cost.budget": ["USD:1.50"], "x-vendor.acme.db": ["t"] });
    let reply = client.submit("echo").lease(request.clone()).expires_at("2999-01-01T00:00:00Z").reply().await;
    assert_eq!(reply.payload()["lease"], request, "{}", reply.0);
    assert_eq!(reply.payload()["lease_constraints"], json!({ "expires_at": "2999-01-01T00:00:00.000Z" }));
    assert_eq!(reply.payload()["budget"]["USD"].as_f64(), Some(1.5), "{}", reply.0);
}
