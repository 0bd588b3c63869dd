//! The Python SDK from PyPI, over WebSocket and over the pipes of a child process.
//!
//! What is asserted of Python's values stands in `python/client.py`, one
//! function a scenario; here it is run, and held against what the host and our
//! own client say.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use leasehold::client::{Submit, assemble};
use leasehold_tests::{
    agents_dir,
    host::{ALICE, BOB, token},
    program::{Outcome, Running, Serve, Served, compiled_agents, leasehold, outcome, outcome_within},
    python::environment,
    within,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{process::Command, sync::OnceCell};

#[tokio::test]
async fn it_reads_the_welcome_and_runs_a_pinned_version() {
    both("connects").await;
}

#[tokio::test]
async fn any_json_value_comes_back_as_it_went() {
    both("values").await;
}

/// ARCP §8.3
#[tokio::test]
async fn a_thousand_events_arrive_in_order_without_gaps() {
    both("events").await;
}

/// ARCP §8.4
#[tokio::test]
async fn a_streamed_result_is_the_one_our_own_client_assembles() {
    let Some(python) = Python::ready().await else { return };
    let host = python.serve().await;
    let mut client = host.client(ALICE).await;
    let submission = Submit {
        lease_request: Some(json!({ "fs.read": ["/workspace/**"], "cost.budget": ["USD:0.05"] })),
        ..Submit::new("summarize-files", json!({ "path": "/workspace" }))
    };
    within("the job to be accepted", client.submit(submission)).await.unwrap();
    let mut chunks = Vec::new();
    let end = loop {
        let frame = within("an event", client.next_event()).await.unwrap();
        match frame.event() {
            Some(("result_chunk", body)) => chunks.push(body.clone()),
            _ if frame.is_terminal() => break frame.payload,
            _ => {}
        }
    };
    assert!(chunks.len() > 1, "one chunk proves little");
    let report = assemble(&chunks).unwrap();
    for answer in [python.over_websocket("streams", &host).await, python.over_stdio("streams").await] {
        let answer = answer.exits(0).json();
        assert_eq!(answer["sha256"], sha256(&report), "{answer}");
        assert_eq!((&answer["size"], &answer["summary"]), (&end["result_size"], &end["summary"]));
    }
}

/// ARCP §9.6
#[tokio::test]
async fn costs_and_what_is_left_arrive_as_metrics() {
    both("spends").await;
}

/// ARCP §12
#[tokio::test]
async fn a_refused_submission_is_the_typed_error_of_its_code() {
    both("refusals").await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_disturbs_nobody() {
    both("unauthenticated").await;
}

/// ARCP §9.3
#[tokio::test]
async fn a_denied_call_is_seen_and_the_job_goes_on() {
    both("denied").await;
}

#[tokio::test]
async fn the_error_of_an_agent_is_the_typed_error_of_its_code() {
    both("fails").await;
}

/// ARCP §7.4
#[tokio::test]
async fn a_cancelled_job_is_done_with_that_status_and_listed_with_it() {
    both("cancels").await;
}

#[tokio::test]
async fn a_job_that_runs_too_long_is_done_with_that_status() {
    both("times_out").await;
}

/// ARCP §6.6
#[tokio::test]
async fn jobs_are_listed_newest_first_by_filter_and_by_page() {
    both("lists").await;
}

/// ARCP §6.4
#[tokio::test]
async fn a_client_that_answers_pings_is_kept() {
    let Some(mut python) = Python::ready().await else { return };
    python.config("[server]\nheartbeat_interval_sec = 1\n");
    python.both("stays_alive").await;
}

#[tokio::test]
async fn two_jobs_of_one_session_do_not_wait_for_each_other() {
    both("interleaves").await;
}

#[tokio::test]
async fn a_hundred_submissions_at_once_get_each_its_own_result() {
    both("many_at_once").await;
}

/// ARCP §7.2
#[tokio::test]
async fn a_repeated_submission_is_the_same_job() {
    both("repeats").await;
}

#[tokio::test]
async fn misuse_of_the_sdk_neither_hangs_nor_ends_the_session() {
    both("misuse").await;
}

#[tokio::test]
async fn a_client_that_closes_leaves_its_jobs_running() {
    let Some(python) = Python::ready().await else { return };
    let host = python.serve().await;
    let answer = python.over_websocket("closes", &host).await.exits(0).json();
    let ended = |line: &Value| {
        let closed = line["message"] == "session closed" && line["session_id"] == answer["session_id"];
        closed.then(|| line["reason"].to_string())
    };
    assert!(host.log(ended).await.contains("as asked"));
    let jobs = within("the jobs", async { host.client(ALICE).await.list_jobs(Value::Null).await }).await.unwrap();
    assert_eq!((&jobs[0]["job_id"], &jobs[0]["status"]), (&answer["job_id"], &json!("running")), "{jobs:?}");
    // Over stdio the host is the client's own, and ends with it; the program looks at its exit code.
    let _ = python.over_stdio("closes").await.exits(0);
}

/// ARCP §6.3
#[tokio::test]
async fn a_client_that_comes_back_finds_its_session() {
    let Some(python) = Python::ready().await else { return };
    let host = python.serve().await;
    let _ = python.over_websocket("resumes", &host).await.exits(0);
}

/// ARCP §7.6
#[tokio::test]
async fn a_second_session_watches_a_job_from_its_beginning() {
    let Some(python) = Python::ready().await else { return };
    let host = python.serve().await;
    let _ = python.over_websocket("watches", &host).await.exits(0);
}

/// ARCP §6.5
#[tokio::test]
async fn a_client_that_acknowledges_everything_misses_nothing() {
    let Some(python) = Python::ready().await else { return };
    let host = python.serve().await;
    let _ = python.over_websocket("acks", &host).await.exits(0);
}

/// ARCP §7.6
#[tokio::test]
async fn the_command_line_of_the_sdk_watches_a_job() {
    let Some(python) = Python::ready().await else { return };
    let host = python.serve().await;
    let mut client = host.client(ALICE).await;
    let submission = Submit::new("chatty", json!({ "count": 30, "delay_ms": 1 }));
    let job = within("the acceptance", client.submit(submission)).await.unwrap().job_id;
    let mut command = Command::new(python.program.with_file_name("arcp"));
    command.args(["tail", "--url", &host.url, "--token", &token(ALICE), "--job-id", &job]);
    let lines = outcome(command).await.exits(0).objects();
    assert_eq!(lines.len(), 31, "{lines:?}");
    assert_eq!(lines[30]["result"], json!({ "count": 30 }));
}

#[tokio::test]
async fn the_command_line_of_the_sdk_gets_a_result() {
    let Some(python) = Python::ready().await else { return };
    let host = python.serve().await;
    let mut command = Command::new(python.program.with_file_name("arcp"));
    command.args(["submit", "--url", &host.url, "--token", &token(ALICE), "--agent", "hello-rust"]);
    command.args(["--input", r#"{"name": "Click"}"#]);
    let answer = outcome(command).await.exits(0).json();
    assert_eq!(answer["final_status"], "success", "{answer}");
    assert_eq!(answer["result"], json!({ "greeting": "Hello, Click!" }));
}

/// What `conformance/README.md` says of the SDK's own runtime. It may do better one day, and nothing else may fail.
#[tokio::test]
async fn the_suite_finds_in_the_sdk_s_runtime_what_we_say_it_does() {
    let Some(python) = Python::ready().await else { return };
    let mut command = Command::new(python.program);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/python/runtime.py"));
    command.args([ALICE, BOB].map(|name| format!("{name}={}", token(name)))).kill_on_drop(true);
    let runtime = Running::start(command);
    let url = runtime.stdout(|line| line.strip_prefix("ready at ").map(str::to_owned)).await;
    let mut tool = leasehold();
    tool.args(["conformance", "--json", "--at-once", "8", "--timeout", "10", "--url", &url]);
    tool.args(["--token", &token(ALICE), "--other-token", &token(BOB)]);
    let report = outcome_within(Duration::from_secs(300), tool).await.exits(1).json();
    let cases = report["cases"].as_array().unwrap();
    let failed: Vec<u64> =
        cases.iter().filter(|case| case["status"] == "failed").filter_map(|case| case["id"].as_u64()).collect();
    let said = include_str!("../conformance/README.md");
    for case in &failed {
        assert!(said.contains(&format!("| {case} | ")), "case {case} fails, and the README does not say so: {report}");
    }
    assert!(report["passed"].as_u64() >= Some(80), "{report}");
    assert!(failed.contains(&101), "a cancelled job ends with job.result there: {report}");
}

/// Runs a scenario over both transports.
async fn both(scenario: &str) {
    if let Some(python) = Python::ready().await {
        python.both(scenario).await;
    }
}

/// A Python with the SDK, and what the hosts it talks to are given.
struct Python {
    program: &'static Path,
    /// Holds `workspace`, which hosts mount, and the data of hosts on pipes.
    dir: TempDir,
    config: Option<PathBuf>,
}

impl Python {
    /// Makes the virtual environment ready, once; `None` if the machine cannot have one.
    async fn ready() -> Option<Self> {
        static PROGRAM: OnceCell<Option<PathBuf>> = OnceCell::const_new();
        let program = PROGRAM.get_or_init(|| async {
            match environment(Path::new(env!("CARGO_TARGET_TMPDIR")), &[SDK]).await {
                Ok(program) => Some(program),
                Err(why) if env::var_os("CI").is_some() => panic!("the Python SDK cannot be installed: {why}"),
                Err(why) => {
                    // Written past the test's captured output, so that whoever runs the suite sees it.
                    let _ = writeln!(std::io::stderr(), "SKIPPED: interop with the Python SDK: {why}");
                    None
                }
            }
        });
        let program = program.await.as_deref()?;
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("workspace/notes");
        fs::create_dir_all(&workspace).unwrap();
        for n in 1..=40 {
            let text =
                format!("Grüße {n}: the quick brown fox 🦊 jumps over {} lazy dogs\n", "very ".repeat(n)).repeat(n);
            fs::write(workspace.join(format!("größe-{n:02}.txt")), text).unwrap();
        }
        Some(Self { program, dir, config: None })
    }

    /// Gives the hosts a settings file.
    fn config(&mut self, text: &str) {
        let path = self.dir.path().join("leasehold.toml");
        fs::write(&path, text).unwrap();
        self.config = Some(path);
    }

    /// Runs a scenario over both transports.
    async fn both(&self, scenario: &str) {
        let host = self.serve().await;
        let _ = self.over_websocket(scenario, &host).await.exits(0);
        let _ = self.over_stdio(scenario).await.exits(0);
    }

    async fn serve(&self) -> Served {
        Serve::new().await.args(self.host_args()).start().await
    }

    fn host_args(&self) -> Vec<String> {
        let mut args = vec!["--mount".into(), format!("/workspace={}", self.dir.path().join("workspace").display())];
        if let Some(config) = &self.config {
            args.extend(["--config".into(), config.display().to_string()]);
        }
        args
    }

    async fn over_websocket(&self, scenario: &str, host: &Served) -> Outcome {
        let mut command = self.scenario(scenario);
        command.args(["--url", &host.url]);
        outcome(command).await
    }

    async fn over_stdio(&self, scenario: &str) -> Outcome {
        let data = self.dir.path().join("data");
        // No scenario starts more than two.
        for host in ["0", "1"] {
            compiled_agents(&data.join(host)).await;
        }
        let mut command = self.scenario(scenario);
        command.arg("--data").arg(&data);
        command.arg("--stdio").arg(leasehold().as_std().get_program()).arg("stdio");
        command.arg("--agents").arg(agents_dir()).arg("--token").arg(format!("{ALICE}={}", token(ALICE)));
        command.args(self.host_args());
        outcome(command).await
    }

    fn scenario(&self, scenario: &str) -> Command {
        let mut command = Command::new(self.program);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/python/client.py"));
        command.args([scenario, "--token", &token(ALICE)]).kill_on_drop(true);
        command
    }
}

/// The SDK that is tested.
const SDK: &str = "agentruntimecontrolprotocol==1.1.3";

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    format!("{:x}", Sha256::digest(bytes))
}
