//! The parts of a host, put together.
//!
//! A program of your own holds one like this, and reaches it without a network:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use leasehold::{client::{Client, ClientInfo, Submit}, host::Host};
//!
//! let host = Host::builder().agents("agents").data("data").token("me", "a token").start().await?;
//! let mut client = Client::open(host.connect(), Some("a token"), ClientInfo::default()).await?;
//! client.submit(Submit::new("hello-rust", serde_json::json!({ "name": "Ada" }))).await?;
//! # Ok(()) }
//! ```

mod builder;
#[cfg(feature = "axum")]
mod router;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use leasehold_core::{id::Principal, secret::Secret};
use tokio::{net::TcpListener, task::JoinError};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub use self::builder::Builder;
use crate::{
    agents::{
        cache::{Cache, Tidied},
        compiler::{Compiler, Place},
        folder::Folder,
        registry::{RegisterError, Registry},
    },
    capability::{Services, World, models::Models, mounts::Mounts, tools::Tools, web::Web},
    clock::{self, Clock},
    config::{Config, PolicyEntry, Synchronous},
    connection::{self, Desk},
    credentials::keeper::{Keeper, warn_of_orphans},
    gateway::Gateway,
    jobs::{Jobs, Keys},
    journal,
    policy::{Observes, Policy, Rights},
    retention::Retention,
    sandbox::{engine::Sandbox, limits},
    seal::{Sealer, SigningKey},
    sessions::{Bounds, Sessions},
    store::{
        Store, StoreError,
        sqlite::{self, Sqlite, SqliteOptions},
    },
    transport::{
        self, Transport,
        websocket::{self, Pages, Route},
    },
};

/// How often the host looks for compiled agents that nobody needs.
const TIDY_INTERVAL: Duration = Duration::from_secs(600);

/// A running host: everything but its listeners.
pub struct Host {
    config: Config,
    desk: Arc<Desk>,
    store: Arc<dyn Store>,
    sqlite: Option<Arc<Sqlite>>,
    /// Who makes keys for jobs.
    keeper: Option<Arc<Keeper>>,
    /// What removes old jobs; it may stop at any moment.
    retention: AbortOnDropHandle<()>,
    /// What forgets sessions; it may stop at any moment, too.
    expiry: AbortOnDropHandle<()>,
    /// What looks for new agents, once there were some; so may this.
    deployment: OnceLock<AbortOnDropHandle<()>>,
    /// What removes compiled agents that nobody needs; and this.
    tidying: AbortOnDropHandle<()>,
    live_agents: usize,
    /// The token that was made because there was none.
    made_token: Option<Secret>,
}

/// What a host is built from besides its settings.
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// Where streams go; SQLite in the data folder if there is none here.
    pub store: Option<Arc<dyn Store>>,
    /// Who a peer without a token is, on a wire that only the owner of this process holds.
    pub owner: Option<Principal>,
    /// Where components are compiled.
    pub compiler: Place,
}

impl Default for Parts {
    fn default() -> Self {
        Self { clock: Clock::system(), store: None, owner: None, compiler: Place::default() }
    }
}

/// Why a host cannot start. The message names the setting.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    fn new(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

