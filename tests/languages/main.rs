//! Agents in every language: `hello-*` and `survey-*` do the same to the letter, also when their host is killed; and
//! the SDKs pass their own tests.
//!
//! What a language needs is installed from PyPI and npm into the target folder, once. Without it, its tests are skipped
//! and say so; in CI they fail.

mod bindings;
mod examples;
mod sdks;
mod services;
mod toolchains;

use std::{fs, ops::ControlFlow};

use leasehold::transport::websocket::{self, WebSocketConfig};
use leasehold_tests::{
    RawClient, TestHost,
    host::{ALICE, token},
    program::{self, Serve, Served},
    raw::hello,
    transcript::{Names, Transcript, blesses, go_on},
    within,
};
use serde_json::{Value, json};

use crate::{
    examples::{Example, Language},
    services::Services,
};

/// A host with one agent, and `echo` beside it if it is to be delegated to.
async fn host_of(example: &Example, services: Option<&Services>) -> TestHost {
    let builder = TestHost::builder().without_agents();
    let builder = builder.config(|config| {
        example.data.clone_into(&mut config.server.data);
        if let Some(services) = services {
            services.settle(config);
        }
    });
    let host = builder.start().await;
    example.register(&host);
    if services.is_some() {
        Example::echo().register(&host);
    }
    host
}

async fn connect(url: &str) -> RawClient {
    let socket = within("a connection", websocket::connect(url, &WebSocketConfig::default())).await;
    RawClient::new(socket.expect("the host listens"))
}

/// Writes a transcript anew, which the agent in Rust does for all.
async fn bless(transcript: &Transcript, example: &Example, services: Option<&Services>) {
    let names = names(example, services);
    let host = host_of(example, services).await;
    let seen = |frame: &Value| services.map_or(ControlFlow::Continue(()), |services| services.seen(frame));
    transcript.bless(&mut host.raw(), names, seen).await;
}

fn names(example: &Example, services: Option<&Services>) -> Names {
    let base = services.map(Services::url);
    let base = base.as_deref().map(|base| ("<base>", base));
    Names::with(&[Some(("<agent>", example.agent.as_str())), base].into_iter().flatten().collect::<Vec<_>>())
}

