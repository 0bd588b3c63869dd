//! `agents add`: components are audited, compiled, and placed where a host finds them.

use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, HostArgs, output};
use crate::{
    agents::{
        cache::Cache,
        compiler::{Compiler, Place},
        folder,
        registry::{Agent, RegisterError, Registry, name_and_version},
    },
    config::Config,
    sandbox::engine::Sandbox,
};

/// `leasehold agents …`
#[derive(Debug, Subcommand)]
pub enum AgentsCommand {
    /// Audit and compile components and place them in a host's agents folder as NAME@VERSION.wasm.
    ///
    /// A host that runs finds them there within `agents_interval_sec`, and has nothing to compile. Name the settings
    /// that it was started with, so that they are compiled to where it looks. Of several, all are placed or none.
    Add(AddArgs),
}

/// `leasehold agents add`
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The components.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The name and version of the agent, if its file is not called NAME@VERSION.wasm.
    #[arg(long = "as", value_name = "NAME@VERSION")]
    id: Option<String>,
    /// The settings file of the host.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the agents [default: agents].
    #[arg(long, value_name = "DIR")]
    agents: Option<PathBuf>,
    /// The folder of journals and compiled agents [default: data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print an object for each agent.
    #[arg(long)]
    json: bool,
}

/// A component on its way into the agents folder.
struct Added {
    agent: Arc<Agent>,
    path: PathBuf,
    /// How long it was compiled, if it was not before.
    compiled_sec: Option<f64>,
}

/// Places components.
pub async fn add(args: AddArgs) -> Result<(), Failure> {
    let as_json = args.json;
    let host = HostArgs { config: args.config, agents: args.agents, data: args.data, ..HostArgs::default() };
    let config = host.settings()?;
    config.check()?;
    let named = named(args.files, args.id.as_deref())?;
    let added = tokio::task::spawn_blocking(move || add_all(&config, &named)).await.map_err(anyhow::Error::from)??;
    for Added { agent, path, compiled_sec } in added {
        let (path, size_bytes) = (path.display(), agent.audit.size_bytes);
        if as_json {
            output::line(&json!({
                "agent": agent.id,
                "path": path.to_string(),
                "size_bytes": size_bytes,
                "digest": agent.audit.digest.to_string(),
                "compiled_sec": compiled_sec,
            }));
        } else {
            let compiled = compiled_sec.map_or("compiled before".to_owned(), |sec| format!("compiled in {sec:.1} s"));
            output::text_line(&format!("{}  {path}  {}  {compiled}", agent.id, output::size(size_bytes as u64)));
        }
    }
    Ok(())
}

/// Each file with the name and version it is to have.
fn named(files: Vec<PathBuf>, id: Option<&str>) -> Result<Vec<(PathBuf, String, String)>, Failure> {
    if id.is_some() && files.len() > 1 {
        return Err(Failure::Usage("--as names one agent; give one file with it".to_owned()));
    }
    let mut named: Vec<(PathBuf, String, String)> = Vec::new();
    for file in files {
        let shown = file.display();
        let claimed = match id {
            Some(id) => id,
            None => file.file_name().and_then(|name| name.to_str()?.strip_suffix(".wasm")).unwrap_or_default(),
        };
        let Some((name, version)) = name_and_version(claimed) else {
            let said = id.map_or(String::new(), |id| format!("--as: `{id}` is none; "));
            return Err(Failure::Usage(format!(
                "{said}`{shown}` needs a name: --as NAME@VERSION (name: a-z 0-9 . _ -, version: A-Z a-z 0-9 . + _ -)"
            )));
        };
        if named.iter().any(|(_, other, of)| (other.as_str(), of.as_str()) == (name, version)) {
            return Err(Failure::Usage(format!("`{shown}`: {name}@{version} is given twice")));
        }
        let (name, version) = (name.to_owned(), version.to_owned());
        named.push((file, name, version));
    }
    Ok(named)
}

fn add_all(config: &Config, named: &[(PathBuf, String, String)]) -> Result<Vec<Added>, Failure> {
    let dir = &config.server.agents;
    let cache = Cache::open(config.compiled()).map_err(|error| Failure::Usage(error.to_string()))?;
    let sandbox = Arc::new(Sandbox::new(&config.limits, 1).map_err(|error| anyhow::anyhow!("{error:#}"))?);
    let compiler = Compiler::new(Place::default(), config.compile.clone());
    let registry = Registry::new(sandbox, cache.clone(), compiler, config.limits.component_bytes_max);
    let mut added = Vec::new();
    for (file, name, version) in named {
        let other = dir.join(name).join(format!("{version}.wasm"));
        if other.exists() {
            let message = format!("`{}` is {name}@{version} already; remove it first", other.display());
            return Err(Failure::Usage(message));
        }
        let begun = Instant::now();
        let (agent, compiled_sec) = match registry.prepare_compiled(file, name, version).map_err(failure)? {
            Some(agent) => (agent, None),
            None => {
                let agent = registry.prepare_file(file, name, version).map_err(failure)?;
                (agent, Some(begun.elapsed().as_secs_f64()))
            }
        };
        added.push(Added { agent, path: dir.join(format!("{name}@{version}.wasm")), compiled_sec });
    }
    fs::create_dir_all(dir).map_err(|error| Failure::Usage(format!("--agents `{}`: {error}", dir.display())))?;
    for Added { agent, path, .. } in &added {
        // What was audited, whatever has become of the file since.
        let placed = cache.kept(&agent.audit.digest.to_string()).and_then(|wasm| folder::place(path, &wasm));
        placed.map_err(|error| anyhow::anyhow!("`{}` cannot be written: {error}", path.display()))?;
    }
    Ok(added)
}

fn failure(error: RegisterError) -> Failure {
    match error {
        RegisterError::Failed { .. } => Failure::Other(error.into()),
        _ => Failure::Usage(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_named_by_its_file_or_by_a_flag() {
        for (files, id, expected) in [
            (&["a/x@1.wasm", "y@2.0.wasm"][..], None, Ok("x@1 y@2.0")),
            (&["x.wasm"], Some("z@3"), Ok("z@3")),
            (&["x@1.wasm"], Some("z@3"), Ok("z@3")),
            (&["x.wasm"], None, Err("--as NAME@VERSION")),
            (&["X@1.wasm"], None, Err("--as NAME@VERSION")),
            (&["x@1.cwasm"], None, Err("--as NAME@VERSION")),
            (&["x.wasm"], Some("z"), Err("`z` is none")),
            (&["x.wasm"], Some("../z@1"), Err("`../z@1` is none")),
            (&["x@1.wasm", "y@1.wasm"], Some("z@3"), Err("one file")),
            (&["a/x@1.wasm", "b/x@1.wasm"], None, Err("given twice")),
        ] {
            let named = named(files.iter().map(PathBuf::from).collect(), id);
            match (named, expected) {
                (Ok(named), Ok(expected)) => {
                    let ids: Vec<String> = named.iter().map(|(_, name, version)| format!("{name}@{version}")).collect();
                    assert_eq!(ids.join(" "), expected, "{files:?}");
                }
                (Err(Failure::Usage(message)), Err(words)) => assert!(message.contains(words), "{message}"),
                (named, _) => panic!("{files:?}: {named:?}"),
            }
        }
    }
}
