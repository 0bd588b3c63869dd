//! Keys that a command of the operator's makes.
//!
//! It is started once for each request, reads one JSON object from its
//! standard input and writes one to its standard output:
//!
//! ```json
//! {"action": "issue", "id": "cred_01J…", "job_id": "job_01J…", "principal": "alice",
//!  "model.use": ["tier-fast/*"], "cost.budget": ["USD:5.00"], "expires_at": "2026-05-13T23:42:00Z"}
//! {"value": "sk-…", "endpoint": "https://gateway.example.com/v1", "scheme": "bearer", "profile": "openai",
//!  "constraints": {"cost.budget": ["USD:5.00"]}}
//!
//! {"action": "revoke", "id": "cred_01J…"}
//! {}
//!
//! {"action": "spent", "id": "cred_01J…"}
//! {"cost.budget": ["USD:1.25"]}
//!
//! {"action": "bound", "id": "cred_01J…", "cost.budget": ["USD:2.50"]}
//! {}
//! ```
//!
//! `scheme`, `profile` and `constraints` may be left out. It exits with 0 when
//! it has done what was asked; what it revokes may not have been made. `spent`
//! is asked before a key with a budget is revoked, and `bound` when another
//! takes its place: what it may spend in all from then on. A command that knows
//! neither exits with another status, or answers `{}`; then all a key could
//! spend counts as spent, and no key with a budget is replaced. Its
//! errors go nowhere, since they might hold a key; its environment is `PATH`
//! and `HOME`. What it starts ends with it.

use std::{io, time::Duration};

use async_trait::async_trait;
use leasehold_core::{
    lease::amount::{Amount, Budget, Currency, Decimal},
    secret::Secret,
    time::Timestamp,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Constraints, Issued, JobFacts, ProvisionError, Provisioner, settings::CommandEntry};
use crate::child::{self, Unheard};

/// What a command sees of the host's own environment.
const INHERITED: [&str; 2] = ["PATH", "HOME"];

/// A command that makes keys.
pub struct Command {
    program: String,
    entry: CommandEntry,
}

impl Command {
    /// Takes the settings.
    ///
    /// # Errors
    ///
    /// The key of the setting that cannot be used, and why.
    pub fn new(entry: &CommandEntry) -> Result<Self, String> {
        if entry.timeout_sec == 0 {
            return Err("timeout_sec: it must be at least 1".to_owned());
        }
        let program = entry.command.first().ok_or("command: it names no program")?.clone();
        Ok(Self { program, entry: entry.clone() })
    }

    async fn ask(&self, request: &Value) -> Result<String, ProvisionError> {
        let limit = Duration::from_secs(self.entry.timeout_sec.into());
        // Dropped when the time is over, which ends it and all it has started.
        let answer = timeout(limit, self.run(request.to_string())).await;
        answer.unwrap_or_else(|_| Err(ProvisionError::Unreachable(format!("{}: no answer in time", self.program))))
    }

    async fn run(&self, request: String) -> Result<String, ProvisionError> {
        let unreachable = |error: io::Error| ProvisionError::Unreachable(format!("{}: {error}", self.program));
        let mut command = child::command(&self.entry.command, &INHERITED, &[], None).map_err(unreachable)?;
        let max = self.entry.answer_bytes_max;
        let exchanged = child::exchange(&mut command, request.as_bytes(), max, drop).await;
        let (written, status) = exchanged.map_err(|unheard| match unheard {
            Unheard::Unstarted(error) | Unheard::Lost(error) => unreachable(error),
            Unheard::TooLarge => ProvisionError::Broken(format!("{}: it is too large", self.program)),
        })?;
        if !status.success() {
            return Err(ProvisionError::Refused(format!("{}: {status}", self.program)));
        }
        String::from_utf8(written).map_err(|_| ProvisionError::Broken(format!("{}: it is not a text", self.program)))
    }
}

#[async_trait]
impl Provisioner for Command {
    async fn issue(&self, _: Timestamp, id: &str, facts: &JobFacts) -> Result<Issued, ProvisionError> {
        let models: Vec<&str> = facts.models.iter().map(|pattern| pattern.as_str()).collect();
        let mut request = json!({
            "action": "issue",
            "id": id,
            "job_id": facts.job_id.to_string(),
            "principal": facts.principal.to_string(),
            "model.use": models,
            "cost.budget": amounts(&facts.budget),
        });
        if let Some(expires_at) = facts.expires_at {
            request["expires_at"] = Value::String(expires_at.to_string());
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Made {
            value: Secret,
            endpoint: String,
            #[serde(default)]
            scheme: Option<String>,
            #[serde(default)]
            profile: Option<String>,
            #[serde(default)]
            constraints: Constraints,
        }
        let answer = self.ask(&request).await?;
        // The library's error might quote the key.
        let made: Made = serde_json::from_str(&answer)
            .map_err(|_| ProvisionError::Broken(format!("{}: it is no key with its endpoint", self.program)))?;
        if made.value.expose().is_empty() || made.endpoint.is_empty() {
            return Err(ProvisionError::Broken(format!("{}: the key or its endpoint is empty", self.program)));
        }
        Ok(Issued {
            scheme: made.scheme.unwrap_or_else(|| "bearer".to_owned()),
            value: made.value,
            endpoint: made.endpoint,
            profile: made.profile.filter(|profile| !profile.is_empty()),
            constraints: made.constraints,
        })
    }

    async fn revoke(&self, id: &str) -> Result<(), ProvisionError> {
        self.ask(&json!({ "action": "revoke", "id": id })).await.map(drop)
    }

    async fn spent(&self, id: &str) -> Result<Option<Budget>, ProvisionError> {
        #[derive(Deserialize)]
        struct Told {
            #[serde(rename = "cost.budget")]
            spent: Option<Vec<String>>,
        }
        let answer = self.ask(&json!({ "action": "spent", "id": id })).await?;
        let broken = || ProvisionError::Broken(format!("{}: it does not say what was spent", self.program));
        let told: Told = serde_json::from_str(&answer).map_err(|_| broken())?;
        let Some(spent) = told.spent else { return Ok(None) };
        let amount = |text: &String| Amount::parse(text).map(|amount| (amount.currency().clone(), amount.value()));
        spent.iter().map(amount).collect::<Result<Budget, _>>().map(Some).map_err(|_| broken())
    }

    async fn bound(&self, id: &str, budget: &Budget) -> Result<(), ProvisionError> {
        self.ask(&json!({ "action": "bound", "id": id, "cost.budget": amounts(budget) })).await.map(drop)
    }
}

fn amounts(budget: &Budget) -> Vec<String> {
    let amount = |(currency, value): (&Currency, &Decimal)| Amount::new(currency.clone(), *value).ok();
    budget.iter().filter_map(amount).map(|amount| amount.to_string()).collect()
}
