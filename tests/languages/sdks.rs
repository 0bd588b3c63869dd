//! Every SDK's own tests, in the manner of its language.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use leasehold_tests::program::outcome_within;
use tokio::process::Command;

use crate::{
    examples::{Language, root, skip},
    toolchains::{self, put_on_path},
};

/// How long the tests of one SDK may take, with what they compile.
const TESTS_TIMEOUT: Duration = Duration::from_secs(600);

/// Where the programs of a language are, or nothing where there is no toolchain for it.
async fn programs(language: Language) -> Option<Vec<PathBuf>> {
    match toolchains::of(language).await {
        Ok(programs) => Some(programs),
        Err(why) => {
            skip(&format!("guest-sdk/{}", language.name()), &why);
            None
        }
    }
}

/// Runs a program of a toolchain in a folder; it has to say that all is well.
async fn passes<S: AsRef<OsStr>>(programs: &[PathBuf], dir: &Path, words: impl IntoIterator<Item = S>) {
    let mut words = words.into_iter();
    let name = words.next().expect("a command has a program");
    // Found here: a program is looked for on the path of who calls, not on the one it is given.
    let own = programs.iter().map(|folder| folder.join(name.as_ref())).find(|path| path.is_file());
    let mut command = Command::new(own.unwrap_or_else(|| name.as_ref().into()));
    command.args(words).current_dir(dir).kill_on_drop(true);
    put_on_path(&mut command, programs);
    let _ = outcome_within(TESTS_TIMEOUT, command).await.exits(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_of_python_passes_its_tests() {
    let Some(programs) = programs(Language::Python).await else { return };
    let sdk = root().join("guest-sdk/python");
    passes(&programs, &sdk, ["python", "-B", "-m", "unittest", "discover", "-s", "tests"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_of_typescript_passes_its_tests() {
    let Some(programs) = programs(Language::TypeScript).await else { return };
    let workshop = toolchains::workshop().await.expect("its programs are there");
    passes(&programs, &workshop.join("guest-sdk/typescript"), ["npm", "test"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_of_go_passes_its_tests() {
    let Some(programs) = programs(Language::Go).await else { return };
    for dir in ["guest-sdk/go", "examples/hello-go", "examples/survey-go"] {
        let dir = root().join(dir);
        // It warns of what the generated bindings do with memory.
        passes(&programs, &dir, ["sh", "-c", "go vet $(go list ./... | grep -v internal/bindings)"]).await;
        passes(&programs, &dir, ["go", "test", "./..."]).await;
    }
}

/// Compiles the sources for WebAssembly without a warning.
const STRICT: &str = r#"
    for source in src/*.c; do
        python -m ziglang cc -target wasm32-wasi -std=c11 -Wall -Wextra -Werror -Iinclude -c -o strict.o "$source" ||
            exit 1
    done
"#;

/// Compiles the header as C++.
const AS_CPP: &str = r#"
    echo '#include <leasehold.h>' > header.cpp
    python -m ziglang c++ -std=c++11 -pedantic -Wall -Wextra -Werror -Iinclude -c -o header.o header.cpp
"#;

/// Its tests run under the sanitizers of the machine's compiler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_of_c_passes_its_tests() {
    let Some(programs) = programs(Language::C).await else { return };
    let sdk = toolchains::copy_of("guest-sdk/c").await;
    passes(&programs, &sdk, ["make", "test"]).await;
    passes(&programs, &sdk, ["sh", "-c", STRICT]).await;
    passes(&programs, &sdk, ["sh", "-c", AS_CPP]).await;
}
