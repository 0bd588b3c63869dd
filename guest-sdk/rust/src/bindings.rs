//! What `wit-bindgen` makes of `/wit`, unvarnished.
//!
//! The rest of the crate is the way to use it. It is reachable for agents that
//! must say something the comfortable modules cannot, such as a wrong thing.

wit_bindgen::generate!({
    path: "../../wit",
    world: "agent",
    pub_export_macro: true,
    default_bindings_module: "leasehold_agent::bindings",
});

pub use leasehold::agent::{calls, delegate, events, fs, job, metrics, model, net, output, tool, types};
