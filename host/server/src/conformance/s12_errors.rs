//! ARCP §12: errors; and what is proved by the clients of the SDKs themselves.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    Case, Target, check,
    wire::{brief, is_refused, new_id},
};

const CLIENT: &str = "the clients of the SDKs: `tests/interop`";

pub(super) const CASES: &[Case] = &[
    Case::new(162, "12", "a refusal has a code of the draft and says whether to try again", check!(codes)),
    Case::new(163, "12", "details are an object", check!(details)),
    Case::needs(164, "3", "each SDK's client gets a result", CLIENT),
    Case::needs(165, "3", "each SDK's client is told of an unknown agent", CLIENT),
    Case::needs(166, "3", "each SDK's client cancels", CLIENT),
    Case::needs(167, "3", "each SDK's client lists", CLIENT),
    Case::needs(168, "3", "each SDK's client watches", CLIENT),
    Case::needs(169, "3", "each SDK's client comes back", CLIENT),
    Case::needs(170, "3", "each SDK's client reads a thousand events", CLIENT),
    Case::needs(171, "3", "two SDKs' clients see one job alike", CLIENT),
];

/// Submissions that are refused, and how.
fn refused() -> Result<Vec<(serde_json::Value, &'static str)>> {
    let key = new_id()?;
    let keyed = |input: u64| json!({ "agent": "echo", "input": input, "idempotency_key": key });
    Ok(vec![
        (json!({ "agent": "no-such-agent", "input": {} }), "AGENT_NOT_AVAILABLE"),
        (json!({ "input": {} }), "INVALID_REQUEST"),
        (keyed(1), ""),
        (keyed(2), "DUPLICATE_KEY"),
    ])
}

async fn codes(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    for (payload, code) in refused()? {
        let reply = wire.submit(payload).await?;
        if !code.is_empty() {
            // That there is a `retryable` and that it fits was seen as it came.
            is_refused(&reply, &[code])?;
        }
    }
    Ok(())
}

async fn details(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    for (payload, _) in refused()? {
        let reply = wire.submit(payload).await?;
        let details = &reply["payload"]["details"];
        ensure!(details.is_null() || details.is_object(), "details are {}", brief(&reply));
    }
    Ok(())
}
