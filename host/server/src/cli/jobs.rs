//! `run`, `submit` and `jobs`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use leasehold_core::id::Principal;
use serde_json::{Value, json};

use super::{ClientArgs, Failure, HostArgs, follow, lease, output, tickets};
use crate::{
    client::{Client, ClientError, ClientInfo, Resume, Submit},
    config::{self, Config},
    host::{Host, Parts},
    project,
    sandbox::limits::Limits,
    transport,
};

/// What a job is asked to do and allowed to.
#[derive(Clone, Debug, Default, Args)]
pub struct JobArgs {
    /// The agent's input: JSON, @FILE, or - for standard input [default: null].
    #[arg(long, short, value_name = "JSON")]
    pub(super) input: Option<String>,
    /// The lease asked for, such as '{"fs.read": ["/workspace/**"]}': JSON or @FILE.
    #[arg(long, short, value_name = "JSON")]
    pub(super) lease: Option<String>,
    /// When the lease ends, in UTC, such as 2026-05-13T23:42:00Z.
    #[arg(long, value_name = "TIME")]
    pub(super) expires_at: Option<String>,
    /// How long the job may run.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_runtime_sec: Option<u64>,
    /// Write the result to a file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Print every frame as a JSON object a line.
    #[arg(long)]
    pub(super) json: bool,
    /// Run nothing, and say which grants the job would get and why not others.
    ///
    /// Exit code 1 says that it would not get all of them.
    #[arg(long)]
    pub(super) explain: bool,
}

impl JobArgs {
    /// Only how the job is shown.
    pub fn shown(json: bool, output: &Path) -> Self {
        Self { json, output: Some(output.to_owned()), ..Self::default() }
    }

    pub(super) fn submission(&self, agent: &str) -> Result<Submit, Failure> {
        let input = self.input.as_deref().map(|input| parse_json("--input", input)).transpose()?;
        Ok(Submit {
            lease_request: self.lease.as_deref().map(|lease| parse_json("--lease", lease)).transpose()?,
            lease_constraints: self.expires_at.as_ref().map(|at| json!({ "expires_at": at })),
            max_runtime_sec: self.max_runtime_sec,
            ..Submit::new(agent, input.unwrap_or(Value::Null))
        })
    }
}

/// `leasehold run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A component, or the folder of an agent project, which is built first.
    path: PathBuf,
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    host: OwnHost,
}

/// A host for an agent of one's own: what it offers.
#[derive(Clone, Debug, Default, Args)]
pub struct OwnHost {
    /// A folder that the job can be granted, and the path it sees it under. May be repeated.
    #[arg(long, value_name = "/VIRTUAL=DIR[:ro|:rw]", value_parser = config::parse_mount)]
    pub(super) mount: Vec<config::MountEntry>,
    /// A folder of other agents, to which this one may delegate as far as its lease says.
    #[arg(long, value_name = "DIR")]
    pub(super) agents: Option<PathBuf>,
    /// A settings file, for limits, mounts, tools and models.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl OwnHost {
    /// The settings of a host that leaves nothing behind and has one principal.
    pub fn settings(self, temporary: &Path) -> Result<Config, Failure> {
        let host_args = HostArgs { config: self.config, mount: self.mount, agents: self.agents, ..HostArgs::default() };
        let mut config = host_args.leaving_nothing(temporary).settings()?;
        config.server.data = temporary.join("data");
        config.tokens.clear();
        config.policy.clear();
        config.limits = Limits { live_agents_max: 16, ..config.limits };
        Ok(config)
    }
}

/// Starts a host whose principal may have the lease that is asked for, and registers the agents of its folder.
///
/// Who runs an agent on his own machine decides what it may do: the lease asked for is the lease given.
pub async fn start_own(mut config: Config, lease: Option<&Value>, delegates: bool) -> Result<Host, Failure> {
    if let Some(lease) = lease {
        let lease = serde_json::from_value(lease.clone())
            .map_err(|error| Failure::Usage(format!("--lease: {error}; write {{\"namespace\": [\"pattern\", …]}}")))?;
        config.policy.insert("local".into(), config::PolicyEntry { lease: Some(lease), ..Default::default() });
    }
    let parts = Parts { owner: Some(Principal::new("local")), ..Parts::default() };
    let host = Host::start(config, parts)
        .await
        .map_err(|error| Failure::Usage(error.to_string().replace("policy.local:", "--lease:")))?;
    if delegates {
        super::hosting::register(&host).await?;
    }
    Ok(host)
}

