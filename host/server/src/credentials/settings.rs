//! `[credentials.NAME]`: who makes keys for jobs, and how it is asked.

use std::path::Path;

use leasehold_core::lease::amount::Currency;
use serde::Deserialize;

use crate::secrets::SecretSource;

/// `[credentials.NAME.litellm]` or `[credentials.NAME.command]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialEntry {
    /// LiteLLM's virtual keys.
    Litellm(LitellmEntry),
    /// A command of the operator's.
    Command(CommandEntry),
}

impl CredentialEntry {
    /// Makes a relative path of its secret relative to `base`.
    pub fn settle(&mut self, base: &Path) {
        if let Self::Litellm(entry) = self {
            entry.admin_key.settle(base);
        }
    }

    /// What nobody else may read of it.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretSource> {
        match self {
            Self::Litellm(entry) => Some(&entry.admin_key),
            Self::Command(_) => None,
        }
    }
}

/// LiteLLM's key API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LitellmEntry {
    /// What `/key/generate` is added to.
    pub url: String,
    /// The key that may make keys.
    pub admin_key: SecretSource,
    /// Where the keys it makes are of use; `/v1` at the address if it is not said.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// What its budgets are counted in.
    #[serde(default = "currency")]
    pub currency: Currency,
    /// How long a key lives whose job has no earlier end.
    #[serde(default = "lifetime_sec_max")]
    pub lifetime_sec_max: u32,
    /// How long one request may take.
    #[serde(default = "timeout_sec")]
    pub timeout_sec: u32,
    /// The largest answer; a list of models is the largest there is.
    #[serde(default = "litellm_answer_bytes_max")]
    pub answer_bytes_max: usize,
}

impl LitellmEntry {
    /// What has a default.
    #[must_use]
    pub fn bounds(&self) -> (&str, u32, u32, usize) {
        (self.currency.as_str(), self.lifetime_sec_max, self.timeout_sec, self.answer_bytes_max)
    }
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandEntry {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take.
    #[serde(default = "timeout_sec")]
    pub timeout_sec: u32,
    /// How much it may write.
    #[serde(default = "command_answer_bytes_max")]
    pub answer_bytes_max: usize,
}

fn currency() -> Currency {
    Currency::parse("USD").expect("it is one")
}

fn lifetime_sec_max() -> u32 {
    86_400
}

fn timeout_sec() -> u32 {
    30
}

fn litellm_answer_bytes_max() -> usize {
    4 << 20
}

fn command_answer_bytes_max() -> usize {
    64 * 1024
}
