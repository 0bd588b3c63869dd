//! ARCP §7.1: asking for a job.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check,
    wire::{Wire, brief, is_refusal, is_refused, job_id, new_id, result, succeeded},
};

pub(super) const CASES: &[Case] = &[
    Case::new(83, "7.1", "a submission is accepted, and its job ends with a result", check!(an_acceptance)),
    Case::new(84, "7.1", "pipelined submissions are answered one by one", check!(pipelined)),
    Case::new(85, "7.1", "a submission without an agent is refused", check!(no_agent)),
    Case::new(
        86,
        "12",
        "an agent that is none is refused, and one that is unknown is not available",
        check!(no_such_agent),
    ),
    Case::new(87, "7.1", "a payload that is no object is refused or ignored", check!(no_object)),
    Case::new(88, "9.2", "a lease is lists of texts", check!(a_bad_lease)),
    Case::new(89, "9.2", "a namespace of one's own is accepted or refused in words", check!(an_unknown_namespace)),
    Case::new(90, "7.1", "the input may be anything, and may be absent", check!(any_input)),
    Case::new(91, "7.3", "a job that runs longer than it may is timed out", check!(a_timeout)),
];

async fn an_acceptance(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let input = json!({ "n": 1, "text": "ö", "list": [null, true, 1.5] });
    let reply = wire.submit(json!({ "agent": "echo", "input": input })).await?;
    let job = job_id(&reply)?;
    ensure!(reply["payload"]["lease"].is_object(), "job.accepted has no `lease`: {}", brief(&reply));
    ensure!(reply["payload"]["accepted_at"].is_string(), "job.accepted has no `accepted_at`: {}", brief(&reply));
    let end = wire.end(&job).await?;
    succeeded(&end)?;
    if end["payload"]["result_id"].is_null() {
        ensure!(*result(&end) == input, "`echo` answers with {}", brief(&end));
    }
    Ok(())
}

async fn pipelined(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let ids = [new_id()?, new_id()?, new_id()?];
    for (id, agent) in ids.iter().zip(["echo", "no-such-agent", "echo"]) {
        let frame = wire.frame("job.submit", id, json!({}), json!({ "agent": agent, "input": {} }));
        wire.send_text(frame.to_string()).await?;
    }
    let mut outcomes = Vec::new();
    for id in &ids {
        outcomes.push(wire.submitted(id).await?);
    }
    let accepted: Vec<bool> = outcomes.iter().map(|reply| reply["type"] == "job.accepted").collect();
    // Some runtimes answer as they decide, and name the request.
    ensure!(accepted.iter().filter(|yes| **yes).count() == 2, "accepted were {accepted:?}, and not two of three");
    Ok(())
}

/// Submits each payload, and asserts its refusal with one of the codes.
async fn refused(target: &Target, payloads: Vec<Value>, codes: &[&str]) -> Result<()> {
    let mut wire = target.open().await?;
    for payload in payloads {
        let reply = wire.submit(payload.clone()).await.with_context(|| payload.to_string())?;
        is_refused(&reply, codes).with_context(|| payload.to_string())?;
    }
    wire.settle().await.map(drop)
}

async fn no_agent(target: &Target) -> Result<()> {
    let payloads =
        vec![json!({ "input": {} }), json!({ "agent": "", "input": {} }), json!({ "agent": 7, "input": {} })];
    refused(target, payloads, &["INVALID_REQUEST", "AGENT_NOT_AVAILABLE"]).await
}

async fn no_such_agent(target: &Target) -> Result<()> {
    refused(target, vec![json!({ "agent": "Bad Name!", "input": {} })], &["INVALID_REQUEST", "AGENT_NOT_AVAILABLE"])
        .await?;
    refused(target, vec![json!({ "agent": "no-such-agent", "input": {} })], &["AGENT_NOT_AVAILABLE"]).await
}

async fn no_object(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.send("job.submit", json!("echo")).await?;
    for frame in wire.settle().await? {
        is_refused(&frame, &["INVALID_REQUEST"])?;
    }
    Ok(())
}

async fn a_bad_lease(target: &Target) -> Result<()> {
    let with = |lease: Value| json!({ "agent": "echo", "input": {}, "lease_request": lease });
    let payloads =
        vec![with(json!({ "fs.read": { "a": 1 } })), with(json!({ "fs.read": [1] })), with(json!("fs.read"))];
    refused(target, payloads, &["INVALID_REQUEST"]).await
}

async fn an_unknown_namespace(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    for namespace in ["fs.exec", "x-vendor.acme.db"] {
        let reply = wire.submit(json!({ "agent": "echo", "input": {}, "lease_request": { namespace: ["a"] } })).await?;
        if is_refusal(&reply) {
            is_refused(&reply, &["INVALID_REQUEST", "PERMISSION_DENIED", "LEASE_SUBSET_VIOLATION"])?;
        } else {
            job_id(&reply)?;
        }
    }
    wire.settle().await.map(drop)
}

async fn any_input(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    for payload in [
        json!({ "agent": "echo", "input": null }),
        json!({ "agent": "echo", "input": [] }),
        json!({ "agent": "echo", "input": "text" }),
        json!({ "agent": "echo" }),
    ] {
        let reply = wire.submit(payload.clone()).await?;
        let job = job_id(&reply).with_context(|| payload.to_string())?;
        succeeded(&wire.end(&job).await?).with_context(|| payload.to_string())?;
    }
    Ok(())
}

async fn a_timeout(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let payload = json!({ "agent": "sleeper", "input": { "sec": 60 }, "max_runtime_sec": 1 });
    let job = job_id(&wire.submit(payload).await?)?;
    let end = wire.end(&job).await.context("the job may run for one second")?;
    ensure!(end["payload"]["final_status"] == "timed_out", "the job ended with {}", brief(&end));
    if is_refusal(&end) {
        is_refused(&end, &["TIMEOUT"])?;
    }
    is_over(&mut wire, &job).await
}

/// Asserts that nothing comes of a job after its end (ARCP §7.3).
pub(super) async fn is_over(wire: &mut Wire, job: &str) -> Result<()> {
    let more = wire.settle().await?;
    let more = more.iter().find(|frame| super::wire::is_of_job(frame, job));
    ensure!(more.is_none(), "after its end the job says {}", more.map(brief).unwrap_or_default());
    Ok(())
}
