//! What a Leasehold host decides.
#![forbid(unsafe_code)]

pub mod error;
pub mod id;
pub mod lease;
pub mod time;
