//! The F# SDK.
//!
//! It finds the answer to a request by the request's own id, and reads a code
//! from the type it expects there alone.

use super::{
    Dialect,
    RefusalForm::JobError,
    Refusals,
    generic::{self, BY_SESSION_ERROR},
};

pub const DIALECT: Dialect =
    Dialect { name: "fsharp", refusals: Refusals { submit: JobError, ..BY_SESSION_ERROR }, ..generic::DIALECT };
