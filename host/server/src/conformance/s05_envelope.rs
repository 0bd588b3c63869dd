//! ARCP §5: the envelope.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check,
    wire::{Heard, Wire, brief, is_refusal, is_refused, job_id, new_id},
};

pub(super) const CASES: &[Case] = &[
    Case::new(6, "5", "a first frame that is not JSON opens no session", check!(no_json)),
    Case::new(7, "5", "a first frame that is no object opens no session", check!(no_object)),
    Case::new(8, "5", "a later frame that is not JSON is refused or ignored", check!(no_json_later)),
    Case::new(9, "5", "a frame without `type` is refused or ignored", check!(no_type)),
    Case::new(10, "5", "a frame without `id` is refused, ignored or served", check!(no_id)),
    Case::new(11, "5", "a hello of another version opens no session", check!(version_2)),
    Case::new(12, "5", "a hello of version `1` is refused in words or served", check!(version_1)),
    Case::new(13, "5", "unknown fields of the envelope are ignored", check!(unknown_fields)),
    Case::new(14, "5", "explicit nulls are absent fields, or refused in words", check!(nulls)),
    Case::new(15, "5", "a vendor's message ends no session", check!(a_vendor_type)),
    Case::new(16, "5", "an unknown message ends no session", check!(an_unknown_type)),
];

/// What a runtime may do with a frame it cannot use, before it knows who sent it.
const REFUSALS: &[&str] = &["INVALID_REQUEST", "UNAUTHENTICATED"];

/// Asserts that a runtime refuses or closes.
fn is_no_session(heard: &Heard) -> Result<()> {
    match heard {
        Ok(frame) => is_refused(frame, REFUSALS),
        Err(_) => Ok(()),
    }
}

/// Sends what is no frame, and a hello after it: the first is refused, or ignored and the second served.
async fn first(target: &Target, text: &str) -> Result<()> {
    let mut wire = target.connect().await?;
    wire.send_text(text.to_owned()).await?;
    wire.send("session.hello", target.hello()).await?;
    match wire.hear("an answer, or the end").await? {
        Ok(frame) if frame["type"] == "session.welcome" => Ok(()),
        heard => is_no_session(&heard),
    }
}

async fn no_json(target: &Target) -> Result<()> {
    first(target, "{").await
}

async fn no_object(target: &Target) -> Result<()> {
    first(target, "[1, 2]").await
}

/// Sends what is no frame into a session: it is ignored, or refused, and a session that ends of it ends with a refusal.
async fn later(target: &Target, text: impl FnOnce(&Wire) -> Result<Value>) -> Result<()> {
    let mut wire = target.open().await?;
    let frame = text(&wire)?;
    wire.send_text(frame.as_str().map_or_else(|| frame.to_string(), str::to_owned)).await?;
    let settled = wire.settle().await;
    let (said, end) = match settled {
        Ok(said) => (said, None),
        Err(error) => (wire.unread(), Some(error)),
    };
    let mut refusals = said.iter().filter(|frame| is_refusal(frame)).peekable();
    if let (Some(error), None) = (end, refusals.peek()) {
        return Err(error);
    }
    refusals.try_for_each(|frame| is_refused(frame, &["INVALID_REQUEST"]))
}

async fn no_json_later(target: &Target) -> Result<()> {
    later(target, |_| Ok("{".into())).await
}

async fn no_type(target: &Target) -> Result<()> {
    later(target, |_| Ok(json!({ "arcp": "1.1", "id": new_id()?, "payload": {} }))).await
}

async fn no_id(target: &Target) -> Result<()> {
    later(target, |wire| {
        let mut frame = wire.frame("job.submit", "", json!({}), json!({ "agent": "echo", "input": {} }));
        frame.as_object_mut().map(|fields| fields.remove("id"));
        Ok(frame)
    })
    .await
}

async fn version(target: &Target, version: &str) -> Result<Heard> {
    let mut wire = target.connect().await?;
    wire.send_with("session.hello", json!({ "arcp": version }), target.hello()).await?;
    wire.hear("an answer, or the end").await
}

async fn version_2(target: &Target) -> Result<()> {
    is_no_session(&version(target, "2.0").await?)
}

async fn version_1(target: &Target) -> Result<()> {
    match version(target, "1").await? {
        Ok(frame) if frame["type"] == "session.welcome" => Ok(()),
        heard => is_no_session(&heard),
    }
}

async fn unknown_fields(target: &Target) -> Result<()> {
    let mut wire = target.connect().await?;
    let more = json!({ "foo": [1], "span_id": "b7ad6b7169203331", "extensions": {} });
    wire.send_with("session.hello", more.clone(), target.hello()).await?;
    let welcome = wire.recv("session.welcome").await?;
    ensure!(welcome["type"] == "session.welcome", "a hello with unknown fields is answered with {}", brief(&welcome));
    wire.welcomed(&welcome, &[])?;
    let id = wire.send_with("job.submit", more, json!({ "agent": "echo", "input": {} })).await?;
    job_id(&wire.submitted(&id).await?).map(drop)
}

async fn nulls(target: &Target) -> Result<()> {
    let mut wire = target.connect().await?;
    let nulls = json!({ "trace_id": null, "job_id": null, "event_seq": null, "session_id": null });
    wire.send_with("session.hello", nulls, target.hello()).await?;
    match wire.hear("an answer, or the end").await? {
        Ok(frame) if frame["type"] == "session.welcome" => Ok(()),
        heard => is_no_session(&heard),
    }
}

async fn a_vendor_type(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.send("x-vendor.acme.thing", json!({ "a": 1 })).await?;
    wire.settle().await.map(drop)
}

async fn an_unknown_type(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.send("job.frobnicate", json!({ "a": 1 })).await?;
    wire.settle().await.map(drop)
}
