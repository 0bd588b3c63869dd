//! The host's own OpenAI-compatible endpoint, for the keys it gives to jobs (ARCP §9.8).
//!
//! A key is bound to one job and is worth what the job's lease is worth at the
//! moment of a call: the job's gate is asked about the model, its money is
//! reserved before and settled after, and when the job ends or its lease does,
//! a call under way ends with it. What a job is, is the caller's to say: here
//! it is a [`Meter`].
//!
//! A key is kept as its SHA-256 only, so that nothing here could show one, and
//! it is found by that digest, so that no time it takes tells anything of it.

use std::{
    collections::HashMap,
    fmt::Display,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    header::{self, HeaderMap, HeaderValue},
};
use leasehold_core::{
    error::{ErrorCode, Refusal},
    lease::{
        amount::Budget,
        gate::{Denied, Permit},
        operation::UseModel,
        target::ModelName,
    },
    secret::Secret,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    capability::models::{ChatRequest, Completed, Context, ModelError, Models, Stream, Usage},
    clock,
    transport::websocket::{PageBody, Pages},
};

/// A running job, as far as a key of it goes.
#[async_trait]
pub trait Meter: Send + Sync + 'static {
    /// Asks the job's gate.
    fn permit(&self, op: UseModel) -> Result<Permit<UseModel>, Denied>;

    /// Whether the lease covers a model: for the list of them, which needs no time and no money.
    fn covers(&self, model: &ModelName) -> bool;

    /// Holds back the most that a call may cost, in every currency or in none, and numbers the call.
    ///
    /// It is durable when this returns. Whoever drops it while it waits has reserved nothing.
    async fn reserve(&self, model: &ModelName, price: &Budget) -> Result<u64, Refusal>;

    /// Ends a call that was reserved for. It comes once for each, whatever happens to the call.
    fn settle(&self, call: u64, outcome: Outcome);

    /// What a call brings along: the job's trace, and how long its lease lasts.
    fn context(&self) -> Context;

    /// Returns when the gate would permit nothing any more, and says why.
    async fn over(&self) -> Denied;
}

/// How a call has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it cost; all that was reserved if nobody can know.
    pub cost: Budget,
    /// The tokens, if the upstream has told them.
    pub usage: Option<Usage>,
    /// Why there was no answer, or not all of it.
    pub problem: Option<Problem>,
}

/// Why a call gave no answer, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The model gave none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The job's gate closed meanwhile.
    #[error("{0}")]
    Closed(#[from] Denied),
    /// Whoever asked did not wait for the answer.
    #[error("the client has gone away")]
    Abandoned,
}

/// `[gateway]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// The largest request.
    pub request_bytes_max: usize,
    /// How long a request may take to arrive.
    pub request_timeout_sec: u32,
    /// Calls at once, of all keys.
    pub calls_max: usize,
    /// Of them, of one key.
    pub key_calls_max: usize,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self { request_bytes_max: 4 << 20, request_timeout_sec: 30, calls_max: 256, key_calls_max: 16 }
    }
}

/// The endpoint.
pub struct Gateway {
    models: Arc<Models>,
    settings: GatewaySettings,
    keys: Mutex<Keys>,
    calls: Arc<Semaphore>,
}

#[derive(Default)]
struct Keys {
    by_digest: HashMap<[u8; 32], Arc<Holder>>,
    /// Each credential's key of now.
    by_id: HashMap<String, [u8; 32]>,
}

/// Who a key is of.
struct Holder {
    meter: Arc<dyn Meter>,
    calls: Arc<Semaphore>,
}

/// An answer of the endpoint.
pub type Answer = Response<PageBody>;

impl Gateway {
    /// Makes an endpoint that serves these models and knows no key.
    #[must_use]
    pub fn new(models: Arc<Models>, settings: GatewaySettings) -> Self {
        let calls = Arc::new(Semaphore::new(settings.calls_max));
        Self { models, settings, keys: Mutex::default(), calls }
    }

    /// Makes a key, which opens nothing yet.
    #[must_use]
    pub fn mint() -> Secret {
        Secret::new(format!("lhk_{:032x}{:032x}", clock::random_u128(), clock::random_u128()))
    }

