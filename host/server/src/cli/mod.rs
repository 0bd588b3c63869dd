//! The command line: what each command is called with, and what its exit code means.

mod agents;
mod audit;
mod conformance;
mod credentials;
mod demo;
mod deploy;
mod dev;
mod follow;
mod hosting;
mod jobs;
mod journal;
mod lease;
mod output;
mod remote;
mod tickets;

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};
use leasehold_core::{protocol::dialect, secret::Secret};
use tracing_subscriber::EnvFilter;

use crate::{
    agents::{
        compiler,
        worker::{self, WorkerArgs},
    },
    client::ClientError,
    config::{self, Config, ConfigError, MountEntry},
    secrets::SecretSource,
};

/// A host that runs untrusted AI agents as WebAssembly components under a lease.
///
/// Exit codes: 0 success; 1 the job did not end with success, or a check failed;
/// 2 wrong usage or settings; 3 cannot connect to the host; 4 the host refused;
/// 5 something else failed; 130 interrupted twice.
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// How log lines are written (to standard error).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "LEASEHOLD_LOG_FORMAT")]
    log_format: LogFormat,

    /// Which log lines are written, such as `debug` or `leasehold=debug,info`.
    #[arg(long, global = true, value_name = "FILTER", env = "LEASEHOLD_LOG")]
    log: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve ARCP clients over WebSocket.
    Serve {
        #[command(flatten)]
        host: HostArgs,
        /// Print the ready line as a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Serve one ARCP client over standard input and output.
    ///
    /// Without --data or --config nothing is kept when it ends.
    Stdio {
        #[command(flatten)]
        host: HostArgs,
        /// The SDK of the client, where its hello does not say which it is.
        #[arg(long, value_name = "NAME", value_parser = dialects())]
        dialect: Option<String>,
    },
    /// Run one agent in a host of its own and watch it.
    Run(Box<jobs::RunArgs>),
    /// Submit a job to a host and follow it to its end. Ctrl-C cancels it.
    Submit(Box<jobs::SubmitArgs>),
    /// List the jobs of a host.
    Jobs(jobs::JobsArgs),
    /// Watch a job that is running, or see what one told. Ctrl-C leaves it alone.
    Tail(Box<remote::TailArgs>),
    /// Cancel a job.
    ///
    /// Only the session that submitted a job may cancel it, unless the host's policy lets any of its principal: on the
    /// machine and for the user that ran `submit --detach`, that session is found again for as long as the host keeps it.
    Cancel(remote::CancelArgs),
    /// Send one raw envelope and print what comes back.
    Send(remote::SendArgs),
    /// Print a job's journal: everything that happened to it.
    Journal(journal::JournalArgs),
    /// Run a job once more from its journal, without any effect, and say whether it does the same again.
    ///
    /// Exit code 1 says that it does not.
    Replay(journal::ReplayArgs),
    /// Take a job's journal away as evidence, and check it where there is neither a host nor a store.
    Audit {
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// List the keys of jobs that are not known to be revoked, also beside a running host.
    ///
    /// A key of a job that runs is among them; one whose revocation fails says why.
    Credentials(credentials::CredentialsArgs),
    /// See how little a job needs, and how much a submission would get.
    Lease {
        #[command(subcommand)]
        command: lease::LeaseCommand,
    },
    /// List the agents of a host, or add some.
    Agents(agents::AgentsArgs),
    /// Show what a component is and the authority it could ever use.
    Inspect(agents::InspectArgs),
    /// Start a new agent project.
    New(agents::NewArgs),
    /// Build agent projects and place them as NAME@VERSION.wasm.
    Build(agents::BuildArgs),
    /// Build a project, run it, and do both again whenever one of its sources is saved.
    ///
    /// The flags say what is submitted, and it is kept in the user's state folder: for the same project without any of them
    /// what they said last is run again. A job that still runs when a new build is ready is cancelled; a build that
    /// fails leaves it alone. Ctrl-C ends, with the job; a second one at once.
    Dev(Box<dev::DevArgs>),
    /// Build the example agents, start a host, and watch a job under a lease.
    Demo(demo::DemoArgs),
    /// Hold any ARCP 1.1 runtime against the conformance suite.
    ///
    /// The runtime needs the agents echo, chatty and sleeper; a case that needs more is skipped. Exit code 1 says that
    /// a case failed.
    Conformance(Box<conformance::ConformanceArgs>),
    /// Audit and compile a component for the host that has started this.
    #[command(name = worker::COMMAND, hide = true)]
    CompileComponent(WorkerArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version {
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// What a host is made of. A flag wins over the file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct HostArgs {
    /// A settings file; `host/server/leasehold.toml` in the sources documents every key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to listen on [default: 127.0.0.1:7777].
    #[arg(long, value_name = "ADDR")]
    listen: Option<std::net::SocketAddr>,
    /// A token that clients may use, and the principal it names. May be repeated.
    ///
    /// A command line can be read by other users of the machine: prefer
    /// `[tokens]` with `file` or `env` where there are any.
    #[arg(long, value_name = "NAME=TOKEN", value_parser = config::parse_token)]
    token: Vec<(String, Secret)>,
    /// The folder of the agents [default: agents].
    #[arg(long, value_name = "DIR")]
    agents: Option<PathBuf>,
    /// The folder of journals and compiled agents [default: data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder of compiled agents.
    #[arg(skip)]
    compiled: Option<PathBuf>,
    /// A folder that jobs can be granted, and the path they see it under. May be repeated.
    #[arg(long, value_name = "/VIRTUAL=DIR[:ro|:rw]", value_parser = config::parse_mount)]
    mount: Vec<MountEntry>,
}

impl HostArgs {
    /// Puts the journals into `temporary`, for a host that leaves nothing behind unless it was told where.
    ///
    /// Compiled agents are kept all the same: they are the same for every host of this user.
    fn leaving_nothing(self, temporary: &Path) -> Self {
        match (&self.data, &self.config) {
            (None, None) => Self { data: Some(temporary.join("data")), compiled: compiled(), ..self },
            _ => self,
        }
    }

    /// The settings: defaults, then the file, then the flags.
    fn settings(self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::load(path).map_err(|error| ConfigError(format!("--config {error}")))?,
            None => Config::default(),
        };
        config.server.listen = self.listen.unwrap_or(config.server.listen);
        config.server.agents = self.agents.unwrap_or(config.server.agents);
        config.server.data = self.data.unwrap_or(config.server.data);
        config.server.compiled = self.compiled.or(config.server.compiled);
        let mut named = std::collections::BTreeSet::new();
        for (name, token) in self.token {
            if !named.insert(name.clone()) {
                return Err(ConfigError(format!("--token: `{name}` is given twice")));
            }
            config.tokens.insert(name, SecretSource::Text(token));
        }
        for mount in self.mount {
            config.mounts.retain(|known| known.at != mount.at);
            config.mounts.push(mount);
        }
        Ok(config)
    }
}

/// Where what can be made again is kept for this user, if the user has a home.
fn user_cache() -> Option<PathBuf> {
    Some(user_folder("XDG_CACHE_HOME", ".cache")?.join("leasehold"))
}

/// Where what this user does is kept for later, if the user has a home.
fn user_state() -> Option<PathBuf> {
    Some(user_folder("XDG_STATE_HOME", ".local/state")?.join("leasehold"))
}

/// Keeps a file that is for nobody but this user; it is never seen half written.
fn keep_private(file: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(file);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    fresh.write_all(contents)?;
    fresh.persist(file)?;
    Ok(())
}

/// Where compiled agents of this user are kept.
fn compiled() -> Option<PathBuf> {
    Some(user_cache()?.join("compiled"))
}

/// The folder that a variable names, or the one that is meant in the user's home if it is not set.
fn user_folder(variable: &str, in_home: &str) -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(in_home)))
}

