//! The Ruby SDK.
//!
//! A lease is an object with an `id` to it, and a map of patterns ends its
//! reader.

use super::{
    Dialect, LeaseForm,
    RefusalForm::JobErrorOfIt,
    Refusals,
    generic::{self, BY_SESSION_ERROR},
};

pub const DIALECT: Dialect = Dialect {
    name: "ruby",
    refusals: Refusals { subscribe: JobErrorOfIt, ..BY_SESSION_ERROR },
    lease: LeaseForm::Capabilities,
    ..generic::DIALECT
};