impl Host {
    /// Puts a host together: opens the data and the mounts, registers the agents, reads the journals.
    ///
    /// # Errors
    ///
    /// If a setting cannot be used. A file in the agents folder that is no agent is logged and left out.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        config.check().map_err(|error| StartError(error.to_string()))?;
        let mounts = Mounts::open(config.read_mounts().map_err(|error| StartError(error.to_string()))?);
        let mounts = Arc::new(mounts.map_err(|error| StartError::new("mounts", chain(&error)))?);
        let (policy, made_token) = policy(&config, &mounts, parts.owner)?;
        let data = data_folder(config.server.data.clone())?;
        keep_apart(&config, &mounts, &data)?;
        let (store, sqlite) = match parts.store {
            Some(store) => (store, None),
            None => {
                let sqlite = Arc::new(open_sqlite(&config)?);
                (Arc::clone(&sqlite) as Arc<dyn Store>, Some(sqlite))
            }
        };
        let key = SigningKey::load_or_make(&data).map_err(|error| StartError::new("server.data", error))?;
        let sealer = Arc::new(Sealer { key, records_max: config.server.seal_records_max.into() });
        let live_agents = limits::live_agents(config.limits.live_agents_max);
        let sandbox = Sandbox::new(&config.limits, live_agents)
            .map_err(|error| StartError::new("limits: the machine cannot hold so many agents", format!("{error:#}")))?;
        let sandbox = Arc::new(sandbox);
        let cache = Cache::open(config.compiled()).map_err(|error| StartError(error.to_string()))?;
        let compiler = Compiler::new(parts.compiler, config.compile.clone());
        let registry = Registry::new(Arc::clone(&sandbox), cache, compiler, config.limits.component_bytes_max);
        let registry = Arc::new(registry);
        let services = services(&config, &parts.clock)?;
        let world = Arc::new(World::new(parts.clock, mounts, config.limits.clone(), Arc::clone(&store), services));
        let keeper = keeper(&config, &world, &data)?;
        one_budget(&config, keeper.as_deref())?;
        if keeper.is_none() {
            let looked = warn_of_orphans(&*store).await;
            looked.map_err(|error| StartError::new("the credentials cannot be read", error))?;
        }
        let policy = Arc::new(policy);
        let retention = config.retention.clone();
        let (agents, rights) = (Arc::clone(&registry), Arc::clone(&policy));
        let keys = Keys { sealer, keeper: keeper.clone() };
        let jobs = Jobs::new(world, sandbox, agents, rights, live_agents, retention.clone(), keys);
        jobs.recover().await.map_err(|error| StartError::new("the journals cannot be read", format!("{error:#}")))?;
        let session = config.session();
        let retention = Retention::new(Arc::clone(&jobs), retention, session.resume_window);
        let retention = AbortOnDropHandle::new(tokio::spawn(retention.run()));
        let sessions = Sessions::new(
            Arc::clone(&store),
            jobs.world().clock.clone(),
            Arc::clone(&jobs),
            Bounds {
                resume_window: session.resume_window,
                parked_max: config.server.parked_sessions_max,
                principal_parked_max: config.server.principal_parked_sessions_max,
                principal_attached_max: config.server.principal_sessions_max,
            },
        );
        sessions
            .recover()
            .await
            .map_err(|error| StartError::new("the sessions cannot be read", format!("{error:#}")))?;
        let expiry = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&sessions).run()));
        let tidying = tidy(Arc::clone(&registry), Arc::clone(&jobs), config.compile.cache_bytes_max);
        let tidying = AbortOnDropHandle::new(tokio::spawn(tidying));
        let stopping = CancellationToken::new();
        let (answers_per_sec, silence) = (config.server.answers_per_sec, config.server.silence_sec);
        let silence = Some(Duration::from_secs(silence.into())).filter(|silence| !silence.is_zero());
        let behind_tls = config.server.behind_tls;
        let desk = Desk { jobs, sessions, registry, policy, session, behind_tls, answers_per_sec, silence, stopping };
        let desk = Arc::new(desk);
        let deployment = OnceLock::new();
        Ok(Self {
            config,
            desk,
            store,
            sqlite,
            keeper,
            retention,
            expiry,
            deployment,
            tidying,
            live_agents,
            made_token,
        })
    }

    /// Registers the agents of the configured folder, and from then on what comes and goes there.
    ///
    /// Returns once everything there has been compiled. What is no agent is returned, or logged if it comes later, and
    /// the rest works.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub async fn register_agents(&self) -> Result<Vec<RegisterError>, RegisterError> {
        let (mut problems, folder) = self.look_first().await?;
        let (registry, unfinished) = (Arc::clone(self.registry()), Arc::clone(&folder));
        let finish = tokio::task::spawn_blocking(move || open(&unfinished).finish(&registry));
        problems.extend(finish.await.expect("registering does not panic"));
        self.keep_looking(folder);
        Ok(problems)
    }

    /// Registers those agents of the configured folder that were compiled before, and each of the others when it has
    /// been, which nobody waits for but a submission that names it.
    ///
    /// What is known to be no agent is returned, and what is found to be none is logged.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub async fn deploy_agents(&self) -> Result<Vec<RegisterError>, RegisterError> {
        let (problems, folder) = self.look_first().await?;
        self.keep_looking(folder);
        Ok(problems)
    }

    async fn look_first(&self) -> Result<(Vec<RegisterError>, Arc<Mutex<Folder>>), RegisterError> {
        let folder = Arc::new(Mutex::new(Folder::new(self.config.server.agents.clone())));
        let problems = look(self.registry(), &folder).await.expect("registering does not panic")?;
        Ok((problems, folder))
    }

    fn keep_looking(&self, folder: Arc<Mutex<Folder>>) {
        let (registry, clock) = (Arc::clone(self.registry()), self.desk.jobs.world().clock.clone());
        let every = Duration::from_secs(self.config.server.agents_interval_sec.into());
        self.deployment.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(deploy(registry, folder, clock, every))));
    }

    /// Lets the jobs go on that an earlier host did not end. A start that may still fail has no business with them.
    pub fn resume_jobs(&self) {
        self.desk.jobs.resume();
    }

    /// The agents.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.desk.registry
    }

    /// The jobs.
    #[must_use]
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.desk.jobs
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.desk.sessions
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How many jobs may run at once.
    #[must_use]
    pub fn live_agents(&self) -> usize {
        self.live_agents
    }

    /// The token that was made because none was configured.
    #[must_use]
    pub fn made_token(&self) -> Option<&Secret> {
        self.made_token.as_ref()
    }

    /// Opens the configured listener.
    ///
    /// # Errors
    ///
    /// If the address is taken or not this machine's.
    pub async fn listen(&self) -> Result<TcpListener, StartError> {
        let listen = self.config.server.listen;
        TcpListener::bind(listen)
            .await
            .map_err(|error| StartError::new(format_args!("cannot listen on {listen}"), error))
    }

    /// The endpoint for keys of jobs (ARCP §9.8), if this host has one. Its own listener serves it under `/v1/`.
    #[must_use]
    pub fn gateway(&self) -> Option<&Arc<Gateway>> {
        self.keeper.as_ref()?.gateway()
    }

    /// Serves WebSocket clients, and keys of jobs, until [`stop`](Self::stop).
    pub async fn serve(&self, listener: TcpListener) {
        let desk = Arc::clone(&self.desk);
        let handler = move |transport| connection::drive(Arc::clone(&desk), transport);
        let mut config = self.config.websocket();
        // Connections leave files for agents, the store and whoever else needs one.
        let files = u32::try_from(raise_file_limit()).unwrap_or(u32::MAX);
        config.connections_max = config.connections_max.min((files / 4 * 3).max(1));
        if let (Some(keeper), Ok(address)) = (&self.keeper, listener.local_addr()) {
            keeper.listens_at(address);
        }
        let pages = self.gateway().map(|gateway| Arc::clone(gateway) as Arc<dyn Pages>);
        websocket::serve_with(listener, config, pages, handler, self.desk.stopping.clone()).await;
    }

    /// A place for this host in another program's HTTP server; see [`Route::answer`].
    #[must_use]
    pub fn route(&self) -> Route {
        Route::new(self.config.websocket())
    }

    /// A connection to this host within the process, with nothing said yet.
    #[must_use]
    pub fn connect(&self) -> Transport {
        let (ours, theirs) = transport::memory();
        tokio::spawn(connection::drive(Arc::clone(&self.desk), theirs));
        ours
    }

    /// Serves one peer that has come another way, such as over stdio, until it is gone.
    pub async fn serve_one(&self, transport: Transport) {
        connection::drive(Arc::clone(&self.desk), transport).await;
    }

    /// Makes every session say goodbye and every listener close.
    pub fn stop(&self) {
        // A submission that waits for a compiler would hold its session back.
        self.registry().stop();
        self.desk.stopping.cancel();
    }

    /// Removes compiled agents that neither an agent of this host nor a job of its store needs, as long as all together
    /// are more than `compile.cache_bytes_max`, and says what is left. The host does so by itself every ten minutes.
    ///
    /// # Errors
    ///
    /// If the store or the folder of compiled agents fails.
    pub async fn tidy_compiled(&self) -> Result<Tidied, StartError> {
        let tidied = tidy_once(self.registry(), self.jobs(), self.config.compile.cache_bytes_max).await;
        tidied.map_err(|error| StartError::new("the compile cache", format_args!("{error:#}")))
    }

    /// Stops the jobs where they are and closes the store. The next host on the same data goes on with them.
    pub async fn close(self) {
        self.retention.abort();
        self.expiry.abort();
        if let Some(deployment) = self.deployment.get() {
            deployment.abort();
        }
        self.tidying.abort();
        self.registry().stop();
        if let Some(keeper) = &self.keeper {
            keeper.stop();
        }
        self.desk.jobs.stop(Duration::from_secs(self.config.server.drain_sec.into())).await;
        self.desk.jobs.world().services().tools.stop().await;
        if let Some(sqlite) = &self.sqlite {
            sqlite.close().await;
        }
    }
}

