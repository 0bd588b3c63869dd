//! Files that are no agents, and agents that ask for more than there is.

use std::fs;

use leasehold_tests::{TestHost, agents_dir, within};
use serde_json::json;

/// A text, or what it stands for if it is WebAssembly text.
fn bytes(text: &str) -> Vec<u8> {
    if text.starts_with('(') { wat::parse_str(text).expect("the test's own text parses") } else { text.into() }
}

/// Each file is refused with a sentence that names what is wrong, and the agent beside them works.
#[tokio::test]
async fn what_is_no_agent_is_refused_with_the_reason_and_the_rest_works() {
    let echo = fs::read(agents_dir().join("echo@1.0.0.wasm")).expect("echo was built");
    let imports = |name: &str| format!(r#"(component (import "{name}" (instance (export "f" (func)))))"#);
    let table = [
        // name, content, words of the refusal
        ("text", b"#!/bin/sh\necho pwned\n".to_vec(), "component"),
        ("empty", Vec::new(), "empty"),
        ("magic", b"\0asm".to_vec(), ""),
        ("core-module", bytes(r#"(module (func (export "run")))"#), "core module"),
        ("truncated", echo[..echo.len() / 2].to_vec(), ""),
        ("one-byte-short", echo[..echo.len() - 1].to_vec(), ""),
        ("no-run", bytes("(component)"), "run"),
        (
            "run-of-another-type",
            bytes(
                r#"(component (core module $m (func (export "f")))
            (core instance $i (instantiate $m)) (func (export "run") (canon lift (core func $i "f"))))"#,
            ),
            "run",
        ),
        // A WIT package is a component that only describes.
        (
            "wit-package",
            bytes(
                r#"(component (type (export "i") (component
            (type (instance (export "f" (func)))) (export "a:b/i" (instance (type 0))))))"#,
            ),
            "",
        ),
        ("http", bytes(&imports("wasi:http/outgoing-handler@0.2.3")), "wasi:http/outgoing-handler@0.2.3"),
        ("http-types", bytes(&imports("wasi:http/types@0.2.0")), "wasi:http/types@0.2.0"),
        ("http-incoming", bytes(&imports("wasi:http/incoming-handler@0.2.3")), "wasi:http/incoming-handler"),
        ("keyvalue", bytes(&imports("wasi:keyvalue/store@0.2.0")), "wasi:keyvalue/store"),
        ("keyvalue-atomics", bytes(&imports("wasi:keyvalue/atomics@0.2.0-draft")), "wasi:keyvalue/atomics"),
        ("config", bytes(&imports("wasi:config/store@0.2.0-rc.1")), "wasi:config/store"),
        ("config-runtime", bytes(&imports("wasi:config/runtime@0.2.0-draft")), "wasi:config/runtime"),
        ("messaging", bytes(&imports("wasi:messaging/producer@0.2.0-draft")), "wasi:messaging/producer"),
        ("blobstore", bytes(&imports("wasi:blobstore/blobstore@0.2.0")), "wasi:blobstore/blobstore"),
        ("logging", bytes(&imports("wasi:logging/logging")), "wasi:logging/logging"),
        ("nn", bytes(&imports("wasi:nn/graph@0.2.0-rc-2024-10-28")), "wasi:nn/graph"),
        ("tls", bytes(&imports("wasi:tls/types@0.2.0-draft")), "wasi:tls/types"),
        ("timezone", bytes(&imports("wasi:clocks/timezone@0.2.0")), "wasi:clocks/timezone"),
        ("command", bytes(&imports("wasi:cli/run@0.2.0")), "wasi:cli/run"),
        ("next-wasi", bytes(&imports("wasi:filesystem/types@0.3.0")), "wasi:filesystem/types@0.3.0"),
        ("first-wasi", bytes(r#"(component (import "wasi_snapshot_preview1" (instance (export "f" (func)))))"#), ""),
        ("spin", bytes(&imports("fermyon:spin/http@2.0.0")), "fermyon:spin/http"),
        ("unknown", bytes(&imports("evil:corp/backdoor")), "evil:corp/backdoor"),
        ("newer-world", bytes(&imports("leasehold:agent/fs@9.0.0")), "leasehold:agent/fs@9.0.0"),
        ("own-function", bytes(&imports("leasehold:agent/root@0.1.0")), "leasehold:agent/root@0.1.0"),
        ("bare-import", bytes(r#"(component (import "system" (func)))"#), "system"),
    ];
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, content, _) in &table {
        fs::write(dir.path().join(format!("{name}@1.0.0.wasm")), content).expect("the folder can be written to");
    }
    fs::write(dir.path().join("echo@1.0.0.wasm"), &echo).expect("the folder can be written to");

    let folder = dir.path().to_owned();
    let host = TestHost::builder().without_agents().config(|config| config.server.agents = folder).start().await;
    let problems = within("the agents", host.host().register_agents()).await.expect("the folder can be read");
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), table.len(), "{problems:#?}");
    for (name, _, words) in &table {
        let problem = problems.iter().find(|problem| problem.contains(&format!("{name}@1.0.0.wasm")));
        let problem = problem.unwrap_or_else(|| panic!("{name} was not refused: {problems:#?}"));
        assert!(problem.contains(words), "{name}: {problem}");
    }

    let mut session = host.session().await;
    let run = session.submit("echo").input(json!("still here")).run().await;
    assert_eq!(run.result(), Ok(json!("still here")));
    for (name, _, _) in &table {
        let reply = session.submit(name).reply().await;
        assert_eq!(reply.outcome(), Err(leasehold_tests::ErrorCode::AgentNotAvailable), "{name}");
    }
}

/// All that a component asks for and cannot have is listed at once.
#[tokio::test]
async fn every_import_that_is_refused_is_named() {
    let wanted = ["wasi:http/types@0.2.0", "wasi:keyvalue/store@0.2.0", "evil:corp/a", "evil:corp/b"];
    let imports: String =
        wanted.iter().map(|name| format!(r#"(import "{name}" (instance (export "f" (func))))"#)).collect();
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let path = dir.path().join("greedy@1.0.0.wasm");
    fs::write(&path, bytes(&format!("(component {imports})"))).expect("the folder can be written to");

    let host = TestHost::builder().without_agents().start().await;
    let registry = host.host().registry();
    let error = registry.register_file(&path, "greedy", "1.0.0").map(|_| ()).expect_err("it asks for too much");
    for name in wanted {
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}
