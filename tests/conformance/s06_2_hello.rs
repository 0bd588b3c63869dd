//! ARCP §6.1, §6.2: who may come in, and what both sides can do.

use std::time::Duration;

use leasehold::transport::CloseReason;
use leasehold_core::protocol::feature::Feature;
use leasehold_tests::{
    ErrorCode::{InvalidRequest, Unauthenticated},
    RawClient, Reply, TestHost, host, http,
    raw::{ALL_FEATURES, hello, moment},
};
use serde_json::{Value, json};

fn alice() -> Value {
    hello(&host::token("alice"))
}

fn with(pointer: &str, value: Value) -> Value {
    let mut hello = alice();
    *hello.pointer_mut(pointer).unwrap_or_else(|| panic!("a hello has {pointer}")) = value;
    hello
}

/// The answer to a hello, and how the connection ended if it did.
async fn greet(client: &mut RawClient, payload: Value) -> (Reply, Option<CloseReason>) {
    let id = client.send("session.hello", payload).await;
    let answer = client.recv().await;
    assert_eq!(answer["id"], id, "{answer}");
    let closed = if answer["type"] == "session.error" { Some(client.closed().await) } else { None };
    (Reply(answer), closed)
}

#[tokio::test]
async fn a_welcome_says_all_that_clients_need() {
    let host = TestHost::new().await;
    let mut client = host.raw();
    let (welcome, _) = greet(&mut client, alice()).await;
    let payload = welcome.payload();
    assert_eq!(payload["session_id"], welcome.0["session_id"]);
    assert!(payload["session_id"].as_str().unwrap().starts_with("sess_"), "{payload}");
    moment(&payload["accepted_at"]);
    assert_eq!(payload["runtime"]["name"], "leasehold");
    assert_eq!(
        (&payload["runtime_name"], &payload["runtime_version"]),
        (&payload["runtime"]["name"], &payload["runtime"]["version"])
    );
    assert!(payload["resume_token"].as_str().is_some_and(|token| token.len() >= 32), "{payload}");
    assert_eq!((&payload["resume_window_sec"], &payload["heartbeat_interval_sec"]), (&json!(600), &json!(30)));
    assert_eq!(payload["capabilities"]["encodings"], json!(["json"]));
    let agents = payload["capabilities"]["agents"].as_array().expect("an inventory");
    assert!(agents.contains(&json!({ "name": "echo", "versions": ["1.0.0"], "default": "1.0.0" })), "{agents:?}");
    for agent in agents {
        let versions = agent["versions"].as_array().expect("every agent has versions");
        assert!(versions.contains(&agent["default"]), "{agent}");
    }
}

/// ARCP §6.1: without a principal there is no session, and the connection ends.
#[tokio::test]
async fn a_token_opens_a_session_and_nothing_else_does() {
    let host = TestHost::new().await;
    for (auth, expected) in [
        (json!({ "scheme": "bearer", "token": host::token("alice") }), Ok(())),
        (json!({ "scheme": "BEARER", "token": host::token("alice") }), Ok(())),
        (json!({ "token": host::token("bob") }), Ok(())),
        (json!({ "scheme": "bearer", "token": "wrong" }), Err(Unauthenticated)),
        (json!({ "scheme": "bearer", "token": "" }), Err(Unauthenticated)),
        (json!({ "scheme": "bearer" }), Err(Unauthenticated)),
        (json!({ "scheme": "none" }), Err(Unauthenticated)),
        (json!({ "scheme": "anonymous" }), Err(Unauthenticated)),
        (json!({ "scheme": "mtls", "token": host::token("alice") }), Err(Unauthenticated)),
        (Value::Null, Err(Unauthenticated)),
        (json!({ "scheme": "bearer", "token": 7 }), Err(InvalidRequest)),
    ] {
        let (answer, closed) = greet(&mut host.raw(), with("/auth", auth.clone())).await;
        assert_eq!(answer.outcome(), expected, "{auth}: {}", answer.0);
        assert_eq!(closed.map(|reason| reason.code), expected.err().map(|_| CloseReason::POLICY), "{auth}");
        assert!(!answer.0.to_string().contains(&host::token("")), "a refusal repeats no token: {}", answer.0);
    }
}

