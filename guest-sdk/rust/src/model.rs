//! Language models the operator offers: `model.use` (ARCP §9.7).

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Error,
    bindings::{calls, model},
    calls::{Pending, UnderWay},
};

/// Gives the models that this lease covers, by name. Needs no grant.
///
/// # Errors
///
/// `internal-error`, and nothing else.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let model = leasehold_agent::model::list()?.into_iter().next();
/// # Ok(())
/// # }
/// ```
pub fn list() -> Result<Vec<String>, Error> {
    Ok(model::list()?)
}

/// Asks a model one question and gives its answer's text. Needs `model.use` on `model`.
///
/// # Errors
///
/// Those of [`complete`], and `internal-error` if the answer has no text.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let answer = leasehold_agent::model::ask("tier-fast/small", "What is a lease?")?;
/// # Ok(())
/// # }
/// ```
pub fn ask(model: impl AsRef<str>, question: impl Into<String>) -> Result<String, Error> {
    let answer = complete(model, &json!({ "messages": [{ "role": "user", "content": question.into() }] }))?;
    let text = answer.text().map(str::to_owned);
    text.ok_or_else(|| Error::new(crate::ErrorCode::InternalError, "the model's answer has no text"))
}

/// Asks a model. Needs `model.use` on `model`.
///
/// `request` is the body of an OpenAI chat completion; `model` and `stream` are the host's.
///
/// # Errors
///
/// `permission-denied`, `not-found`; `invalid-request` naming the field; `budget-exhausted` if it might cost more than
/// is left; `internal-error` if the model's provider fails; `timeout`.
pub fn complete(model: impl AsRef<str>, request: &(impl Serialize + ?Sized)) -> Result<Completion, Error> {
    let request = serde_json::to_string(request)?;
    Ok(Completion(serde_json::from_str(&model::complete(model.as_ref(), &request)?)?))
}

/// Starts what [`complete`] does, and goes on meanwhile.
///
/// # Errors
///
/// Those of [`complete`] that are known at once.
pub fn start(model: impl AsRef<str>, request: &(impl Serialize + ?Sized)) -> Result<Pending<Completion>, Error> {
    let request = serde_json::to_string(request)?;
    Ok(Pending::new(model::start(model.as_ref(), &request)?, finish))
}

/// Asks a model and takes the answer as it comes.
///
/// # Errors
///
/// Those of [`complete`] that are known at once.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let request = serde_json::json!({ "messages": [{ "role": "user", "content": "Tell me a story." }] });
/// let mut story = leasehold_agent::model::stream("tier-fast/small", &request)?;
/// while let Some(words) = story.next_text()? {
///     leasehold_agent::output::write_text(&words)?;
/// }
/// # Ok(())
/// # }
/// ```
pub fn stream(model: impl AsRef<str>, request: &(impl Serialize + ?Sized)) -> Result<Stream, Error> {
    let request = serde_json::to_string(request)?;
    Ok(Stream(model::start_stream(model.as_ref(), &request)?))
}

fn finish(call: calls::PendingCall) -> Result<Completion, Error> {
    Ok(Completion(serde_json::from_str(&model::finish(call)?)?))
}

/// A chat completion, as the API gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion(pub Value);

impl Completion {
    /// The text of the answer, if it has one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.message()["content"].as_str()
    }

    /// The message of the answer, with its `tool_calls` if there are some.
    #[must_use]
    pub fn message(&self) -> &Value {
        &self.0["choices"][0]["message"]
    }

    /// The tokens of the request and of the answer, if they were told.
    #[must_use]
    pub fn tokens(&self) -> Option<(u64, u64)> {
        let usage = &self.0["usage"];
        usage["prompt_tokens"].as_u64().zip(usage["completion_tokens"].as_u64())
    }
}

/// An answer that comes in parts. Dropping it gives it up.
#[derive(Debug)]
pub struct Stream(calls::PendingCall);

impl Stream {
    /// Waits for the next `chat.completion.chunk`; `None` after the last.
    ///
    /// # Errors
    ///
    /// Those of [`complete`].
    pub fn next_chunk(&mut self) -> Result<Option<Value>, Error> {
        let chunk = model::next(&self.0)?;
        Ok(chunk.map(|chunk| serde_json::from_str(&chunk)).transpose()?)
    }

    /// Waits for the next words of the answer; `None` after the last.
    ///
    /// # Errors
    ///
    /// Those of [`complete`].
    pub fn next_text(&mut self) -> Result<Option<String>, Error> {
        while let Some(chunk) = self.next_chunk()? {
            match chunk["choices"][0]["delta"]["content"].as_str() {
                Some(words) if !words.is_empty() => return Ok(Some(words.to_owned())),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Waits for the whole answer, put together from its parts.
    ///
    /// # Errors
    ///
    /// Those of [`complete`].
    pub fn finish(self) -> Result<Completion, Error> {
        finish(self.0)
    }
}

impl UnderWay for Stream {
    fn call(&self) -> &calls::PendingCall {
        &self.0
    }
}
