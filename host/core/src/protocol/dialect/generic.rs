//! The draft's own spelling, which most clients read.

use std::time::Duration;

use super::{
    BudgetForm, Dialect, EventForm, LeaseForm,
    RefusalForm::{JobError, SessionError},
    Refusals, StoppedForm, Words,
};

pub const DIALECT: Dialect = Dialect {
    name: "generic",
    words: Words::Draft,
    refusals: Refusals {
        session: SessionError,
        submit: SessionError,
        list: JobError,
        subscribe: JobError,
        other: JobError,
    },
    budget: BudgetForm::Number,
    lease: LeaseForm::Map,
    stopped: StoppedForm::Error,
    output: false,
    event: EventForm::Plain,
    subscribe_pause: Duration::ZERO,
    mistakes_ends: false,
    only_bearer: false,
};

/// How those SDKs are refused whose calls wait for nothing but a `session.error`.
///
/// Some of them fail everything that is under way along with the call; without it the call would never return.
pub const BY_SESSION_ERROR: Refusals = Refusals { list: SessionError, subscribe: SessionError, ..DIALECT.refusals };
