//! `leasehold dev`: what is saved is built and run again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use leasehold_tests::program::{Running, leasehold, outcome_within};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{code, project::Toolchain};

/// How long the first build may take, which begins with downloads.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

/// A project in Rust, all of whose dependencies are compiled.
struct Project {
    _temporary: TempDir,
    dir: PathBuf,
}

impl Project {
    async fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let rust = Toolchain::default();
        let made = rust.command(temporary.path(), &["new", "greeter"]);
        let _ = outcome_within(BUILD_TIMEOUT, made).await.exits(code::SUCCESS);
        let project = Self { dir: temporary.path().join("greeter"), _temporary: temporary };
        project.save("one", "");
        let _ = outcome_within(BUILD_TIMEOUT, rust.command(&project.dir, &["build", "."])).await.exits(code::SUCCESS);
        project
    }

    /// Saves an agent that says `greeting`, with its input, and then does something else.
    fn save(&self, greeting: &str, then: &str) {
        let source = format!(
            r#"use leasehold_agent::{{Error, agent, info}};

agent!(run);

fn run(input: Option<u32>) -> Result<String, Error> {{
    info!("{greeting} {{input:?}}");
    {then}
    Ok("done".to_owned())
}}
"#
        );
        // As editors do it: beside, and renamed.
        let beside = self.dir.join("src/.lib.rs.swp");
        fs::write(&beside, source).unwrap();
        fs::rename(&beside, self.dir.join("src/lib.rs")).unwrap();
    }

    fn dev(&self, flags: &[&str]) -> Running {
        let mut words = vec!["dev"];
        words.extend(flags);
        Running::start(Toolchain::default().command(&self.dir, &words))
    }
}

/// What an agent does that is still at it when something else happens.
const WAITS: &str = "while !leasehold_agent::job::cancel_requested() {
        leasehold_agent::job::sleep(std::time::Duration::from_millis(20))?;
    }
    leasehold_agent::job::check_cancelled()?;";

/// Waits for an object of which `wanted` is true.
async fn object(dev: &Running, wanted: impl Fn(&Value) -> bool) -> Value {
    dev.stdout(|line| serde_json::from_str(line).ok().filter(|object| wanted(object))).await
}

async fn told(dev: &Running, message: &str) {
    let _ = object(dev, |object| object["payload"]["body"]["message"] == message).await;
}

#[tokio::test]
async fn a_save_is_built_and_run_and_a_bad_one_leaves_the_last_good_one() {
    let project = Project::new().await;
    let dev = project.dev(&["--json", "--input", "7"]);
    told(&dev, "one Some(7)").await;
    let waiting = object(&dev, |object| object["type"] == "dev.waiting").await;
    assert_eq!(waiting["dir"].as_str().map(Path::new), Some(fs::canonicalize(&project.dir).unwrap().as_path()));

    // The job that began before a bad save goes on; a good one has it cancelled, and takes its place.
    project.save("two", WAITS);
    told(&dev, "two Some(7)").await;
    project.save("bad", "no_such_function();");
    let line = object(&dev, |object| object["type"] == "dev.line").await;
    assert!(line["line"].is_string(), "{line}");
    object(&dev, |object| object["line"].as_str().is_some_and(|line| line.contains("`no_such_function`"))).await;
    let failed = object(&dev, |object| object["type"] == "dev.failed").await;
    assert!(failed["message"].as_str().unwrap().contains("cargo could not build greeter"), "{failed}");
    project.save("three", WAITS);
    let cancelled = object(&dev, |object| object["type"] == "job.error").await;
    assert_eq!(cancelled["payload"]["final_status"], "cancelled", "{cancelled}");
    told(&dev, "three Some(7)").await;

    // Ctrl-C ends the job and the program.
    dev.signal(Signal::INT);
    let outcome = dev.end().await.exits(code::SUCCESS);
    let jobs = outcome.objects();
    let of = |kind: &str| jobs.iter().filter(|object| object["type"] == kind).count();
    assert_eq!((of("job.accepted"), of("job.error"), of("dev.failed")), (3, 2, 1), "{}", outcome.stdout);

    // Without flags it is the same submission, and a person reads lines.
    project.save("four", "");
    let again = project.dev(&[]);
    again.stderr(|line| line.contains("four Some(7)").then_some(())).await;
    again.stderr(|line| line.contains("waiting for a save in").then_some(())).await;
    again.signal(Signal::INT);
    let outcome = again.end().await.exits(code::SUCCESS);
    assert_eq!(outcome.json(), "done");
}

#[tokio::test]
async fn a_folder_without_a_project_is_not_watched() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = leasehold();
    command.arg("dev").current_dir(dir.path());
    let _ = outcome_within(BUILD_TIMEOUT, command).await.exits(code::USAGE).complains("leasehold new");
    let mut command = leasehold();
    command.args(["dev", "/no/such/folder"]);
    let _ = outcome_within(BUILD_TIMEOUT, command).await.exits(code::USAGE).complains("/no/such/folder");
}
