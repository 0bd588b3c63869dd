//! From an agent's sources to a component in the agents folder.
//!
//! [`build`] finds out what kind of project a folder holds, sees that the
//! toolchain for it is there, calls the language's own build tool, audits what
//! came out and places it as `NAME@VERSION.wasm` (ARCP §7.5). Placing is a
//! rename, so a host that watches the folder sees the whole file or none.
//!
//! Building runs the project's code (build scripts, macros) with the rights of
//! whoever calls it. It is for one's own agents; a stranger's agent arrives as
//! a component.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fmt, fs,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use serde::Deserialize;

use crate::agents::audit::{AUDIT_SIZE_BYTES_MAX, Audit, AuditError, Refused, audit};
use crate::agents::registry;

/// The target agents in Rust are compiled for: its output is a component already.
pub const TARGET: &str = "wasm32-wasip2";

/// So much of a tool's output an error keeps: the end, where compilers put what matters.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// How projects are built and where the components go.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that gets `NAME@VERSION.wasm`. Made if it is missing.
    pub out_dir: PathBuf,
    /// Where cargo keeps what it compiles, instead of the project's own `target`.
    ///
    /// A build script that builds agents has to set it: cargo holds the lock of
    /// its own folder while the script runs, and would wait for itself.
    pub target_dir: Option<PathBuf>,
    /// Settings of the release profile that replace the project's, such as
    /// `("lto", "true")`. A `CARGO_PROFILE_RELEASE_…` in the environment wins.
    pub profile: Vec<(&'static str, String)>,
    /// Do without the network.
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
}

impl Default for Tools {
    fn default() -> Self {
        Self { cargo: "cargo".into(), rustc: "rustc".into(), rustup: "rustup".into() }
    }
}

/// What a build tells while it runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The target is missing and rustup fetches it.
    InstallingTarget,
    /// One call of cargo begins, for these agents.
    Compiling(&'a [String]),
    /// Cargo says something: what it compiles, warnings, errors.
    Line(&'a str),
    /// An agent is in its place.
    Built(&'a Built),
}

/// An agent that was built, audited and placed.
#[derive(Clone, Debug)]
pub struct Built {
    /// The agent's name: the package's.
    pub name: String,
    /// The agent's version: the package's.
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

/// Why an agent was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No such folder.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// A folder with nothing to build.
    #[error("{} holds no agent: there is no Cargo.toml in it (`leasehold new` writes a project to begin with)", .0.display())]
    NoProject(PathBuf),
    /// A project in a language that is not built here.
    #[error(
        "{} is a {language} project, and only Rust projects are built here: build its component with its own tools \
         and put it into the agents folder as NAME@VERSION.wasm", dir.display()
    )]
    Unsupported {
        /// The project.
        dir: PathBuf,
        /// What it is written in.
        language: &'static str,
    },
    /// A workspace, which has no agent of its own.
    #[error("{} is a workspace without a package: name the folders of its agents ({})", dir.display(), members.join(", "))]
    Workspace {
        /// The workspace.
        dir: PathBuf,
        /// The packages in it that could be agents.
        members: Vec<String>,
    },
    /// A package that is no component.
    #[error("package `{0}` makes no component: add `[lib]` with `crate-type = [\"cdylib\"]` to its Cargo.toml")]
    NoCdylib(String),
    /// A package whose name cannot be an agent's.
    #[error("`{0}` cannot be an agent's name: use a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit")]
    Name(String),
    /// Two packages that would be the same agent.
    #[error("two of the projects are {0}: give one another name or version")]
    Duplicate(String),
    /// A program that is not installed.
    #[error("`{tool}` was not found: install Rust with rustup (https://rustup.rs)")]
    ToolMissing {
        /// The program.
        tool: String,
    },
    /// The compiler does not know the target and could not be taught.
    #[error("the Rust target {TARGET} is not installed: {advice}{}", Block(output))]
    TargetMissing {
        /// What to do.
        advice: String,
        /// What was said when it was tried.
        output: String,
    },
    /// Cargo does not understand the project.
    #[error("cargo cannot read the project in {}{}", dir.display(), Block(output))]
    Metadata {
        /// The project.
        dir: PathBuf,
        /// What cargo said.
        output: String,
    },
    /// The project does not compile.
    #[error("cargo could not build {} ({status}){}", names.join(", "), Block(output))]
    Compile {
        /// The agents of the call.
        names: Vec<String>,
        /// How cargo ended.
        status: ExitStatus,
        /// What cargo and the compiler said, already given to the progress callback.
        output: String,
    },
    /// Cargo succeeded and left no component.
    #[error("cargo built `{0}` and reported no component for it")]
    NoArtifact(String),
    /// What was compiled is no component the host can read.
    #[error("agent `{name}`: {source}")]
    Audit {
        /// The agent.
        name: String,
        /// Why.
        source: AuditError,
    },
    /// What was compiled asks for more than an agent may have.
    #[error("agent `{name}`: {source}")]
    Refused {
        /// The agent.
        name: String,
        /// Why.
        source: Refused,
    },
    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        source: io::Error,
    },
}

