//! The TypeScript SDK.
//!
//! A call is refused by the end of a job it has not heard of; by a
//! `session.error`, all calls are. So the job that is named must not be one that
//! exists, or a call that succeeded would fail; and while a call waits, no job
//! may fail that the client only watches.

use super::{
    Dialect,
    RefusalForm::JobErrorOfNone,
    Refusals,
    generic::{self, BY_SESSION_ERROR},
};

pub const DIALECT: Dialect = Dialect {
    name: "typescript",
    refusals: Refusals { submit: JobErrorOfNone, ..BY_SESSION_ERROR },
    mistakes_ends: true,
    only_bearer: true,
    ..generic::DIALECT
};
