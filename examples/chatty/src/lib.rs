//! Emits as many events as it is told to, for those who test streams.

use std::time::Duration;

use leasehold_agent::{Error, agent, info, job};
use serde::{Deserialize, Serialize};

/// How many events may follow a cancellation when there is no delay between them.
const EVENTS_BETWEEN_CHECKS: u64 = 256;

#[derive(Deserialize)]
struct Input {
    count: u64,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    start_delay_ms: u64,
}

#[derive(Serialize)]
struct Output {
    count: u64,
}

agent!(run);

fn run(Input { count, delay_ms, start_delay_ms }: Input) -> Result<Output, Error> {
    job::sleep(Duration::from_millis(start_delay_ms))?;
    for n in 1..=count {
        info!("event {n}");
        if n < count {
            job::sleep(Duration::from_millis(delay_ms))?;
        }
        if n % EVENTS_BETWEEN_CHECKS == 0 {
            job::check_cancelled()?;
        }
    }
    Ok(Output { count })
}
