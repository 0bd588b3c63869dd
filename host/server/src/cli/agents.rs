//! `agents`, `inspect`, `new` and `build`.

use std::{fs, path::PathBuf, sync::Mutex};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{ClientArgs, Failure, deploy::AgentsCommand, jobs, output};
use crate::{
    agents::audit::{self, Audit},
    project::{self, BuildError, Language, Options, Progress},
    sandbox::limits::Limits,
    scaffold::{self, Template},
};

/// `leasehold agents`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AgentsArgs {
    #[command(subcommand)]
    pub command: Option<AgentsCommand>,
    #[command(flatten)]
    client: ClientArgs,
    /// Print an object a line.
    #[arg(long)]
    json: bool,
}

/// `leasehold inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The component.
    component: PathBuf,
    /// Print an object.
    #[arg(long)]
    json: bool,
}

/// `leasehold new`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The agent's name, which is also the folder's.
    name: String,
    /// What the agent is written in.
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    lang: Lang,
}

/// A language, as the command line spells it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Lang {
    Rust,
    Python,
    #[value(alias = "typescript")]
    Ts,
    #[value(alias = "javascript")]
    Js,
    Go,
    C,
}

impl Lang {
    fn template(self) -> Template {
        match self {
            Self::Rust => Template::Rust,
            Self::Python => Template::Python,
            Self::Ts => Template::TypeScript,
            Self::Js => Template::JavaScript,
            Self::Go => Template::Go,
            Self::C => Template::C,
        }
    }
}

/// `leasehold build`
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The folders of the projects.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Where the components go.
    #[arg(long, value_name = "AGENTS_DIR", default_value = "agents")]
    out: PathBuf,
    /// Print an object for each agent.
    #[arg(long)]
    json: bool,
}

/// Lists the agents of a host.
pub async fn list(args: AgentsArgs) -> Result<(), Failure> {
    let client = jobs::connect(&args.client).await?;
    let agents = client.welcome()["capabilities"]["agents"].as_array().cloned().unwrap_or_default();
    if args.json {
        agents.iter().for_each(output::line);
    } else if agents.is_empty() {
        output::text_line("no agents");
    } else {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |agent: &Value| {
            let versions: Vec<String> = agent["versions"].as_array().into_iter().flatten().map(text).collect();
            vec![text(&agent["name"]), text(&agent["default"]), versions.join(" ")]
        };
        output::table(&["AGENT", "DEFAULT", "VERSIONS"], agents.iter().map(row));
    }
    client.close().await?;
    Ok(())
}

/// Shows what a component is and asks for. Fails if this host would not run it.
pub fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let path = args.component.display();
    let wasm = fs::read(&args.component).map_err(|error| Failure::Usage(format!("{path}: {error}")))?;
    let audit = audit::audit(&wasm, Limits::default().component_bytes_max)
        .map_err(|error| Failure::Usage(format!("{path}: {error}")))?;
    if args.json {
        output::line(&audit);
    } else {
        describe(&audit);
    }
    audit.check().map_err(|refused| Failure::Refused(format!("{path}: {refused}")))
}

fn describe(audit: &Audit) {
    output::text_line(&format!("digest     sha256:{}", audit.digest));
    output::text_line(&format!("size       {}", output::size(audit.size_bytes as u64)));
    output::text_line(&format!("memory     {} at the start", output::size(audit.memory_min_bytes)));
    if audit.authority.is_empty() {
        output::text_line("authority  none: whatever its lease, it can reach no file, network or tool");
    }
    for authority in &audit.authority {
        output::text_line(&format!("authority  {} (it imports {})", authority.namespace, authority.because.join(", ")));
    }
    if audit.hands_on() {
        output::text_line("           what its lease grants beyond that, agents it delegates to can use");
    }
    for import in &audit.imports {
        output::text_line(&format!("import     {}  {}", import.name, import.functions.join(" ")));
    }
    output::text_line(&format!("exports    {}", audit.exports.join(" ")));
}

/// Starts a project.
pub fn new(args: &NewArgs) -> Result<(), Failure> {
    let dir = PathBuf::from(&args.name);
    let template = args.lang.template();
    scaffold::new(template, &args.name, &dir).map_err(|error| Failure::Usage(error.to_string()))?;
    let language = template.language();
    let compiler = (language == Language::C).then(|| project::compiler_of_c(&dir, &options("agents"))).flatten();
    let tools = match (compiler, language.tools()) {
        (None, Some(install)) => format!("{install} && "),
        _ => String::new(),
    };
    let compiled =
        compiler.map_or(String::new(), |compiler| format!(", which the {compiler} of this machine compiles"));
    output::text_line(&format!("made {}/{compiled}", dir.display()));
    output::text_line(&format!("next: cd {} && {tools}leasehold build . && cat README.md", dir.display()));
    Ok(())
}

/// Builds projects.
pub async fn build(args: BuildArgs) -> Result<(), Failure> {
    let (dirs, options) = (args.dirs, options(args.out));
    let built = tokio::task::spawn_blocking(move || project::build(&dirs, &options, &mut show_progress));
    let built = built.await.map_err(anyhow::Error::from)?.map_err(build_failure)?;
    for agent in built {
        let (size, path) = (agent.audit.size_bytes, agent.path.display().to_string());
        if args.json {
            let digest = agent.audit.digest.to_string();
            output::line(&json!({ "agent": agent.agent(), "path": path, "size_bytes": size, "digest": digest }));
        } else {
            output::text_line(&format!("{}  {path}  {}", agent.agent(), output::size(size as u64)));
        }
    }
    Ok(())
}

/// How the projects of this user are built.
pub fn options(out: impl Into<PathBuf>) -> Options {
    Options { cache_dir: super::user_cache(), ..Options::new(out) }
}

/// Shows what the build tools say.
pub fn show_progress(progress: Progress<'_>) {
    /// One spinner for a whole build, however many lines it brings.
    static SPINNER: Mutex<Option<ProgressBar>> = Mutex::new(None);
    let mut spinner = SPINNER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let spinner = spinner.get_or_insert_with(ProgressBar::new_spinner);
    match progress {
        Progress::InstallingTarget => spinner.println(format!("adding the Rust target {}", project::TARGET)),
        Progress::Compiling(names) => spinner.set_message(format!("building {}", names.join(", "))),
        // What a compiler complains about stays; what it merely does passes by.
        Progress::Line(line) if is_chatter(line) => {
            spinner.set_message(line.trim().to_owned());
            spinner.tick();
        }
        Progress::Line(line) => spinner.suspend(|| eprintln!("{line}")),
        Progress::Built(_) => spinner.finish_and_clear(),
    }
}

/// Whether a line of a tool only says what it does at the moment.
pub fn is_chatter(line: &str) -> bool {
    line.trim_start().starts_with("Compiling") || line.contains("Finished")
}

/// A build that failed has shown its compiler's words already.
pub fn build_failure(error: BuildError) -> Failure {
    match error {
        BuildError::Compile { tool, names, status, .. } => {
            Failure::Other(anyhow::anyhow!("{tool} could not build {} ({status}); see above", names.join(", ")))
        }
        other => Failure::Usage(other.to_string()),
    }
}