    /// Lets a key of a job in, as the credential `id`. A key that this credential had before is worth nothing any more.
    pub fn admit(&self, id: &str, key: &Secret, meter: Arc<dyn Meter>) {
        let digest = digest(key);
        let holder = Holder { meter, calls: Arc::new(Semaphore::new(self.settings.key_calls_max)) };
        let mut keys = self.keys();
        if let Some(before) = keys.by_id.insert(id.to_owned(), digest) {
            keys.by_digest.remove(&before);
        }
        keys.by_digest.insert(digest, Arc::new(holder));
    }

    /// Makes a credential worth nothing; `false` if it was so already.
    pub fn revoke(&self, id: &str) -> bool {
        let mut keys = self.keys();
        let digest = keys.by_id.remove(id);
        digest.is_some_and(|digest| keys.by_digest.remove(&digest).is_some())
    }

    /// Answers a request.
    pub async fn reply<B>(&self, request: Request<B>) -> Answer
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match self.serve(request).await {
            Ok(answer) => answer,
            Err(fault) => fault.answer(),
        }
    }

    async fn serve<B>(&self, request: Request<B>) -> Result<Answer, Fault>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let holder = self.holder(request.headers())?;
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::POST, "/v1/chat/completions") => self.complete(&holder, request).await,
            (&Method::GET, "/v1/models") => {
                let models = self.models.list().filter(|model| holder.meter.covers(model.name()));
                let data: Vec<Value> = models.map(|model| shown(model.name())).collect();
                Ok(said(StatusCode::OK, json!({ "object": "list", "data": data }).to_string()))
            }
            (&Method::GET, path) if path.starts_with("/v1/models/") => {
                let asked = path.trim_start_matches("/v1/models/").replace("%2F", "/").replace("%2f", "/");
                let mut models = self.models.list().filter(|model| holder.meter.covers(model.name()));
                let found = models.find(|model| model.name().as_str() == asked);
                let found =
                    found.ok_or_else(|| Fault::new(StatusCode::NOT_FOUND, "model_not_found", "no such model"))?;
                Ok(said(StatusCode::OK, shown(found.name()).to_string()))
            }
            _ => Err(Fault::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "here are POST /v1/chat/completions and GET /v1/models",
            )),
        }
    }

    async fn complete<B>(&self, holder: &Holder, request: Request<B>) -> Result<Answer, Fault>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let place = self.place(holder)?;
        let chat = ChatRequest::parse(&self.read(request.into_body()).await?)?;
        let asked = chat
            .model()
            .ok_or_else(|| ModelError::Invalid { field: "model".to_owned(), reason: "it is missing".to_owned() })?;
        let op = self.models.operation(asked).map_err(Refusal::from)?;
        let model = op.model().clone();
        let permit = holder.meter.permit(op).map_err(Refusal::from)?;
        let price = self.models.price(permit.op(), &chat)?;
        let call = holder.meter.reserve(&model, &price).await?;
        let charge = Charge { meter: Arc::clone(&holder.meter), call: Some(call), price };
        let streams = chat.streams();
        let context = holder.meter.context();
        let asked = async {
            match streams {
                true => self.models.stream(permit, chat, context).await.map(|stream| Begun::Stream(Box::new(stream))),
                false => self.models.complete(permit, chat, context).await.map(Begun::Whole),
            }
        };
        let begun = tokio::select! {
            biased;
            denied = holder.meter.over() => return Err(charge.fail(denied.clone()).refused(denied)),
            begun = asked => begun,
        };
        match begun {
            Err(error) => Err(charge.fail(error.clone()).failed(error)),
            Ok(Begun::Whole(completed)) => {
                charge.settle(Outcome { cost: completed.spent.cost, usage: completed.spent.usage, problem: None });
                Ok(said(StatusCode::OK, completed.response.as_str().to_owned()))
            }
            Ok(Begun::Stream(stream)) => {
                let telling = Telling { stream, charge, meter: Arc::clone(&holder.meter), place };
                let mut answer = Response::new(telling.begin());
                answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Ok(answer)
            }
        }
    }

    fn holder(&self, headers: &HeaderMap) -> Result<Arc<Holder>, Fault> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key =
            bearer.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let digest = key.map(|(_, key)| digest(&Secret::new(key.trim())));
        let holder = digest.and_then(|digest| self.keys().by_digest.get(&digest).map(Arc::clone));
        holder.ok_or_else(|| {
            let sentence = "a key of a running job is needed as a bearer token; it is worth nothing after its job";
            Fault::new(StatusCode::UNAUTHORIZED, "invalid_api_key", sentence)
        })
    }

    fn place(&self, holder: &Holder) -> Result<Places, Fault> {
        let key = Arc::clone(&holder.calls).try_acquire_owned();
        let all = Arc::clone(&self.calls).try_acquire_owned();
        match (key, all) {
            (Ok(key), Ok(all)) => Ok(Places { _key: key, _all: all }),
            _ => Err(Fault::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "too many calls at once")),
        }
    }

    async fn read<B>(&self, body: B) -> Result<String, Fault>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (bytes_max, limit) = (self.settings.request_bytes_max, self.settings.request_timeout_sec.max(1));
        let body = Box::pin(Limited::new(body, bytes_max)).collect();
        let bytes = match timeout(Duration::from_secs(limit.into()), body).await {
            Err(_) => {
                return Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the request did not arrive in time"));
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(ModelError::RequestTooLarge { bytes_max }.into());
            }
            Ok(Err(_)) => return Err(Fault::new(StatusCode::BAD_REQUEST, "invalid_request", "the request broke off")),
            Ok(Ok(body)) => body.to_bytes(),
        };
        String::from_utf8(bytes.into())
            .map_err(|_| Fault::new(StatusCode::BAD_REQUEST, "invalid_request", "the request is not a text"))
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages for Gateway {
    fn has(&self, path: &str) -> bool {
        path.starts_with("/v1/")
    }

    fn answer(&self, request: Request<Incoming>) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(self.reply(request))
    }
}

