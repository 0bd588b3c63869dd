//! Uses everything an agent can touch, once each: files, the web, tools, models, other agents, money, and a result that
//! is streamed.
//!
//! There is a survey in every language, and all of them do the same; `examples/README.md` says what, step by step.

use std::{io::Read as _, time::Duration};

use leasehold_agent::{
    Error, ErrorCode, agent, calls, delegate,
    events::{self, artifact, progress, status},
    fs, info, job, metrics, model, net, output, thought, tool, warn,
};
use serde::Deserialize;
use serde_json::{Value, json};

const MODEL: &str = "tier-fast/small";

#[derive(Deserialize)]
struct Input {
    /// Under which the pages are that the survey fetches.
    url: Option<String>,
    /// Whether to wait for a cancellation instead.
    #[serde(default)]
    wait: bool,
}

agent!(run);

fn run(input: Input) -> Result<String, Error> {
    if input.wait {
        return wait();
    }
    let base = input.url.ok_or_else(|| Error::invalid_request("input: url: is needed"))?;
    survey_files()?;
    survey_services(&base)?;
    survey_delegation()?;
    survey_money(&base)?;
    end()
}

/// Goes on until it is asked to stop, and then ends as it likes.
fn wait() -> Result<String, Error> {
    status("waiting").emit()?;
    while !job::cancel_requested() {
        // Plain `std` sleeps; `job::sleep` would itself end with `cancelled`.
        std::thread::sleep(Duration::from_millis(20));
    }
    info!("cancellation noticed");
    Err(Error::new(ErrorCode::Cancelled, "stopped as asked"))
}

fn survey_files() -> Result<(), Error> {
    info!("survey begins");
    status("files").message("what the lease shows").emit()?;

    let names: Vec<String> = fs::list("/workspace/letters")?.into_iter().map(|entry| entry.name).collect();
    info!("letters: {}", names.join(", "));

    let notes = fs::metadata("/workspace/notes.md")?;
    info!("notes.md: {}, {} bytes", kind(notes.kind), notes.size);
    info!("notes.md: {} lines", fs::read_to_string("/workspace/notes.md")?.matches('\n').count());
    let part = fs::read_range("/workspace/notes.md", 2, 5)?;
    info!("from 2: {}", String::from_utf8_lossy(&part));

    fs::write("/outbox/survey.txt", "first\n")?;
    fs::append("/outbox/survey.txt", "second\n")?;
    let bytes = fs::read("/outbox/survey.txt")?.len();
    info!("outbox: {bytes} bytes");
    fs::create_dir("/outbox/made")?;
    fs::remove("/outbox/made")?;
    info!("made and removed");
    artifact("file:///outbox/survey.txt", "text/plain").byte_size(bytes as u64).emit()?;

    // A refusal is a value: the agent reads why, and goes on.
    warn!("denied: {}", refusal(fs::read("/private/key.txt"))?);
    info!("missing: {}", refusal(fs::read("/workspace/missing.md"))?);
    progress(1).total(4).units("steps").message("files").emit()
}

fn survey_services(base: &str) -> Result<(), Error> {
    status("services").emit()?;
    thought!("the operator offers tools and models");
    survey_tools()?;
    survey_web(base)?;
    survey_models()?;
    progress(2).total(4).units("steps").message("services").emit()
}

fn survey_tools() -> Result<(), Error> {
    let names: Vec<String> = tool::list()?.into_iter().map(|tool| tool.name).collect();
    info!("tools: {}", names.join(", "));
    let answer: Value = tool::call("upper", &json!({ "text": "lease" }))?;
    info!("upper: {}", text(&answer["text"])?);
    warn!("refused: {}", refusal(tool::call::<Value>("upper", &json!({})))?);
    Ok(())
}

