//! Agents in Python: componentize-py puts the interpreter and the modules into a component.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    BuildError, Progress, Work,
    component::WORLD,
    manifest,
    tool::{Tool, version_in},
};

/// How to install what a build in Python needs.
const INSTALL: &str = "run `python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1` in the project's \
                       folder";

/// The versions whose bindings the SDK is written for.
const WANTED: (&[u64], &str) = (&[0, 25], "0.25");

/// What a `pyproject.toml` says, as far as it matters.
#[derive(Deserialize)]
struct Manifest {
    project: Option<ProjectTable>,
    #[serde(default)]
    tool: ToolTable,
}

#[derive(Deserialize)]
struct ProjectTable {
    name: String,
    version: Option<String>,
}

#[derive(Default, Deserialize)]
struct ToolTable {
    #[serde(default)]
    leasehold: Settings,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    module: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { module: "agent".to_owned() }
    }
}

/// A package that makes one agent.
#[derive(Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// The module that holds the agent.
    module: String,
}

/// Reads the manifest in `dir`.
pub fn open(dir: &Path) -> Result<Package, BuildError> {
    let path = dir.join("pyproject.toml");
    let Manifest { project, tool } = manifest::toml(&path)?;
    let ProjectTable { name, version } =
        project.ok_or_else(|| manifest::wrong(&path, "there is no `[project]` with `name` and `version`"))?;
    let version =
        version.ok_or_else(|| manifest::wrong(&path, "`[project]` has no `version` (a dynamic one will not do)"))?;
    let module = tool.leasehold.module;
    let is_name = |part: &str| {
        let mut chars = part.chars();
        chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
            && chars.all(|c| c.is_alphanumeric() || c == '_')
    };
    if !module.split('.').all(is_name) {
        let reason = format!("module: `{module}` is no name of a module, such as `agent` or `agents.reader`");
        return Err(manifest::wrong(&path, &reason));
    }
    // The tool would find that out after a quarter of a minute.
    let file = module.replace('.', "/");
    if ![format!("{file}.py"), format!("{file}/__init__.py")].iter().any(|file| dir.join(file).is_file()) {
        let reason = format!(
            "the module is `{module}`, and there is no {file}.py: write it, or name another as `module` \
                              under `[tool.leasehold]`"
        );
        return Err(manifest::wrong(&path, &reason));
    }
    Ok(Package { name, version, module })
}

/// Makes the component of a package.
pub fn build(
    package: &Package,
    work: &Work<'_>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, BuildError> {
    let missing = || BuildError::ToolMissing { tool: "componentize-py".to_owned(), advice: INSTALL.to_owned() };
    let tool = work.find("componentize-py").ok_or_else(missing)?;
    check(&tool, work)?;
    let component = work.component();
    let mut command = tool.command(work.dir);
    // Else forty lines of the tool's own follow each of the agent's.
    command.env("RUST_BACKTRACE", "0");
    // What was installed for the project is found through this variable only.
    let venv = work.dir.join(".venv");
    if venv.is_dir() {
        command.env("VIRTUAL_ENV", venv);
    }
    command.arg("--quiet").arg("--wit-path").arg(&work.sdk.wit).args(["--world", WORLD]);
    command.args(["componentize", &package.module, "--python-path", "."]);
    command.arg("--python-path").arg(&work.sdk.dir).arg("--output").arg(&component);
    tool.run_quietly(command, work.name, &|said| words(said, &package.module), progress)?;
    work.is_made(&tool, &component)?;
    Ok(component)
}

fn check(tool: &Tool, work: &Work<'_>) -> Result<(), BuildError> {
    let said = tool.ask(work.dir, ["--version"]).unwrap_or_default();
    match version_in(&said) {
        Some(version) if version.starts_with(WANTED.0) => Ok(()),
        _ => Err(tool.unfit(&said, WANTED.1, INSTALL)),
    }
}

/// What Python says of the agent, out of everything that comes with it.
fn words(said: &str, module: &str) -> String {
    // A traceback of the tool ends with the one of the agent, which comes once more as its cause.
    let own = said.split_once("AssertionError: ").map_or(said, |(_, own)| own);
    let own = own.split_once("\nCaused by:").map_or(own, |(own, _)| own).trim_end();
    if own.contains("has no attribute 'WitWorld'") {
        return format!("the module `{module}` has no function that is marked with @leasehold.agent");
    }
    // The project is the first folder of the path that the interpreter sees, and the SDK the second.
    let mut own = own.replace("\"/0/", "\"").replace("\"/1/leasehold/", "\"leasehold/");
    if let Some((_, missing)) = own.rsplit_once("ModuleNotFoundError: No module named '")
        && let Some((name, _)) = missing.split_once('\'')
    {
        own += &format!("\ninstall it: .venv/bin/pip install {name} (one that is all Python)");
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_says_of_the_agent_is_what_is_shown() {
        let around = |own: &str| {
            format!(
                "Traceback (most recent call last):\n  File \".venv/bin/componentize-py\", line 8, in <module>\n\
                 AssertionError: {own}\n\n\nCaused by:\n    {own}\n"
            )
        };
        let table = [
            (around("File \"/0/agent.py\", line 1\nSyntaxError: no"), "File \"agent.py\", line 1\nSyntaxError: no"),
            (
                around("ModuleNotFoundError: No module named 'rich'"),
                "ModuleNotFoundError: No module named 'rich'\n\
                 install it: .venv/bin/pip install rich (one that is all Python)",
            ),
            (
                around("AttributeError: module 'agent' has no attribute 'WitWorld'"),
                "the module `agent` has no function that is marked with @leasehold.agent",
            ),
            ("something else\n".to_owned(), "something else"),
        ];
        for (said, expected) in table {
            assert_eq!(words(&said, "agent"), expected, "{said}");
        }
    }
}
