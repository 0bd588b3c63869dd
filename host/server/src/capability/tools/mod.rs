//! The effect behind `tool.call`: the tools an operator has registered, and what becomes of a call.
//!
//! A tool is one of an MCP server, `server.tool`, or a command of the host. An
//! agent reaches neither: it hands over arguments, which are held against the
//! tool's JSON Schema first, and gets an answer back. Everything that comes
//! from a server is bounded (lists, schemas, answers, words), what a server or
//! command starts ends with it, and secrets that one of them was given are
//! taken out of whatever it says.

mod command;
mod http;
mod mcp;
mod pipes;
mod price;
mod schema;
mod settings;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use leasehold_core::{
    lease::{amount::Budget, gate::Permit, operation::CallTool, target::ToolName},
    protocol::json::Json,
    time::Timestamp,
};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::{
    command::HostCommand,
    http::Endpoint,
    mcp::{Line, Server, State, Way},
    schema::Schema,
    settings::{Names, Secrets},
};
pub use self::{
    price::{PerUnit, Price},
    schema::{DEPTH_MAX, SCHEMA_BYTES_MAX},
    settings::Settings,
};
use crate::clock::Clock;

/// What a server or command sees of the host's own environment.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// What an agent is told of a tool is cut there.
const DESCRIPTION_BYTES_MAX: usize = 16 << 10;

/// What a tool says of its failure is cut there.
const WORDS_BYTES_MAX: usize = 4 << 10;

/// The tools of a host.
pub struct Tools {
    sources: BTreeMap<String, Source>,
    clock: Clock,
    stop: CancellationToken,
    keepers: Mutex<JoinSet<()>>,
}

/// A tool, as an agent may know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// `server.tool`, or the name of a command.
    pub name: ToolName,
    /// What it does, in the words of whoever made it.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub input_schema: Json,
    /// The JSON Schema of its answer, if it has one.
    pub output_schema: Option<Json>,
    /// What a call costs.
    pub price: Price,
    /// Whether a call may be made again if nobody knows whether it was made.
    pub repeatable: bool,
}

/// What an effect has to know of the call besides its arguments.
#[derive(Clone, Debug)]
pub struct Call {
    /// The job that calls.
    pub job_id: String,
    /// The call, the same when it is repeated.
    pub call_id: String,
    /// The W3C trace context (ARCP §11).
    pub traceparent: Option<String>,
    /// When the answer is of no use any more, such as the lease's end.
    pub deadline: Option<Timestamp>,
    /// Cancelled when nobody waits for the answer any more.
    pub cancelled: CancellationToken,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// A structure, a text, or a list of MCP's content blocks.
    pub content: Json,
    /// What the call cost.
    pub cost: Budget,
}

/// A call that has no answer, and what it cost all the same.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// What happened.
    pub error: ToolError,
    /// Nothing if the call was not made, the price of a call if the tool said that it failed, and the most that a
    /// call can cost if nobody knows what the tool did.
    pub cost: Budget,
}

/// Why there is no answer. The message is for the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// `not-found`
    #[error("there is no tool `{0}`")]
    NotFound(String),
    /// `invalid-request`
    #[error("the arguments do not fit `{tool}` at `{pointer}`: {reason}")]
    InvalidArguments {
        /// The tool.
        tool: String,
        /// Where, as a JSON pointer; empty for the whole.
        pointer: String,
        /// What is wrong there.
        reason: String,
    },
    /// `internal-error`: nothing was done.
    #[error("`{tool}` cannot be used: {reason}")]
    Unusable {
        /// The tool.
        tool: String,
        /// Why; it is the operator who can do something about it.
        reason: String,
    },
    /// `internal-error`: nothing was done, and it may be tried again.
    #[error("the server `{server}` is not connected: {why}{}", next_attempt(*.again))]
    NotConnected {
        /// The server.
        server: String,
        /// Why not.
        why: String,
        /// When it is connected to again, if that is known.
        again: Option<Timestamp>,
    },
    /// `internal-error`: the tool says that it failed, in its own words.
    #[error("the tool failed: {0}")]
    Failed(String),
    /// `internal-error`: the connection was lost after the call was made, and nobody knows what was done.
    #[error("`{tool}` was called and did not answer, and may have done its work: {reason}")]
    Lost {
        /// The tool.
        tool: String,
        /// What was lost.
        reason: String,
    },
    /// `timeout`: it may have done its work.
    #[error("`{tool}` did not answer in {seconds} s, and may have done its work")]
    Timeout {
        /// The tool.
        tool: String,
        /// How long it had.
        seconds: u64,
    },
    /// `timeout`: nothing was done, and it may be tried again.
    #[error("`{tool}` was not called: for {seconds} s it had more calls under way than it may have at once")]
    Busy {
        /// The tool.
        tool: String,
        /// How long the call waited for its turn.
        seconds: u64,
    },
    /// `too-large`: the tool was not called with such arguments, or has done its work and answered too much.
    #[error("the {what} has more than {max} bytes")]
    TooLarge {
        /// The text of the arguments, or the answer.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// `cancelled`: it may have done its work.
    #[error("the call was cancelled, and may have been made")]
    Cancelled,
}

