//! Hosts that have the same data one after the other, each until it is killed.

use std::sync::Arc;

use leasehold::{
    client::{Client, ClientInfo, Resume},
    config::MountMode,
    store::{Store, memory::Memory},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Builder, TestHost,
    host::{ALICE, token},
    mortal::{Death, Mortal},
    some_agents, within,
};

/// What outlives a host: its store, the folder of its agents, and the one that its jobs see as `/w`.
pub struct Estate {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The agents, which a test may change between two lives.
    pub agents: TempDir,
    /// The files.
    pub files: TempDir,
}

impl Default for Estate {
    fn default() -> Self {
        let files = tempfile::tempdir().expect("a temporary folder can be made");
        Self { store: Arc::new(Memory::default()), agents: some_agents(&["hostile", "echo"]), files }
    }
}

/// The lease of a job that may do anything in `/w`.
#[must_use]
pub fn lease() -> Value {
    json!({ "fs.read": ["/w/**"], "fs.write": ["/w/**"] })
}

impl Estate {
    /// A host on what the last one left, whose clock stands still at `moment`.
    pub async fn host(&self, moment: &str) -> Life {
        self.host_with(moment, |builder| builder).await
    }

    /// As [`host`](Self::host), with other settings.
    pub async fn host_with(&self, moment: &str, settings: impl FnOnce(Builder) -> Builder) -> Life {
        let view = Mortal::of(&self.store, Death::Never);
        let builder = TestHost::builder().at(moment).store(Arc::clone(&view) as Arc<dyn Store>);
        let builder = builder.mount_dir("/w", self.files.path(), MountMode::Rw);
        let builder = builder.config(|config| config.server.agents = self.agents.path().to_owned());
        Life { host: settings(builder).start().await, view }
    }
}

/// A host's time on an [`Estate`].
pub struct Life {
    /// The host.
    pub host: TestHost,
    view: Arc<Mortal>,
}

impl Life {
    /// A client that does not mind if the clock runs while it is silent.
    pub async fn client(&self) -> Client {
        self.client_of(None).await
    }

    /// As [`client`](Self::client), in a session that began with an earlier host (ARCP §6.3).
    ///
    /// # Panics
    ///
    /// If it is not let in.
    pub async fn client_of(&self, session: Option<Resume>) -> Client {
        let mut info = ClientInfo { resume: session, ..ClientInfo::default() };
        info.features.retain(|feature| feature != "heartbeat");
        let token = token(ALICE);
        let opened = Client::open(self.host.connect(), Some(&token), info);
        within("a session", opened).await.expect("the host lets its own principal in")
    }

    /// Ends the host: nothing it does from now on is written down.
    pub fn kill(self) {
        self.view.kill();
    }
}