/// Which host a client command talks to.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClientArgs {
    /// The host's address.
    #[arg(long, env = "LEASEHOLD_URL", default_value = "ws://127.0.0.1:7777/arcp", value_parser = url)]
    url: String,
    /// The token, unless the host needs none.
    #[arg(long, env = "LEASEHOLD_TOKEN", hide_env_values = true, value_parser = secret)]
    token: Option<Secret>,
}

/// Checks what can be known of a URL before anybody is asked.
fn url(text: &str) -> Result<String, String> {
    let form = "write ws://host:port/arcp";
    let (scheme, rest) = text.split_once("://").ok_or(form)?;
    match scheme {
        "ws" => {}
        "wss" | "https" => {
            let way = "TLS is not spoken here: name the host itself with ws://, or a tunnel to it that ends TLS";
            return Err(way.to_owned());
        }
        _ => return Err(form.to_owned()),
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || text.parse::<hyper::Uri>().is_err() {
        return Err(form.to_owned());
    }
    // Other runtimes may answer at `/`, which can be written.
    if authority == rest {
        return Err(format!("it has no path; a host answers at {text}/arcp"));
    }
    Ok(text.to_owned())
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// The names that a dialect may be asked for by.
fn dialects() -> PossibleValuesParser {
    PossibleValuesParser::new(dialect::ALL.map(|dialect| dialect.name))
}

/// How a command failed, which decides the exit code.
#[derive(Debug)]
enum Failure {
    /// 1, which also says that a replay, a case of the suite or a check failed.
    JobFailed,
    /// 2
    Usage(String),
    /// 3
    CannotConnect(String),
    /// 4
    Refused(String),
    /// 5
    Other(anyhow::Error),
    /// 130
    Interrupted,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<crate::host::StartError> for Failure {
    fn from(error: crate::host::StartError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Connect { target, .. } => {
                let uri = target.parse::<hyper::Uri>().ok().filter(|uri| uri.scheme_str() == Some("ws"));
                let port = match uri.is_some_and(|uri| uri.port().is_none()) {
                    true => "; without a port it is 80, and a host has 7777 unless it was told otherwise",
                    false => "",
                };
                Self::CannotConnect(format!("{error} (--url says where; is `leasehold serve` running there?{port})"))
            }
            ClientError::Unauthenticated { .. } | ClientError::Refused { .. } => Self::Refused(error.to_string()),
            _ => Self::Other(error.into()),
        }
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    compiler::this_program_compiles();
    let cli = Cli::parse();
    // Before anything is opened or started, as it is to have none of it.
    if let Command::CompileComponent(args) = &cli.command {
        return worker::main(args);
    }
    log(&cli);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit(Err(Failure::Other(error.into()))),
    };
    let outcome = runtime.block_on(dispatch(cli.command));
    // What still blocks on a thread (an interrupted compilation) must not hold the program up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    exit(outcome)
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve { host, json } => hosting::serve(host.settings()?, json).await,
        Command::Stdio { host, dialect } => {
            let temporary = tempfile::tempdir().map_err(anyhow::Error::from)?;
            hosting::stdio(host.leaving_nothing(temporary.path()).settings()?, dialect.as_deref()).await
        }
        Command::Run(args) => Box::pin(jobs::run(*args)).await,
        Command::Submit(args) => jobs::submit(*args).await,
        Command::Jobs(args) => jobs::list(args).await,
        Command::Tail(args) => Box::pin(remote::tail(*args)).await,
        Command::Cancel(args) => remote::cancel(args).await,
        Command::Send(args) => remote::send(args).await,
        Command::Journal(args) => journal::print(args).await,
        Command::Replay(args) => journal::run_again(args).await,
        Command::Audit { command } => audit::audit(command).await,
        Command::Credentials(args) => credentials::list(args).await,
        Command::Lease { command } => lease::lease(command).await,
        Command::Agents(mut args) => match args.command.take() {
            Some(deploy::AgentsCommand::Add(args)) => deploy::add(args).await,
            None => agents::list(args).await,
        },
        Command::Inspect(args) => agents::inspect(&args),
        Command::New(args) => agents::new(&args),
        Command::Build(args) => agents::build(args).await,
        Command::Dev(args) => Box::pin(dev::dev(*args)).await,
        Command::Demo(args) => demo::demo(args).await,
        Command::Conformance(args) => Box::pin(conformance::conformance(*args)).await,
        Command::CompileComponent(_) => unreachable!("it has no runtime"),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "leasehold", &mut script);
            output::bytes(&script);
            Ok(())
        }
        Command::Version { json } => {
            let version = env!("CARGO_PKG_VERSION");
            if json {
                output::line(&serde_json::json!({ "name": "leasehold", "version": version, "arcp": "1.1" }));
            } else {
                output::text_line(&format!("leasehold {version} (ARCP 1.1)"));
            }
            Ok(())
        }
    }
}