/// Has a session with a host of one's own, which ends with it.
pub async fn with_own(host: Host, session: impl AsyncFnOnce(Client) -> Result<(), Failure>) -> Result<(), Failure> {
    let (theirs, ours) = transport::memory();
    let session = async {
        let outcome = match Client::open(ours, None, ClientInfo::default()).await {
            Ok(client) => session(client).await,
            Err(error) => Err(error.into()),
        };
        host.stop();
        outcome
    };
    let (outcome, ()) = tokio::join!(session, host.serve_one(theirs));
    host.close().await;
    outcome
}

/// `leasehold submit`
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The agent, `name` or `name@version`.
    agent: String,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    job: JobArgs,
    /// Makes a repeated submission the same job.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the job's id and leave it running.
    #[arg(long)]
    detach: bool,
}

/// `leasehold jobs`
#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only jobs in this status. May be repeated.
    #[arg(long, value_parser = ["pending", "running", "success", "error", "cancelled", "timed_out"])]
    status: Vec<String>,
    /// Only jobs of this agent, `name` or `name@version`.
    #[arg(long)]
    agent: Option<String>,
    /// Print an object a line.
    #[arg(long)]
    json: bool,
}

/// Runs one agent in a host of its own.
pub async fn run(args: RunArgs) -> Result<(), Failure> {
    let temporary = tempfile::tempdir().map_err(anyhow::Error::from)?;
    let component = if args.path.is_dir() { build(&args.path, temporary.path()).await? } else { args.path.clone() };
    let (name, version) = name_of(&component);
    let delegates = args.host.agents.is_some();
    let config = args.host.settings(temporary.path())?;
    let submission = args.job.submission(&name)?;
    if args.job.explain {
        return lease::explain_run(&config, &component, submission.lease_request, args.job.json);
    }
    let host = start_own(config, submission.lease_request.as_ref(), delegates).await?;
    let registry = std::sync::Arc::clone(host.registry());
    let registered = tokio::task::spawn_blocking(move || registry.register_file(&component, &name, &version)).await;
    registered.map_err(anyhow::Error::from)?.map_err(|error| Failure::Usage(error.to_string()))?;
    with_own(host, async |mut client| watch(&mut client, submission, &args.job).await).await
}

/// Builds the project in `dir` and gives the component's path.
async fn build(dir: &Path, out: &Path) -> Result<PathBuf, Failure> {
    let (dir, out) = (dir.to_owned(), out.to_owned());
    let built = tokio::task::spawn_blocking(move || {
        project::build(&[dir], &super::agents::options(out), &mut super::agents::show_progress)
    });
    let built = built.await.map_err(anyhow::Error::from)?.map_err(super::agents::build_failure)?;
    match built.first() {
        Some(agent) => Ok(agent.path.clone()),
        None => Err(Failure::Usage("the project has no agent".into())),
    }
}

/// The name and version in a component's file name, `NAME@VERSION.wasm`, or a name made of what there is.
fn name_of(component: &Path) -> (String, String) {
    let stem = component.file_stem().and_then(|stem| stem.to_str()).unwrap_or("agent");
    let (name, version) = stem.split_once('@').unwrap_or((stem, "0.0.0"));
    let fitting =
        |character: char| if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(fitting).collect();
    let name = name.trim_start_matches('-');
    (if name.is_empty() { "agent".into() } else { name.to_owned() }, version.to_owned())
}

