//! ARCP §9.2, §9.3: what a grant covers, asked through a real mount.

use leasehold_tests::{
    ErrorCode::{InvalidRequest, LeaseSubsetViolation},
    MountMode, RawClient, TestHost,
};
use serde_json::{Value, json};

const OK: &str = "ok";
const DENIED: &str = "permission-denied";
const INVALID: &str = "invalid-request";
const NOT_FOUND: &str = "not-found";

/// What an agent under `lease` is told of each path.
async fn stat(client: &mut RawClient, lease: Option<Value>, paths: &[&str]) -> Vec<String> {
    let steps: Vec<Value> = paths.iter().map(|path| json!({ "do": "stat", "path": path })).collect();
    let mut submit = client.submit("hostile").input(json!({ "do": "steps", "steps": steps }));
    if let Some(lease) = lease {
        submit = submit.lease(lease);
    }
    let results = submit.run().await.result().expect("a refusal is a value, and the job goes on");
    let told = |result: &Value| result["err"]["code"].as_str().unwrap_or(OK).to_owned();
    results.as_array().expect("one outcome a step").iter().map(told).collect()
}

/// A host with `/w` and `/wx` mounted and some files in them.
async fn host() -> TestHost {
    let host = TestHost::builder().mount("/w", MountMode::Ro).mount("/wx", MountMode::Ro).start().await;
    for file in ["a", "A", "ab", "?", "[a]", "{a,b}", "a b", "é"] {
        std::fs::write(host.folder("/w").join(file), "x").unwrap();
    }
    std::fs::create_dir_all(host.folder("/w").join("d/e")).unwrap();
    std::fs::write(host.folder("/w").join("d/f"), "x").unwrap();
    std::fs::write(host.folder("/w").join("d/e/f"), "x").unwrap();
    std::fs::write(host.folder("/wx").join("a"), "x").unwrap();
    host
}

/// ARCP §9.2: each row is a grant, a path and what the agent is told.
#[tokio::test]
async fn a_pattern_covers_what_it_says_and_nothing_beside_it() {
    let host = host().await;
    let mut client = host.session().await;
    for (pattern, rows) in [
        (
            "/w/**",
            &[
                ("/w/a", OK),
                ("/w", OK),
                ("/w/d/e/f", OK),
                ("//w//a", OK),
                ("/w/./a", OK),
                ("/w/missing", NOT_FOUND),
                ("/wx/a", DENIED),
                ("/wx", DENIED),
                ("/", DENIED),
                ("/W/a", DENIED),
                ("/w/../wx/a", INVALID),
                ("/w/../../etc/passwd", INVALID),
                ("w/a", INVALID),
                ("", INVALID),
                ("/w/a\0b", INVALID),
            ][..],
        ),
        ("/w/*", &[("/w/a", OK), ("/w/é", OK), ("/w/d", OK), ("/w/d/f", DENIED), ("/w", DENIED)]),
        ("/w/a*", &[("/w/a", OK), ("/w/ab", OK), ("/w/a b", OK), ("/w/A", DENIED), ("/w/d/f", DENIED)]),
        ("/w/*/f", &[("/w/d/f", OK), ("/w/d/e/f", DENIED)]),
        ("/w/**/f", &[("/w/d/f", OK), ("/w/d/e/f", OK), ("/w/a", DENIED)]),
        ("/w/a", &[("/w/a", OK), ("/w/A", DENIED), ("/w/ab", DENIED), ("/w/a/", OK)]),
        ("/w/?", &[("/w/?", OK), ("/w/a", DENIED)]),
        ("/w/[a]", &[("/w/[a]", OK), ("/w/a", DENIED)]),
        ("/w/{a,b}", &[("/w/{a,b}", OK), ("/w/a", DENIED)]),
    ] {
        let (paths, expected): (Vec<&str>, Vec<&str>) = rows.iter().copied().unzip();
        let told = stat(&mut client, Some(json!({ "fs.read": [pattern] })), &paths).await;
        for ((path, expected), told) in paths.iter().zip(expected).zip(told) {
            assert_eq!(told, expected, "{pattern} on {path:?}");
        }
    }
}

