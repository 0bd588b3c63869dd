//! Calls that are under way at once, and what becomes of them.

use std::{collections::BTreeMap, time::Duration};

use leasehold_agent::{
    Error,
    bindings::{self, calls::PendingCall, delegate, model, net, tool},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::deed::Forged;

/// A call to start.
#[derive(Debug, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    Delegate {
        agent: String,
        #[serde(default)]
        input: Value,
        #[serde(default)]
        lease: BTreeMap<String, Vec<String>>,
        expires_at: Option<String>,
        max_runtime_sec: Option<u32>,
    },
    Fetch {
        #[serde(default = "get")]
        method: String,
        url: String,
        #[serde(default)]
        headers: Vec<(String, String)>,
        #[serde(default)]
        body: String,
        #[serde(default)]
        redirects: u32,
        timeout_ms: Option<u64>,
    },
    Tool {
        name: String,
        #[serde(default)]
        arguments: Value,
    },
    Model {
        model: String,
        #[serde(default)]
        request: Value,
    },
}

fn get() -> String {
    "GET".into()
}

/// What to do once they are under way.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Waits for each in its turn.
    #[default]
    All,
    /// Takes each as it comes; gives the order, too.
    Any,
    /// Waits for one, and gives up the others.
    First,
    /// Gives up all of them.
    Drop,
    /// Returns with all of them under way.
    Leak,
    /// Reads each as a stream to its end, and then the end.
    Stream,
    /// Starts each as a stream, takes nothing of it for `patience_ms`, and then its end.
    Hoard,
    /// Finishes each as if it were of another kind.
    Mistake,
}

enum Started {
    Delegate(PendingCall),
    Fetch(PendingCall),
    Tool(PendingCall),
    Model(PendingCall),
}

impl Started {
    fn call(&self) -> &PendingCall {
        match self {
            Self::Delegate(call) | Self::Fetch(call) | Self::Tool(call) | Self::Model(call) => call,
        }
    }

    fn finish(self) -> Result<Value, Error> {
        let text = match self {
            Self::Delegate(call) => delegate::finish(call)?,
            Self::Tool(call) => tool::finish(call)?,
            Self::Model(call) => model::finish(call)?,
            Self::Fetch(call) => return Ok(response(net::finish(call)?)),
        };
        Ok(serde_json::from_str(&text)?)
    }

    fn next(&self) -> Result<Option<Value>, Error> {
        let text = match self {
            Self::Delegate(call) => delegate::next_event(call)?,
            Self::Model(call) => model::next(call)?,
            Self::Fetch(call) => {
                return Ok(net::next(call)?.map(|part| json!(String::from_utf8_lossy(&part))));
            }
            Self::Tool(_) => return Err(Error::invalid_request("a tool has no parts")),
        };
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }
}

impl Call {
    fn start(self, streams: bool) -> Result<Started, Error> {
        Ok(match self {
            Self::Delegate { agent, input, lease, expires_at, max_runtime_sec } => {
                let (input, lease) = (input.to_string(), lease.into_iter().collect());
                let task = delegate::Task { agent, input, lease, expires_at, max_runtime_sec };
                Started::Delegate(if streams { delegate::start_stream(&task)? } else { delegate::start(&task)? })
            }
            Self::Fetch { method, url, headers, body, redirects, timeout_ms } => {
                let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
                let request = net::Request { method, url, headers, body: body.into_bytes(), redirects, timeout_ms };
                Started::Fetch(if streams { net::start_stream(&request)? } else { net::start(&request)? })
            }
            Self::Tool { name, arguments } => Started::Tool(tool::start(&name, &arguments.to_string())?),
            Self::Model { model: name, request } => {
                let request = request.to_string();
                Started::Model(match streams {
                    true => model::start_stream(&name, &request)?,
                    false => model::start(&name, &request)?,
                })
            }
        })
    }
}

fn response(response: net::Response) -> Value {
    let text = |(name, value): &(String, Vec<u8>)| json!([name, String::from_utf8_lossy(value)]);
    json!({
        "status": response.status,
        "url": response.url,
        "headers": response.headers.iter().map(text).collect::<Vec<_>>(),
        "body": String::from_utf8_lossy(&response.body),
    })
}

