//! Names and versions of agents (ARCP §7.5).
//!
//! An agent is a file, `NAME@VERSION.wasm` or `NAME/VERSION.wasm`, in the
//! agents folder ([`super::folder`]). It is audited, compiled and linked when it is registered;
//! what cannot be is reported and left out, and the rest works.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use leasehold_core::{
    error::{ErrorCode, Refusal},
    protocol::server::AgentInfo,
};

use super::{
    audit::{self, Audit},
    cache::Cache,
};
use crate::{
    capability::{JobCtx, bindings::AgentPre},
    sandbox::engine::Sandbox,
};

/// A registered version of an agent, ready to start.
pub struct Agent {
    /// `name@version`.
    pub id: String,
    /// What it asks for.
    pub audit: Audit,
    /// Linked to everything it may import.
    pub pre: AgentPre<JobCtx>,
}

/// Where a host finds its agents.
pub struct Registry {
    sandbox: Arc<Sandbox>,
    cache: Cache,
    component_bytes_max: usize,
    agents: RwLock<BTreeMap<String, Versions>>,
}

/// The versions of one agent, oldest first.
#[derive(Default)]
struct Versions(Vec<(String, Arc<Agent>)>);

/// Why a file is not an agent.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name does not say which agent and version it is.
    #[error("`{}` is not named `NAME@VERSION.wasm` (name: a-z 0-9 . _ -, version: A-Z a-z 0-9 . + _ -)", .0.display())]
    Name(PathBuf),
    /// It says the same name and version as another.
    #[error("`{}` is left out: `{}` is the same name and version; remove one of them", path.display(), other.display())]
    Twice {
        /// Which.
        path: PathBuf,
        /// Which other.
        other: PathBuf,
    },
    /// The file cannot be read.
    #[error("`{}`: {source}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// How.
        source: std::io::Error,
    },
    /// It is no agent, or one that asks for too much.
    #[error("`{}`: {reason}", path.display())]
    Unfit {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Registry {
    /// Makes an empty registry.
    #[must_use]
    pub fn new(sandbox: Arc<Sandbox>, cache: Cache, component_bytes_max: usize) -> Self {
        Self { sandbox, cache, component_bytes_max, agents: RwLock::default() }
    }

    /// Registers one file as `name@version`. Blocks, for seconds if it has to be compiled.
    ///
    /// # Errors
    ///
    /// If the file is no agent.
    pub fn register_file(&self, path: &Path, name: &str, version: &str) -> Result<Arc<Agent>, RegisterError> {
        let read = |source| RegisterError::Read { path: path.to_owned(), source };
        let size = fs::metadata(path).map_err(read)?.len();
        if size > self.component_bytes_max as u64 {
            let reason = format!("it is {size} bytes; a component has at most {}", self.component_bytes_max);
            return Err(RegisterError::Unfit { path: path.to_owned(), reason });
        }
        let wasm = fs::read(path).map_err(read)?;
        let unfit = |reason| RegisterError::Unfit { path: path.to_owned(), reason };
        let agent = self.prepare(&wasm, format!("{name}@{version}")).map_err(unfit)?;
        let mut agents = self.agents.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        agents.entry(name.to_owned()).or_default().insert(version, Arc::clone(&agent));
        Ok(agent)
    }

    /// Takes a version out, unless it is another agent's by now. Jobs that run it go on.
    pub fn withdraw(&self, name: &str, version: &str, agent: &Arc<Agent>) {
        let mut agents = self.agents.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(versions) = agents.get_mut(name) else { return };
        versions.0.retain(|(known, registered)| known != version || !Arc::ptr_eq(registered, agent));
        if versions.0.is_empty() {
            agents.remove(name);
        }
    }

    fn prepare(&self, wasm: &[u8], id: String) -> Result<Arc<Agent>, String> {
        let audit = audit::audit(wasm, self.component_bytes_max).map_err(|error| error.to_string())?;
        audit.check().map_err(|refused| refused.to_string())?;
        let engine = self.sandbox.engine();
        let component = self.cache.load(engine, &audit.digest, wasm).map_err(|error| error.to_string())?;
        self.cache.keep(&audit.digest, wasm).map_err(|error| error.to_string())?;
        let pre = self.sandbox.linker().instantiate_pre(&component).and_then(AgentPre::new);
        let pre = pre.map_err(|error| format!("the component does not fit the contract in /wit: {error:#}"))?;
        Ok(Arc::new(Agent { id, audit, pre }))
    }

    /// Finds the agent a submission names: `name` for the default version, `name@version` for one (ARCP §7.5).
    ///
    /// # Errors
    ///
    /// `INVALID_REQUEST`, `AGENT_NOT_AVAILABLE` or `AGENT_VERSION_NOT_AVAILABLE`.
    pub fn resolve(&self, wanted: &str) -> Result<Arc<Agent>, Refusal> {
        let (name, version) = match wanted.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (wanted, None),
        };
        if !is_name(name) || !version.is_none_or(is_version) {
            let wanted: String = wanted.chars().take(80).collect();
            return Err(Refusal::invalid(format!(
                "job.submit: `payload.agent`: `{wanted}` is not of the form `name` or `name@version` \
                 (name: a-z 0-9 . _ -, version: A-Z a-z 0-9 . + _ -)"
            )));
        }
        let agents = self.agents.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(versions) = agents.get(name) else {
            return Err(Refusal::new(ErrorCode::AgentNotAvailable, format!("there is no agent `{name}` on this host")));
        };
        let found = match version {
            None => versions.default(),
            Some(version) => versions.0.iter().find(|(known, _)| known == version),
        };
        found.map(|(_, agent)| Arc::clone(agent)).ok_or_else(|| {
            let known: Vec<&str> = versions.0.iter().map(|(version, _)| version.as_str()).collect();
            let message = format!("`{wanted}` is not on this host; `{name}` has the versions {}", known.join(", "));
            Refusal::new(ErrorCode::AgentVersionNotAvailable, message)
        })
    }

    /// Finds the component that a job began with, deployed or not. Blocks, for seconds if it has to be compiled.
    ///
    /// # Errors
    ///
    /// Why it cannot be had.
    pub fn pinned(&self, id: &str, digest: &str) -> Result<Arc<Agent>, String> {
        let deployed = self.all().into_iter().find(|agent| agent.audit.digest.to_string() == digest);
        if let Some(agent) = deployed {
            return Ok(agent);
        }
        let gone = |error| format!("the component of `{id}` (sha256 {digest}) is gone from this host: {error}");
        let agent = self.prepare(&self.cache.kept(digest).map_err(gone)?, id.to_owned())?;
        match agent.audit.digest.to_string() == digest {
            true => Ok(agent),
            false => Err(format!("the component of `{id}` (sha256 {digest}) has been changed on the disk")),
        }
    }

    /// Every agent with its versions, for a welcome (ARCP §6.2).
    #[must_use]
    pub fn inventory(&self) -> Vec<AgentInfo> {
        let agents = self.agents.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let info = |(name, versions): (&String, &Versions)| {
            let default = versions.default()?.0.clone();
            let versions = versions.0.iter().map(|(version, _)| version.clone()).collect();
            Some(AgentInfo { name: name.clone(), versions, default })
        };
        agents.iter().filter_map(info).collect()
    }

    /// Every registered version.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Agent>> {
        let agents = self.agents.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        agents.values().flat_map(|versions| versions.0.iter().map(|(_, agent)| Arc::clone(agent))).collect()
    }
}

