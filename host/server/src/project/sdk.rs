//! The contract and the SDKs this program carries.
//!
//! A project that `leasehold new` wrote has copies of them in its `leasehold`
//! folder and is built with those. Any other is built with what the program
//! carries, which is written into a folder of the user's cache: compilers read
//! files, and a path that stays the same lets them keep what they compiled.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{BuildError, Language, Options, io_error};

/// A file: its path from the root of the sources, and what it holds.
pub type File = (&'static str, &'static str);

/// Embeds files of a folder of this repository under their own paths.
macro_rules! embedded {
    ($from:literal: $($name:literal),* $(,)?) => {
        &[$((concat!($from, "/", $name), include_str!(concat!("../../../../", $from, "/", $name)))),*]
    };
}

/// The contract.
pub const WIT: &[File] = embedded!("wit":
    "README.md",
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

/// The SDK for Rust, without its manifest, which borrows from the workspace.
const RUST: &[File] = embedded!("guest-sdk/rust":
    "src/agent.rs",
    "src/bindings.rs",
    "src/calls.rs",
    "src/delegate.rs",
    "src/error.rs",
    "src/events.rs",
    "src/fs.rs",
    "src/job.rs",
    "src/lib.rs",
    "src/metrics.rs",
    "src/model.rs",
    "src/net.rs",
    "src/output.rs",
    "src/time.rs",
    "src/tool.rs",
);

/// The SDK for Python.
const PYTHON: &[File] = embedded!("guest-sdk/python":
    "README.md",
    "leasehold/__init__.py",
    "leasehold/_agent.py",
    "leasehold/_error.py",
    "leasehold/_host.py",
    "leasehold/_json.py",
    "leasehold/_late.py",
    "leasehold/_logging.py",
    "leasehold/_time.py",
    "leasehold/calls.py",
    "leasehold/delegate.py",
    "leasehold/events.py",
    "leasehold/fs.py",
    "leasehold/job.py",
    "leasehold/metrics.py",
    "leasehold/model.py",
    "leasehold/net.py",
    "leasehold/output.py",
    "leasehold/py.typed",
    "leasehold/tool.py",
    "pyproject.toml",
);

/// The SDK for TypeScript and JavaScript.
const TYPESCRIPT: &[File] = embedded!("guest-sdk/typescript":
    "README.md",
    "build.mjs",
    "package.json",
    "src/agent.ts",
    "src/calls.ts",
    "src/check.ts",
    "src/delegate.ts",
    "src/environment.ts",
    "src/error.ts",
    "src/events.ts",
    "src/fs.ts",
    "src/globals.d.ts",
    "src/host.d.ts",
    "src/index.ts",
    "src/inspect.ts",
    "src/job.ts",
    "src/metrics.ts",
    "src/model.ts",
    "src/net.ts",
    "src/output.ts",
    "src/promise.ts",
    "src/shape.ts",
    "src/text.ts",
    "src/tool.ts",
    "tsconfig.json",
);

/// The SDK for Go.
const GO: &[File] = embedded!("guest-sdk/go":
    "README.md",
    "agent.go",
    "calls/calls.go",
    "context.go",
    "delegate/delegate.go",
    "error.go",
    "events/events.go",
    "events/slog.go",
    "fs/fs.go",
    "go.mod",
    "internal/bindings/export_wit_world/export.go",
    "internal/bindings/leasehold_agent_calls/empty.s",
    "internal/bindings/leasehold_agent_calls/wit_bindings.go",
    "internal/bindings/leasehold_agent_delegate/empty.s",
    "internal/bindings/leasehold_agent_delegate/wit_bindings.go",
    "internal/bindings/leasehold_agent_events/empty.s",
    "internal/bindings/leasehold_agent_events/wit_bindings.go",
    "internal/bindings/leasehold_agent_fs/empty.s",
    "internal/bindings/leasehold_agent_fs/wit_bindings.go",
    "internal/bindings/leasehold_agent_job/empty.s",
    "internal/bindings/leasehold_agent_job/wit_bindings.go",
    "internal/bindings/leasehold_agent_metrics/empty.s",
    "internal/bindings/leasehold_agent_metrics/wit_bindings.go",
    "internal/bindings/leasehold_agent_model/empty.s",
    "internal/bindings/leasehold_agent_model/wit_bindings.go",
    "internal/bindings/leasehold_agent_net/empty.s",
    "internal/bindings/leasehold_agent_net/wit_bindings.go",
    "internal/bindings/leasehold_agent_output/empty.s",
    "internal/bindings/leasehold_agent_output/wit_bindings.go",
    "internal/bindings/leasehold_agent_tool/empty.s",
    "internal/bindings/leasehold_agent_tool/wit_bindings.go",
    "internal/bindings/leasehold_agent_types/empty.s",
    "internal/bindings/leasehold_agent_types/wit_bindings.go",
    "internal/bindings/wit_exports/wit_exports.go",
    "internal/bindings/wit_world/empty.s",
    "internal/bindings/wit_world/wit_bindings.go",
    "internal/host/host.go",
    "internal/host/host_other.go",
    "internal/host/host_wasip1.go",
    "internal/text/text.go",
    "internal/wit/runtime/empty.s",
    "internal/wit/runtime/realloc_wasip1.go",
    "internal/wit/runtime/runtime.go",
    "internal/wit/types/types.go",
    "job/job.go",
    "metrics/metrics.go",
    "model/model.go",
    "net/net.go",
    "nethttp/nethttp.go",
    "output/output.go",
    "tool/tool.go",
);

/// The SDK for C.
const C: &[File] = embedded!("guest-sdk/c":
    ".gitattributes",
    "README.md",
    "generated/agent.c",
    "generated/agent.h",
    "include/leasehold.h",
    "src/calls.c",
    "src/delegate.c",
    "src/entry.c",
    "src/error.c",
    "src/events.c",
    "src/fs.c",
    "src/internal.h",
    "src/job.c",
    "src/json.c",
    "src/memory.c",
    "src/metrics.c",
    "src/model.c",
    "src/net.c",
    "src/output.c",
    "src/text.c",
    "src/tool.c",
);

impl Language {
    /// The files of its SDK that this program carries.
    #[must_use]
    pub fn sdk(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
            Self::Python => PYTHON,
            Self::JavaScript => TYPESCRIPT,
            Self::Go => GO,
            Self::C => C,
        }
    }

    /// Where its SDK lies, from the root of the sources or from a project's `leasehold` folder.
    #[must_use]
    pub fn sdk_folder(self) -> &'static str {
        match self {
            Self::Rust => "guest-sdk/rust",
            Self::Python => "guest-sdk/python",
            Self::JavaScript => "guest-sdk/typescript",
            Self::Go => "guest-sdk/go",
            Self::C => "guest-sdk/c",
        }
    }
}

