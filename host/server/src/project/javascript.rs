//! Agents in TypeScript and JavaScript: the SDK's `build.mjs` bundles the modules and puts them into QuickJS.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    BuildError, Progress, Work, manifest,
    tool::{Tool, version_in},
};

/// How to install what runs the build.
const INSTALL: &str =
    "install Node.js 20 or newer (https://nodejs.org), then run `npm install` in the project's folder";

/// The oldest version that does.
const OLDEST: (u64, &str) = (20, "20 or newer");

/// What a `package.json` says, as far as it matters.
#[derive(Deserialize)]
struct Manifest {
    name: Option<String>,
    version: Option<String>,
    main: Option<String>,
}

/// A package that makes one agent.
#[derive(Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
}

/// Reads the manifest in `dir`.
pub fn open(dir: &Path) -> Result<Package, BuildError> {
    let path = dir.join("package.json");
    let Manifest { name, version, main } = manifest::json(&path)?;
    let missing = |key: &str| manifest::wrong(&path, &format!("there is no `{key}`"));
    let (name, version) = (name.ok_or_else(|| missing("name"))?, version.ok_or_else(|| missing("version"))?);
    let main =
        main.ok_or_else(|| manifest::wrong(&path, "there is no `main`, such as `\"main\": \"src/agent.ts\"`"))?;
    manifest::within(&path, "main", &main)?;
    if !dir.join(&main).is_file() {
        return Err(manifest::wrong(&path, &format!("`main` names {main}, and there is no such file")));
    }
    Ok(Package { name, version })
}

/// Makes the component of a package.
pub fn build(work: &Work<'_>, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, BuildError> {
    let missing = || BuildError::ToolMissing { tool: "node".to_owned(), advice: INSTALL.to_owned() };
    let node = work.find("node").ok_or_else(missing)?;
    check(&node, work)?;
    let component = work.component();
    let mut command = node.command(work.dir);
    command.arg(work.sdk.dir.join("build.mjs")).arg("--project").arg(work.dir);
    command.arg("--wit").arg(&work.sdk.wit).arg("--out").arg(&component);
    work.make(&node, command, &component, progress)?;
    Ok(component)
}

fn check(node: &Tool, work: &Work<'_>) -> Result<(), BuildError> {
    let said = node.ask(work.dir, ["--version"]).unwrap_or_default();
    match version_in(&said) {
        Some(version) if version[0] >= OLDEST.0 => Ok(()),
        _ => Err(node.unfit(&said, OLDEST.1, INSTALL)),
    }
}