#[tokio::test]
async fn a_host_with_an_owner_lets_its_owner_in_without_a_token() {
    let host = TestHost::builder().owner("local").start().await;
    for scheme in ["none", "anonymous"] {
        let (answer, _) = greet(&mut host.raw(), with("/auth", json!({ "scheme": scheme }))).await;
        assert_eq!(answer.kind(), "session.welcome", "{scheme}: {}", answer.0);
    }
}

/// ARCP §6.1: the header counts like the hello, and the two must not differ.
#[tokio::test]
async fn a_token_may_come_in_the_header() {
    let host = TestHost::new().await;
    let address = host.serve().await;
    let bearer = |name: &str| format!("Bearer {}", host::token(name));
    for (header, auth, expected) in [
        (bearer("alice"), Value::Null, "session.welcome"),
        (bearer("alice"), json!({ "scheme": "bearer", "token": host::token("alice") }), "session.welcome"),
        (bearer("alice"), json!({ "scheme": "bearer", "token": host::token("bob") }), "session.error"),
        ("Bearer wrong".to_owned(), Value::Null, "session.error"),
        ("Basic YTpi".to_owned(), Value::Null, "session.error"),
    ] {
        use futures_util::{SinkExt as _, StreamExt as _};
        let mut socket = http::websocket(address, &[("Authorization", &header)]).await;
        let hello =
            json!({ "arcp": "1.1", "id": "h", "type": "session.hello", "payload": with("/auth", auth.clone()) });
        socket.send(tokio_tungstenite::tungstenite::Message::text(hello.to_string())).await.unwrap();
        let answer = leasehold_tests::within("an answer", socket.next()).await.unwrap().unwrap();
        let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
        assert_eq!(answer["type"], expected, "{header} {auth}: {answer}");
    }
}

#[tokio::test]
async fn a_hello_of_another_shape_is_understood() {
    let host = TestHost::new().await;
    let auth = || json!({ "scheme": "bearer", "token": host::token("alice") });
    for payload in [
        json!({ "client_name": "rb", "client_version": "1", "auth": auth(), "capabilities": { "features": [] } }),
        json!({ "auth": auth() }),
        json!({ "auth": auth(), "client": null, "capabilities": null, "resume": null }),
        json!({ "auth": auth(), "capabilities": { "features": null, "encodings": null } }),
        json!({ "auth": auth(), "client": { "name": "c#", "fingerprint": "f", "principal": "mallory" } }),
    ] {
        let (answer, _) = greet(&mut host.raw(), payload.clone()).await;
        assert_eq!(answer.kind(), "session.welcome", "{payload}: {}", answer.0);
    }
}

/// ARCP §6.2: the effective features are the intersection, in the order of the draft.
#[tokio::test]
async fn the_features_of_a_session_are_those_both_sides_have() {
    let host = TestHost::new().await;
    let supported = Feature::SUPPORTED.map(Feature::as_str);
    let backwards: Vec<&str> = ALL_FEATURES.into_iter().rev().collect();
    for (offered, expected) in [
        (json!(ALL_FEATURES), json!(supported)),
        (json!(backwards), json!(supported)),
        (json!([]), json!([])),
        (json!(["progress", "x-vendor.y", "list_jobs", "list_jobs"]), json!(["list_jobs", "progress"])),
        (json!(["x-vendor.y"]), json!([])),
    ] {
        let (welcome, _) = greet(&mut host.raw(), with("/capabilities/features", offered.clone())).await;
        let payload = welcome.payload();
        assert_eq!(payload["capabilities"]["features"], expected, "{offered}");
        let heartbeat = expected.as_array().unwrap().contains(&json!("heartbeat"));
        assert_eq!(payload.get("heartbeat_interval_sec").is_some(), heartbeat, "{offered}: {payload}");
    }
}

