//! The interface `net`: HTTP requests under `net.fetch` (ARCP §9.2).

use std::time::Duration;

use bytes::Bytes;
use leasehold_core::{
    lease::{amount::Budget, gate::Permit, operation::Fetch},
    protocol::json::Json,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};
use wasmtime::component::Resource;

use super::{
    Asked, Failure, JobCtx, Reported, Told,
    bindings::{
        net::{self, Request, Response},
        types::{self, Error},
    },
    calls::{Done, Line, PendingCall, Repeat, Start, Work},
    invalid, told_of, truncate,
    web::{self, Body, WebError},
};

const OPERATION: &str = "net.fetch";

/// The most of a URL that is shown; a longer one is refused anyway.
const SHOWN_URL_BYTES_MAX: usize = 8 << 10;

/// How long a part of a body is waited for once something of it is there.
const GATHERING: Duration = Duration::from_millis(20);

/// The most names of headers that are shown.
const SHOWN_HEADERS_MAX: usize = 64;

impl net::Host for JobCtx {
    async fn fetch(&mut self, request: Request) -> Result<Response, Error> {
        let pending = self.open(request, false).await?;
        self.finish_call(pending, OPERATION).await
    }

    async fn start(&mut self, request: Request) -> Result<Resource<PendingCall>, Error> {
        self.open(request, false).await
    }

    async fn finish(&mut self, call: Resource<PendingCall>) -> Result<Response, Error> {
        self.finish_call(call, OPERATION).await
    }

    async fn start_stream(&mut self, request: Request) -> Result<Resource<PendingCall>, Error> {
        self.open(request, true).await
    }

    async fn head(&mut self, call: Resource<PendingCall>) -> Result<Response, Error> {
        if self.begin_parts(&call, OPERATION)? {
            return Err(invalid("the beginning of this response has been taken"));
        }
        match self.next_part(&call, OPERATION).await? {
            Some(head) => match Response::read_back(&head) {
                Ok(head) => Ok(head),
                Err(error) => self.tape.unreadable(format!("the head of a response: {error:#}")).await,
            },
            None => Err(Error { code: types::ErrorCode::InternalError, message: "there is no response".to_owned() }),
        }
    }

    async fn next(&mut self, call: Resource<PendingCall>) -> Result<Option<Vec<u8>>, Error> {
        if !self.begin_parts(&call, OPERATION)? {
            self.next_part(&call, OPERATION).await?;
        }
        Ok(self.next_part(&call, OPERATION).await?.map(Vec::from))
    }
}

impl JobCtx {
    async fn open(&mut self, request: Request, streams: bool) -> Result<Resource<PendingCall>, Error> {
        let asked = Asked { operation: OPERATION, args: Json::of(&shown(&request)) };
        let op = Fetch::parse(&request.method, &request.url);
        // RFC 9110 §9.2.1: what changes nothing. `PUT` and `DELETE` may be sent twice, but not hours later, when somebody
        // else may have written in between.
        let repeat = match op.as_ref().map(Fetch::method) {
            Ok("GET" | "HEAD" | "OPTIONS") => Repeat::Yes,
            _ => Repeat::No,
        };
        let bytes = request.body.len();
        let (fetches, max) = (self.fetches.clone(), self.world.services.web.response_bytes_max());
        let work = move |permit: Permit<Fetch>, line: Line| -> Work {
            let request = web::Request {
                headers: request.headers,
                body: Bytes::from(request.body),
                redirects: request.redirects,
                timeout: request.timeout_ms.map(Duration::from_millis),
                traceparent: Some(line.traceparent()),
            };
            Box::pin(async move {
                let hop = |fetch| line.redirect(fetch);
                let mut response = fetches.open(permit, request, hop).await?;
                let mut told = Response {
                    status: response.status,
                    url: response.url.to_string(),
                    headers: std::mem::take(&mut response.headers),
                    body: Vec::new(),
                };
                let mut size = 0;
                if streams {
                    let mut wanted = line.part(told.answer()).await?;
                    while wanted && let Some(part) = gather(&mut response.body).await? {
                        size += part.len();
                        wanted = line.part(Told::Bytes(part)).await?;
                    }
                } else {
                    told.body = response.body.all(max).await?.into();
                    size = told.body.len();
                }
                let mut summary = json!({ "status": told.status, "url": told.url, "size_bytes": size });
                if !response.redirects.is_empty() {
                    summary["redirects"] = json!(response.redirects);
                }
                Ok(Done { summary: Json::of(&summary), answer: told.answer(), cost: Budget::new() })
            })
        };
        let start = Start { asked, op: op.map_err(Failure::from), repeat, streams, bytes, work };
        self.start_call(start, |_| Ok(Budget::new())).await
    }
}

/// What comes of a body within a moment: a server may send it a byte at a time, and each part is a record.
async fn gather(body: &mut Body) -> Result<Option<Vec<u8>>, WebError> {
    let Some(first) = body.next().await? else { return Ok(None) };
    let mut part = Vec::from(first);
    let until = Instant::now() + GATHERING;
    while part.len() < web::PART_BYTES_MAX / 2 {
        match timeout_at(until, body.next()).await {
            Ok(more) => match more? {
                Some(more) => part.extend_from_slice(&more),
                None => break,
            },
            Err(_) => break,
        }
    }
    Ok(Some(part))
}

/// A request in words for watchers: what may be secret stands as a digest.
fn shown(request: &Request) -> serde_json::Value {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    for (name, value) in &request.headers {
        add(name.as_bytes());
        add(value);
    }
    add(&request.body);
    let names = request.headers.iter().take(SHOWN_HEADERS_MAX).map(|(name, _)| truncate(name, 64));
    json!({
        "method": truncate(&request.method, 64),
        "url": truncate(&request.url, SHOWN_URL_BYTES_MAX),
        "headers": names.collect::<Vec<_>>(),
        "body_bytes": request.body.len(),
        "redirects": request.redirects,
        "timeout_ms": request.timeout_ms,
        "sha256": format!("{:x}", digest.finalize()),
    })
}

impl From<WebError> for Failure {
    fn from(error: WebError) -> Self {
        let shown = (&error).into();
        let told = match &error {
            WebError::Denied(denied) => return Self::from(denied.clone()),
            error if error.is_too_large() => types::ErrorCode::TooLarge,
            _ => told_of(shown),
        };
        Self { told, shown, message: error.to_string() }
    }
}

/// The head as JSON in a line of its own, and then the body.
impl Reported for Response {
    fn summary(&self) -> Json {
        Json::of(&json!({ "status": self.status, "size_bytes": self.body.len() }))
    }

    fn answer(&self) -> Told {
        let mut bytes = Json::of(&json!([self.status, self.url, self.headers])).as_str().as_bytes().to_vec();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        Told::Bytes(bytes)
    }

    fn read_back(answer: &[u8]) -> anyhow::Result<Self> {
        let end = answer.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| anyhow::anyhow!("a response without an end of its head"))?;
        let (status, url, headers) = serde_json::from_slice(&answer[..end])?;
        Ok(Self { status, url, headers, body: answer[end + 1..].to_vec() })
    }
}