/// Builds the agents in `dirs` and places their components.
///
/// Folders of one cargo workspace are built with one call of cargo, in the
/// workspace's own folder. Nothing is placed from a workspace unless all of it
/// compiles. Blocks until everything is done; an async caller does it on a
/// blocking thread.
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
        if projects.iter().any(|known| known.agent() == project.agent() && known.id != project.id) {
            return Err(BuildError::Duplicate(project.agent()));
        }
        if projects.iter().all(|known| known.id != project.id) {
            projects.push(project);
        }
    }
    let out_dir = &options.out_dir;
    fs::create_dir_all(out_dir).map_err(|source| io_error("make", out_dir, source))?;
    let mut built = Vec::new();
    let roots: BTreeSet<_> = projects.iter().map(|project| project.workspace_root.clone()).collect();
    for root in roots {
        let of_root: Vec<_> = projects.iter().filter(|project| project.workspace_root == root).collect();
        ensure_target(&root, options, progress)?;
        for (project, artifact) in compile(&root, &of_root, options, progress)? {
            let agent = place(project, &artifact, options)?;
            progress(Progress::Built(&agent));
            built.push(agent);
        }
    }
    let order = |agent: &Built| projects.iter().position(|project| project.dir == agent.dir);
    built.sort_by_key(order);
    Ok(built)
}

/// A Rust project that makes one agent.
#[derive(Debug)]
struct Project {
    id: String,
    name: String,
    version: String,
    dir: PathBuf,
    workspace_root: PathBuf,
}

/// What `cargo metadata` prints, as far as it matters.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

impl Target {
    fn is_cdylib(&self) -> bool {
        self.crate_types.iter().any(|kind| kind == "cdylib")
    }
}

impl Project {
    fn open(dir: &Path, options: &Options) -> Result<Self, BuildError> {
        // Canonical, because cargo's answers are compared with it.
        let not_a_folder = || BuildError::NotAFolder(dir.to_owned());
        let dir = fs::canonicalize(dir).ok().filter(|dir| dir.is_dir()).ok_or_else(not_a_folder)?;
        let manifest = dir.join("Cargo.toml");
        if !manifest.is_file() {
            return Err(match language_of(&dir) {
                Some(language) => BuildError::Unsupported { dir, language },
                None => BuildError::NoProject(dir),
            });
        }
        let metadata = metadata(&dir, &manifest, options)?;
        let of_dir = |package: &&Package| fs::canonicalize(&package.manifest_path).is_ok_and(|path| path == manifest);
        let Some(package) = metadata.packages.iter().find(of_dir) else {
            let agents = metadata.packages.iter().filter(|package| package.targets.iter().any(Target::is_cdylib));
            return Err(BuildError::Workspace { members: agents.map(|package| package.name.clone()).collect(), dir });
        };
        if !package.targets.iter().any(Target::is_cdylib) {
            return Err(BuildError::NoCdylib(package.name.clone()));
        }
        if !registry::is_name(&package.name) {
            return Err(BuildError::Name(package.name.clone()));
        }
        Ok(Self {
            id: package.id.clone(),
            name: package.name.clone(),
            version: package.version.clone(),
            dir,
            workspace_root: metadata.workspace_root,
        })
    }

