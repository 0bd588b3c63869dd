//! One MCP server: connected, listed, watched, and connected again when it is gone.
//!
//! A task of its own keeps the connection. Calls look at the state it leaves
//! and never wait for a connection: a server that is away is an answer, with
//! the time of the next attempt. What was known of its tools stays known
//! meanwhile, so that an agent hears that a tool is away and not that there is none.

use std::{collections::BTreeMap, fmt::Display, path::PathBuf, sync::Arc, time::Duration};

use leasehold_core::{lease::target::ToolName, time::Timestamp};
use rmcp::{
    ClientHandler, RoleClient, ServiceError, ServiceExt as _,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ClientRequest,
        ContentBlock, Implementation, JsonObject, ListToolsResult, PaginatedRequestParams, RequestMetaObject,
        ServerResult,
    },
    service::{ClientInitializeError, NotificationContext, Peer, PeerRequestOptions, RequestHandle},
};
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Call, INHERITED, Offer, ToolError,
    http::{Endpoint, Unsent},
    pipes::{Pipes, TOO_LARGE},
    settings::{Names, Secrets},
};
use crate::{
    child::{self, Group},
    clock::Clock,
};

/// The first wait before a server is connected to again; each one after it is twice as long.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// After so long a connection the waits begin at the first again.
const STABLE: Duration = Duration::from_secs(60);
/// A server that says that its tools have changed is asked no more often.
const LISTS_INTERVAL: Duration = Duration::from_millis(200);
/// How long a connection has to be closed in order.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What is kept of the descriptions and schemas of one server.
const LIST_BYTES_MAX: usize = 16 << 20;
/// How long after its pipes a process that ends may end.
const GONE_GRACE: Duration = Duration::from_millis(250);
/// The smallest bound of one message, since a list of tools may be larger than any answer.
const MESSAGE_BYTES_MIN: usize = 4 << 20;

/// How a server is reached.
#[derive(Debug)]
pub(super) enum Way {
    /// By starting it.
    Child { words: Vec<String>, env: Secrets, dir: Option<PathBuf> },
    /// By its address.
    Http(Endpoint),
}

/// An MCP server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) way: Way,
    /// What the server knows and nobody else may see.
    pub(super) secrets: Secrets,
    pub(super) only: Option<Names>,
    pub(super) connect_timeout: Duration,
    pub(super) answer_bytes_max: usize,
    pub(super) concurrent_max: usize,
    pub(super) tools_max: usize,
    pub(super) clock: Clock,
    pub(super) state: watch::Sender<State>,
}

/// What is known of a server now.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Its tools, by their whole names, as they were told last.
    pub(super) offers: Arc<BTreeMap<ToolName, Arc<Offer>>>,
    pub(super) line: Line,
}

/// Whether a server can be called.
#[derive(Debug, Default)]
pub(super) enum Line {
    /// Nobody knows yet.
    #[default]
    Connecting,
    /// It can.
    Up {
        peer: Peer<RoleClient>,
        /// Cancelled by a call that finds the connection to be none any more.
        broken: CancellationToken,
    },
    /// It cannot.
    Down { why: String, again: Option<Timestamp> },
}