fn next_attempt(again: Option<Timestamp>) -> String {
    again.map(|at| format!("; the next attempt is at {at}")).unwrap_or_default()
}

impl ToolError {
    fn failed(words: &str) -> Self {
        Self::Failed(cut(words, WORDS_BYTES_MAX))
    }

    fn too_large(max: usize) -> Self {
        Self::TooLarge { what: "answer", max }
    }

    /// What is charged for a call that ended like this.
    fn cost(&self, price: &Price) -> Budget {
        match self {
            Self::NotFound(_)
            | Self::InvalidArguments { .. }
            | Self::Unusable { .. }
            | Self::NotConnected { .. }
            | Self::Busy { .. } => Budget::new(),
            Self::Failed(_) => price.failed(),
            Self::Lost { .. } | Self::Timeout { .. } | Self::TooLarge { .. } | Self::Cancelled => price.most(),
        }
    }
}

/// A tool and what is needed to call it.
#[derive(Debug)]
struct Offer {
    name: ToolName,
    /// Its name where it comes from.
    own_name: String,
    description: String,
    input_schema: Json,
    output_schema: Option<Json>,
    /// Why it cannot be called, if its schema is of no use.
    input: Result<Schema, String>,
    output: Option<Schema>,
}

impl Offer {
    fn new(name: ToolName, own_name: String, description: &str, input: Value, output: Option<Value>) -> Self {
        let compiled = Schema::compile(&input);
        if let Err(reason) = &compiled {
            tracing::warn!(%name, reason, "a tool cannot be used, because of its input schema");
        }
        let checked = output.as_ref().and_then(|schema| {
            let unusable =
                |reason| tracing::warn!(%name, reason, "answers are not checked, because of the output schema");
            Schema::compile(schema).map_err(unusable).ok()
        });
        // An agent that is shown a schema has to hold it.
        let shown = |schema: &Value| if compiled.is_ok() { Json::of(schema) } else { Json::of(&json!({})) };
        Self {
            description: cut(description, DESCRIPTION_BYTES_MAX),
            input_schema: shown(&input),
            output_schema: output.as_ref().filter(|_| checked.is_some()).map(Json::of),
            input: compiled,
            output: checked,
            name,
            own_name,
        }
    }

    /// What is kept of it, about.
    fn bytes(&self) -> usize {
        let output = self.output_schema.as_ref().map_or(0, |schema| schema.as_str().len());
        self.description.len() + self.input_schema.as_str().len() + output
    }
}

/// Where tools come from: one of `[tools.NAME]`.
struct Source {
    kind: Kind,
    timeout: Duration,
    answer_bytes_max: usize,
    arguments_bytes_max: usize,
    price: Price,
    prices: BTreeMap<String, Price>,
    repeatable: Names,
    calls: Semaphore,
}

enum Kind {
    Server(Arc<Server>),
    Command(HostCommand, Arc<Offer>),
}

impl Source {
    fn price(&self, name: &ToolName) -> &Price {
        self.prices.get(name.as_str()).unwrap_or(&self.price)
    }

    /// What it knows and nobody else may see.
    fn secrets(&self) -> &Secrets {
        match &self.kind {
            Kind::Server(server) => &server.secrets,
            Kind::Command(command, _) => &command.env,
        }
    }

    fn offers(&self) -> Vec<Arc<Offer>> {
        match &self.kind {
            Kind::Server(server) => server.state.borrow().offers.values().cloned().collect(),
            Kind::Command(_, offer) => vec![offer.clone()],
        }
    }
}

