//! Agents in C: zig or clang makes a core module for WASI preview 1.

use std::path::{Path, PathBuf};

use super::{
    BuildError, Options, Progress, Work, io_error, manifest,
    tool::{Tool, tail},
};

/// How to install what a build in C needs.
const INSTALL: &str = "run `python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.0` in the project's folder, \
                       or install clang with what it needs for WebAssembly (Debian: `apt-get install clang lld \
                       wasi-libc libclang-rt-dev-wasm32`), or set WASI_SDK_PATH to the folder of a WASI SDK \
                       (https://github.com/WebAssembly/wasi-sdk)";

/// What compilers of C are called. Debian's have their version in their name.
const CLANGS: [&str; 9] =
    ["clang", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14"];

/// What zig is called. The package on PyPI has a program of another name.
const ZIGS: [&str; 2] = ["zig", "python-zig"];

/// Zig takes `assert` away from what it optimises, unless told otherwise.
const FLAGS: [&str; 7] =
    ["-std=gnu11", "-Os", "-UNDEBUG", "-ffunction-sections", "-fdata-sections", "-Wall", "-Wextra"];

/// The start function of a reactor is called, and then whatever it exports; its stack has a mebibyte.
const LINKED: [&str; 4] = ["-mexec-model=reactor", "-Wl,--gc-sections", "-Wl,--strip-all", "-Wl,-z,stack-size=1048576"];

/// How an agent exports its function.
const EXPORT: &str = "write `LH_AGENT(run)` at the end of a source file";

/// Makes the component of C sources.
pub fn build(
    sources: &[PathBuf],
    work: &Work<'_>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, BuildError> {
    let compiler = compiler(work.dir, work.scratch, work.options)?;
    let core = work.scratch.join("core.wasm");
    let mut command = compiler.command(work.dir);
    command.args(FLAGS).arg("-I").arg(work.sdk.dir.join("include")).args(LINKED);
    // As a person would name them, for the messages, and never as an option.
    let named =
        |source: &PathBuf| source.strip_prefix(work.dir).map_or(source.clone(), |path| Path::new(".").join(path));
    command.args(sources.iter().map(named));
    for folder in ["src", "generated"] {
        command.args(manifest::matching(&work.sdk.dir, &[format!("{folder}/*.c")])?);
    }
    command.arg("-o").arg(&core);
    compiler.run_quietly(command, work.name, &words, progress)?;
    work.is_made(&compiler, &core)?;
    work.lift(&core, EXPORT)
}

/// What a compiler says, and what it means where it cannot know.
fn words(said: &str) -> String {
    match said.contains("lh_agent_main") {
        true => format!("{said}\nthe agent has no function: {EXPORT}"),
        false => said.to_owned(),
    }
}

/// Finds a compiler that works, with the arguments that have it make WebAssembly.
pub fn compiler(dir: &Path, scratch: &Path, options: &Options) -> Result<Tool, BuildError> {
    let zig = |zig: Tool| zig.named("zig").with(&["cc", "-target", "wasm32-wasi"]);
    // Of zig it is only asked whether it starts: it compiles its libc for its first program, for a minute.
    let starts = |zig: &Tool| zig.ask(dir, ["version"]).is_some();
    if let Some(own) = ZIGS.iter().flat_map(|name| Tool::own(name, dir)).find(starts) {
        return Ok(zig(own));
    }
    let sdk = options.tools.wasi_sdk.iter().map(|sdk| Tool::new("clang", sdk.join("bin/clang")));
    let mut complaint = None;
    for clang in sdk.chain(CLANGS.iter().flat_map(|name| Tool::all(name, dir, options))) {
        // The stack lies below the data, so that one that overflows traps.
        let clang = clang.named("clang").with(&["--target=wasm32-wasi", "-Wl,--stack-first"]);
        match probe(&clang, scratch)? {
            None => return Ok(clang),
            Some(said) => complaint = complaint.or(Some(said)),
        }
    }
    if let Some(found) = ZIGS.iter().flat_map(|name| Tool::all(name, dir, options)).find(starts) {
        return Ok(zig(found));
    }
    let mut pythons = Tool::all("python3", dir, options).map(|python| python.with(&["-m", "ziglang"]));
    if let Some(python) = pythons.find(starts) {
        return Ok(zig(python));
    }
    let advice = match complaint {
        None => INSTALL.to_owned(),
        Some(said) => format!("{INSTALL}; there is a clang, which cannot compile for wasm32-wasi: {said}"),
    };
    Err(BuildError::ToolMissing { tool: "zig".to_owned(), advice })
}

/// Compiles a program that needs headers, a libc and a linker, and gives the last the compiler says if that fails.
fn probe(clang: &Tool, scratch: &Path) -> Result<Option<String>, BuildError> {
    let source = scratch.join("probe.c");
    std::fs::write(&source, "#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n")
        .map_err(|source| io_error("write in", scratch, source))?;
    let mut command = clang.command(scratch);
    command.arg(&source).arg("-o").arg(scratch.join("probe.wasm"));
    let output = match command.output() {
        Ok(output) => output,
        // A WASI SDK that is not where the variable says.
        Err(error) => return Ok(Some(error.to_string())),
    };
    let said = tail(&output.stderr);
    Ok((!output.status.success()).then(|| said.lines().last().unwrap_or("it does not say why").to_owned()))
}
