//! The HTTP client behind `net.fetch`: what a permitted request does, and nothing else (ARCP §9.3).
//!
//! - A URL comes out of a [`Permit`] and from nowhere else. A redirect is a
//!   new operation: it is asked for again and gets a permit of its own.
//! - A name is resolved once, every address is looked at, and one that passed
//!   is connected to. There is no second look that could find something else.
//! - A connection serves one request. Connections that are kept would have to
//!   be told apart by who may use them, and what was checked when.
//! - No proxy of the environment, no cookies, no decompression, HTTP/1.1.
//! - What an agent, a server or a resolver sizes has a bound in [`Settings`].
//!
//! Headers of [`Settings::inject`] are the operator's. An agent can neither
//! set nor see them: they override its own, they are decided anew for each
//! hop, and where an answer repeats one, asterisks stand in its place. In a
//! body this holds for the value as it was sent; a server that writes it
//! backwards has an agent know it, so inject what a server may be trusted with.

mod address;
mod body;
mod error;
mod headers;
mod network;
mod redirect;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request as HttpRequest, Response as HttpResponse, Uri,
    body::Incoming,
    client::conn::http1,
    header::{HeaderMap, HeaderValue},
};
use hyper_util::rt::TokioIo;
use leasehold_core::lease::{
    gate::{Denied, Permit},
    operation::Fetch,
    target::FetchUrl,
};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use tokio_util::task::AbortOnDropHandle;

use self::{
    address::Addresses,
    body::{Buffers, Deadline, Reading},
    headers::Injections,
    redirect::Redirect,
};
pub use self::{
    address::Range,
    body::{Body, PART_BYTES_MAX, Response},
    error::WebError,
    network::{Network, System},
};
use crate::secrets::SecretSource;

/// `[net]`: how far and how much agents may fetch.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Addresses that may be reached besides public ones. Where a cloud keeps its metadata, only an entry of its own
    /// opens that one address.
    pub allow: Vec<Range>,
    /// Addresses that may not be reached although they are public.
    pub refuse: Vec<Range>,
    /// A PEM file of authorities to trust besides the web's.
    pub roots: Option<PathBuf>,
    /// To resolve a name, connect, and agree on TLS.
    pub connect_timeout_sec: u32,
    /// A whole fetch with its redirects and its body; the most an agent may ask for.
    pub timeout_sec: u32,
    /// Between two parts of a body.
    pub idle_timeout_sec: u32,
    /// The redirects of one fetch.
    pub redirects_max: u32,
    /// The body of a request.
    pub request_bytes_max: usize,
    /// The body of an answer that is read as a whole.
    pub response_bytes_max: u64,
    /// The body of an answer that is read in parts.
    pub stream_bytes_max: u64,
    /// All names and values of one request, or of one answer, where it is at least 8192.
    pub headers_bytes_max: usize,
    /// How many headers one request or answer has; at most 8192.
    pub headers_max: usize,
    /// All bodies that are in memory as a whole.
    pub buffers_bytes_max: usize,
    /// Fetches under way, of all jobs; the next one waits.
    pub fetches_max: usize,
    /// Of them, of one job.
    pub job_fetches_max: usize,
    /// Names that are being resolved.
    pub lookups_max: usize,
    /// `[net.inject."PATTERN"]`: what is added to requests whose URL matches a `net.fetch` pattern.
    pub inject: BTreeMap<String, Inject>,
}

/// What is added to a request. Of two patterns with the same header, the longer one's counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inject {
    /// Names and values.
    pub headers: BTreeMap<String, SecretSource>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            refuse: Vec::new(),
            roots: None,
            connect_timeout_sec: 10,
            timeout_sec: 60,
            idle_timeout_sec: 30,
            redirects_max: 10,
            request_bytes_max: 16 << 20,
            response_bytes_max: 16 << 20,
            stream_bytes_max: 1 << 30,
            headers_bytes_max: 64 << 10,
            headers_max: 256,
            buffers_bytes_max: 256 << 20,
            fetches_max: 512,
            job_fetches_max: 128,
            lookups_max: 32,
            inject: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Makes relative paths relative to `base`.
    pub fn settle(&mut self, base: &Path) {
        if let Some(roots) = &mut self.roots {
            *roots = base.join(&*roots);
        }
        self.inject.values_mut().flat_map(|inject| inject.headers.values_mut()).for_each(|source| source.settle(base));
    }
}