/// Hands the host a handle that it never gave.
pub fn forge(handle: u32, how: Forged) -> Result<Value, Error> {
    // SAFETY: a handle is a number to the guest; that this one is nobody's is the host's to find out.
    let call = unsafe { PendingCall::from_handle(handle) };
    match how {
        Forged::Ask => Ok(json!({ "call_id": call.call_id() })),
        Forged::Wait => Ok(json!({ "first": bindings::calls::wait_any(&[&call], Some(1))? })),
        Forged::Finish => Started::Fetch(call).finish(),
        Forged::Drop => {
            drop(call);
            Ok(Value::Null)
        }
    }
}

/// What the lease shows of tools and models.
pub fn offers() -> Result<Value, Error> {
    let tools: Vec<String> = tool::list()?.into_iter().map(|tool| tool.name).collect();
    Ok(json!({ "tools": tools, "models": model::list()? }))
}

fn told(outcome: Result<Value, Error>) -> Value {
    crate::outcome(outcome)
}

/// Starts calls and gives what came of each, in their order.
pub fn perform(start: Vec<Call>, then: Then, patience_ms: Option<u64>) -> Result<Value, Error> {
    let streams = matches!(then, Then::Stream | Then::Hoard);
    let started: Vec<Result<Started, Error>> = start.into_iter().map(|call| call.start(streams)).collect();
    match then {
        Then::All => Ok(started.into_iter().map(|call| told(call.and_then(Started::finish))).collect()),
        Then::Any => any(started, patience_ms),
        Then::First => {
            let calls: Vec<Started> = started.into_iter().collect::<Result<_, _>>()?;
            let first = first_of(&calls, patience_ms)?;
            let answer = first.and_then(|first| Some(told(calls.into_iter().nth(first)?.finish())));
            Ok(json!({ "first": first, "answer": answer }))
        }
        Then::Drop => {
            let refused = started.into_iter().map(|call| told(call.map(|call| json!(call.call().call_id()))));
            Ok(refused.collect())
        }
        Then::Leak => {
            let count = started.len();
            std::mem::forget(started);
            Ok(json!({ "leaked": count }))
        }
        Then::Stream => Ok(started.into_iter().map(|call| told(call.and_then(stream))).collect()),
        Then::Hoard => {
            std::thread::sleep(Duration::from_millis(patience_ms.unwrap_or_default()));
            Ok(started.into_iter().map(|call| told(call.and_then(Started::finish))).collect())
        }
        Then::Mistake => {
            let mistaken = |call: Result<Started, Error>| {
                told(call.and_then(|call| match call {
                    Started::Delegate(call) => {
                        // Its events were not asked for.
                        let next = delegate::next_event(&call).map_err(Error::from);
                        next.map(|_| Value::Null)
                    }
                    Started::Fetch(call) => tool::finish(call).map(Value::from).map_err(Error::from),
                    Started::Tool(call) => model::finish(call).map(Value::from).map_err(Error::from),
                    Started::Model(call) => net::finish(call).map(response).map_err(Error::from),
                }))
            };
            Ok(started.into_iter().map(mistaken).collect())
        }
    }
}

fn first_of(calls: &[Started], patience_ms: Option<u64>) -> Result<Option<usize>, Error> {
    struct Handle<'c>(&'c PendingCall);
    impl leasehold_agent::calls::UnderWay for Handle<'_> {
        fn call(&self) -> &PendingCall {
            self.0
        }
    }
    let handles: Vec<Handle<'_>> = calls.iter().map(|call| Handle(call.call())).collect();
    leasehold_agent::calls::wait_any(&handles, patience_ms.map(Duration::from_millis))
}

fn any(started: Vec<Result<Started, Error>>, patience_ms: Option<u64>) -> Result<Value, Error> {
    let mut outcomes = vec![Value::Null; started.len()];
    let (mut calls, mut places) = (Vec::new(), Vec::new());
    for (place, call) in started.into_iter().enumerate() {
        match call {
            Ok(call) => {
                calls.push(call);
                places.push(place);
            }
            Err(error) => outcomes[place] = told(Err(error)),
        }
    }
    let (mut order, mut elapsed) = (Vec::new(), 0);
    while !calls.is_empty() {
        match first_of(&calls, patience_ms)? {
            Some(first) => {
                let place = places.remove(first);
                order.push(place);
                outcomes[place] = told(calls.remove(first).finish());
            }
            None => elapsed += 1,
        }
    }
    Ok(json!({ "order": order, "elapsed": elapsed, "outcomes": outcomes }))
}

fn stream(call: Started) -> Result<Value, Error> {
    let mut parts = Vec::new();
    while let Some(part) = call.next()? {
        parts.push(part);
    }
    let end = told(call.finish());
    Ok(json!({ "parts": parts, "end": end }))
}
