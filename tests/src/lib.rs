//! What every suite stands on: a host inside the test's process, and a client that reads the bare wire.
//!
//! A suite starts a [`TestHost`] and speaks to it over memory, a socket or a
//! pair of pipes. [`TestHost::client`] is the ordinary client of the command
//! line, for tests whose subject is elsewhere; [`TestHost::raw`] sends any text
//! and holds every frame it receives against the envelope's rules (ARCP §5).
//! Nothing here sleeps: whatever is waited for is bounded by [`within`].

pub mod host;
pub mod hostile;
pub mod http;
pub mod journals;
pub mod life;
pub mod mortal;
pub mod program;
pub mod python;
pub mod random;
pub mod raw;
pub mod transcript;
pub mod upstream;

use std::{fs, future::Future, path::Path, time::Duration};

pub use host::{Builder, TestHost};
pub use leasehold::{client::Client, config::MountMode};
pub use leasehold_core::error::ErrorCode;
pub use raw::{RawClient, Reply, Run};
use tempfile::TempDir;

/// The folder of the agents under test: every example in Rust, and the guests of the suites.
pub fn agents_dir() -> &'static Path {
    Path::new(env!("LEASEHOLD_TEST_AGENTS"))
}

/// A folder of some of them, of which a test can make what it likes, and which a host reads faster than all.
///
/// # Panics
///
/// If one of them cannot be copied.
#[must_use]
pub fn some_agents(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    for name in names {
        let file = format!("{name}@1.0.0.wasm");
        fs::copy(agents_dir().join(&file), dir.path().join(&file)).expect("an agent under test can be copied");
    }
    dir
}

/// A folder that hosts of all test processes share. It holds compiled agents, which are the same for all.
pub fn shared_data_dir() -> &'static Path {
    Path::new(env!("LEASEHOLD_TEST_DATA"))
}

/// How long anything may take. Far more than it does on a slow machine, far less than a test run's patience.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future`, and fails the test if it takes too long.
///
/// # Panics
///
/// After [`PATIENCE`], with `what` was waited for.
pub async fn within<T>(what: impl std::fmt::Display, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s in vain for {what}", PATIENCE.as_secs()),
    }
}
