//! Agents that do what they must not, and what becomes of it.
//!
//! Each file is one idea. The guest is `guests/`, which does on demand what
//! its input names and gives the host's answers back as values. After every
//! deed a [`House`] asks the same host, in the same session, for an `echo`.

mod ambient;
mod calls;
mod cancel;
mod catalogue;
mod compiling;
mod components;
mod exhaustion;
mod forgery;
mod memory;
mod operator;
mod paths;
mod results;
mod room;
mod secrets;
mod servers;
mod smuggling;
mod ssrf;
mod web;

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use leasehold::store::{Position, Store};
use leasehold_tests::{Builder, RawClient, Run, TestHost, within};
use serde_json::{Value, json};

/// A host and one session with it, through which everything goes.
struct House {
    host: TestHost,
    session: RawClient,
}

impl House {
    async fn start(builder: Builder) -> Self {
        let host = builder.start().await;
        let session = host.session().await;
        Self { host, session }
    }

    /// Has the guest do something without a lease, and sees that the host goes on.
    async fn deed(&mut self, input: Value) -> Run {
        self.leased(json!({}), input).await
    }

    /// Has the guest do something under a lease, and sees that the host goes on.
    async fn leased(&mut self, lease: Value, input: Value) -> Run {
        let run = self.session.submit("hostile").lease(lease).input(input).run().await;
        self.echo().await;
        run
    }

    /// An ordinary job of the same session ends as it always does.
    async fn echo(&mut self) {
        let run = self.session.submit("echo").input(json!({ "still": "here" })).run().await;
        assert_eq!(run.result(), Ok(json!({ "still": "here" })), "{run:?}");
    }
}

/// How the guest reports what the host answered: `ok`, or the code of a refusal.
fn told(outcome: &Value) -> &str {
    match outcome.get("ok") {
        Some(_) => "ok",
        None => outcome["err"]["code"].as_str().unwrap_or_else(|| panic!("neither ok nor err: {outcome}")),
    }
}

/// Everything a store holds, as a text that can be searched.
async fn everything_in(store: &dyn Store) -> String {
    let mut all = String::new();
    let mut after = None;
    loop {
        let page = within("the streams", store.streams("", after.as_ref(), 256)).await.expect("the store works");
        let Some((last, _)) = page.last() else { return all };
        after = Some(last.clone());
        for (stream, _) in page {
            let mut position = Position::ZERO;
            loop {
                let records = within("records", store.read(&stream, position, 256)).await.expect("the store works");
                let Some(last) = records.last() else { break };
                position = last.position;
                for record in &records {
                    writeln!(all, "{stream}: {}", String::from_utf8_lossy(&record.bytes)).expect("a String takes all");
                }
            }
        }
    }
}

/// Fails if `text` holds `needle`, as it is or as base64.
fn assert_without(text: &str, needle: &str, whence: &str) {
    let forms = [needle.to_owned(), BASE64.encode(needle).trim_end_matches('=').to_owned()];
    for form in forms {
        if let Some(at) = text.find(&form) {
            let from = text.floor_char_boundary(at.saturating_sub(200));
            let to = text.ceil_char_boundary(at + 200);
            panic!("{whence} holds {form:?}: {}", &text[from..to]);
        }
    }
}
