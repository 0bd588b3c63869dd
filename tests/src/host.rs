//! A host inside the test's process.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use leasehold::{
    agents::compiler::Place,
    client::{Client, ClientInfo},
    clock::{Clock, Hands},
    config::{Config, MountEntry, MountMode, PolicyEntry},
    host::{Host, Parts},
    sandbox::limits::Limits,
    secrets::SecretSource,
    store::{
        Store,
        memory::Memory,
        sqlite::{Sqlite, SqliteOptions},
    },
    transport::Transport,
};
use leasehold_core::{id::Principal, secret::Secret, time::Timestamp};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agents_dir,
    raw::{RawClient, hello},
    shared_data_dir, within,
};

/// Whom [`TestHost::client`] is.
pub const ALICE: &str = "alice";
/// Somebody else.
pub const BOB: &str = "bob";

/// The token of a principal that [`Builder`] lets in.
#[must_use]
pub fn token(name: &str) -> String {
    format!("token-of-{name}")
}

/// Fills a folder with the files that the transcripts of the examples speak of.
///
/// # Panics
///
/// If they cannot be written.
pub fn fill_workspace(folder: &Path) {
    fs::create_dir(folder.join("letters")).expect("the folder is ours");
    for (name, text) in [
        ("notes.md", "# Notes\n\nA lease is a promise. A promise is kept.\n".as_bytes()),
        ("letters/first.txt", b"Dear reader,\nthe agent reads what it may.\n"),
        ("letters/second.txt", b"The agent stops where the lease stops.\n"),
        ("picture.bin", &[0xff, 0xfe, 0, 1]),
        (".hidden", b"not for the report\n"),
    ] {
        fs::write(folder.join(name), text).expect("the folder is ours");
    }
}

/// Decides what a [`TestHost`] is like. The defaults are a host's own, with two tokens and a store in memory.
pub struct Builder {
    config: Config,
    clock: Clock,
    hands: Option<Hands>,
    storage: Storage,
    owner: Option<Principal>,
    registers: bool,
    compiler: Place,
    folders: BTreeMap<String, TempDir>,
}

enum Storage {
    Memory,
    Sqlite,
    Given(Arc<dyn Store>),
}

impl Default for Builder {
    fn default() -> Self {
        let mut config = Config::default();
        config.server.listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        config.server.agents = agents_dir().to_owned();
        config.server.data = shared_data_dir().to_owned();
        // Many hosts live at once in a test process, and each reserves address space for its agents.
        config.limits.live_agents_max = 64;
        // Under a clock that stands still there would never be another answer.
        config.server.answers_per_sec = u32::MAX;
        for name in [ALICE, BOB] {
            config.tokens.insert(name.to_owned(), SecretSource::Text(Secret::new(token(name))));
        }
        Self {
            config,
            clock: Clock::system(),
            hands: None,
            storage: Storage::Memory,
            owner: None,
            registers: true,
            compiler: Place::InProcess,
            folders: BTreeMap::new(),
        }
    }
}

impl Builder {
    /// Changes any setting.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes what one agent may use.
    #[must_use]
    pub fn limits(self, change: impl FnOnce(&mut Limits)) -> Self {
        self.config(|config| change(&mut config.limits))
    }

    /// Lets nobody in by a token, and whoever connects without one as `name`.
    #[must_use]
    pub fn owner(mut self, name: &str) -> Self {
        self.config.tokens.clear();
        self.owner = Some(Principal::new(name));
        self
    }

    /// Gives a principal a ceiling, as `[policy.NAME]` does: `json!({"fs.read": ["/w/**"]})`.
    ///
    /// # Panics
    ///
    /// If the lease is not a map of lists of texts.
    #[must_use]
    pub fn policy(mut self, name: &str, lease: Value) -> Self {
        let lease = serde_json::from_value(lease).expect("a lease maps namespaces to patterns");
        self.entry(name).lease = Some(lease);
        self
    }

