//! From a core module to a component of the contract.
//!
//! Compilers for WASI preview 1 make core modules. The world is embedded in
//! such a module from `wit/`, its calls of preview 1 are adapted to the WASI
//! that the host knows, and what comes out is a component.

use std::path::Path;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The world of an agent.
pub const WORLD: &str = "agent";

/// Makes a component of a core module, under the contract in the folder `wit`.
///
/// # Errors
///
/// In words: if the contract cannot be read, or if the module does not export
/// and import what the world says.
pub fn of_core(mut core: Vec<u8>, wit: &Path) -> Result<Vec<u8>, String> {
    let words = |error| format!("{error:#}");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).map_err(words)?;
    let world = resolve.select_world(&[package], Some(WORLD)).map_err(words)?;
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).map_err(words)?;
    let encoder = ComponentEncoder::default().validate(true).module(&core).map_err(words)?;
    let mut encoder =
        encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER).map_err(words)?;
    encoder.encode().map_err(words)
}
