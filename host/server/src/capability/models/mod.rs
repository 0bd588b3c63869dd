//! The operator's models, and the only way to them: `model.use` (ARCP §9.7).
//!
//! A model has one name by which leases know it, whatever its upstream calls
//! it. An alias is a convenience for whoever asks: [`Models::operation`]
//! replaces it before the gate is asked, so a lease that names an alias grants
//! nothing, and an alias of a model that the lease does not cover opens
//! nothing. What no model is called keeps its name, so that an agent without a
//! grant learns from the gate's answer nothing about what there is.
//!
//! The order of a call, for whoever makes one: [`operation`](Models::operation),
//! the gate's permit, [`price`](Models::price), a reservation of that much,
//! [`complete`](Models::complete) or [`stream`](Models::stream), and then the
//! reservation is settled at [`Spent::cost`], or, if there is an error, at all
//! that was reserved if it [may have cost](ModelError::may_have_cost) something
//! and at nothing otherwise. A stream that is given up settles at what was reserved.

mod error;
mod price;
mod request;
pub mod settings;
mod sse;
pub mod upstream;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use leasehold_core::{
    lease::{
        amount::Budget,
        gate::Permit,
        operation::UseModel,
        target::{ModelName, TargetError},
    },
    protocol::json::Json,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

pub use self::{
    error::ModelError,
    price::{Prices, Usage},
    request::ChatRequest,
};
use self::{
    settings::{LimitField, ModelEntry, UpstreamEntry},
    sse::Events,
    upstream::{Answer, Upstream},
};

/// All models of a host.
#[derive(Default)]
pub struct Models {
    models: BTreeMap<ModelName, Model>,
    aliases: BTreeMap<ModelName, ModelName>,
}

/// A model.
pub struct Model {
    name: ModelName,
    aliases: Vec<ModelName>,
    prices: Prices,
    context_tokens: Option<u64>,
    max_output_tokens: u64,
    upstream_name: String,
    limit_field: LimitField,
    bytes_per_token: u64,
    image_tokens: Option<u64>,
    upstream: Arc<Upstream>,
}

impl Model {
    /// The name leases know it by.
    #[must_use]
    pub fn name(&self) -> &ModelName {
        &self.name
    }

    /// The other names it may be asked for by.
    #[must_use]
    pub fn aliases(&self) -> &[ModelName] {
        &self.aliases
    }

    /// What its tokens cost.
    #[must_use]
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// The tokens of a request and its answer together, if that is known.
    #[must_use]
    pub fn context_tokens(&self) -> Option<u64> {
        self.context_tokens
    }

    /// The most tokens of an answer.
    #[must_use]
    pub fn max_output_tokens(&self) -> u64 {
        self.max_output_tokens
    }
}

/// What a call brings along besides its request.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The W3C trace of the job (ARCP §11).
    pub traceparent: Option<String>,
    /// How long the caller waits; the upstream's `timeout_sec` bounds it.
    pub timeout: Option<Duration>,
    /// What the upstream may know a repeated request by.
    pub idempotency_key: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Completed {
    /// As the upstream gave it.
    pub response: Json,
    /// What it took.
    pub spent: Spent,
}

/// What a call took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The tokens, if the upstream has told them.
    pub usage: Option<Usage>,
    /// What they cost, or what was reserved if nobody knows.
    pub cost: Budget,
}

impl Models {
    /// Takes the operator's settings, and reads the keys they point at.
    ///
    /// # Errors
    ///
    /// If one cannot be used; the text names the key.
    pub fn new(
        upstreams: &BTreeMap<String, UpstreamEntry>,
        models: &BTreeMap<String, ModelEntry>,
    ) -> Result<Self, String> {
        if upstreams.is_empty() && models.is_empty() {
            return Ok(Self::default());
        }
        let client = upstream::client()?;
        let mut made = BTreeMap::new();
        for (name, entry) in upstreams {
            made.insert(name.as_str(), Arc::new(Upstream::new(name, entry, client.clone())?));
        }
        let mut all = Self::default();
        for (name, entry) in models {
            let model =
                Model::new(name, entry, &made).map_err(|(key, what)| format!("models.\"{name}\".{key}{what}"))?;
            all.models.insert(model.name.clone(), model);
        }
        for model in all.models.values() {
            for alias in &model.aliases {
                let taken = all.models.contains_key(alias) || all.aliases.contains_key(alias);
                if taken {
                    return Err(format!("models.\"{}\".aliases: another model is called `{alias}`", model.name));
                }
                all.aliases.insert(alias.clone(), model.name.clone());
            }
        }
        Ok(all)
    }

    /// All models, by name. An agent is shown those that its lease covers.
    pub fn list(&self) -> impl Iterator<Item = &Model> {
        self.models.values()
    }

