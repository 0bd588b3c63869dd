//! ARCP §7.2: a submission that is repeated is one job.

use leasehold_tests::{
    ErrorCode::{AgentNotAvailable, DuplicateKey, InvalidRequest},
    TestHost, within,
};
use serde_json::{Value, json};

/// How many jobs the client's principal has.
async fn jobs(client: &mut leasehold_tests::RawClient) -> usize {
    let list = client.request("session.list_jobs", json!({})).await;
    list.payload()["jobs"].as_array().expect("a list").len()
}

#[tokio::test]
async fn a_repeated_submission_is_answered_with_the_first_job_and_its_end() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let first = client.submit("chatty").input(json!({ "count": 3 })).key("k").run().await;
    let again = client.submit("chatty").input(json!({ "count": 3 })).key("k").run().await;
    for (what, path) in [
        ("job", "/payload/job_id"),
        ("moment", "/payload/accepted_at"),
        ("trace", "/trace_id"),
        ("lease", "/payload/lease"),
    ] {
        assert_eq!(first.accepted.pointer(path), again.accepted.pointer(path), "the same {what}");
    }
    assert_ne!(first.accepted["id"], again.accepted["id"], "each answer names its own request");
    // Not its events: they have been told, and their numbers would lie.
    assert_eq!((first.events.len(), again.events.len()), (3, 0));
    assert_eq!(first.terminal["payload"], again.terminal["payload"]);
    assert_eq!((&first.terminal["event_seq"], &again.terminal["event_seq"]), (&json!(4), &json!(5)));
    assert_eq!(jobs(&mut client).await, 1);
}

/// The session follows the job already, so it must not hear everything twice.
#[tokio::test]
async fn repeating_the_submission_of_a_running_job_repeats_none_of_its_events() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let input = json!({ "count": 20, "start_delay_ms": 20, "delay_ms": 2 });
    let first = client.submit("chatty").input(input.clone()).key("k").reply().await;
    let again = client.submit("chatty").input(input).key("k").reply().await;
    assert_eq!(first.job_id(), again.job_id());
    let run = client.follow(&first.job_id()).await;
    let messages: Vec<Value> = run.bodies("log").into_iter().map(|body| body["message"].clone()).collect();
    let expected: Vec<Value> = (1..=20).map(|n| json!(format!("event {n}"))).collect();
    assert_eq!(messages, expected);
    assert_eq!(client.settle().await, Vec::<Value>::new(), "nothing follows the end");
}

#[tokio::test]
async fn two_sessions_that_race_with_one_key_make_one_job() {
    let host = TestHost::builder().sqlite().start().await;
    let mut clients = [host.session().await, host.session().await, host.session().await, host.session().await];
    for round in 0..10 {
        let [a, b, c, d] = &mut clients;
        let key = format!("k-{round}");
        let input = json!({ "round": round });
        let (a, b, c, d) = within("four answers", async {
            tokio::join!(
                a.submit("echo").input(input.clone()).key(&key).run(),
                b.submit("echo").input(input.clone()).key(&key).run(),
                c.submit("echo").input(input.clone()).key(&key).run(),
                d.submit("echo").input(input.clone()).key(&key).run(),
            )
        })
        .await;
        for other in [b, c, d] {
            assert_eq!(other.job_id(), a.job_id());
            assert_eq!(other.accepted["payload"]["accepted_at"], a.accepted["payload"]["accepted_at"]);
            // Every session has the end, whichever of them made the job.
            assert_eq!(other.result(), Ok(input.clone()));
        }
        assert_eq!(jobs(&mut clients[0]).await, round + 1);
    }
}

