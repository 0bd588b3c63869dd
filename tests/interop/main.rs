//! Real clients, written by others, against `leasehold serve` and `leasehold stdio`.
//!
//! A client whose toolchain is missing is skipped, visibly, and fails the suite
//! where the environment has `CI`.

mod python;