fn exit(outcome: Result<(), Failure>) -> ExitCode {
    let (code, said) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::JobFailed) => (1, None),
        Err(Failure::Usage(message)) => (2, Some(message)),
        Err(Failure::CannotConnect(message)) => (3, Some(message)),
        Err(Failure::Refused(message)) => (4, Some(message)),
        Err(Failure::Other(error)) => (5, Some(format!("{error:#}"))),
        Err(Failure::Interrupted) => (130, Some("interrupted".to_owned())),
    };
    if let Some(message) = said {
        eprintln!("error: {message}");
    }
    ExitCode::from(code)
}

/// Sets up the log on standard error: standard output belongs to what was asked for.
fn log(cli: &Cli) {
    let serving = matches!(cli.command, Command::Serve { .. } | Command::Stdio { .. });
    let default = if serving { "info" } else { "warn" };
    let filter = EnvFilter::try_new(cli.log.as_deref().unwrap_or(default)).unwrap_or_else(|error| {
        eprintln!("warning: --log: {error}; using `{default}`");
        EnvFilter::new(default)
    });
    // It logs the messages of servers of tools as they came, with the operator's secrets in them if they repeat one.
    let filter = filter.add_directive("rmcp=off".parse().expect("it is a directive"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    match cli.log_format {
        LogFormat::Text => builder.with_ansi(console::colors_enabled_stderr()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("leasehold.toml");
        let text = "[server]\nlisten = \"127.0.0.1:1\"\ndata = \"d\"\n[[mounts]]\nat = \"/w\"\npath = \"a\"\n";
        fs::write(&file, text).unwrap();
        let args = HostArgs {
            config: Some(file),
            listen: Some("127.0.0.1:2".parse().unwrap()),
            mount: vec![config::parse_mount("/w=b:rw").unwrap()],
            ..HostArgs::default()
        };
        let config = args.settings().unwrap();
        assert_eq!(config.server.listen.port(), 2);
        assert_eq!(config.server.data, dir.path().join("d")); // relative to its file
        assert_eq!(config.mounts.len(), 1);
        assert_eq!(config.mounts[0].path, PathBuf::from("b"));
    }
}