/// ARCP §7.2: "different parameters" with a known key are `DUPLICATE_KEY`.
#[tokio::test]
async fn a_key_that_comes_back_with_other_parameters_is_refused() {
    let host = TestHost::builder().policy("alice", json!({ "fs.read": ["/w/**"] })).start().await;
    let mut client = host.session().await;
    let first = json!({ "agent": "echo", "input": { "a": 1, "b": [2, "x"] }, "max_runtime_sec": 60,
        "lease_request": { "fs.read": ["/w/a"] }, "idempotency_key": "k" });
    let job_id = client.request("job.submit", first.clone()).await.job_id();
    client.follow(&job_id).await;
    let same = |text: &str| serde_json::from_str::<Value>(text).expect("a row is JSON");
    for (change, expected) in [
        (json!({}), Ok(())),
        (json!({ "input": same(r#"{"b":[2.0,"x"],"a":1.0}"#) }), Ok(())), // another order and another spelling
        (json!({ "max_runtime_sec": 60.0 }), Ok(())),
        (json!({ "agent": "echo@1.0.0" }), Err(DuplicateKey)),
        (json!({ "input": { "a": 2, "b": [2, "x"] } }), Err(DuplicateKey)),
        (json!({ "input": { "a": 1, "b": ["x", 2] } }), Err(DuplicateKey)),
        (json!({ "input": { "a": 1, "b": [2, "x"], "c": null } }), Err(DuplicateKey)),
        (json!({ "max_runtime_sec": 61 }), Err(DuplicateKey)),
        (json!({ "lease_request": {} }), Err(DuplicateKey)),
        (json!({ "lease_constraints": { "expires_at": "2999-01-01T00:00:00Z" } }), Err(DuplicateKey)),
    ] {
        let mut again = first.clone();
        for (key, value) in change.as_object().expect("a row changes fields") {
            again[key] = value.clone();
        }
        let reply = client.request("job.submit", again).await;
        assert_eq!(reply.outcome(), expected, "{change}: {}", reply.0);
        match expected {
            Ok(()) => drop(client.follow(&reply.job_id()).await),
            // A client that knows the job by its id would end it.
            Err(_) => assert!(!reply.0.to_string().contains(&job_id), "{}", reply.0),
        }
    }
    assert_eq!(jobs(&mut client).await, 1);
}

#[tokio::test]
async fn a_key_belongs_to_its_principal() {
    let host = TestHost::new().await;
    let (mut alice, mut bob) = (host.session().await, host.session_as("bob").await);
    let of_alice = alice.submit("echo").input(json!(1)).key("k").run().await;
    let of_bob = bob.submit("echo").input(json!(2)).key("k").run().await;
    assert_ne!(of_alice.job_id(), of_bob.job_id());
    assert_eq!((of_alice.result(), of_bob.result()), (Ok(json!(1)), Ok(json!(2))));
}

#[tokio::test]
async fn a_refused_submission_leaves_its_key_free() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let refused = client.submit("nobody").key("k").reply().await;
    assert_eq!(refused.outcome(), Err(AgentNotAvailable));
    client.submit("echo").key("k").run().await;
}

/// One SDK writes the key in the envelope, and another in both places.
#[tokio::test]
async fn a_key_may_stand_in_the_envelope() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let long = "k".repeat(257);
    for (payload, envelope, expected) in [
        (json!("k"), json!("k"), Ok(())),
        (json!(null), json!("k"), Ok(())),
        (json!("k"), json!(null), Ok(())),
        (json!(""), json!("k"), Ok(())),
        (json!("k"), json!("other"), Err(InvalidRequest)),
        (json!(long), json!(null), Err(InvalidRequest)),
        (json!(null), json!(long), Err(InvalidRequest)),
        (json!(&long[1..]), json!(null), Ok(())),
    ] {
        let submit = client.submit("echo").field("idempotency_key", payload.clone());
        let reply = submit.envelope("idempotency_key", envelope.clone()).reply().await;
        assert_eq!(reply.outcome(), expected, "{payload} {envelope}: {}", reply.0);
    }
    assert_eq!(jobs(&mut client).await, 2, "one for `k` and one for the longest key");
}
