//! One server that speaks OpenAI's chat completions, and how it is asked.
//!
//! Its address is the operator's own word, so no classifier stands before it;
//! but nothing leads away from it: no redirect is followed and no proxy is
//! taken from the environment. Its key is in the headers here and nowhere else.

use std::{sync::Arc, time::Duration};

use leasehold_core::secret::Secret;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use rustls_platform_verifier::BuilderVerifierExt;
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Context,
    error::{ModelError, REASON_BYTES_MAX},
    settings::UpstreamEntry,
};
use crate::secrets::spellings;

/// Makes the client that all upstreams share.
///
/// # Errors
///
/// If TLS has no roots to trust.
pub fn client() -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| format!("TLS: {error}"))?
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .build()
        .map_err(|error| format!("HTTP: {error}"))
}

/// A configured upstream.
pub(super) struct Upstream {
    name: String,
    endpoint: Url,
    client: Client,
    /// The key and the other headers, all of them marked as not to be shown.
    headers: HeaderMap,
    /// Their values, to find them where they must not be.
    secrets: Arc<[Secret]>,
    places: Arc<Semaphore>,
    entry: UpstreamEntry,
}

impl Upstream {
    /// # Errors
    ///
    /// The key of the setting that cannot be used, and why.
    pub(super) fn new(name: &str, entry: &UpstreamEntry, client: Client) -> Result<Self, String> {
        let problem = |key: &str, what: &str| format!("upstreams.{name}.{key}: {what}");
        let endpoint = endpoint(&entry.url, "chat/completions").map_err(|what| problem("url", what))?;
        let (mut headers, mut secrets) = (HeaderMap::new(), Vec::new());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(source) = &entry.key {
            let key = source.read().map_err(|what| problem("key", &what))?;
            headers.insert(AUTHORIZATION, bearer(&key).ok_or_else(|| problem("key", "no header can hold it"))?);
            secrets.push(key);
        }
        for (header, source) in &entry.headers {
            let at = format!("headers.{header}");
            let value = source.read().map_err(|what| problem(&at, &what))?;
            let name = HeaderName::try_from(header).map_err(|_| problem(&at, "this is not the name of a header"))?;
            headers.insert(name, hidden(value.expose()).ok_or_else(|| problem(&at, "no header can hold it"))?);
            secrets.push(value);
        }
        // What is as short as `1` stands in every answer and hides nothing.
        let secrets = spellings(secrets.iter().map(Secret::expose), SECRET_BYTES_MIN);
        if let Some(field) = super::request::HOSTS_OWN.iter().find(|own| entry.passes.iter().any(|name| name == *own)) {
            return Err(problem("passes", &format!("`{field}` is written by the host")));
        }
        for (key, value) in [("timeout_sec", entry.timeout_sec), ("silence_sec", entry.silence_sec)] {
            if value == 0 {
                return Err(problem(key, "it must be at least 1"));
            }
        }
        if entry.concurrent_max == 0 {
            return Err(problem("concurrent_max", "it must be at least 1"));
        }
        let places = Arc::new(Semaphore::new(entry.concurrent_max as usize));
        let (name, entry) = (name.to_owned(), entry.clone());
        let secrets = secrets.into_iter().map(Secret::new).collect();
        Ok(Self { name, endpoint, client, headers, secrets, places, entry })
    }

    pub(super) fn entry(&self) -> &UpstreamEntry {
        &self.entry
    }