fn survey_web(base: &str) -> Result<(), Error> {
    let get = |page: &str| net::request("GET", format!("{base}/{page}"));

    let page = get("page").header("x-survey", "yes").send()?;
    info!("page: {}, {}", page.status, page.text()?);
    let echo: Value = net::request("POST", format!("{base}/echo")).json(&json!({ "n": 1 }))?.send()?.json()?;
    info!("echo: {}", echo["n"]);
    // A status such as 404 is an answer, and no error.
    info!("missing page: {}", get("missing").send()?.status);

    // Two at once. The second one ends first: the first one waits until the third page was fetched.
    let (slow, fast) = (get("slow").start()?, get("fast").start()?);
    let first = calls::wait_any([&slow, &fast], None)?.ok_or_else(|| Error::internal("waited without end"))?;
    info!("first: {first}");
    info!("fast: {}", fast.finish()?.text()?);
    get("release").send()?;
    info!("slow: {}", slow.finish()?.text()?);

    let never = get("never").start()?;
    let ended = calls::wait_any([&never], Some(Duration::from_millis(20)))?;
    info!("in time: {}", if ended.is_some() { "yes" } else { "no" });
    // Who drops a call gives it up.
    drop(never);

    let mut parts = Vec::new();
    get("parts").open()?.read_to_end(&mut parts)?;
    info!("parts: {} bytes", parts.len());
    Ok(())
}

fn survey_models() -> Result<(), Error> {
    info!("models: {}", model::list()?.join(", "));
    let question = |text: &str| json!({ "messages": [{ "role": "user", "content": text }], "max_tokens": 16 });
    let answer = model::complete(MODEL, &question("say lease"))?;
    info!("model: {}", answer.text().unwrap_or_default());

    let mut stream = model::stream(MODEL, &question("say it in parts"))?;
    let mut streamed = String::new();
    while let Some(words) = stream.next_text()? {
        streamed.push_str(&words);
    }
    // What it cost is known now, and told.
    stream.finish()?;
    info!("streamed: {}", streamed.trim_end());
    Ok(())
}

fn survey_delegation() -> Result<(), Error> {
    status("delegation").emit()?;
    let echo = |from: &str| delegate::task("echo").budget("USD:0.10").input(&json!({ "from": from }));

    let result: Value = echo("survey")?.run()?;
    info!("echo: {}", text(&result["from"])?);
    let started = echo("start")?.start::<Value>()?;
    calls::wait_any([&started], None)?;
    info!("started: {}", text(&started.finish()?["from"])?);

    // Nobody can grant what its own lease does not cover, nor hand work to whom it does not name.
    warn!("refused: {}", refusal(delegate::task("echo").grant("fs.read", ["/**"]).run::<Value>())?);
    warn!("refused: {}", refusal(delegate::task("nobody").run::<Value>())?);
    progress(3).total(4).units("steps").message("delegation").emit()
}

fn survey_money(base: &str) -> Result<(), Error> {
    status("money").emit()?;
    metrics::metric("survey.steps", 3).unit("steps").dimension("kind", "done").emit()?;
    info!("held: {}", net::get(format!("{base}/hold"))?.text()?);

    metrics::cost("inference", "0.25", "USD")?;
    let left = job::budget().into_iter().find(|(currency, _)| currency == "USD").map(|(_, left)| left);
    let left: f64 = left.and_then(|left| left.parse().ok()).ok_or_else(|| Error::internal("the budget has no USD"))?;
    info!("budget: {}", if left < 0.76 { "less" } else { "more" });

    // The cost that exhausts a budget is still taken; the operation after it is refused.
    metrics::cost("inference", "5", "USD")?;
    warn!("refused: {}", refusal(fs::read("/workspace/notes.md"))?);
    Ok(())
}

/// Tells the last things, and streams the result.
fn end() -> Result<String, Error> {
    events::vendor("x-vendor.leasehold.survey", &json!({ "steps": 26 }))?;
    println!("printed");
    progress(4).total(4).units("steps").message("money").emit()?;
    for line in ["one\n", "two\n", "three\n"] {
        output::write_text(line)?;
    }
    output::finish()?;
    Ok("survey complete".to_owned())
}

/// Gives the code with which the host refused, and fails if it did not.
fn refusal<T>(outcome: Result<T, Error>) -> Result<ErrorCode, Error> {
    match outcome {
        Ok(_) => Err(Error::internal("the host should have refused")),
        Err(error) => Ok(error.code()),
    }
}

fn text(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| Error::internal(format!("{value} is no text")))
}

fn kind(kind: fs::Kind) -> &'static str {
    match kind {
        fs::Kind::File => "file",
        fs::Kind::Directory => "directory",
        fs::Kind::Other => "other",
    }
}