enum Begun {
    Whole(Completed),
    Stream(Box<Stream>),
}

/// The places of a call under way.
struct Places {
    _key: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// What is reserved for a call, until it is settled. A call that is dropped settles at all of it.
struct Charge {
    meter: Arc<dyn Meter>,
    call: Option<u64>,
    price: Budget,
}

impl Charge {
    fn settle(mut self, outcome: Outcome) {
        if let Some(call) = self.call.take() {
            self.meter.settle(call, outcome);
        }
    }

    /// Settles a call that gave no answer, or not all of it.
    fn fail(mut self, problem: impl Into<Problem>) -> Failing {
        let problem = problem.into();
        let free = matches!(&problem, Problem::Model(error) if !error.may_have_cost());
        let cost = match free {
            true => Budget::new(),
            false => std::mem::take(&mut self.price),
        };
        self.settle(Outcome { cost, usage: None, problem: Some(problem) });
        Failing
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let cost = std::mem::take(&mut self.price);
            self.meter.settle(call, Outcome { cost, usage: None, problem: Some(Problem::Abandoned) });
        }
    }
}

/// A call that was settled and has nothing left but to say so.
struct Failing;

impl Failing {
    fn refused(self, denied: Denied) -> Fault {
        Refusal::from(denied).into()
    }

    fn failed(self, error: ModelError) -> Fault {
        error.into()
    }
}

/// A stream that is being told.
struct Telling {
    stream: Box<Stream>,
    charge: Charge,
    meter: Arc<dyn Meter>,
    place: Places,
}

/// How many events wait for whoever reads them.
const EVENTS_WAITING_MAX: usize = 4;

/// How long the end of a stream waits at least to be read.
const LAST_WORD_FOR: Duration = Duration::from_secs(10);

impl Telling {
    /// Tells the events to whoever reads them, in a task of its own: what nobody reads ends with its job, and in time, all
    /// the same.
    fn begin(self) -> PageBody {
        let (events, body) = mpsc::channel(EVENTS_WAITING_MAX);
        tokio::spawn(self.tell(events));
        let body = stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
        UnsyncBoxBody::new(StreamBody::new(body.map(|event| Ok(Frame::data(event)))))
    }

