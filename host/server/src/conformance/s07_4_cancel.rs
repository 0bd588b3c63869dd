//! ARCP §7.3, §7.4: how jobs end, and how clients end them.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Target, check,
    s07_1_submit::is_over,
    wire::{Wire, brief, is_of_job, is_refusal, is_refused},
};

pub(super) const CASES: &[Case] = &[
    Case::new(101, "7.4", "a cancelled job is acknowledged and ends once", check!(a_cancellation)),
    Case::new(
        102,
        "7.4",
        "a cancellation may name its job in the envelope or in the payload",
        check!(where_the_job_is),
    ),
    Case::new(103, "7.4", "a cancellation without a job ends no session", check!(no_job)),
    Case::new(104, "7.4", "cancelling a job that has ended changes nothing", check!(a_finished_job)),
    Case::new(105, "7.4", "cancelling an unknown job is refused", check!(an_unknown_job)),
    Case::new(106, "7.6", "a subscriber cannot cancel", check!(a_subscriber)),
    Case::new(107, "7.4", "another principal cannot cancel", check!(another_principal)),
    Case::needs(108, "7.4", "an agent that ignores a cancellation is ended", "an agent that ignores cancellations"),
    Case::new(109, "7.3", "a cancellation that races with the end leaves one end", check!(a_race)),
    Case::needs(110, "12", "an agent that crashes is INTERNAL_ERROR", "an agent that crashes"),
    Case::needs(111, "7.4", "a cancelled job is a result to the Python SDK", "that SDK's client: `tests/interop`"),
];

/// A job that runs for a minute, and has begun.
async fn busy(wire: &mut Wire) -> Result<String> {
    let job = wire.job("chatty", json!({ "count": 600, "delay_ms": 100 })).await?;
    wire.of_job(&job).await?;
    Ok(job)
}

/// Holds the end of a job against what ARCP §7.4 says.
fn is_cancelled(end: &Value) -> Result<()> {
    ensure!(end["payload"]["final_status"] == "cancelled", "the job ended with {}", brief(end));
    ensure!(end["type"] == "job.error", "a cancelled job ends with job.error and not with {}", brief(end));
    is_refused(end, &["CANCELLED"])
}

async fn a_cancellation(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let job = busy(&mut wire).await?;
    wire.cancel(&job).await?;
    let end = wire.end(&job).await?;
    is_cancelled(&end)?;
    let rest = wire.settle().await?;
    ensure!(rest.iter().any(|frame| frame["type"] == "job.cancelled"), "there was no job.cancelled");
    ensure!(!rest.iter().any(|frame| is_of_job(frame, &job)), "the job says more after its end");
    Ok(())
}

async fn where_the_job_is(target: &Target) -> Result<()> {
    let mut taken = 0;
    for in_envelope in [true, false] {
        let mut wire = target.open().await?;
        let job = busy(&mut wire).await?;
        let (envelope, payload) = match in_envelope {
            true => (json!({ "job_id": job }), json!({ "reason": "no longer needed" })),
            false => (json!({}), json!({ "job_id": job, "reason": "no longer needed" })),
        };
        wire.send_with("job.cancel", envelope, payload).await?;
        // A runtime reads one of them, or both. A job that is not cancelled goes on.
        let mut is_taken = false;
        for _ in 0..10 {
            is_taken |= wire.of_job(&job).await?["payload"]["final_status"] == "cancelled";
            if is_taken {
                break;
            }
        }
        if is_taken {
            taken += 1;
        } else {
            wire.cancel(&job).await?;
        }
    }
    ensure!(taken > 0, "neither is understood");
    Ok(())
}

async fn no_job(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.send("job.cancel", json!({ "reason": "no longer needed" })).await?;
    for frame in wire.settle().await? {
        is_refused(&frame, &["INVALID_REQUEST", "JOB_NOT_FOUND"])?;
    }
    Ok(())
}

async fn a_finished_job(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let job = wire.job("echo", json!({})).await?;
    wire.end(&job).await?;
    wire.cancel(&job).await?;
    is_over(&mut wire, &job).await
}

async fn an_unknown_job(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let id = wire.cancel("job_01ARZ3NDEKTSV4RRFFQ69G5FAV").await?;
    let reply = wire.reply(&id, "job.cancelled").await.context("a cancellation of an unknown job")?;
    is_refused(&reply, &["JOB_NOT_FOUND", "PERMISSION_DENIED"])
}

/// Asserts that `stranger` cannot end a job of `wire`.
async fn cannot_cancel(wire: &mut Wire, stranger: &mut Wire) -> Result<()> {
    let job = wire.job("chatty", json!({ "count": 1, "start_delay_ms": 300 })).await?;
    if stranger.has("subscribe") {
        stranger.subscribe(&job, None, false).await?;
    }
    stranger.cancel(&job).await?;
    for frame in stranger.settle().await? {
        ensure!(frame["type"] != "job.cancelled", "the cancellation is acknowledged");
        if is_refusal(&frame) && !is_of_job(&frame, &job) {
            is_refused(&frame, &["PERMISSION_DENIED", "JOB_NOT_FOUND"])?;
        }
    }
    let end = wire.end(&job).await?;
    ensure!(end["payload"]["final_status"] == "success", "the job ended with {}", brief(&end));
    Ok(())
}

async fn a_subscriber(target: &Target) -> Result<()> {
    target.shared()?;
    let mut stranger = target.open().await?;
    stranger.needs("subscribe")?;
    cannot_cancel(&mut target.open().await?, &mut stranger).await
}

async fn another_principal(target: &Target) -> Result<()> {
    target.shared()?;
    let mut stranger = target.open_other().await?;
    cannot_cancel(&mut target.open().await?, &mut stranger).await
}

async fn a_race(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    for _ in 0..5 {
        let job = wire.job("echo", json!({})).await?;
        wire.cancel(&job).await?;
        let end = wire.end(&job).await?;
        let status = end["payload"]["final_status"].as_str().unwrap_or_default().to_owned();
        ensure!(matches!(status.as_str(), "success" | "cancelled"), "the job ended with {}", brief(&end));
        is_over(&mut wire, &job).await?;
        if wire.has("list_jobs") {
            let listed = wire.status_at_end(&job).await?;
            ensure!(listed == status, "the job ended with {status} and is listed with {listed}");
        }
    }
    Ok(())
}
