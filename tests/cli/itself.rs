//! What the program says of itself, and of components.

use std::fs;

use leasehold_tests::{agents_dir, program::run};

use crate::code;

#[tokio::test]
async fn the_version_is_told_to_people_and_to_programs() {
    let number = env!("CARGO_PKG_VERSION");
    let said = run(["version"]).await.exits(code::SUCCESS);
    assert_eq!(said.stdout, format!("leasehold {number} (ARCP 1.1)\n"));
    assert_eq!(run(["--version"]).await.exits(code::SUCCESS).stdout, format!("leasehold {number}\n"));
    let said = run(["version", "--json"]).await.exits(code::SUCCESS).json();
    assert_eq!((&said["version"], &said["arcp"]), (&number.into(), &"1.1".into()));
}

#[tokio::test]
async fn every_command_has_help_and_the_first_page_documents_the_exit_codes() {
    let help = run(["--help"]).await.exits(code::SUCCESS).stdout;
    let text = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("Exit codes: 0 success; 1 the job did not end with success, or a check failed; 2 wrong usage"),
        "{help}"
    );
    let commands = [
        "serve",
        "stdio",
        "run",
        "submit",
        "jobs",
        "agents",
        "audit",
        "lease",
        "inspect",
        "new",
        "build",
        "demo",
        "conformance",
        "completions",
        "version",
    ];
    for command in commands {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command} is not in\n{help}");
        let help = run([command, "--help"]).await.exits(code::SUCCESS).stdout;
        assert!(help.contains("Usage:"), "{help}");
    }
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_is_refused_by_name() {
    for (args, named) in [
        (&[] as &[&str], "Usage:"),
        (&["nonsense"], "nonsense"),
        (&["serve", "--no-such-flag"], "--no-such-flag"),
        (&["submit"], "<AGENT>"),
        (&["submit", "echo", "--max-runtime-sec", "soon"], "--max-runtime-sec"),
        (&["submit", "echo", "--input", "{"], "--input"),
        (&["submit", "echo", "--input", "@/no/such/file"], "--input @/no/such/file"),
        (&["submit", "echo", "--lease", "[1"], "--lease"),
        (&["completions", "no-such-shell"], "no-such-shell"),
    ] {
        let _ = run(args).await.exits(code::USAGE).complains(named);
    }
}

#[tokio::test]
async fn completions_are_printed_for_every_common_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(["completions", shell]).await.exits(code::SUCCESS).stdout;
        assert!(script.contains("leasehold") && script.contains("submit"), "{shell}: {script}");
    }
}

#[tokio::test]
async fn inspect_tells_the_authority_a_component_could_use() {
    for (agent, authority) in [
        ("hello-rust@1.0.0", &[] as &[&str]),
        ("summarize-files@1.0.0", &["fs.read"]),
        ("hostile@1.0.0", &["fs.read", "fs.write", "agent.delegate"]),
    ] {
        let path = agents_dir().join(format!("{agent}.wasm"));
        let path = path.to_str().unwrap();
        let audit = run(["inspect", path, "--json"]).await.exits(code::SUCCESS).json();
        let namespaces: Vec<&str> =
            audit["authority"].as_array().unwrap().iter().map(|entry| entry["namespace"].as_str().unwrap()).collect();
        assert!(authority.iter().all(|namespace| namespaces.contains(namespace)), "{audit}");
        assert_eq!(authority.is_empty(), namespaces.is_empty(), "{audit}");
        assert_eq!(audit["size_bytes"], fs::metadata(path).unwrap().len());
        let text = run(["inspect", path]).await.exits(code::SUCCESS).stdout;
        assert_eq!(text.contains("agents it delegates to"), authority.contains(&"agent.delegate"), "{text}");
        let digest = audit["digest"].as_str().unwrap();
        assert!(text.contains(digest), "{text}");
        assert!(authority.iter().all(|namespace| text.contains(namespace)), "{text}");
        assert_eq!(text.contains("authority  none"), authority.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn inspect_refuses_what_this_host_would_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let component = r#"(component (import "wasi:http/outgoing-handler@0.2.0" (instance)))"#;
    for (name, bytes, code, named) in [
        ("greedy.wasm", wat::parse_str(component).unwrap(), code::REFUSED, "wasi:http/outgoing-handler@0.2.0"),
        ("module.wasm", wat::parse_str("(module)").unwrap(), code::USAGE, "module.wasm"),
        ("text.wasm", b"not wasm".to_vec(), code::USAGE, "text.wasm"),
        ("empty.wasm", Vec::new(), code::USAGE, "empty.wasm"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let _ = run(["inspect".as_ref(), path.as_os_str()]).await.exits(code).complains(named);
    }
    let _ = run(["inspect", "/no/such.wasm"]).await.exits(code::USAGE).complains("/no/such.wasm");
}
