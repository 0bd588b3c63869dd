//! ARCP §5: the envelope.

use leasehold::transport::CloseReason;
use leasehold_tests::{
    ErrorCode::InvalidRequest,
    Reply, TestHost, host,
    raw::{code, hello},
};
use serde_json::{Value, json};

fn alice() -> Value {
    hello(&host::token("alice"))
}

/// Whatever cannot be read before the welcome is refused, and the connection ends.
#[tokio::test]
async fn a_first_frame_that_is_no_hello_of_this_version_is_refused() {
    let host = TestHost::new().await;
    let versioned = |arcp: Value| json!({ "arcp": arcp, "id": "h", "type": "session.hello", "payload": alice() });
    for (text, said) in [
        ("{".to_owned(), "envelope"),
        ("[]".to_owned(), "envelope"),
        // In the order in which some program may hold the fields.
        (json!(["1.1", "h", "session.hello", null, null, null, null, alice()]).to_string(), "not an object"),
        ("\"hello\"".to_owned(), "envelope"),
        (String::new(), "envelope"),
        (versioned("2.0".into()).to_string(), "`2.0`"),
        (versioned("1".into()).to_string(), "`1`"),
        (versioned(json!(1.1)).to_string(), "expected a string"),
        (versioned(Value::Null).to_string(), "`arcp` is missing"),
        (json!({ "arcp": "1.1", "type": "session.hello", "payload": alice() }).to_string(), "`id`"),
        (json!({ "arcp": "1.1", "id": "h", "payload": alice() }).to_string(), "`type`"),
        (json!({ "arcp": "1.1", "id": "h", "type": "session.hello", "payload": [] }).to_string(), "`payload`"),
        (
            json!({ "arcp": "1.1", "id": "h", "type": "session.hello", "payload": {"auth": 1} }).to_string(),
            "`payload.auth`",
        ),
        (
            json!({ "arcp": "1.1", "id": "h", "type": "session.hello", "payload": {"auth": ["bearer"]} }).to_string(),
            "an object",
        ),
    ] {
        let mut client = host.raw();
        client.id_was_sent("h");
        client.send_text(text.clone()).await;
        let refused = Reply(client.recv().await);
        assert_eq!(
            (refused.kind(), refused.outcome()),
            ("session.error", Err(InvalidRequest)),
            "{text}: {}",
            refused.0
        );
        assert!(refused.message().contains(said), "{text}: {}", refused.message());
        assert_eq!(client.closed().await.code, CloseReason::POLICY, "{text}");
    }
}

/// After the welcome the same is a mistake of one frame, and the session goes on.
#[tokio::test]
async fn a_later_frame_that_cannot_be_read_is_refused_and_ends_nothing() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for (text, said) in [
        ("{".to_owned(), "envelope"),
        ("[1]".to_owned(), "envelope"),
        (json!({ "arcp": "1.1", "id": "a", "payload": {} }).to_string(), "`type`"),
        (json!({ "arcp": "1.1", "type": "session.ping", "payload": { "nonce": "n" } }).to_string(), "`id`"),
        (json!({ "arcp": "1.1", "id": "", "type": "session.ping", "payload": { "nonce": "n" } }).to_string(), "`id`"),
        (json!({ "arcp": "1.1", "id": "i".repeat(257), "type": "session.ping", "payload": {} }).to_string(), "`id`"),
        (json!({ "arcp": "1.0", "id": "a", "type": "session.ping", "payload": { "nonce": "n" } }).to_string(), "`1.0`"),
        (json!({ "arcp": "1.1", "id": "a", "type": "session.ping", "payload": {} }).to_string(), "nonce"),
        (json!({ "arcp": "1.1", "id": "a", "type": "session.ack", "payload": {} }).to_string(), "last_processed_seq"),
    ] {
        client.id_was_sent("a");
        client.send_text(text.clone()).await;
        let refused = client.recv().await;
        assert_eq!(refused["type"], "job.error", "{text}: {refused}");
        assert_eq!(code(refused["payload"]["code"].as_str().unwrap()), InvalidRequest, "{text}: {refused}");
        // A job id would end that job for some clients.
        assert!(refused.get("job_id").is_none() && refused.get("event_seq").is_none(), "{text}: {refused}");
        assert!(refused["payload"]["message"].as_str().unwrap().contains(said), "{text}: {refused}");
        assert_eq!(client.settle().await, Vec::<Value>::new(), "{text}");
    }
}

/// ARCP §5: unknown fields are ignored.
#[tokio::test]
async fn fields_nobody_knows_and_nulls_are_as_good_as_absent() {
    let host = TestHost::new().await;
    for extra in [
        json!({ "foo": 1, "span_id": "s", "timestamp": "yesterday", "extensions": {} }),
        json!({ "trace_id": null, "job_id": null, "event_seq": null, "session_id": null }),
        json!({ "session_id": "ses_made-up-by-the-client" }),
    ] {
        let mut client = host.raw();
        client.send_with("session.hello", extra.clone(), alice()).await;
        assert_eq!(client.recv().await["type"], "session.welcome", "{extra}");
    }
}

/// ARCP §5: a type nobody knows is ignored, so that the protocol can grow.
#[tokio::test]
async fn a_type_nobody_knows_is_not_answered() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    for kind in ["x-vendor.acme.thing", "job.frobnicate", "session.welcome"] {
        client.send(kind, json!({ "a": 1 })).await;
        assert_eq!(client.settle().await, Vec::<Value>::new(), "{kind}");
    }
}

/// ARCP §5, §11: a trace is 32 hexadecimal digits, and one that is not is replaced.
#[tokio::test]
async fn a_trace_id_is_kept_or_replaced_and_stands_in_every_frame_of_its_job() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    for (given, kept) in [
        (json!(trace), true),
        (json!(format!("00-{trace}-b7ad6b7169203331-01")), true),
        (json!("abc"), false),
        (json!("0".repeat(32)), false),
        (json!(null), false),
    ] {
        let run = client.submit("chatty").input(json!({ "count": 2 })).envelope("trace_id", given.clone()).run().await;
        let of_job = run.accepted["trace_id"].as_str().expect("a job has a trace");
        assert_eq!(of_job == trace, kept, "{given}: {}", run.accepted);
        assert_eq!(run.events.len(), 2);
        for frame in run.events.iter().chain([&run.terminal]) {
            assert_eq!(frame["trace_id"], of_job, "{given}: {frame}");
        }
    }
}