/// Why the settings cannot be used: what is wrong, and in which of them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// A request, besides the method and the URL that its permit holds.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Names and values, as the agent says them.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body; empty: none.
    pub body: Bytes,
    /// How many redirects are followed at most; 0: one is given back like any answer.
    pub redirects: u32,
    /// How long all of it may take, if that is less than the host's own limit.
    pub timeout: Option<Duration>,
    /// The trace context to send along, as `traceparent` writes it.
    pub traceparent: Option<String>,
}

/// The client of one host, which all its jobs share.
pub struct Web {
    settings: Settings,
    network: Box<dyn Network>,
    addresses: Addresses,
    injections: Arc<Injections>,
    tls: TlsConnector,
    places: Arc<Semaphore>,
    buffers: Buffers,
}

/// The client of one job.
#[derive(Clone)]
pub struct Fetches {
    web: Arc<Web>,
    places: Arc<Semaphore>,
}

/// What a fetch holds of the host until its connection is closed.
struct Place {
    _host: OwnedSemaphorePermit,
    _job: OwnedSemaphorePermit,
    _body: OwnedSemaphorePermit,
}

/// A request on its way through its redirects.
struct Journey {
    headers: HeaderMap,
    body: Bytes,
    traceparent: Option<HeaderValue>,
    deadline: Deadline,
    place: Arc<Place>,
}

impl Web {
    /// Makes the client of this machine's network.
    ///
    /// # Errors
    ///
    /// If a file or secret that the settings name cannot be read, or a pattern or header is malformed.
    pub fn new(settings: Settings) -> Result<Arc<Self>, SettingsError> {
        let network = System::new(settings.lookups_max);
        Self::with(settings, network)
    }