    fn agent(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// Tells what a folder without a Cargo.toml is written in, to name it in the error.
fn language_of(dir: &Path) -> Option<&'static str> {
    let table = [
        ("package.json", "JavaScript"),
        ("pyproject.toml", "Python"),
        ("requirements.txt", "Python"),
        ("go.mod", "Go"),
        ("CMakeLists.txt", "C"),
        ("Makefile", "C"),
    ];
    table.iter().find(|(file, _)| dir.join(file).is_file()).map(|(_, language)| *language)
}

fn metadata(dir: &Path, manifest: &Path, options: &Options) -> Result<Metadata, BuildError> {
    let mut command = command(&options.tools.cargo, dir);
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let output = command.output().map_err(|source| spawn_error(&options.tools.cargo, source))?;
    let unreadable = |output: String| BuildError::Metadata { dir: dir.to_owned(), output };
    if !output.status.success() {
        return Err(unreadable(tail(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| unreadable(error.to_string()))
}

/// Sees that the compiler knows [`TARGET`], and lets rustup add it if not.
///
/// The project may choose its own toolchain, so the question is asked in its folder.
fn ensure_target(root: &Path, options: &Options, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), BuildError> {
    if has_target(root, options)? {
        return Ok(());
    }
    let by_hand = format!("run `rustup target add {TARGET}` in {}", root.display());
    if options.offline {
        return Err(BuildError::TargetMissing { advice: by_hand, output: String::new() });
    }
    progress(Progress::InstallingTarget);
    let mut command = command(&options.tools.rustup, root);
    command.args(["target", "add", TARGET]);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let advice = format!(
                "this Rust was not installed with rustup, so install the {TARGET} standard library the way rustc was \
                 installed (a package such as `rust-std-{TARGET}`), or install rustup (https://rustup.rs)"
            );
            return Err(BuildError::TargetMissing { advice, output: String::new() });
        }
        Err(source) => return Err(spawn_error(&options.tools.rustup, source)),
    };
    // Asked again, because rustup may look after another toolchain than the one that is used.
    if output.status.success() && has_target(root, options)? {
        return Ok(());
    }
    Err(BuildError::TargetMissing { advice: by_hand, output: tail(&output.stderr) })
}

fn has_target(root: &Path, options: &Options) -> Result<bool, BuildError> {
    let mut command = command(&options.tools.rustc, root);
    command.args(["--print", "target-libdir", "--target", TARGET]);
    let output = command.output().map_err(|source| spawn_error(&options.tools.rustc, source))?;
    // The compiler names the folder of a target it knows of whether or not it is installed.
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim()).is_dir())
}

/// One line of `--message-format=json`, as far as it matters.
#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Message {
    CompilerArtifact {
        package_id: String,
        target: Target,
        filenames: Vec<PathBuf>,
    },
    #[serde(other)]
    Other,
}

