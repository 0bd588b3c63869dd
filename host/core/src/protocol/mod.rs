//! The wire of ARCP 1.1, and nothing else (ARCP §4-§8).
//!
//! A frame is parsed once, into a [`client::ClientMessage`] that cannot be
//! wrong; an answer is a [`server::ServerMessage`] that becomes a frame in one
//! place, [`server::ServerMessage::encode`]. What one SDK spells differently is
//! a row of data in [`dialect`].

pub mod client;
pub mod credential;
pub mod dialect;
pub mod event;
pub mod feature;
pub mod json;
pub mod server;
pub mod status;
pub mod trace;
