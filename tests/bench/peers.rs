//! The Python SDK's own runtime under the same load, for a ratio.

use std::{env, path::PathBuf, process::Command};

use leasehold_tests::agents_dir;

use crate::{
    Row, load,
    program::{Program, TOKEN},
};

/// Runs if `LEASEHOLD_BENCH_PYTHON` names a Python that has `agentruntimecontrolprotocol`.
pub async fn python() -> Vec<Row> {
    let Some(python) = env::var_os("LEASEHOLD_BENCH_PYTHON") else {
        return vec![Row::new("the Python SDK's runtime", "skipped: LEASEHOLD_BENCH_PYTHON is not set", "")];
    };
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/python_sdk.py");
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(&script).args(arguments).arg(TOKEN);
        command
    };
    let mut rows = Vec::new();
    {
        let runtime = Program::start(call(&["serve"]));
        let latency = load::latency(&runtime.url, TOKEN).await;
        rows.push(Row::new(
            "Python SDK's runtime, nothing on disk, same load: submit to result",
            latency.figures(),
            "",
        ));
        let jobs = load::throughput(&runtime.url, TOKEN).await;
        rows.push(Row::new("Python SDK's runtime, same load: jobs/s at 4 × 16", format!("{jobs:.0}"), ""));
    }
    let measure = |url: &str| {
        let output = call(&["measure", url]).output().expect("the script runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    {
        let runtime = Program::start(call(&["serve"]));
        rows.push(Row::new("Python SDK's client against its own runtime", measure(&runtime.url), ""));
    }
    let data = tempfile::tempdir().expect("a folder");
    let host = Program::leasehold(agents_dir(), &data.path().join("host"));
    rows.push(Row::new("Python SDK's client against Leasehold, SQLite FULL", measure(&host.url), ""));
    rows
}
