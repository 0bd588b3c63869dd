//! ARCP §7.5: names and versions.

use std::{fs, path::Path, time::Duration};

use leasehold_tests::{
    ErrorCode::{AgentNotAvailable, AgentVersionNotAvailable, InvalidRequest},
    TestHost, agents_dir, host as names, some_agents,
};
use serde_json::{Value, json};

/// A host where `echo` and `chatty` have these further versions; each is the component of `echo`.
async fn host(versions: &[(&str, &str)]) -> TestHost {
    let host = TestHost::new().await;
    register(&host, versions);
    host
}

fn register(host: &TestHost, versions: &[(&str, &str)]) {
    for (name, version) in versions {
        let echo = agents_dir().join("echo@1.0.0.wasm");
        host.host().registry().register_file(&echo, name, version).expect("it is an agent");
    }
}

#[tokio::test]
async fn a_bare_name_is_the_newest_version_and_a_version_is_itself() {
    let host = host(&[("echo", "1.10.0"), ("echo", "1.9.0"), ("echo", "2.0.0-rc.1")]).await;
    let mut client = host.session().await;
    for (agent, expected) in [
        ("echo", Ok("echo@2.0.0-rc.1")),
        ("echo@1.0.0", Ok("echo@1.0.0")),
        ("echo@1.9.0", Ok("echo@1.9.0")),
        ("echo@9.9", Err(AgentVersionNotAvailable)),
        ("echo@1", Err(AgentVersionNotAvailable)),
        ("nobody@1.0.0", Err(AgentNotAvailable)),
        ("echo@", Err(InvalidRequest)),
        ("@1.0.0", Err(InvalidRequest)),
        ("echo@1.0.0@2", Err(InvalidRequest)),
        ("Echo", Err(InvalidRequest)),
    ] {
        let reply = client.submit(agent).reply().await;
        assert_eq!(reply.outcome(), expected.map(|_| ()), "{agent}: {}", reply.0);
        if let Ok(resolved) = expected {
            assert_eq!(reply.payload()["agent"], json!(resolved), "{agent}");
        }
    }
}

#[tokio::test]
async fn the_inventory_lists_versions_oldest_first_and_the_default() {
    let host = host(&[("echo", "1.10.0"), ("echo", "1.9.0")]).await;
    let welcome = host.raw().open(&leasehold_tests::host::token("alice")).await;
    let agents = welcome["capabilities"]["agents"].as_array().expect("an inventory");
    let echo = agents.iter().find(|agent| agent["name"] == "echo").expect("echo is registered");
    assert_eq!(*echo, json!({ "name": "echo", "versions": ["1.0.0", "1.9.0", "1.10.0"], "default": "1.10.0" }));
}

#[tokio::test]
async fn a_running_job_keeps_its_version() {
    let host = TestHost::new().await;
    let mut client = host.session().await;
    let submit = client.submit("chatty").input(json!({ "count": 2, "start_delay_ms": 100 }));
    let reply = submit.reply().await;
    register(&host, &[("chatty", "2.0.0")]);
    assert_eq!(reply.payload()["agent"], "chatty@1.0.0");
    let run = client.follow(&reply.job_id()).await;
    assert_eq!((run.events.len(), run.result()), (2, Ok(json!({ "count": 2 }))));
    let newer = client.submit("chatty").input(json!("an echo now")).run().await;
    assert_eq!(
        (&newer.accepted["payload"]["agent"], newer.result()),
        (&json!("chatty@2.0.0"), Ok(json!("an echo now")))
    );
}

/// Puts a component into a folder while a host looks on.
fn deploy(dir: &Path, file: &str, component: &[u8]) {
    fs::write(dir.join(file), component).expect("the folder can be written to");
}

/// Lets the host's time pass until it has this version, or has not.
async fn deployed(host: &TestHost, agent: &str, wanted: bool) {
    let looking = async {
        while host.host().registry().all().iter().any(|known| known.id == agent) != wanted {
            tokio::task::yield_now().await;
        }
    };
    host.advancing(Duration::from_millis(1), looking).await;
}

/// What a new session is told of an agent.
async fn told(host: &TestHost, name: &str) -> Option<Value> {
    let welcome = host.raw().open(&names::token("alice")).await;
    let mut agents = welcome["capabilities"]["agents"].as_array().expect("an inventory").iter();
    agents.find(|agent| agent["name"] == name).cloned()
}

#[tokio::test]
async fn what_comes_and_goes_in_the_agents_folder_does_so_in_the_next_welcome_and_running_jobs_keep_theirs() {
    let dir = some_agents(&["chatty", "echo"]);
    let echo = fs::read(dir.path().join("echo@1.0.0.wasm")).expect("echo was built");
    let folder = dir.path().to_owned();
    let host = TestHost::builder().at("2026-05-13T12:00:00Z").config(|config| config.server.agents = folder);
    let host = host.limits(|limits| limits.runtime_sec_default = 86_400).start().await;
    let mut client = host.session_offering(&["list_jobs", "agent_versions"]).await;
    let submit = client.submit("chatty").input(json!({ "count": 2, "start_delay_ms": 3_000_000 }));
    let older = submit.reply().await.job_id();

    deploy(dir.path(), "half@1.0.0.wasm", &echo[..echo.len() / 2]);
    deploy(dir.path(), "chatty@2.0.0.wasm", &echo);
    deployed(&host, "chatty@2.0.0", true).await;
    let expected = json!({ "name": "chatty", "versions": ["1.0.0", "2.0.0"], "default": "2.0.0" });
    assert_eq!((told(&host, "chatty").await, told(&host, "half").await), (Some(expected), None));
    let newer = client.submit("chatty").input(json!("an echo now")).run().await;
    assert_eq!(newer.accepted["payload"]["agent"], "chatty@2.0.0");
    assert_eq!(newer.result(), Ok(json!("an echo now")));

    // The file is completed, and the new version taken back.
    deploy(dir.path(), "half@1.0.0.wasm", &echo);
    fs::remove_file(dir.path().join("chatty@2.0.0.wasm")).expect("the file is there");
    fs::remove_file(dir.path().join("echo@1.0.0.wasm")).expect("the file is there");
    deployed(&host, "half@1.0.0", true).await;
    let expected = json!({ "name": "chatty", "versions": ["1.0.0"], "default": "1.0.0" });
    assert_eq!((told(&host, "chatty").await, told(&host, "echo").await), (Some(expected), None));
    for (agent, expected) in [
        ("chatty@2.0.0", Err(AgentVersionNotAvailable)),
        ("echo", Err(AgentNotAvailable)), // which may be deployed again, so it is worth another try (§12)
        ("half", Ok(())),
    ] {
        let reply = client.submit(agent).reply().await;
        assert_eq!(reply.outcome(), expected, "{agent}: {}", reply.0);
    }

    fs::remove_file(dir.path().join("chatty@1.0.0.wasm")).expect("the file is there");
    deployed(&host, "chatty@1.0.0", false).await;
    let run = host.advancing(Duration::from_secs(1), client.follow(&older)).await;
    assert_eq!((run.events.len(), run.result()), (2, Ok(json!({ "count": 2 }))));
}
