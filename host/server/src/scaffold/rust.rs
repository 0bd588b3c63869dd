//! What a project in Rust needs beside its files: a manifest of the SDK that borrows from no workspace.

use toml::{Table, Value};

/// The SDK's manifest, and the one it borrows from.
const SDK_MANIFEST: &str = include_str!("../../../../guest-sdk/rust/Cargo.toml");
const WORKSPACE_MANIFEST: &str = include_str!("../../../../Cargo.toml");

/// Where the SDK's manifest lies in a project's `leasehold` folder.
pub const SDK_MANIFEST_PATH: &str = "guest-sdk/rust/Cargo.toml";

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

/// What the templates leave open.
pub fn values() -> Vec<(&'static str, String)> {
    let workspace = parse(WORKSPACE_MANIFEST);
    let package = |key: &str| text(&workspace, &["workspace", "package", key]);
    vec![
        ("{{edition}}", package("edition")),
        ("{{rust-version}}", package("rust-version")),
        ("{{serde}}", text(&workspace, &["workspace", "dependencies", "serde", "version"])),
    ]
}

/// Says why a name that can be an agent's cannot be a package's.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.contains('.') {
        return Err("a cargo package has no `.` in its name");
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("a cargo package does not begin with a digit");
    }
    if TAKEN.contains(&name) || KEYWORDS.contains(&name) {
        return Err("the name means something else to Rust");
    }
    Ok(())
}

/// The SDK's manifest with everything it borrows from this workspace written out.
pub fn sdk_manifest() -> String {
    let workspace = parse(WORKSPACE_MANIFEST);
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_copy_of_the_sdk_depends_on_what_the_sdk_depends_on() {
        let workspace = parse(WORKSPACE_MANIFEST);
        let copy: Table = sdk_manifest().parse().unwrap();
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
}
