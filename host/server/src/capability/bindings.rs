//! All contact with the bindings generated from `/wit`.

#[expect(missing_docs, reason = "generated from /wit, where the documentation is")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "agent",
        imports: { default: async },
        exports: { default: async },
        with: { "leasehold:agent/calls.pending-call": crate::capability::calls::PendingCall },
    });
}

pub use generated::{
    Agent, AgentPre,
    leasehold::agent::{calls, delegate, events, fs, job, metrics, model, net, output, tool, types},
};
