//! One run of one agent.

use wasmtime::{Store, Trap, component::ResourceTableError};
use wasmtime_wasi::I32Exit;

use super::engine::Sandbox;
use crate::{
    capability::{
        JobCtx,
        bindings::{AgentPre, types},
    },
    sandbox::limits::Limits,
};

/// Builds the Store of one job, with every limit set. There is no other place that builds one.
pub fn store(sandbox: &Sandbox, limits: &Limits, job: JobCtx) -> Store<JobCtx> {
    let mut store = Store::new(sandbox.engine(), job);
    store.limiter(|job| job.memory());
    // At every tick a busy agent yields; how long it may run is the runner's business.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store.set_hostcall_fuel(limits.call_bytes_max);
    store.set_max_component_handles(limits.handles_max);
    store
}

/// What an agent's `run` came to.
#[derive(Debug)]
pub enum Ran {
    /// It returned.
    Returned(Result<String, types::Error>),
    /// It could not go on; the text says why, without anything of the host in it.
    Crashed(String),
}

/// Instantiates the agent and calls its `run`. Dropping the future ends the agent.
pub async fn run(store: &mut Store<JobCtx>, agent: &AgentPre<JobCtx>, input: &str) -> Ran {
    let outcome = match agent.instantiate_async(&mut *store).await {
        Ok(instance) => instance.call_run(&mut *store, &input.to_owned()).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(returned) => Ran::Returned(returned),
        Err(error) => Ran::Crashed(explain(&error)),
    }
}

/// Says why an agent crashed, in words for its author.
fn explain(error: &wasmtime::Error) -> String {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return format!("the agent exited with code {} instead of returning", exit.0);
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        let what = match trap {
            Trap::StackOverflow => "its call stack is exhausted (recursion too deep)",
            Trap::UnreachableCodeReached => {
                "it reached `unreachable`: a panic, an abort, or an allocation that failed at the memory limit"
            }
            Trap::MemoryOutOfBounds => "it accessed memory out of bounds",
            Trap::TableOutOfBounds => "it accessed a table out of bounds",
            Trap::IntegerDivisionByZero => "it divided by zero",
            Trap::IntegerOverflow => "an integer overflowed",
            Trap::BadConversionToInteger => "it converted a number that does not fit",
            Trap::IndirectCallToNull | Trap::BadSignature => "it called a function that is not there",
            other => return format!("the agent trapped: {other}"),
        };
        return format!("the agent trapped: {what}");
    }
    if error.downcast_ref::<ResourceTableError>().is_some() {
        return "the agent holds more handles than it may".to_owned();
    }
    let cause = error.root_cause().to_string();
    if cause.contains("fuel allocated for hostcalls") {
        return "the agent handed the host more bytes in one call than it may (`limits.call_bytes_max`)".to_owned();
    }
    format!("the agent could not run: {cause}")
}
