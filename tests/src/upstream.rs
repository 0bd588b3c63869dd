//! Real HTTP servers for what the host asks over HTTP: an OpenAI-compatible API, and whatever a test writes down.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, header::HeaderMap, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore, task::AbortHandle};

/// A request as it has come.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method and path, such as `POST /v1/chat/completions`.
    pub line: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, `null` if it had none.
    pub body: Value,
}

impl Asked {
    /// A header, if it is there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Of HTTP.
    pub status: u16,
    /// Besides those that HTTP needs.
    pub headers: Vec<(&'static str, String)>,
    /// The body, piece by piece.
    pub pieces: Vec<Bytes>,
    /// What comes after it.
    pub end: End,
    /// Holds the whole answer back until there is a permit, of which it takes one.
    pub after: Option<Arc<Semaphore>>,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Whole,
    /// Not at all.
    Never,
    /// With the connection.
    Broken,
}

impl Reply {
    /// JSON with a status.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string())
    }

    /// Any text with a status.
    #[must_use]
    pub fn text(status: u16, body: &str) -> Self {
        let pieces = vec![Bytes::copy_from_slice(body.as_bytes())];
        Self { status, headers: Vec::new(), pieces, end: End::Whole, after: None }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Ends otherwise.
    #[must_use]
    pub fn ending(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// Answers once there is a permit.
    #[must_use]
    pub fn after(self, permits: &Arc<Semaphore>) -> Self {
        Self { after: Some(Arc::clone(permits)), ..self }
    }

    /// A body that comes in pieces.
    #[must_use]
    pub fn pieces(pieces: &[&'static str]) -> Self {
        Self {
            pieces: pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect(),
            ..Self::text(200, "")
        }
    }

    /// Server-sent events, each piece its data.
    #[must_use]
    pub fn events(data: &[&str]) -> Self {
        let pieces = data.iter().map(|data| Bytes::from(format!("data: {data}\n\n"))).collect();
        Self { pieces, ..Self::text(200, "") }.with("content-type", "text/event-stream")
    }
}

/// A running server; it ends with this value.
pub struct Upstream {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    task: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// A server that speaks the API of OpenAI as its reference says: completions, streams of them with their usage.
    pub async fn openai() -> Self {
        Self::start(openai).await
    }

    /// A server that answers as `answer` says, unless a test has said otherwise for a request.
    ///
    /// # Panics
    ///
    /// If the machine has no free port.
    pub async fn start(answer: impl Fn(&Asked) -> Reply + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (asked, replies) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(VecDeque::new())));
        let (seen, scripted) = (Arc::clone(&asked), Arc::clone(&replies));
        let accept = async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (seen, scripted, answer) = (Arc::clone(&seen), Arc::clone(&scripted), answer.clone());
                let service =
                    service_fn(move |request| serve(request, Arc::clone(&seen), Arc::clone(&scripted), answer.clone()));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                // A connection that ends in the middle is what some tests are about.
                tokio::spawn(async move { drop(connection.await) });
            }
        };
        Self { address, asked, replies, task: tokio::spawn(accept).abort_handle() }
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next request that has no answer yet with this.
    pub fn answer(&self, reply: Reply) {
        lock(&self.replies).push_back(reply);
    }

    /// Takes back the answers that nobody has asked for yet.
    pub fn forget(&self) {
        lock(&self.replies).clear();
    }

    /// Everything it was asked.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

async fn serve(
    request: Request<hyper::body::Incoming>,
    seen: Arc<Mutex<Vec<Asked>>>,
    scripted: Arc<Mutex<VecDeque<Reply>>>,
    answer: impl Fn(&Asked) -> Reply,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let asked = Asked { line: format!("{} {}", head.method, head.uri), headers: head.headers, body };
    let reply = lock(&scripted).pop_front();
    let reply = reply.unwrap_or_else(|| answer(&asked));
    lock(&seen).push(asked);
    if let Some(permits) = &reply.after {
        permits.acquire().await.expect("nobody closes it").forget();
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let pieces = stream::iter(reply.pieces).map(|piece| Ok(Frame::data(piece)));
    let tail = stream::once(async move {
        match reply.end {
            End::Never => pending().await,
            End::Broken => {
                // Until then nothing was sent.
                tokio::task::yield_now().await;
                Some(Err(std::io::Error::other("broken")))
            }
            End::Whole => None,
        }
    });
    let body = StreamBody::new(pieces.chain(tail.filter_map(|piece| async { piece })));
    Ok(response.body(UnsyncBoxBody::new(body)).expect("a reply of a test is one"))
}

/// Answers with the last message, in words; each is a token, and so is each word of the request.
fn openai(asked: &Asked) -> Reply {
    if asked.line != "POST /v1/chat/completions" {
        return Reply::json(404, &json!({ "error": { "message": format!("unknown: {}", asked.line) } }));
    }
    let said = asked.body["messages"].as_array().and_then(|messages| messages.last()?["content"].as_str());
    let words: Vec<&str> = said.unwrap_or_default().split_whitespace().collect();
    let (model, tokens) = (&asked.body["model"], words.len());
    let usage = json!({ "prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens });
    let answer = |object: &str, choices: Value, usage: Value| json!({ "id": "chatcmpl-1", "object": object, "created": 1, "model": model, "choices": choices, "usage": usage });
    if asked.body["stream"] != true {
        let message = json!({ "role": "assistant", "content": words.join(" ") });
        let choices = json!([{ "index": 0, "message": message, "finish_reason": "stop", "logprobs": null }]);
        return Reply::json(200, &answer("chat.completion", choices, usage)).with("content-type", "application/json");
    }
    let chunk = |delta: Value, finish: Value| {
        let choices = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
        answer("chat.completion.chunk", choices, Value::Null).to_string()
    };
    let mut events: Vec<String> =
        words.iter().map(|word| chunk(json!({ "content": format!("{word} ") }), Value::Null)).collect();
    events.push(chunk(json!({}), json!("stop")));
    if asked.body["stream_options"]["include_usage"] == true {
        events.push(answer("chat.completion.chunk", json!([]), usage).to_string());
    }
    events.push("[DONE]".to_owned());
    Reply::events(&events.iter().map(String::as_str).collect::<Vec<_>>())
}
