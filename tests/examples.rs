//! Every example's `session.jsonl`, replayed over WebSocket and over lines.
//!
//! With `LEASEHOLD_BLESS=1` the `expect` lines are written anew; read what
//! `git diff` says before it is committed. The examples that exist in every
//! language have a suite of their own, `languages`.

use std::fs;

use leasehold::transport::websocket::{self, WebSocketConfig};
use leasehold_tests::{
    MountMode, RawClient, TestHost, agents_dir, host,
    transcript::{Names, Transcript, blesses, go_on},
    within,
};
use serde_json::json;

/// A host with this example alone, and the folder the transcripts speak of.
async fn host_of(example: &str) -> TestHost {
    let builder = TestHost::builder().without_agents().mount("/workspace", MountMode::Ro);
    // Who delegates needs to be allowed to, and somebody to delegate to.
    let (builder, others): (_, &[&str]) = match example {
        "team" => {
            let ceiling = json!({ "fs.read": ["/**"], "agent.delegate": ["team-*"] });
            (builder.policy(host::ALICE, ceiling), &["team-reader", "team-editor"])
        }
        _ => (builder, &[]),
    };
    let host = builder.start().await;
    for agent in [&[example], others].concat() {
        let component = agents_dir().join(format!("{agent}@1.0.0.wasm"));
        host.host().registry().register_file(&component, agent, "1.0.0").expect("the example is an agent");
    }
    host::fill_workspace(&host.folder("/workspace"));
    host
}

async fn check(example: &str) {
    let transcript = Transcript::of_examples(&format!("{example}/session.jsonl"));
    let host = host_of(example).await;
    if blesses() {
        transcript.bless(&mut host.raw(), Names::default(), go_on).await;
        return;
    }
    let url = host.serve_url().await;
    let socket = within("a connection", websocket::connect(&url, &WebSocketConfig::default())).await;
    let mut client = RawClient::new(socket.expect("the host listens"));
    transcript.replay(&mut client, Names::default(), "WebSocket", go_on).await;
    // A host of its own, because a listing shows what was done before.
    let host = host_of(example).await;
    transcript.replay(&mut RawClient::new(host.connect_lines()), Names::default(), "lines", go_on).await;
}

/// One test an example, so that a failure names it.
macro_rules! examples {
    ($($test:ident: $example:literal),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                check($example).await;
            }
        )*

        const TESTED: &[&str] = &[$($example),*];
    };
}

examples! {
    chatty_does_what_its_transcript_says: "chatty",
    echo_does_what_its_transcript_says: "echo",
    sleeper_does_what_its_transcript_says: "sleeper",
    summarize_files_does_what_its_transcript_says: "summarize-files",
    team_does_what_its_transcript_says: "team",
    team_editor_does_what_its_transcript_says: "team-editor",
    team_reader_does_what_its_transcript_says: "team-reader",
}

#[test]
fn every_example_is_tested() {
    let mut agents: Vec<String> = fs::read_dir(agents_dir())
        .expect("the agents were built")
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_string_lossy().split_once('@')?.0.to_owned()))
        .filter(|name| name != "hostile" && !name.starts_with("hello-") && !name.starts_with("survey-"))
        .collect();
    agents.sort();
    assert_eq!(agents, TESTED);
}
