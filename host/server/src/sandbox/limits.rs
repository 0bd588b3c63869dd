//! What one agent may use, and how many agents this machine can hold.

use std::{sync::LazyLock, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Everything a guest sizes, bounded. Each is a key of `[limits]` in `leasehold.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// All linear memory of one agent together. An allocation beyond it fails inside the agent.
    pub memory_bytes_max: usize,
    /// All linear memory of all agents together, and what their calls under way keep; 0 means three quarters of the machine's.
    pub memory_total_bytes_max: usize,
    /// Elements of one table.
    pub table_elements_max: usize,
    /// Core instances in one component; CPython needs 14.
    pub instances_max: usize,
    /// The wasm stack of one agent, of which what it touched takes memory. Deeper recursion ends the job.
    pub stack_bytes_max: usize,
    /// Bytes an agent may hand to the host in one call; a call over it ends the job.
    pub call_bytes_max: usize,
    /// Host objects (streams, pollables) one agent may hold.
    pub handles_max: usize,
    /// Calls of one agent under way at once.
    pub calls_max: usize,
    /// What these keep together of what the agent handed over.
    pub calls_bytes_max: usize,
    /// Of them, calls of models that are made at once; the others wait for their turn.
    pub model_calls_max: usize,
    /// How many jobs may stand above one that an agent delegated (ARCP §10); 0: no agent delegates.
    pub delegate_depth_max: u32,
    /// The part of a budget that a child is not given unless its parent names an amount: what is left for a report.
    pub delegate_reserve_percent: u32,
    /// Bytes of randomness in one call; WASI has no way to refuse more, so that ends the job.
    pub random_bytes_max: u64,

    /// The largest file, or part of one, that is read or written in one call.
    pub file_bytes_max: usize,
    /// The most entries of a directory that is listed.
    pub directory_entries_max: usize,

    /// Where the text of an event is cut.
    pub text_bytes_max: usize,
    /// The largest result that travels in one message.
    pub result_bytes_max: usize,
    /// One chunk of a streamed result, as it stands in the frame. The default suits the smallest client.
    pub chunk_bytes_max: usize,
    /// A whole streamed result.
    pub stream_bytes_max: u64,
    /// Lines a second that an agent may print before some are dropped.
    pub output_lines_per_sec: u32,
    /// All records of one job's journal together.
    pub journal_bytes_max: u64,
    /// Journal records of one job that wait for the disk before the agent waits too.
    pub journal_waiting_bytes_max: usize,

    /// How long a job runs whose client did not say.
    pub runtime_sec_default: u32,
    /// The longest a client may ask for.
    pub runtime_sec_max: u32,
    /// How long an agent has to unwind once its job is cancelled or its lease has ended.
    pub grace_sec: u32,
    /// How long an agent that waits stays in memory; it is run again when it has waited. 0: for ever.
    pub idle_sec: u32,
    /// How often a host may stop in a row while it takes a job up again, before the job is given up.
    pub replays_max: u32,
    /// File operations under way at once, of all jobs.
    pub effects_max: usize,
    /// Jobs running at once; 0 means as many as the kernel allows.
    pub live_agents_max: usize,
    /// Of them, of one principal.
    pub principal_jobs_max: usize,
    /// Jobs a second that one principal may submit, and so many at once after a pause.
    pub principal_submissions_per_sec: u32,
    /// The largest component that is looked at.
    pub component_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 256 << 20,
            memory_total_bytes_max: 0,
            table_elements_max: 100_000,
            instances_max: 64,
            // QuickJS takes 750 bytes of it for a call of a function.
            stack_bytes_max: 2 << 20,
            call_bytes_max: 32 << 20,
            handles_max: 4096,
            calls_max: 128,
            calls_bytes_max: 32 << 20,
            model_calls_max: 16,
            delegate_depth_max: 8,
            delegate_reserve_percent: 1,
            random_bytes_max: 1 << 20,
            file_bytes_max: 16 << 20,
            directory_entries_max: 65_536,
            text_bytes_max: 16 << 10,
            result_bytes_max: 768 << 10,
            chunk_bytes_max: 32 << 10,
            stream_bytes_max: 256 << 20,
            output_lines_per_sec: 100,
            journal_bytes_max: 1 << 30,
            journal_waiting_bytes_max: 4 << 20,
            runtime_sec_default: 3600,
            runtime_sec_max: 86_400,
            grace_sec: 5,
            idle_sec: 30,
            replays_max: 3,
            effects_max: 64,
            live_agents_max: 0,
            principal_jobs_max: 1000,
            principal_submissions_per_sec: 20_000,
            component_bytes_max: 64 << 20,
        }
    }
}

/// The largest chunk there is (ARCP §8.4).
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The largest frame that the client takes which takes least, without what stands around a payload.
const PAYLOAD_BYTES_MAX: usize = (1 << 20) - (4 << 10);

/// The most bytes that JSON makes of one.
const ESCAPED_BYTES: usize = 6;

impl Limits {
    /// Why these limits cannot work, by the name of the first that cannot.
    ///
    /// What is merely small does work: an agent or a client is told that it wants too much.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let frame = "more would not fit into one message of the client that takes the smallest";
        let most = [
            ("chunk_bytes_max", self.chunk_bytes_max, CHUNK_BYTES_MAX, "the largest chunk there is (ARCP §8.4)"),
            ("result_bytes_max", self.result_bytes_max, PAYLOAD_BYTES_MAX, frame),
            ("text_bytes_max", self.text_bytes_max, PAYLOAD_BYTES_MAX / ESCAPED_BYTES, frame),
        ];
        let most = most.into_iter().find(|(_, is, most, _)| is > most);
        let over = most.map(|(key, is, most, why)| format!("limits.{key} is {is}, and may be {most} at most: {why}"));
        let least = [
            ("model_calls_max", self.model_calls_max == 0),
            ("principal_jobs_max", self.principal_jobs_max == 0),
            ("principal_submissions_per_sec", self.principal_submissions_per_sec == 0),
            ("component_bytes_max", self.component_bytes_max == 0),
        ];
        let none = least.into_iter().find(|(_, is_none)| *is_none);
        over.or(none.map(|(key, _)| format!("limits.{key} is 0, which no job is within; it must be 1 at least")))
    }

    /// All memory of all agents together, see [`memory_total_bytes_max`](Self::memory_total_bytes_max).
    #[must_use]
    pub fn memory_total(&self) -> usize {
        static OF_MACHINE: LazyLock<usize> = LazyLock::new(|| {
            let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
            let kilobytes = total.and_then(|total| total.trim().trim_end_matches(" kB").parse::<usize>().ok());
            // A machine that does not say has at least this.
            kilobytes.map_or(1 << 30, |kilobytes| kilobytes.saturating_mul(1024) / 4 * 3)
        });
        if self.memory_total_bytes_max == 0 { *OF_MACHINE } else { self.memory_total_bytes_max }
    }

    /// The first of the limits the engine itself keeps that is larger here than in `other`, with both values.
    #[must_use]
    pub fn exceeds(&self, other: &Self) -> Option<(&'static str, usize, usize)> {
        let kept = [
            ("memory_bytes_max", self.memory_bytes_max, other.memory_bytes_max),
            ("table_elements_max", self.table_elements_max, other.table_elements_max),
            ("instances_max", self.instances_max, other.instances_max),
            ("stack_bytes_max", self.stack_bytes_max, other.stack_bytes_max),
        ];
        kept.into_iter().find(|(_, mine, others)| mine > others)
    }

    /// A name that is equal for equal limits.
    #[must_use]
    pub fn digest(&self) -> String {
        let text = serde_json::to_string(self).expect("limits are numbers");
        format!("{:x}", Sha256::digest(text))[..16].to_owned()
    }

    /// [`grace_sec`](Self::grace_sec) as a duration.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_sec.into())
    }
}

/// The memory maps one agent takes: its memory with guards, its stack with a guard, its tables. 6.8 were counted.
const MAPS_PER_AGENT: usize = 7;

/// Address space one agent takes: two memories of 4 GiB and their guards.
///
/// Most agents have one memory; a JavaScript agent has two.
const ADDRESS_SPACE_PER_AGENT: usize = 9 << 30;

/// What is left for a host's own threads, files and libraries.
const MAPS_RESERVED: usize = 4096;

/// How many agents the kernel lets this process hold at once.
///
/// What gives out first is `vm.max_map_count`, then the address space: beyond
/// either one `mmap` fails in the middle of a start. So it is computed once,
/// and the next job is refused instead.
#[must_use]
pub fn live_agents(configured: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65_530_usize);
    agents_in(maps, configured)
}

fn agents_in(maps: usize, configured: usize) -> usize {
    let by_maps = maps.saturating_sub(MAPS_RESERVED) / MAPS_PER_AGENT;
    // Three quarters of the 128 TiB a process has.
    let by_address_space = (96_usize << 40) / ADDRESS_SPACE_PER_AGENT;
    let possible = by_maps.min(by_address_space).max(1);
    if configured == 0 { possible } else { possible.min(configured) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_cannot_work_is_named() {
        let of = |change: fn(&mut Limits)| {
            let mut limits = Limits::default();
            change(&mut limits);
            limits.problem().unwrap_or_default()
        };
        assert_eq!(of(|_| ()), "");
        for (problem, key) in [
            (of(|limits| limits.chunk_bytes_max = (1 << 20) + 1), "limits.chunk_bytes_max is 1048577"),
            (of(|limits| limits.result_bytes_max = 1 << 20), "limits.result_bytes_max is 1048576"),
            (of(|limits| limits.text_bytes_max = 1 << 20), "limits.text_bytes_max is 1048576"),
            (of(|limits| limits.principal_jobs_max = 0), "limits.principal_jobs_max is 0"),
        ] {
            assert!(problem.starts_with(key), "{problem}");
        }
        assert_eq!(of(|limits| limits.chunk_bytes_max = 1 << 20), "", "as much as there is");
    }

    #[test]
    fn the_kernel_bounds_how_many_agents_live_at_once() {
        for (maps, configured, expected) in [
            (65_530, 0, 8_776),      // what Linux allows by default
            (65_530, 100, 100),      // the operator may allow fewer
            (65_530, 50_000, 8_776), // but not more
            (1_048_576, 0, 10_922),  // with more maps it is the address space
            (0, 0, 1),
        ] {
            assert_eq!(agents_in(maps, configured), expected, "{maps} maps, {configured} configured");
        }
    }
}
