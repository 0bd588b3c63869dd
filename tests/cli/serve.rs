//! `leasehold serve`: its settings, what it refuses to start with, and its log.

use std::{fs, path::Path, process::Stdio};

use leasehold::client::{Client, ClientInfo, Submit};
use leasehold_tests::{
    agents_dir,
    host::{ALICE, token},
    program::{Outcome, Running, Serve, leasehold, outcome, run},
    some_agents, within,
};
use serde_json::{Value, json};

use crate::code;

#[tokio::test]
async fn a_host_takes_its_settings_from_flags() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.txt"), "seen through a mount\n").unwrap();
    let host = Serve::new().await.args(["--mount", &format!("/in={}:ro", dir.path().display())]).start().await;
    let lease = r#"{"fs.read": ["/in/**"]}"#;
    let input = r#"{"do": "read", "path": "/in/a.txt"}"#;
    let read = outcome(host.command(["submit", "hostile", "--input", input, "--lease", lease])).await;
    assert!(read.exits(code::SUCCESS).stdout.contains("seen through a mount"));
    // Mounted read-only, so the ceiling has no `fs.write`.
    let lease = r#"{"fs.write": ["/in/**"]}"#;
    let written = outcome(host.command(["submit", "echo", "--lease", lease])).await;
    let _ = written.exits(code::REFUSED).complains("LEASE_SUBSET_VIOLATION");
}

#[tokio::test]
async fn a_host_takes_its_settings_from_a_file_and_a_flag_wins() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("texts")).unwrap();
    fs::write(dir.path().join("carol.token"), "token-of-carol\n").unwrap();
    let settings = r#"
        [server]
        listen = "192.0.2.1:1"  # nobody has this address; the flag wins
        [tokens]
        carol = { file = "carol.token" }
        [policy.carol]
        lease = { "fs.read" = ["/texts/open/**"] }
        [[mounts]]
        at = "/texts"
        path = "texts"
    "#;
    let file = dir.path().join("leasehold.toml");
    fs::write(&file, settings).unwrap();
    let host = Serve::new().await.args(["--config".as_ref(), file.as_os_str()]).start().await;
    for (token, pattern, expected) in [
        ("token-of-carol", "/texts/open/**", code::SUCCESS),
        ("token-of-carol", "/texts/**", code::REFUSED), // more than her policy
        (&token(ALICE), "/texts/**", code::SUCCESS),    // no policy: what is mounted
    ] {
        let lease = json!({ "fs.read": [pattern] }).to_string();
        let args = ["submit", "echo", "--url", &host.url, "--token", token, "--lease", &lease];
        let _ = run(args).await.exits(expected);
    }
}

