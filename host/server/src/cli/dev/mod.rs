//! `dev`: an agent that is built and run again whenever one of its sources is saved.
//!
//! One host and one session last from the first build to the end. What is run
//! is the submission the flags describe, or the last one they described for
//! this project, so that `leasehold dev` alone goes on with it. That is kept
//! with the user and not in the project: a project that came from somewhere
//! else must not choose what its agent is granted.

mod sources;

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{self, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;
use console::style;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    Failure,
    agents::{self, is_chatter},
    follow::{Interrupts, View},
    jobs::{self, JobArgs, OwnHost},
    keep_private,
    output::{self, clean},
    user_state,
};
use crate::{
    agents::{audit::Digest, registry::Registry},
    client::{Client, ClientError, Frame, Submit},
    config::{self, MountMode},
    project::{self, Built, Progress},
};

/// How many files a line names that were saved at once, as by a change of branch.
const SAVED_SHOWN: usize = 5;

/// `leasehold dev`
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The folder of the project.
    #[arg(default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    host: OwnHost,
}

/// Builds a project, runs it, and does both again whenever a source is saved, until Ctrl-C.
pub async fn dev(args: DevArgs) -> Result<(), Failure> {
    if args.job.explain {
        return Err(Failure::Usage("--explain: `leasehold run` says it, without running anything".to_owned()));
    }
    let (dir, language) = project::recognize(&args.dir).map_err(agents::build_failure)?;
    let shown = Shown { json: args.job.json, output: args.job.output.clone() };
    let asked = Asked::of(args, kept_for(&dir).as_deref())?;
    let temporary = tempfile::tempdir().map_err(anyhow::Error::from)?;
    let delegates = asked.agents.is_some();
    let config = asked.host()?.settings(temporary.path())?;
    let compiled = config.server.compiled.clone().unwrap_or_else(|| config.server.data.join("compiled"));
    let host = jobs::start_own(config, asked.lease.as_ref(), delegates).await?;
    // Before the first build, so that no save is missed.
    let saved = sources::watch(&dir, language)
        .map_err(|error| Failure::Other(anyhow::anyhow!("cannot watch {}: {error}", dir.display())))?;
    let builder = Builder {
        dir,
        out: temporary.path().join("agents"),
        compiled,
        made: Arc::default(),
        registry: Arc::clone(host.registry()),
    };
    jobs::with_own(host, async |client| {
        let (lines, said) = mpsc::unbounded_channel();
        let building = Some(builder.start(None, lines.clone()));
        let interrupts = Interrupts::listen()?;
        let dev = Dev {
            client,
            asked,
            shown,
            builder,
            lines,
            building,
            stale: false,
            built: None,
            job: None,
            next: None,
            ending: false,
        };
        dev.run(interrupts, saved, said).await
    })
    .await
}

/// What is submitted, and to what kind of host: the flags of `run`, as they are kept.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Asked {
    input: Value,
    lease: Option<Value>,
    expires_at: Option<String>,
    max_runtime_sec: Option<u64>,
    /// As `--mount` takes them, with absolute folders.
    mounts: Vec<String>,
    agents: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// Where the submission of a project is kept, if the user has a home.
fn kept_for(dir: &Path) -> Option<PathBuf> {
    let digest = Digest::of(dir.as_os_str().as_bytes());
    Some(user_state()?.join(format!("dev/{digest}.json")))
}

