//! Names and versions of agents (ARCP §7.5).
//!
//! An agent is a file, `NAME@VERSION.wasm` or `NAME/VERSION.wasm`, in the
//! agents folder ([`super::folder`]). It is audited and compiled ([`super::compiler`]) and linked when it is
//! registered; what cannot be is reported and left out, and the rest works.
//! What is still being compiled is expected, and a submission waits for it.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError, RwLock},
};

use leasehold_core::{
    error::{ErrorCode, Refusal},
    protocol::server::AgentInfo,
};

use rustix::fs::OFlags;
use tokio::sync::watch;

use super::{
    audit::{Audit, Digest, printable},
    cache::{Cache, CacheError, Ready, Tidied},
    compiler::{CompileError, Compiler},
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
    compiler: Compiler,
    component_bytes_max: usize,
    agents: RwLock<BTreeMap<String, Versions>>,
    expected: watch::Sender<Expected>,
    /// The components that are being made ready, so that who wants the same one waits for it.
    making: Mutex<BTreeSet<Digest>>,
    made: Condvar,
}

/// The names and versions that are being compiled, and whether each was there when the host started.
pub type Expected = BTreeMap<(String, String), bool>;

/// The versions of one agent, oldest first.
#[derive(Default)]
struct Versions(Vec<(String, Arc<Agent>)>);

/// Why a file is not an agent.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name does not say which agent and version it is.
    #[error("`{}` is not named `NAME@VERSION.wasm` (name: a-z 0-9 . _ -, version: A-Z a-z 0-9 . + _ -)", shown(.0))]
    Name(PathBuf),
    /// It says the same name and version as another.
    #[error("`{}` is left out: `{}` is the same name and version; remove one of them", shown(path), shown(other))]
    Twice {
        /// Which.
        path: PathBuf,
        /// Which other.
        other: PathBuf,
    },
    /// The file cannot be read.
    #[error("`{}`: {source}", shown(path))]
    Read {
        /// Where.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// It is no agent, or one that asks for too much.
    #[error("`{}`: {reason}", shown(path))]
    Unfit {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something was in the way that has nothing to do with it.
    #[error("`{}` could not be compiled now: {reason}", shown(path))]
    Failed {
        /// Where.
        path: PathBuf,
        /// What.
        reason: String,
    },
}

/// A path as it may be printed: whoever names a file writes no lines of a log.
fn shown(path: &Path) -> String {
    const CHARS_MAX: usize = 4_096;
    printable(&path.to_string_lossy(), CHARS_MAX)
}

/// Why a component cannot be made an agent of.
#[derive(Debug, thiserror::Error)]
enum Unready {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("the component does not fit the contract in /wit: {0:#}")]
    Link(wasmtime::Error),
}

impl Unready {
    fn of(self, path: &Path) -> RegisterError {
        let (path, reason) = (path.to_owned(), self.to_string());
        match self {
            Self::Cache(CacheError::Compile(CompileError::NoAgent(_) | CompileError::Unfit(_))) | Self::Link(_) => {
                RegisterError::Unfit { path, reason }
            }
            Self::Cache(_) => RegisterError::Failed { path, reason },
        }
    }
}

impl Registry {
    /// Makes an empty registry.
    #[must_use]
    pub fn new(sandbox: Arc<Sandbox>, cache: Cache, compiler: Compiler, component_bytes_max: usize) -> Self {
        let (agents, expected) = (RwLock::default(), watch::Sender::default());
        let (making, made) = (Mutex::default(), Condvar::default());
        Self { sandbox, cache, compiler, component_bytes_max, agents, expected, making, made }
    }

    /// Who compiles.
    #[must_use]
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Ends what is being compiled, and nobody waits for it any more.
    pub fn stop(&self) {
        self.compiler.stop();
        self.expected.send_modify(|_| ());
    }

    /// Says what is being compiled now.
    pub fn expect(&self, expected: Expected) {
        self.expected.send_if_modified(|known| {
            let is_new = *known != expected;
            *known = expected;
            is_new
        });
    }

    /// How many agents are being compiled.
    #[must_use]
    pub fn expected(&self) -> usize {
        self.expected.borrow().len()
    }

    /// Returns once the agent a submission names (as for [`resolve`](Self::resolve)) is not being compiled any more.
    pub async fn arrival(&self, wanted: &str) {
        let mut expected = self.expected.subscribe();
        // It fails when the registry is gone, and then nobody waits.
        let _ = expected.wait_for(|expected| self.compiler.is_stopping() || !self.awaits(expected, wanted)).await;
    }

    fn awaits(&self, expected: &Expected, wanted: &str) -> bool {
        if expected.is_empty() {
            return false;
        }
        let (name, version) = split(wanted);
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        let known = agents.get(name).map(|versions| versions.0.iter().map(|(version, _)| version.as_str()));
        is_awaited(expected, &known.into_iter().flatten().collect::<Vec<_>>(), name, version)
    }

