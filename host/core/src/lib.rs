//! What a Leasehold host decides: wire types, sessions, leases, money, job states.
//!
//! There is no I/O here, no clock, no randomness and no task: time and fresh
//! ids are arguments. The server (`leasehold`) does what this crate decides.
//!
//! ```text
//! error id secret time  <-  lease  <-  protocol  <-  job  <-  session     ("<-": is imported by)
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic"))]

pub mod error;
pub mod id;
pub mod job;
pub mod lease;
pub mod protocol;
pub mod secret;
pub mod session;
pub mod time;
