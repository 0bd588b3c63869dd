//! `[upstreams.NAME]` and `[models.NAME]`: where models are, what they are called here, and what they cost.

use std::{collections::BTreeMap, path::Path};

use leasehold_core::lease::amount::Amount;
use serde::Deserialize;

use crate::secrets::SecretSource;

/// `[upstreams.NAME]`: a server that speaks OpenAI's chat completions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamEntry {
    /// What `/chat/completions` is added to, such as `https://api.example.com/v1`.
    pub url: String,
    /// The key, sent as a bearer token.
    #[serde(default)]
    pub key: Option<SecretSource>,
    /// More headers, each as secret as the key.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretSource>,
    /// How long one call may take, its waiting for a place and its retries included.
    #[serde(default = "Bounds::timeout_sec")]
    pub timeout_sec: u32,
    /// How long the upstream may be silent within a call.
    #[serde(default = "Bounds::silence_sec")]
    pub silence_sec: u32,
    /// Calls at once; the next one waits.
    #[serde(default = "Bounds::concurrent_max")]
    pub concurrent_max: u32,
    /// Tries after the first one, for an answer of 429, 502, 503 or 504.
    #[serde(default = "Bounds::retries_max")]
    pub retries_max: u32,
    /// How long it is waited for one retry; an upstream that asks for more gets none.
    #[serde(default = "Bounds::retry_wait_sec_max")]
    pub retry_wait_sec_max: u32,
    /// The largest request.
    #[serde(default = "Bounds::request_bytes_max")]
    pub request_bytes_max: usize,
    /// The largest answer, streamed or not.
    #[serde(default = "Bounds::answer_bytes_max")]
    pub answer_bytes_max: usize,
    /// The largest chunk of a streamed answer.
    #[serde(default = "Bounds::event_bytes_max")]
    pub event_bytes_max: usize,
    /// Fields of a request that are passed on besides those that can cost nothing more than tokens.
    #[serde(default)]
    pub passes: Vec<String>,
}

/// The defaults, which `leasehold.toml` documents.
struct Bounds;

impl Bounds {
    fn timeout_sec() -> u32 {
        600
    }
    fn silence_sec() -> u32 {
        300
    }
    fn concurrent_max() -> u32 {
        64
    }
    fn retries_max() -> u32 {
        2
    }
    fn retry_wait_sec_max() -> u32 {
        10
    }
    fn request_bytes_max() -> usize {
        4 << 20
    }
    fn answer_bytes_max() -> usize {
        16 << 20
    }
    fn event_bytes_max() -> usize {
        1 << 20
    }
    fn max_output_tokens() -> u64 {
        4096
    }
    fn bytes_per_token() -> u64 {
        1
    }
}

impl UpstreamEntry {
    /// Everything here that nobody else may read.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        self.key.iter().chain(self.headers.values())
    }

    /// Makes relative paths of its secrets relative to `base`.
    pub fn settle(&mut self, base: &Path) {
        self.key.iter_mut().chain(self.headers.values_mut()).for_each(|source| source.settle(base));
    }
}

/// `[models.NAME]`: a model under the name that leases know it by.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// The name of its upstream.
    pub upstream: String,
    /// What the upstream calls it; the same as here if it is not said.
    #[serde(default)]
    pub model: Option<String>,
    /// Other names an agent may ask for it by. A lease covers it by its own name only.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The price of a million tokens of the request.
    #[serde(default)]
    pub input_per_mtok: Option<Amount>,
    /// The price of a million tokens of the request that the upstream remembers; as the others if it is not said.
    #[serde(default)]
    pub cached_input_per_mtok: Option<Amount>,
    /// The price of a million tokens of the answer.
    #[serde(default)]
    pub output_per_mtok: Option<Amount>,
    /// Tokens of an answer: what a request asks for that names no number, and the most it may ask for.
    #[serde(default = "Bounds::max_output_tokens")]
    pub max_output_tokens: u64,
    /// How the upstream calls that limit.
    #[serde(default)]
    pub limit_field: LimitField,
    /// Tokens of a request and its answer together, if the upstream refuses more.
    #[serde(default)]
    pub context_tokens: Option<u64>,
    /// The fewest bytes of a request that make a token; 1 can never be too many.
    #[serde(default = "Bounds::bytes_per_token")]
    pub bytes_per_token: u64,
    /// The most tokens an image may cost; without it, a request with an image is refused.
    #[serde(default)]
    pub image_tokens: Option<u64>,
}

/// The field of a request that limits the tokens of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitField {
    /// What OpenAI calls it now.
    #[default]
    MaxCompletionTokens,
    /// What it was called first, and what some servers know only.
    MaxTokens,
}

impl LimitField {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxTokens => "max_tokens",
        }
    }
}
