//! Builds the agents that the suites run, once for all of them, and generates bindings for one suite to look at.
//!
//! Cargo is called directly: a build dependency on the host would compile the
//! engine a second time. The components go to `OUT_DIR/agents`.

#[path = "languages/generate.rs"]
mod generate;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

const TARGET: &str = "wasm32-wasip2";

/// Packages outside `examples`, and the agent each one makes.
const GUESTS: [(&str, &str, &str); 1] = [("escape-guests", "tests/escape/guests", "hostile")];

fn main() {
    let root =
        PathBuf::from(variable("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the workspace").to_owned();
    let out = PathBuf::from(variable("OUT_DIR"));
    let agents = out.join("agents");
    let packages = packages(&root);
    for (_, dir, _) in &packages {
        rerun_if_changed(&root.join(dir).join("src"));
        rerun_if_changed(&root.join(dir).join("Cargo.toml"));
    }
    for path in [
        "build.rs",
        "languages/generate.rs",
        "../guest-sdk/rust",
        "../wit",
        "../Cargo.toml",
        "../Cargo.lock",
        "../rust-toolchain.toml",
    ] {
        rerun_if_changed(&root.join("tests").join(path));
    }
    ensure_target(&root);
    // What was left by an agent that is no more would still be registered.
    let _ = fs::remove_dir_all(&agents);
    fs::create_dir_all(&agents).unwrap_or_else(|error| fail(&format!("cannot make {}: {error}", agents.display())));
    for (agent, component) in build(&root, &out, &packages) {
        let placed = agents.join(format!("{agent}.wasm"));
        fs::copy(&component, &placed).unwrap_or_else(|error| {
            fail(&format!("cannot copy {} to {}: {error}", component.display(), placed.display()))
        });
    }
    let bindings = out.join("bindings");
    generate::bindings(&root.join("wit"), &bindings)
        .unwrap_or_else(|error| fail(&format!("the bindings of the contract cannot be generated: {error}")));
    println!("cargo:rustc-env=LEASEHOLD_TEST_BINDINGS={}", bindings.display());
    println!("cargo:rustc-env=LEASEHOLD_TEST_AGENTS={}", agents.display());
    println!("cargo:rustc-env=LEASEHOLD_TEST_DATA={}", out.join("data").display());
}

/// The packages to build: every example that is a Rust project, and the guests of the suites.
fn packages(root: &Path) -> Vec<(String, String, String)> {
    let examples = fs::read_dir(root.join("examples"));
    let examples = examples.unwrap_or_else(|error| fail(&format!("cannot read the examples: {error}")));
    let mut packages: Vec<_> = examples
        .flatten()
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| (name.clone(), format!("examples/{name}"), name))
        .collect();
    packages.extend(GUESTS.map(|(package, dir, agent)| (package.to_owned(), dir.to_owned(), agent.to_owned())));
    packages.sort();
    packages
}

/// Builds the packages with one call of cargo; gives `name@version` and the component of each.
fn build(root: &Path, out: &Path, packages: &[(String, String, String)]) -> Vec<(String, PathBuf)> {
    // `…/target/debug/build/PACKAGE-HASH/out`: a folder beside those of the outer build, which holds the lock of its own.
    let target_dir = out.ancestors().nth(4).expect("OUT_DIR lies four folders below the target folder").join("guests");
    let mut command = command(&variable("CARGO"), root);
    command.args(["build", "--release", "--lib", "--target", TARGET, "--message-format=json-render-diagnostics"]);
    command.arg("--target-dir").arg(&target_dir).stderr(Stdio::inherit());
    for (package, _, _) in packages {
        command.args(["-p", package]);
    }
    // As `leasehold build` does: together they halve a component, and the host compiles every byte that is left.
    for (setting, value) in [("CARGO_PROFILE_RELEASE_LTO", "true"), ("CARGO_PROFILE_RELEASE_STRIP", "true")] {
        if env::var_os(setting).is_none() {
            command.env(setting, value);
        }
    }
    let output = command.output().unwrap_or_else(|error| fail(&format!("cannot call cargo: {error}")));
    if !output.status.success() {
        fail(&format!("the agents of the suites do not compile ({}); the compiler's words are above", output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let component = |(package, dir, agent): &(String, String, String)| {
        let manifest = root.join(dir).join("Cargo.toml");
        let message = messages.iter().find(|message| {
            message["reason"] == "compiler-artifact"
                && message["manifest_path"].as_str().map(Path::new) == Some(&manifest)
        });
        let file = message.and_then(|message| {
            let mut files = message["filenames"].as_array()?.iter().filter_map(Value::as_str);
            files.find(|file| file.ends_with(".wasm")).map(PathBuf::from)
        });
        // `path+file:///…/hello-rust#1.0.0`, or `…#escape-guests@1.0.0` where folder and package differ.
        let version = message.and_then(|message| message["package_id"].as_str()?.rsplit(['#', '@']).next());
        match (file, version) {
            (Some(file), Some(version)) => (format!("{agent}@{version}"), file),
            _ => fail(&format!("cargo reported no component for `{package}`")),
        }
    };
    packages.iter().map(component).collect()
}

/// Sees that the compiler knows the target of the guests.
fn ensure_target(root: &Path) {
    if has_target(root) {
        return;
    }
    let added = command("rustup", root).args(["target", "add", TARGET]).status();
    // Asked again, because rustup may look after another toolchain than the one that is used.
    if !added.is_ok_and(|status| status.success()) || !has_target(root) {
        fail(&format!(
            "the Rust target {TARGET} is not installed: run `rustup target add {TARGET}` in {}",
            root.display()
        ));
    }
}

fn has_target(root: &Path) -> bool {
    let libdir = command(&variable("RUSTC"), root).args(["--print", "target-libdir", "--target", TARGET]).output();
    libdir.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// A tool without what the outer build left in the environment, which would compile guests with the host's settings.
fn command(program: &str, dir: &Path) -> Command {
    const NAMES: [&str; 22] = [
        "CARGO",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTDOCFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "CLIPPY_ARGS",
        "DEBUG",
        "HOST",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "TARGET",
    ];
    const PREFIXES: [&str; 5] = ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_", "DEP_"];
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    for (key, _) in env::vars() {
        if NAMES.contains(&key.as_str()) || PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
            command.env_remove(key);
        }
    }
    command
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")))
}

fn rerun_if_changed(path: &Path) {
    println!("cargo:rerun-if-changed={}", path.display());
}

fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(1)
}
