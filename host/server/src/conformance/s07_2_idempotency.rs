//! ARCP §7.2: a submission that is repeated.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check,
    wire::{brief, is_refusal, is_refused, job_id, new_id},
};

pub(super) const CASES: &[Case] = &[
    Case::new(92, "7.2", "two submissions at once with one key are one job", check!(at_once)),
    Case::new(93, "7.2", "a repeated submission is answered with the same acceptance", check!(repeated)),
    Case::new(94, "7.2", "a key with other parameters is DUPLICATE_KEY", check!(other_parameters)),
    Case::new(95, "7.2", "the order of an object's members makes no difference", check!(another_order)),
    Case::new(96, "7.2", "a key belongs to its principal", check!(another_principal)),
    Case::new(97, "7.2", "a refused submission leaves its key free", check!(after_a_refusal)),
    Case::new(98, "7.2", "a long key is served or refused in words", check!(a_long_key)),
    Case::new(99, "7.2", "a submission may be repeated in another session", check!(another_session)),
    Case::new(100, "5", "a key may also stand in the envelope", check!(in_the_envelope)),
];

/// A submission with a key.
fn keyed(key: &str, input: Value) -> Value {
    json!({ "agent": "echo", "input": input, "idempotency_key": key })
}

/// An acceptance without what names the request, and without credentials, which may have ended with the job.
fn lasting(reply: &Value) -> Value {
    let mut payload = reply["payload"].clone();
    if let Some(payload) = payload.as_object_mut() {
        payload.retain(|key, _| !matches!(key.as_str(), "request_id" | "reply_to" | "credentials"));
    }
    payload
}

async fn at_once(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let payload = keyed(&new_id()?, json!({ "n": 1 }));
    let first = wire.send("job.submit", payload.clone()).await?;
    let second = wire.send("job.submit", payload).await?;
    let (first, second) = (wire.submitted(&first).await?, wire.submitted(&second).await?);
    ensure!(job_id(&first)? == job_id(&second)?, "they are two jobs");
    ensure!(lasting(&first) == lasting(&second), "the acceptances differ: {} and {}", brief(&first), brief(&second));
    Ok(())
}

async fn repeated(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let payload = keyed(&new_id()?, json!({ "n": 1 }));
    let first = wire.submit(payload.clone()).await?;
    wire.end(&job_id(&first)?).await?;
    let second = wire.submit(payload).await?;
    job_id(&second)?;
    ensure!(lasting(&first) == lasting(&second), "the acceptances differ: {} and {}", brief(&first), brief(&second));
    Ok(())
}

async fn other_parameters(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let key = new_id()?;
    let first = wire.submit(keyed(&key, json!({ "n": 1 }))).await?;
    let job = job_id(&first)?;
    wire.end(&job).await?;
    is_refused(&wire.submit(keyed(&key, json!({ "n": 2 }))).await?, &["DUPLICATE_KEY"])?;
    let other_agent = json!({ "agent": "chatty", "input": { "n": 1 }, "idempotency_key": key });
    is_refused(&wire.submit(other_agent).await?, &["DUPLICATE_KEY"])?;
    wire.settle().await.map(drop)
}

async fn another_order(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let key = new_id()?;
    let mut jobs = Vec::new();
    for input in [r#"{"a": 1, "b": {"c": 2, "d": 3}}"#, r#"{"b": {"d": 3, "c": 2}, "a": 1}"#] {
        let id = new_id()?;
        // Written by hand: a map of ours would have an order of its own.
        let frame = wire.frame("job.submit", &id, json!({}), json!("PAYLOAD"));
        let payload = format!(r#"{{"agent": "echo", "input": {input}, "idempotency_key": "{key}"}}"#);
        wire.send_text(frame.to_string().replace("\"PAYLOAD\"", &payload)).await?;
        jobs.push(job_id(&wire.submitted(&id).await?)?);
    }
    ensure!(jobs[0] == jobs[1], "they are two jobs");
    Ok(())
}

async fn another_principal(target: &Target) -> Result<()> {
    target.shared()?;
    target.other_token()?;
    let key = new_id()?;
    let mut wire = target.open().await?;
    let job = job_id(&wire.submit(keyed(&key, json!({ "n": 1 }))).await?)?;
    let mut other = target.open_other().await?;
    for input in [json!({ "n": 1 }), json!({ "n": 1 })] {
        let theirs = job_id(&other.submit(keyed(&key, input)).await?)?;
        ensure!(theirs != job, "another principal is given the job");
    }
    Ok(())
}

async fn after_a_refusal(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let key = new_id()?;
    let refused = wire.submit(json!({ "agent": "no-such-agent", "input": {}, "idempotency_key": key })).await?;
    ensure!(is_refusal(&refused), "an unknown agent is answered with {}", brief(&refused));
    job_id(&wire.submit(keyed(&key, json!({}))).await?).map(drop)
}

async fn a_long_key(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let reply = wire.submit(keyed(&new_id()?.repeat(10), json!({}))).await?;
    if is_refusal(&reply) {
        return is_refused(&reply, &["INVALID_REQUEST"]);
    }
    job_id(&reply).map(drop)
}

async fn another_session(target: &Target) -> Result<()> {
    target.shared()?;
    let payload = keyed(&new_id()?, json!({ "n": 1 }));
    let first = target.open().await?.submit(payload.clone()).await?;
    job_id(&first)?;
    let second = target.open().await?.submit(payload).await?;
    job_id(&second).context("in the other session")?;
    ensure!(lasting(&first) == lasting(&second), "the acceptances differ: {} and {}", brief(&first), brief(&second));
    Ok(())
}

async fn in_the_envelope(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let key = new_id()?;
    let id = wire.send_with("job.submit", json!({ "idempotency_key": key }), keyed(&key, json!({}))).await?;
    job_id(&wire.submitted(&id).await?).map(drop)
}
