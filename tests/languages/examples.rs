//! The examples of every language, built as their users build them: by `leasehold build`.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use leasehold_tests::{TestHost, agents_dir, program};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::toolchains::{self, Lock};

/// How long building one may take on a machine that does much else.
const BUILD_TIMEOUT: Duration = Duration::from_secs(900);

/// A language agents are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Rust,
    Python,
    TypeScript,
    Go,
    C,
}

impl Language {
    /// As the folders of its examples and of its SDK have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::TypeScript => "typescript",
            Self::Go => "go",
            Self::C => "c",
        }
    }
}

/// The workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace")
}

/// Where everything of this suite is kept between runs.
pub fn kept() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages");
    fs::create_dir_all(&dir).expect("the target folder can be written to");
    dir
}

/// Says past the test's captured output why a test is skipped; in CI it fails.
pub fn skip(what: &str, why: &str) {
    assert!(env::var_os("CI").is_none(), "{what}: {why}");
    // If nobody can be told, there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}

/// An agent that is built.
#[derive(Debug)]
pub struct Example {
    /// Its name.
    pub agent: String,
    component: PathBuf,
    /// The data folder of hosts within the test's process. They share what they compile: of a component of Python,
    /// which is CPython for the most part, that takes ten seconds.
    pub data: PathBuf,
}

impl Example {
    /// Builds it unless an earlier run has, from the same sources; nothing where there is no toolchain for it.
    ///
    /// # Panics
    ///
    /// If it cannot be built, or in CI without a toolchain.
    pub async fn ready(kind: &str, language: Language) -> Option<Self> {
        let agent = format!("{kind}-{}", language.name());
        if language == Language::Rust {
            return Some(Self::of_suites(&agent));
        }
        let tools = toolchains::of(language).await;
        let at = match language {
            Language::TypeScript => toolchains::workshop().await,
            _ => Ok(root().to_owned()),
        };
        let (tools, at) = match tools.and_then(|tools| Ok((tools, at?))) {
            Ok(ready) => ready,
            Err(why) => {
                skip(&agent, &why);
                return None;
            }
        };
        let (source, sdk) = (format!("examples/{agent}"), format!("guest-sdk/{}", language.name()));
        let built_from = [source.as_str(), &sdk, "wit"].map(|part| root().join(part));
        Some(Self::built(agent, &at.join(source), built_from, &tools).await)
    }

    /// The example in TypeScript in its other engine, where the run is one that asks for it.
    ///
    /// # Panics
    ///
    /// If it is asked for and cannot be had.
    pub async fn on_starlingmonkey() -> Option<Self> {
        const WANTED: &str = "LEASEHOLD_TEST_STARLINGMONKEY";
        if env::var_os(WANTED).is_none() {
            let why = format!("it takes 400 MB from npm and a minute of work; set {WANTED}=1 to run it");
            let _ = writeln!(std::io::stderr(), "SKIPPED: StarlingMonkey: {why}");
            return None;
        }
        let tools = toolchains::of(Language::TypeScript).await.expect("there is node");
        let source = toolchains::starlingmonkey(&tools).await.expect("npm has it");
        let built_from = [source.join("src"), root().join("guest-sdk/typescript"), root().join("wit")];
        Some(Self::built("hello-starlingmonkey".to_owned(), &source, built_from, &tools).await)
    }

    /// Builds a project unless an earlier run has, from the same folders.
    async fn built(agent: String, source: &Path, from: [PathBuf; 3], tools: &[PathBuf]) -> Self {
        let dir = kept().join(&agent);
        // Tests of other threads and processes want the same one.
        let _lock = Lock::of(&dir).await;
        let stamp = dir.join("stamp");
        let built_from = format!("{} {}", digest_of(from), program_that_builds());
        if fs::read_to_string(&stamp).ok().as_ref() != Some(&built_from) {
            // What was compiled from other sources goes with them. There is nothing to remove the first time.
            let _ = fs::remove_dir_all(&dir);
            let mut build = program::leasehold();
            build.arg("build").arg(source).arg("--out").arg(dir.join("agents"));
            toolchains::put_on_path(&mut build, tools);
            let _ = program::outcome_within(BUILD_TIMEOUT, build).await.exits(0);
            fs::write(&stamp, built_from).expect("the folder is ours");
        }
        let component = dir.join("agents").join(format!("{agent}@1.0.0.wasm"));
        assert!(component.is_file(), "the build made no {}", component.display());
        let example = Self { agent, component, data: dir.join("data") };
        example.compile().await;
        example
    }

    /// One that is built with the suites, as all agents in Rust are.
    fn of_suites(agent: &str) -> Self {
        let component = agents_dir().join(format!("{agent}@1.0.0.wasm"));
        Self { agent: agent.to_owned(), component, data: leasehold_tests::shared_data_dir().to_owned() }
    }

    /// The agent that the survey delegates to.
    pub fn echo() -> Self {
        Self::of_suites("echo")
    }

    /// Registers it with a host.
    pub fn register(&self, host: &TestHost) {
        let registered = host.host().registry().register_file(&self.component, &self.agent, "1.0.0");
        registered.unwrap_or_else(|error| panic!("{} is no agent: {error}", self.component.display()));
    }

    /// Has a host compile it and what it delegates to, so that those to come find it compiled.
    async fn compile(&self) {
        let data = self.data.clone();
        let host = TestHost::builder().without_agents().config(|config| config.server.data = data).start().await;
        self.register(&host);
        Self::echo().register(&host);
    }

    /// A folder for a host in a process of its own: `agents`, `leasehold.toml`, and `data` with what is compiled.
    pub fn place_for_a_host(&self, settings: &str) -> TempDir {
        // Beside what it shares, so that files of a hundred megabytes need not be copied.
        let place = tempfile::tempdir_in(kept()).expect("a temporary folder can be made");
        fs::write(place.path().join("leasehold.toml"), settings).expect("the folder is ours");
        let (agents, compiled) = (place.path().join("agents"), place.path().join("data/compiled"));
        fs::create_dir(&agents).expect("the folder is ours");
        for example in [self, &Self::echo()] {
            share(&example.component, &agents.join(format!("{}@1.0.0.wasm", example.agent)));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&compiled).expect("the folder can be made");
        for file in fs::read_dir(self.data.join("compiled")).expect("a host has made it").flatten() {
            share(&file.path(), &compiled.join(file.file_name()));
        }
        place
    }
}

/// Makes one file of two, where that can be done.
fn share(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
    }
}

