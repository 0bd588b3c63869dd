//! `leasehold agents add`: what it places, what it refuses, and that a host has nothing left to compile.

use std::{fs, path::Path};

use leasehold_tests::{
    agents_dir,
    program::{Outcome, Serve, leasehold, outcome, run},
    some_agents,
};
use serde_json::json;

use crate::code;

/// Calls `agents add` in a folder.
async fn add(dir: &Path, args: &[&str]) -> Outcome {
    let mut command = leasehold();
    command.args(["agents", "add"]).args(args).current_dir(dir);
    outcome(command).await
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the folder is there").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_added_is_compiled_to_where_a_host_looks_and_found_by_one_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let echo = agents_dir().join("echo@1.0.0.wasm");
    let (echo, agents) = (echo.to_str().unwrap(), some_agents(&["hello-rust"]));
    let host = Serve::on(&dir.path().join("data")).await.agents(agents.path()).start().await;
    // Not as the tests put them there: this one has to be compiled.
    for file in fs::read_dir(dir.path().join("data/compiled")).unwrap().flatten() {
        fs::remove_file(file.path()).unwrap();
    }
    let agents = agents.path().to_str().unwrap();
    let flags = ["--agents", agents, "--data", "data", "--json"];
    let added = add(dir.path(), &[&[echo, "--as", "echo@2.0.0"], &flags[..]].concat()).await;
    let added = added.exits(code::SUCCESS).json();
    let file = Path::new(agents).join("echo@2.0.0.wasm");
    assert_eq!((&added["agent"], &added["path"]), (&json!("echo@2.0.0"), &json!(file.to_str().unwrap())));
    assert_eq!(fs::read(&file).unwrap(), fs::read(echo).unwrap());
    assert!(added["compiled_sec"].as_f64().is_some_and(|sec| sec > 0.0), "{added}");
    assert_eq!(added["size_bytes"], fs::metadata(echo).unwrap().len());
    // The component, what it was compiled to and what is known of it, and nothing that was left behind.
    let endings: Vec<_> = names(&dir.path().join("data/compiled"));
    let endings: Vec<_> = endings.iter().map(|name| name.rsplit_once('.').unwrap().1).collect();
    assert_eq!(endings, ["cwasm", "json", "wasm"]);
    assert_eq!(names(Path::new(agents)), ["echo@2.0.0.wasm", "hello-rust@1.0.0.wasm"]);

    // The host says that it was deployed, and not that it was compiled.
    let said = |line: &serde_json::Value| {
        (line["agent"] == "echo@2.0.0").then(|| line["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(host.log(said).await, "an agent was deployed");
    let submitted = outcome(host.command(["submit", "echo", "--input", "7"])).await;
    assert_eq!(submitted.exits(code::SUCCESS).stdout.trim(), "7");

    // What says where a host is that is spoken to does not matter.
    let mut again = host.command(["agents", "add", echo, "--as", "echo@2.0.0"]);
    again.args(flags).current_dir(dir.path());
    let again = outcome(again).await;
    assert_eq!(again.exits(code::SUCCESS).json()["compiled_sec"], json!(null));
    let told = add(dir.path(), &[echo, "--agents", "others", "--data", "data"]).await.exits(code::SUCCESS).stdout;
    assert!(told.starts_with("echo@1.0.0  others/echo@1.0.0.wasm") && told.contains("compiled before"), "{told}");
    let listed = outcome(host.command(["agents"])).await.exits(code::SUCCESS).stdout;
    assert!(listed.contains("echo") && listed.contains("2.0.0"), "{listed}");
}

#[tokio::test]
async fn what_cannot_be_added_is_refused_by_name_and_nothing_is_placed() {
    let dir = tempfile::tempdir().unwrap();
    let echo = agents_dir().join("echo@1.0.0.wasm");
    fs::copy(&echo, dir.path().join("plain.wasm")).unwrap();
    fs::copy(&echo, dir.path().join("good@1.wasm")).unwrap();
    let bytes = fs::read(&echo).unwrap();
    fs::write(dir.path().join("half@1.wasm"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(dir.path().join("text@1.wasm"), "no component").unwrap();
    fs::create_dir_all(dir.path().join("agents/taken")).unwrap();
    fs::write(dir.path().join("agents/taken/1.wasm"), "").unwrap();
    fs::write(dir.path().join("small.toml"), "[limits]\ncomponent_bytes_max = 1000\n").unwrap();
    fs::write(dir.path().join("none.toml"), "[compile]\ncpu_sec_max = 0\n").unwrap();
    for (args, named) in [
        (&["plain.wasm"][..], "`plain.wasm` needs a name: --as NAME@VERSION"),
        (&["plain.wasm", "--as", "Plain"], "--as: `Plain` is none"),
        (&["plain.wasm", "good@1.wasm", "--as", "x@1"], "--as names one agent"),
        (&["good@1.wasm", "half@1.wasm"], "half@1.wasm`: the component is cut short"),
        (&["text@1.wasm"], "text@1.wasm`: this is no WebAssembly component"),
        (&["no-such@1.wasm"], "no-such@1.wasm"),
        (&["good@1.wasm", "--as", "taken@1"], "is taken@1 already; remove it first"),
        (&["good@1.wasm", "--config", "small.toml"], "limits.component_bytes_max"),
        (&["good@1.wasm", "--config", "none.toml"], "compile.cpu_sec_max is 0"),
        (&["."], "needs a name"),
        (&[".", "--as", "x@1"], "it is no file"),
        (&[], "<FILE>"),
    ] {
        let _ = add(dir.path(), args).await.exits(code::USAGE).complains(named);
    }
    assert_eq!(names(&dir.path().join("agents")), ["taken"]);
    let help = run(["agents", "--help"]).await.exits(code::SUCCESS).stdout;
    assert!(help.contains("add") && help.contains("--url"), "{help}");
    let help = run(["--help"]).await.exits(code::SUCCESS).stdout;
    assert!(!help.contains("compile-component"), "{help}");
}
