//! Returns its input, byte for byte: what a job costs when its agent costs nothing.

use leasehold_agent::{Error, agent};

agent!(raw: run);

fn run(input: String) -> Result<String, Error> {
    Ok(input)
}
