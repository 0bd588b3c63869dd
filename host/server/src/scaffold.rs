//! A project to begin an agent with: `leasehold new`.
//!
//! The project stands on its own. The SDK is on no registry, so a copy of it
//! and of the contract lies in the project's `leasehold` folder, written from
//! files this binary carries; the SDK's manifest is derived from the one it
//! has here, because that one borrows from this workspace.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::agents::registry;

/// Embeds files below a folder of this repository under the same names in a project.
macro_rules! embedded {
    ($from:literal => $to:literal: $($name:literal),+ $(,)?) => {
        &[$((concat!($to, "/", $name), include_str!(concat!("../../../", $from, "/", $name)))),+]
    };
}

/// The contract, as the SDK expects to find it.
const WIT: &[(&str, &str)] = embedded!("wit" => "leasehold/wit":
    "calls.wit",
    "delegate.wit",
    "events.wit",
    "fs.wit",
    "job.wit",
    "metrics.wit",
    "model.wit",
    "net.wit",
    "output.wit",
    "tool.wit",
    "types.wit",
    "world.wit",
);

/// The SDK's sources.
const SDK: &[(&str, &str)] = embedded!("guest-sdk/rust/src" => "leasehold/guest-sdk/rust/src":
    "agent.rs",
    "bindings.rs",
    "calls.rs",
    "delegate.rs",
    "error.rs",
    "events.rs",
    "fs.rs",
    "job.rs",
    "lib.rs",
    "metrics.rs",
    "model.rs",
    "net.rs",
    "output.rs",
    "time.rs",
    "tool.rs",
);

/// The SDK's manifest, and the one it borrows from.
const SDK_MANIFEST: &str = include_str!("../../../guest-sdk/rust/Cargo.toml");
const WORKSPACE_MANIFEST: &str = include_str!("../../../Cargo.toml");

/// The project itself. `{{…}}` is filled in by [`new_rust`].
const PROJECT: &[(&str, &str)] = &[
    (".gitignore", include_str!("../templates/rust/gitignore.in")),
    ("Cargo.toml", include_str!("../templates/rust/Cargo.toml.in")),
    ("README.md", include_str!("../templates/rust/README.md.in")),
    ("leasehold/README.md", include_str!("../templates/rust/leasehold.md.in")),
    ("src/lib.rs", include_str!("../templates/rust/lib.rs")),
];

/// Names cargo or rustc has other plans for, beside the keywords of the language.
const TAKEN: &[&str] = &[
    "alloc",
    "build",
    "core",
    "deps",
    "examples",
    "incremental",
    "leasehold-agent",
    "leasehold_agent",
    "proc-macro",
    "proc_macro",
    "serde",
    "std",
    "test",
];

/// The keywords an agent's name could be: a crate of that name could not be spoken of.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Why a project was not written.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The name cannot be an agent's, or not a package's.
    #[error("`{name}` cannot be the name of an agent in Rust: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is something already.
    #[error("{} is not an empty folder: choose another one, so that nothing is overwritten", .0.display())]
    Occupied(PathBuf),
    /// The operating system refused something.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Writes a project for an agent in Rust into `dir`, which is made or empty.
///
/// # Errors
///
/// If the name is no good (ARCP §7.5, and cargo's own rules) or something is
/// in the way; then nothing is written.
pub fn new_rust(name: &str, dir: &Path) -> Result<(), ScaffoldError> {
    check_name(name).map_err(|reason| ScaffoldError::Name { name: name.to_owned(), reason })?;
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| ScaffoldError::Io { path, source }
    };
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(ScaffoldError::Occupied(dir.to_owned()));
            }
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) if source.kind() == io::ErrorKind::NotADirectory => {
            return Err(ScaffoldError::Occupied(dir.to_owned()));
        }
        Err(source) => return Err(error(dir)(source)),
    }
    for (file, contents) in files(name) {
        let path = dir.join(file);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(error(folder))?;
        }
        // `create_new`, because the folder may have filled since it was looked at.
        let mut file = File::create_new(&path).map_err(error(&path))?;
        file.write_all(contents.as_bytes()).map_err(error(&path))?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if !registry::is_name(name) {
        return Err("use a-z, 0-9, `_` and `-`, beginning with a letter");
    }
    if name.contains('.') {
        return Err("a cargo package has no `.` in its name");
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("a cargo package does not begin with a digit");
    }
    if name.len() > 64 {
        return Err("it is longer than 64 characters");
    }
    if TAKEN.contains(&name) || KEYWORDS.contains(&name) {
        return Err("the name means something else to Rust");
    }
    Ok(())
}

