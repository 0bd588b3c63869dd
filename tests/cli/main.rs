//! The command line as its users meet it: what a command prints, and its exit code as `leasehold --help` documents it.

mod audit;
mod client;
mod credentials;
mod deploy;
mod dev;
mod itself;
mod journal;
mod lease;
mod project;
mod remote;
mod run;
mod serve;
mod troubleshooting;

/// What `leasehold --help` says of exit codes.
mod code {
    pub const SUCCESS: i32 = 0;
    pub const JOB_FAILED: i32 = 1;
    pub const USAGE: i32 = 2;
    pub const CANNOT_CONNECT: i32 = 3;
    pub const REFUSED: i32 = 4;
    pub const INTERRUPTED: i32 = 130;
}