    /// Makes the client of another network.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with(mut settings: Settings, network: impl Network) -> Result<Arc<Self>, SettingsError> {
        // More do not fit into the library's map, which panics.
        settings.headers_max = settings.headers_max.clamp(1, 8192);
        let semaphore = |places: usize| Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Arc::new(Self {
            network: Box::new(network),
            addresses: Addresses::new(&settings.allow, &settings.refuse),
            injections: Arc::new(Injections::read(&settings)?),
            tls: tls(settings.roots.as_deref())?,
            places: semaphore(settings.fetches_max),
            buffers: Buffers::new(settings.buffers_bytes_max),
            settings,
        }))
    }

    /// The most of an answer that is taken in one piece.
    #[must_use]
    pub fn response_bytes_max(&self) -> u64 {
        self.settings.response_bytes_max
    }

    /// The client of one job, with `job_fetches_max` places of its own.
    #[must_use]
    pub fn of_a_job(self: &Arc<Self>) -> Fetches {
        let places = self.settings.job_fetches_max.clamp(1, Semaphore::MAX_PERMITS);
        Fetches { web: Arc::clone(self), places: Arc::new(Semaphore::new(places)) }
    }

    /// Makes one request of a journey.
    async fn exchange(
        &self,
        permit: Permit<Fetch>,
        journey: &Journey,
    ) -> Result<(Fetch, HttpResponse<Incoming>, Reading, AbortOnDropHandle<()>), WebError> {
        let fetch = permit.spend();
        let url = fetch.url();
        let mut headers = journey.headers.clone();
        let body = journey.body.clone();
        // A request that could have had a body says that it has none.
        let says_length = !body.is_empty() || matches!(fetch.method(), "POST" | "PUT" | "PATCH");
        headers::complete(&mut headers, url, journey.traceparent.as_ref(), says_length.then_some(body.len()))?;
        let injected = self.injections.add(url, &mut headers);
        let request = http_request(&fetch, headers, body)?;

        let limit = Duration::from_secs(self.settings.connect_timeout_sec.max(1).into());
        let timed_out = |_| WebError::Timeout { what: "connecting", sec: limit.as_secs_f64() };
        let (answer, connection) = if url.scheme() == "https" {
            let stream = timeout(limit, self.secure(url)).await.map_err(timed_out)??;
            self.send(stream, request, url, journey).await?
        } else {
            let stream = timeout(limit, self.dial(url)).await.map_err(timed_out)??;
            self.send(stream, request, url, journey).await?
        };
        let reading = Reading {
            deadline: journey.deadline,
            idle: Duration::from_secs(self.settings.idle_timeout_sec.max(1).into()),
            inline_bytes_max: self.settings.response_bytes_max,
            stream_bytes_max: self.settings.stream_bytes_max,
            buffers: self.buffers.clone(),
            host: url.host().to_owned(),
            mask: injected.then(|| Arc::clone(&self.injections)),
        };
        Ok((fetch, answer, reading, connection))
    }

    /// Connects to an address of the URL's host that agents may reach.
    async fn dial(&self, url: &FetchUrl) -> Result<TcpStream, WebError> {
        let host = url.host();
        let port = url.as_url().port_or_known_default().unwrap_or_default();
        let found = match literal(url) {
            Some(address) => vec![address],
            None => self.network.lookup(host).await.map_err(|_| WebError::Resolve { host: host.to_owned() })?,
        };
        if found.is_empty() {
            return Err(WebError::Resolve { host: host.to_owned() });
        }
        let mut reachable = Vec::new();
        for address in found.into_iter().take(ADDRESSES_MAX) {
            match self.addresses.check(address) {
                Ok(address) => reachable.push(address),
                Err(what) => tracing::debug!(host, %address, what, "an agent may not reach this address"),
            }
        }
        let mut failure = WebError::Address { host: host.to_owned() };
        // One that takes no connections does not use up the time of those after it.
        let share = Duration::from_secs(self.settings.connect_timeout_sec.max(1).into())
            / u32::try_from(reachable.len().max(1)).unwrap_or(u32::MAX);
        for address in reachable {
            let reason = match timeout(share, self.network.connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error.kind().to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            failure = WebError::Connect { host: host.to_owned(), reason };
        }
        Err(failure)
    }

    /// Connects, and sees who is there.
    async fn secure(&self, url: &FetchUrl) -> Result<tokio_rustls::client::TlsStream<TcpStream>, WebError> {
        let error = |reason: String| WebError::Tls { host: url.host().to_owned(), reason };
        let name = match literal(url) {
            Some(address) => ServerName::from(address),
            None => ServerName::try_from(url.host().to_owned()).map_err(|problem| error(problem.to_string()))?,
        };
        let stream = self.dial(url).await?;
        self.tls.connect(name, stream).await.map_err(|problem| error(problem.to_string()))
    }

    /// Sends a request over a connection of its own, and waits for the head of the answer.
    async fn send<S>(
        &self,
        stream: S,
        request: HttpRequest<Full<Bytes>>,
        url: &FetchUrl,
        journey: &Journey,
    ) -> Result<(HttpResponse<Incoming>, AbortOnDropHandle<()>), WebError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |error: hyper::Error| self.answer_failed(&error, url);
        let mut builder = http1::Builder::new();
        // Less is no HTTP to the library.
        builder.max_buf_size(self.settings.headers_bytes_max.max(8192)).max_headers(self.settings.headers_max);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let (deadline, place) = (journey.deadline.at, Arc::clone(&journey.place));
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // An agent that does not read its answer has no place for longer than one that does.
            let _place = place;
            // What breaks is seen by whoever reads.
            let _ = timeout_at(deadline, connection).await;
        }));
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| if Instant::now() >= deadline { journey.deadline.passed() } else { failed(error) })?;
        Ok((answer, connection))
    }

    fn answer_failed(&self, error: &hyper::Error, url: &FetchUrl) -> WebError {
        let host = url.host().to_owned();
        if error.is_parse_too_large() {
            let Settings { headers_bytes_max, headers_max, .. } = self.settings;
            return WebError::HeadTooLarge {
                host,
                limit: format!("{headers_max} pieces or {headers_bytes_max} bytes"),
            };
        }
        WebError::Broken { host, reason: error.to_string() }
    }
}

impl Fetches {
    /// Makes a request, and follows redirects as far as it is asked to and `hop` permits each.
    ///
    /// It is over when its time is, also for whoever has not read the body
    /// by then. Dropping the future, or the answer, ends it at once.
    ///
    /// # Errors
    ///
    /// If no answer came about: see [`WebError`]. An answer of any status is none.
    pub async fn open<P>(
        &self,
        permit: Permit<Fetch>,
        request: Request,
        hop: impl FnMut(Fetch) -> P + Send,
    ) -> Result<Response, WebError>
    where
        P: Future<Output = Result<Permit<Fetch>, Denied>> + Send,
    {
        let limit = Duration::from_secs(self.web.settings.timeout_sec.max(1).into());
        let deadline = Deadline::after(request.timeout.map_or(limit, |timeout| timeout.min(limit)));
        match timeout_at(deadline.at, Box::pin(self.follow(permit, request, deadline, hop))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(deadline.passed()),
        }
    }