    /// Registers one file as `name@version`. Blocks, for seconds if it has to be compiled.
    ///
    /// # Errors
    ///
    /// If the file is no agent.
    pub fn register_file(&self, path: &Path, name: &str, version: &str) -> Result<Arc<Agent>, RegisterError> {
        let agent = self.prepare_file(path, name, version)?;
        self.insert(name, version, &agent);
        Ok(agent)
    }

    /// Makes an agent of a file, and registers nothing. Blocks, for seconds if it has to be compiled.
    ///
    /// # Errors
    ///
    /// If the file is no agent.
    pub fn prepare_file(&self, path: &Path, name: &str, version: &str) -> Result<Arc<Agent>, RegisterError> {
        let wasm = self.read(path)?;
        let prepared = self.prepare(Digest::of(&wasm), &wasm, format!("{name}@{version}"));
        prepared.map_err(|unready| unready.of(path))
    }

    /// Makes an agent of a file if it was compiled before, or is known to be none.
    ///
    /// # Errors
    ///
    /// If the file is no agent.
    pub fn prepare_compiled(
        &self,
        path: &Path,
        name: &str,
        version: &str,
    ) -> Result<Option<Arc<Agent>>, RegisterError> {
        let wasm = self.read(path)?;
        let digest = Digest::of(&wasm);
        if let Some(why) = self.refused(&digest) {
            return Err(Unready::from(CacheError::from(why)).of(path));
        }
        let Some(ready) = self.cache.load(self.sandbox.engine(), &digest) else { return Ok(None) };
        let agent = self.link(ready, format!("{name}@{version}"), &wasm);
        agent.map(Some).map_err(|unready| unready.of(path))
    }

    /// Registers an agent that was made.
    pub fn insert(&self, name: &str, version: &str, agent: &Arc<Agent>) {
        let mut agents = self.agents.write().unwrap_or_else(PoisonError::into_inner);
        agents.entry(name.to_owned()).or_default().insert(version, Arc::clone(agent));
    }

    /// Reads a file that is to be an agent.
    fn read(&self, path: &Path) -> Result<Vec<u8>, RegisterError> {
        let read = |source| RegisterError::Read { path: path.to_owned(), source };
        // A pipe that nobody writes to would be waited for.
        let nonblock = OFlags::NONBLOCK.bits().cast_signed();
        let file = fs::File::options().read(true).custom_flags(nonblock).open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(read(io::Error::other("it is no file")));
        }
        let max = self.component_bytes_max;
        let mut wasm = Vec::new();
        if metadata.len() <= max as u64 {
            // Of a file that grows meanwhile, no more than one byte too many.
            file.take(max as u64 + 1).read_to_end(&mut wasm).map_err(read)?;
        }
        let size = metadata.len().max(wasm.len() as u64);
        if size > max as u64 {
            let reason = format!(
                "it has {size} bytes, and a component {max} at most: build it in release mode and strip it, or raise \
                 limits.component_bytes_max"
            );
            return Err(RegisterError::Unfit { path: path.to_owned(), reason });
        }
        Ok(wasm)
    }

    /// Takes a version out, unless it is another agent's by now. Jobs that run it go on.
    pub fn withdraw(&self, name: &str, version: &str, agent: &Arc<Agent>) {
        let mut agents = self.agents.write().unwrap_or_else(PoisonError::into_inner);
        let Some(versions) = agents.get_mut(name) else { return };
        versions.0.retain(|(known, registered)| known != version || !Arc::ptr_eq(registered, agent));
        if versions.0.is_empty() {
            agents.remove(name);
        }
    }

    fn prepare(&self, digest: Digest, wasm: &[u8], id: String) -> Result<Arc<Agent>, Unready> {
        let engine = self.sandbox.engine();
        let making = self.making(digest);
        let ready = match self.cache.load(engine, &digest) {
            Some(ready) => ready,
            None => match self.refused(&digest) {
                Some(why) => return Err(CacheError::from(why).into()),
                None => self.cache.add(engine, &self.compiler, digest, wasm, self.component_bytes_max)?,
            },
        };
        drop(making);
        self.link(ready, id, wasm)
    }

    /// Why a component is known to be no agent, if it is.
    fn refused(&self, digest: &Digest) -> Option<CompileError> {
        let kept = || self.cache.refused(self.sandbox.engine(), &self.compiler, digest).map(CompileError::NoAgent);
        self.compiler.refused(digest).or_else(kept)
    }

    /// Waits until nobody else makes this component ready: what one has compiled the next one finds.
    fn making(&self, digest: Digest) -> Making<'_> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        while !making.insert(digest) {
            making = self.made.wait(making).unwrap_or_else(PoisonError::into_inner);
        }
        Making { registry: self, digest }
    }

    fn link(&self, ready: Ready, id: String, wasm: &[u8]) -> Result<Arc<Agent>, Unready> {
        let Ready { audit, component } = ready;
        self.cache.keep(&audit.digest, wasm)?;
        let pre = self.sandbox.linker().instantiate_pre(&component).and_then(AgentPre::new).map_err(Unready::Link)?;
        Ok(Arc::new(Agent { id, audit, pre }))
    }

    /// Removes compiled components that neither an agent nor, as `needed` says, a job needs, as long as all are more
    /// than `bytes_max`. Blocks.
    ///
    /// # Errors
    ///
    /// If the folder of compiled components fails.
    pub fn tidy(&self, mut needed: BTreeSet<String>, bytes_max: u64) -> io::Result<Tidied> {
        needed.extend(self.all().iter().map(|agent| agent.audit.digest.to_string()));
        self.cache.tidy(self.sandbox.engine(), &needed, bytes_max)
    }

    /// How much the folder of compiled components holds. Blocks.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn compiled_bytes(&self) -> io::Result<u64> {
        self.cache.size_bytes()
    }

    /// Finds the agent a submission names: `name` for the default version, `name@version` for one (ARCP §7.5).
    ///
    /// # Errors
    ///
    /// `INVALID_REQUEST`, `AGENT_NOT_AVAILABLE` or `AGENT_VERSION_NOT_AVAILABLE`.
    pub fn resolve(&self, wanted: &str) -> Result<Arc<Agent>, Refusal> {
        let (name, version) = split(wanted);
        if !is_name(name) || !version.is_none_or(is_version) {
            let wanted: String = wanted.chars().take(80).collect();
            return Err(Refusal::invalid(format!(
                "job.submit: `payload.agent`: `{wanted}` is not of the form `name` or `name@version` \
                 (name: a-z 0-9 . _ -, version: A-Z a-z 0-9 . + _ -)"
            )));
        }
        if self.awaits(&self.expected.borrow(), wanted) {
            let message = format!("`{wanted}` is still being compiled on this host; try again in a moment");
            return Err(Refusal::new(ErrorCode::AgentNotAvailable, message));
        }
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
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

    /// Finds out whether there is, or may soon be, an agent that a submission could name.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn offers(&self, wanted: &str) -> Result<(), Refusal> {
        if self.awaits(&self.expected.borrow(), wanted) {
            return Ok(());
        }
        self.resolve(wanted).map(drop)
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
        let wasm = self.cache.kept(digest).map_err(gone)?;
        let found = Digest::of(&wasm);
        if found.to_string() != digest {
            return Err(format!("the component of `{id}` (sha256 {digest}) has been changed on the disk"));
        }
        self.prepare(found, &wasm, id.to_owned()).map_err(|unready| unready.to_string())
    }

    /// Every agent with its versions, for a welcome (ARCP §6.2).
    #[must_use]
    pub fn inventory(&self) -> Vec<AgentInfo> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
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
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.values().flat_map(|versions| versions.0.iter().map(|(_, agent)| Arc::clone(agent))).collect()
    }
}