/// The copies a project is built with.
#[derive(Clone, Debug)]
pub struct Sdk {
    /// The folder of the contract.
    pub wit: PathBuf,
    /// The folder of the language's SDK.
    pub dir: PathBuf,
}

impl Sdk {
    fn below(root: &Path, language: Language) -> Self {
        Self { wit: root.join("wit"), dir: root.join(language.sdk_folder()) }
    }
}

/// Finds the copies for a project: its own, or those of this program. Without a cache folder these go to `scratch`.
pub fn of_project(dir: &Path, language: Language, options: &Options, scratch: &Path) -> Result<Sdk, BuildError> {
    let own = Sdk::below(&dir.join("leasehold"), language);
    if own.wit.is_dir() && own.dir.is_dir() {
        return Ok(own);
    }
    let files: Vec<File> = carried().collect();
    let root = match &options.cache_dir {
        Some(cache) => cache.join(format!("sdk/{}-{}", env!("CARGO_PKG_VERSION"), digest(&files))),
        None => scratch.join("sdk"),
    };
    if !is_whole(&root, &files) {
        write(&root, &files).map_err(|source| io_error("write", &root, source))?;
    }
    Ok(Sdk::below(&root, language))
}

fn carried() -> impl Iterator<Item = File> {
    let sdks = [Language::Python, Language::JavaScript, Language::Go, Language::C].into_iter().flat_map(Language::sdk);
    WIT.iter().chain(sdks).copied()
}