impl Asked {
    /// What the flags say, which is kept, or what was kept if they say nothing.
    fn of(args: DevArgs, file: Option<&Path>) -> Result<Self, Failure> {
        let DevArgs { job, host, .. } = args;
        let says_nothing = job.input.is_none()
            && job.lease.is_none()
            && job.expires_at.is_none()
            && job.max_runtime_sec.is_none()
            && host.mount.is_empty()
            && host.agents.is_none()
            && host.config.is_none();
        if says_nothing {
            return match file.map(|file| (file, fs::read(file))) {
                Some((file, Ok(kept))) => serde_json::from_slice(&kept).map_err(|error| {
                    Failure::Usage(format!("{}: {error}; delete it, or say with flags what to run", file.display()))
                }),
                _ => Ok(Self::default()),
            };
        }
        // The next call may be made in another folder.
        let absolute = |path: &PathBuf| path::absolute(path).map_err(anyhow::Error::from);
        let submission = job.submission("agent")?;
        let mount = |mount: &config::MountEntry| {
            let mode = if mount.mode == MountMode::Rw { "rw" } else { "ro" };
            Ok(format!("{}={}:{mode}", mount.at, absolute(&mount.path)?.display()))
        };
        let asked = Self {
            input: submission.input,
            lease: submission.lease_request,
            expires_at: job.expires_at,
            max_runtime_sec: job.max_runtime_sec,
            mounts: host.mount.iter().map(mount).collect::<Result<_, Failure>>()?,
            agents: host.agents.as_ref().map(absolute).transpose()?,
            config: host.config.as_ref().map(absolute).transpose()?,
        };
        if let Some(file) = file
            && let Err(error) = asked.keep(file)
        {
            tracing::warn!(file = %file.display(), %error, "the submission is not kept for the next `leasehold dev`");
        }
        Ok(asked)
    }

    /// An input may hold what is for nobody else.
    fn keep(&self, file: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).expect("what was JSON can be written as JSON");
        keep_private(file, format!("{text}\n").as_bytes())
    }

    fn host(&self) -> Result<OwnHost, Failure> {
        let mount =
            |text: &String| config::parse_mount(text).map_err(|error| Failure::Usage(format!("{text}: {error}")));
        let mount = self.mounts.iter().map(mount).collect::<Result<_, _>>()?;
        Ok(OwnHost { mount, agents: self.agents.clone(), config: self.config.clone() })
    }

    fn submission(&self, agent: &str) -> Submit {
        Submit {
            lease_request: self.lease.clone(),
            lease_constraints: self.expires_at.as_ref().map(|at| json!({ "expires_at": at })),
            max_runtime_sec: self.max_runtime_sec,
            ..Submit::new(agent, self.input.clone())
        }
    }
}

/// Builds the project and has the host take what came out.
#[derive(Clone)]
struct Builder {
    dir: PathBuf,
    out: PathBuf,
    /// Where the host keeps what it compiled.
    compiled: PathBuf,
    /// What was not there before it was built here.
    made: Arc<Mutex<BTreeSet<Digest>>>,
    registry: Arc<Registry>,
}

type Building = JoinHandle<Result<Built, String>>;

impl Builder {
    /// Begins a build. What the tools say goes to `lines`; `before` is the build it takes the place of.
    fn start(&self, before: Option<&Built>, lines: mpsc::UnboundedSender<String>) -> Building {
        let (builder, before) = (self.clone(), before.map(|built| built.audit.digest));
        tokio::task::spawn_blocking(move || {
            let mut progress = |progress: Progress<'_>| {
                if let Progress::Line(line) = progress
                    && !is_chatter(line)
                {
                    // Nobody listens any more when the program ends.
                    let _ = lines.send(line.to_owned());
                }
            };
            let built = project::build(&[&builder.dir], &agents::options(&builder.out), &mut progress);
            let built = built.map_err(|error| match agents::build_failure(error) {
                Failure::Usage(message) => message,
                Failure::Other(error) => error.to_string(),
                other => format!("{other:?}"),
            })?;
            let built = built.into_iter().next().expect("one folder makes one agent");
            let digest = built.audit.digest;
            let made = || builder.made.lock().unwrap_or_else(PoisonError::into_inner);
            if builder.compiled(digest).is_empty() {
                made().insert(digest);
            }
            let registered = builder.registry.register_file(&built.path, &built.name, &built.version);
            registered.map_err(|error| error.to_string())?;
            if let Some(before) = before.filter(|before| *before != digest && made().remove(before)) {
                builder.forget(before);
            }
            Ok(built)
        })
    }

    /// Deletes what was compiled of an earlier build, which nobody will ask for again: an agent with an interpreter in
    /// it is large, and a day has many saves. A job that still runs it has it open. What was there before this program
    /// began is another host's.
    fn forget(&self, digest: Digest) {
        for path in self.compiled(digest) {
            // If it stays, it costs space and nothing else.
            let _ = fs::remove_file(path);
        }
    }

    fn compiled(&self, digest: Digest) -> Vec<PathBuf> {
        let digest = digest.to_string();
        let entries = fs::read_dir(&self.compiled).into_iter().flatten().flatten();
        let its = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&digest));
        its.map(|entry| entry.path()).collect()
    }
}