    /// The operation of using the model that is asked for, under the name that leases know it by.
    ///
    /// # Errors
    ///
    /// If the text is no model's name.
    pub fn operation(&self, asked: &str) -> Result<UseModel, TargetError> {
        let asked = ModelName::parse(asked)?;
        Ok(UseModel::from(self.aliases.get(&asked).cloned().unwrap_or(asked)))
    }

    /// The most a call can cost, in each currency that has a price.
    ///
    /// A token of the request is at least `bytes_per_token` bytes of it, and
    /// never are there more than `context_tokens`. An upstream that counts more
    /// all the same is paid in full.
    ///
    /// # Errors
    ///
    /// If there is no such model, or it would not be asked this.
    pub fn price(&self, op: &UseModel, request: &ChatRequest) -> Result<Budget, ModelError> {
        self.model(op)?.price(request)
    }

    /// Asks for an answer in one piece.
    ///
    /// # Errors
    ///
    /// If there is none, see [`ModelError::may_have_cost`].
    pub async fn complete(
        &self,
        permit: Permit<UseModel>,
        request: ChatRequest,
        context: Context,
    ) -> Result<Completed, ModelError> {
        let model = self.model(&permit.spend())?;
        let reserved = model.price(&request)?;
        let mut answer = model.ask(&request, false, &context).await?;
        let text = answer.text().await?;
        let response = Json::parse(text).map_err(|error| ModelError::broken(error.to_string()))?;
        let read: Read<'_> =
            serde_json::from_str(response.as_str()).map_err(|_| ModelError::broken("it is not a chat completion"))?;
        if read.choices.is_none() {
            let said = upstream::said(response.as_str());
            return Err(ModelError::broken(said.unwrap_or_else(|| "it has no choices".to_owned())));
        }
        let usage = read.usage.and_then(|usage| Usage::read(usage.get()));
        let spent = Spent { usage, cost: usage.map_or(reserved, |usage| model.prices.cost(usage)) };
        Ok(Completed { response, spent })
    }

    /// Asks for an answer in pieces.
    ///
    /// # Errors
    ///
    /// If none begins, see [`ModelError::may_have_cost`].
    pub async fn stream(
        &self,
        permit: Permit<UseModel>,
        request: ChatRequest,
        context: Context,
    ) -> Result<Stream, ModelError> {
        let model = self.model(&permit.spend())?;
        let reserved = model.price(&request)?;
        let answer = model.ask(&request, true, &context).await?;
        Ok(Stream {
            answer,
            events: Events::new(model.upstream.entry().event_bytes_max),
            ready: VecDeque::new(),
            shows_usage: request.shows_usage(),
            complete: false,
            ended: false,
            usage: None,
            prices: model.prices.clone(),
            reserved,
        })
    }

    fn model(&self, op: &UseModel) -> Result<&Model, ModelError> {
        self.models.get(op.model()).ok_or_else(|| ModelError::NotFound(op.model().clone()))
    }
}

impl Model {
    /// The key that is wrong, and what is wrong with it.
    fn new(
        name: &str,
        entry: &ModelEntry,
        upstreams: &BTreeMap<&str, Arc<Upstream>>,
    ) -> Result<Self, (&'static str, String)> {
        let upstream = upstreams.get(entry.upstream.as_str());
        let upstream = upstream.ok_or_else(|| ("upstream", format!(": there is no upstreams.{}", entry.upstream)))?;
        let parse = |text: &str| ModelName::parse(text).map_err(|error| format!(": {error}"));
        let aliases = entry.aliases.iter().map(|alias| parse(alias));
        let positive = [
            ("max_output_tokens", Some(entry.max_output_tokens)),
            ("bytes_per_token", Some(entry.bytes_per_token)),
            ("context_tokens", entry.context_tokens),
            ("image_tokens", entry.image_tokens),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == Some(0)) {
            return Err((key, ": it must be at least 1".to_owned()));
        }
        Ok(Self {
            name: parse(name).map_err(|error| ("", error))?,
            aliases: aliases.collect::<Result<_, _>>().map_err(|error| ("aliases", error))?,
            prices: Prices::new(entry).map_err(|error| ("", error))?,
            context_tokens: entry.context_tokens,
            max_output_tokens: entry.max_output_tokens,
            upstream_name: entry.model.clone().unwrap_or_else(|| name.to_owned()),
            limit_field: entry.limit_field,
            bytes_per_token: entry.bytes_per_token,
            image_tokens: entry.image_tokens,
            upstream: Arc::clone(upstream),
        })
    }

    /// How many tokens an answer may have.
    fn output_tokens(&self, request: &ChatRequest) -> u64 {
        request.output_tokens().unwrap_or(self.max_output_tokens).min(self.max_output_tokens)
    }

