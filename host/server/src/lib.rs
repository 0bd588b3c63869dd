//! A host that runs untrusted agents as WebAssembly components and speaks ARCP 1.1.
//!
//! `leasehold-core` decides, this crate does: sockets, storage, wasm, files.
//! `host/ARCHITECTURE.md` walks through it.
#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on is to panic"))]

pub mod agents;
pub mod audit;
pub mod capability;
pub mod checkpoint;
mod child;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod conformance;
pub mod connection;
pub mod credentials;
pub mod gateway;
pub mod host;
pub mod jobs;
pub mod journal;
pub mod policy;
pub mod project;
pub mod rate;
pub mod replay;
pub mod retention;
pub mod runner;
pub mod sandbox;
pub mod scaffold;
pub mod seal;
pub mod secrets;
pub mod sessions;
pub mod store;
pub mod suggest;
pub mod tape;
pub mod transport;
pub mod writer;