/// Says which program builds the examples, by its time and size: it is too large to be read for this.
fn program_that_builds() -> String {
    let program = fs::metadata(program::leasehold().as_std().get_program()).expect("the program was built");
    let changed = program.modified().ok().and_then(|moment| moment.duration_since(UNIX_EPOCH).ok());
    format!("{} {changed:?}", program.len())
}

/// Whether a file or folder of this name is made by tools, and is no source.
pub fn is_made(name: &str) -> bool {
    name.starts_with('.') || matches!(name, "node_modules" | "__pycache__" | "target" | "build" | "dist")
}

/// A digest of all sources in some folders.
///
/// # Panics
///
/// If one cannot be read.
pub fn digest_of(folders: impl IntoIterator<Item = PathBuf>) -> String {
    let mut digest = Sha256::new();
    for folder in folders {
        add_to_digest(&folder, &mut digest);
    }
    format!("{:x}", digest.finalize())
}

fn add_to_digest(folder: &Path, digest: &mut Sha256) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries.iter().filter(|path| !is_made(&path.file_name().unwrap_or_default().to_string_lossy())) {
        if path.is_dir() {
            add_to_digest(path, digest);
        } else {
            let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            digest.update(format!("{} {}\n", path.display(), bytes.len()));
            digest.update(bytes);
        }
    }
}