    fn price(&self, request: &ChatRequest) -> Result<Budget, ModelError> {
        let images = match (request.images(), self.image_tokens) {
            (0, _) => 0,
            (images, Some(tokens)) => images.saturating_mul(tokens),
            (_, None) => return Err(ModelError::invalid("messages", "this model takes no images")),
        };
        if let Some(field) = request.forbidden(&self.upstream.entry().passes) {
            let reason = "this host does not pass it on; its operator can allow it with `passes` of the upstream";
            return Err(ModelError::invalid(field, reason));
        }
        let bytes = (request.text_bytes() + FRAME_BYTES) as u64;
        let bound = bytes.div_ceil(self.bytes_per_token).saturating_add(images);
        let input = bound.min(self.context_tokens.unwrap_or(u64::MAX));
        Ok(self.prices.cost(Usage { input, cached: 0, output: self.output_tokens(request) }))
    }

    async fn ask(&self, request: &ChatRequest, stream: bool, context: &Context) -> Result<Answer, ModelError> {
        let body = request.write(&self.upstream_name, (self.limit_field, self.output_tokens(request)), stream);
        let bytes_max = self.upstream.entry().request_bytes_max;
        if body.len() > bytes_max {
            return Err(ModelError::RequestTooLarge { bytes_max });
        }
        self.upstream.ask(body, context).await
    }
}

/// The parts of an answer, or of a chunk of one, that mean something to the host.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// An answer in pieces.
///
/// Nothing is lost if [`next`](Self::next) is dropped while it waits.
pub struct Stream {
    answer: Answer,
    events: Events,
    /// Events that have come together.
    ready: VecDeque<String>,
    /// Whether the agent has asked for the chunk that tells the usage.
    shows_usage: bool,
    /// A choice has said why it ends, or the usage is known.
    complete: bool,
    ended: bool,
    usage: Option<Usage>,
    prices: Prices,
    reserved: Budget,
}

impl Stream {
    /// The next chunk; `None` when the answer is whole.
    ///
    /// # Errors
    ///
    /// If the rest is not to be had.
    pub async fn next(&mut self) -> Result<Option<Json>, ModelError> {
        while !self.ended {
            let Some(event) = self.ready.pop_front() else {
                match self.answer.chunk().await? {
                    Some(bytes) => self.events.feed(&bytes, |event| self.ready.push_back(event))?,
                    // There are servers that close instead of saying that they are done.
                    None if self.complete => self.ended = true,
                    None => return Err(ModelError::broken("it ended before it was done")),
                }
                continue;
            };
            if event == DONE {
                self.ended = true;
            } else if let Some(chunk) = self.take(event)? {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// When the call is over at the latest, whoever takes its chunks.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.answer.deadline()
    }

    /// What the call took. Before the end of the stream, nobody knows, and it is what was reserved.
    #[must_use]
    pub fn finish(self) -> Spent {
        let usage = self.usage.filter(|_| self.ended);
        Spent { usage, cost: usage.map_or(self.reserved, |usage| self.prices.cost(usage)) }
    }

    fn take(&mut self, event: String) -> Result<Option<Json>, ModelError> {
        let event = self.answer.without_secrets(event)?;
        let chunk = Json::parse(event).map_err(|error| ModelError::broken(error.to_string()))?;
        let read: Read<'_> = serde_json::from_str(chunk.as_str())
            .map_err(|_| ModelError::broken("it is not a chunk of a completion"))?;
        if read.error.is_some() {
            let said = upstream::said(chunk.as_str());
            return Err(ModelError::broken(said.unwrap_or_else(|| "it ended with an error".to_owned())));
        }
        let choices = read.choices.unwrap_or_default();
        if let Some(usage) = read.usage.and_then(|usage| Usage::read(usage.get())) {
            self.usage = Some(usage);
            self.complete = true;
        }
        self.complete |= choices.iter().any(|choice| ends(choice.get()));
        // The host has asked for it, and a client that has not may trip over a chunk without a choice.
        let shown = !choices.is_empty() || self.shows_usage || read.usage.is_none();
        Ok(shown.then_some(chunk))
    }
}

/// Whether a choice says why it ends.
fn ends(choice: &str) -> bool {
    #[derive(Deserialize)]
    struct Choice<'a> {
        #[serde(borrow, default)]
        finish_reason: Option<&'a RawValue>,
    }
    serde_json::from_str::<Choice<'_>>(choice).is_ok_and(|choice| choice.finish_reason.is_some())
}

/// What the host itself writes into a request.
const FRAME_BYTES: usize = 64;

const DONE: &str = "[DONE]";
