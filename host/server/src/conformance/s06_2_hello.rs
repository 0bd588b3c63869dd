//! ARCP §6.1, §6.2: who comes in, and what both sides can do.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check, skip,
    target::Upgrade,
    wire::{Heard, brief, is_refusal, is_refused, strings},
};

pub(super) const CASES: &[Case] = &[
    Case::new(27, "6.2", "a token opens a session, and the welcome says all of it", check!(a_welcome)),
    Case::new(28, "6.1", "a wrong token opens none", check!(a_wrong_token)),
    Case::new(29, "6.1", "no token opens none", check!(no_token)),
    Case::new(30, "6.1", "a runtime that lets everybody in needs no token", check!(anybody)),
    Case::new(31, "6.1", "an unknown scheme opens no session", check!(an_unknown_scheme)),
    Case::new(32, "6.1", "a header does not make a wrong token right", check!(a_header)),
    Case::new(33, "6.2", "a hello that names its client as the Ruby SDK does is served", check!(a_ruby_hello)),
    Case::new(34, "6.2", "a second hello leaves the session as it is", check!(two_hellos)),
    Case::new(35, "6.1", "nothing is submitted before the welcome", check!(submit_first)),
    Case::new(36, "6.1", "no ping is answered before the welcome", check!(ping_first)),
    Case::needs(37, "6.2", "whoever never says hello is shown out", "a handshake timeout that is known"),
    Case::new(38, "6.2", "what was not negotiated is not served", check!(no_features)),
    Case::new(39, "6.2", "an unknown feature is not taken up", check!(an_unknown_feature)),
    Case::new(40, "6.2", "features are a list of names without repetition", check!(a_feature_list)),
    Case::new(41, "6.4", "heartbeats have an interval, and a session does without them", check!(an_interval)),
    Case::new(42, "6.2", "an encoding nobody has is refused, or JSON is spoken", check!(encodings)),
    Case::new(43, "6.2", "the inventory lists versions and a default among them", check!(an_inventory)),
    Case::new(44, "6.2", "two sessions share neither id nor token", check!(two_sessions)),
    Case::new(45, "6.2", "a session of another protocol is not greeted as one of this", check!(a_session_open)),
];

/// Says hello, and gives what comes.
async fn greet(target: &Target, hello: Value) -> Result<Heard> {
    let mut wire = target.connect().await?;
    wire.send("session.hello", hello).await?;
    wire.hear("an answer, or the end").await
}

fn is_shown_out(heard: Heard, codes: &[&str]) -> Result<()> {
    match heard {
        Ok(frame) => is_refused(&frame, codes),
        Err(_) => Ok(()),
    }
}

async fn a_welcome(target: &Target) -> Result<()> {
    let mut wire = target.connect().await?;
    let welcome = wire.hello(target.hello()).await?;
    let payload = &welcome["payload"];
    let text = |path: &str| payload.pointer(path).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    for path in ["/runtime/name", "/runtime/version", "/resume_token"] {
        ensure!(text(path), "the welcome has no {path}");
    }
    ensure!(payload["resume_window_sec"].is_u64(), "the welcome has no `resume_window_sec`");
    ensure!(payload["capabilities"]["features"].is_array(), "the welcome has no list of features");
    ensure!(payload["capabilities"]["agents"].is_array(), "the welcome has no list of agents");
    Ok(())
}

async fn a_wrong_token(target: &Target) -> Result<()> {
    target.token()?;
    let hello = target.hello_of(Some("a-token-that-nobody-has"), &[]);
    is_shown_out(greet(target, hello).await?, &["UNAUTHENTICATED"])
}

async fn no_token(target: &Target) -> Result<()> {
    target.token()?;
    let mut hello = target.hello();
    hello.as_object_mut().map(|fields| fields.remove("auth"));
    is_shown_out(greet(target, hello).await?, &["UNAUTHENTICATED", "INVALID_REQUEST"])
}

async fn anybody(target: &Target) -> Result<()> {
    if target.token.is_some() {
        return skip("needs a runtime without tokens");
    }
    target.open().await.map(drop)
}

async fn an_unknown_scheme(target: &Target) -> Result<()> {
    target.token()?;
    let mut hello = target.hello();
    hello["auth"] = json!({ "scheme": "mtls" });
    is_shown_out(greet(target, hello).await?, &["UNAUTHENTICATED", "INVALID_REQUEST"])
}

async fn a_header(target: &Target) -> Result<()> {
    let uri = target.websocket()?;
    let bearer = format!("Bearer {}", target.token()?);
    let upgrade = target.upgrade(uri.path(), &[("authorization", &bearer)]).await?;
    let Upgrade::Open(mut wire, _) = upgrade else { return Ok(()) };
    wire.send("session.hello", target.hello_of(Some("a-token-that-nobody-has"), &[])).await?;
    is_shown_out(wire.hear("an answer, or the end").await?, &["UNAUTHENTICATED"])
}

async fn a_ruby_hello(target: &Target) -> Result<()> {
    let mut hello = target.hello();
    hello.as_object_mut().map(|fields| fields.remove("client"));
    hello["client_name"] = "ruby".into();
    hello["client_version"] = "1".into();
    match greet(target, hello).await? {
        Ok(frame) if frame["type"] == "session.welcome" => Ok(()),
        Ok(frame) if is_refusal(&frame) => skip("the runtime does not know this SDK's form, and need not"),
        Ok(frame) => bail!("it is answered with {}", brief(&frame)),
        Err(_) => skip("the runtime does not know this SDK's form, and need not"),
    }
}