    /// Lets a principal do more to jobs that are not of its session.
    #[must_use]
    pub fn rights(mut self, name: &str, observes: &[&str], cancels_from_any_session: bool) -> Self {
        let entry = self.entry(name);
        entry.observes = observes.iter().map(|&name| name.to_owned()).collect();
        entry.cancels_from_any_session = cancels_from_any_session;
        self
    }

    fn entry(&mut self, name: &str) -> &mut PolicyEntry {
        self.config.policy.entry(name.to_owned()).or_default()
    }

    /// Mounts a fresh folder, which [`TestHost::folder`] names.
    ///
    /// # Panics
    ///
    /// If the folder cannot be made.
    #[must_use]
    pub fn mount(mut self, at: &str, mode: MountMode) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        self = self.mount_dir(at, dir.path(), mode);
        self.folders.insert(at.to_owned(), dir);
        self
    }

    /// Mounts a folder of the test's own.
    #[must_use]
    pub fn mount_dir(mut self, at: &str, path: &Path, mode: MountMode) -> Self {
        self.config.mounts.push(MountEntry { at: at.to_owned(), path: path.to_owned(), mode });
        self
    }

    /// Stops the clock at `moment`; [`TestHost::advance`] moves it.
    ///
    /// # Panics
    ///
    /// If `moment` is not RFC 3339.
    #[must_use]
    pub fn at(mut self, moment: &str) -> Self {
        let (clock, hands) = Clock::manual(moment.parse::<Timestamp>().expect("the moment is RFC 3339, UTC"));
        (self.clock, self.hands) = (clock, Some(hands));
        self
    }

    /// Keeps journals in SQLite, in a temporary folder, as a host does.
    #[must_use]
    pub fn sqlite(mut self) -> Self {
        self.storage = Storage::Sqlite;
        self
    }

    /// Keeps journals in `store`, which may be another host's, or one that fails.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.storage = Storage::Given(store);
        self
    }

    /// Leaves the agents out; [`TestHost::host`] can register some.
    #[must_use]
    pub fn without_agents(mut self) -> Self {
        self.registers = false;
        self
    }

    /// Has agents compiled there, and not within the test's process, which is faster.
    #[must_use]
    pub fn compiler(mut self, place: Place) -> Self {
        self.compiler = place;
        self
    }

    /// Starts the host.
    ///
    /// # Panics
    ///
    /// If it does not start, or refuses one of the agents.
    pub async fn start(mut self) -> TestHost {
        let mut sqlite = None;
        let store: Arc<dyn Store> = match self.storage {
            Storage::Memory => Arc::new(Memory::default()),
            Storage::Given(store) => store,
            // Opened here and not by the host, whose data folder also holds the compiled agents, which are shared.
            Storage::Sqlite => {
                let dir = tempfile::tempdir().expect("a temporary folder can be made");
                let store = Sqlite::open(&dir.path().join("journal.sqlite"), SqliteOptions::default());
                let store = Arc::new(store.expect("a fresh SQLite file can be opened"));
                self.folders.insert(String::new(), dir);
                sqlite = Some(Arc::clone(&store));
                store
            }
        };
        let parts = Parts { clock: self.clock, store: Some(store), owner: self.owner, compiler: self.compiler };
        let host = within("the host to start", Host::start(self.config, parts)).await.expect("the host starts");
        if self.registers {
            let problems = within("the agents", host.register_agents()).await.expect("the agents folder can be read");
            assert!(problems.is_empty(), "the host refuses agents of its own: {problems:?}");
            host.resume_jobs();
        }
        TestHost { host: Arc::new(host), hands: self.hands, folders: self.folders, sqlite }
    }
}

/// A running host. It stops when this is dropped.
pub struct TestHost {
    host: Arc<Host>,
    hands: Option<Hands>,
    folders: BTreeMap<String, TempDir>,
    sqlite: Option<Arc<Sqlite>>,
}

impl TestHost {
    /// A host with the defaults.
    pub async fn new() -> Self {
        Self::builder().start().await
    }

    /// A host whose clock stands still at `moment`.
    pub async fn at(moment: &str) -> Self {
        Self::builder().at(moment).start().await
    }

