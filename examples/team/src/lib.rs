//! Has one agent read and another one write, on one budget.
//!
//! The reader may read and not much else; the editor may touch nothing at all. Neither is granted what this job has not,
//! and what neither spends comes back.

use leasehold_agent::{Error, ErrorCode, agent, delegate, info, job, warn};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Input {
    path: String,
    /// How much of the budget the reader is given, such as `USD:0.03`; all of it but a little if it is not said.
    #[serde(default)]
    for_reading: Option<String>,
}

#[derive(Serialize)]
struct Output {
    report: String,
    /// What is left of each currency.
    left: Vec<(String, String)>,
}

agent!(run);

fn run(Input { path, for_reading }: Input) -> Result<Output, Error> {
    let path = path.trim_end_matches('/').to_owned();
    let mut reading = delegate::task("team-reader")
        .input(&json!({ "path": path }))?
        .grant("fs.read", [path.clone(), format!("{path}/**")]);
    if let Some(amount) = for_reading {
        reading = reading.budget(&amount);
    }
    info!("the reader looks at {path}");
    let facts: Value = match reading.run() {
        Ok(facts) => facts,
        // Half a report is better than none, and this job has money of its own left.
        Err(error) if error.code() == ErrorCode::BudgetExhausted => {
            warn!("the reader ran out of money: {error}");
            json!({ "path": path, "files": [] })
        }
        Err(error) => return Err(error),
    };
    info!("the editor writes");
    let report = delegate::task("team-editor").input(&facts)?.run()?;
    Ok(Output { report, left: job::budget() })
}
