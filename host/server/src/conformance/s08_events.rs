//! ARCP §8: events and results.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    Case, Target, check,
    wire::{brief, is_of_job, succeeded},
};

pub(super) const CASES: &[Case] = &[
    Case::new(128, "8.1", "an event has a kind and a body, and a log a level and a message", check!(a_log)),
    Case::needs(129, "8.2", "what an agent words oddly is put right", "an agent that emits odd events"),
    Case::needs(130, "8.2", "a vendor's kind is passed on", "an agent that emits a vendor's events"),
    Case::new(131, "8.3", "two jobs share one dense numbering", check!(two_jobs)),
    Case::needs(132, "8.4", "a streamed result ends with its id and size", "an agent that streams its result"),
    Case::needs(133, "14", "a chunk over the limit is INTERNAL_ERROR", "an agent that streams its result"),
    Case::needs(134, "8.4", "chunks and an inline result do not mix", "an agent that mixes them"),
    Case::needs(135, "8.4", "nothing comes after the last chunk", "an agent that streams its result"),
    Case::needs(136, "8.4", "a result too large for a frame is cut or refused", "an agent with a large result"),
    Case::needs(137, "8.4", "a text chunk is cut between characters", "an agent that streams its result"),
    Case::needs(138, "6.2", "without the feature there are no chunks", "an agent that streams its result"),
];

async fn a_log(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let job = wire.job("chatty", json!({ "count": 3 })).await?;
    let frames = wire.follow(&job).await?;
    let mut logs = 0;
    for frame in frames.iter().filter(|frame| frame["type"] == "job.event") {
        let payload = &frame["payload"];
        ensure!(payload["kind"].is_string() && payload["body"].is_object(), "an event is {}", brief(frame));
        if payload["kind"] == "log" {
            logs += 1;
            let body = &payload["body"];
            ensure!(body["level"].is_string() && body["message"].is_string(), "a log is {}", brief(frame));
        }
    }
    ensure!(logs == 3, "`chatty` was asked for 3 logs and gave {logs}");
    succeeded(&frames[frames.len() - 1])
}

async fn two_jobs(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        jobs.push(wire.job("chatty", json!({ "count": 5, "delay_ms": 20 })).await?);
    }
    for job in &jobs {
        let frames = wire.follow(job).await?;
        let numbers: Vec<u64> = frames.iter().filter_map(|frame| frame["event_seq"].as_u64()).collect();
        ensure!(numbers.is_sorted_by(|a, b| a < b), "the numbers of a job are {numbers:?}");
        succeeded(&frames[frames.len() - 1])?;
    }
    // That they are dense over both was seen frame by frame.
    let late = wire.settle().await?;
    ensure!(!late.iter().any(|frame| jobs.iter().any(|job| is_of_job(frame, job))), "a job says more after its end");
    Ok(())
}
