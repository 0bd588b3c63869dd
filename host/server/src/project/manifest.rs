//! What a folder holds: which manifest is the agent's, and what it says of name and version.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{BuildError, Language, io_error};
use crate::agents::registry;

/// The manifest that makes a folder a project, and the language it speaks for.
const MANIFESTS: [(&str, Language); 5] = [
    ("Cargo.toml", Language::Rust),
    ("pyproject.toml", Language::Python),
    ("package.json", Language::JavaScript),
    ("go.mod", Language::Go),
    (AGENT, Language::C),
];

/// The manifest of languages that have none of their own to hold a name and a version.
pub const AGENT: &str = "agent.toml";

/// Tells by the manifests in a folder what its agent is written in.
///
/// A project may hold a manifest for something else, such as the formatter of
/// its documents. Then the one that speaks of Leasehold is the agent's.
pub fn language(dir: &Path) -> Result<Language, BuildError> {
    let mut found: Vec<_> = MANIFESTS.into_iter().filter(|(file, _)| dir.join(file).is_file()).collect();
    // A module of Go says nothing of an agent; `agent.toml` beside it does.
    if found.iter().any(|(_, language)| *language == Language::Go) {
        found.retain(|(_, language)| *language != Language::C);
    }
    match found[..] {
        [] => Err(BuildError::NoProject(dir.to_owned())),
        [(_, language)] => Ok(language),
        _ => {
            let speaks = |language: Language, file: &str| match language {
                Language::Go => dir.join(AGENT).is_file(),
                Language::C => true,
                _ => fs::read_to_string(dir.join(file)).is_ok_and(|text| text.contains("leasehold")),
            };
            let (speaking, silent): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|(file, language)| speaks(*language, file));
            let dir = dir.to_owned();
            match speaking[..] {
                [(_, language)] => Ok(language),
                [] => {
                    let (manifests, marks) = silent.into_iter().map(|(file, language)| (file, mark(language))).unzip();
                    Err(BuildError::Silent { dir, manifests, marks })
                }
                _ => {
                    let manifests = speaking.into_iter().map(|(_, language)| of_agent(language)).collect();
                    Err(BuildError::Ambiguous { dir, manifests })
                }
            }
        }
    }
}

/// The manifest that says an agent's name and version.
pub fn of_agent(language: Language) -> &'static str {
    match language {
        Language::Rust => "Cargo.toml",
        Language::Python => "pyproject.toml",
        Language::JavaScript => "package.json",
        Language::Go | Language::C => AGENT,
    }
}

/// What makes a manifest the agent's, where there are several.
fn mark(language: Language) -> &'static str {
    match language {
        Language::Rust => "`leasehold-agent` among the dependencies in Cargo.toml",
        Language::Python => "`[tool.leasehold]` in pyproject.toml",
        Language::JavaScript => "`@leasehold/agent` among the dependencies in package.json",
        Language::Go | Language::C => "`name` and `version` in an agent.toml",
    }
}

/// Name and version, in an `agent.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// The agent's name.
    pub name: String,
    /// The agent's version.
    pub version: String,
    /// The sources, as patterns from the project's folder. Of use in C only.
    pub sources: Option<Vec<String>>,
}

/// Reads the `agent.toml` of a project.
pub fn agent(dir: &Path) -> Result<Agent, BuildError> {
    let path = dir.join(AGENT);
    if !path.is_file() {
        let reason = "there is no such file; it says `name = \"my-agent\"` and `version = \"1.0.0\"`".to_owned();
        return Err(BuildError::Manifest { path, reason });
    }
    toml(&path)
}

/// Reads a manifest in TOML.
pub fn toml<T: DeserializeOwned>(path: &Path) -> Result<T, BuildError> {
    let text = fs::read_to_string(path).map_err(|source| io_error("read", path, source))?;
    toml::from_str(&text).map_err(|error| wrong(path, error.to_string().trim_end()))
}

/// Reads a manifest in JSON.
pub fn json<T: DeserializeOwned>(path: &Path) -> Result<T, BuildError> {
    let text = fs::read_to_string(path).map_err(|source| io_error("read", path, source))?;
    serde_json::from_str(&text).map_err(|error| wrong(path, &error.to_string()))
}

/// Says what is wrong with a manifest.
pub fn wrong(path: &Path, reason: &str) -> BuildError {
    BuildError::Manifest { path: path.to_owned(), reason: reason.to_owned() }
}

