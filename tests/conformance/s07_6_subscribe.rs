//! ARCP §7.6: a job is watched from other sessions than the one that submitted it.

use std::time::Duration;

use leasehold::config::Config;
use leasehold_tests::{
    ErrorCode::{InvalidRequest, JobNotFound, PermissionDenied},
    RawClient, Reply, TestHost,
    host::{ALICE, BOB, token},
    raw::{hello, moment},
};
use serde_json::{Value, json};

const START: &str = "2026-05-13T12:00:00Z";

/// Three events, a long wait, and two more.
fn script() -> Value {
    json!({ "do": "steps", "steps": [
        { "do": "events_flood", "count": 3 },
        { "do": "sleep", "ms": 60_000 },
        { "do": "events_flood", "count": 2 },
    ]})
}

/// A host on which a job of alice's has told its first three events, and the session that submitted it.
async fn halfway() -> (TestHost, RawClient, String) {
    let host = TestHost::at(START).await;
    let mut owner = session(&host).await;
    let job_id = owner.submit("hostile").input(script()).job_id().await;
    for _ in 0..3 {
        owner.find_type("job.event").await;
    }
    (host, owner, job_id)
}

/// Alice in a session that may be silent for as long as it likes.
async fn session(host: &TestHost) -> RawClient {
    host.session_offering(&["list_jobs", "subscribe", "cost.budget", "result_chunk"]).await
}

async fn subscribe(client: &mut RawClient, payload: Value) -> Reply {
    let id = client.send("job.subscribe", payload).await;
    client.reply(&id).await
}

/// What a session is told of a job until its end, as moments and contents.
async fn told(host: &TestHost, client: &mut RawClient, job_id: &str) -> Vec<Value> {
    let run = host.advancing(Duration::from_secs(1), client.follow(job_id)).await;
    let frames = run.events.iter().chain([&run.terminal]);
    frames.map(|frame| json!([frame["type"], frame["payload"]])).collect()
}

#[tokio::test]
async fn a_subscriber_is_told_what_comes_after_its_subscription() {
    let (host, mut owner, job_id) = halfway().await;
    let mut watcher = session(&host).await;
    let id = watcher.send("job.subscribe", json!({ "job_id": job_id })).await;
    let subscribed = watcher.reply(&id).await;
    assert_eq!((subscribed.kind(), &subscribed.0["job_id"]), ("job.subscribed", &json!(job_id)));
    assert!(subscribed.0.get("event_seq").is_none(), "{}", subscribed.0);
    let expected = json!({
        "job_id": job_id,
        "current_status": "running",
        "agent": "hostile@1.0.0",
        "lease": {},
        "parent_job_id": null,
        "trace_id": subscribed.0["trace_id"],
        "subscribed_from": 0,
        "replayed": false,
        "request_id": id,
        "reply_to": id,
    });
    assert_eq!(subscribed.payload(), &expected);
    // The numbers are of the subscriber's own session: the client that reads them sees to that.
    let live = told(&host, &mut watcher, &job_id).await;
    assert_eq!(live.len(), 3, "two events and the end");
    assert_eq!(told(&host, &mut owner, &job_id).await, live, "the same as whoever submitted it");
}

#[tokio::test]
async fn with_history_all_is_told_once_and_as_it_was() {
    let (host, mut owner, job_id) = halfway().await;
    let mut watcher = session(&host).await;
    let subscribed = subscribe(&mut watcher, json!({ "job_id": job_id, "history": true, "from_event_seq": 0 })).await;
    assert_eq!(subscribed.payload()["replayed"], json!(true));
    let all = told(&host, &mut watcher, &job_id).await;
    assert_eq!(all.len(), 6);
    for frame in &all[..3] {
        assert_eq!(moment(&frame[1]["ts"]), START.parse().unwrap(), "when it happened, not when it was told");
    }
    assert_eq!(all[3..], told(&host, &mut owner, &job_id).await);
    // Whoever comes after the end is told no less.
    let mut late = session(&host).await;
    let subscribed = subscribe(&mut late, json!({ "job_id": job_id, "history": true })).await;
    assert_eq!(subscribed.payload()["current_status"], json!("success"));
    assert_eq!(told(&host, &mut late, &job_id).await, all);
    let mut latest = session(&host).await;
    subscribe(&mut latest, json!({ "job_id": job_id })).await;
    assert_eq!(told(&host, &mut latest, &job_id).await, all[5..], "its end, so that nobody waits for ever");
}

