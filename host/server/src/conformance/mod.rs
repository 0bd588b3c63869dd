//! Black-box cases that any ARCP 1.1 runtime can be held against.
//!
//! A case speaks to the runtime over its public wire and knows nothing else of it. The runtime needs the agents `echo`,
//! `chatty` and `sleeper` as this repository's `examples/` define them; a case that needs more is skipped and says what.
//! What the draft leaves open is open here: each legal form of an answer passes.
//!
//! The numbers of the cases stay what they are, so that results can be compared over time.

mod s04_transport;
mod s05_envelope;
mod s06_2_hello;
mod s06_3_resume;
mod s06_4_heartbeat;
mod s06_6_list_jobs;
mod s06_7_close;
mod s07_1_submit;
mod s07_2_idempotency;
mod s07_4_cancel;
mod s07_5_versions;
mod s07_6_subscribe;
mod s08_events;
mod s09_leases;
mod s11_trace;
mod s12_errors;
mod target;
mod wire;

use std::{any::Any, panic::AssertUnwindSafe, pin::Pin};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Serialize;
use tokio::time::timeout;

pub use self::target::{Address, AddressError, Target};

/// One thing a runtime does right or wrong.
pub struct Case {
    /// Its number.
    pub id: u16,
    /// The section of the draft it is about.
    pub section: &'static str,
    /// What is right.
    pub sentence: &'static str,
    check: Check,
}

enum Check {
    Run(Run),
    Needs(&'static str),
}

type Run = for<'a> fn(&'a Target) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

impl Case {
    const fn new(id: u16, section: &'static str, sentence: &'static str, run: Run) -> Self {
        Self { id, section, sentence, check: Check::Run(run) }
    }

    /// A case that cannot be run with what every runtime under test has.
    const fn needs(id: u16, section: &'static str, sentence: &'static str, what: &'static str) -> Self {
        Self { id, section, sentence, check: Check::Needs(what) }
    }
}

/// Makes an `async fn(&Target) -> anyhow::Result<()>` what a [`Case`] holds.
macro_rules! check {
    ($run:path) => {
        |target| Box::pin($run(target))
    };
}
use check;

/// Every case, in the order of its number.
#[must_use]
pub fn cases() -> Vec<&'static Case> {
    let tables = [
        s04_transport::CASES,
        s05_envelope::CASES,
        s06_2_hello::CASES,
        s06_3_resume::CASES,
        s06_4_heartbeat::CASES,
        s06_6_list_jobs::CASES,
        s06_7_close::CASES,
        s07_1_submit::CASES,
        s07_2_idempotency::CASES,
        s07_4_cancel::CASES,
        s07_5_versions::CASES,
        s07_6_subscribe::CASES,
        s08_events::CASES,
        s09_leases::CASES,
        s11_trace::CASES,
        s12_errors::CASES,
    ];
    let mut cases: Vec<_> = tables.into_iter().flatten().collect();
    cases.sort_by_key(|case| case.id);
    cases
}

/// Why a case proves nothing about this runtime.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Skip(String);

/// Gives up a case for a reason that is not the runtime's fault.
fn skip<T>(why: impl Into<String>) -> anyhow::Result<T> {
    Err(Skip(why.into()).into())
}

/// How a case went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The runtime does what the case says.
    Passed,
    /// It does not.
    Failed,
    /// Nobody knows.
    Skipped,
}

/// A case and how it went.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The case's number.
    pub id: u16,
    /// Its section.
    pub section: &'static str,
    /// How it went.
    pub status: Status,
    /// Why it failed or was skipped.
    pub why: Option<String>,
    /// What the case says.
    #[serde(skip)]
    pub sentence: &'static str,
}

/// How all of them went.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many cases passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
    /// How many were skipped.
    pub skipped: usize,
    /// Each of them, by number.
    pub cases: Vec<Outcome>,
}

/// Runs `cases` against a runtime, at most `at_once` of them at the same time, and tells `watch` of each as it ends.
pub async fn run(target: &Target, cases: &[&'static Case], at_once: usize, mut watch: impl FnMut(&Outcome)) -> Report {
    let mut running = stream::iter(cases).map(|case| outcome(target, case)).buffer_unordered(at_once.max(1));
    let mut outcomes = Vec::new();
    while let Some(outcome) = running.next().await {
        watch(&outcome);
        outcomes.push(outcome);
    }
    outcomes.sort_by_key(|outcome| outcome.id);
    let count = |status| outcomes.iter().filter(|outcome| outcome.status == status).count();
    let [passed, failed, skipped] = [Status::Passed, Status::Failed, Status::Skipped].map(count);
    Report { passed, failed, skipped, cases: outcomes }
}

async fn outcome(target: &Target, case: &Case) -> Outcome {
    let result = match case.check {
        Check::Needs(what) => skip(format!("needs {what}")),
        Check::Run(run) => {
            // Whatever a runtime makes a case do, the others go on.
            let case = AssertUnwindSafe(run(target)).catch_unwind();
            match timeout(target.case_timeout(), case).await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(anyhow::anyhow!("the suite itself failed: {}", said(&*panic))),
                Err(_) => Err(anyhow::anyhow!("it did not end within {} s", target.case_timeout().as_secs())),
            }
        }
    };
    let (status, why) = match result {
        Ok(()) => (Status::Passed, None),
        Err(error) if error.is::<Skip>() => (Status::Skipped, Some(error.to_string())),
        Err(error) => (Status::Failed, Some(format!("{error:#}"))),
    };
    Outcome { id: case.id, section: case.section, status, why, sentence: case.sentence }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_171_cases_numbered_from_1() {
        let numbers: Vec<u16> = cases().iter().map(|case| case.id).collect();
        assert_eq!(numbers, (1..=171).collect::<Vec<_>>());
    }
}