async fn hello_does_what_its_transcript_says(language: Language) {
    let Some(example) = Example::ready("hello", language).await else { return };
    let transcript = Transcript::of_examples("hello.jsonl");
    if blesses() && language == Language::Rust {
        return bless(&transcript, &example, None).await;
    }
    says_hello(&transcript, &example).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello_does_what_its_transcript_says_in_the_other_engine_of_typescript() {
    let Some(example) = Example::on_starlingmonkey().await else { return };
    says_hello(&Transcript::of_examples("hello.jsonl"), &example).await;
}

async fn says_hello(transcript: &Transcript, example: &Example) {
    let host = host_of(example, None).await;
    let mut client = connect(&host.serve_url().await).await;
    transcript.replay(&mut client, names(example, None), "WebSocket", go_on).await;
    let host = host_of(example, None).await;
    transcript.replay(&mut RawClient::new(host.connect_lines()), names(example, None), "lines", go_on).await;
}

async fn survey_does_what_its_transcript_says(language: Language) {
    let Some(example) = Example::ready("survey", language).await else { return };
    let transcript = Transcript::of_examples("survey.jsonl");
    if blesses() && language == Language::Rust {
        let services = Services::start().await;
        services.release();
        return bless(&transcript, &example, Some(&services)).await;
    }
    for wire in ["WebSocket", "lines"] {
        let services = Services::start().await;
        services.release();
        let host = host_of(&example, Some(&services)).await;
        let mut client = match wire {
            "lines" => RawClient::new(host.connect_lines()),
            _ => connect(&host.serve_url().await).await,
        };
        let names = names(&example, Some(&services));
        transcript.replay(&mut client, names, wire, |frame| services.seen(frame)).await;
        services.assert_effects(1);
    }
}

/// The host is killed while the survey waits for a page. The next one goes on with the job, and its client has the
/// events of the transcript, each once.
async fn survey_outlives_its_host(language: Language) {
    let Some(example) = Example::ready("survey", language).await else { return };
    let transcript = Transcript::of_examples("survey.jsonl");
    let services = Services::start().await;
    let place = example.place_for_a_host(&services.settings());
    let serve = async || -> Serve {
        let serve = Serve::on(&place.path().join("data")).await.agents(&place.path().join("agents"));
        serve.args(["--config".into(), place.path().join("leasehold.toml")])
    };

    let host = serve().await.start().await;
    let mut client = connect(&host.url).await;
    let mut player = transcript.player(names(&example, Some(&services)), "a connection to a host that is killed");
    let page = "<base>/hold";
    let mut asked = false;
    let until_it_waits = |frame: &Value| {
        asked = frame.pointer("/payload/body/args/url").is_some_and(|url| url == page);
        if asked { ControlFlow::Break(()) } else { services.seen(frame) }
    };
    player.play(&mut client, until_it_waits).await;
    assert!(asked, "the transcript has no call for {page}");
    // Killed while the request is at the server, so that nobody knows what comes of it.
    services.holds().await;
    let last_seq = client.last_seq();
    let _ = host.kill().await;
    services.release();

    let host = serve().await.start().await;
    let mut client = connect_again(&host, &player.names, last_seq).await;
    let until_its_end = |frame: &Value| {
        if frame["type"] == "job.result" { ControlFlow::Break(()) } else { services.seen(frame) }
    };
    player.play(&mut client, until_its_end).await;
    // The page was asked for once more, since nobody had its answer.
    services.assert_effects(2);
    let _ = host.terminate().await.exits(0);

    let (job, data) = (player.names.real("<job>"), place.path().join("data"));
    let settings = place.path().join("leasehold.toml");
    let (data, settings) = (data.to_str().expect("UTF-8"), settings.to_str().expect("UTF-8"));
    let again = program::run(["replay", job, "--data", data, "--config", settings, "--json"]).await.exits(0).json();
    assert_eq!(again["identical"], true, "{again}");
}

/// The same session on a connection to another host (ARCP §6.3).
async fn connect_again(host: &Served, names: &Names, last_seq: u64) -> RawClient {
    let socket = within("a connection", websocket::connect(&host.url, &WebSocketConfig::default())).await;
    let mut client = RawClient::standing_at(socket.expect("the host listens"), last_seq);
    let mut hello = hello(&token(ALICE));
    hello["resume"] = json!({
        "session_id": names.real("<session>"),
        "resume_token": names.real("<resume-token>"),
        "last_event_seq": last_seq,
    });
    let welcome = client.open_with(hello).await;
    assert!(welcome.get("resume_token").is_some(), "{welcome}");
    client
}

/// One module a language, so that a failure names it.
macro_rules! languages {
    ($($module:ident: $language:ident),* $(,)?) => {
        $(
            mod $module {
                use crate::examples::Language::$language;

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn hello_does_what_its_transcript_says() {
                    super::hello_does_what_its_transcript_says($language).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn survey_does_what_its_transcript_says() {
                    super::survey_does_what_its_transcript_says($language).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn survey_outlives_its_host() {
                    super::survey_outlives_its_host($language).await;
                }
            }
        )*

        const LANGUAGES: &[Language] = &[$(Language::$language),*];
    };
}

languages! {
    rust: Rust,
    python: Python,
    typescript: TypeScript,
    go: Go,
    c: C,
}

#[test]
fn every_language_has_both_examples_and_every_example_is_of_a_language() {
    let mut expected: Vec<String> = LANGUAGES
        .iter()
        .flat_map(|language| ["hello", "survey"].map(|kind| format!("{kind}-{}", language.name())))
        .collect();
    expected.sort();
    let mut found: Vec<String> = fs::read_dir(examples::root().join("examples"))
        .expect("there are examples")
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("hello-") || name.starts_with("survey-"))
        .collect();
    found.sort();
    assert_eq!(found, expected);
}