/// ARCP §6.2: "Either peer MUST NOT use a feature outside that intersection."
#[tokio::test]
async fn what_was_not_negotiated_is_not_served() {
    let host = TestHost::new().await;
    let mut client = host.raw();
    client.open_with(with("/capabilities/features", json!([]))).await;
    let mut outcomes = vec![
        ("list_jobs", client.request("session.list_jobs", json!({})).await),
        ("ack", client.request("session.ack", json!({ "last_processed_seq": 1 })).await),
    ];
    for (feature, reply) in &outcomes {
        assert_eq!(reply.kind(), "job.error", "{feature}");
    }
    outcomes.extend([
        ("lease_expires_at", client.submit("echo").expires_at("2999-01-01T00:00:00Z").reply().await),
        ("cost.budget", client.submit("echo").lease(json!({ "cost.budget": ["USD:1"] })).reply().await),
    ]);
    for (feature, reply) in outcomes {
        assert_eq!(reply.outcome(), Err(InvalidRequest), "{feature}");
        assert!(reply.message().contains(feature) && reply.message().contains("negotiated"), "{}", reply.message());
    }
}

#[tokio::test]
async fn the_encoding_is_json() {
    let host = TestHost::new().await;
    for (encodings, expected) in [
        (json!(["json"]), Ok(())),
        (json!(["cbor", "json"]), Ok(())),
        (json!([]), Ok(())),
        (json!(["cbor"]), Err(InvalidRequest)),
    ] {
        let (answer, closed) = greet(&mut host.raw(), with("/capabilities/encodings", encodings.clone())).await;
        assert_eq!(answer.outcome(), expected, "{encodings}: {}", answer.0);
        assert_eq!(closed.is_some(), expected.is_err());
    }
}

#[tokio::test]
async fn a_second_hello_is_refused_and_the_session_goes_on() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let again = client.request("session.hello", alice()).await;
    assert_eq!((again.kind(), again.outcome()), ("job.error", Err(InvalidRequest)), "{}", again.0);
    client.submit("echo").run().await;
}

/// ARCP §6.1: nothing is done, and nothing but the refusal said, before a client is known.
#[tokio::test]
async fn whoever_speaks_before_the_welcome_is_refused() {
    let host = TestHost::new().await;
    for (kind, payload) in [
        ("job.submit", json!({ "agent": "echo" })),
        ("session.ping", json!({ "nonce": "n" })),
        ("session.list_jobs", json!({})),
        ("session.close", json!({})),
        ("x-vendor.acme.thing", json!({})),
    ] {
        let mut client = host.raw();
        let id = client.send(kind, payload).await;
        let refused = client.reply(&id).await;
        assert_eq!((refused.kind(), refused.outcome()), ("session.error", Err(Unauthenticated)), "{kind}");
        assert_eq!(client.closed().await.code, CloseReason::POLICY, "{kind}");
    }
    let mut client = host.session().await;
    assert_eq!(
        client.request("session.list_jobs", json!({})).await.payload()["jobs"],
        json!([]),
        "nothing was executed"
    );
}

#[tokio::test]
async fn a_client_that_never_says_hello_is_shown_the_door() {
    let host = TestHost::at("2026-05-13T12:00:00Z").await;
    let mut client = host.raw();
    let closed = host.advancing(Duration::from_secs(1), client.closed()).await;
    assert_eq!(closed.code, CloseReason::POLICY);
}

#[tokio::test]
async fn sessions_share_neither_id_nor_token() {
    let host = TestHost::new().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let welcome = host.raw().open(&host::token("alice")).await;
        seen.insert(welcome["session_id"].to_string());
        seen.insert(welcome["resume_token"].to_string());
    }
    assert_eq!(seen.len(), 8);
}