/// How things are shown.
struct Shown {
    json: bool,
    output: Option<PathBuf>,
}

struct Dev {
    client: Client,
    asked: Asked,
    shown: Shown,
    builder: Builder,
    lines: mpsc::UnboundedSender<String>,
    building: Option<Building>,
    /// Something was saved after the build that is under way began.
    stale: bool,
    /// The last good version.
    built: Option<Built>,
    /// The job that runs.
    job: Option<(String, View)>,
    /// The agent that is to run when that job has ended, as it was asked to.
    next: Option<String>,
    /// Ctrl-C was pressed.
    ending: bool,
}

impl Dev {
    async fn run(
        mut self,
        mut interrupts: Interrupts,
        mut saved: mpsc::UnboundedReceiver<Vec<String>>,
        mut said: mpsc::UnboundedReceiver<String>,
    ) -> Result<(), Failure> {
        self.tell("dev.building", json!({}), "building");
        loop {
            tokio::select! {
                biased;
                () = interrupts.next() => {
                    if self.ending {
                        return Err(Failure::Interrupted);
                    }
                    if self.job.is_none() {
                        return Ok(());
                    }
                    self.ending = true;
                    self.cancel("interrupted at the terminal").await?;
                }
                // Before the end of the build they belong to.
                Some(line) = said.recv() => self.line(&line),
                built = ended(&mut self.building) => self.built(built).await?,
                Some(files) = saved.recv(), if !self.ending => self.saved(&files),
                frame = self.client.next_event() => {
                    if self.frame(&frame?).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Builds again, now or when the build that is under way has ended.
    fn saved(&mut self, files: &[String]) {
        let names: Vec<_> = files.iter().take(SAVED_SHOWN).map(|file| clean(file)).collect();
        let more = match files.len().saturating_sub(SAVED_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.tell("dev.saved", json!({ "files": files }), &format!("saved {}{more}", names.join(", ")));
        self.stale = true;
        if self.building.is_none() {
            self.build();
        }
    }

    fn build(&mut self) {
        self.stale = false;
        self.tell("dev.building", json!({}), "building");
        self.building = Some(self.builder.start(self.built.as_ref(), self.lines.clone()));
    }

    async fn built(&mut self, outcome: Result<Built, String>) -> Result<(), Failure> {
        self.building = None;
        match outcome {
            Err(message) => {
                self.tell("dev.failed", json!({ "message": message }), &message);
                if !self.stale {
                    self.wait();
                }
            }
            Ok(built) => {
                let (agent, size) = (built.agent(), built.audit.size_bytes);
                let details = json!({ "agent": agent, "size_bytes": size, "digest": built.audit.digest.to_string() });
                self.tell("dev.built", details, &format!("built {agent}, {}", output::size(size as u64)));
                self.built = Some(built);
                // What is older than a save is not run: what was saved is built next.
                if !self.stale && !self.ending {
                    match self.job {
                        None => self.submit(&agent).await?,
                        Some(_) => {
                            if self.next.replace(agent).is_none() {
                                self.cancel("a newer build is ready").await?;
                            }
                        }
                    }
                }
            }
        }
        if self.stale && !self.ending {
            self.build();
        }
        Ok(())
    }

    async fn submit(&mut self, agent: &str) -> Result<(), Failure> {
        match self.client.submit(self.asked.submission(agent)).await {
            Ok(accepted) => {
                let view = View::new(self.shown.json, self.shown.output.clone())?;
                view.accepted(&accepted);
                self.job = Some((accepted.job_id, view));
            }
            Err(error @ ClientError::Refused { .. }) => {
                self.tell("dev.refused", json!({ "message": error.to_string() }), &error.to_string());
                self.wait();
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Asks the job that runs to end. Its last frame says that it has.
    async fn cancel(&mut self, reason: &str) -> Result<(), Failure> {
        let Some((id, view)) = &self.job else { return Ok(()) };
        if !self.shown.json {
            view.say(&mark(&format!("{reason}: cancelling {}", clean(id))));
        }
        match self.client.cancel(id, Some(reason)).await {
            // It has ended meanwhile, and its last frame is on its way.
            Ok(()) | Err(ClientError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows a frame, and says whether everything is over with it.
    async fn frame(&mut self, frame: &Frame) -> Result<bool, Failure> {
        let Some((id, view)) = &mut self.job else { return Ok(false) };
        if frame.job_id.as_ref() != Some(id) {
            return Ok(false);
        }
        view.frame(frame);
        if !frame.is_terminal() {
            return Ok(false);
        }
        if let Some((_, view)) = self.job.take() {
            match view.end(frame) {
                Ok(()) | Err(Failure::JobFailed) => {}
                Err(other) => return Err(other),
            }
        }
        match self.next.take() {
            _ if self.ending => return Ok(true),
            Some(agent) => self.submit(&agent).await?,
            None => self.wait(),
        }
        Ok(false)
    }

    /// Says that it is the developer's turn.
    fn wait(&self) {
        if self.building.is_none() {
            let dir = self.builder.dir.display().to_string();
            self.tell("dev.waiting", json!({ "dir": dir }), &format!("waiting for a save in {dir}; Ctrl-C ends"));
        }
    }

    /// A line of a tool.
    fn line(&self, line: &str) {
        match (&self.job, self.shown.json) {
            (_, true) => output::line(&json!({ "type": "dev.line", "line": line })),
            (Some((_, view)), false) => view.say(line),
            (None, false) => eprintln!("{line}"),
        }
    }

    /// Says what happens here: an object, or a line beside what the job tells.
    fn tell(&self, kind: &str, mut details: Value, text: &str) {
        if self.shown.json {
            details["type"] = kind.into();
            output::line(&details);
            return;
        }
        let text = mark(text);
        match &self.job {
            Some((_, view)) => view.say(&text),
            None => eprintln!("{text}"),
        }
    }
}

fn mark(text: &str) -> String {
    format!("{} {text}", style("==>").cyan().bold())
}

/// Waits for the end of a build, for ever if there is none.
async fn ended(building: &mut Option<Building>) -> Result<Built, String> {
    match building {
        Some(building) => match building.await {
            Ok(outcome) => outcome,
            Err(error) => Err(format!("the build ended without an answer: {error}")),
        },
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: DevArgs,
    }

    fn asked(dir: &Path, flags: &[&str]) -> Result<Asked, Failure> {
        let line = Line::parse_from(["dev"].iter().chain(flags));
        Asked::of(line.args, Some(&dir.join("state/dev.json")))
    }

    #[test]
    fn what_the_flags_said_last_is_what_is_run_without_flags() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(asked(dir.path(), &[]).unwrap(), Asked::default());
        let said = asked(dir.path(), &["--input", r#"{"n": 1}"#, "--mount", "/w=here:rw", "--lease", "{}"]).unwrap();
        assert_eq!(said.input, json!({ "n": 1 }));
        assert_eq!(said.mounts, [format!("/w={}:rw", path::absolute("here").unwrap().display())]);
        assert_eq!(asked(dir.path(), &["--json"]).unwrap(), said); // that is how it is shown, not what is run
        let narrower = asked(dir.path(), &["--max-runtime-sec", "5"]).unwrap();
        assert_eq!((&narrower.input, &narrower.lease, narrower.max_runtime_sec), (&Value::Null, &None, Some(5)));
        assert_eq!(asked(dir.path(), &[]).unwrap(), narrower);
        fs::write(dir.path().join("state/dev.json"), "{").unwrap();
        assert!(matches!(asked(dir.path(), &[]), Err(Failure::Usage(message)) if message.contains("delete it")));
    }
}