#[tokio::test]
async fn a_setting_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let typo = file("typo.toml", "[server]\n\nagent = \"x\"\n");
    let wrong = file("wrong.toml", "[server]\nlisten = 7\n");
    let chunks = file("chunks.toml", "[limits]\nchunk_bytes_max = 2000000\n");
    let none = file("none.toml", "[server]\nconnections_max = 0\n");
    let orphan = file("orphan.toml", "[policy.nobody]\nlease = {}\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (args, named) in [
        (vec!["--listen", "nonsense"], vec!["--listen"]),
        (vec!["--listen", &taken], vec!["cannot listen on", &taken]),
        (vec!["--mount", "/x"], vec!["--mount"]),
        (vec!["--mount", "/x=/no/such/folder"], vec!["mounts", "/no/such/folder"]),
        (vec!["--mount", "/../x=/tmp"], vec!["--mount"]),
        (vec!["--agents", "/no/such/agents"], vec!["--agents", "/no/such/agents"]),
        (vec!["--data", "/dev/null/data"], vec!["server.data", "/dev/null/data"]),
        (vec!["--config", "/no/such.toml"], vec!["--config", "/no/such.toml"]),
        (vec!["--config", &typo], vec!["--config", &typo, "line 3", "`agent`", "did you mean `agents`?"]),
        (vec!["--config", &wrong], vec!["--config", &wrong, "line 2"]),
        (vec!["--config", &chunks], vec!["limits.chunk_bytes_max is 2000000", "1048576"]),
        (vec!["--config", &none], vec!["server.connections_max is 0"]),
        (vec!["--config", &orphan], vec!["policy.nobody"]),
    ] {
        let mut refused = serve(dir.path(), &args).await.exits(code::USAGE);
        for named in named {
            refused = refused.complains(named);
        }
    }
    // What stands in the place of a token is not repeated.
    let refused =
        serve(dir.path(), &["--token", "s3cret-without-a-name"]).await.exits(code::USAGE).complains("--token");
    assert!(refused.stderr.contains("NAME=TOKEN") && !refused.stderr.contains("--token s3cret"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_host_that_others_can_reach_needs_a_token() {
    let dir = tempfile::tempdir().unwrap();
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let refused = serve(dir.path(), &["--listen", listen]).await.exits(code::USAGE);
        let _ = refused.complains("server.listen").complains("--token NAME=TOKEN");
    }
}

#[tokio::test]
async fn a_token_that_was_made_up_is_shown_once_and_lets_in() {
    let dir = tempfile::tempdir().unwrap();
    let host = Running::start(serving(dir.path(), &[]));
    let url = host.stdout(|line| Some(line.strip_prefix("leasehold ready at ")?.split(' ').next()?.to_owned())).await;
    let token = host.stderr(|line| Some(line.strip_prefix("no token is configured;")?.split(": ").nth(1)?.to_owned()));
    let token = token.await;
    let _ = run(["jobs", "--url", &url, "--token", &token]).await.exits(code::SUCCESS);
    let _ = run(["jobs", "--url", &url]).await.exits(code::REFUSED);
    host.signal(rustix::process::Signal::TERM);
    let ended = host.end().await.exits(code::SUCCESS);
    assert_eq!(ended.stderr.matches(&token).count() + ended.stdout.matches(&token).count(), 1, "{ended:?}");
}

#[tokio::test]
async fn two_hosts_do_not_share_their_data() {
    let host = Serve::new().await.start().await;
    let refused = serve(Path::new("/"), &["--data", host.data.to_str().unwrap()]).await.exits(code::USAGE);
    let _ = refused.complains("another leasehold host uses").complains(host.data.to_str().unwrap());
    // The first is not disturbed, and when it is gone another may follow.
    let _ = outcome(host.command(["jobs"])).await.exits(code::SUCCESS);
    let data = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let host = Serve::on(&data.path().join("data")).await.start().await;
        let _ = host.terminate().await.exits(code::SUCCESS);
    }
}

#[tokio::test]
async fn a_file_that_is_no_agent_is_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let echo = "echo@1.0.0.wasm";
    fs::copy(agents_dir().join(echo), dir.path().join(echo)).unwrap();
    fs::write(dir.path().join("broken@1.0.0.wasm"), "not wasm").unwrap();
    let args = ["--json", "--agents", ".", "--token", "me=secret", "--log-format", "json"];
    let host = Running::start(serving(dir.path(), &args));
    let url = host.stdout(|line| Some(serde_json::from_str::<Value>(line).ok()?["url"].as_str()?.to_owned())).await;
    let problem = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["problem"].as_str()?.to_owned());
    let problem = host.stderr(problem).await;
    assert!(problem.contains("broken@1.0.0"), "{problem}");
    // The host was ready before its agent, which is listed once it is.
    host.stderr(|line| line.contains("an agent was compiled and deployed").then_some(())).await;
    let agents = run(["agents", "--json", "--url", &url, "--token", "secret"]).await.exits(code::SUCCESS).objects();
    assert_eq!(agents.iter().map(|agent| &agent["name"]).collect::<Vec<_>>(), [&json!("echo")]);
}

