//! ARCP §11: traces.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check,
    wire::{Wire, brief, is_refusal, is_refused, job_id},
};

pub(super) const CASES: &[Case] = &[
    Case::new(24, "11", "a trace that is none is replaced or refused in words", check!(no_trace)),
    Case::new(25, "11", "a traceparent is a trace, or refused in words", check!(a_traceparent)),
    Case::new(26, "11", "a trace of zeros is replaced or refused in words", check!(zeros)),
    Case::new(161, "11", "a job's frames carry the trace of its submission", check!(every_frame)),
];

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Submits under a trace, and gives the answer.
async fn traced(wire: &mut Wire, trace: &str) -> Result<Value> {
    let payload = json!({ "agent": "chatty", "input": { "count": 2 } });
    let id = wire.send_with("job.submit", json!({ "trace_id": trace }), payload).await?;
    wire.submitted(&id).await
}

/// The trace of a frame, wherever it stands.
fn trace(frame: &Value) -> Option<&str> {
    frame["trace_id"].as_str().or_else(|| frame["payload"]["trace_id"].as_str())
}

async fn replaced(target: &Target, wrong: &str) -> Result<()> {
    let mut wire = target.open().await?;
    let reply = traced(&mut wire, wrong).await?;
    if is_refusal(&reply) {
        return is_refused(&reply, &["INVALID_REQUEST"]);
    }
    job_id(&reply)?;
    ensure!(trace(&reply) != Some(wrong), "it is passed on: {}", brief(&reply));
    Ok(())
}

async fn no_trace(target: &Target) -> Result<()> {
    replaced(target, "abc").await
}

async fn zeros(target: &Target) -> Result<()> {
    replaced(target, "00000000000000000000000000000000").await
}

async fn a_traceparent(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let reply = traced(&mut wire, &format!("00-{TRACE}-00f067aa0ba902b7-01")).await?;
    if is_refusal(&reply) {
        // The draft's words ask for a traceparent, and its examples show the trace in it alone.
        return is_refused(&reply, &["INVALID_REQUEST"]);
    }
    job_id(&reply)?;
    if let Some(trace) = trace(&reply) {
        ensure!(trace.contains(TRACE), "the trace is {trace}");
    }
    Ok(())
}

async fn every_frame(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let reply = traced(&mut wire, TRACE).await?;
    let job = job_id(&reply)?;
    let accepted = trace(&reply).context("job.accepted has no trace")?;
    ensure!(accepted.contains(TRACE), "the job is accepted under the trace {accepted}");
    for frame in wire.follow(&job).await? {
        // The draft asks for the field on the operation, not on each of its events.
        if let Some(trace) = frame["trace_id"].as_str() {
            ensure!(trace.contains(TRACE), "a frame of the job has the trace {trace}");
        }
    }
    Ok(())
}
