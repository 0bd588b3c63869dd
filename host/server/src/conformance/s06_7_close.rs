//! ARCP §6.7: the end of a session.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Case, Target, check, skip};

pub(super) const CASES: &[Case] = &[
    Case::new(80, "6.7", "a session that is closed says so, and its jobs go on", check!(a_close)),
    Case::new(81, "6.7", "a session may be closed with the word of other SDKs", check!(a_bye)),
    Case::new(82, "6.7", "a client that closes and is gone harms nobody", check!(close_and_gone)),
];

async fn a_close(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let job = wire.job("chatty", json!({ "count": 1, "start_delay_ms": 200 })).await?;
    wire.send("session.close", json!({ "reason": "done" })).await?;
    wire.find("session.closed", |frame| frame["type"] == "session.closed").await?;
    if target.shared().is_ok() {
        let mut wire = target.open().await?;
        wire.needs("list_jobs")?;
        let status = wire.status_at_end(&job).await?;
        ensure!(status == "success", "the job of a closed session ended with {status}");
    }
    Ok(())
}

async fn a_bye(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    wire.send("session.bye", json!({ "reason": "done" })).await?;
    match wire.hear("session.closed").await {
        Ok(Ok(frame)) if frame["type"] == "session.closed" => Ok(()),
        _ => skip("the runtime does not answer this word, and need not"),
    }
}

async fn close_and_gone(target: &Target) -> Result<()> {
    target.shared()?;
    let mut wire = target.open().await?;
    let job = wire.job("chatty", json!({ "count": 1, "start_delay_ms": 200 })).await?;
    wire.send("session.close", json!({})).await?;
    drop(wire);
    let mut wire = target.open().await?;
    wire.needs("list_jobs")?;
    let status = wire.status_at_end(&job).await?;
    ensure!(status == "success", "the job of a session that is gone ended with {status}");
    Ok(())
}
