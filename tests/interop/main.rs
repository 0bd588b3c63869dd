//! Real clients, written by others, against `leasehold serve` and `leasehold stdio`.
//!
//! A client whose toolchain is missing is skipped, visibly, and fails the suite
//! where the environment has `CI`.
//!
//! The SDKs that no package registry carries are replayed, see [`replay`].

mod asked;
mod before;
mod csharp;
mod fsharp;
mod go;
mod java;
mod php;
mod python;
mod replay;
mod ruby;
mod rust;
mod strict;
mod typescript;