    async fn follow<P>(
        &self,
        mut permit: Permit<Fetch>,
        request: Request,
        deadline: Deadline,
        mut hop: impl FnMut(Fetch) -> P + Send,
    ) -> Result<Response, WebError>
    where
        P: Future<Output = Result<Permit<Fetch>, Denied>> + Send,
    {
        let web = &self.web;
        let redirects_max = request.redirects.min(web.settings.redirects_max);
        let mut journey = self.set_out(permit.op(), request, deadline).await?;
        let mut redirects = Vec::new();
        loop {
            let (fetch, answer, reading, connection) = web.exchange(permit, &journey).await?;
            let (head, frames) = answer.into_parts();
            let redirect = match redirects_max {
                0 => None,
                _ => Redirect::read(&fetch, head.status, &head.headers, &web.injections)?,
            };
            let Some(redirect) = redirect else {
                let body = Body::new(frames, reading, connection);
                let headers = web.injections.shown(&head.headers);
                return Ok(Response {
                    status: head.status.as_u16(),
                    url: fetch.url().clone(),
                    redirects,
                    headers,
                    body,
                });
            };
            // What comes with a redirect is nobody's to read.
            drop((frames, connection));
            if redirects.len() >= redirects_max as usize {
                return Err(WebError::Redirects { limit: redirects_max });
            }
            redirects.push(redirect.fetch.url().to_string());
            journey.turn(&redirect);
            permit = hop(redirect.fetch).await?;
        }
    }

    /// Checks what can be checked before anything is sent, and waits for a place.
    async fn set_out(&self, fetch: &Fetch, request: Request, deadline: Deadline) -> Result<Journey, WebError> {
        let settings = &self.web.settings;
        if !matches!(fetch.url().scheme(), "http" | "https") {
            return Err(WebError::Scheme { scheme: fetch.url().scheme().to_owned() });
        }
        if matches!(fetch.method(), "TRACE" | "TRACK") {
            return Err(WebError::Method { method: fetch.method().to_owned() });
        }
        let headers = headers::parse(&request.headers, settings)?;
        let traceparent = headers::trace(request.traceparent.as_deref())?;
        if request.body.len() > settings.request_bytes_max {
            return Err(WebError::BodyTooLarge { limit: settings.request_bytes_max });
        }
        let take = |places: &Arc<Semaphore>| Arc::clone(places).acquire_owned();
        // First its own, so that a job that waits for itself keeps nobody else out.
        let job = take(&self.places).await.map_err(|_| WebError::Busy)?;
        let host = take(&self.web.places).await.map_err(|_| WebError::Busy)?;
        let body = self.web.buffers.take(request.body.len())?;
        let place = Arc::new(Place { _host: host, _job: job, _body: body });
        Ok(Journey { headers, body: request.body, traceparent, deadline, place })
    }
}

impl Journey {
    /// Leaves behind what does not go to where a redirect leads.
    fn turn(&mut self, redirect: &Redirect) {
        if !redirect.keeps_body {
            self.body = Bytes::new();
            headers::drop_content(&mut self.headers);
        }
        if !redirect.same_origin {
            headers::drop_credentials(&mut self.headers);
        }
    }
}

/// The request as it goes over the wire: the path and query of the URL, and never the URL as an agent wrote it.
fn http_request(fetch: &Fetch, headers: HeaderMap, body: Bytes) -> Result<HttpRequest<Full<Bytes>>, WebError> {
    let url = fetch.url();
    let error = || WebError::Broken { host: url.host().to_owned(), reason: "its URL cannot be sent".into() };
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = HttpRequest::new(Full::new(body));
    *request.method_mut() = Method::from_bytes(fetch.method().as_bytes()).map_err(|_| error())?;
    *request.uri_mut() = Uri::try_from(format!("{}{query}", url.path())).map_err(|_| error())?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The address, if the host is one; it is in its canonical form, so there is one way to write it.
fn literal(url: &FetchUrl) -> Option<IpAddr> {
    url.host().trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Trusts the authorities of the web, and those in a file.
fn tls(roots: Option<&Path>) -> Result<TlsConnector, SettingsError> {
    let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = roots {
        let error = |what: String| SettingsError(format!("net.roots: {}: {what}", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(|problem| error(problem.to_string()))?;
        let before = store.len();
        for certificate in certificates {
            let certificate = certificate.map_err(|problem| error(problem.to_string()))?;
            store.add(certificate).map_err(|problem| error(problem.to_string()))?;
        }
        if store.len() == before {
            return Err(error("it holds no certificate (PEM)".into()));
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|problem| SettingsError(format!("net: {problem}")))?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests;