/// Tells apart programs of one version that carry different files, as developers have them.
fn digest(files: &[File]) -> String {
    let mut hash = Sha256::new();
    for text in files.iter().flat_map(|(path, contents)| [path, contents]) {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether every file is there as it should be: what cleans caches takes single files.
fn is_whole(root: &Path, files: &[File]) -> bool {
    files.iter().all(|(path, contents)| fs::read(root.join(path)).is_ok_and(|found| found == contents.as_bytes()))
}

/// Writes the files beside and renames the folder, so that no other build finds half of them.
fn write(root: &Path, files: &[File]) -> io::Result<()> {
    let parent = root.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let beside = tempfile::Builder::new().prefix(".sdk-").tempdir_in(parent)?;
    let made = beside.path().join("made");
    for (path, contents) in files {
        let path = made.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&made))?;
        fs::write(path, contents)?;
    }
    if fs::rename(&made, root).is_ok() || is_whole(root, files) {
        return Ok(()); // or another build was faster
    }
    // Something is missing in it: it makes way.
    fs::rename(root, beside.path().join("broken"))?;
    fs::rename(&made, root)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    fn names_below(folder: &Path, prefix: &str, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}/{}", path.file_name().unwrap().to_str().unwrap());
            if !path.is_dir() {
                names.insert(name);
            } else if !["__pycache__", "node_modules", "test", "tests", "tools"]
                .contains(&name.rsplit('/').next().unwrap())
            {
                names_below(&path, &name, names);
            }
        }
    }

    /// An agent is built from what the binary carries, so a file that is left out is an agent that is not built.
    #[test]
    fn the_binary_carries_every_file_of_the_contract_and_the_sdks() {
        let sdk = |language: Language| (language.sdk_folder(), language.sdk());
        let sdks = [Language::Python, Language::JavaScript, Language::Go, Language::C].map(sdk);
        for (folder, table) in [("wit", WIT), ("guest-sdk/rust/src", RUST)].into_iter().chain(sdks) {
            let mut found = BTreeSet::new();
            names_below(&Path::new(REPOSITORY).join(folder), folder, &mut found);
            // What tests an SDK is of use here only.
            let of_tests = ["_test.go", ".gitignore", "package-lock.json", "Makefile"];
            found.retain(|path| !of_tests.iter().any(|ending| path.ends_with(ending)));
            let carried: BTreeSet<_> = table.iter().map(|(path, _)| (*path).to_owned()).collect();
            assert_eq!(carried, found, "list the files of {folder} in project/sdk.rs");
        }
    }

    #[test]
    fn copies_are_written_once_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let (project, cache) = (dir.path().join("project"), dir.path().join("cache"));
        let options = Options { cache_dir: Some(cache.clone()), ..Options::new(dir.path()) };
        let find = || of_project(&project, Language::C, &options, dir.path()).unwrap();
        let first = find();
        let world = first.wit.join("world.wit");
        let written = fs::metadata(&world).unwrap().modified().unwrap();
        assert_eq!(find().wit, first.wit);
        assert_eq!(fs::metadata(&world).unwrap().modified().unwrap(), written);
        fs::remove_file(&world).unwrap();
        assert_eq!(find().wit, first.wit);
        assert!(world.is_file());
        assert_eq!(fs::read_dir(cache.join("sdk")).unwrap().count(), 1, "something was left behind");
    }

    #[test]
    fn a_projects_own_copies_come_first() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["leasehold/wit", "leasehold/guest-sdk/go"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let options = Options::new(dir.path());
        let of = |language| of_project(dir.path(), language, &options, &dir.path().join("scratch")).unwrap();
        assert_eq!(of(Language::Go).dir, dir.path().join("leasehold/guest-sdk/go"));
        assert_eq!(of(Language::C).dir, dir.path().join("scratch/sdk/guest-sdk/c"));
    }
}
