//! Why an agent was not built.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use super::{rust::TARGET, tool::Block};
use crate::agents::audit::{AuditError, Refused};

/// Why an agent was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No such folder.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// A folder with nothing to build.
    #[error(
        "{} holds no agent: there is no Cargo.toml, pyproject.toml, package.json, go.mod or agent.toml in it \
         (`leasehold new` writes a project to begin with)", .0.display()
    )]
    NoProject(PathBuf),
    /// A folder with manifests none of which says that it is an agent's.
    #[error(
        "{} holds {}, and none of them speaks of Leasehold: write {}, or keep the agent in a folder of its own",
        dir.display(), manifests.join(" and "), marks.join(" or ")
    )]
    Silent {
        /// The folder.
        dir: PathBuf,
        /// The manifests in it.
        manifests: Vec<&'static str>,
        /// What would make each of them the agent's.
        marks: Vec<&'static str>,
    },
    /// A folder with manifests of which more than one says that it is an agent's.
    #[error(
        "{} holds {}, which all speak of Leasehold: take the word out of those that are not the agent's (an agent.toml \
         speaks by being there), or keep the agent in a folder of its own", dir.display(), manifests.join(" and ")
    )]
    Ambiguous {
        /// The folder.
        dir: PathBuf,
        /// Those manifests.
        manifests: Vec<&'static str>,
    },
    /// A manifest that says something wrong, or leaves out what is needed.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
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
    /// Two packages that would be the same agent.
    #[error("{} and {} are both {agent}: give one another name or version", manifests[0].display(), manifests[1].display())]
    Duplicate {
        /// The agent.
        agent: String,
        /// Who says so.
        manifests: [PathBuf; 2],
    },
    /// A program that is not installed.
    #[error("`{tool}` was not found: {advice}")]
    ToolMissing {
        /// The program.
        tool: String,
        /// How to install it.
        advice: String,
    },
    /// A program of a version that does not do.
    #[error("`{tool}` is of version {found}, and {wanted} is needed: {advice}")]
    ToolVersion {
        /// The program.
        tool: &'static str,
        /// Its version, as far as it could be read.
        found: String,
        /// The versions that do.
        wanted: &'static str,
        /// How to install one.
        advice: String,
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
    #[error("{tool} could not build {} ({status}){}", names.join(", "), Block(output))]
    Compile {
        /// The tool that failed.
        tool: &'static str,
        /// The agents of the call.
        names: Vec<String>,
        /// How it ended.
        status: ExitStatus,
        /// What it said, already given to the progress callback.
        output: String,
    },
    /// A tool succeeded and left no component.
    #[error("{tool} built `{name}` and left no component for it")]
    NoArtifact {
        /// The tool.
        tool: &'static str,
        /// The agent.
        name: String,
    },
    /// What was compiled cannot be made a component of the contract.
    #[error("what was compiled of `{name}` cannot be made a component: {reason}")]
    Component {
        /// The agent.
        name: String,
        /// Why not.
        reason: String,
    },
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

pub fn io_error(verb: &str, path: &Path, source: io::Error) -> BuildError {
    BuildError::Io { action: format!("{verb} {}", path.display()), source }
}
