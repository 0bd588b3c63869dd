//! Writes Leasehold agents in Rust.
//!
//! An agent is one function from an input to a result. It is built as a
//! WebAssembly component, and it reaches nothing but what its job's lease
//! grants (ARCP §9): no files, no network and no environment come from `std`.
//! Each module here is one of the host's interfaces, and a refusal is an
//! [`Error`] to handle, never a crash.
//!
//! ```no_run
//! use leasehold_agent::{Error, agent, fs, info};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Input {
//!     path: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Output {
//!     lines: usize,
//! }
//!
//! agent!(run);
//!
//! fn run(input: Input) -> Result<Output, Error> {
//!     info!("counting the lines of {}", input.path);
//!     let text = fs::read_to_string(&input.path)?;
//!     Ok(Output { lines: text.lines().count() })
//! }
//! ```
//!
//! Built natively the crate compiles, so the parts of an agent that call no
//! host can be tested with `cargo test`; a call to the host panics there.

#![warn(missing_docs)]

mod agent;
#[doc(hidden)]
pub mod bindings;
pub mod calls;
pub mod delegate;
mod error;
pub mod events;
pub mod fs;
pub mod job;
pub mod metrics;
pub mod model;
pub mod net;
pub mod output;
mod time;
pub mod tool;

#[doc(hidden)]
pub use agent::{answer, report_panics};
pub use error::{Error, ErrorCode};
pub use time::Timestamp;

/// The tutorial's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Tutorial;