impl Tools {
    /// Reads the settings and begins to connect, which it does not wait for.
    ///
    /// # Errors
    ///
    /// If a setting is of no use; the text names its key.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn new(settings: &BTreeMap<String, Settings>, clock: Clock) -> Result<Self, String> {
        let (stop, mut keepers) = (CancellationToken::new(), JoinSet::new());
        let source = |(name, settings): (&String, &Settings)| {
            let source = source(name, settings, &clock).map_err(|error| format!("tools.{name}: {error}"))?;
            Ok::<_, String>((name.clone(), source))
        };
        let sources: BTreeMap<String, Source> = settings.iter().map(source).collect::<Result<_, _>>()?;
        for name in sources.keys() {
            let server = name.split_once('.').map(|(server, _)| server);
            if server.is_some_and(|server| sources.contains_key(server)) {
                return Err(format!("tools.{name}: it could be a tool of another entry; take a name without a point"));
            }
        }
        for source in sources.values() {
            if let Kind::Server(server) = &source.kind {
                keepers.spawn(server.clone().keep(stop.clone()));
            }
        }
        Ok(Self { sources, clock, stop, keepers: Mutex::new(keepers) })
    }

    /// Returns once each server was connected, or an attempt to connect to it has failed.
    pub async fn settled(&self) {
        for source in self.sources.values() {
            if let Kind::Server(server) = &source.kind {
                let mut state = server.state.subscribe();
                // It fails if the host has stopped, and then there is nothing to wait for.
                let _ = state.wait_for(|state| !matches!(state.line, Line::Connecting)).await;
            }
        }
    }

    /// All tools that are known now, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<Tool> {
        let tools = self.sources.values().flat_map(|source| {
            source.offers().into_iter().map(|offer| Tool {
                name: offer.name.clone(),
                description: offer.description.clone(),
                input_schema: offer.input_schema.clone(),
                output_schema: offer.output_schema.clone(),
                price: source.price(&offer.name).clone(),
                repeatable: source.repeatable.hold(&offer.name),
            })
        });
        let mut tools: Vec<Tool> = tools.collect();
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools
    }

    /// Whether a call could be made, and what it would cost: [`Price::most`] is what has to be reserved for it.
    ///
    /// # Errors
    ///
    /// If there is no such tool, it cannot be used, or the arguments do not fit.
    pub fn check(&self, op: &CallTool, arguments: &Json) -> Result<Price, ToolError> {
        let (source, offer) = self.find(op.tool())?;
        parse(source, &offer, arguments)?;
        Ok(source.price(&offer.name).clone())
    }

    /// Whether a call of this tool may be made again if nobody knows whether it was made.
    #[must_use]
    pub fn repeatable(&self, op: &CallTool) -> bool {
        self.source(op.tool()).is_some_and(|source| source.repeatable.hold(op.tool()))
    }

    /// Calls a tool. Whoever drops this cancels the call.
    ///
    /// # Errors
    ///
    /// If there is no answer, with what the call cost all the same.
    pub async fn call(&self, permit: Permit<CallTool>, arguments: &Json, call: &Call) -> Result<Answer, Failure> {
        let op = permit.spend();
        let free = |error| Failure { error, cost: Budget::new() };
        let (source, offer) = self.find(op.tool()).map_err(free)?;
        // Looked at before anything is waited for, and kept as it came: a value takes many times the memory of its text.
        parse(source, &offer, arguments).map_err(free)?;
        let price = source.price(&offer.name);
        let content = self.answer(source, &offer, arguments, call).await;
        let content = content
            .map_err(|(made, error)| Failure { cost: if made { error.cost(price) } else { Budget::new() }, error })?;
        Ok(Answer { content: Json::of(&content), cost: price.settle(&content) })
    }

    /// Waits for a place and then for the answer; an error says whether the call was made.
    async fn answer(
        &self,
        source: &Source,
        offer: &Offer,
        arguments: &Json,
        call: &Call,
    ) -> Result<Value, (bool, ToolError)> {
        let tool = offer.name.to_string();
        let too_late = |seconds| ToolError::Timeout { tool: tool.clone(), seconds };
        let mut made = false;
        let began = self.clock.now();
        let answer = async {
            // The semaphore is never closed.
            let _place = source.calls.acquire().await;
            let arguments = parse(source, offer, arguments)?;
            made = true;
            match &source.kind {
                Kind::Command(command, _) => command.call(&arguments, call, source.answer_bytes_max).await,
                Kind::Server(server) => match arguments {
                    Value::Object(arguments) => server.call(offer, arguments, call).await,
                    _ => Err(not_an_object(offer)),
                },
            }
        };
        let outcome = tokio::select! {
            // What comes too late is not begun.
            biased;
            () = call.cancelled.cancelled() => Err(ToolError::Cancelled),
            () = until(&self.clock, call.deadline) => {
                Err(too_late(call.deadline.map_or(0, |at| at.saturating_since(began).as_secs())))
            }
            answer = timeout(source.timeout, answer) => match answer {
                Ok(answer) => answer.and_then(|answer| fitting(source, offer, answer)),
                Err(_) => Err(too_late(source.timeout.as_secs())),
            },
        };
        outcome.map_err(|error| match error {
            ToolError::Timeout { tool, seconds } if !made => (made, ToolError::Busy { tool, seconds }),
            error => (made, error),
        })
    }

    /// Ends the servers and everything they have started.
    pub async fn stop(&self) {
        self.stop.cancel();
        let mut keepers = std::mem::take(&mut *self.keepers.lock().unwrap_or_else(PoisonError::into_inner));
        while keepers.join_next().await.is_some() {}
    }

    fn source(&self, name: &ToolName) -> Option<&Source> {
        let server = name.as_str().split_once('.').map(|(server, _)| server);
        self.sources.get(name.as_str()).or_else(|| self.sources.get(server?))
    }

    fn find(&self, name: &ToolName) -> Result<(&Source, Arc<Offer>), ToolError> {
        let unknown = || ToolError::NotFound(name.to_string());
        let source = self.source(name).ok_or_else(unknown)?;
        let offer = match &source.kind {
            Kind::Command(_, offer) => Some(offer.clone()).filter(|offer| offer.name == *name),
            Kind::Server(server) => {
                let state = server.state.borrow();
                let away = |why: &str, again| {
                    Err(ToolError::NotConnected { server: server.name.clone(), why: why.to_owned(), again })
                };
                match (state.offers.get(name), &state.line) {
                    (Some(offer), _) => Some(offer.clone()),
                    (None, Line::Up { .. }) => None,
                    (None, Line::Connecting) => return away("it is being connected", None),
                    (None, Line::Down { why, again }) => return away(why, *again),
                }
            }
        };
        Ok((source, offer.ok_or_else(unknown)?))
    }
}