/// The numbers that a history begins after are those of the session that submitted the job: others have other numbers.
#[tokio::test]
async fn a_history_begins_after_a_number_of_the_session_that_submitted_the_job() {
    let host = TestHost::at(START).await;
    let mut owner = session(&host).await;
    let first = owner.submit("chatty").input(json!({ "count": 2 })).run().await.terminal["event_seq"].as_u64().unwrap();
    let job_id = owner.submit("chatty").input(json!({ "count": 5 })).run().await.job_id().to_owned();
    owner.submit("echo").run().await;
    for (from, expected) in [(0, 6), (first, 6), (first + 1, 5), (first + 4, 2), (first + 5, 1)] {
        let mut watcher = session(&host).await;
        let payload = json!({ "job_id": job_id, "history": true, "from_event_seq": from });
        subscribe(&mut watcher, payload).await;
        assert_eq!(watcher.follow(&job_id).await.events.len() + 1, expected, "after {from}");
    }
    for from in [first + 6, first + 99] {
        let mut watcher = session(&host).await;
        let payload = json!({ "job_id": job_id, "history": true, "from_event_seq": from });
        subscribe(&mut watcher, payload).await;
        watcher.submit("echo").run().await;
        assert_eq!(watcher.last_seq(), 1, "there is nothing after {from}");
    }
    let mut watcher = session(&host).await;
    let payload = json!({ "job_id": job_id, "history": false, "from_event_seq": 1 });
    assert_eq!(subscribe(&mut watcher, payload).await.payload()["replayed"], json!(false));
    assert_eq!(watcher.follow(&job_id).await.events.len(), 0, "the end alone");
}

#[tokio::test]
async fn a_session_is_told_of_its_own_job_once_however_often_it_subscribes() {
    let (host, mut owner, job_id) = halfway().await;
    let mut watcher = session(&host).await;
    for _ in 0..2 {
        let subscribed = subscribe(&mut owner, json!({ "job_id": job_id, "history": true })).await;
        assert_eq!(subscribed.payload()["replayed"], json!(false));
        subscribe(&mut watcher, json!({ "job_id": job_id, "history": true })).await;
    }
    owner.send("job.unsubscribe", json!({ "job_id": job_id })).await;
    assert_eq!(told(&host, &mut owner, &job_id).await.len(), 3, "and it cannot unsubscribe from it");
    assert_eq!(told(&host, &mut watcher, &job_id).await.len(), 6);
    // Its end was told, so the next subscription is a new one.
    subscribe(&mut watcher, json!({ "job_id": job_id })).await;
    assert_eq!(told(&host, &mut watcher, &job_id).await.len(), 1);
}

#[tokio::test]
async fn whoever_unsubscribes_is_told_no_more_and_may_subscribe_again() {
    let (host, mut owner, job_id) = halfway().await;
    let mut watcher = session(&host).await;
    let own = watcher.submit("sleeper").input(json!({ "sec": 30 })).job_id().await;
    for _ in 0..2 {
        subscribe(&mut watcher, json!({ "job_id": job_id, "history": true })).await;
        for _ in 0..3 {
            watcher.find_type("job.event").await;
        }
        for _ in 0..2 {
            watcher.send("job.unsubscribe", json!({ "job_id": job_id })).await;
        }
    }
    watcher.send("job.unsubscribe", json!({ "job_id": "job_00000000000000000000000000" })).await;
    told(&host, &mut owner, &job_id).await;
    let left = watcher.settle().await;
    assert!(left.iter().all(|frame| frame["job_id"] == json!(own)), "{left:?}");
    // Taken back before it was answered.
    let id = watcher.send("job.subscribe", json!({ "job_id": job_id, "history": true })).await;
    watcher.send("job.unsubscribe", json!({ "job_id": job_id })).await;
    assert_eq!(watcher.reply(&id).await.kind(), "job.subscribed");
    let left = watcher.settle().await;
    assert!(left.iter().all(|frame| frame["job_id"] == json!(own)), "{left:?}");
}

/// ARCP §7.2: whoever repeats a submission is told the end, and more only while subscribed, in whichever order that came.
#[tokio::test]
async fn whoever_unsubscribes_from_a_job_that_was_submitted_again_is_told_its_end_alone() {
    let host = TestHost::at(START).await;
    for (key, first) in [("a", "job.subscribe"), ("b", "job.submit")] {
        let submit = json!({ "agent": "hostile", "input": script(), "idempotency_key": key });
        let mut owner = session(&host).await;
        let job_id = owner.request("job.submit", submit.clone()).await.job_id();
        for _ in 0..3 {
            owner.find_type("job.event").await;
        }
        let mut watcher = session(&host).await;
        let watch = json!({ "job_id": job_id, "history": true });
        let requests = [("job.subscribe", watch), ("job.submit", submit)];
        let (asked_first, asked_then): (Vec<_>, Vec<_>) = requests.into_iter().partition(|(kind, _)| *kind == first);
        for (kind, payload) in asked_first.into_iter().chain(asked_then) {
            assert_eq!(watcher.request(kind, payload).await.payload()["job_id"], json!(job_id));
        }
        for _ in 0..3 {
            watcher.find_type("job.event").await;
        }
        watcher.send("job.unsubscribe", json!({ "job_id": job_id })).await;
        watcher.settle().await;
        let all = told(&host, &mut owner, &job_id).await;
        assert_eq!(all.len(), 3, "two events and the end");
        assert_eq!(told(&host, &mut watcher, &job_id).await, all[2..], "{first} first");
    }
}

