//! `leasehold.toml`: every setting with its default.
//!
//! A setting on the command line wins over the file, and the file over the
//! default. A key nobody knows is refused with its line, because a limit with
//! a typing error in it would be no limit.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use leasehold_core::{
    id::Principal,
    lease::{Lease, target::FilePath},
    protocol::feature::Feature,
    secret::Secret,
    session::SessionConfig,
};
use serde::Deserialize;

use crate::{
    agents::compiler,
    capability::{
        models::settings::{ModelEntry, UpstreamEntry},
        mounts::Mount,
        tools, web,
    },
    credentials::settings::CredentialEntry,
    gateway::GatewaySettings,
    sandbox::limits::Limits,
    secrets::SecretSource,
    transport::websocket::WebSocketConfig,
};

/// Everything an operator can decide.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[tokens]`: a principal's name and its token.
    pub tokens: BTreeMap<String, SecretSource>,
    /// `[policy.NAME]`: how far a principal may go.
    pub policy: BTreeMap<String, PolicyEntry>,
    /// `[[mounts]]`
    pub mounts: Vec<MountEntry>,
    /// `[tools.NAME]`: what jobs can be granted with `tool.call`.
    pub tools: BTreeMap<String, tools::Settings>,
    /// `[upstreams.NAME]`: where models are.
    pub upstreams: BTreeMap<String, UpstreamEntry>,
    /// `[models.NAME]`: what they are called and what they cost (ARCP §9.7).
    pub models: BTreeMap<String, ModelEntry>,
    /// `[gateway]`: the endpoint for keys of jobs (ARCP §9.8).
    pub gateway: GatewaySettings,
    /// `[credentials.NAME]`: where keys of jobs come from.
    pub credentials: BTreeMap<String, CredentialEntry>,
    /// `[limits]`
    pub limits: Limits,
    /// `[compile]`: what compiling an agent may take.
    pub compile: compiler::Settings,
    /// `[net]`: how far and how much agents may fetch.
    pub net: web::Settings,
    /// `[retention]`
    pub retention: Retention,
    /// The file these settings came from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// `[server]`: where the host listens and keeps things.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The address of the WebSocket listener.
    pub listen: SocketAddr,
    /// The folder of the agents.
    pub agents: PathBuf,
    /// How often that folder is looked at for what has come and gone; 0: never.
    pub agents_interval_sec: u32,
    /// The folder of journals and compiled agents.
    pub data: PathBuf,
    /// The folder of compiled agents; `compiled` in the data folder if it is not said.
    pub compiled: Option<PathBuf>,
    /// The hosts a browser or client may name; loopback names if the listener is on loopback.
    pub allowed_hosts: Option<Vec<String>>,
    /// Whether what stands before the host on other machines speaks TLS with its clients, so that they may be given
    /// keys of jobs (ARCP §14); connections from this machine always may.
    pub behind_tls: bool,
    /// Connections at once.
    pub connections_max: u32,
    /// Of them, connections that have not been welcomed yet.
    pub handshakes_max: u32,
    /// Sessions in use of one principal.
    pub principal_sessions_max: usize,
    /// Requests of one connection that are answered a second.
    pub answers_per_sec: u32,
    /// How long a WebSocket client without heartbeats may be silent before it is pinged, and again before it is given
    /// up; 0: for ever.
    pub silence_sec: u32,
    /// The largest frame that is taken.
    pub frame_bytes_max: usize,
    /// How long a client may take to say hello.
    pub handshake_timeout_sec: u32,
    /// How often a peer speaks (ARCP §6.4).
    pub heartbeat_interval_sec: u32,
    /// How long a lost session can be resumed (ARCP §6.3).
    pub resume_window_sec: u32,
    /// Lost sessions that are kept at once; the oldest is forgotten first.
    pub parked_sessions_max: usize,
    /// Of them, of one principal.
    pub principal_parked_sessions_max: usize,
    /// Changes from one job to another that a session keeps for a resume.
    pub session_switches_max: usize,
    /// Jobs that one session is told of at once; a subscription beyond it is refused (ARCP §7.6).
    pub session_jobs_max: usize,
    /// By how many numbers a client that acknowledges may lag before it is told `back_pressure` (ARCP §6.5); 0: by any
    /// number.
    pub back_pressure_lag: u64,
    /// How long a host that stops waits for calls that are under way.
    pub drain_sec: u32,
    /// How many records of a journal may follow one another without the host's seal (`leasehold audit`).
    pub seal_records_max: u32,
    /// How SQLite waits for the disk: `full` survives power loss, `normal` only a crash of the host.
    pub synchronous: Synchronous,
}

