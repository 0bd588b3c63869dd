//! The Java SDK.
//!
//! It knows no `session.error`; it takes a `job.error` of no job for the answer
//! to what it waits for, and one of a job for the end of its events.

use super::{
    Dialect,
    RefusalForm::{JobError, JobErrorOfIt},
    Refusals, generic,
};

/// Also how F# is refused as long as nobody can tell the two apart.
pub const REFUSALS: Refusals =
    Refusals { session: JobError, submit: JobError, list: JobError, subscribe: JobErrorOfIt, other: JobError };

pub const DIALECT: Dialect = Dialect { name: "java", refusals: REFUSALS, ..generic::DIALECT };