/// Makes one of `[tools.NAME]` what it is.
fn source(name: &str, settings: &Settings, clock: &Clock) -> Result<Source, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let named = |name: &str| !name.is_empty() && name.bytes().all(fits);
    let kind = match (&settings.command, &settings.url, &settings.run) {
        (Some(_), None, None) | (None, Some(_), None) if !named(name) => {
            return Err("the name of a server is letters, digits, `-` and `_`".into());
        }
        (Some(words), None, None) => {
            let secrets = Secrets::read("env", &settings.env, &settings.shown_env)?;
            let way = Way::Child { words: said("command", words)?, env: secrets.clone(), dir: settings.dir.clone() };
            Kind::Server(Arc::new(server(name, settings, way, secrets, clock)?))
        }
        (None, Some(url), None) => {
            let secrets = Secrets::read("headers", &settings.headers, &[])?;
            let endpoint = Endpoint::new(url, &secrets, seconds(settings.connect_timeout_sec))?;
            Kind::Server(Arc::new(server(name, settings, Way::Http(endpoint), secrets, clock)?))
        }
        (None, None, Some(_)) if !name.split('.').all(named) => {
            return Err("the name of a tool is letters, digits, `-` and `_`, with points between".into());
        }
        (None, None, Some(words)) => {
            let env = Secrets::read("env", &settings.env, &settings.shown_env)?;
            let tool = ToolName::parse(name).map_err(|error| error.to_string())?;
            let input = Settings::schema("input_schema", settings.input_schema.as_ref())?;
            let input = input.unwrap_or_else(|| json!({ "type": "object" }));
            let output = Settings::schema("output_schema", settings.output_schema.as_ref())?;
            Schema::compile(&input).map_err(|error| format!("input_schema: {error}"))?;
            output.as_ref().map(Schema::compile).transpose().map_err(|error| format!("output_schema: {error}"))?;
            let offer = Offer::new(tool, name.to_owned(), &settings.description, input, output);
            let words = said("run", words)?;
            Kind::Command(HostCommand { name: name.to_owned(), words, env, dir: settings.dir.clone() }, offer.into())
        }
        _ => return Err("it has exactly one of `command`, `url` and `run`".into()),
    };
    settings.price.verify().map_err(|error| format!("price: {error}"))?;
    for (tool, price) in &settings.prices {
        let ours =
            matches!(&kind, Kind::Command(..)) && tool == name || tool.split_once('.').is_some_and(|(s, _)| s == name);
        if !ours {
            return Err(format!("prices.\"{tool}\": a price is for a tool of this entry, by its whole name"));
        }
        price.verify().map_err(|error| format!("prices.\"{tool}\": {error}"))?;
    }
    Ok(Source {
        kind,
        timeout: seconds(settings.timeout_sec),
        answer_bytes_max: settings.answer_bytes_max,
        arguments_bytes_max: settings.arguments_bytes_max,
        price: settings.price.clone(),
        prices: settings.prices.clone(),
        repeatable: Names::parse("repeatable", &settings.repeatable)?,
        calls: Semaphore::new(settings.concurrent_max.clamp(1, Semaphore::MAX_PERMITS)),
    })
}

