//! Clients from before the draft that no registry carries: Kotlin, Swift, older PHP.
//!
//! They send the frames below and find every answer by its `correlation_id`. What
//! their decoders take for certain of any frame is checked of all.

use leasehold::transport::{
    Incoming, Transport,
    websocket::{WebSocketConfig, connect},
};
use leasehold_core::{id::Ulid, time::Timestamp};
use leasehold_tests::{
    TestHost,
    host::{ALICE, token},
    within,
};
use serde_json::{Value, json};

struct Client {
    wire: Transport,
    session_id: Option<String>,
    sent: u32,
}

impl Client {
    async fn connect(host: &TestHost) -> Self {
        let wire = connect(&host.serve_url().await, &WebSocketConfig::default()).await.expect("the host listens");
        Self { wire, session_id: None, sent: 0 }
    }

    async fn opened(host: &TestHost) -> Self {
        let mut client = Self::connect(host).await;
        let accepted = client.ask("session.open", open(&token(ALICE))).await;
        assert_eq!(accepted["type"], "session.accepted", "{accepted}");
        let payload = &accepted["payload"];
        assert_eq!(payload["session_id"], accepted["session_id"], "{accepted}");
        assert!(payload["runtime"]["kind"].is_string() && payload["capabilities"].is_object(), "{accepted}");
        client.session_id = payload["session_id"].as_str().map(str::to_owned);
        client
    }

    async fn send(&mut self, kind: &str, payload: Value) -> String {
        self.sent += 1;
        let id = format!("msg_01KRHAB7S0000000000000{:04}", self.sent);
        let mut frame = json!({ "arcp": "1.1", "id": id, "type": kind, "timestamp": "2026-05-13T19:30:00Z",
            "priority": "normal", "payload": payload });
        if let Some(session_id) = &self.session_id {
            frame["session_id"] = session_id.as_str().into();
        }
        within("a write", self.wire.send(frame.to_string())).await.expect("the connection is open");
        id
    }

    async fn recv(&mut self) -> Value {
        let Incoming::Text(text) = within("a frame", self.wire.recv()).await else { panic!("no frame") };
        let frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
        let text = |key: &str| frame[key].as_str().unwrap_or_default();
        let id = text("id").strip_prefix("msg_").and_then(|ulid| Ulid::from_string(ulid).ok());
        assert!(id.is_some() && text("arcp") == "1.1", "{frame}");
        assert!(text("timestamp").parse::<Timestamp>().is_ok() && frame["payload"].is_object(), "{frame}");
        assert!(text("session_id").starts_with("sess_") && !text("type").is_empty(), "{frame}");
        frame
    }

    /// Sends a request, and gives the first frame that answers it.
    async fn ask(&mut self, kind: &str, payload: Value) -> Value {
        let id = self.send(kind, payload).await;
        let answer = self.recv().await;
        assert_eq!(answer["correlation_id"], id, "{answer}");
        answer
    }
}

fn open(token: &str) -> Value {
    json!({
        "auth": { "scheme": "bearer", "token": token },
        "client": { "kind": "arcp-swift", "version": "1.0.0" },
        "capabilities": { "streaming": true, "durable_jobs": true, "subscriptions": true },
    })
}

#[tokio::test]
async fn every_request_is_answered_in_the_type_it_waits_for() {
    let host = TestHost::new().await;
    let mut client = Client::opened(&host).await;
    let unknown = format!("job_{}", "0".repeat(26));
    for (kind, payload, answer, part) in [
        ("ping", json!({ "nonce": "n" }), "pong", json!({ "nonce": "n" })),
        ("session.ping", json!({ "nonce": "n" }), "session.pong", json!({ "ping_nonce": "n" })),
        ("tool.invoke", json!({ "tool": "nobody", "arguments": {} }), "nack", json!({ "code": "NOT_FOUND" })),
        ("tool.invoke", json!({ "arguments": {} }), "nack", json!({ "code": "INVALID_ARGUMENT" })),
        ("cancel", json!({ "target": "job", "target_id": unknown }), "cancel.refused", json!({ "target_id": unknown })),
        ("cancel", json!({ "target": "stream", "target_id": "str_1" }), "nack", json!({ "code": "INVALID_ARGUMENT" })),
        ("subscribe", json!({ "filter": { "job_id": [unknown] } }), "nack", json!({ "code": "NOT_FOUND" })),
        ("artifact.fetch", json!({ "artifact_id": "art_1" }), "nack", json!({ "code": "INVALID_ARGUMENT" })),
        ("session.list_jobs", json!({}), "session.jobs", json!({ "jobs": [], "next_cursor": null })),
        ("session.close", json!({ "reason": "done" }), "session.close", json!({})),
    ] {
        let frame = client.ask(kind, payload.clone()).await;
        assert_eq!(frame["type"], answer, "{kind} {payload}: {frame}");
        for (key, value) in part.as_object().into_iter().flatten() {
            assert_eq!(&frame["payload"][key], value, "{kind} {payload}: {frame}");
        }
    }
    assert!(
        matches!(within("the end", client.wire.recv()).await, Incoming::Closed(Some(reason)) if reason.code == 1000)
    );
}

#[tokio::test]
async fn a_job_is_told_from_its_acceptance_to_its_end_under_the_id_of_its_invocation() {
    let host = TestHost::new().await;
    let mut client = Client::opened(&host).await;
    let invocation = json!({ "tool": "chatty", "arguments": { "count": 2 },
        "lease_request": { "cost_budget": ["USD:1"], "expires_at": "2099-01-01T00:00:00Z" } });
    let request = client.send("tool.invoke", invocation).await;
    let mut types = Vec::new();
    while types.last().is_none_or(|kind| kind != "job.completed") {
        let frame = client.recv().await;
        assert_eq!(frame["correlation_id"], request, "{frame}");
        assert!(frame["job_id"].as_str().is_some_and(|id| id.starts_with("job_")), "{frame}");
        types.push(frame["type"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(types, ["job.accepted", "log", "log", "job.completed"]);
    let listed = client.ask("session.list_jobs", json!({})).await;
    assert_eq!(listed["payload"]["jobs"][0]["status"], "completed", "{listed}");
}

#[tokio::test]
async fn a_session_that_cannot_be_opened_is_rejected_and_closed() {
    let host = TestHost::new().await;
    let mut scheme = open(&token(ALICE));
    scheme["auth"]["scheme"] = "mtls".into();
    for (payload, kind) in [
        (open("wrong"), "session.unauthenticated"),
        (scheme, "session.unauthenticated"),
        (json!({ "capabilities": { "encodings": ["cbor"] } }), "session.rejected"),
    ] {
        let mut client = Client::connect(&host).await;
        let refused = client.ask("session.open", payload.clone()).await;
        assert_eq!(refused["type"], kind, "{payload}: {refused}");
        assert!(refused["payload"]["error"]["message"].is_string(), "{refused}");
        let end = within("the end", client.wire.recv()).await;
        assert!(matches!(&end, Incoming::Closed(Some(reason)) if reason.code == 1008), "{end:?}");
    }
}
