//! The C# SDK.
//!
//! A refused hello cannot be told to it at all: it waits for a welcome until
//! the connection is closed.

use super::{
    Dialect,
    generic::{self, BY_SESSION_ERROR},
};

pub const DIALECT: Dialect = Dialect { name: "csharp", refusals: BY_SESSION_ERROR, ..generic::DIALECT };