/// ARCP §14: what is another principal's is told only where the policy says so.
#[tokio::test]
async fn another_principal_watches_what_the_policy_lets_it() {
    let host = TestHost::builder().rights("bob", &["alice"], false).start().await;
    let mut alice = session(&host).await;
    let job_id = alice.submit("hostile").input(json!({ "do": "wait_cancel" })).job_id().await;
    let mut bob = host.session_as(BOB).await;
    let listed = bob.request("session.list_jobs", json!({})).await;
    assert_eq!(listed.payload()["jobs"][0]["job_id"], json!(job_id));
    let subscribed = subscribe(&mut bob, json!({ "job_id": job_id, "history": true })).await;
    assert_eq!(subscribed.kind(), "job.subscribed");
    assert!(subscribed.payload().get("credentials").is_none());
    let refused = bob.request("job.cancel", json!({ "job_id": job_id })).await;
    assert_eq!(refused.outcome(), Err(JobNotFound), "to watch is not to touch");

    let theirs = bob.submit("echo").run().await.job_id().to_owned();
    let refused = subscribe(&mut alice, json!({ "job_id": theirs, "history": true })).await;
    assert_eq!(refused.outcome(), Err(PermissionDenied));
    assert_eq!(alice.request("session.list_jobs", json!({})).await.payload()["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(alice.settle().await, Vec::<Value>::new(), "and nothing is told");
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_and_costs_nothing_else() {
    let (host, mut owner, job_id) = halfway().await;
    let unknown = "job_00000000000000000000000000";
    for (envelope, payload, expected) in [
        (json!({}), json!({ "job_id": unknown }), JobNotFound),
        (json!({ "job_id": unknown }), json!({}), JobNotFound),
        (json!({}), json!({ "job_id": "no id" }), JobNotFound),
        (json!({}), json!({}), InvalidRequest),
        (json!({ "job_id": job_id }), json!({ "job_id": unknown }), InvalidRequest),
        (json!({}), json!({ "job_id": job_id, "from_event_seq": -1 }), InvalidRequest),
        (json!({}), json!({ "job_id": job_id, "history": "yes" }), InvalidRequest),
    ] {
        let id = owner.send_with("job.subscribe", envelope.clone(), payload.clone()).await;
        let refused = owner.reply(&id).await;
        assert_eq!(refused.outcome(), Err(expected), "{envelope} {payload}: {}", refused.0);
    }
    assert_eq!(told(&host, &mut owner, &job_id).await.len(), 3);
}

/// ARCP §7.4: a subscription does not let anyone cancel.
#[tokio::test]
async fn a_subscriber_may_not_cancel_unless_the_policy_lets_it() {
    for allowed in [false, true] {
        let host = TestHost::builder().rights("alice", &[], allowed).start().await;
        let mut owner = session(&host).await;
        let job_id = owner.submit("hostile").input(json!({ "do": "wait_cancel" })).job_id().await;
        let mut watcher = session(&host).await;
        subscribe(&mut watcher, json!({ "job_id": job_id })).await;
        let id = watcher.send("job.cancel", json!({ "job_id": job_id })).await;
        let answer = watcher.reply(&id).await;
        match allowed {
            true => assert_eq!(answer.kind(), "job.cancelled"),
            false => {
                assert_eq!(answer.outcome(), Err(PermissionDenied));
                owner.send("job.cancel", json!({ "job_id": job_id })).await;
            }
        }
        assert_eq!(watcher.follow(&job_id).await.final_status(), "cancelled");
    }
}

/// ARCP §9.6: what is left now, and not what there was.
#[tokio::test]
async fn a_subscriber_learns_what_is_left_of_a_budget() {
    let host = TestHost::builder().policy("alice", json!({ "cost.budget": ["USD:5.00"] })).start().await;
    let mut owner = session(&host).await;
    let spend = json!({ "do": "metric", "name": "cost.model", "value": "0.42", "unit": "USD" });
    let input = json!({ "do": "steps", "steps": [spend, spend] });
    let run = owner.submit("hostile").input(input).lease(json!({ "cost.budget": ["USD:1.00"] })).run().await;
    let mut watcher = session(&host).await;
    let subscribed = subscribe(&mut watcher, json!({ "job_id": run.job_id() })).await;
    assert_eq!(subscribed.payload()["budget"], json!({ "USD": 0.16 }));
    assert_eq!(subscribed.payload()["lease"], json!({ "cost.budget": ["USD:1.00"] }));
}

/// ARCP §9.6: a watcher is told what the job itself would be, while it runs and after it.
#[tokio::test]
async fn what_a_subscriber_learns_of_a_budget_is_what_the_job_itself_counts() {
    let ceiling = json!({ "tool.call": ["*"], "agent.delegate": ["*"], "cost.budget": ["USD:5.00"] });
    let tools = "[tools.paid]\nrun = [\"cat\"]\nprice = { per_call = \"USD:0.10\" }";
    let tools = Config::parse(tools).expect("the settings are understood").tools;
    let host = TestHost::builder().policy(ALICE, ceiling).config(|config| config.tools = tools).start().await;
    let mut owner = session(&host).await;
    let report = |call: &str| json!({ "do": "metric", "name": "cost.mine", "value": "0.10", "unit": "USD", "dimensions": { "call_id": call } });
    let spend = json!({ "do": "metric", "name": "cost.model", "value": "0.42", "unit": "USD" });
    let child = json!({ "call": "delegate", "agent": "hostile", "input": spend, "lease": {} });
    let steps = json!([
        { "do": "calls", "start": [{ "call": "tool", "name": "paid", "arguments": {} }] },
        report("call_000001"),
        { "do": "calls", "start": [child] },
        { "do": "events_flood", "count": 1 },
        { "do": "wait_cancel" },
    ]);
    let lease = json!({ "tool.call": ["paid"], "agent.delegate": ["*"], "cost.budget": ["USD:1.00"] });
    let submission = owner.submit("hostile").input(json!({ "do": "steps", "steps": steps })).lease(lease);
    let job_id = submission.job_id().await;
    owner.find(|frame| frame["payload"]["kind"] == "log" && frame["job_id"] == job_id).await;
    let mut watcher = session(&host).await;
    let running = subscribe(&mut watcher, json!({ "job_id": job_id })).await;
    assert_eq!(running.payload()["budget"], json!({ "USD": 0.48 }), "{running:?}");
    owner.request("job.cancel", json!({ "job_id": job_id })).await.outcome().unwrap();
    assert_eq!(owner.follow(&job_id).await.final_status(), "cancelled");
    let mut watcher = session(&host).await;
    let over = subscribe(&mut watcher, json!({ "job_id": job_id })).await;
    assert_eq!(over.payload()["budget"], json!({ "USD": 0.48 }), "{over:?}");
}

/// ARCP §6.3: a subscription is the session's, whatever its connection or its host does.
#[tokio::test]
async fn a_subscription_outlives_its_connection() {
    let (host, mut owner, job_id) = halfway().await;
    let mut watcher = host.raw();
    let mut hello = hello(&token(ALICE));
    hello["capabilities"]["features"] = json!(["subscribe"]);
    let welcome = watcher.open_with(hello.clone()).await;
    subscribe(&mut watcher, json!({ "job_id": job_id, "history": true })).await;
    for _ in 0..3 {
        watcher.find_type("job.event").await;
    }
    hello["resume"] = json!({ "resume_token": welcome["resume_token"], "last_event_seq": 3 });
    watcher.hang_up();
    let mut watcher = RawClient::standing_at(host.connect(), 3);
    watcher.open_with(hello).await;
    assert_eq!(told(&host, &mut watcher, &job_id).await, told(&host, &mut owner, &job_id).await);
}

/// ARCP §6.2: "Either peer MUST NOT use a feature outside that intersection."
#[tokio::test]
async fn without_the_feature_there_is_no_subscription() {
    let host = TestHost::new().await;
    let mut owner = session(&host).await;
    let job_id = owner.submit("hostile").input(json!({ "do": "wait_cancel" })).job_id().await;
    let mut plain = host.session_offering(&[]).await;
    for kind in ["job.subscribe", "job.unsubscribe"] {
        let id = plain.send(kind, json!({ "job_id": job_id })).await;
        let refused = plain.reply(&id).await;
        assert_eq!(refused.outcome(), Err(InvalidRequest));
        assert!(refused.message().contains("subscribe") && refused.message().contains("not negotiated"));
    }
    assert!(plain.submit("echo").run().await.result().is_ok(), "the session goes on");
}
