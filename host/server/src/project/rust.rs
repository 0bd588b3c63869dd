//! Agents in Rust: cargo makes a component for `wasm32-wasip2` by itself.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    BuildError, Options, Progress,
    tool::{self, Line, Output, Tool, tail},
};

/// The target agents in Rust are compiled for: its output is a component already.
pub const TARGET: &str = "wasm32-wasip2";

const INSTALL: &str = "install Rust with rustup (https://rustup.rs)";

/// A package that makes one agent.
#[derive(Debug)]
pub struct Crate {
    id: String,
    /// The package's name.
    pub name: String,
    /// The package's version.
    pub version: String,
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

/// Asks cargo what package lies in `dir`, which is canonical, because cargo's answers are compared with it.
pub fn open(dir: &Path, options: &Options) -> Result<Crate, BuildError> {
    let manifest = dir.join("Cargo.toml");
    let metadata = metadata(dir, &manifest, options)?;
    let of_dir = |package: &&Package| fs::canonicalize(&package.manifest_path).is_ok_and(|path| path == manifest);
    let Some(package) = metadata.packages.iter().find(of_dir) else {
        let agents = metadata.packages.iter().filter(|package| package.targets.iter().any(Target::is_cdylib));
        let members = agents.map(|package| package.name.clone()).collect();
        return Err(BuildError::Workspace { members, dir: dir.to_owned() });
    };
    if !package.targets.iter().any(Target::is_cdylib) {
        return Err(BuildError::NoCdylib(package.name.clone()));
    }
    Ok(Crate {
        id: package.id.clone(),
        name: package.name.clone(),
        version: package.version.clone(),
        workspace_root: metadata.workspace_root,
    })
}

/// Compiles packages, with one call of cargo for those of one workspace, and gives the component of each in turn.
///
/// Nothing comes of a workspace unless all of it compiles.
pub fn build(
    crates: &[&Crate],
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<PathBuf>, BuildError> {
    let mut components = vec![PathBuf::new(); crates.len()];
    let roots: BTreeSet<_> = crates.iter().map(|package| &package.workspace_root).collect();
    for root in roots {
        ensure_target(root, options, progress)?;
        let (places, of_root): (Vec<usize>, Vec<&Crate>) =
            crates.iter().enumerate().filter(|(_, package)| package.workspace_root == *root).unzip();
        for (place, component) in places.into_iter().zip(compile(root, &of_root, options, progress)?) {
            components[place] = component;
        }
    }
    Ok(components)
}

fn cargo(options: &Options) -> Tool {
    Tool::new("cargo", &options.tools.cargo)
}

fn not_started(tool: &Tool, path: &Path, source: io::Error) -> BuildError {
    match source.kind() {
        io::ErrorKind::NotFound => {
            BuildError::ToolMissing { tool: path.display().to_string(), advice: INSTALL.to_owned() }
        }
        _ => tool.not_started(source),
    }
}

fn metadata(dir: &Path, manifest: &Path, options: &Options) -> Result<Metadata, BuildError> {
    let cargo = cargo(options);
    let mut command = cargo.command(dir);
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
    let output = command.output().map_err(|source| not_started(&cargo, &options.tools.cargo, source))?;
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
    let rustup = Tool::new("rustup", &options.tools.rustup);
    let mut command = rustup.command(root);
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
        Err(source) => return Err(rustup.not_started(source)),
    };
    // Asked again, because rustup may look after another toolchain than the one that is used.
    if output.status.success() && has_target(root, options)? {
        return Ok(());
    }
    Err(BuildError::TargetMissing { advice: by_hand, output: tail(&output.stderr) })
}

fn has_target(root: &Path, options: &Options) -> Result<bool, BuildError> {
    let rustc = Tool::new("rustc", &options.tools.rustc);
    let mut command = rustc.command(root);
    command.args(["--print", "target-libdir", "--target", TARGET]);
    let output = command.output().map_err(|source| not_started(&rustc, &options.tools.rustc, source))?;
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

/// Calls cargo once for packages of one workspace, and finds their components.
fn compile(
    root: &Path,
    crates: &[&Crate],
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<PathBuf>, BuildError> {
    let names: Vec<_> = crates.iter().map(|package| package.name.clone()).collect();
    progress(Progress::Compiling(&names));
    let cargo = cargo(options);
    let mut command = cargo.command(root);
    command.args(["build", "--release", "--lib", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    command.arg("--manifest-path").arg(root.join("Cargo.toml"));
    for package in crates {
        command.args(["-p", &package.id]);
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
    let mut output = Output::default();
    let status = tool::run(&mut command, &mut |line| match line {
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
            output.push(&line);
        }
    });
    let status = status.map_err(|source| not_started(&cargo, &options.tools.cargo, source))?;
    if !status.success() {
        return Err(BuildError::Compile { tool: cargo.name, names, status, output: output.end() });
    }
    let component_of = |package: &&Crate| {
        let found = components.iter().find(|(id, _)| *id == package.id).map(|(_, path)| path.clone());
        found.ok_or_else(|| BuildError::NoArtifact { tool: cargo.name, name: package.name.clone() })
    };
    crates.iter().map(component_of).collect()
}