/// How far a commit has gone when it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Synchronous {
    /// To the disk.
    #[default]
    Full,
    /// To the operating system.
    Normal,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7777),
            agents: "agents".into(),
            agents_interval_sec: 2,
            data: "data".into(),
            compiled: None,
            allowed_hosts: None,
            behind_tls: false,
            connections_max: 10_000,
            handshakes_max: 2_000,
            principal_sessions_max: 5_000,
            answers_per_sec: 2_000,
            silence_sec: 60,
            frame_bytes_max: 4 << 20,
            handshake_timeout_sec: 10,
            heartbeat_interval_sec: 30,
            resume_window_sec: 600,
            parked_sessions_max: 10_000,
            principal_parked_sessions_max: 1_000,
            session_switches_max: 65_536,
            session_jobs_max: 5_000,
            back_pressure_lag: 1_000,
            drain_sec: 10,
            seal_records_max: 1_024,
            synchronous: Synchronous::Full,
        }
    }
}

/// `[retention]`: what is kept of jobs that have ended, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// How long a job is kept after its end.
    pub finished_sec: u32,
    /// How long an idempotency key is bound to its job, from the acceptance (ARCP §7.2); its job is kept as long.
    pub idempotency_sec: u32,
    /// All records of all jobs. Above it the oldest jobs that have ended leave early, and their keys with them.
    pub bytes_max: u64,
    /// How often the host looks.
    pub interval_sec: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { finished_sec: 86_400, idempotency_sec: 86_400, bytes_max: 16 << 30, interval_sec: 10 }
    }
}

/// `[policy.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// The lease no job of this principal exceeds, as in `lease_request`.
    pub lease: Option<BTreeMap<String, Vec<String>>>,
    /// The other principals whose jobs this one may list and watch (ARCP §6.6, §7.6); `*` is everyone.
    #[serde(default)]
    pub observes: Vec<String>,
    /// Whether this one may cancel a job of its own from any session, and not only from the one that submitted it
    /// (ARCP §7.4).
    #[serde(default)]
    pub cancels_from_any_session: bool,
    /// The `[credentials.NAME]` that make keys for jobs of this one (ARCP §9.8); all if it is not said.
    #[serde(default)]
    pub credentials: Option<Vec<String>>,
}

/// One of `[[mounts]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountEntry {
    /// Where jobs see it.
    pub at: String,
    /// The folder.
    pub path: PathBuf,
    /// Whether it may be written to.
    #[serde(default)]
    pub mode: MountMode,
}

/// Whether a mount may be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountMode {
    /// No.
    #[default]
    Ro,
    /// Yes.
    Rw,
}

