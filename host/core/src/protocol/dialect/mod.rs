//! What one SDK's client spells differently from the draft.
//!
//! A session speaks the draft's words. Where a client cannot read them, its
//! dialect says so here as data, one small file per SDK, and the encoder reads
//! it. The dialect is chosen once, from the client's hello.

mod generic;
mod python;

use std::time::Duration;

use super::client::Hello;

/// How a client's spelling differs from the draft's.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Name for logs.
    pub name: &'static str,
    /// How the counters of `job.accepted` are written.
    pub budget: BudgetForm,
    /// How the end of a cancelled or timed-out job is written.
    pub stopped: StoppedForm,
    /// How long the client needs after `job.subscribed` before it takes what is told of the job.
    pub subscribe_pause: Duration,
}

/// How a budget counter is written (§7.1).
#[derive(Debug, PartialEq, Eq)]
pub enum BudgetForm {
    /// `{"USD": 5.00}`
    Number,
    /// `{"USD": "USD:5.00"}`
    Amount,
}

/// How the end of a job is written that neither succeeded nor failed (§7.3).
#[derive(Debug, PartialEq, Eq)]
pub enum StoppedForm {
    /// `job.error` with the code `CANCELLED` or `TIMEOUT`.
    Error,
    /// `job.result` with the `final_status` alone.
    Result,
}

/// The draft's own spelling.
pub const GENERIC: &Dialect = &generic::DIALECT;

/// Chooses the dialect of the client that sent `hello` in an envelope named `id`.
#[must_use]
pub fn detect(id: &str, hello: &Hello) -> &'static Dialect {
    if python::speaks(id, hello) { &python::DIALECT } else { GENERIC }
}

/// The dialect of this name; the draft's own spelling if there is none.
#[must_use]
pub fn named(name: &str) -> &'static Dialect {
    [&python::DIALECT].into_iter().find(|dialect| dialect.name == name).unwrap_or(GENERIC)
}