/// Every file of a project, by its path in it.
fn files(name: &str) -> Vec<(&'static str, String)> {
    let workspace = parse(WORKSPACE_MANIFEST);
    let package = |key: &str| text(&workspace, &["workspace", "package", key]);
    let values = [
        ("{{name}}", name.to_owned()),
        ("{{version}}", env!("CARGO_PKG_VERSION").to_owned()),
        ("{{edition}}", package("edition")),
        ("{{rust-version}}", package("rust-version")),
        ("{{serde}}", text(&workspace, &["workspace", "dependencies", "serde", "version"])),
    ];
    let fill =
        |template: &str| values.iter().fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value));
    let own = PROJECT.iter().map(|(path, template)| (*path, fill(template)));
    let copied = WIT.iter().chain(SDK).map(|(path, contents)| (*path, (*contents).to_owned()));
    let manifest = ("leasehold/guest-sdk/rust/Cargo.toml", sdk_manifest(&workspace));
    own.chain(copied).chain([manifest]).collect()
}

/// The SDK's manifest with everything it borrows from this workspace written out.
fn sdk_manifest(workspace: &Table) -> String {
    let mut manifest = parse(SDK_MANIFEST);
    // Of use here only: the lints of this workspace, and what its tests need.
    manifest.remove("lints");
    manifest.remove("dev-dependencies");
    let lenders = workspace.get("workspace").and_then(Value::as_table);
    for section in ["package", "dependencies"] {
        let lender = lenders.and_then(|lenders| lenders.get(section)).and_then(Value::as_table);
        let borrowers = manifest.get_mut(section).and_then(Value::as_table_mut);
        for (key, value) in borrowers.into_iter().flatten() {
            if let Some(lent) = lender.and_then(|lender| lender.get(key)) {
                settle(value, lent);
            }
        }
    }
    let contents = toml::to_string(&manifest).expect("a manifest that was read can be written");
    format!("# Written by `leasehold new`; the original borrows these from its workspace.\n\n{contents}")
}

/// Replaces `{ workspace = true, … }` by what the workspace says, with the borrower's own features added.
fn settle(value: &mut Value, lent: &Value) {
    let Some(borrower) = value.as_table_mut().filter(|table| table.contains_key("workspace")) else { return };
    borrower.remove("workspace");
    if borrower.is_empty() {
        *value = lent.clone();
        return;
    }
    let lent = match lent {
        Value::Table(table) => table.clone(),
        version => Table::from_iter([("version".to_owned(), version.clone())]),
    };
    for (key, lent) in lent {
        match (borrower.get_mut(&key), lent) {
            (Some(Value::Array(own)), Value::Array(lent)) => own.extend(lent),
            (Some(_), _) => {}
            (None, lent) => {
                borrower.insert(key, lent);
            }
        }
    }
}

/// Parses a manifest this binary carries.
fn parse(manifest: &str) -> Table {
    manifest.parse().expect("cargo has read the same file to build this binary")
}

