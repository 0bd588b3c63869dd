//! What a neighbour notices of an agent that does what it must not: the times of an echo beside each attempt.
//!
//! One attempt after the other runs again and again in a session of its own, while echoes run one after the other in
//! another; before each the echoes run alone, so that what else the machine does is the same for both. Two such spells
//! alone, one after the other, say how much of a difference is chance.
//!
//! Whoever has the attempts run would be on another machine. Here it is a thread that runs when nothing else does, so that
//! what is measured is the host and not the reading of what it sends.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use leasehold_tests::{agents_dir, hostile};
use rustix::process::setpriority_process;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    Row, Times,
    load::Bare,
    pieces,
    program::{Program, TOKEN},
    shown,
};

/// Echoes beside one attempt, and how long they may take together.
const ECHOES: usize = 1000;
const SPELL_MAX: Duration = Duration::from_secs(4);

/// The goal: a neighbour's p99 worsens by less than this.
const WORSE_PERCENT_MAX: f64 = 20.0;

/// How many of the worst are shown.
const SHOWN: usize = 12;

/// The host has nothing to do if it had less of the cores than this for so long.
const IDLE_TICKS_MAX: u64 = 2;
const IDLE_FOR: Duration = Duration::from_millis(200);

/// Of what runs when nothing else does.
const NICE_MAX: i32 = 19;

/// Of agents that compute for long.
const NICE_OF_AGENTS: i32 = 10;

/// Echoes without and with something beside them.
struct Beside {
    name: String,
    alone: Times,
    beside: Times,
}

impl Beside {
    fn ratio(&self) -> f64 {
        self.beside.quantile(0.99).as_secs_f64() / self.alone.quantile(0.99).as_secs_f64()
    }

    fn is_within(&self) -> bool {
        (self.ratio() - 1.0) * 100.0 < WORSE_PERCENT_MAX
    }
}

/// The part `neighbours`. `LEASEHOLD_BENCH_ATTEMPTS` chooses attempts by parts of their names, with commas between them.
pub async fn neighbours() -> Vec<Row> {
    let dir = tempfile::tempdir().expect("a folder");
    // The first start compiles.
    drop(Program::leasehold(agents_dir(), &dir.path().join("host")));
    let program = Program::leasehold(agents_dir(), &dir.path().join("host"));
    let mut bare = Bare::connect(&program.url, TOKEN).await;
    let mut before = echoes(&mut bare).await;
    let (mut chance, mut measured) = (Vec::new(), Vec::new());
    let wanted = env::var("LEASEHOLD_BENCH_ATTEMPTS").unwrap_or_default();
    let attempts = hostile::attempts().into_iter();
    for attempt in attempts.filter(|attempt| wanted.split(',').any(|wanted| attempt.name.contains(wanted))) {
        rest(&program).await;
        let alone = echoes(&mut bare).await;
        chance.push(Beside { name: String::new(), alone: before, beside: alone.clone() });
        before = alone.clone();
        let (name, stop) = (attempt.name.clone(), CancellationToken::new());
        let hostile = try_again_and_again(program.url.clone(), attempt, stop.clone());
        // It has begun by then, whatever it is.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let beside = echoes(&mut bare).await;
        stop.cancel();
        hostile.join().unwrap_or_else(|_| panic!("{name}: the load itself failed"));
        measured.push(Beside { name, alone, beside });
    }
    measured.sort_by(|a, b| b.ratio().total_cmp(&a.ratio()));
    let count = |of: &[Beside]| format!("{} of {}", of.iter().filter(|beside| beside.is_within()).count(), of.len());
    let median = |times: &dyn Fn(&Beside) -> Duration| {
        let mut all: Vec<_> = measured.iter().map(times).collect();
        all.sort();
        shown(all[all.len() / 2])
    };
    let mut rows = vec![
        pieces::disk("this disk: fdatasync of 4 KiB appended"),
        busy(|| pieces::disk("the same with a thread on each processor that computes at nice 10, and no host")),
        Row::new("attempts beside which an echo's p99 worsens by less than 20 %", count(&measured), "all"),
        Row::new("the same of spells alone, each beside the one before it", count(&chance), ""),
        Row::new("echo alone: the median of its p99s", median(&|of| of.alone.quantile(0.99)), ""),
        Row::new("echo beside an attempt: the median of its p99s", median(&|of| of.beside.quantile(0.99)), ""),
        Row::new(
            "the most memory the host had at once in all of this",
            format!("{} MiB", program.peak_bytes() >> 20),
            "",
        ),
    ];
    for worst in measured.iter().take(SHOWN) {
        let (ratio, name) = (worst.ratio(), &worst.name);
        let figure = format!("x {ratio:.2} ({}, alone {}): {name}", worst.beside.figures(), worst.alone.figures());
        rows.push(Row::new("echo beside one of the worst", figure, "x 1.20"));
    }
    rows
}

async fn echoes(bare: &mut Bare) -> Times {
    let (mut times, begun) = (Vec::with_capacity(ECHOES), Instant::now());
    while times.len() < ECHOES && begun.elapsed() < SPELL_MAX {
        times.push(bare.echo().await);
    }
    Times::new(times)
}

/// Does something while each processor has a thread of low priority that computes: what becomes of it is the machine's own.
fn busy<T>(measure: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) {
            scope.spawn(|| {
                setpriority_process(None, NICE_OF_AGENTS).expect("a thread may be nicer");
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let measured = measure();
        stop.store(true, Ordering::Relaxed);
        measured
    })
}

/// Returns once the host has nothing to do any more.
async fn rest(program: &Program) {
    loop {
        let before = program.ticks();
        tokio::time::sleep(IDLE_FOR).await;
        if program.ticks() - before < IDLE_TICKS_MAX {
            return;
        }
    }
}

/// Runs an attempt, and again as soon as it is over, until it is to stop.
fn try_again_and_again(url: String, attempt: hostile::Attempt, stop: CancellationToken) -> JoinHandle<()> {
    thread::spawn(move || {
        setpriority_process(None, NICE_MAX).expect("a thread may be nicer");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let payload = json!({
            "agent": "hostile",
            "input": attempt.input,
            "lease_request": attempt.lease,
            "max_runtime_sec": hostile::RUNTIME_SEC_MAX,
        });
        let payload = payload.to_string();
        runtime.block_on(stop.run_until_cancelled(async {
            let mut bare = Bare::connect(&url, TOKEN).await;
            loop {
                bare.feed_payload(&payload).await;
                bare.flush().await;
                bare.wait_for_end().await;
            }
        }));
    })
}