/// Opens the ways to what is outside of this machine, as the operator has laid them.
fn services(config: &Config, clock: &Clock) -> Result<Services, StartError> {
    let web = Web::new(config.net.clone()).map_err(|error| StartError(error.to_string()))?;
    let tools = Tools::new(&config.tools, clock.clone()).map_err(StartError)?;
    let models = Models::new(&config.upstreams, &config.models).map_err(StartError)?;
    Ok(Services { web, tools: Arc::new(tools), models: Arc::new(models) })
}

/// Makes who makes keys for jobs.
fn keeper(config: &Config, world: &World, data: &Path) -> Result<Option<Arc<Keeper>>, StartError> {
    let models = (&world.services().models, &config.gateway);
    let place = (data, config.server.listen);
    Keeper::new(&config.credentials, models, place, Arc::clone(&world.store), world.clock.clone()).map_err(StartError)
}

/// Refuses keys that together would leave a job's agent nothing of its budget.
fn one_budget(config: &Config, keeper: Option<&Keeper>) -> Result<(), StartError> {
    let makers: BTreeMap<&str, u32> = keeper.into_iter().flat_map(Keeper::makers).collect();
    let named = config.policy.iter().filter_map(|(name, entry)| Some((name, entry.credentials.as_ref()?)));
    for (name, credentials) in named {
        if let Some(unknown) = credentials.iter().find(|credential| !makers.contains_key(credential.as_str())) {
            return Err(StartError(format!("policy.{name}.credentials: there is no [credentials.{unknown}]")));
        }
    }
    for principal in config.tokens.keys() {
        let entry = config.policy.get(principal).and_then(|entry| entry.credentials.as_ref());
        let may_have = |name: &str| entry.is_none_or(|names| names.iter().any(|own| own == name));
        let sum: u32 = makers.iter().filter(|(name, _)| may_have(name)).map(|(_, percent)| percent).sum();
        if sum >= 100 {
            return Err(StartError(format!(
                "credentials: the keys of a job of `{principal}` together have {sum} percent of its budget, and its \
                 agent nothing; lower `budget_percent`, or name fewer in policy.{principal}.credentials"
            )));
        }
    }
    Ok(())
}

