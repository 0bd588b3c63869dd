//! MCP over streamable HTTP: the client of `rmcp`, with the trace context in a header of its own.
//!
//! The address is the operator's, so it is not held against any lease. Nothing
//! is followed: a redirect would carry the operator's headers to a place the
//! operator did not name.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use reqwest::{
    Client,
    header::{HeaderName, HeaderValue},
    redirect,
};
use rmcp::{
    model::{ClientJsonRpcMessage, ErrorData, GetMeta as _, RequestId, ServerJsonRpcMessage},
    transport::{
        DynamicTransportError,
        common::client_side_sse::{BoxedSseResponse, ExponentialBackoff},
        streamable_http_client::{
            SseError, StreamableHttpClient, StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
            StreamableHttpError, StreamableHttpPostResponse,
        },
    },
};

use sse_stream::Sse;

use super::{pipes::TOO_LARGE, settings::Secrets};

/// How often a broken stream of a server is asked for again before the connection is made anew.
const STREAM_RETRIES_MAX: usize = 3;

/// Where a server of tools is, and what each request to it carries.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    client: Traced,
    url: Arc<str>,
    headers: HashMap<HeaderName, HeaderValue>,
}

impl Endpoint {
    /// Checks an address and its headers.
    pub(super) fn new(url: &str, headers: &Secrets, connect_timeout: Duration) -> Result<Self, String> {
        let parsed = reqwest::Url::parse(url).map_err(|error| format!("url: {error}"))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err("url: it begins with https:// or http:// and a host".into());
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("url: a name or password in it would be logged; use `headers`".into());
        }
        let header = |(name, secret): &(String, leasehold_core::secret::Secret)| {
            let problem = |what: &str| format!("headers.{name}: {what}");
            let key = HeaderName::try_from(name.as_str()).map_err(|_| problem("it is no name of a header"))?;
            let value = HeaderValue::try_from(secret.expose());
            let mut value = value.map_err(|_| problem("its value cannot stand in a header"))?;
            value.set_sensitive(true);
            Ok::<_, String>((key, value))
        };
        let headers = headers.named.iter().map(header).collect::<Result<_, _>>()?;
        // It fails if there is one already, which will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| format!("url: {error}"))?;
        Ok(Self { client: Traced(client), url: url.into(), headers })
    }

    /// A transport that is not connected yet.
    pub(super) fn transport(
        &self,
        message_bytes_max: usize,
        concurrent_max: usize,
    ) -> StreamableHttpClientTransport<impl StreamableHttpClient + Sync + use<>> {
        let mut config = StreamableHttpClientTransportConfig::with_uri(self.url.clone())
            .custom_headers(self.headers.clone())
            .max_concurrent_requests(concurrent_max);
        config.max_sse_event_size = message_bytes_max;
        // A server that has forgotten the session is connected to anew, as its tools may be others now.
        config.reinit_on_expired_session = false;
        let mut retry = ExponentialBackoff::default();
        retry.max_times = Some(STREAM_RETRIES_MAX);
        config.retry_config = Arc::new(retry);
        StreamableHttpClientTransport::with_client(self.client.clone(), config)
    }
}

/// What the failure of one request says of the connection.
pub(super) enum Unsent {
    /// The request did not reach the server, or no session that would have taken it: there is no connection any more.
    Away,
    /// The answer was not read to its end.
    TooLarge,
    /// Nobody knows what was done. Other requests may fare better.
    Unknown,
}

impl From<&DynamicTransportError> for Unsent {
    fn from(error: &DynamicTransportError) -> Self {
        match error.error.downcast_ref() {
            Some(StreamableHttpError::<reqwest::Error>::SessionExpired) => Self::Away,
            Some(StreamableHttpError::Client(error)) if error.is_connect() => Self::Away,
            Some(StreamableHttpError::ResponseBodyTooLarge { .. }) => Self::TooLarge,
            // The program that stands behind pipes has closed them.
            None if error.error.is::<io::Error>() => Self::Away,
            _ => Self::Unknown,
        }
    }
}

/// A client that repeats the trace context of a message in a header, where proxies and servers look for it.
#[derive(Clone, Debug)]
struct Traced(Client);

/// Answers a request whose own answer is larger than an event may be, which would else look like a lost connection.
fn too_large(error: SseError, id: Option<&RequestId>) -> Result<Sse, SseError> {
    // The error has no type that others can name.
    match &error {
        SseError::Body(inner) if id.is_some() && inner.to_string().contains("exceeded the maximum size") => {
            let answer = ServerJsonRpcMessage::error(ErrorData::new(TOO_LARGE, "too large", None), id.cloned());
            serde_json::to_string(&answer).map_or(Err(error), |data| Ok(Sse { data: Some(data), ..Sse::default() }))
        }
        _ => Err(error),
    }
}

type Headers = HashMap<HeaderName, HeaderValue>;

impl StreamableHttpClient for Traced {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<Self::Error>> {
        self.0.post_message(uri, message, session_id, auth_header, headers).await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        mut headers: Headers,
        size: usize,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<Self::Error>> {
        if let ClientJsonRpcMessage::Request(request) = &message
            && let Some(parent) = request.request.get_meta().0.get_traceparent()
            && let Ok(value) = HeaderValue::try_from(parent)
        {
            headers.insert(HeaderName::from_static("traceparent"), value);
        }
        let id = match &message {
            ClientJsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let post =
            self.0.post_message_with_max_sse_event_size(uri, message, session_id, auth_header, headers, size).await?;
        Ok(match post {
            StreamableHttpPostResponse::Sse(events, session) => {
                let events = events.map(move |event| event.or_else(|error| too_large(error, id.as_ref())));
                StreamableHttpPostResponse::Sse(events.boxed(), session)
            }
            other => other,
        })
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<(), StreamableHttpError<Self::Error>> {
        self.0.delete_session(uri, session_id, auth_header, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
    ) -> Result<BoxedSseResponse, StreamableHttpError<Self::Error>> {
        self.0.get_stream(uri, session_id, last_event_id, auth_header, headers).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        headers: Headers,
        size: usize,
    ) -> Result<BoxedSseResponse, StreamableHttpError<Self::Error>> {
        self.0.get_stream_with_max_sse_event_size(uri, session_id, last_event_id, auth_header, headers, size).await
    }
}
