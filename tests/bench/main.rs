//! What the host costs: time a decision, a call, an instance and a job; memory a session and a job.
//!
//! `cargo bench -p leasehold-tests --bench host` prints a Markdown table. The
//! host that is measured over a socket is the program itself, as a process of
//! its own, with SQLite in a fresh folder; this program is the load. `README.md`
//! beside this file says what each row is.

mod languages;
mod load;
mod memory;
mod neighbours;
mod peers;
mod pieces;
mod program;
mod restart;
mod stream;
mod tools;

use std::{
    env,
    time::{Duration, Instant},
};

/// How many processes wanted a core lately. Where others want the cores, a sync of the disk seems to take a
/// scheduler's tick (4 ms), and no row is worth much.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// One line of the table.
struct Row {
    what: String,
    figure: String,
    goal: &'static str,
}

impl Row {
    fn new(what: impl Into<String>, figure: impl Into<String>, goal: &'static str) -> Self {
        Self { what: what.into(), figure: figure.into(), goal }
    }
}

fn main() {
    // What stands on the command line besides cargo's own flag chooses parts.
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    println!("| what | measured | goal |\n|---|---|---|");
    println!("| others on this machine: load average of the last minute, before | {} | ~0 |", load_average());
    type Part = fn(&tokio::runtime::Runtime) -> Vec<Row>;
    let parts: [(&str, Part); 15] = [
        ("gate", |_| pieces::gate()),
        ("frame", |_| pieces::frame()),
        ("call", |runtime| runtime.block_on(pieces::denied_call())),
        ("sandbox", |runtime| runtime.block_on(pieces::sandbox())),
        ("languages", |runtime| runtime.block_on(languages::languages())),
        ("echo", |runtime| runtime.block_on(load::echo())),
        ("replay", |runtime| runtime.block_on(restart::played_again())),
        ("restart", |runtime| runtime.block_on(restart::restart())),
        ("stores", |runtime| runtime.block_on(restart::stores())),
        ("stream", |runtime| runtime.block_on(stream::stream())),
        ("idle", |runtime| runtime.block_on(stream::idle())),
        ("tools", |runtime| runtime.block_on(tools::tools())),
        ("memory", |runtime| runtime.block_on(memory::memory())),
        ("neighbours", |runtime| runtime.block_on(neighbours::neighbours())),
        ("peers", |runtime| runtime.block_on(peers::python())),
    ];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            for Row { what, figure, goal } in part(&runtime) {
                println!("| {what} | {figure} | {goal} |");
            }
        }
    }
}

/// Times of the same thing, sorted.
#[derive(Clone)]
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// The time that this part of all, from 0 to 1, stays within.
    fn quantile(&self, part: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a few thousand times"
        )]
        let at = ((self.0.len() - 1) as f64 * part).round() as usize;
        self.0[at]
    }

    fn figures(&self) -> String {
        format!("p50 {}, p99 {}", shown(self.quantile(0.5)), shown(self.quantile(0.99)))
    }
}

/// A time in the unit that suits it.
fn shown(time: Duration) -> String {
    let nanos = time.as_secs_f64() * 1e9;
    match nanos {
        nanos if nanos < 1e3 => format!("{nanos:.0} ns"),
        nanos if nanos < 1e6 => format!("{:.1} µs", nanos / 1e3),
        nanos if nanos < 1e9 => format!("{:.2} ms", nanos / 1e6),
        nanos => format!("{:.2} s", nanos / 1e9),
    }
}

/// The time of one call, as the best of several rounds of many.
fn each(count: u32, mut call: impl FnMut()) -> Duration {
    let round = |call: &mut dyn FnMut()| {
        let begun = Instant::now();
        for _ in 0..count {
            call();
        }
        begun.elapsed() / count
    };
    (0..7).map(|_| round(&mut call)).min().expect("seven rounds")
}