    /// Sends a request, again if it is worth it, and gives an answer that has begun well.
    pub(super) async fn ask(&self, body: String, context: &Context) -> Result<Answer, ModelError> {
        let limit = Duration::from_secs(self.entry.timeout_sec.into());
        let deadline = Instant::now() + context.timeout.unwrap_or(limit).min(limit);
        let headers = self.headers(context);
        let place = timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(mut place)) = place else { return Err(ModelError::Busy) };
        let body = bytes::Bytes::from(body);
        for tries in 0.. {
            let request = self.client.post(self.endpoint.clone()).headers(headers.clone()).body(body.clone());
            let response = match timeout_at(deadline, request.send()).await {
                Err(_) => return Err(ModelError::Timeout),
                Ok(Err(error)) => return Err(self.unsent(&error)),
                Ok(Ok(response)) => response,
            };
            let mut answer = Answer {
                response,
                deadline,
                silence: Duration::from_secs(self.entry.silence_sec.into()),
                bytes_left: self.entry.answer_bytes_max,
                bytes_max: self.entry.answer_bytes_max,
                secrets: Arc::clone(&self.secrets),
                _place: place,
            };
            let status = answer.response.status();
            if status.is_success() {
                return Ok(answer);
            }
            let retry_after = retry_after(answer.response.headers());
            let pause = retry_after.unwrap_or(FIRST_PAUSE * 2_u32.saturating_pow(tries));
            let again = is_passing(status)
                && tries < self.entry.retries_max
                && pause <= Duration::from_secs(self.entry.retry_wait_sec_max.into())
                && Instant::now() + pause < deadline;
            if !again {
                return Err(self.refusal(status, retry_after, &mut answer).await);
            }
            place = answer._place;
            sleep_until(Instant::now() + pause).await;
        }
        Err(ModelError::Busy)
    }

    fn headers(&self, context: &Context) -> HeaderMap {
        let mut headers = self.headers.clone();
        let own = [("traceparent", &context.traceparent), ("idempotency-key", &context.idempotency_key)];
        for (name, value) in own {
            // The operator's own header wins, and what no header can hold is left out.
            if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.entry(name).or_insert(value);
            }
        }
        headers
    }

    /// Why a request has no answer.
    fn unsent(&self, error: &reqwest::Error) -> ModelError {
        // The library's text names the URL, which is the operator's, and may end in a log.
        tracing::warn!(upstream = self.name, connected = !error.is_connect(), "a model's upstream gave no answer");
        if error.is_connect() { ModelError::Unreachable } else { ModelError::broken("the connection broke") }
    }

    /// Why an upstream gave no answer that began well.
    async fn refusal(&self, status: StatusCode, retry_after: Option<Duration>, answer: &mut Answer) -> ModelError {
        if status == StatusCode::TOO_MANY_REQUESTS {
            return ModelError::RateLimited { retry_after };
        }
        let words = match status {
            // Between the operator and the upstream; and some quote the key that they refuse.
            StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN => {
                tracing::error!(upstream = self.name, status = status.as_u16(), "a model's upstream refuses this host");
                "it does not serve this host; its operator has to see to that".to_owned()
            }
            status if status.is_redirection() => "it points elsewhere, and no redirect is followed".to_owned(),
            _ => {
                answer.bytes_left = answer.bytes_left.min(ERROR_BYTES_MAX);
                let text = answer.text().await.unwrap_or_default();
                said(&text).unwrap_or_else(|| "it does not say why".to_owned())
            }
        };
        ModelError::Refused { status: status.as_u16(), message: words }
    }
}

/// An answer that has begun. Its place is taken until it is dropped.
pub(super) struct Answer {
    response: Response,
    deadline: Instant,
    silence: Duration,
    bytes_left: usize,
    bytes_max: usize,
    secrets: Arc<[Secret]>,
    _place: OwnedSemaphorePermit,
}

impl Answer {
    /// When it is given up.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next bytes; nothing is lost if this is dropped while it waits.
    pub(super) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, ModelError> {
        let until = self.deadline.min(Instant::now() + self.silence);
        let chunk = match timeout_at(until, self.response.chunk()).await {
            Err(_) => return Err(ModelError::Timeout),
            Ok(Err(_)) => return Err(ModelError::broken("the connection broke")),
            Ok(Ok(chunk)) => chunk,
        };
        if let Some(chunk) = &chunk {
            let left = self.bytes_left.checked_sub(chunk.len());
            self.bytes_left = left.ok_or(ModelError::AnswerTooLarge { bytes_max: self.bytes_max })?;
        }
        Ok(chunk)
    }

    /// All of it.
    pub(super) async fn text(&mut self) -> Result<String, ModelError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(bytes).map_err(|_| ModelError::broken("it is not a text"))?;
        self.without_secrets(text)
    }

    /// Refuses a text that gives away what the upstream was sent in its headers.
    pub(super) fn without_secrets(&self, text: String) -> Result<String, ModelError> {
        match self.secrets.iter().any(|secret| text.contains(secret.expose())) {
            true => Err(ModelError::broken("it shows what only the host and it may know")),
            false => Ok(text),
        }
    }
}

/// The words of an error, cut.
pub(super) fn said(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Said {
        Object { message: String },
        Text(String),
    }
    #[derive(Deserialize)]
    struct Body {
        error: Said,
    }
    let (Said::Object { mut message } | Said::Text(mut message)) = serde_json::from_str::<Body>(text).ok()?.error;
    message.truncate(message.floor_char_boundary(REASON_BYTES_MAX));
    Some(message)
}

/// Adds a path to the address of an API.
///
/// # Errors
///
/// If it is no address of one.
pub fn endpoint(url: &str, path: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(url).map_err(|_| "it is not a URL such as https://api.example.com/v1")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it must begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a key is kept in `key`, where nothing shows it");
    }
    url.set_fragment(None);
    let mut segments = url.path_segments_mut().map_err(|()| "it is not the address of an API")?;
    segments.pop_if_empty().extend(path.split('/'));
    drop(segments);
    Ok(url)
}

/// The header of a key, if one can hold it.
pub fn bearer(key: &Secret) -> Option<HeaderValue> {
    hidden(&format!("Bearer {}", key.expose()))
}

fn hidden(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether an answer may be another one soon, with nothing done and nothing charged for.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// How long to wait; a date in its place is as good as nothing said.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u32 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Shorter than servers keep a connection, so that a request does not go into one that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(20);

const FIRST_PAUSE: Duration = Duration::from_millis(500);

const ERROR_BYTES_MAX: usize = 64 * 1024;

const SECRET_BYTES_MIN: usize = 8;
