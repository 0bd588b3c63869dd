//! Where agents run: an engine, what an instance may use, and a world without authority around it.
//!
//! One function, [`instance::store`], builds every Store there is, and a Store
//! runs one job and is thrown away.

pub mod engine;
pub mod inert_wasi;
pub mod instance;
pub mod limits;
pub mod pace;