fn text(table: &Table, path: &[&str]) -> String {
    let found = path.iter().try_fold(None::<&Value>, |value, key| match value {
        None => table.get(*key).map(Some),
        Some(value) => value.get(key).map(Some),
    });
    found.flatten().and_then(Value::as_str).expect("a test reads every setting the templates use").to_owned()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, process::Command};

    use super::*;

    const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    fn names_below(folder: &Path, prefix: &str, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}/{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                names_below(&path, &name, names);
            } else {
                names.insert(name);
            }
        }
    }

    #[test]
    fn the_binary_carries_every_file_of_the_contract_and_the_sdk() {
        for (folder, table) in [("wit", WIT), ("guest-sdk/rust/src", SDK)] {
            let mut found = BTreeSet::new();
            names_below(&Path::new(REPOSITORY).join(folder), &format!("leasehold/{folder}"), &mut found);
            let carried: BTreeSet<_> = table.iter().map(|(path, _)| (*path).to_owned()).collect();
            assert_eq!(carried, found, "list the files of {folder} in scaffold.rs");
        }
    }

    #[test]
    fn a_new_project_is_complete_and_filled_in() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("word-count");
        new_rust("word-count", &project).unwrap();
        let mut found = BTreeSet::new();
        names_below(&project, ".", &mut found);
        assert_eq!(found.len(), PROJECT.len() + WIT.len() + SDK.len() + 1);
        for (path, _) in PROJECT {
            let contents = fs::read_to_string(project.join(path)).unwrap();
            assert!(!contents.contains("{{"), "{path}: {contents}");
        }
        let manifest: Table = fs::read_to_string(project.join("Cargo.toml")).unwrap().parse().unwrap();
        assert_eq!(text(&manifest, &["package", "name"]), "word-count");
        assert!(manifest.contains_key("workspace"));
    }

    /// Cargo reads the manifests without fetching anything.
    #[test]
    fn cargo_understands_a_new_project() {
        let dir = tempfile::tempdir().unwrap();
        new_rust("word-count", dir.path()).unwrap();
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap().iter();
        let names: BTreeSet<_> = packages.map(|package| package["name"].as_str().unwrap()).collect();
        assert_eq!(names, BTreeSet::from(["leasehold-agent", "word-count"]));
    }

    #[test]
    fn the_copy_of_the_sdk_depends_on_what_the_sdk_depends_on() {
        let workspace = parse(WORKSPACE_MANIFEST);
        let copy: Table = sdk_manifest(&workspace).parse().unwrap();
        let original = parse(SDK_MANIFEST);
        let of = |manifest: &Table| -> BTreeSet<String> {
            manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
        };
        assert_eq!(of(&copy), of(&original));
        for (name, dependency) in copy["dependencies"].as_table().unwrap() {
            let version = dependency.as_str().or_else(|| dependency.get("version")?.as_str());
            let shared = &workspace["workspace"]["dependencies"][name];
            assert_eq!(version, shared.as_str().or_else(|| shared.get("version")?.as_str()), "{name}");
        }
        assert!(!copy.to_string().contains("workspace"), "{copy}");
    }

    #[test]
    fn what_is_borrowed_is_written_out_and_what_is_added_is_kept() {
        let workspace: Table = r#"
            version = "1.0.0"
            serde = { version = "1.0.1", features = ["derive"] }"#
            .parse()
            .unwrap();
        let mut manifest: Table = r#"
            version.workspace = true
            serde = { workspace = true, features = ["rc"], optional = true }
            own = "2.0.0""#
            .parse()
            .unwrap();
        for (key, value) in &mut manifest {
            if let Some(lent) = workspace.get(key) {
                settle(value, lent);
            }
        }
        let expected: Table = r#"
            version = "1.0.0"
            serde = { version = "1.0.1", features = ["rc", "derive"], optional = true }
            own = "2.0.0""#
            .parse()
            .unwrap();
        assert_eq!(manifest, expected);
    }

    #[test]
    fn a_name_has_to_please_arcp_and_cargo() {
        let table = [
            ("word-count", true),
            ("a", true),
            ("word_count2", true),
            ("", false),
            ("Word", false),
            ("-word", false),
            ("word count", false),
            ("../word", false),
            ("word.count", false), // an agent's name, but no package's
            ("2words", false),
            ("type", false),
            ("serde", false), // would depend on itself
            ("wörter", false),
            (&"w".repeat(65), false),
        ];
        for (name, expected) in table {
            let dir = tempfile::tempdir().unwrap();
            let outcome = new_rust(name, &dir.path().join("project"));
            assert_eq!(outcome.is_ok(), expected, "{name}: {outcome:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), usize::from(expected), "{name}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "mine").unwrap();
        for occupied in [dir.path().to_owned(), dir.path().join("file")] {
            let error = new_rust("word-count", &occupied).unwrap_err();
            assert!(matches!(error, ScaffoldError::Occupied(_)), "{error}");
        }
        assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
