//! Handing part of the job to another agent: `agent.delegate` (ARCP §9.4, §10).

use std::{marker::PhantomData, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Error, Timestamp,
    bindings::{calls, delegate},
    calls::{Pending, UnderWay},
};

/// Begins the description of a task for `agent`, `name` or `name@version` (ARCP §7.5).
///
/// It has the input `null` and no grant, and all that is left of this job's budget, if this job has one.
///
/// ```no_run
/// use leasehold_agent::delegate;
///
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let report: String = delegate::task("summarize-files")
///     .input(&serde_json::json!({ "path": "/workspace/letters" }))?
///     .grant("fs.read", ["/workspace/letters/**"])
///     .budget("USD:0.50")
///     .run()?;
/// # Ok(())
/// # }
/// ```
pub fn task(agent: impl Into<String>) -> Task {
    Task(delegate::Task {
        agent: agent.into(),
        input: "null".to_owned(),
        lease: Vec::new(),
        expires_at: None,
        max_runtime_sec: None,
    })
}

/// A task for another agent; see [`task`].
#[derive(Clone, Debug)]
#[must_use = "a task does nothing until it is run or started"]
pub struct Task(delegate::Task);

impl Task {
    /// Gives the other agent its input.
    ///
    /// # Errors
    ///
    /// `invalid-request` if the value is no JSON.
    pub fn input(mut self, input: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        self.0.input = serde_json::to_string(input)?;
        Ok(self)
    }

    /// Adds patterns to a namespace of the other agent's lease, such as `fs.read` (ARCP §9.2).
    ///
    /// What this job's own lease does not cover is `lease-subset-violation` when the task begins.
    pub fn grant<P: Into<String>>(mut self, namespace: &str, patterns: impl IntoIterator<Item = P>) -> Self {
        let patterns = patterns.into_iter().map(Into::into);
        match self.0.lease.iter_mut().find(|(known, _)| known == namespace) {
            Some((_, known)) => known.extend(patterns),
            None => self.0.lease.push((namespace.to_owned(), patterns.collect())),
        }
        self
    }

    /// Gives the other agent so much of this job's budget, such as `USD:0.50` (ARCP §9.6).
    pub fn budget(self, amount: &str) -> Self {
        self.grant("cost.budget", [amount])
    }

    /// Ends the other agent's lease earlier than this job's own (ARCP §9.5).
    pub fn expires_at(mut self, at: Timestamp) -> Self {
        self.0.expires_at = Some(at.to_string());
        self
    }

    /// Ends the other job if it runs for longer, in whole seconds and at least one.
    pub fn max_runtime(mut self, runtime: Duration) -> Self {
        self.0.max_runtime_sec = Some(u32::try_from(runtime.as_secs()).unwrap_or(u32::MAX).max(1));
        self
    }

    /// Has the task done and waits for its result. Needs `agent.delegate` on the agent.
    ///
    /// # Errors
    ///
    /// `lease-subset-violation` if the task asks for more than this job may, `permission-denied`,
    /// `agent-not-available`, `budget-exhausted`; or the error with which the other job ended.
    pub fn run<T: DeserializeOwned>(&self) -> Result<T, Error> {
        Ok(serde_json::from_str(&delegate::run(&self.0)?)?)
    }

    /// Starts the task.
    ///
    /// # Errors
    ///
    /// Those of [`Task::run`] that are known at once.
    pub fn start<T: DeserializeOwned>(&self) -> Result<Pending<T>, Error> {
        Ok(Pending::new(delegate::start(&self.0)?, finish))
    }

    /// Starts the task and watches it.
    ///
    /// # Errors
    ///
    /// Those of [`Task::run`] that are known at once.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let mut child = leasehold_agent::delegate::task("chatty").watch::<serde_json::Value>()?;
    /// while let Some(event) = child.next_event()? {
    ///     leasehold_agent::info!("{} says {}", child.job_id()?, event.kind);
    /// }
    /// let result = child.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch<T: DeserializeOwned>(&self) -> Result<Watched<T>, Error> {
        Ok(Watched { call: delegate::start_stream(&self.0)?, result: PhantomData })
    }
}

fn finish<T: DeserializeOwned>(call: calls::PendingCall) -> Result<T, Error> {
    Ok(serde_json::from_str(&delegate::finish(call)?)?)
}

/// One event of another agent's job (ARCP §8.2).
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ChildEvent {
    /// Such as `log` or `progress`.
    pub kind: String,
    /// When.
    pub ts: Timestamp,
    /// What it says.
    pub body: Value,
}

/// A task under way that is watched. Dropping it cancels the other job.
#[derive(Debug)]
#[must_use = "a task that is dropped is given up"]
pub struct Watched<T> {
    call: calls::PendingCall,
    result: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Watched<T> {
    /// Gives the id of the job that does it.
    ///
    /// # Errors
    ///
    /// None that an agent can bring about.
    pub fn job_id(&self) -> Result<String, Error> {
        Ok(delegate::job_id(&self.call)?)
    }

    /// Waits for the next event of that job; `None` once it has ended.
    ///
    /// # Errors
    ///
    /// That with which the other job ended.
    pub fn next_event(&mut self) -> Result<Option<ChildEvent>, Error> {
        let event = delegate::next_event(&self.call)?;
        event.map(|event| serde_json::from_str(&event)).transpose().map_err(Error::from)
    }

    /// Waits for the result.
    ///
    /// # Errors
    ///
    /// That with which the other job ended.
    pub fn finish(self) -> Result<T, Error> {
        finish(self.call)
    }
}

impl<T> UnderWay for Watched<T> {
    fn call(&self) -> &calls::PendingCall {
        &self.call
    }
}