/// The right to make a component ready, until it is dropped.
struct Making<'a> {
    registry: &'a Registry,
    digest: Digest,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.registry.making.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
        self.registry.made.notify_all();
    }
}

/// A name, and a version if one is named.
fn split(wanted: &str) -> (&str, Option<&str>) {
    wanted.split_once('@').map_or((wanted, None), |(name, version)| (name, Some(version)))
}

/// Whether it is worth waiting for what is being compiled, where these versions of the agent are `known`.
///
/// What was there when the host started counts as deployed, so no older version takes its place meanwhile. What came
/// later takes the place of an older one when it is ready.
fn is_awaited(expected: &Expected, known: &[&str], name: &str, version: Option<&str>) -> bool {
    match version {
        Some(version) => !known.contains(&version) && expected.contains_key(&(name.to_owned(), version.to_owned())),
        None => expected.iter().filter(|((expected, _), _)| expected == name).any(|((_, version), from_the_start)| {
            known.is_empty() || (*from_the_start && known.iter().all(|known| compare(known, version) == Ordering::Less))
        }),
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

/// The name and the version in `name@version` (ARCP §7.5), if that is what a text is.
#[must_use]
pub fn name_and_version(text: &str) -> Option<(&str, &str)> {
    text.split_once('@').filter(|(name, version)| is_name(name) && is_version(version))
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

    /// Of `a`, 2 and 3 are being compiled; 3 has come since the host started.
    #[test]
    fn a_submission_waits_for_what_it_would_get_of_an_agent_that_is_being_compiled() {
        let id = |version: &str| ("a".to_owned(), version.to_owned());
        let expected = Expected::from([(id("2"), true), (id("3"), false)]);
        for (known, wanted, awaited) in [
            (&[][..], "a", true),
            (&["1"], "a", true),       // 2 was there before
            (&["1", "2"], "a", false), // and 3 was not
            (&["10"], "a", false),
            (&["1"], "a@1", false),
            (&["1"], "a@2", true),
            (&["1"], "a@3", true),
            (&["1", "3"], "a@3", false), // whose file was replaced
            (&["1"], "a@4", false),
            (&[], "b", false),
            (&[], "b@2", false),
        ] {
            let (name, version) = split(wanted);
            assert_eq!(is_awaited(&expected, known, name, version), awaited, "{wanted} of {known:?}");
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