/// Why the settings cannot be used. The message names the file and line, or the flag.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Config {
    /// Reads a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    ///
    /// If it cannot be read or says something that is not understood.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display();
        let text = fs::read_to_string(path).map_err(|error| ConfigError(format!("{file}: {error}")))?;
        let mut config = Self::parse(&text).map_err(|ConfigError(error)| ConfigError(format!("{file}: {error}")))?;
        config.file = Some(path.to_owned());
        let base = path.parent().unwrap_or(Path::new(""));
        let settle = |path: &mut PathBuf| *path = base.join(&*path);
        settle(&mut config.server.agents);
        settle(&mut config.server.data);
        config.server.compiled.iter_mut().for_each(settle);
        config.mounts.iter_mut().for_each(|mount| settle(&mut mount.path));
        config.net.settle(base);
        for source in config.tokens.values_mut() {
            source.settle(base);
        }
        config.tools.values_mut().for_each(|tools| tools.settle(base));
        config.upstreams.values_mut().for_each(|upstream| upstream.settle(base));
        config.credentials.values_mut().for_each(|credential| credential.settle(base));
        Ok(config)
    }

    /// Reads a text.
    ///
    /// # Errors
    ///
    /// If it says something that is not understood, with the line and, for a key, what was probably meant.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            // The library's full text quotes the line, which may hold a token; its message does not.
            let message = error.message();
            ConfigError(format!("line {line}: {message}{}", suggestion(message)))
        })
    }

    /// Looks for settings that each are understood and cannot work.
    ///
    /// # Errors
    ///
    /// If there is one, with its key and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Server { connections_max, handshakes_max, principal_sessions_max, answers_per_sec, .. } = self.server;
        let nobody = [
            ("connections_max", connections_max == 0),
            ("handshakes_max", handshakes_max == 0),
            ("principal_sessions_max", principal_sessions_max == 0),
            ("answers_per_sec", answers_per_sec == 0),
        ];
        if let Some((key, _)) = nobody.into_iter().find(|(_, is_none)| *is_none) {
            return Err(ConfigError(format!("server.{key} is 0, which lets nobody in; it must be 1 at least")));
        }
        self.limits.problem().or(self.compile.problem()).map_or(Ok(()), |problem| Err(ConfigError(problem)))
    }

    /// The tokens, read from wherever they are.
    ///
    /// # Errors
    ///
    /// If one cannot be found, is empty, or is another principal's too.
    pub fn read_tokens(&self) -> Result<Vec<(Principal, Secret)>, ConfigError> {
        let mut tokens: Vec<(Principal, Secret)> = Vec::new();
        for (name, source) in &self.tokens {
            let problem = |what: String| ConfigError(format!("tokens.{name}: {what}"));
            let token = source.read().map_err(problem)?;
            if let Some((other, _)) = tokens.iter().find(|(_, known)| *known == token) {
                return Err(problem(format!("the token is {other}'s too; a token names one principal")));
            }
            tokens.push((Principal::new(name.as_str()), token));
        }
        Ok(tokens)
    }

    /// The files that hold secrets, and the settings that name them.
    pub fn secret_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let tokens = self.tokens.values().map(|source| ("tokens", source));
        let upstreams = self.upstreams.values().flat_map(UpstreamEntry::secrets).map(|source| ("upstreams", source));
        let credentials = self.credentials.values().filter_map(CredentialEntry::secret);
        let credentials = credentials.map(|source| ("credentials", source));
        tokens.chain(upstreams).chain(credentials).filter_map(|(setting, source)| match source {
            SecretSource::File(path) => Some((setting, path.as_path())),
            _ => None,
        })
    }

    /// The ceilings of the principals that have one.
    ///
    /// # Errors
    ///
    /// If a lease is none, or its principal has no token.
    pub fn read_ceilings(&self) -> Result<BTreeMap<Principal, Lease>, ConfigError> {
        let mut ceilings = BTreeMap::new();
        for (name, policy) in &self.policy {
            let Some(lease) = &policy.lease else { continue };
            let lease = Lease::parse(lease).map_err(|error| {
                let error = error.to_string();
                ConfigError(format!("policy.{name}: {}", error.replacen("lease_request", "lease", 1)))
            })?;
            ceilings.insert(Principal::new(name.as_str()), lease);
        }
        Ok(ceilings)
    }

    /// The mounts.
    ///
    /// # Errors
    ///
    /// If one's path is not a path.
    pub fn read_mounts(&self) -> Result<Vec<Mount>, ConfigError> {
        let mount = |entry: &MountEntry| {
            let at = FilePath::parse(&entry.at).map_err(|error| ConfigError(format!("mounts: `at`: {error}")))?;
            Ok(Mount { at, dir: entry.path.clone(), writable: entry.mode == MountMode::Rw })
        };
        self.mounts.iter().map(mount).collect()
    }

    /// The file of the journals.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.server.data.join("journal.sqlite")
    }

    /// The folder of compiled agents.
    #[must_use]
    pub fn compiled(&self) -> PathBuf {
        self.server.compiled.clone().unwrap_or_else(|| self.server.data.join("compiled"))
    }

    /// The settings of sessions.
    #[must_use]
    pub fn session(&self) -> SessionConfig {
        let seconds = |seconds: u32| Duration::from_secs(seconds.max(1).into());
        SessionConfig {
            handshake_timeout: seconds(self.server.handshake_timeout_sec),
            heartbeat_interval: seconds(self.server.heartbeat_interval_sec),
            resume_window: seconds(self.server.resume_window_sec),
            spans_max: self.server.session_switches_max.max(1),
            followed_max: self.server.session_jobs_max,
            lag_max: self.server.back_pressure_lag,
            features: self.features(),
            // Before the journal of an ended job can go.
            settle_after: seconds(self.retention.finished_sec.min(self.server.resume_window_sec)) / 2,
        }
    }

    /// What sessions can ask for because it was configured (ARCP §6.2).
    fn features(&self) -> Vec<Feature> {
        let models = (!self.models.is_empty()).then_some(Feature::ModelUse);
        let credentials = (!self.credentials.is_empty()).then_some(Feature::ProvisionedCredentials);
        models.into_iter().chain(credentials).collect()
    }

    /// The settings of the WebSocket listener.
    #[must_use]
    pub fn websocket(&self) -> WebSocketConfig {
        WebSocketConfig {
            allowed_hosts: self.server.allowed_hosts.clone(),
            frame_bytes_max: self.server.frame_bytes_max,
            connections_max: self.server.connections_max,
            handshakes_max: self.server.handshakes_max,
            handshake_timeout: Duration::from_secs(self.server.handshake_timeout_sec.max(1).into()),
            ..WebSocketConfig::default()
        }
    }
}

