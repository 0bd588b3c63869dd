//! crates.io `arcp` 2.0.0, which speaks the words from before the draft.
//!
//! Its client shows a job's result and nothing of what is told meanwhile, so
//! what it receives is overheard, after its own decoder has read it: a frame
//! that it cannot decode ends its session.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arcp_client::{
    ARCPClient,
    api::{Authenticated, Session},
};
use arcp_core::{
    ARCPError, Capabilities, Envelope, MessageType,
    messages::{AgentInventory, AuthScheme, ClientIdentity, Credentials, SubscriptionFilter},
    transport::{Transport, websocket::WebSocketTransport},
};
use async_trait::async_trait;
use leasehold_tests::{
    TestHost,
    host::{ALICE, token},
    within,
};
use serde_json::{Value, json};

/// What a client receives, decoded.
type Heard = Arc<Mutex<Vec<Envelope>>>;

struct Overheard {
    wire: WebSocketTransport,
    heard: Heard,
}

#[async_trait]
impl Transport for Overheard {
    async fn send(&self, envelope: Envelope) -> Result<(), ARCPError> {
        self.wire.send(envelope).await
    }

    async fn recv(&self) -> Result<Option<Envelope>, ARCPError> {
        let received = self.wire.recv().await?;
        self.heard.lock().unwrap().extend(received.clone());
        Ok(received)
    }

    async fn close(&self) -> Result<(), ARCPError> {
        self.wire.close().await
    }
}

async fn open(url: &str, token: &str) -> Result<(Session<Authenticated, Overheard>, Heard), ARCPError> {
    let heard = Heard::default();
    let wire = WebSocketTransport::dial(url).await?;
    let client = ARCPClient::new(Overheard { wire, heard: Arc::clone(&heard) });
    let credentials = Credentials { scheme: AuthScheme::Bearer, token: Some(token.to_owned()) };
    let identity = ClientIdentity { kind: "interop".into(), version: "1".into(), fingerprint: None, principal: None };
    let opened = client.open()?.authenticate(credentials, identity, Capabilities::default());
    Ok((within("a session", opened).await?, heard))
}

async fn alice(host: &TestHost) -> (Session<Authenticated, Overheard>, Heard) {
    open(&host.serve_url().await, &token(ALICE)).await.unwrap()
}

async fn invoke(session: &Session<Authenticated, Overheard>, tool: &str, arguments: Value) -> Result<Value, ARCPError> {
    let handle = within("an answer", session.invoke(tool, arguments)).await?;
    within("the end", handle.join()).await
}

#[tokio::test]
async fn it_opens_a_session_and_finds_the_agents() {
    let host = TestHost::new().await;
    let (session, heard) = alice(&host).await;
    assert!(session.id().await.unwrap().as_str().starts_with("sess_"));
    let Some(AgentInventory::Rich(agents)) = session.capabilities().await.agents else { panic!("no inventory") };
    assert!(agents.iter().any(|agent| agent.name == "echo" && agent.versions == ["1.0.0"]), "{agents:?}");
    let heard = heard.lock().unwrap();
    assert!(matches!(&heard[..], [Envelope { correlation_id: Some(_), .. }]), "{heard:?}");
}

#[tokio::test]
async fn a_wrong_token_is_refused_with_the_reason() {
    let host = TestHost::new().await;
    let error = open(&host.serve_url().await, "wrong").await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, ARCPError::Unauthenticated { detail } if detail.contains("UNAUTHENTICATED")), "{error}");
}

#[tokio::test]
async fn any_value_comes_back_as_it_went() {
    let host = TestHost::new().await;
    let (session, _) = alice(&host).await;
    for value in [json!(null), json!([1, 2.5, "ü"]), json!({ "a": { "b": null } }), json!("x".repeat(500_000))] {
        assert_eq!(invoke(&session, "echo", value.clone()).await.unwrap(), value);
    }
    // It cannot put the parts of a streamed result together, so the host does.
    let streamed = json!({ "do": "chunks", "texts": ["ab", "c"], "finish": true });
    assert_eq!(invoke(&session, "hostile", streamed).await.unwrap(), "abc");
}

/// ARCP §8.2: each kind of event has a type that this client decodes.
#[tokio::test]
async fn it_decodes_all_that_is_told_of_its_job() {
    let host = TestHost::new().await;
    let (session, heard) = alice(&host).await;
    let steps = json!([
        { "do": "events_flood", "count": 1 },
        { "do": "metric", "name": "words", "value": "7.5" },
        { "do": "bad_progress", "current": 1, "total": 4 },
        { "do": "big_argument", "bytes": 3, "via": "thought" },
        { "do": "forge_status", "phase": "reading" },
        { "do": "read", "path": "/nowhere" },
        { "do": "bad_vendor", "kind": "x-vendor.acme.k", "body": "{}" },
    ]);
    invoke(&session, "hostile", json!({ "do": "steps", "steps": steps })).await.unwrap();
    let heard = heard.lock().unwrap();
    let told = |envelope: &Envelope| match &envelope.payload {
        MessageType::Log(log) => format!("log {}", log.message),
        MessageType::Metric(metric) => format!("metric {}", metric.value),
        MessageType::JobProgress(progress) => format!("progress {}", progress.percent.unwrap_or_default()),
        MessageType::EventEmit(event) => {
            format!("event {}", event.data.as_ref().unwrap()["kind"].as_str().unwrap_or_default())
        }
        other => other.type_name().to_owned(),
    };
    let expected = [
        "session.accepted",
        "job.accepted",
        "log 0",
        "metric 7.5",
        "progress 25",
        "event thought",
        "event status",
        "event tool_call",
        "event tool_result",
        "event x-vendor.acme.k",
        "job.completed",
    ];
    assert_eq!(heard.iter().map(told).collect::<Vec<_>>(), expected);
    let correlation = heard[1].correlation_id.clone();
    for envelope in &heard[1..] {
        assert!(envelope.session_id.is_some() && envelope.job_id.is_some(), "{envelope:?}");
        assert_eq!(envelope.correlation_id, correlation, "{envelope:?}");
    }
}