/// The waits between attempts to connect.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after a connection that has lasted so long.
    fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= STABLE {
            self.failures = 0;
        }
        let wait = BACKOFF_MIN.saturating_mul(2_u32.saturating_pow(self.failures)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

impl Server {
    /// Keeps the connection until it is told to stop, and ends what it has started.
    pub(super) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            let mut connected = None;
            let why = self.connect(&stop, &mut connected).await.err().unwrap_or_default();
            if stop.is_cancelled() {
                break;
            }
            let lasted = connected.map_or(Duration::ZERO, |at| self.clock.now().saturating_since(at));
            let wait = backoff.after(lasted);
            let again = self.clock.now().saturating_add(wait);
            tracing::warn!(server = self.name, why, wait_sec = wait.as_secs(), "a server of tools is away");
            self.state.send_modify(|state| state.line = Line::Down { why, again: Some(again) });
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.clock.sleep_until(again) => {}
            }
        }
        let why = "the host stops".to_owned();
        self.state.send_modify(|state| state.line = Line::Down { why, again: None });
    }

    /// Connects, and stays so until something ends it; says what.
    async fn connect(&self, stop: &CancellationToken, connected: &mut Option<Timestamp>) -> Result<(), String> {
        match &self.way {
            Way::Http(endpoint) => {
                let transport = endpoint.transport(self.message_bytes_max(), self.concurrent_max);
                self.serve(transport, std::future::pending(), stop, connected).await
            }
            Way::Child { words, env, dir } => {
                let unstarted =
                    |error| format!("`{}` was not started: {error}", words.first().map_or("", String::as_str));
                let mut command = child::command(words, &INHERITED, &env.named, dir.as_deref()).map_err(unstarted)?;
                let (mut group, streams) = Group::spawn(&mut command).map_err(unstarted)?;
                let log = tokio::spawn(child::lines(streams.stderr, {
                    let (server, secrets) = (self.name.clone(), self.secrets.clone());
                    move |line| tracing::debug!(server, line = secrets.hide_in_line(&line), "stderr")
                }));
                let transport = Pipes::new(&self.name, streams.stdin, streams.stdout, self.message_bytes_max());
                let gone = async {
                    match group.wait().await {
                        Ok(status) => format!("its process has ended ({status})"),
                        Err(error) => format!("its process cannot be watched: {error}"),
                    }
                };
                let served = self.serve(transport, gone, stop, connected).await;
                group.end().await;
                log.abort();
                served
            }
        }
    }

    /// Speaks over a transport until it ends, `gone` says that the other side has, or the host stops.
    async fn serve<T, E, A>(
        &self,
        transport: T,
        gone: impl Future<Output = String>,
        stop: &CancellationToken,
        connected: &mut Option<Timestamp>,
    ) -> Result<(), String>
    where
        T: rmcp::transport::IntoTransport<RoleClient, E, A>,
        E: std::error::Error + Send + Sync + 'static,
    {
        tokio::pin!(gone);
        let changed = Arc::new(Notify::new());
        let client = Listener(changed.clone());
        let open = async {
            let service = client.serve(transport).await.map_err(|error| self.words(unanswered(&error)))?;
            let offers = self.list(service.peer()).await?;
            Ok::<_, String>((service, offers))
        };
        let opened = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            why = &mut gone => return Err(why),
            opened = timeout(self.connect_timeout, open) => opened,
        };
        let (service, offers) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(why)) => return Err(with_the_end(why, gone).await),
            Err(_) => return Err(format!("it did not answer in {} s", self.connect_timeout.as_secs())),
        };
        *connected = Some(self.clock.now());
        tracing::info!(server = self.name, tools = offers.len(), "a server of tools is connected");
        let broken = CancellationToken::new();
        let line = Line::Up { peer: service.peer().clone(), broken: broken.clone() };
        self.state.send_modify(|state| *state = State { offers: Arc::new(offers), line });
        let peer = service.peer().clone();
        let close = service.cancellation_token();
        let waiting = service.waiting();
        tokio::pin!(waiting);
        let relist = async {
            loop {
                changed.notified().await;
                match timeout(self.connect_timeout, self.list(&peer)).await {
                    Ok(Ok(offers)) => self.state.send_modify(|state| state.offers = Arc::new(offers)),
                    Ok(Err(why)) => break why,
                    Err(_) => break "it did not tell its tools".to_owned(),
                }
                tokio::time::sleep(LISTS_INTERVAL).await;
            }
        };
        let why = tokio::select! {
            () = stop.cancelled() => String::new(),
            why = &mut gone => return Err(why),
            _ = &mut waiting => return Err(with_the_end("the connection has ended".into(), gone).await),
            () = broken.cancelled() => "a call found the connection broken".to_owned(),
            why = relist => why,
        };
        close.cancel();
        let _ = timeout(CLOSE_TIMEOUT, waiting).await;
        if why.is_empty() { Ok(()) } else { Err(why) }
    }

    /// Asks for all tools, and makes of each what an agent may know of it.
    async fn list(&self, peer: &Peer<RoleClient>) -> Result<BTreeMap<ToolName, Arc<Offer>>, String> {
        let (mut offers, mut cursor, mut seen, mut bytes) = (BTreeMap::new(), None, 0, 0);
        loop {
            let mut page = PaginatedRequestParams::default();
            page.cursor = cursor.take();
            let page: ListToolsResult = peer.list_tools(Some(page)).await.map_err(|error| self.words(error))?;
            // A page without tools is the last one, or there might be no end of them.
            let last = page.tools.is_empty();
            for tool in page.tools {
                seen += 1;
                let offer = self.offer(tool);
                bytes += offer.as_ref().map_or(0, |offer| offer.as_ref().map_or(0, Offer::bytes));
                if seen > self.tools_max || bytes > LIST_BYTES_MAX {
                    tracing::warn!(server = self.name, "a server has too many tools; the first are taken");
                    return Ok(offers);
                }
                match offer {
                    Ok(Some(offer)) => drop(offers.insert(offer.name.clone(), Arc::new(offer))),
                    Ok(None) => {}
                    Err(reason) => tracing::warn!(server = self.name, reason, "a tool is left out"),
                }
            }
            cursor = page.next_cursor;
            if last || cursor.is_none() {
                return Ok(offers);
            }
        }
    }

    fn offer(&self, tool: rmcp::model::Tool) -> Result<Option<Offer>, String> {
        if self.words(&tool.name) != tool.name {
            return Err("its name holds a secret".to_owned());
        }
        let name = ToolName::parse(&format!("{}.{}", self.name, tool.name)).map_err(|error| error.to_string())?;
        if self.only.as_ref().is_some_and(|only| !only.hold(&name)) {
            return Ok(None);
        }
        let own_name = tool.name.into_owned();
        let description = tool.description.map(|text| text.into_owned()).or(tool.title).unwrap_or_default();
        let shown = |schema| self.secrets.hide_in_value(Value::Object(Arc::unwrap_or_clone(schema)));
        let (input, output) = (shown(tool.input_schema), tool.output_schema.map(shown));
        Ok(Some(Offer::new(name, own_name, &self.words(description), input, output)))
    }

    /// Calls one of its tools. A call that was made is never made again.
    pub(super) async fn call(&self, offer: &Offer, arguments: JsonObject, call: &Call) -> Result<Value, ToolError> {
        let (peer, broken) = match &self.state.borrow().line {
            Line::Up { peer, broken } => (peer.clone(), broken.clone()),
            Line::Connecting => return Err(self.away("it is being connected", None)),
            Line::Down { why, again } => return Err(self.away(why, *again)),
        };
        let mut meta = RequestMetaObject::default();
        if let Some(parent) = &call.traceparent {
            meta.0.set_traceparent(parent.clone());
        }
        meta.0.insert(CALL_META.to_owned(), Value::String(call.call_id.clone()));
        let parameters = CallToolRequestParams::new(offer.own_name.clone()).with_arguments(arguments);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(parameters));
        let options = PeerRequestOptions::no_options().with_meta(meta);
        let handle = peer.send_cancellable_request(request, options).await;
        let mut under_way = UnderWay(Some(handle.map_err(|_| self.away("the connection has ended", None))?));
        match under_way.answer().await {
            Ok(ServerResult::CallToolResult(result)) => self.answer(result),
            Ok(_) => Err(ToolError::failed("it answered with something that is no result of a tool")),
            Err(ServiceError::McpError(error)) if error.code == TOO_LARGE => {
                Err(ToolError::too_large(self.answer_bytes_max))
            }
            Err(ServiceError::McpError(error)) => Err(ToolError::failed(&self.words(error.message))),
            Err(ServiceError::TransportSend(error)) => match Unsent::from(&error) {
                Unsent::Away => {
                    broken.cancel();
                    Err(self.away("it has forgotten the session, or cannot be reached", None))
                }
                Unsent::TooLarge => Err(ToolError::too_large(self.answer_bytes_max)),
                Unsent::Unknown => Err(self.lost(offer, error)),
            },
            Err(error) => Err(self.lost(offer, error)),
        }
    }

    fn lost(&self, offer: &Offer, error: impl Display) -> ToolError {
        ToolError::Lost { tool: offer.name.to_string(), reason: self.words(error) }
    }

    /// What the agent gets of a result: its structured content if it has one, else its text if it is nothing but
    /// text, else its blocks.
    ///
    /// A text stays a text even if it could be read as JSON, so that what an
    /// agent gets does not depend on what happens to stand in it.
    fn answer(&self, result: CallToolResult) -> Result<Value, ToolError> {
        let texts = result.content.iter().map(|block| match block {
            ContentBlock::Text(text) => Some(text.text.as_str()),
            _ => None,
        });
        let text = texts.collect::<Option<Vec<_>>>().map(|texts| texts.join("\n"));
        if result.is_error == Some(true) {
            return Err(ToolError::failed(&self.words(text.unwrap_or_else(|| "it did not say why".into()))));
        }
        match (result.structured_content, text) {
            (Some(structured), _) => Ok(structured),
            (None, Some(text)) => Ok(Value::String(text)),
            (None, None) => serde_json::to_value(result.content).map_err(|error| ToolError::failed(&error.to_string())),
        }
    }

    fn away(&self, why: &str, again: Option<Timestamp>) -> ToolError {
        ToolError::NotConnected { server: self.name.clone(), why: why.to_owned(), again }
    }

    /// What somebody said who knows our secrets.
    fn words(&self, said: impl Display) -> String {
        self.secrets.hide_in(&said.to_string())
    }

    /// An answer may be escaped, and stand in a message twice: as text and as a structure.
    fn message_bytes_max(&self) -> usize {
        self.answer_bytes_max.saturating_mul(4).max(MESSAGE_BYTES_MIN)
    }
}