/// ARCP §7.5.
#[tokio::test]
async fn an_agent_is_deployed_and_withdrawn_while_the_host_runs() {
    let dir = some_agents(&["echo"]);
    let settings = dir.path().join("leasehold.toml");
    fs::write(&settings, "[server]\nagents_interval_sec = 1\n").unwrap();
    let host = Serve::new().await.agents(dir.path()).args(["--config", settings.to_str().unwrap()]).start().await;
    let newer = dir.path().join("echo@1.1.0.wasm");
    fs::copy(dir.path().join("echo@1.0.0.wasm"), &newer).unwrap();
    let about = |what: &'static str| {
        move |line: &Value| (line["message"].as_str()?.starts_with(what)).then(|| line["agent"].clone())
    };
    assert_eq!(host.log(about("an agent was deployed")).await, "echo@1.1.0");
    let versions = || async {
        let agents = outcome(host.command(["agents", "--json"])).await.exits(code::SUCCESS).objects();
        agents[0]["versions"].clone()
    };
    assert_eq!(versions().await, json!(["1.0.0", "1.1.0"]));
    let accepted = outcome(host.command(["submit", "echo", "--json"])).await.exits(code::SUCCESS);
    assert!(accepted.stdout.contains("echo@1.1.0"), "{accepted:?}");
    fs::remove_file(&newer).unwrap();
    assert_eq!(host.log(about("an agent was withdrawn")).await, "echo@1.1.0");
    assert_eq!(versions().await, json!(["1.0.0"]));
}

#[tokio::test]
async fn the_log_is_json_and_names_every_refusal_and_never_a_token() {
    let host = Serve::new().await.args(["--log", "trace"]).start().await;
    let secrets = [token(ALICE), "tk-nobody-knows".to_owned()];
    let _ = run(["jobs", "--url", &host.url, "--token", &secrets[1]]).await.exits(code::REFUSED);
    for args in [
        &["submit", "nobody"] as &[&str],
        &["submit", "echo", "--lease", r#"{"fs.read": ["/etc/**"]}"#],
        &["submit", "echo", "--expires-at", "yesterday"],
    ] {
        let _ = outcome(host.command(args)).await.exits(code::REFUSED);
    }
    let accepted = outcome(host.command(["submit", "echo", "--detach"])).await.exits(code::SUCCESS).stdout;
    let ended = |line: &Value| (line["message"] == "job ended").then(|| line.clone());
    let ended = host.log(ended).await;
    assert_eq!(ended["job_id"], accepted.trim_end());
    let stopped = host.terminate().await.exits(code::SUCCESS);
    let lines: Vec<Value> =
        stopped.stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let refused = lines.iter().filter(|line| line["message"] == "refused");
    let refused: Vec<_> = refused.map(|line| (&line["code"], line["reason"].as_str().unwrap())).collect();
    for (line, code, named) in [
        (0, "UNAUTHENTICATED", "token"),
        (1, "AGENT_NOT_AVAILABLE", "`nobody`"),
        (2, "LEASE_SUBSET_VIOLATION", "/etc/**"),
        (3, "INVALID_REQUEST", "expires_at"),
    ] {
        assert_eq!(refused[line].0, code, "{refused:?}");
        assert!(refused[line].1.contains(named), "{refused:?}");
    }
    assert!(lines.iter().all(|line| line["message"] != "refused" || line["session_id"].is_string()));
    for secret in secrets {
        assert!(!stopped.stderr.contains(&secret) && !stopped.stdout.contains(&secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn stdio_serves_its_parent_and_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = leasehold();
    command.args(["stdio", "--log-format", "json", "--agents"]).arg(agents_dir());
    command.arg("--data").arg(dir.path().join("data")).stderr(Stdio::null());
    let info = ClientInfo::default();
    let client = Client::connect_child(command, None, info);
    let mut client = within("a session", client).await.unwrap();
    let submission = Submit::new("echo", json!("over pipes"));
    within("the acceptance", client.submit(submission)).await.unwrap();
    let end = within("the result", client.next_event()).await.unwrap();
    assert_eq!(end.payload["result"], "over pipes");
    within("the end", client.close()).await.unwrap();
}

/// Calls `serve` in a folder, for a host that does not start.
async fn serve(dir: &Path, args: &[&str]) -> Outcome {
    outcome(serving(dir, args)).await
}

/// A `serve` in a folder, on any free port and with no token, unless `args` say otherwise.
fn serving(dir: &Path, args: &[&str]) -> tokio::process::Command {
    let mut command = leasehold();
    command.arg("serve").current_dir(dir);
    for (flag, value) in [("--listen", "127.0.0.1:0"), ("--agents", agents_dir().to_str().unwrap()), ("--data", "data")]
    {
        if !args.contains(&flag) {
            command.args([flag, value]);
        }
    }
    command.args(args);
    command
}
