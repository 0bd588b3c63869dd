//! Calls that are under way while the agent goes on.
//!
//! What takes its time can be started instead of done: [`crate::delegate::Task::start`] and its like give a [`Pending`]
//! at once. Dropping one gives the call up.

use std::{fmt, time::Duration};

use crate::{Error, bindings::calls};

/// A call under way, and what it will give.
#[must_use = "a call that is dropped is given up"]
pub struct Pending<T> {
    call: calls::PendingCall,
    finish: fn(calls::PendingCall) -> Result<T, Error>,
}

impl<T> Pending<T> {
    pub(crate) fn new(call: calls::PendingCall, finish: fn(calls::PendingCall) -> Result<T, Error>) -> Self {
        Self { call, finish }
    }

    /// Gives the `call_id` of its `tool_call` and `tool_result` events (ARCP §8.2).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let call = leasehold_agent::delegate::task("echo").start::<String>()?;
    /// leasehold_agent::info!("started {}", call.id());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn id(&self) -> String {
        self.call.call_id()
    }

    /// Waits for the call's end and gives its outcome.
    ///
    /// # Errors
    ///
    /// Those of the call itself.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), leasehold_agent::Error> {
    /// let call = leasehold_agent::delegate::task("echo").start::<String>()?;
    /// let answer = call.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish(self) -> Result<T, Error> {
        (self.finish)(self.call)
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("id", &self.id()).finish()
    }
}

/// Something that can be waited for: a [`Pending`] or a stream.
pub trait UnderWay {
    /// The call, as the host knows it.
    #[doc(hidden)]
    fn call(&self) -> &calls::PendingCall;
}

impl<T> UnderWay for Pending<T> {
    fn call(&self) -> &calls::PendingCall {
        &self.call
    }
}

/// Waits until one of some calls has something to take, and gives its index: the one that had it first.
///
/// `None` once `patience` is over without.
///
/// # Errors
///
/// `invalid-request` for an empty list.
///
/// ```no_run
/// use std::time::Duration;
///
/// use leasehold_agent::{calls, delegate};
///
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let mut racers = vec![delegate::task("hare").start::<String>()?, delegate::task("tortoise").start()?];
/// let winner = calls::wait_any([&racers[0], &racers[1]], Some(Duration::from_secs(5)))?;
/// let answer = winner.map(|index| racers.swap_remove(index).finish());
/// # Ok(())
/// # }
/// ```
pub fn wait_any<'c>(
    calls: impl IntoIterator<Item = &'c (impl UnderWay + 'c)>,
    patience: Option<Duration>,
) -> Result<Option<usize>, Error> {
    let calls: Vec<&calls::PendingCall> = calls.into_iter().map(UnderWay::call).collect();
    wait(&calls, patience)
}

/// Waits as [`wait_any`] does, for calls of several kinds.
///
/// # Errors
///
/// Those of [`wait_any`].
///
/// ```no_run
/// use leasehold_agent::{calls, delegate};
///
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let (text, number) = (delegate::task("a").start::<String>()?, delegate::task("b").start::<u64>()?);
/// let first = calls::wait_any_of(&[&text, &number], None)?;
/// # Ok(())
/// # }
/// ```
pub fn wait_any_of(calls: &[&dyn UnderWay], patience: Option<Duration>) -> Result<Option<usize>, Error> {
    let calls: Vec<&calls::PendingCall> = calls.iter().map(|call| call.call()).collect();
    wait(&calls, patience)
}

fn wait(calls: &[&calls::PendingCall], patience: Option<Duration>) -> Result<Option<usize>, Error> {
    let patience = patience.map(|patience| u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
    let first = calls::wait_any(calls, patience)?;
    Ok(first.and_then(|first| usize::try_from(first).ok()))
}

/// Waits for all of some calls and gives their outcomes, in the order of the calls.
///
/// ```no_run
/// use leasehold_agent::{calls, delegate};
///
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// let started: Result<Vec<_>, _> =
///     (0..10).map(|part| delegate::task("worker").input(&part)?.start::<u64>()).collect();
/// let sum: u64 = calls::finish_all(started?).into_iter().filter_map(Result::ok).sum();
/// # Ok(())
/// # }
/// ```
pub fn finish_all<T>(calls: impl IntoIterator<Item = Pending<T>>) -> Vec<Result<T, Error>> {
    calls.into_iter().map(Pending::finish).collect()
}
