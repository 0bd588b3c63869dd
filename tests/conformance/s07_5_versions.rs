//! ARCP §7.5: names and versions.

use leasehold_tests::{
    ErrorCode::{AgentNotAvailable, AgentVersionNotAvailable, InvalidRequest},
    TestHost, agents_dir,
};
use serde_json::json;

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
