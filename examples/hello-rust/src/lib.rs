//! Greets: the smallest agent that has an input, an event, an error and a result.

use leasehold_agent::{Error, agent, info};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    name: Option<String>,
}

#[derive(Serialize)]
struct Output {
    greeting: String,
}

agent!(run);

fn run(input: Option<Input>) -> Result<Output, Error> {
    let name = input.and_then(|input| input.name).unwrap_or_else(|| "world".to_owned());
    if name.is_empty() {
        return Err(Error::invalid_request("input: name: must not be empty"));
    }
    let greeting = format!("Hello, {name}!");
    info!("{greeting}");
    Ok(Output { greeting })
}
