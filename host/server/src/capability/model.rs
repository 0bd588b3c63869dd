//! The interface `model`: the operator's language models, under `model.use` (ARCP §9.7).

use leasehold_core::{
    error::ErrorCode,
    job::record::call_id,
    lease::{Namespace, amount::Budget, gate::Permit, operation::UseModel, target::Target},
    protocol::json::Json,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout_at;
use wasmtime::component::Resource;

use super::{
    Asked, Failure, JobCtx, Reported, SHOWN_NAME_BYTES_MAX, Told,
    bindings::{
        model,
        types::{self, Error},
    },
    calls::{Done, Line, PendingCall, Repeat, Start, Undone, Work},
    invalid,
    models::{ChatRequest, Completed, Context, ModelError, Usage},
    told_of, truncate,
};

const OPERATION: &str = "model.use";

impl model::Host for JobCtx {
    async fn list(&mut self) -> Result<Vec<String>, Error> {
        let covered = {
            let gate = self.gate();
            let models = self.world.services.models.list();
            let covered = models.filter(|model| gate.lease().covers(&Namespace::ModelUse, Target::Model(model.name())));
            covered.map(|model| model.name().to_string()).collect()
        };
        self.ask(Asked { operation: "model.list", args: Json::of(&json!({})) }, covered).await
    }

    async fn complete(&mut self, model: String, request: String) -> Result<String, Error> {
        let pending = self.use_model(model, request, false).await?;
        self.finish_call::<Json>(pending, OPERATION).await.map(String::from)
    }

    async fn start(&mut self, model: String, request: String) -> Result<Resource<PendingCall>, Error> {
        self.use_model(model, request, false).await
    }

    async fn finish(&mut self, call: Resource<PendingCall>) -> Result<String, Error> {
        self.finish_call::<Json>(call, OPERATION).await.map(String::from)
    }

    async fn start_stream(&mut self, model: String, request: String) -> Result<Resource<PendingCall>, Error> {
        self.use_model(model, request, true).await
    }

    async fn next(&mut self, call: Resource<PendingCall>) -> Result<Option<String>, Error> {
        let chunk = self.next_part(&call, OPERATION).await?;
        Ok(chunk.map(|chunk| String::from_utf8_lossy(&chunk).into_owned()))
    }
}

impl JobCtx {
    async fn use_model(
        &mut self,
        model: String,
        request: String,
        streams: bool,
    ) -> Result<Resource<PendingCall>, Error> {
        // The name as it was asked for: what it is an alias of may change from one host to the next.
        let args = json!({
            "model": truncate(&model, SHOWN_NAME_BYTES_MAX),
            "request_bytes": request.len(),
            "sha256": format!("{:x}", Sha256::digest(&request)),
            "stream": streams,
        });
        let asked = Asked { operation: OPERATION, args: Json::of(&args) };
        let models = std::sync::Arc::clone(&self.world.services.models);
        let op = models.operation(&model).map_err(Failure::from);
        let bytes = request.len();
        let request = ChatRequest::parse(&request).map_err(|error| invalid(error.to_string()))?;
        let priced = request.clone();
        let turns = std::sync::Arc::clone(&self.model_turns);
        let work = move |permit: Permit<UseModel>, line: Line| -> Work {
            Box::pin(async move {
                let context = Context {
                    traceparent: Some(line.traceparent()),
                    timeout: None,
                    idempotency_key: Some(format!("{}/{}", line.job_id, call_id(line.call))),
                };
                // Of one job: the places of an upstream are everybody's.
                let _turn = turns.acquire().await;
                let models = &line.world.services.models;
                let name = permit.op().model().to_string();
                let undone = |error: ModelError| {
                    let cost = if error.may_have_cost() { line.reserved.clone() } else { Budget::new() };
                    Undone { failure: Failure::from(&error), cost }
                };
                let Completed { response, spent } = match streams {
                    false => models.complete(permit, request, context).await.map_err(undone)?,
                    true => {
                        let mut stream = models.stream(permit, request, context).await.map_err(undone)?;
                        let mut whole = Whole::default();
                        while let Some(chunk) = stream.next().await.map_err(undone)? {
                            whole.add(&chunk);
                            // Nobody may want the parts, and the whole all the same. Who wants them and takes none keeps
                            // its place for no longer than who waits for an answer.
                            let part = timeout_at(stream.deadline(), line.part(Told::Json(chunk))).await;
                            let part = part.map_err(|_| undone(ModelError::Timeout))?;
                            part.map_err(|failure| line.lost(failure))?;
                        }
                        let spent = stream.finish();
                        Completed { response: whole.finish(spent.usage), spent }
                    }
                };
                let usage = spent.usage.map(|usage| json!({ "input": usage.input, "output": usage.output }));
                let summary = Json::of(&json!({ "model": name, "tokens": usage }));
                Ok(Done { summary, answer: Told::Json(response), cost: spent.cost })
            })
        };
        // A call that was paid for is not made again by the host itself: what it was told is lost, and what it cost is not.
        let start = Start { asked, op, repeat: Repeat::No, streams, bytes, work };
        self.start_call(start, move |op| models.price(op, &priced).map_err(|error| Failure::from(&error))).await
    }
}

/// A completion that is put together from its chunks.
#[derive(Default)]
struct Whole {
    head: Value,
    choices: Vec<Value>,
}

impl Whole {
    fn add(&mut self, chunk: &Json) {
        let Ok(Value::Object(mut chunk)) = serde_json::from_str::<Value>(chunk.as_str()) else { return };
        let choices = chunk.remove("choices");
        chunk.remove("usage");
        if self.head.is_null() {
            self.head = Value::Object(chunk);
        }
        for part in choices.and_then(|choices| choices.as_array().cloned()).into_iter().flatten() {
            let index = part["index"].as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or(0);
            // The host asks for one.
            if index > 0 {
                continue;
            }
            if self.choices.is_empty() {
                self.choices.push(json!({ "index": 0, "message": {}, "finish_reason": null }));
            }
            let choice = &mut self.choices[0];
            merge(&mut choice["message"], &part["delta"]);
            if !part["finish_reason"].is_null() {
                choice["finish_reason"] = part["finish_reason"].clone();
            }
        }
    }

    fn finish(self, usage: Option<Usage>) -> Json {
        let mut whole = self.head;
        whole["object"] = json!("chat.completion");
        whole["choices"] = Value::Array(self.choices);
        if let Some(usage) = usage {
            let total = usage.input.saturating_add(usage.output);
            whole["usage"] = json!({
                "prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": total,
            });
        }
        Json::of(&whole)
    }
}

/// Adds a delta to what there is: texts grow, lists are merged by their `index`, and the rest is set.
fn merge(into: &mut Value, delta: &Value) {
    match (into, delta) {
        (_, Value::Null) => {}
        (Value::Object(into), Value::Object(delta)) => {
            for (key, value) in delta {
                // Names of what stays the same are said once, or again as they were.
                let grows = matches!(key.as_str(), "content" | "refusal" | "arguments" | "reasoning_content");
                match into.get_mut(key) {
                    Some(Value::String(text)) if grows => text.push_str(value.as_str().unwrap_or_default()),
                    Some(known @ (Value::Object(_) | Value::Array(_))) => merge(known, value),
                    _ if value.is_null() => {}
                    _ => {
                        into.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(into), Value::Array(delta)) => {
            for value in delta {
                let same = |known: &&mut Value| !value["index"].is_null() && known["index"] == value["index"];
                match into.iter_mut().find(same) {
                    Some(known) => merge(known, value),
                    None => into.push(value.clone()),
                }
            }
        }
        (into, delta) => *into = delta.clone(),
    }
}

impl From<&ModelError> for Failure {
    fn from(error: &ModelError) -> Self {
        let shown = ErrorCode::from(error);
        let told = match error {
            ModelError::NotFound(_) => types::ErrorCode::NotFound,
            ModelError::AnswerTooLarge { .. } => types::ErrorCode::TooLarge,
            _ => told_of(shown),
        };
        Self { told, shown, message: error.to_string() }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::from(&error)
    }
}

impl Reported for Vec<String> {
    fn summary(&self) -> Json {
        Json::of(&json!({ "models": self.len() }))
    }

    fn answer(&self) -> Told {
        Told::Json(Json::of(self))
    }

    fn read_back(answer: &[u8]) -> anyhow::Result<Self> {
        Ok(serde_json::from_slice(answer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunks_of_a_completion_make_the_completion() {
        let mut whole = Whole::default();
        for chunk in [
            json!({ "id": "c1", "object": "chat.completion.chunk", "choices": [
                { "index": 0, "delta": { "role": "assistant", "content": "" } }] }),
            json!({ "id": "c1", "choices": [{ "index": 0, "delta": { "content": "Hel" } }] }),
            json!({ "id": "c1", "choices": [{ "index": 0, "delta": { "content": "lo", "tool_calls": [
                { "index": 0, "id": "t", "type": "function", "function": { "name": "f", "arguments": "{\"a\"" } }] } }] }),
            json!({ "id": "c1", "choices": [{ "index": 0, "delta": { "tool_calls": [
                { "index": 0, "function": { "arguments": ":1}" } }] }, "finish_reason": "tool_calls" }] }),
            json!({ "id": "c1", "choices": [], "usage": { "prompt_tokens": 1 } }),
        ] {
            whole.add(&Json::of(&chunk));
        }
        let whole: Value =
            serde_json::from_str(whole.finish(Some(Usage { input: 3, cached: 0, output: 2 })).as_str()).unwrap();
        assert_eq!(whole["object"], "chat.completion");
        let message = &whole["choices"][0]["message"];
        assert_eq!((&message["role"], &message["content"]), (&json!("assistant"), &json!("Hello")));
        assert_eq!(message["tool_calls"][0]["function"], json!({ "name": "f", "arguments": "{\"a\":1}" }));
        assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(whole["usage"]["total_tokens"], 5);
    }
}