/// A reason, and the end of the process behind the connection if it has ended with it.
async fn with_the_end(why: String, gone: impl Future<Output = String>) -> String {
    match timeout(GONE_GRACE, gone).await {
        Ok(gone) => format!("{why}; {gone}"),
        Err(_) => why,
    }
}

/// Where a server finds what is the same for a call and its repetition.
const CALL_META: &str = "leasehold/call";

/// Why a connection was not made, without the whole message that was expected or came.
fn unanswered(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => match error.error.source() {
            Some(source) => format!("{}: {source}", error.error),
            None => error.error.to_string(),
        },
        ClientInitializeError::ConnectionClosed(_) => "the connection was closed before it was open".into(),
        ClientInitializeError::ExpectedInitResponse(_) | ClientInitializeError::ExpectedInitResult(_) => {
            "it did not answer `initialize`".into()
        }
        error => error.to_string(),
    }
}

/// Hears what a server says by itself. It offers no roots, samples no models and asks nobody anything.
#[derive(Clone)]
struct Listener(Arc<Notify>);

impl ClientHandler for Listener {
    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.0.notify_one();
    }

    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("leasehold", env!("CARGO_PKG_VERSION")))
    }
}

/// A call that was made. The server is told if nobody waits for its answer any more.
struct UnderWay(Option<RequestHandle<RoleClient>>);

impl UnderWay {
    async fn answer(&mut self) -> Result<ServerResult, ServiceError> {
        let Some(handle) = &mut self.0 else { return Err(ServiceError::TransportClosed) };
        let answer = (&mut handle.rx).await.unwrap_or(Err(ServiceError::TransportClosed));
        self.0 = None;
        answer
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let (Some(handle), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                let _ = timeout(CLOSE_TIMEOUT, handle.cancel(Some("nobody waits for it".into()))).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_double_up_to_a_minute_and_begin_again_after_a_stable_connection() {
        let mut backoff = Backoff::default();
        let mut wait = |lasted| backoff.after(Duration::from_secs(lasted)).as_secs();
        let waits: Vec<u64> = [0, 0, 0, 59, 0, 0, 0, 0].into_iter().map(&mut wait).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!([60, 0, 7200].map(wait), [1, 2, 1]);
    }
}
