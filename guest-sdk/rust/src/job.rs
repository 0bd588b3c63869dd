//! What an agent may know of its own job. Needs no grant.

use std::{thread, time::Duration};

use crate::{Error, ErrorCode, Timestamp, bindings::job};

/// How long [`sleep`] may go on after a cancellation; the host's grace time is longer.
const NAP_MAX: Duration = Duration::from_secs(1);

/// Gives the job's id, `job_` and a ULID (ARCP §7.1).
///
/// ```no_run
/// leasehold_agent::info!("this is {}", leasehold_agent::job::id());
/// ```
#[must_use]
pub fn id() -> String {
    job::id()
}

/// Gives the agent as it was resolved at submission, `name@version` (ARCP §7.5).
///
/// ```no_run
/// assert!(leasehold_agent::job::agent().starts_with("summarize-files@"));
/// ```
#[must_use]
pub fn agent() -> String {
    job::agent()
}

/// Gives the W3C trace id, 32 hexadecimal digits (ARCP §11).
///
/// ```no_run
/// assert_eq!(leasehold_agent::job::trace_id().len(), 32);
/// ```
#[must_use]
pub fn trace_id() -> String {
    job::trace_id()
}

/// Gives the instant at which the lease ends, if it does (ARCP §9.5).
///
/// ```no_run
/// if let Some(at) = leasehold_agent::job::expires_at() {
///     leasehold_agent::info!("there is time until {at}");
/// }
/// ```
#[must_use]
pub fn expires_at() -> Option<Timestamp> {
    job::expires_at().map(Timestamp::new)
}

/// Gives what is left of each currency of the budget, as exact decimals (ARCP §9.6).
///
/// Empty if the lease has no `cost.budget`. What is left may be negative.
///
/// ```no_run
/// for (currency, left) in leasehold_agent::job::budget() {
///     leasehold_agent::info!("{left} {currency} left");
/// }
/// ```
#[must_use]
pub fn budget() -> Vec<(String, String)> {
    job::budget()
}

/// Gives the patterns the lease grants in a namespace such as `fs.read` (ARCP §9.2).
///
/// ```no_run
/// let readable = leasehold_agent::job::grants("fs.read");
/// ```
#[must_use]
pub fn grants(namespace: &str) -> Vec<String> {
    job::grants(namespace)
}

/// Tells whether cancellation was asked for (ARCP §7.4).
///
/// Once true it stays true, operations answer `cancelled`, and the job is ended
/// by force after the host's grace time (default 5 s).
///
/// ```no_run
/// let mut rounds = 0;
/// while !leasehold_agent::job::cancel_requested() {
///     rounds += 1;
/// }
/// ```
#[must_use]
pub fn cancel_requested() -> bool {
    job::cancel_requested()
}

/// Fails with `cancelled` once cancellation was asked for, so that `?` ends a loop.
///
/// # Errors
///
/// `cancelled`, and nothing else.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// for chapter in 1..=12 {
///     leasehold_agent::job::check_cancelled()?;
///     leasehold_agent::info!("chapter {chapter}");
/// }
/// # Ok(())
/// # }
/// ```
pub fn check_cancelled() -> Result<(), Error> {
    if cancel_requested() { Err(Error::new(ErrorCode::Cancelled, "the job is being cancelled")) } else { Ok(()) }
}

/// Sleeps, but no longer than a second once cancellation was asked for.
///
/// # Errors
///
/// `cancelled`, and nothing else.
///
/// ```no_run
/// # fn main() -> Result<(), leasehold_agent::Error> {
/// leasehold_agent::job::sleep(std::time::Duration::from_secs(30))?;
/// # Ok(())
/// # }
/// ```
pub fn sleep(duration: Duration) -> Result<(), Error> {
    // Time is counted down, not read from a clock: the calls a run makes are
    // then the same when the host replays it.
    let mut left = duration;
    while !left.is_zero() {
        let nap = left.min(NAP_MAX);
        thread::sleep(nap);
        left -= nap;
        check_cancelled()?;
    }
    Ok(())
}