/// Looks into the agents folder, on a thread that may block.
async fn look(
    registry: &Arc<Registry>,
    folder: &Arc<Mutex<Folder>>,
) -> Result<Result<Vec<RegisterError>, RegisterError>, JoinError> {
    let (registry, folder) = (Arc::clone(registry), Arc::clone(folder));
    tokio::task::spawn_blocking(move || open(&folder).look(&registry)).await
}

fn open(folder: &Mutex<Folder>) -> MutexGuard<'_, Folder> {
    folder.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks into the agents folder again and again, or never again if `every` is zero, and registers what was compiled.
async fn deploy(registry: Arc<Registry>, folder: Arc<Mutex<Folder>>, clock: Clock, every: Duration) {
    let mut legible = true;
    let changed = open(&folder).changed();
    let mut next = clock.now().saturating_add(every);
    loop {
        tokio::select! {
            () = clock.sleep_until(next), if !every.is_zero() => {}
            () = changed.notified() => {
                // What was compiled counts at once; the folder is not looked into sooner, as its files may be growing.
                for problem in open(&folder).settle(&registry) {
                    tracing::error!(%problem, "an agent was left out");
                }
                continue;
            }
        }
        next = clock.now().saturating_add(every);
        match look(&registry, &folder).await {
            Ok(Ok(problems)) => {
                legible = true;
                for problem in problems {
                    tracing::error!(%problem, "an agent was left out");
                }
            }
            Ok(Err(problem)) => {
                if std::mem::replace(&mut legible, false) {
                    tracing::error!(%problem, "the agents folder cannot be read; its agents stay");
                }
            }
            Err(panic) => tracing::error!(%panic, "registering an agent panicked"),
        }
    }
}

