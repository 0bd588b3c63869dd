//! The Go SDK.
//!
//! It finds the call that failed by the `request_id` of a `session.error`, and
//! a job's result in `output`.

use super::{
    Dialect,
    generic::{self, BY_SESSION_ERROR},
};

pub const DIALECT: Dialect = Dialect { name: "go", refusals: BY_SESSION_ERROR, output: true, ..generic::DIALECT };