    async fn tell(self, events: mpsc::Sender<Bytes>) {
        let Self { mut stream, charge, meter, place } = self;
        let event = |data: &dyn Display| Bytes::from(format!("data: {data}\n\n"));
        let deadline = stream.deadline();
        // The stream is gone once this is, with its place at the upstream.
        let chunks = events.clone();
        let told = async move {
            while let Some(chunk) = stream.next().await? {
                // Whoever has left is noticed below.
                let _ = chunks.send(event(&one_line(chunk.as_str()))).await;
            }
            Ok::<_, ModelError>(stream.finish())
        };
        let told = tokio::select! {
            biased;
            denied = meter.over() => Err(charge.fail(denied.clone()).refused(denied)),
            // Settled as a call that was given up.
            () = events.closed() => return,
            told = told => match told {
                Ok(spent) => {
                    charge.settle(Outcome { cost: spent.cost, usage: spent.usage, problem: None });
                    Ok(())
                }
                Err(error) => Err(charge.fail(error.clone()).failed(error)),
            },
            () = sleep_until(deadline) => Err(charge.fail(ModelError::Timeout).failed(ModelError::Timeout)),
        };
        // The call is over; whoever reads slowly keeps nothing but its last word.
        drop(place);
        let last = match told {
            Ok(()) => event(&"[DONE]"),
            Err(fault) => event(&fault.body()),
        };
        let _ = timeout_at(deadline.max(Instant::now() + LAST_WORD_FOR), events.send(last)).await;
    }
}

/// JSON without line breaks, which could only stand between its tokens and would end an event's line.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// An answer in the words of OpenAI's errors.
struct Fault {
    status: StatusCode,
    code: String,
    param: Option<String>,
    message: String,
    retry_after: Option<Duration>,
}

impl Fault {
    fn new(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), param: None, message: message.into(), retry_after: None }
    }

    fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::PAYMENT_REQUIRED => "insufficient_quota",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }

    fn answer(self) -> Answer {
        let mut answer = said(self.status, self.body().to_string());
        if let Some(after) = self.retry_after {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // A stranger's connection has no reason to stay.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            ErrorCode::BudgetExhausted => StatusCode::PAYMENT_REQUIRED,
            ErrorCode::PermissionDenied | ErrorCode::LeaseExpired | ErrorCode::Cancelled => StatusCode::FORBIDDEN,
            ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
            ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, refusal.code.as_str().to_lowercase(), refusal.message)
    }
}

impl From<ModelError> for Fault {
    fn from(error: ModelError) -> Self {
        let message = error.to_string();
        let (status, code) = match &&error {
            ModelError::NotFound(_) => (StatusCode::NOT_FOUND, "model_not_found"),
            ModelError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_request"),
            ModelError::RequestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large"),
            // The others are between the host and its upstream, as in the error's code of ARCP §12.
            error if ErrorCode::from(*error) == ErrorCode::InvalidRequest => {
                (StatusCode::BAD_REQUEST, "refused_by_upstream")
            }
            ModelError::RateLimited { .. } | ModelError::Busy => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            ModelError::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            ModelError::Unreachable
            | ModelError::Refused { .. }
            | ModelError::AnswerTooLarge { .. }
            | ModelError::Broken(_) => (StatusCode::BAD_GATEWAY, "upstream_failed"),
        };
        let (param, retry_after) = match error {
            ModelError::Invalid { field, .. } => (Some(field), None),
            ModelError::RateLimited { retry_after } => (None, retry_after),
            _ => (None, None),
        };
        Self { param, retry_after, ..Self::new(status, code, message) }
    }
}

fn shown(model: &ModelName) -> Value {
    json!({ "id": model.as_str(), "object": "model", "created": 0, "owned_by": "leasehold" })
}

fn said(status: StatusCode, json: String) -> Answer {
    let mut answer = Response::new(UnsyncBoxBody::new(Full::from(json)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn digest(key: &Secret) -> [u8; 32] {
    Sha256::digest(key.expose().as_bytes()).into()
}