/// Removes compiled agents that nobody needs, now and then.
async fn tidy(registry: Arc<Registry>, jobs: Arc<Jobs>, bytes_max: u64) {
    loop {
        tokio::time::sleep(TIDY_INTERVAL).await;
        match tidy_once(&registry, &jobs, bytes_max).await {
            Ok(Tidied { removed: 0, .. }) => {}
            Ok(Tidied { removed, size_bytes }) => tracing::info!(removed, size_bytes, "compiled agents were removed"),
            Err(error) => tracing::warn!(%error, "compiled agents could not be removed; trying again later"),
        }
    }
}

/// Looks once. What any job names that is still kept is needed: one that runs, one that is taken up again, and one that
/// has ended and may be played again.
async fn tidy_once(registry: &Arc<Registry>, jobs: &Arc<Jobs>, bytes_max: u64) -> anyhow::Result<Tidied> {
    let looked_at = Arc::clone(registry);
    let size_bytes = tokio::task::spawn_blocking(move || looked_at.compiled_bytes()).await??;
    // Within the bound only what was cut off leaves, and nobody has to read what jobs there are.
    let needed = match size_bytes > bytes_max {
        true => components_of_jobs(&*jobs.world().store).await?,
        false => BTreeSet::new(),
    };
    let registry = Arc::clone(registry);
    Ok(tokio::task::spawn_blocking(move || registry.tidy(needed, bytes_max)).await??)
}

/// The digests of the components that the jobs of a store began with.
async fn components_of_jobs(store: &dyn Store) -> anyhow::Result<BTreeSet<String>> {
    let mut components = BTreeSet::new();
    let mut after = None;
    loop {
        let page = store.streams(journal::JOBS, after.as_ref(), 256).await?;
        let Some((last, _)) = page.last() else { return Ok(components) };
        after = Some(last.clone());
        for (stream, _) in &page {
            match journal::accepted(store, stream).await {
                Ok(accepted) => components.extend(accepted.map(|accepted| accepted.digest)),
                Err(error) if error.is::<StoreError>() => return Err(error),
                // A journal that cannot be understood is of no job that goes on.
                Err(error) => tracing::debug!(%stream, %error, "a journal names no component"),
            }
        }
    }
}

/// Reads who may connect. A host that nobody could connect to gets a token of its own.
fn policy(config: &Config, mounts: &Mounts, owner: Option<Principal>) -> Result<(Policy, Option<Secret>), StartError> {
    let mut tokens = config.read_tokens().map_err(|error| StartError(error.to_string()))?;
    let ceilings = config.read_ceilings().map_err(|error| StartError(error.to_string()))?;
    let mut made = None;
    if tokens.is_empty() && owner.is_none() {
        if !config.server.listen.ip().is_loopback() {
            let listen = config.server.listen;
            return Err(StartError(format!(
                "server.listen: {listen} can be reached from other machines and no token is configured; \
                 add one (`[tokens]` or --token NAME=TOKEN) or listen on 127.0.0.1"
            )));
        }
        let token = Secret::new(format!("tk_{:032x}", clock::random_u128()));
        tokens.push((Principal::new("local"), token.clone()));
        made = Some(token);
    }
    let rights: BTreeMap<Principal, Rights> =
        config.policy.iter().map(|(name, entry)| (Principal::new(name.as_str()), rights(entry))).collect();
    for principal in rights.keys() {
        if !tokens.iter().any(|(known, _)| known == principal) && owner.as_ref() != Some(principal) {
            return Err(StartError(format!("policy.{principal}: no token is configured for `{principal}`")));
        }
    }
    let policy = Policy::new(tokens, ceilings, mounts).map_err(|refusal| StartError(refusal.message))?;
    let policy = policy.with_rights(rights);
    let policy = match owner {
        Some(owner) => policy.with_anonymous(owner),
        None => policy,
    };
    Ok((policy, made))
}