    /// A host to be described.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The host itself.
    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The folder that [`Builder::mount`] made for `at`.
    ///
    /// # Panics
    ///
    /// If it made none.
    #[must_use]
    pub fn folder(&self, at: &str) -> PathBuf {
        self.folders.get(at).expect("this path was mounted with `mount`").path().to_owned()
    }

    /// Moves the clock.
    ///
    /// # Panics
    ///
    /// If the clock is the machine's.
    pub fn advance(&self, by: Duration) {
        self.hands.as_ref().expect("the clock was stopped with `at`").advance(by);
    }

    /// Moves the clock by `step` again and again until `future` is done.
    ///
    /// For what waits since a moment that the test does not know.
    ///
    /// # Panics
    ///
    /// If the clock is the machine's, or the future takes too long.
    pub async fn advancing<T>(&self, step: Duration, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let step_by_step = async {
            loop {
                tokio::select! {
                    biased;
                    value = &mut future => return value,
                    () = tokio::task::yield_now() => self.advance(step),
                }
            }
        };
        within("something that takes time", step_by_step).await
    }

    /// A connection to this host, with nothing said yet.
    #[must_use]
    pub fn connect(&self) -> Transport {
        self.host.connect()
    }

    /// A connection of one JSON document a line, as over stdio, with nothing said yet.
    #[must_use]
    pub fn connect_lines(&self) -> Transport {
        const BYTES_MAX: usize = 16 << 20;
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let ends = [ours, theirs].map(|end| {
            let (reader, writer) = tokio::io::split(end);
            Transport::lines(reader, writer, BYTES_MAX)
        });
        let [ours, theirs] = ends;
        self.serve_one(theirs);
        ours
    }

    /// Serves a peer that came some other way.
    pub fn serve_one(&self, transport: Transport) {
        let host = Arc::clone(&self.host);
        tokio::spawn(async move { host.serve_one(transport).await });
    }

    /// Opens a listener on loopback and serves it; gives its address.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn serve(&self) -> SocketAddr {
        let listener = self.host.listen().await.expect("a port of loopback is free");
        let address = listener.local_addr().expect("a listener has an address");
        let host = Arc::clone(&self.host);
        tokio::spawn(async move { host.serve(listener).await });
        address
    }

    /// As [`serve`](Self::serve), and gives the URL of the WebSocket.
    pub async fn serve_url(&self) -> String {
        format!("ws://{}/arcp", self.serve().await)
    }

    /// Alice, with an open session.
    pub async fn client(&self) -> Client {
        self.client_as(ALICE).await
    }

    /// Somebody, with an open session.
    ///
    /// # Panics
    ///
    /// If the host does not let them in.
    pub async fn client_as(&self, name: &str) -> Client {
        let token = token(name);
        let opened = Client::open(self.connect(), Some(&token), ClientInfo::default());
        within("a session", opened).await.expect("the host lets its own principal in")
    }

    /// A client of the bare wire that has said nothing yet.
    #[must_use]
    pub fn raw(&self) -> RawClient {
        RawClient::new(self.connect())
    }

    /// Alice on the bare wire, welcomed with every feature.
    pub async fn session(&self) -> RawClient {
        self.session_as(ALICE).await
    }

    /// Somebody on the bare wire, welcomed with every feature.
    pub async fn session_as(&self, name: &str) -> RawClient {
        let mut raw = self.raw();
        raw.open(&token(name)).await;
        raw
    }

    /// Alice on the bare wire, welcomed with these features.
    ///
    /// Without `heartbeat`, the host's clock may run while the test is silent.
    pub async fn session_offering(&self, features: &[&str]) -> RawClient {
        let mut hello = hello(&token(ALICE));
        hello["capabilities"]["features"] = features.into();
        let mut raw = self.raw();
        raw.open_with(hello).await;
        raw
    }

    /// Stops the host and waits until its data is on the disk.
    ///
    /// Sessions are told; jobs that run are left to the runtime, as when a process ends.
    pub async fn stop(self) {
        self.host.stop();
        if let Some(sqlite) = &self.sqlite {
            within("the store to close", sqlite.close()).await;
        }
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        self.host.stop();
    }
}
