//! The one engine of a process.

use std::{
    hash::{self, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, component::Linker};

use super::{inert_wasi, limits::Limits, pace::SlowLane};
use crate::capability::{self, JobCtx};

/// How often a busy agent gives its thread away.
const TICK: Duration = Duration::from_millis(10);

/// How much of each memory, table and stack that an agent leaves stays with the process for the next agent, and of how
/// many agents.
const KEPT_BYTES: usize = 128 << 10;
const KEPT_SLOTS: u32 = 64;

/// An engine, everything an agent can be linked to, the thread that counts time for it, and those for long computing.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<JobCtx>,
    lane: SlowLane,
    ticking: Arc<AtomicBool>,
}

impl Sandbox {
    /// Builds the engine for at most `live_agents` agents at once.
    ///
    /// # Errors
    ///
    /// If the machine cannot reserve the address space.
    pub fn new(limits: &Limits, live_agents: usize) -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(limits, live_agents))?;
        let mut linker = Linker::new(&engine);
        inert_wasi::add_to_linker(&mut linker)?;
        capability::add_to_linker(&mut linker)?;
        let ticking = Arc::new(AtomicBool::new(true));
        let (weak, go_on) = (engine.weak(), Arc::clone(&ticking));
        thread::Builder::new().name("epoch".into()).spawn(move || {
            while go_on.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                let Some(engine) = weak.upgrade() else { return };
                engine.increment_epoch();
            }
        })?;
        Ok(Self { engine, linker, lane: SlowLane::new()?, ticking })
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Everything an agent can be linked to.
    #[must_use]
    pub fn linker(&self) -> &Linker<JobCtx> {
        &self.linker
    }

    /// Where agents compute for long.
    #[must_use]
    pub fn lane(&self) -> &SlowLane {
        &self.lane
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.ticking.store(false, Ordering::Relaxed);
    }
}

/// The settings that decide what code an agent may consist of and what it is compiled to.
///
/// The features are those of [`crate::agents::audit::features`], said again in
/// the engine's words; a component that needs more is refused by the audit.
fn code() -> Config {
    let mut config = Config::new();
    config
        // A busy loop gives its thread away at every tick, and the runner ends it when its time is up.
        .epoch_interruption(true)
        // The contract has plain functions only, and most of a year's advisories were in this code.
        .concurrency_support(false)
        // A replay must compute what the first run computed.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .gc_support(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .wasm_memory64(false);
    config
}

/// An engine that compiles for every engine of this build, and reserves nothing to run anything in.
///
/// # Errors
///
/// If this processor is not one that can be compiled for.
pub fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&code())
}

/// A text that is the same for engines that can run each other's compiled components.
#[must_use]
pub fn compatibility(engine: &Engine) -> String {
    // Not for ever the same, only for the same build. What the audit made of a component belongs to the version, too.
    let mut hasher = hash::DefaultHasher::new();
    (engine.precompile_compatibility_hash(), env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// How agents are run, of which compiled code knows nothing.
fn config(limits: &Limits, live_agents: usize) -> Config {
    let mut config = code();
    config
        .max_wasm_stack(limits.stack_bytes_max)
        // Host functions run on what the guest leaves over of its fiber's stack.
        .async_stack_size(limits.stack_bytes_max + (1536 << 10));
    let count = |per_agent: usize| u32::try_from(live_agents * per_agent).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(count(1))
        // Each agent's own most, so that one that takes it takes nothing from the others.
        .total_core_instances(count(limits.instances_max))
        .total_memories(count(2))
        .total_tables(count(16))
        .total_stacks(count(1))
        .total_gc_heaps(0)
        .max_memory_size(limits.memory_bytes_max)
        .table_elements(limits.table_elements_max)
        .max_core_instances_per_component(u32::try_from(limits.instances_max).unwrap_or(u32::MAX))
        .max_memories_per_component(2)
        .max_tables_per_component(16)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(1 << 20)
        // What an agent touched is written over for the next, which costs less than to give it back to the kernel:
        // that stops every core.
        .linear_memory_keep_resident(KEPT_BYTES)
        .table_keep_resident(KEPT_BYTES)
        .async_stack_keep_resident(KEPT_BYTES)
        .pagemap_scan(Enabled::Auto)
        .max_unused_warm_slots(KEPT_SLOTS);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}