fn server(name: &str, settings: &Settings, way: Way, secrets: Secrets, clock: &Clock) -> Result<Server, String> {
    Ok(Server {
        name: name.to_owned(),
        way,
        secrets,
        only: settings.only.as_ref().map(|only| Names::parse("only", only)).transpose()?,
        connect_timeout: seconds(settings.connect_timeout_sec),
        answer_bytes_max: settings.answer_bytes_max,
        concurrent_max: settings.concurrent_max,
        tools_max: settings.tools_max,
        clock: clock.clone(),
        state: watch::Sender::new(State::default()),
    })
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.max(1).into())
}

/// A program and its arguments.
fn said(key: &str, words: &[String]) -> Result<Vec<String>, String> {
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words.to_vec()),
        _ => Err(format!("{key}: it is a list of a program and its arguments")),
    }
}

/// Returns when `at` has come, if it ever does.
async fn until(clock: &Clock, at: Option<Timestamp>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Reads arguments and holds them against the tool's schema.
///
/// What is sent on is what was checked, and not the text: of two members with
/// one name, another reader might take the other.
fn parse(source: &Source, offer: &Offer, arguments: &Json) -> Result<Value, ToolError> {
    let schema = offer.input.as_ref();
    let unusable = |reason: &String| ToolError::Unusable { tool: offer.name.to_string(), reason: reason.clone() };
    let schema = schema.map_err(|reason| unusable(&format!("its input schema is of no use: {reason}")))?;
    let max = source.arguments_bytes_max;
    if arguments.as_str().len() > max {
        return Err(ToolError::TooLarge { what: "text of the arguments", max });
    }
    let invalid = |pointer, reason| ToolError::InvalidArguments { tool: offer.name.to_string(), pointer, reason };
    let value = serde_json::from_str(arguments.as_str()).map_err(|error| invalid(String::new(), error.to_string()))?;
    schema.check(&value).map_err(|mismatch| invalid(mismatch.pointer, mismatch.reason))?;
    if matches!(source.kind, Kind::Server(_)) && !value.is_object() {
        return Err(not_an_object(offer));
    }
    Ok(value)
}

fn not_an_object(offer: &Offer) -> ToolError {
    let reason = "it is not an object".to_owned();
    ToolError::InvalidArguments { tool: offer.name.to_string(), pointer: String::new(), reason }
}

/// Holds an answer against its bound and the tool's own schema, and takes the secrets of the tool out of it.
fn fitting(source: &Source, offer: &Offer, answer: Value) -> Result<Value, ToolError> {
    let text = answer.to_string();
    if text.len() > source.answer_bytes_max {
        return Err(ToolError::too_large(source.answer_bytes_max));
    }
    Json::parse(text).map_err(|error| ToolError::failed(&format!("its answer: {error}")))?;
    if let Some(Err(mismatch)) = offer.output.as_ref().map(|schema| schema.check(&answer)) {
        let reason =
            format!("its answer does not fit its output schema at `{}`: {}", mismatch.pointer, mismatch.reason);
        return Err(ToolError::failed(&source.secrets().hide_in(&reason)));
    }
    Ok(source.secrets().hide_in_value(answer))
}

/// Cuts a text at a bound, with a mark.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
