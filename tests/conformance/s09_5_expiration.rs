//! ARCP §9.5: leases that end.

use std::time::Duration;

use leasehold::config::Config;
use leasehold_tests::{
    ErrorCode::{InvalidRequest, LeaseExpired},
    MountMode, TestHost,
    host::ALICE,
    upstream::{End, Reply, Upstream},
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
    // However late the agent falls asleep, there is time left in which it wakes up.
    let builder = TestHost::builder().at("2026-05-13T12:00:00Z").limits(|limits| limits.grace_sec = 3600);
    let host = builder.mount("/w", MountMode::Ro).start().await;
    let mut client = host.session_offering(&["lease_expires_at"]).await;
    let stat = json!({ "do": "stat", "path": "/w" });
    let steps = json!({ "do": "steps", "steps": [stat, { "do": "sleep", "ms": 1_000 }, stat] });
    let submit = client.submit("hostile").input(steps).lease(json!({ "fs.read": ["/w/**"] }));
    let job_id = submit.expires_at("2026-05-13T12:01:00Z").job_id().await;
    let first = client.find(|frame| frame["payload"]["kind"] == "tool_result").await;
    assert!(first["payload"]["body"].get("result").is_some(), "{first}");
    host.advance(Duration::from_secs(60));
    let run = host.advancing(Duration::from_millis(10), client.follow(&job_id)).await;
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

/// ARCP §9.5: a lease ends under what is under way, too, at the instant and not after it. The agent is told, and has
/// time to unwind; a job whose agent goes on ends for that reason.
#[tokio::test]
async fn what_is_under_way_when_a_lease_ends_is_told_so_at_that_instant() {
    let web = Upstream::start(|_| Reply::text(200, "begins").ending(End::Never)).await;
    let settings =
        "[tools.slow]\nrun = [\"sh\", \"-c\", \"sleep 600\"]\ntimeout_sec = 600\n[net]\nallow = [\"127.0.0.0/8\"]";
    let Config { net, tools, .. } = Config::parse(settings).expect("the settings are understood");
    let lease = json!({
        "net.fetch": ["http://127.0.0.1:*/**"], "tool.call": ["slow"], "agent.delegate": ["sleeper"], "fs.read": ["/w"],
    });
    let builder =
        TestHost::builder().at("2026-05-13T12:00:00Z").mount("/w", MountMode::Ro).policy(ALICE, lease.clone());
    let builder = builder.config(|config| (config.net, config.tools) = (net, tools));
    let host = builder.start().await;
    let mut client = host.session_offering(&["lease_expires_at", "list_jobs"]).await;
    let calls = json!({ "do": "calls", "start": [
        { "call": "fetch", "url": format!("{}/never", web.url()) },
        { "call": "tool", "name": "slow", "arguments": {} },
        { "call": "delegate", "agent": "sleeper", "input": { "sec": 600 }, "lease": {} },
    ]});
    let steps = json!({ "do": "steps", "steps": [calls, { "do": "stat", "path": "/w" }] });
    let submit = client.submit("hostile").lease(lease).input(steps);
    let job_id = submit.expires_at("2026-05-13T12:01:00Z").job_id().await;
    client.find(|frame| frame["payload"]["kind"] == "delegate").await;
    host.advance(Duration::from_millis(59_999));
    let early = client.settle().await;
    assert!(early.iter().all(|frame| frame["payload"]["kind"] != "tool_result"), "a millisecond is left: {early:?}");
    host.advance(Duration::from_millis(1));
    let run = client.follow(&job_id).await;
    let ends = run.bodies("tool_result");
    assert_eq!(ends.len(), 4, "{run:?}");
    for end in &ends {
        assert_eq!(end["error"]["code"], "LEASE_EXPIRED", "{end}");
    }
    assert_eq!((run.result(), run.final_status()), (Err(LeaseExpired), "error"), "{run:?}");
}