/// ARCP §12, in the codes from before it.
#[tokio::test]
async fn a_refused_invocation_and_a_failed_job_are_errors_and_the_session_goes_on() {
    let host = TestHost::new().await;
    let (session, _) = alice(&host).await;
    let running = within("an answer", session.invoke("sleeper", json!({ "sec": 600 }))).await.unwrap();
    for (tool, arguments, code) in [
        ("nobody", json!({}), "NOT_FOUND"),
        ("echo@9.9.9", json!({}), "AGENT_VERSION_NOT_AVAILABLE"),
        ("Bad Name!", json!({}), "INVALID_ARGUMENT"),
        ("sleeper", json!({ "sec": -1 }), "INVALID_ARGUMENT"),
        ("hostile", json!({ "do": "fail", "code": "timeout", "message": "m" }), "DEADLINE_EXCEEDED"),
    ] {
        let error = invoke(&session, tool, arguments).await.unwrap_err().to_string();
        assert!(error.contains(code), "{tool}: {error}");
    }
    assert_eq!(invoke(&session, "echo", json!(1)).await.unwrap(), 1);
    running.cancel("over").await.unwrap();
    assert!(matches!(within("the end", running.join()).await, Err(ARCPError::Cancelled { .. })));
}

/// ARCP §7.4
#[tokio::test]
async fn a_cancelled_job_is_an_error_of_its_own_kind() {
    let host = TestHost::new().await;
    let (session, heard) = alice(&host).await;
    let handle = within("an answer", session.invoke("sleeper", json!({ "sec": 600 }))).await.unwrap();
    handle.cancel("enough").await.unwrap();
    let error = within("the end", handle.join()).await.unwrap_err();
    assert!(matches!(error, ARCPError::Cancelled { .. }), "{error}");
    let heard = heard.lock().unwrap();
    let types: Vec<&str> = heard.iter().map(|envelope| envelope.payload.type_name()).collect();
    assert_eq!(types, ["session.accepted", "job.accepted", "cancel.accepted", "job.cancelled"]);
}

/// ARCP §7.6: what is told of another session's job comes in the subscription, each in the type it has for its owner.
#[tokio::test]
async fn it_watches_a_job_of_another_session() {
    let host = TestHost::at("2026-05-13T12:00:00Z").await;
    let ((owner, _), (watcher, _)) = (alice(&host).await, alice(&host).await);
    let input = json!({ "count": 2, "start_delay_ms": 60_000 });
    let handle = within("an answer", owner.invoke("chatty", input)).await.unwrap();
    let filter = SubscriptionFilter { job_id: vec![handle.job_id.clone()], ..SubscriptionFilter::default() };
    let subscription = within("the subscription", watcher.subscribe(filter)).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        let next = host.advancing(Duration::from_secs(1), subscription.next()).await.unwrap();
        assert_eq!(next.job_id.as_ref(), Some(&handle.job_id), "{next:?}");
        told.push(next.payload.type_name());
    }
    assert_eq!(told, ["log", "log", "job.completed"]);
    assert_eq!(within("the end", handle.join()).await.unwrap(), json!({ "count": 2 }));
}

/// What is told of its own job names the invocation, and only what comes in the subscription reaches whoever reads that.
#[tokio::test]
async fn it_watches_a_job_of_its_own() {
    let host = TestHost::at("2026-05-13T12:00:00Z").await;
    let (session, _) = alice(&host).await;
    let input = json!({ "count": 2, "start_delay_ms": 60_000 });
    let handle = within("an answer", session.invoke("chatty", input)).await.unwrap();
    let filter = SubscriptionFilter { job_id: vec![handle.job_id.clone()], ..SubscriptionFilter::default() };
    let subscription = within("the subscription", session.subscribe(filter)).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        let next = host.advancing(Duration::from_secs(1), subscription.next()).await.unwrap();
        assert_eq!(next.job_id.as_ref(), Some(&handle.job_id), "{next:?}");
        told.push(next.payload.type_name());
    }
    assert_eq!(told, ["log", "log", "job.completed"]);
    assert_eq!(within("the end", handle.join()).await.unwrap(), json!({ "count": 2 }));
}