/// Parses `/virtual=DIR[:ro|:rw]` as `--mount` takes it.
///
/// # Errors
///
/// If it has another form.
pub fn parse_mount(text: &str) -> Result<MountEntry, String> {
    let form = "a mount is written /virtual=DIR, /virtual=DIR:ro or /virtual=DIR:rw";
    let (at, rest) = text.split_once('=').ok_or(form)?;
    let (path, mode) = match rest.rsplit_once(':') {
        Some((path, "rw")) => (path, MountMode::Rw),
        Some((path, "ro")) => (path, MountMode::Ro),
        _ => (rest, MountMode::Ro),
    };
    FilePath::parse(at).map_err(|error| error.to_string())?;
    if path.is_empty() {
        return Err(form.to_owned());
    }
    Ok(MountEntry { at: at.to_owned(), path: path.into(), mode })
}

/// Parses `NAME=TOKEN` as `--token` takes it.
///
/// # Errors
///
/// If it has another form; the error does not quote it.
pub fn parse_token(text: &str) -> Result<(String, Secret), String> {
    match text.split_once('=') {
        Some((name, token)) if !name.is_empty() && !token.is_empty() => Ok((name.to_owned(), Secret::new(token))),
        _ => Err("a token is written NAME=TOKEN".to_owned()),
    }
}