/// Sees that the name and the version that a manifest says can be an agent's (ARCP §7.5).
pub fn check(manifest: &Path, name: &str, version: &str) -> Result<(), BuildError> {
    let reason = if !registry::is_name(name) {
        format!("`{name}` cannot be an agent's name: use a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit")
    } else if !registry::is_version(version) {
        format!(
            "`{version}` cannot be the version of `{name}`: use letters, digits, `.`, `+`, `_` and `-`, such as 1.0.0"
        )
    } else {
        return Ok(());
    };
    Err(wrong(manifest, &reason))
}

/// Finds the files of patterns whose last part may hold `*`, in their order: `src/*.c`.
pub fn matching(dir: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, BuildError> {
    let mut found: Vec<PathBuf> = Vec::new();
    if patterns.is_empty() {
        return Err(wrong(&dir.join(AGENT), "sources: it names none; leave it out for `[\"src/*.c\"]`"));
    }
    for pattern in patterns {
        within(&dir.join(AGENT), "sources", pattern)?;
        let (folder, last) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        let folder = dir.join(folder);
        let entries = fs::read_dir(&folder).map_err(|source| io_error("read", &folder, source))?;
        let fits =
            |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| fits(last, name));
        let mut of_pattern: Vec<_> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file() && fits(path)).collect();
        if of_pattern.is_empty() {
            return Err(wrong(&dir.join(AGENT), &format!("sources: there is no file `{pattern}`")));
        }
        of_pattern.sort();
        of_pattern.retain(|path| !found.contains(path));
        found.extend(of_pattern);
    }
    Ok(found)
}

/// Sees that a manifest speaks of a file of its own project.
pub fn within(manifest: &Path, key: &str, path: &str) -> Result<(), BuildError> {
    let leaves = Path::new(path).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir));
    match leaves || path.is_empty() {
        true => Err(wrong(manifest, &format!("{key}: `{path}` is no path within the project's folder"))),
        false => Ok(()),
    }
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && fits(after, &rest[at..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_that_speaks_of_leasehold_is_the_agents() {
        use Language::*;
        type Files<'a> = &'a [(&'a str, &'a str)];
        let (own, other) = ("# leasehold", "");
        let table: [(Files<'_>, Result<Language, &[&str]>); 12] = [
            (&[("Cargo.toml", other)], Ok(Rust)),
            (&[("pyproject.toml", other)], Ok(Python)),
            (&[("package.json", other)], Ok(JavaScript)),
            (&[("go.mod", other), ("agent.toml", other)], Ok(Go)),
            (&[("agent.toml", other)], Ok(C)),
            (&[("Cargo.toml", own), ("package.json", other)], Ok(Rust)),
            (&[("go.mod", other), ("package.json", own)], Ok(JavaScript)), // the tools of a project are written in Go
            (&[("agent.toml", other), ("pyproject.toml", other)], Ok(C)),
            (
                &[("Cargo.toml", other), ("pyproject.toml", other)],
                Err(&[
                    "Cargo.toml and pyproject.toml, and none",
                    "`leasehold-agent`",
                    "or `[tool.leasehold]` in pyproject",
                ]),
            ),
            (
                &[("package.json", other), ("go.mod", other)],
                Err(&[
                    "package.json and go.mod, and none",
                    "`@leasehold/agent`",
                    "`name` and `version` in an agent.toml",
                ]),
            ),
            (
                &[("Cargo.toml", own), ("pyproject.toml", own), ("package.json", other)],
                Err(&["Cargo.toml and pyproject.toml, which all speak"]),
            ),
            (
                &[("package.json", own), ("go.mod", other), ("agent.toml", other)],
                Err(&["package.json and agent.toml, which all speak"]),
            ),
        ];
        for (files, expected) in table {
            let dir = tempfile::tempdir().unwrap();
            for (file, text) in files {
                fs::write(dir.path().join(file), text).unwrap();
            }
            let outcome = language(dir.path());
            match (outcome.map_err(|error| error.to_string()), expected) {
                (Err(said), Err(parts)) => parts.iter().for_each(|part| assert!(said.contains(part), "{part}: {said}")),
                (outcome, expected) => assert_eq!(outcome.ok(), expected.ok(), "{files:?}"),
            }
        }
    }

    #[test]
    fn a_star_stands_for_anything_within_a_name() {
        let table = [
            ("*.c", "main.c", true),
            ("*.c", ".c", true),
            ("main.c", "main.c", true),
            ("*.c", "main.cc", false),
            ("a*b*c", "axbxbc", true),
            ("a*b*c", "axc", false),
            ("*", "é", true),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
