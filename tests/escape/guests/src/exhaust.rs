//! Takes all there is: time, memory, stack, the terminal.

use std::{
    hint::black_box,
    io::{self, Write},
};

use leasehold_agent::Error;
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;

/// Computes for ever.
pub fn spin() -> ! {
    loop {
        work();
    }
}

/// Computes for a moment, in a way no optimiser removes.
pub fn work() {
    for n in 0..100_000_u32 {
        black_box(n);
    }
}

/// Takes memory and touches each page of it.
pub fn allocate(mib: Option<u64>) -> Result<Value, Error> {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    while mib.is_none_or(|mib| (taken.len() as u64) < mib) {
        let mut block = Vec::new();
        // With a goal it stops at the refusal, without one it dies of it.
        if mib.is_some() && block.try_reserve_exact(MIB).is_err() {
            break;
        }
        block.resize(MIB, 1);
        taken.push(black_box(block));
    }
    Ok(json!({"mib": taken.len()}))
}

/// Calls itself, with a frame that cannot be optimised away.
pub fn recurse(depth: Option<u64>) -> Result<Value, Error> {
    fn descend(left: u64) -> u64 {
        if black_box(left) == 0 { 0 } else { 1 + black_box(descend(left - 1)) }
    }
    Ok(json!({"depth": descend(depth.unwrap_or(u64::MAX))}))
}

/// Prints, as fast as it can.
pub fn flood(lines: u64, stderr: bool) -> Result<Value, Error> {
    let mut to: Box<dyn Write> = if stderr { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    for n in 0..lines {
        writeln!(to, "line {n}: all work and no play makes the host a dull one")?;
    }
    to.flush()?;
    Ok(json!({"lines": lines}))
}

/// Makes a text of `bytes`, or of the largest half, quarter, … that fits into the memory.
pub fn text(bytes: usize) -> String {
    let mut text = String::new();
    let mut size = bytes;
    while text.try_reserve_exact(size).is_err() {
        size /= 2;
    }
    text.extend(std::iter::repeat_n('x', size));
    text
}
