//! A client that is Java's or F#'s, when its hello does not say which.
//!
//! Both find an answer that is a `job.error` under the request's id. The F# SDK
//! loses the code where it expects a `session.error`, and nothing waits forever.

use super::{Dialect, generic, java::REFUSALS};

pub const DIALECT: Dialect = Dialect { name: "echo", refusals: REFUSALS, ..generic::DIALECT };
