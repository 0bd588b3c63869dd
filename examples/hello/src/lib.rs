//! Greets: the smallest agent that has an input, an event and a result.

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
    let name = input.and_then(|input| input.name);
    let greeting = format!("Hello, {}!", name.as_deref().unwrap_or("world"));
    info!("{greeting}");
    Ok(Output { greeting })
}
