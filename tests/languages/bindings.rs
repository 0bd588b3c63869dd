//! The committed bindings of Go and C are what their generators make of the contract ([`super`]'s `generate.rs`).
//!
//! Who builds an agent needs no generator. `LEASEHOLD_BLESS=1` writes them anew after a change of `wit/`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use leasehold_tests::transcript::blesses;

use crate::examples::root;

/// Holds a folder against what was generated. What is there besides is `ours`.
fn compare(language: &str, folder: &str, ours: &[&str]) {
    let (generated, dir) = (Path::new(env!("LEASEHOLD_TEST_BINDINGS")).join(language), root().join(folder));
    let names = files(&generated);
    for name in &names {
        let text = fs::read_to_string(generated.join(name)).expect("the build script wrote it");
        let path = dir.join(name);
        if blesses() {
            fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the folder is ours");
            fs::write(&path, text).expect("the folder is ours");
        } else {
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{folder}/{}: LEASEHOLD_BLESS=1 writes it anew", name.display());
        }
    }
    let ours: BTreeSet<PathBuf> = ours.iter().map(PathBuf::from).collect();
    let strange: Vec<PathBuf> = files(&dir).difference(&names).filter(|name| !ours.contains(*name)).cloned().collect();
    assert!(strange.is_empty(), "{folder} holds what no generator made: {strange:?}");
}

/// Every file below a folder, as it is called from there.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut dirs) = (BTreeSet::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        let entries = fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display()));
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.strip_prefix(dir).expect("it is below the folder").to_owned());
            }
        }
    }
    found
}

#[test]
fn the_bindings_of_c_are_those_of_the_contract() {
    compare("c", "guest-sdk/c/generated", &[]);
}

#[test]
fn the_bindings_of_go_are_those_of_the_contract() {
    // The package of the agent's own, which the generated export calls.
    compare("go", "guest-sdk/go/internal/bindings", &["export_wit_world/export.go"]);
}
