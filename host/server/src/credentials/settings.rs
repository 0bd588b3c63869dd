//! `[credentials.NAME]`: who makes keys for jobs, and how it is asked.

use std::path::Path;

use leasehold_core::lease::amount::Currency;
use serde::Deserialize;

use crate::secrets::SecretSource;

/// `[credentials.NAME]`
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct CredentialEntry {
    /// How much of each of a job's budgets its key may spend, in percent; its agent begins with the rest.
    pub budget_percent: u32,
    /// How long the host waits at most before it tries a revocation again that has failed.
    pub revoke_retry_sec_max: u32,
    /// How long a key of a job is its key before the next one takes its place; to the job's end if it is not said.
    pub rotate_after_sec: Option<u32>,
    /// How long the one before it is still worth something once its client can read of the new one.
    pub rotate_grace_sec: u32,
    /// How long it takes until whoever makes the keys tells all that one has spent; by default 30 seconds for LiteLLM,
    /// which writes it down every few seconds, and no time for a command.
    pub spend_settles_sec: u32,
    /// Who makes the keys.
    pub kind: Kind,
}

/// Who makes keys.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The host's own endpoint.
    Gateway(GatewayEntry),
    /// LiteLLM's virtual keys.
    Litellm(LitellmEntry),
    /// A command of the operator's.
    Command(CommandEntry),
}

/// The same as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "budget_percent")]
    budget_percent: u32,
    #[serde(default = "revoke_retry_sec_max")]
    revoke_retry_sec_max: u32,
    rotate_after_sec: Option<u32>,
    #[serde(default = "rotate_grace_sec")]
    rotate_grace_sec: u32,
    spend_settles_sec: Option<u32>,
    gateway: Option<GatewayEntry>,
    litellm: Option<LitellmEntry>,
    command: Option<CommandEntry>,
}

impl TryFrom<Written> for CredentialEntry {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { budget_percent, revoke_retry_sec_max, rotate_after_sec, rotate_grace_sec, .. } = written;
        let Written { spend_settles_sec, gateway, litellm, command, .. } = written;
        let settles = if litellm.is_some() { LITELLM_SETTLES_SEC } else { 0 };
        let spend_settles_sec = spend_settles_sec.unwrap_or(settles);
        let kind = match (gateway, litellm, command) {
            (Some(gateway), None, None) => Kind::Gateway(gateway),
            (None, Some(litellm), None) => Kind::Litellm(litellm),
            (None, None, Some(command)) => Kind::Command(command),
            _ => return Err("it needs one of `gateway`, `litellm` and `command`".to_owned()),
        };
        if !(1..100).contains(&budget_percent) {
            return Err("`budget_percent` is 1 to 99, as an agent without money can do nothing".to_owned());
        }
        if !(1..=ROTATE_SEC_MAX).contains(&rotate_grace_sec) {
            return Err(format!("`rotate_grace_sec` is {rotate_grace_sec}, and must be 1 to {ROTATE_SEC_MAX}"));
        }
        if spend_settles_sec > SETTLES_SEC_MAX {
            return Err(format!("`spend_settles_sec` is {spend_settles_sec}, and must be 0 to {SETTLES_SEC_MAX}"));
        }
        if let Some(after) = rotate_after_sec.filter(|after| !(ROTATE_SEC_MIN..=ROTATE_SEC_MAX).contains(after)) {
            return Err(format!(
                "`rotate_after_sec` is {after}, and must be {ROTATE_SEC_MIN} to {ROTATE_SEC_MAX}; leave it out to keep a \
                 key as long as its job runs"
            ));
        }
        if let Some(after) = rotate_after_sec.filter(|after| *after <= rotate_grace_sec) {
            return Err(format!(
                "`rotate_after_sec` is {after}, and must be more than `rotate_grace_sec`, {rotate_grace_sec}, as a \
                 credential has two keys at once and no more"
            ));
        }
        Ok(Self { budget_percent, revoke_retry_sec_max, rotate_after_sec, rotate_grace_sec, spend_settles_sec, kind })
    }
}

impl CredentialEntry {
    /// Makes a relative path of its secret relative to `base`.
    pub fn settle(&mut self, base: &Path) {
        if let Kind::Litellm(entry) = &mut self.kind {
            entry.admin_key.settle(base);
        }
    }

    /// What nobody else may read of it.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretSource> {
        match &self.kind {
            Kind::Litellm(entry) => Some(&entry.admin_key),
            Kind::Gateway(_) | Kind::Command(_) => None,
        }
    }
}

/// The host's own endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayEntry {
    /// Where clients reach it; the listener's own address if that is on loopback.
    pub endpoint: Option<String>,
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

fn budget_percent() -> u32 {
    50
}

fn revoke_retry_sec_max() -> u32 {
    600
}

/// How long LiteLLM may take to write down what a key has spent: three of its intervals.
const LITELLM_SETTLES_SEC: u32 = 30;

/// The longest that one may take.
const SETTLES_SEC_MAX: u32 = 3600;

fn rotate_grace_sec() -> u32 {
    60
}

/// A rotation is a few requests and records, and no client can take up keys any faster.
const ROTATE_SEC_MIN: u32 = 10;

/// 30 days.
const ROTATE_SEC_MAX: u32 = 2_592_000;

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