/// Calls cargo once for projects of one workspace, and finds their components.
fn compile<'a>(
    root: &Path,
    projects: &[&'a Project],
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<(&'a Project, PathBuf)>, BuildError> {
    let names: Vec<_> = projects.iter().map(|project| project.name.clone()).collect();
    progress(Progress::Compiling(&names));
    let mut command = command(&options.tools.cargo, root);
    command.args(["build", "--release", "--lib", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    command.arg("--manifest-path").arg(root.join("Cargo.toml"));
    for project in projects {
        command.args(["-p", &project.id]);
    }
    if let Some(target_dir) = &options.target_dir {
        command.arg("--target-dir").arg(target_dir);
    }
    command.args(options.offline.then_some("--offline"));
    command.args(options.locked.then_some("--locked"));
    for (setting, value) in &options.profile {
        let key = format!("CARGO_PROFILE_RELEASE_{}", setting.to_uppercase().replace('-', "_"));
        if env::var_os(&key).is_none() {
            command.env(key, value);
        }
    }
    let mut components = Vec::new();
    let mut output = String::new();
    let status = run(&mut command, &options.tools.cargo, &mut |line| match line {
        Line::Out(line) if line.starts_with('{') => {
            if let Ok(Message::CompilerArtifact { package_id, target, filenames }) = serde_json::from_str(&line)
                && target.is_cdylib()
            {
                let component = filenames.into_iter().find(|file| file.extension() == Some(OsStr::new("wasm")));
                components.extend(component.map(|file| (package_id, file)));
            }
        }
        Line::Out(line) | Line::Err(line) => {
            progress(Progress::Line(&line));
            output.push_str(&line);
            output.push('\n');
            if output.len() > 2 * OUTPUT_BYTES_MAX {
                output = tail(output.as_bytes());
            }
        }
    })?;
    if !status.success() {
        return Err(BuildError::Compile { names, status, output: tail(output.as_bytes()) });
    }
    let component_of = |project: &&'a Project| {
        let found = components.iter().find(|(id, _)| *id == project.id);
        let (_, path) = found.ok_or_else(|| BuildError::NoArtifact(project.name.clone()))?;
        Ok((*project, path.clone()))
    };
    projects.iter().map(component_of).collect()
}

/// Audits a component and puts it where the host looks for agents.
fn place(project: &Project, artifact: &Path, options: &Options) -> Result<Built, BuildError> {
    let name = || project.name.clone();
    let bytes = fs::read(artifact).map_err(|source| io_error("read", artifact, source))?;
    let audit = audit(&bytes, options.size_bytes_max).map_err(|source| BuildError::Audit { name: name(), source })?;
    audit.check().map_err(|source| BuildError::Refused { name: name(), source })?;
    let path = options.out_dir.join(format!("{}.wasm", project.agent()));
    write_at_once(&path, &bytes).map_err(|source| io_error("write", &path, source))?;
    Ok(Built { name: name(), version: project.version.clone(), dir: project.dir.clone(), path, audit })
}

/// Writes a file under another name and renames it, so that nobody opens half of it.
fn write_at_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Not `.wasm`, or a watching host would take it for an agent.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The host may run as another user than the one who builds.
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A tool to be run in `dir`, without what an outer build left in the environment.
fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    let within_cargo = env::var_os("CARGO").is_some();
    for (key, _) in env::vars_os() {
        // A toolchain that the outer cargo was started with is not the project's, if the project names its own.
        let of_outer_toolchain = key == "RUSTUP_TOOLCHAIN" && within_cargo && names_toolchain(dir);
        if of_outer_toolchain || key.to_str().is_some_and(is_of_outer_build) {
            command.env_remove(key);
        }
    }
    command
}

/// Whether a variable speaks of a build that is going on, and not of how its user wants to build.
///
/// The host is started by `cargo run`, and by build scripts and tests, all of
/// which would have an agent compiled for the wrong target, with the host's
/// flags, or under clippy.
fn is_of_outer_build(key: &str) -> bool {
    const NAMES: &[&str] = &[
        "CARGO",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_CRATE_NAME",
        "CARGO_ENCODED_RUSTDOCFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
        "CLIPPY_ARGS",
        "DEBUG",
        "HOST",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "TARGET",
    ];
    const PREFIXES: &[&str] = &["CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_", "DEP_"];
    NAMES.contains(&key)
        || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || (key.starts_with("CARGO_TARGET_") && key.ends_with("_RUSTFLAGS"))
}

/// Whether rustup would find a toolchain file for `dir`.
fn names_toolchain(dir: &Path) -> bool {
    dir.ancestors().any(|dir| dir.join("rust-toolchain.toml").is_file() || dir.join("rust-toolchain").is_file())
}

/// A line of a tool's output.
enum Line {
    Out(String),
    Err(String),
}

/// Runs a tool and hands over its lines as they come.
fn run(command: &mut Command, program: &Path, each: &mut dyn FnMut(Line)) -> Result<ExitStatus, BuildError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| spawn_error(program, source))?;
    let (sender, lines) = mpsc::channel();
    // Both pipes are read at once: a tool that fills the one nobody reads would stop for ever.
    let readers = [
        child.stdout.take().map(|pipe| read_lines(pipe, sender.clone(), Line::Out)),
        child.stderr.take().map(|pipe| read_lines(pipe, sender, Line::Err)),
    ];
    lines.iter().for_each(each);
    for reader in readers.into_iter().flatten() {
        // A reader does not panic, and what it could not read is lost either way.
        let _ = reader.join();
    }
    child.wait().map_err(|source| io_error("wait for", program, source))
}