async fn two_hellos(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.send("session.hello", target.hello()).await?;
    for frame in wire.settle().await? {
        ensure!(frame["type"] != "session.welcome", "the runtime welcomes twice");
        is_refused(&frame, &["INVALID_REQUEST"])?;
    }
    Ok(())
}

/// Sends something before the hello, and gives the type of whatever answers before the hello is served.
async fn before_the_hello(target: &Target, kind: &str, payload: Value, never: &str) -> Result<()> {
    let mut wire = target.connect().await?;
    wire.send(kind, payload).await?;
    wire.send("session.hello", target.hello()).await?;
    loop {
        match wire.hear("an answer, or the end").await? {
            Err(_) => return Ok(()),
            Ok(frame) => {
                ensure!(frame["type"] != never, "it is served before the welcome: {}", brief(&frame));
                if frame["type"] == "session.welcome" {
                    wire.welcomed(&frame, &["heartbeat".to_owned()])?;
                    let late = wire.settle().await?;
                    ensure!(late.iter().all(|frame| frame["type"] != never), "it is served after the welcome");
                    return Ok(());
                }
                is_refused(&frame, &["UNAUTHENTICATED", "INVALID_REQUEST"])?;
            }
        }
    }
}

async fn submit_first(target: &Target) -> Result<()> {
    before_the_hello(target, "job.submit", json!({ "agent": "echo", "input": {} }), "job.accepted").await
}

async fn ping_first(target: &Target) -> Result<()> {
    let ping = json!({ "nonce": "p_1", "sent_at": "2026-01-01T00:00:00Z" });
    before_the_hello(target, "session.ping", ping, "session.pong").await
}

async fn no_features(target: &Target) -> Result<()> {
    target.open_with(target.hello_with(&[])).await?;
    let mut wire = target.open_with(target.hello_with(&["heartbeat"])).await?;
    wire.send("session.list_jobs", json!({})).await?;
    for frame in wire.settle().await? {
        ensure!(frame["type"] != "session.jobs", "`list_jobs` is served though it was not offered");
    }
    Ok(())
}

async fn an_unknown_feature(target: &Target) -> Result<()> {
    let wire = target.open_with(target.hello_with(&["heartbeat", "x-vendor.y"])).await?;
    ensure!(!wire.has("x-vendor.y"), "the runtime claims a feature it cannot know");
    Ok(())
}

async fn a_feature_list(target: &Target) -> Result<()> {
    let wire = target.open().await?;
    let features = &wire.welcome()["capabilities"]["features"];
    let mut names = strings(features);
    ensure!(Some(names.len()) == features.as_array().map(Vec::len), "a feature is no text");
    names.sort();
    names.dedup();
    ensure!(Some(names.len()) == features.as_array().map(Vec::len), "a feature stands twice");
    Ok(())
}

async fn an_interval(target: &Target) -> Result<()> {
    let wire = target.open().await?;
    let interval = &wire.welcome()["heartbeat_interval_sec"];
    if wire.has("heartbeat") {
        ensure!(interval.as_u64().is_some_and(|sec| sec > 0), "`heartbeat_interval_sec` is {interval}");
    }
    let mut wire = target.open_with(target.hello_with(&["list_jobs"])).await?;
    wire.settle().await.map(drop)
}

async fn encodings(target: &Target) -> Result<()> {
    for encodings in [json!(["cbor"]), json!([])] {
        let mut hello = target.hello();
        hello["capabilities"]["encodings"] = encodings;
        match greet(target, hello).await? {
            // What it says is JSON, or it would not have been understood.
            Ok(frame) if frame["type"] == "session.welcome" => {}
            heard => is_shown_out(heard, &["INVALID_REQUEST"])?,
        }
    }
    Ok(())
}

async fn an_inventory(target: &Target) -> Result<()> {
    let wire = target.open().await?;
    wire.needs("agent_versions")?;
    let agents = wire.welcome()["capabilities"]["agents"].as_array().context("there is no inventory")?;
    for agent in agents {
        ensure!(agent["name"].is_string(), "an agent has no name: {agent}");
        let versions = strings(&agent["versions"]);
        ensure!(!versions.is_empty(), "{} has no versions", agent["name"]);
        if let Some(default) = agent["default"].as_str() {
            ensure!(versions.iter().any(|version| version == default), "the default of {} is none", agent["name"]);
        }
    }
    for name in ["echo", "chatty", "sleeper"] {
        ensure!(agents.iter().any(|agent| agent["name"] == name), "there is no agent `{name}`");
    }
    Ok(())
}

async fn two_sessions(target: &Target) -> Result<()> {
    let (one, two) = (target.open().await?.ticket()?, target.open().await?.ticket()?);
    ensure!(one.session_id != two.session_id, "two sessions have one id");
    ensure!(one.resume_token != two.resume_token, "two sessions have one resume token");
    Ok(())
}

async fn a_session_open(target: &Target) -> Result<()> {
    let mut wire = target.connect().await?;
    let payload = json!({
        "auth": { "scheme": "bearer", "token": target.token.as_ref().map(|token| token.expose()) },
        "client": { "kind": "conformance", "version": "1" },
        "capabilities": {},
    });
    wire.send_with("session.open", json!({ "timestamp": "2026-01-01T00:00:00Z" }), payload).await?;
    match wire.hear("an answer, or the end").await {
        Ok(Ok(frame)) if frame["type"] == "session.welcome" => bail!("`session.open` is answered with session.welcome"),
        Ok(Ok(frame)) if frame["type"] == "session.accepted" => Ok(()),
        Ok(_) => skip("the runtime does not speak the older protocol, and need not"),
        Err(_) => skip("the runtime does not answer the older protocol, and need not"),
    }
}