/// What a principal may do to jobs that are not of its session.
fn rights(entry: &PolicyEntry) -> Rights {
    let observes = match entry.observes.iter().any(|name| name == "*") {
        true => Observes::Everyone,
        false => Observes::These(entry.observes.iter().map(|name| Principal::new(name.as_str())).collect()),
    };
    let credentials = entry.credentials.as_ref().map(|names| names.iter().cloned().collect());
    Rights { observes, cancels_from_any_session: entry.cancels_from_any_session, credentials }
}

/// Refuses mounts through which a job could reach what the host itself lives on.
///
/// Journals hold what every principal's agents read, a compiled agent is native code, and a token is a token: none of
/// them may stand in a mount, and no agent's component in one that can be written to.
fn keep_apart(config: &Config, mounts: &Mounts, data: &Path) -> Result<(), StartError> {
    // What does not exist cannot be reached, and what exists has one name.
    let real = |path: &Path| path.canonicalize().ok();
    let mut guarded: Vec<(&str, PathBuf, bool)> = vec![("server.data", data.to_owned(), true)];
    guarded.extend(config.server.compiled.iter().map(|path| ("server.compiled", path.clone(), true)));
    guarded.extend(config.file.iter().map(|path| ("--config", path.clone(), true)));
    guarded.push(("server.agents", config.server.agents.clone(), false));
    guarded.extend(config.secret_files().map(|(setting, path)| (setting, path.to_owned(), true)));
    for mount in mounts.iter() {
        let Some(root) = real(&mount.dir) else { continue };
        for (setting, path, even_read_only) in &guarded {
            let Some(path) = real(path) else { continue };
            let overlaps = path.starts_with(&root) || (path.is_dir() && root.starts_with(&path));
            if overlaps && (*even_read_only || mount.writable) {
                let (at, dir, path) = (&mount.at, mount.dir.display(), path.display());
                return Err(StartError(format!(
                    "{setting}: jobs could reach {path} through the mount {at} ({dir}); keep it outside every mount"
                )));
            }
        }
    }
    Ok(())
}

/// Lets this process open as many files as its user may, and says how many that is.
///
/// A connection is a file and so is what an agent reads; the default of many systems is 1,024.
#[must_use]
pub fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Makes the data folder, for this user alone: journals hold what agents read.
fn data_folder(dir: PathBuf) -> Result<PathBuf, StartError> {
    let problem = |error: io::Error| StartError::new(format_args!("server.data `{}`", dir.display()), error);
    let fresh = !dir.exists();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(problem)?;
    let mode = fs::metadata(&dir).map_err(problem)?.permissions().mode();
    if !fresh && mode & 0o077 != 0 {
        tracing::warn!(data = %dir.display(), mode = format!("{:o}", mode & 0o777), "other users can look into the data folder");
    }
    Ok(dir)
}

fn open_sqlite(config: &Config) -> Result<Sqlite, StartError> {
    let synchronous = match config.server.synchronous {
        Synchronous::Full => sqlite::Synchronous::Full,
        Synchronous::Normal => sqlite::Synchronous::Normal,
    };
    let options = SqliteOptions { synchronous, ..SqliteOptions::default() };
    Sqlite::open(&config.journal(), options).map_err(|error| StartError::new("server.data", chain(&error)))
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