impl Versions {
    fn insert(&mut self, version: &str, agent: Arc<Agent>) {
        match self.0.binary_search_by(|(known, _)| compare(known, version)) {
            Ok(at) => self.0[at].1 = agent,
            Err(at) => self.0.insert(at, (version.to_owned(), agent)),
        }
    }

    /// The newest.
    fn default(&self) -> Option<&(String, Arc<Agent>)> {
        self.0.last()
    }
}

/// `[a-z0-9][a-z0-9._-]*` (ARCP §7.5), at most 100 bytes.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 100
        && text.as_bytes().first().is_some_and(first)
        && text.bytes().all(|byte| first(&byte) || matches!(byte, b'.' | b'_' | b'-'))
}

/// `[a-zA-Z0-9.+_-]+` (ARCP §7.5), at most 100 bytes.
#[must_use]
pub fn is_version(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'_' | b'-'))
}

/// Orders versions as their authors mean it: numbers as numbers, and a
/// pre-release (`1.0.0-rc1`) before what it leads to.
fn compare(a: &str, b: &str) -> Ordering {
    let core = |text: &str| text.split('+').next().unwrap_or_default().to_owned();
    let (core_a, core_b) = (core(a), core(b));
    let split = |text: &str| -> (Vec<Part>, Option<Vec<Part>>) {
        match text.split_once('-') {
            Some((main, pre)) => (parts(main), Some(parts(pre))),
            None => (parts(text), None),
        }
    };
    let ((main_a, pre_a), (main_b, pre_b)) = (split(&core_a), split(&core_b));
    main_a
        .cmp(&main_b)
        .then_with(|| match (pre_a, pre_b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => a.cmp(&b),
        })
        // Two texts are never the same version, whatever they mean.
        .then_with(|| a.cmp(b))
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u128),
    Text(String),
}

fn parts(text: &str) -> Vec<Part> {
    let part = |part: &str| part.parse().map_or_else(|_| Part::Text(part.to_owned()), Part::Number);
    text.split('.').map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_the_order_their_authors_mean() {
        let order = ["0.9.0", "1.0.0-alpha", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0", "1.0.0+b", "1.2.0", "1.10.0", "2"];
        for pair in order.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
    }

    /// ARCP §7.5.
    #[test]
    fn names_and_versions_follow_the_grammar() {
        for (text, name, version) in [
            ("a", true, true),
            ("code-refactor.v2_x", true, true),
            ("A", false, true),
            ("-a", false, true),
            ("", false, false),
            ("1.0.0+build", false, true),
            ("a b", false, false),
            ("../x", false, false),
            ("ä", false, false),
        ] {
            assert_eq!((is_name(text), is_version(text)), (name, version), "{text}");
        }
    }
}