fn read_lines(
    pipe: impl Read + Send + 'static,
    lines: mpsc::Sender<Line>,
    line: fn(String) -> Line,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut bytes = Vec::new();
        // A compiler quotes sources, which may not be UTF-8.
        while pipe.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&bytes);
            if lines.send(line(text.trim_end_matches(['\r', '\n']).to_owned())).is_err() {
                return;
            }
            bytes.clear();
        }
    })
}

/// The end of a tool's output, from the beginning of a line.
fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim_end();
    let Some(over) = text.len().checked_sub(OUTPUT_BYTES_MAX + 1) else { return text.to_owned() };
    let start = text.as_bytes()[over..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| over + at + 1);
    format!("…\n{}", text.get(start..).unwrap_or_default())
}

/// Output of a tool within an error: on lines of its own, or not at all.
struct Block<'a>(&'a str);

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "\n{}", self.0) }
    }
}

fn io_error(verb: &str, path: &Path, source: io::Error) -> BuildError {
    BuildError::Io { action: format!("{verb} {}", path.display()), source }
}

fn spawn_error(program: &Path, source: io::Error) -> BuildError {
    match source.kind() {
        io::ErrorKind::NotFound => BuildError::ToolMissing { tool: program.display().to_string() },
        _ => io_error("run", program, source),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A folder of projects and of scripts that stand for the tools, so that what is tested is what is asked of them.
    struct Bench(tempfile::TempDir);

    const AGENT: &str = r#"(component
        (core module $m (func (export "run")))
        (core instance $i (instantiate $m))
        (func $run (canon lift (core func $i "run")))
        (export "run" (func $run)))"#;

    impl Bench {
        fn new() -> Self {
            let bench = Self(tempfile::tempdir().expect("a temporary folder"));
            bench.write("lib/present", "");
            bench.script("rustc", &format!("echo {}", bench.path("lib").display()));
            bench.script("rustup", "exit 1");
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            // As cargo would say it.
            fs::canonicalize(self.0.path()).unwrap().join(name)
        }

        fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }

        /// Writes a program. A shell does the writing: a program that this
        /// process still has open cannot be started while another test forks.
        fn script(&self, name: &str, body: &str) {
            let body = format!("#!/bin/sh\n{body}\n");
            let mut shell = Command::new("sh");
            shell.args(["-c", r#"printf %s "$2" > "$1" && chmod +x "$1""#, "sh"]).arg(self.path(name)).arg(body);
            assert!(shell.status().unwrap().success());
        }

        /// A `cargo` that knows packages of the workspace `root`, notes its arguments, and builds `component`.
        fn cargo(&self, root: &str, packages: &[(&str, &str)], component: &str) {
            let id = |name: &str, version: &str| format!("path+file://{root}#{name}@{version}");
            let described: Vec<_> = packages
                .iter()
                .map(|(name, version)| {
                    self.write(&format!("{root}/{name}/Cargo.toml"), "");
                    serde_json::json!({
                        "id": id(name, version), "name": name, "version": version,
                        "manifest_path": self.path(&format!("{root}/{name}/Cargo.toml")),
                        "targets": [{ "crate_types": ["cdylib"] }],
                    })
                })
                .collect();
            let metadata = serde_json::json!({ "packages": described, "workspace_root": self.path(root) });
            self.write("metadata.json", metadata.to_string());
            self.write("made.wasm", wat::parse_str(component).unwrap());
            let mut messages = String::from("a tool says what it likes\n");
            for (name, version) in packages {
                let message = serde_json::json!({
                    "reason": "compiler-artifact", "package_id": id(name, version),
                    "target": { "crate_types": ["cdylib"] },
                    "filenames": [self.path("made.d"), self.path("made.wasm")],
                });
                messages += &format!("{message}\n");
            }
            messages += "{\"reason\":\"build-finished\",\"success\":true}\n";
            self.write("messages.json", messages);
            let here = self.path("");
            self.script(
                "cargo",
                &format!(
                    r#"cd {}
case "$1" in
metadata) cat metadata.json ;;
build) echo "$@" >> calls; env > environment; echo Compiling >&2; cat messages.json ;;
esac"#,
                    here.display()
                ),
            );
        }

        fn options(&self) -> Options {
            let tools = Tools { cargo: self.path("cargo"), rustc: self.path("rustc"), rustup: self.path("rustup") };
            Options { tools, ..Options::new(self.path("out")) }
        }

        fn build(&self, dirs: &[&str]) -> Result<Vec<Built>, BuildError> {
            let dirs: Vec<_> = dirs.iter().map(|dir| self.path(dir)).collect();
            build(&dirs, &self.options(), &mut |_| {})
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap_or_default()
        }
    }

    #[test]
    fn a_workspace_is_built_with_one_call_and_placed_under_name_and_version() {
        let bench = Bench::new();
        bench.cargo("agents", &[("hello", "1.2.0"), ("echo", "0.1.0-rc.1+build")], AGENT);
        let mut lines = Vec::new();
        let mut options = bench.options();
        options.target_dir = Some(bench.path("elsewhere"));
        // Twice the same folder is one agent.
        let dirs = ["agents/hello", "agents/echo", "agents/hello/"].map(|dir| bench.path(dir));
        let built = build(&dirs, &options, &mut |progress| match progress {
            Progress::Line(line) => lines.push(line.to_owned()),
            Progress::Compiling(names) => lines.push(names.join("+")),
            Progress::Built(agent) => lines.push(agent.agent()),
            Progress::InstallingTarget => lines.push("target".to_owned()),
        })
        .unwrap();
        let agents: Vec<_> = built.iter().map(Built::agent).collect();
        assert_eq!(agents, ["hello@1.2.0", "echo@0.1.0-rc.1+build"]);
        let component = wat::parse_str(AGENT).unwrap();
        for agent in &built {
            assert_eq!(agent.path, bench.path("out").join(format!("{}.wasm", agent.agent())));
            assert_eq!(fs::read(&agent.path).unwrap(), component);
        }
        assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 2, "something was left behind");
        let calls = bench.read("calls");
        assert_eq!(calls.lines().count(), 1, "{calls}");
        let target_dir = format!("--target-dir {}", bench.path("elsewhere").display());
        for part in ["--release", "--lib", "--target wasm32-wasip2", "#hello@1.2.0", "#echo@", &target_dir] {
            assert!(calls.contains(part), "{part}: {calls}");
        }
        assert_eq!(lines.first().map(String::as_str), Some("hello+echo"));
        for said in ["Compiling", "a tool says what it likes", "hello@1.2.0"] {
            assert!(lines.iter().any(|line| line == said), "{said}: {lines:?}");
        }
    }

    #[test]
    fn an_outer_build_does_not_show_in_the_environment_of_an_inner_one() {
        let table = [
            ("CARGO_PKG_NAME", true),
            ("CARGO_MANIFEST_DIR", true),
            ("CARGO_BIN_EXE_leasehold", true),
            ("CARGO_ENCODED_RUSTFLAGS", true),
            ("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS", true),
            ("RUSTC_WORKSPACE_WRAPPER", true), // `cargo clippy`
            ("CARGO_MAKEFLAGS", true),         // its job server is gone
            ("TARGET", true),
            ("CARGO_HOME", false), // how the user wants to build
            ("CARGO_TARGET_DIR", false),
            ("CARGO_NET_OFFLINE", false),
            ("CARGO_REGISTRIES_CRATES_IO_PROTOCOL", false),
            ("CARGO_PROFILE_RELEASE_LTO", false),
            ("CARGO_TARGET_WASM32_WASIP2_LINKER", false),
            ("RUSTC_WRAPPER", false),
            ("PATH", false),
        ];
        for (key, expected) in table {
            assert_eq!(is_of_outer_build(key), expected, "{key}");
        }
        let bench = Bench::new();
        bench.cargo("agents", &[("hello", "1.0.0")], AGENT);
        bench.build(&["agents/hello"]).unwrap();
        let environment = bench.read("environment");
        // The test itself runs under cargo, so there is something to take away.
        assert!(!environment.contains("CARGO_PKG_NAME="), "{environment}");
        for setting in ["CARGO_PROFILE_RELEASE_LTO=", "CARGO_PROFILE_RELEASE_STRIP="] {
            assert!(environment.contains(setting), "{environment}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_built_is_told_why() {
        let bench = Bench::new();
        bench.cargo("agents", &[("hello", "1.0.0"), ("Shouting", "1.0.0")], AGENT);
        bench.write("agents/Cargo.toml", "");
        bench.write("script/package.json", "");
        bench.write("empty/notes.txt", "");
        let table = [
            ("missing", "is not a folder"),
            ("empty/notes.txt", "is not a folder"),
            ("empty", "there is no Cargo.toml in it"),
            ("script", "is a JavaScript project"),
            ("agents", "name the folders of its agents (hello, Shouting)"),
            ("agents/Shouting", "`Shouting` cannot be an agent's name"),
        ];
        for (dir, expected) in table {
            let error = bench.build(&[dir]).expect_err(dir).to_string();
            assert!(error.contains(expected), "{dir}: {error}");
        }
        assert_eq!(bench.read("calls"), "");
    }

    #[test]
    fn what_the_compiler_says_is_passed_on() {
        let bench = Bench::new();
        bench.cargo("agents", &[("hello", "1.0.0")], AGENT);
        bench.script("real", r"echo 'error[E0308]: mismatched types' >&2; exit 101");
        let forward = format!(
            "case $1 in metadata) cat {} ;; *) exec {} ;; esac",
            bench.path("metadata.json").display(),
            bench.path("real").display()
        );
        bench.script("cargo", &forward);
        let error = bench.build(&["agents/hello"]).unwrap_err().to_string();
        assert!(error.starts_with("cargo could not build hello (exit status: 101)"), "{error}");
        assert!(error.ends_with("\nerror[E0308]: mismatched types"), "{error}");
    }

    #[test]
    fn a_component_that_asks_for_too_much_is_not_placed() {
        let bench = Bench::new();
        bench.cargo("agents", &[("hello", "1.0.0")], r#"(component (import "wasi:http/types@0.2.0" (instance)))"#);
        let error = bench.build(&["agents/hello"]).unwrap_err().to_string();
        assert!(error.starts_with("agent `hello`: the component cannot run as an agent"), "{error}");
        assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_target_is_added_or_the_advice_says_how() {
        let bench = Bench::new();
        bench.cargo("agents", &[("hello", "1.0.0")], AGENT);
        bench.script("rustc", &format!("echo {}", bench.path("later").display()));
        let failing = bench.build(&["agents/hello"]).unwrap_err().to_string();
        assert!(failing.contains("run `rustup target add wasm32-wasip2` in"), "{failing}");

        let mut options = bench.options();
        options.tools.rustup = bench.path("nowhere");
        let without = build(&[bench.path("agents/hello")], &options, &mut |_| {}).unwrap_err().to_string();
        assert!(without.contains("was not installed with rustup"), "{without}");

        bench.script(
            "rustup",
            &format!("test \"$*\" = 'target add wasm32-wasip2' && mkdir {}", bench.path("later").display()),
        );
        assert_eq!(bench.build(&["agents/hello"]).unwrap().len(), 1);
    }

    #[test]
    fn a_missing_tool_is_named() {
        let bench = Bench::new();
        bench.cargo("agents", &[("hello", "1.0.0")], AGENT);
        let mut options = bench.options();
        options.tools.cargo = bench.path("nowhere/cargo");
        let error = build(&[bench.path("agents/hello")], &options, &mut |_| {}).unwrap_err();
        assert!(matches!(&error, BuildError::ToolMissing { tool } if tool.ends_with("nowhere/cargo")), "{error}");
    }

    #[test]
    fn a_tool_that_never_stops_talking_costs_only_so_much() {
        let talk = "0123456789\n".repeat(OUTPUT_BYTES_MAX);
        let kept = tail(talk.as_bytes());
        assert!(kept.len() <= OUTPUT_BYTES_MAX + "…\n".len());
        assert!(kept.starts_with("…\n0123456789\n"), "{}", &kept[..20]);
        assert_eq!(tail(b"short\n"), "short");
        assert_eq!(tail(&vec![b'x'; OUTPUT_BYTES_MAX * 2]), "…\n");
    }
}