/// Submits a job and follows it, unless it is detached.
pub async fn submit(args: SubmitArgs) -> Result<(), Failure> {
    let submission = Submit { idempotency_key: args.idempotency_key, ..args.job.submission(&args.agent)? };
    if args.job.explain {
        return Err(Failure::Usage(
            "--explain: ARCP has no message that asks without submitting; where the host's settings are, \
             `leasehold lease explain --as PRINCIPAL --lease JSON --config FILE` says it"
                .to_owned(),
        ));
    }
    let mut client = connect(&args.client).await?;
    if !args.detach {
        let outcome = watch(&mut client, submission, &args.job).await;
        if outcome.is_ok() {
            // The job is done; a host that has gone meanwhile takes nothing from it.
            let _ = client.close().await;
        }
        return outcome;
    }
    let accepted = client.submit(submission).await?;
    tickets::keep(&accepted.job_id, &args.client.url, &client)?;
    if args.job.json {
        output::line(&json!({ "job_id": accepted.job_id }));
    } else {
        output::text_line(&accepted.job_id);
    }
    client.close().await?;
    Ok(())
}

/// Submits a job and shows it until its end.
pub async fn watch(client: &mut Client, submission: Submit, args: &JobArgs) -> Result<(), Failure> {
    let mut interrupts = follow::Interrupts::listen()?;
    let view = follow::View::new(args.json, args.output.clone())?;
    let accepted = interrupts.until(client.submit(submission)).await??;
    view.accepted(&accepted);
    follow::follow(client, &accepted.job_id, view, interrupts, follow::Interrupted::Cancels).await
}

/// Lists the principal's jobs.
pub async fn list(args: JobsArgs) -> Result<(), Failure> {
    let mut client = connect(&args.client).await?;
    let mut filter = json!({});
    if !args.status.is_empty() {
        filter["status"] = json!(args.status);
    }
    if let Some(agent) = &args.agent {
        filter["agent"] = json!(agent);
    }
    let jobs = client.list_jobs(filter).await?;
    if args.json {
        jobs.iter().for_each(output::line);
    } else if jobs.is_empty() {
        output::text_line("no jobs");
    } else {
        let text = |job: &Value, key: &str| job[key].as_str().unwrap_or_default().to_owned();
        let row = |job: &Value| ["job_id", "agent", "status", "created_at"].map(|key| text(job, key)).to_vec();
        output::table(&["JOB", "AGENT", "STATUS", "CREATED"], jobs.iter().map(row));
    }
    client.close().await?;
    Ok(())
}

/// Connects to the host that the flags name.
pub async fn connect(args: &ClientArgs) -> Result<Client, Failure> {
    Ok(open(args, None).await?)
}

/// Connects to the host that the flags name, and comes back to a session there if it is said to which.
pub async fn open(args: &ClientArgs, resume: Option<Resume>) -> Result<Client, ClientError> {
    let token = args.token.as_ref().map(leasehold_core::secret::Secret::expose);
    Client::connect_ws(&args.url, token, ClientInfo { resume, ..ClientInfo::default() }).await
}

/// Reads JSON from the flag itself, from `@FILE`, or from `-`, standard input.
pub(super) fn parse_json(flag: &str, text: &str) -> Result<Value, Failure> {
    let (source, text) = if text == "-" {
        let read = std::io::read_to_string(std::io::stdin());
        ("standard input".to_owned(), read.map_err(|error| Failure::Usage(format!("{flag} -: {error}")))?)
    } else if let Some(path) = text.strip_prefix('@') {
        let read = fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{flag} @{path}: {error}")))?;
        (path.to_owned(), read)
    } else {
        ("the text given".to_owned(), text.to_owned())
    };
    serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("{flag}: {source} is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_named_after_its_file() {
        for (path, name, version) in [
            ("agents/hello@1.2.0.wasm", "hello", "1.2.0"),
            ("target/summarize_files.wasm", "summarize-files", "0.0.0"),
            ("_.wasm", "agent", "0.0.0"),
        ] {
            assert_eq!(name_of(Path::new(path)), (name.to_owned(), version.to_owned()), "{path}");
        }
    }

    #[test]
    fn an_error_in_json_names_the_flag() {
        for (text, said) in [("{", "--input: the text given is not JSON"), ("@/no/such", "--input @/no/such")] {
            let Err(Failure::Usage(message)) = parse_json("--input", text) else { panic!("{text}") };
            assert!(message.contains(said), "{message}");
        }
    }
}
