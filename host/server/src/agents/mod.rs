//! The components a host can run: what they ask for, which versions there are, their compiled form.

pub mod audit;
pub mod cache;
pub mod compiler;
pub mod folder;
pub mod registry;
pub mod worker;
