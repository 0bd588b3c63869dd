//! ARCP §8.1-§8.3: events, their bodies, their numbers.

use leasehold_tests::{MountMode, TestHost, raw::moment};
use serde_json::{Value, json};

/// ARCP §8.2: each row is a deed and the one event that comes of it. The bodies are what the strictest SDK reads.
#[tokio::test]
async fn every_kind_has_its_body() {
    let sha256 = "0".repeat(64);
    let table = [
        (json!({ "do": "events_flood", "count": 1 }), "log", json!({ "level": "info", "message": "0" })),
        (json!({ "do": "big_argument", "bytes": 3, "via": "thought" }), "thought", json!({ "text": "xxx" })),
        (json!({ "do": "forge_status", "phase": "reading" }), "status", json!({ "phase": "reading" })),
        (
            json!({ "do": "forge_status", "phase": "reading", "message": "m" }),
            "status",
            json!({ "phase": "reading", "message": "m" }),
        ),
        (json!({ "do": "metric", "name": "words", "value": "7" }), "metric", json!({ "name": "words", "value": 7 })),
        (
            json!({ "do": "metric", "name": "t", "value": "0.250", "unit": "s", "dimensions": { "a": "1" } }),
            "metric",
            json!({ "name": "t", "value": 0.25, "unit": "s", "dimensions": { "a": "1" } }),
        ),
        (json!({ "do": "bad_progress", "current": 3 }), "progress", json!({ "current": 3 })),
        (json!({ "do": "bad_progress", "current": 3, "total": 4 }), "progress", json!({ "current": 3, "total": 4 })),
        (
            json!({ "do": "bad_artifact", "uri": "file:///w/a", "sha256": sha256 }),
            "artifact_ref",
            json!({ "uri": "file:///w/a", "content_type": "text/plain", "sha256": sha256 }),
        ),
        (
            json!({ "do": "bad_vendor", "kind": "x-vendor.acme.k", "body": "{\"a\": null}" }),
            "x-vendor.acme.k",
            json!({ "a": null }),
        ),
    ];
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for (deed, kind, body) in table {
        let run = client.submit("hostile").input(deed.clone()).run().await;
        assert!(run.result().is_ok_and(|result| result.get("err").is_none()), "{deed}: {}", run.terminal);
        assert_eq!(run.events.len(), 1, "{deed}: {:?}", run.events);
        let payload = &run.events[0]["payload"];
        assert_eq!((&payload["kind"], &payload["body"]), (&json!(kind), &body), "{deed}");
        moment(&payload["ts"]);
    }
}

/// ARCP §8.2: a capability call is a `tool_call` and a `tool_result`, paired, allowed or not.
#[tokio::test]
async fn a_capability_call_is_shown_with_its_outcome() {
    let host = TestHost::builder().mount("/w", MountMode::Ro).start().await;
    std::fs::write(host.folder("/w").join("a"), "abc").unwrap();
    let mut client = host.session().await;
    let steps = json!([{ "do": "read", "path": "/w/a" }, { "do": "read", "path": "/etc/passwd" }]);
    let deed = json!({ "do": "steps", "steps": steps });
    let run = client.submit("hostile").input(deed).lease(json!({ "fs.read": ["/w/**"] })).run().await;
    let kinds: Vec<&Value> = run.events.iter().map(|event| &event["payload"]["kind"]).collect();
    assert_eq!(kinds, ["tool_call", "tool_result", "tool_call", "tool_result"]);
    let [calls, results] = ["tool_call", "tool_result"].map(|kind| run.bodies(kind));
    assert_eq!((&calls[0]["tool"], &calls[0]["args"]["path"]), (&json!("fs.read"), &json!("/w/a")));
    for (call, result) in calls.iter().zip(&results) {
        assert_eq!(call["call_id"], result["call_id"]);
        assert!(
            call["args"].is_object() && (result.get("result").is_some() != result.get("error").is_some()),
            "{result}"
        );
    }
    assert_ne!(calls[0]["call_id"], calls[1]["call_id"]);
    let error = &results[1]["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("PERMISSION_DENIED"), &json!(false)), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("/etc/passwd")), "{error}");
}

#[tokio::test]
async fn an_event_that_makes_no_sense_is_refused_to_its_agent_and_shown_to_nobody() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for deed in [
        json!({ "do": "bad_vendor" }),
        json!({ "do": "bad_vendor", "kind": "log", "body": "{}" }),
        json!({ "do": "bad_vendor", "kind": "x-vendor.acme.k", "body": "[]" }),
        json!({ "do": "bad_progress", "current": 5, "total": 4 }),
        json!({ "do": "bad_artifact", "uri": "file:///w/a", "sha256": "abc" }),
        json!({ "do": "bad_artifact", "uri": "", "sha256": "0".repeat(64) }),
        json!({ "do": "forge_status" }),
        json!({ "do": "forge_status", "phase": "" }),
    ] {
        let run = client.submit("hostile").input(deed.clone()).run().await;
        let result = run.result().expect("a refusal is a value");
        assert_eq!(result["err"]["code"], "invalid-request", "{deed}: {result}");
        assert!(run.events.is_empty(), "{deed}: {:?}", run.events);
    }
}

/// ARCP §8.3: one stream a session, however many jobs. The client on the bare wire counts.
#[tokio::test]
async fn the_events_of_jobs_that_run_together_share_one_dense_numbering() {
    let host = TestHost::new().await;
    let (mut client, mut other) = (host.session().await, host.session().await);
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let input = json!({ "count": 10, "start_delay_ms": 20, "delay_ms": 1 });
        jobs.push(client.submit("chatty").input(input).job_id().await);
    }
    // A session has numbers of its own.
    let alone = other.submit("chatty").input(json!({ "count": 1 })).run().await;
    assert_eq!(alone.events[0]["event_seq"], 1);
    let mut last = 0;
    for job in jobs {
        let run = client.follow(&job).await;
        let seqs: Vec<u64> = run.events.iter().map(|event| event["event_seq"].as_u64().unwrap()).collect();
        assert!(seqs.len() == 10 && seqs.is_sorted(), "{seqs:?}");
        last = last.max(run.terminal["event_seq"].as_u64().unwrap());
    }
    assert_eq!(last, 33, "ten events and an end of each of three jobs");
}

/// ARCP §6.2, §8.2.1: a client that did not ask for progress gets none, and no hole in the numbers.
#[tokio::test]
async fn progress_is_left_out_for_a_client_that_did_not_negotiate_it() {
    let host = TestHost::new().await;
    let mut client = host.session_offering(&[]).await;
    let progress = json!({ "do": "bad_progress", "current": 1 });
    let log = json!({ "do": "events_flood", "count": 1 });
    let steps = json!({ "do": "steps", "steps": [progress, log, progress, log] });
    let run = client.submit("hostile").input(steps).run().await;
    assert_eq!((run.bodies("progress").len(), run.bodies("log").len()), (0, 2));
}