/// What an unknown key was probably meant to be.
fn suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next().filter(|_| message.starts_with("unknown field")) else { return String::new() };
    let best = quoted.max_by(|a, b| strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown)));
    match best {
        Some(best) if strsim::jaro_winkler(best, unknown) > 0.7 => format!(" — did you mean `{best}`?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::settings::{CommandEntry, Kind, LitellmEntry};

    #[test]
    fn a_key_nobody_knows_is_refused_with_its_line_and_a_suggestion() {
        for (text, line, said) in [
            ("[server]\nlisten = \"127.0.0.1:0\"\nagent = \"x\"\n", "line 3", "did you mean `agents`?"),
            ("[limits]\nmemory_byte_max = 1\n", "line 2", "did you mean `memory_bytes_max`?"),
            ("[server]\n\nlisten = 7\n", "line 3", "invalid type"),
            ("[[mounts]]\nat = \"/x\"\n", "line 1", "missing field `path`"),
            ("[server\n", "line 1", ""),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(said), "{error}");
        }
    }

    #[test]
    fn an_error_in_the_file_does_not_show_a_token() {
        let error = Config::parse("[tokens]\nalice = \"tk-secret\" x\n").unwrap_err().to_string();
        assert!(!error.contains("tk-secret"), "{error}");
        assert!(parse_token("tk-secret").is_err_and(|error| !error.contains("tk-secret")));
    }

    #[test]
    fn the_documented_file_is_the_default() {
        let documented = include_str!("../leasehold.toml");
        let config = Config::parse(documented).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.compile, compiler::Settings::default());
        assert_eq!(config.retention, Retention::default());
        assert_eq!(config.gateway, GatewaySettings::default());
        assert_eq!(format!("{:?}", config.server), format!("{:?}", Server::default()));
        assert_eq!(format!("{:?}", config.net), format!("{:?}", web::Settings::default()));
        // And with every commented example switched on, it is still understood.
        let examples: String = documented
            .lines()
            .map(|line| match line.strip_prefix("#: ") {
                Some(example) => format!("{example}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        let config = Config::parse(&examples).unwrap();
        assert!(!config.tokens.is_empty() && !config.policy.is_empty() && !config.mounts.is_empty());
        assert!(!config.net.inject.is_empty() && config.net.roots.is_some());
        assert!(config.read_ceilings().is_ok() && config.read_mounts().is_ok());
        let (search, default) = (&config.tools["search"], tools::Settings::default());
        let shown = tools::Settings {
            connect_timeout_sec: search.connect_timeout_sec,
            timeout_sec: search.timeout_sec,
            answer_bytes_max: search.answer_bytes_max,
            arguments_bytes_max: search.arguments_bytes_max,
            concurrent_max: search.concurrent_max,
            tools_max: search.tools_max,
            ..tools::Settings::default()
        };
        assert_eq!(format!("{shown:?}"), format!("{default:?}"));
        assert!(config.tools["docs"].url.is_some() && config.tools["resize"].run.is_some());
        // What an upstream or a model has that the file does not say is the default, and what it says is, too.
        let (upstream, model) = (&config.upstreams["main"], &config.models["tier-fast/small"]);
        let bare: UpstreamEntry = toml::from_str("url = \"https://api.example.com/v1\"").unwrap();
        let documented = UpstreamEntry { key: None, headers: BTreeMap::new(), passes: Vec::new(), ..upstream.clone() };
        assert_eq!(format!("{documented:?}"), format!("{bare:?}"));
        let bare: ModelEntry = toml::from_str("upstream = \"main\"").unwrap();
        assert_eq!((model.max_output_tokens, model.bytes_per_token), (bare.max_output_tokens, bare.bytes_per_token));
        assert_eq!(model.limit_field, bare.limit_field);
        let Kind::Litellm(documented) = &config.credentials["proxy"].kind else { panic!("it is LiteLLM") };
        let bare: LitellmEntry = toml::from_str("url = \"x\"\nadmin_key = \"x\"").unwrap();
        assert_eq!(documented.bounds(), bare.bounds());
        let Kind::Command(documented) = &config.credentials["vault"].kind else { panic!("it is a command") };
        let bare: CommandEntry = toml::from_str("command = [\"x\"]").unwrap();
        assert_eq!((documented.timeout_sec, documented.answer_bytes_max), (bare.timeout_sec, bare.answer_bytes_max));
        let (own, bare) = (&config.credentials["own"], toml::from_str::<CredentialEntry>("[gateway]").unwrap());
        assert_eq!(own.budget_percent, bare.budget_percent);
        assert_eq!(own.revoke_retry_sec_max, bare.revoke_retry_sec_max);
        assert_eq!(own.rotate_grace_sec, bare.rotate_grace_sec);
        assert!(own.rotate_after_sec.is_some() && bare.rotate_after_sec.is_none());
    }

    #[test]
    fn a_token_names_one_principal() {
        let config = Config::parse("[tokens]\na = \"x\"\nb = \"x\"\n").unwrap();
        assert!(config.read_tokens().unwrap_err().to_string().contains("tokens.b"));
        let config = Config::parse("[tokens]\na = { env = \"LEASEHOLD_TEST_NO_SUCH_VARIABLE\" }\n").unwrap();
        assert!(config.read_tokens().unwrap_err().to_string().contains("LEASEHOLD_TEST_NO_SUCH_VARIABLE"));
    }

    #[test]
    fn a_mount_is_written_as_path_and_folder() {
        for (text, expected) in [
            ("/w=/tmp", Some(("/w", "/tmp", MountMode::Ro))),
            ("/w=/tmp:rw", Some(("/w", "/tmp", MountMode::Rw))),
            ("/w=a:b", Some(("/w", "a:b", MountMode::Ro))),
            ("/w", None),
            ("/w=", None),
            ("w=/tmp", None),
        ] {
            let parsed = parse_mount(text).ok();
            let parsed = parsed.as_ref().map(|mount| (mount.at.as_str(), mount.path.to_str().unwrap(), mount.mode));
            assert_eq!(parsed, expected, "{text}");
        }
    }
}
