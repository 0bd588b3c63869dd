//! ARCP §9, §10: leases, as far as a runtime shows them to a client.

use anyhow::{Context as _, Result, ensure};
use leasehold_core::time::Timestamp;
use serde_json::{Value, json};

use super::{
    Case, Target, check, skip,
    wire::{Wire, brief, is_refusal, is_refused, job_id},
};
use crate::clock::Clock;

const FILES: &str = "an agent that reads files";
const NETWORK: &str = "an agent that fetches URLs";
const MONEY: &str = "an agent that reports costs";
const DELEGATES: &str = "an agent that delegates";
const CREDENTIALS: &str = "a runtime that provisions credentials";

pub(super) const CASES: &[Case] = &[
    Case::needs(139, "9.3", "a path is covered as it is resolved", FILES),
    Case::needs(140, "9.2", "a star stays within its segment", FILES),
    Case::needs(141, "9.2", "a URL is covered by scheme, host and path", NETWORK),
    Case::needs(142, "9.2", "a star in a host stays in the host", NETWORK),
    Case::needs(143, "9.1", "a job without a lease may do nothing that needs one", FILES),
    Case::new(144, "9.5", "expires_at is in UTC and in the future", check!(expires_at)),
    Case::new(145, "9.5", "a job that outlives its lease is LEASE_EXPIRED, if it is ended", check!(an_expired_lease)),
    Case::needs(146, "9.6", "what is spent is counted, and what is overspent is refused", MONEY),
    Case::needs(147, "9.6", "amounts are decimal", MONEY),
    Case::needs(148, "9.6", "only a cost in a budgeted currency is counted", MONEY),
    Case::new(149, "9.6", "a budget is a list of amounts", check!(a_budget)),
    Case::needs(150, "9.7", "a model the lease does not name is refused", "an agent that uses models"),
    Case::new(151, "9.1", "a lease as the Ruby SDK words it is served", check!(a_ruby_lease)),
    Case::needs(152, "10", "a child's job shows its parent", DELEGATES),
    Case::needs(153, "9.4", "a child's lease is within its parent's", DELEGATES),
    Case::needs(154, "9.4", "a child's lease ends with its parent's", DELEGATES),
    Case::needs(155, "9.4", "a child's pattern is within its parent's", DELEGATES),
    Case::needs(156, "10", "a child ends with its parent", DELEGATES),
    Case::new(157, "9.8", "without the feature there are no credentials", check!(no_credentials)),
    Case::needs(158, "9.8.2", "a rotated credential reaches its submitter alone", CREDENTIALS),
    Case::needs(159, "9.8.2", "a credential is revoked however its job ends", CREDENTIALS),
    Case::needs(160, "14", "a credential is written nowhere", CREDENTIALS),
];

fn expiring(expires_at: &Value, sec: u64) -> Value {
    json!({ "agent": "sleeper", "input": { "sec": sec }, "lease_constraints": { "expires_at": expires_at } })
}

async fn session(target: &Target, feature: &str) -> Result<Wire> {
    let wire = target.open().await?;
    wire.needs(feature)?;
    Ok(wire)
}

/// The moment `sec` seconds from now.
fn in_sec(sec: i64) -> Timestamp {
    Timestamp::from_millis(Clock::system().now().as_millis() + sec * 1000)
}

async fn expires_at(target: &Target) -> Result<()> {
    let mut wire = session(target, "lease_expires_at").await?;
    for wrong in
        [json!("2020-01-01T00:00:00Z"), json!("2199-01-01T02:00:00+02:00"), json!("tomorrow"), json!(4_102_444_800_u64)]
    {
        let reply = wire.submit(expiring(&wrong, 0)).await.with_context(|| wrong.to_string())?;
        is_refused(&reply, &["INVALID_REQUEST"]).with_context(|| wrong.to_string())?;
    }
    let right = in_sec(3600).to_string();
    let reply = wire.submit(expiring(&right.as_str().into(), 0)).await?;
    job_id(&reply)?;
    let echoed = reply["payload"]["lease_constraints"]["expires_at"].as_str();
    let echoed = echoed.with_context(|| format!("job.accepted echoes no `expires_at`: {}", brief(&reply)))?;
    let same = echoed.parse::<Timestamp>().is_ok_and(|echoed| echoed.to_string() == right);
    ensure!(same, "{right} is echoed as {echoed}");
    Ok(())
}

async fn an_expired_lease(target: &Target) -> Result<()> {
    let mut wire = session(target, "lease_expires_at").await?;
    let soon = in_sec(1).to_string();
    let job = job_id(&wire.submit(expiring(&soon.into(), 2)).await?)?;
    let end = wire.end(&job).await?;
    // A job that asks for nothing any more may come to its own end.
    if end["payload"]["final_status"] != "success" {
        ensure!(end["payload"]["final_status"] == "error", "the job ended with {}", brief(&end));
        is_refused(&end, &["LEASE_EXPIRED"])?;
    }
    Ok(())
}

async fn a_budget(target: &Target) -> Result<()> {
    let mut wire = session(target, "cost.budget").await?;
    let with = |amount: &str| json!({ "agent": "echo", "input": {}, "lease_request": { "cost.budget": [amount] } });
    for wrong in ["USD:-1", "USD:1e3", ":5", "USD:", "USD 5"] {
        is_refused(&wire.submit(with(wrong)).await?, &["INVALID_REQUEST"]).with_context(|| wrong.to_owned())?;
    }
    let reply = wire.submit(with("USD:5.00")).await?;
    job_id(&reply)?;
    let budget = &reply["payload"]["budget"]["USD"];
    // The draft shows a number, and one SDK takes the amount as a text.
    let is_five = budget.as_f64() == Some(5.0) || matches!(budget.as_str(), Some("5.00" | "USD:5.00" | "5"));
    ensure!(is_five, "job.accepted shows a budget of {}", reply["payload"]["budget"]);
    Ok(())
}

async fn a_ruby_lease(target: &Target) -> Result<()> {
    let mut wire = target.open().await?;
    let lease = json!({ "capabilities": ["fs.read"], "cost.budget": ["USD:1.00"] });
    let reply = wire.submit(json!({ "agent": "echo", "input": {}, "lease_request": lease })).await?;
    if is_refusal(&reply) {
        return skip("the runtime does not know this SDK's form, and need not");
    }
    job_id(&reply).map(drop)
}

async fn no_credentials(target: &Target) -> Result<()> {
    let mut wire = target.open_with(target.hello_with(&["heartbeat", "cost.budget"])).await?;
    let reply = wire.submit(json!({ "agent": "echo", "input": {} })).await?;
    job_id(&reply)?;
    let none = reply["payload"]["credentials"].as_array().is_none_or(Vec::is_empty);
    ensure!(none, "credentials are given to a client that did not ask for the feature");
    Ok(())
}
