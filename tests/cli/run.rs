//! `leasehold run`: one agent, a host of its own, and what its user sees.

use std::fs;

use leasehold_tests::{
    agents_dir,
    program::{Outcome, leasehold, outcome, run},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::code;

#[tokio::test]
async fn the_result_goes_to_standard_output_and_all_else_to_standard_error() {
    let ran = run(["run", &agent("hello-rust"), "--input", r#"{"name": "Ada"}"#]).await.exits(code::SUCCESS);
    assert_eq!(ran.json(), json!({ "greeting": "Hello, Ada!" }));
    for line in ["accepted hello-rust@1.0.0", "nothing granted", "info  Hello, Ada!", "success"] {
        assert!(ran.stderr.contains(line), "{line:?} is not in\n{}", ran.stderr);
    }
    assert!(!ran.stderr.contains('\u{1b}'), "there is no terminal, and so no colour: {:?}", ran.stderr);
}

#[tokio::test]
async fn an_input_may_come_from_a_file_or_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("input.json");
    fs::write(&file, r#"["from", "a file"]"#).unwrap();
    let ran = run(["run", &agent("echo"), "--input", &format!("@{}", file.display())]).await.exits(code::SUCCESS);
    assert_eq!(ran.json(), json!(["from", "a file"]));
    let mut command = leasehold();
    command.args(["run", &agent("echo"), "--input", "-"]).stdin(fs::File::open(&file).unwrap());
    assert_eq!(outcome(command).await.exits(code::SUCCESS).json(), json!(["from", "a file"]));
    assert_eq!(run(["run", &agent("echo")]).await.exits(code::SUCCESS).json(), Value::Null);
}

#[tokio::test]
async fn a_streamed_result_is_put_together_and_can_go_to_a_file() {
    let dir = workspace();
    let to_stdout = summarize(&dir, &[]).await.exits(code::SUCCESS);
    assert!(to_stdout.stdout.contains("/workspace/a.txt"), "{}", to_stdout.stdout);
    for line in ["allowed  fs.read /workspace/a.txt", "USD 0.03 left", "progress  2/2 files", "words in 2 files"] {
        assert!(to_stdout.stderr.contains(line), "{line:?} is not in\n{}", to_stdout.stderr);
    }
    let report = dir.path().join("report.md");
    let to_file = summarize(&dir, &["--output", report.to_str().unwrap()]).await.exits(code::SUCCESS);
    assert_eq!((to_file.stdout.as_str(), fs::read_to_string(report).unwrap()), ("", to_stdout.stdout));
    let nowhere = summarize(&dir, &["--output", "/no/such/folder/x"]).await.exits(code::USAGE).complains("--output");
    assert!(!nowhere.stderr.contains("accepted"), "a result that cannot be kept is not paid for: {}", nowhere.stderr);
}

#[tokio::test]
async fn a_result_that_cannot_be_written_is_an_error() {
    let mut command = Command::new("sh");
    // The shell sends its output to a disk that is always full.
    command
        .args(["-c", "\"$0\" run \"$1\" > /dev/full"])
        .arg(leasehold().as_std().get_program())
        .arg(agent("hello-rust"));
    let _ = outcome(command).await.exits(5).complains("standard output");
}

#[tokio::test]
async fn the_end_says_again_what_was_denied() {
    let dir = workspace();
    let input = r#"{"path": "/workspace", "try_outside": "/elsewhere"}"#;
    let ran = summarize(&dir, &["--input", input]).await;
    let end = ran.stderr.split("success").last().unwrap_or_default().to_owned();
    assert!(end.contains("denied fs.read /elsewhere"), "{}", ran.stderr);
}

#[tokio::test]
async fn every_frame_is_an_object_a_line_for_programs() {
    let dir = workspace();
    let frames = summarize(&dir, &["--json"]).await.exits(code::SUCCESS).objects();
    assert_eq!(frames[0]["type"], "job.accepted");
    assert_eq!(frames[0]["payload"]["lease"]["fs.read"], json!(["/workspace/**"]));
    let seqs: Vec<u64> = frames[1..].iter().map(|frame| frame["event_seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    // With a file for the result, that is put together as well.
    let report = dir.path().join("report.md");
    let _ = summarize(&dir, &["--json", "--output", report.to_str().unwrap()]).await.exits(code::SUCCESS);
    assert!(fs::read_to_string(report).unwrap().contains("/workspace/a.txt"));
    let end = frames.last().unwrap();
    assert_eq!((&end["type"], &end["payload"]["final_status"]), (&json!("job.result"), &json!("success")));
    assert!(frames.iter().all(|frame| frame["job_id"] == frames[0]["job_id"]));
}

#[tokio::test]
async fn a_path_outside_the_lease_is_denied_and_shown() {
    let dir = workspace();
    let input = r#"{"path": "/workspace", "try_outside": "/etc/passwd"}"#;
    let ran = summarize(&dir, &["--input", input]).await.exits(code::SUCCESS);
    assert!(!ran.stdout.contains("root:"));
    let _ = ran.complains("denied  fs.read /etc/passwd  PERMISSION_DENIED: the lease grants no fs.read on /etc/passwd");
}

#[tokio::test]
async fn what_the_lease_covers_and_is_not_there_has_failed_and_was_not_denied() {
    let dir = workspace();
    let input = r#"{"path": "/workspace", "try_outside": "/workspace/none"}"#;
    let ran = summarize(&dir, &["--input", input]).await.exits(code::SUCCESS);
    assert!(!ran.stderr.contains("denied "), "{}", ran.stderr);
    let ran = ran.complains("failed  fs.read /workspace/none  INVALID_REQUEST: ");
    let _ = ran.complains(" 0 denied, 1 failed)");
}

#[tokio::test]
async fn a_job_that_fails_is_exit_code_one_and_says_why() {
    for (args, why) in [
        (vec!["run", &agent("summarize-files"), "--input", r#"{"path": "/workspace"}"#], "PERMISSION_DENIED"),
        (vec!["run", &agent("hostile"), "--input", r#"{"do": "trap"}"#], "INTERNAL_ERROR"),
        (vec!["run", &agent("sleeper"), "--input", r#"{"sec": 600}"#, "--max-runtime-sec", "1"], "TIMEOUT"),
    ] {
        let ran = run(args).await.exits(code::JOB_FAILED);
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
        let _ = ran.complains(why);
    }
}

#[tokio::test]
async fn what_cannot_be_run_is_named() {
    let dir = workspace();
    let text = dir.path().join("a.txt").display().to_string();
    for (args, named) in [
        (vec!["run", "/no/such.wasm"], "/no/such.wasm"),
        (vec!["run", &text], "a.txt"),
        (vec!["run", &agent("hello-rust"), "--mount", "/workspace"], "--mount"),
        (vec!["run", &agent("hello-rust"), "--mount", "/workspace=/no/such/folder"], "/no/such/folder"),
        (vec!["run", &agent("hello-rust"), "--mount", "relative=/tmp"], "--mount"),
        (vec!["run", &agent("hello-rust"), "--lease", r#"{"fs.read": "/x"}"#], "--lease"),
        (vec!["run", &agent("hello-rust"), "--lease", r#"{"fs.read": ["../x"]}"#], "--lease"),
        (vec!["run", &agent("hello-rust"), "--lease", r#"{"cost.budget": ["much"]}"#], "--lease"),
        (vec!["run", &agent("hello-rust"), "--config", "/no/such.toml"], "--config /no/such.toml"),
    ] {
        let _ = run(args).await.exits(code::USAGE).complains(named);
    }
}

async fn summarize(dir: &TempDir, more: &[&str]) -> Outcome {
    let mount = format!("/workspace={}", dir.path().join("texts").display());
    let lease = r#"{"fs.read": ["/workspace/**"], "cost.budget": ["USD:0.05"]}"#;
    let agent = agent("summarize-files");
    let mut args = vec!["run", &agent, "--mount", &mount, "--lease", lease];
    if !more.contains(&"--input") {
        args.extend(["--input", r#"{"path": "/workspace", "price_per_file": "0.01"}"#]);
    }
    args.extend(more);
    run(args).await
}

fn workspace() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("texts")).unwrap();
    fs::write(dir.path().join("texts/a.txt"), "one two three\n").unwrap();
    fs::write(dir.path().join("texts/b.md"), "vier fünf\n").unwrap();
    fs::write(dir.path().join("a.txt"), "no component").unwrap();
    dir
}

fn agent(name: &str) -> String {
    agents_dir().join(format!("{name}@1.0.0.wasm")).display().to_string()
}