/// ARCP §9.1: no request, no authority; and a job that is refused everything can still end well.
#[tokio::test]
async fn a_job_without_a_lease_may_do_nothing_that_needs_one() {
    let host = host().await;
    let mut client = host.session().await;
    for lease in [None, Some(json!({})), Some(json!({ "fs.read": [] })), Some(json!({ "fs.read": ["/wx/**"] }))] {
        assert_eq!(stat(&mut client, lease.clone(), &["/w/a", "/w"]).await, [DENIED, DENIED], "{lease:?}");
    }
}

/// ARCP §9.2: reading is not writing.
#[tokio::test]
async fn a_namespace_grants_its_own_operations() {
    let host = TestHost::builder().mount("/w", MountMode::Rw).start().await;
    std::fs::write(host.folder("/w").join("a"), "x").unwrap();
    let mut client = host.session().await;
    let reads = [json!({ "do": "read", "path": "/w/a" }), json!({ "do": "list", "path": "/w" })];
    let writes = [
        json!({ "do": "write", "path": "/w/b", "text": "y" }),
        json!({ "do": "append", "path": "/w/b", "text": "z" }),
        json!({ "do": "create_dir", "path": "/w/c" }),
        json!({ "do": "remove", "path": "/w/c" }),
    ];
    for (namespace, reads_are, writes_are) in [("fs.read", OK, DENIED), ("fs.write", DENIED, OK)] {
        let deed = json!({ "do": "steps", "steps": reads.iter().chain(&writes).collect::<Vec<_>>() });
        let run = client.submit("hostile").input(deed).lease(json!({ namespace: ["/w/**"] })).run().await;
        let told = run.result().unwrap();
        for (at, told) in told.as_array().unwrap().iter().enumerate() {
            let expected = if at < reads.len() { reads_are } else { writes_are };
            assert_eq!(told["err"]["code"].as_str().unwrap_or(OK), expected, "{namespace}, step {at}: {told}");
        }
    }
    assert_eq!(std::fs::read_to_string(host.folder("/w").join("b")).unwrap(), "yz");
}

/// ARCP §9.4: a submission is a delegation from what the operator allows its principal.
#[tokio::test]
async fn a_lease_is_never_wider_than_its_principal_may_go() {
    let host = TestHost::builder()
        .mount("/w", MountMode::Rw)
        .mount("/wx", MountMode::Ro)
        .policy("bob", json!({ "fs.read": ["/w/d/**"], "cost.budget": ["USD:1"] }))
        .start()
        .await;
    let (mut alice, mut bob) = (host.session().await, host.session_as("bob").await);
    for (is_alice, lease, expected) in [
        (true, json!({ "fs.read": ["/w/**", "/wx/**"] }), Ok(())),
        (true, json!({ "fs.write": ["/w/**"] }), Ok(())),
        (true, json!({ "fs.write": ["/wx/a"] }), Err(LeaseSubsetViolation)), // mounted read-only
        (true, json!({ "fs.read": ["/**"] }), Err(LeaseSubsetViolation)),
        (true, json!({ "fs.read": ["/etc/passwd"] }), Err(LeaseSubsetViolation)),
        (true, json!({ "net.fetch": ["https://example.com/**"] }), Err(LeaseSubsetViolation)),
        (true, json!({ "cost.budget": ["USD:1"] }), Ok(())), // where nothing bounds, any bound is narrower
        (false, json!({ "fs.read": ["/w/d/e"] }), Ok(())),
        (false, json!({ "fs.read": ["/w/d/**", "/w/d"] }), Ok(())),
        (false, json!({ "fs.read": ["/w/*"] }), Err(LeaseSubsetViolation)),
        (false, json!({ "cost.budget": ["USD:1"] }), Ok(())),
        (false, json!({ "cost.budget": ["USD:1.01"] }), Err(LeaseSubsetViolation)),
        (false, json!({ "cost.budget": ["EUR:1"] }), Err(LeaseSubsetViolation)),
        (false, json!({ "fs.read": ["/w/d/../x"] }), Err(InvalidRequest)),
    ] {
        let client = if is_alice { &mut alice } else { &mut bob };
        let reply = client.submit("echo").lease(lease.clone()).reply().await;
        assert_eq!(reply.outcome(), expected, "alice: {is_alice}, {lease}: {}", reply.0);
    }
}
