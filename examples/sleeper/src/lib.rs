//! Sleeps, for those who test waiting, cancelling and time limits.

use std::time::Duration;

use leasehold_agent::{Error, agent, job};
use serde::{Deserialize, Serialize};
use serde_json::Number;

#[derive(Deserialize)]
struct Input {
    sec: Number,
}

#[derive(Serialize)]
struct Output {
    slept: Number,
}

agent!(run);

fn run(Input { sec }: Input) -> Result<Output, Error> {
    job::sleep(duration(&sec)?)?;
    Ok(Output { slept: sec })
}

fn duration(sec: &Number) -> Result<Duration, Error> {
    let duration = sec.as_f64().and_then(|sec| Duration::try_from_secs_f64(sec).ok());
    duration.ok_or_else(|| Error::invalid_request(format!("sec: nobody can sleep for {sec} seconds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_of_seconds_that_can_pass() {
        for (sec, expected) in [
            ("2", Some(Duration::from_secs(2))),
            ("0.05", Some(Duration::from_millis(50))),
            ("0", Some(Duration::ZERO)),
            ("-1", None),
            ("1e300", None),
        ] {
            let number = serde_json::from_str(sec).unwrap();
            assert_eq!(duration(&number).ok(), expected, "{sec}");
        }
    }
}
