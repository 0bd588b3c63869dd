//! The agents folder, looked at again while the host runs (ARCP §7.5).
//!
//! What is there at the first look is taken. Later, a file is taken once it was
//! the same at two looks, because one that is still being written can pass for
//! an agent too. What is wrong with a file is said once, until it changes.
//!
//! What was compiled before is registered at once. The rest waits for its turn
//! to be compiled, on threads of its own. No look waits for it; the registry is
//! told what it may expect, and a submission can wait.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Instant,
};

use tokio::sync::Notify;

use super::registry::{Agent, RegisterError, Registry, is_name, is_version, name_and_version};

/// How often a file is tried again that something was in the way of which had nothing to do with it.
const RETRIES_MAX: u32 = 3;

/// A folder of agents, and what was seen in it.
pub struct Folder {
    dir: PathBuf,
    looked: bool,
    /// What each name and version was seen as.
    seen: BTreeMap<Id, Seen>,
    /// Files whose names say nothing, those that say what another says, and folders that cannot be read.
    misnamed: BTreeSet<PathBuf>,
    /// What is to be compiled.
    bench: Arc<Bench>,
    done: mpsc::Receiver<Done>,
    tickets: u64,
}

/// A name and a version.
type Id = (String, String);

struct Seen {
    stamp: Stamp,
    /// Whether it was there at the first look, as it is now.
    from_the_start: bool,
    /// Whether it was tried as it is now.
    tried: bool,
    /// Under which number it is being compiled as it is now.
    ticket: Option<u64>,
    /// How often it was tried in vain.
    failures: u32,
    /// What is registered of it, which may be what it was before.
    agent: Option<Arc<Agent>>,
}

/// What changes when a file does.
#[derive(PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Ok(Self { path: path.to_owned(), inode: metadata.ino(), size: metadata.size(), changed })
    }
}

/// What waits to be compiled, and who compiles it.
struct Bench {
    queue: Mutex<Queue>,
    sender: mpsc::Sender<Done>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    workers: usize,
}

/// A file to be compiled.
struct Work {
    ticket: u64,
    id: Id,
    path: PathBuf,
}

/// What came of it.
struct Done {
    ticket: u64,
    id: Id,
    /// How long it took.
    sec: f64,
    outcome: Result<Arc<Agent>, RegisterError>,
}

impl Folder {
    /// A folder nobody has looked into yet.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        let (sender, done) = mpsc::channel();
        let bench = Arc::new(Bench { queue: Mutex::default(), sender, changed: Arc::default() });
        Self { dir, looked: false, seen: BTreeMap::new(), misnamed: BTreeSet::new(), bench, done, tickets: 0 }
    }

    /// What is notified when something was compiled that [`settle`](Self::settle) registers.
    #[must_use]
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.bench.changed)
    }

    /// Registers what was compiled since, and says what could not be.
    pub fn settle(&mut self, registry: &Registry) -> Vec<RegisterError> {
        let done: Vec<Done> = self.done.try_iter().collect();
        let problems = done.into_iter().filter_map(|done| self.take_up(registry, done)).collect();
        self.announce(registry);
        problems
    }

    /// Tells the registry what it may expect.
    fn announce(&self, registry: &Registry) {
        let compiled = self.seen.iter().filter(|(_, seen)| seen.ticket.is_some());
        registry.expect(compiled.map(|(id, seen)| (id.clone(), seen.from_the_start)).collect());
    }

    /// Waits for everything that is being compiled, and settles it. Blocks, for seconds.
    ///
    /// # Panics
    ///
    /// If a thread that compiles has panicked where it cannot.
    pub fn finish(&mut self, registry: &Registry) -> Vec<RegisterError> {
        let waiting = |seen: &BTreeMap<Id, Seen>| seen.values().any(|seen| seen.ticket.is_some());
        let mut problems = BTreeMap::new();
        while waiting(&self.seen) {
            let done = self.done.recv().expect("the bench has a sender, too");
            let id = done.id.clone();
            problems.extend(self.take_up(registry, done).map(|problem| (id, problem)));
            self.announce(registry);
        }
        problems.into_values().collect()
    }

    fn take_up(&mut self, registry: &Registry, Done { ticket, id, sec, outcome }: Done) -> Option<RegisterError> {
        // A file that has changed or gone meanwhile is none of this.
        let seen = self.seen.get_mut(&id).filter(|seen| seen.ticket == Some(ticket))?;
        seen.ticket = None;
        match outcome {
            Ok(agent) => {
                registry.insert(&id.0, &id.1, &agent);
                tracing::info!(agent = agent.id, digest = %agent.audit.digest, sec, "an agent was compiled and deployed");
                seen.agent = Some(agent);
                None
            }
            Err(problem) => {
                let passing = matches!(problem, RegisterError::Failed { .. });
                if passing && seen.failures < RETRIES_MAX {
                    (seen.failures, seen.tried) = (seen.failures + 1, false);
                }
                Some(problem)
            }
        }
    }

    /// Brings the registry up to what the folder holds, and says of each new file that is no agent why. Blocks.
    ///
    /// What has to be compiled is left to [`settle`](Self::settle), or to [`finish`](Self::finish).
    ///
    /// A version whose file is gone is withdrawn. One whose file was replaced by something that is no agent stays as it
    /// was: what ran a moment ago is better than nothing.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read; then every agent stays.
    pub fn look(&mut self, registry: &Arc<Registry>) -> Result<Vec<RegisterError>, RegisterError> {
        let first = !std::mem::replace(&mut self.looked, true);
        let mut problems = self.settle(registry);
        let (mut found, mut misnamed): (BTreeMap<Id, PathBuf>, BTreeSet<PathBuf>) = Default::default();
        let Listing { files, unreadable } = list(&self.dir)?;
        // What cannot be looked into is not known to be gone.
        let hidden: BTreeSet<String> = unreadable.iter().map(|(name, ..)| name.clone()).collect();
        for (_, path, problem) in unreadable {
            if !self.misnamed.contains(&path) {
                problems.push(problem);
            }
            misnamed.insert(path);
        }
        for (path, id) in files {
            let problem = match id {
                None => RegisterError::Name(path.clone()),
                Some(id) => match found.get(&id) {
                    Some(other) => RegisterError::Twice { path: path.clone(), other: other.clone() },
                    None => {
                        found.insert(id, path);
                        continue;
                    }
                },
            };
            if !self.misnamed.contains(&path) {
                problems.push(problem);
            }
            misnamed.insert(path);
        }
        self.misnamed = misnamed;
        self.seen.retain(|id, seen| {
            let there = found.contains_key(id) || hidden.contains(&id.0);
            if let Some(agent) = seen.agent.as_ref().filter(|_| !there) {
                registry.withdraw(&id.0, &id.1, agent);
                tracing::info!(agent = agent.id, "an agent was withdrawn: its file is gone");
            }
            there
        });
        for (id, path) in found {
            // A file that has gone since is gone at the next look, too.
            let Ok(stamp) = Stamp::of(&path) else { continue };
            let seen = match self.seen.get_mut(&id) {
                Some(seen) if seen.stamp == stamp => seen,
                Some(seen) => {
                    *seen = Seen { agent: seen.agent.take(), ..Seen::new(stamp, false) };
                    continue;
                }
                None => {
                    let seen = self.seen.entry(id.clone()).or_insert(Seen::new(stamp, first));
                    if !first {
                        continue;
                    }
                    seen
                }
            };
            // Noted before it is tried, so that a file on which the compiler fails is not tried for ever.
            if std::mem::replace(&mut seen.tried, true) {
                continue;
            }
            match registry.prepare_compiled(&path, &id.0, &id.1) {
                Ok(Some(agent)) => {
                    registry.insert(&id.0, &id.1, &agent);
                    if !first {
                        tracing::info!(agent = agent.id, digest = %agent.audit.digest, "an agent was deployed");
                    }
                    seen.agent = Some(agent);
                }
                Ok(None) => {
                    self.tickets += 1;
                    seen.ticket = Some(self.tickets);
                    self.bench.give(registry, Work { ticket: self.tickets, id, path });
                }
                Err(problem) => problems.push(problem),
            }
        }
        self.announce(registry);
        Ok(problems)
    }
}

impl Seen {
    fn new(stamp: Stamp, from_the_start: bool) -> Self {
        Self { stamp, from_the_start, tried: false, ticket: None, failures: 0, agent: None }
    }
}

impl Drop for Folder {
    /// Nobody waits for the rest any more.
    fn drop(&mut self) {
        self.bench.queue().waiting.clear();
    }
}

impl Bench {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a file compiled after those that were given before.
    fn give(self: &Arc<Self>, registry: &Arc<Registry>, work: Work) {
        let mut queue = self.queue();
        queue.waiting.push_back(work);
        if queue.workers >= registry.compiler().concurrent_max().max(1) {
            return;
        }
        let (bench, registry) = (Arc::clone(self), Arc::clone(registry));
        match thread::Builder::new().name("compile".into()).spawn(move || bench.work(&registry)) {
            Ok(_) => queue.workers += 1,
            // One that works already takes it up.
            Err(_) if queue.workers > 0 => {}
            Err(error) => {
                let Some(Work { ticket, id, path }) = queue.waiting.pop_back() else { return };
                let outcome = Err(RegisterError::Failed { path, reason: format!("no thread can be started: {error}") });
                self.tell(Done { ticket, id, sec: 0.0, outcome });
            }
        }
    }

    /// Compiles until nothing is left.
    fn work(&self, registry: &Registry) {
        loop {
            let (next, waiting) = {
                let mut queue = self.queue();
                let next = queue.waiting.pop_front();
                queue.workers -= usize::from(next.is_none());
                (next, queue.waiting.len())
            };
            let Some(Work { ticket, id, path }) = next else { return };
            tracing::info!(agent = format!("{}@{}", id.0, id.1), waiting, "an agent is being compiled");
            let begun = Instant::now();
            let prepare = AssertUnwindSafe(|| registry.prepare_file(&path, &id.0, &id.1));
            let outcome = panic::catch_unwind(prepare).unwrap_or_else(|_| {
                let reason = "the host failed while it was compiled".to_owned();
                Err(RegisterError::Unfit { path: path.clone(), reason })
            });
            self.tell(Done { ticket, id, sec: begun.elapsed().as_secs_f64(), outcome });
        }
    }

    fn tell(&self, done: Done) {
        // The folder may have been given up.
        let _ = self.sender.send(done);
        self.changed.notify_one();
    }
}

/// Puts a component under its name by a rename, so that no host reads half of it.
///
/// # Errors
///
/// If its folder takes no files.
pub fn place(path: &Path, wasm: &[u8]) -> io::Result<()> {
    // Hidden, or a watching host would take it for an agent.
    let mut file = tempfile::Builder::new().prefix(".").suffix(".part").tempfile_in(path.parent().unwrap_or(path))?;
    file.write_all(wasm)?;
    // A component is no secret, and the host may be another user than the one who placed it.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// What an agents folder holds.
struct Listing {
    /// The files that end in `.wasm`, in order, each with the name and version it claims.
    files: Vec<(PathBuf, Option<Id>)>,
    /// The folders of agents that cannot be read: whose, where and why.
    unreadable: Vec<(String, PathBuf, RegisterError)>,
}

fn list(dir: &Path) -> Result<Listing, RegisterError> {
    let (mut files, mut unreadable) = (Vec::new(), Vec::new());
    for path in entries(dir)? {
        if path.is_dir() {
            let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_name(name));
            let paths = match (entries(&path), name) {
                (Ok(paths), _) => paths,
                // Gone since the folder was read.
                (Err(_), _) if !path.exists() => continue,
                (Err(problem), Some(name)) => {
                    unreadable.push((name.to_owned(), path.clone(), problem));
                    continue;
                }
                // Such as `lost+found`, which is no agent's and none of ours.
                (Err(_), None) => continue,
            };
            for path in paths.into_iter().filter(|path| is_wasm(path)) {
                let version = stem(&path).filter(|version| is_version(version));
                let id = name.zip(version).map(|(name, version)| (name.to_owned(), version.to_owned()));
                files.push((path, id));
            }
        } else if is_wasm(&path) {
            let id = stem(&path).and_then(name_and_version);
            let id = id.map(|(name, version)| (name.to_owned(), version.to_owned()));
            files.push((path, id));
        }
    }
    Ok(Listing { files, unreadable })
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, RegisterError> {
    let read = |source| RegisterError::Read { path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(read)?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(read)?;
    // A file that is being written may be hidden until it is renamed.
    paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    Ok(paths)
}

fn is_wasm(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm")
}

fn stem(path: &Path) -> Option<&str> {
    path.file_stem()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agents::{
            cache::Cache,
            compiler::{Compiler, Place, Settings},
        },
        sandbox::{engine::Sandbox, limits::Limits},
    };

    fn registry(data: &Path, compiler: Compiler) -> Arc<Registry> {
        let sandbox = Arc::new(Sandbox::new(&Limits::default(), 1).unwrap());
        let cache = Cache::open(data.join("compiled")).unwrap();
        Arc::new(Registry::new(sandbox, cache, compiler, 1 << 20))
    }

    #[test]
    fn an_agents_folder_is_read_in_both_layouts_and_odd_names_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("echo")).unwrap();
        for file in ["hello@1.0.0.wasm", "Bad@1.wasm", "plain.wasm", "echo/2.1.wasm", "notes.txt", ".tmp@1.wasm"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let found: Vec<_> = list(dir.path()).unwrap().files.into_iter().map(|(_, id)| id).collect();
        let pair = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(found, [None, pair("echo", "2.1"), pair("hello", "1.0.0"), None]);
    }

    /// Root reads everything, and then there is no such folder.
    #[test]
    fn a_folder_that_cannot_be_read_is_said_once_and_stands_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hello@1.0.0.wasm"), "").unwrap();
        for (name, mode) in [("echo", 0o000), ("lost+found", 0o000)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let readable = fs::read_dir(dir.path().join("echo")).is_ok();
        let Listing { files, unreadable } = list(dir.path()).unwrap();
        assert_eq!(files.len(), 1);
        let names: Vec<_> = unreadable.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, if readable { vec![] } else { vec!["echo"] });
        for name in ["echo", "lost+found"] {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
    }

    /// Nothing here is an agent, which shows what is tried and when; `tests/conformance` deploys some that are.
    #[test]
    fn a_file_is_tried_once_it_has_not_changed_between_two_looks_and_complained_of_once() {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let registry = registry(data.path(), Compiler::default());
        let mut folder = Folder::new(dir.path().to_owned());
        let mut look = |write: &[(&str, &str)]| -> Vec<String> {
            for (file, content) in write {
                fs::write(dir.path().join(file), content).unwrap();
            }
            let mut problems = folder.look(&registry).unwrap();
            problems.extend(folder.finish(&registry));
            problems.iter().map(|problem| problem.to_string().split('`').nth(1).unwrap().to_owned()).collect()
        };
        let named = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| dir.path().join(name).display().to_string()).collect()
        };
        fs::create_dir(dir.path().join("a")).unwrap();
        for (write, complaints) in [
            (&[("a@1.wasm", "x"), ("Odd.wasm", "")][..], &["Odd.wasm", "a@1.wasm"][..]), // there from the start
            (&[], &[]),
            (&[("b@1.wasm", "half")], &[]),
            (&[("b@1.wasm", "half and more")], &[]), // it grows
            (&[], &["b@1.wasm"]),
            (&[], &[]),
            (&[("b@1.wasm", "something else")], &[]),
            (&[], &["b@1.wasm"]),
            (&[("a/1.wasm", "y")], &["a@1.wasm"]), // `a/1.wasm` comes first, and is waited for
            (&[], &["a/1.wasm"]),
            (&[], &[]),
        ] {
            assert_eq!(look(write), named(complaints), "{write:?}");
        }
        drop(dir);
        assert!(folder.look(&registry).is_err());
    }

    #[test]
    fn a_look_waits_for_no_compiler_and_what_is_compiled_is_expected_until_it_has_ended() {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // Nobody ever has a turn.
        let settings = Settings { concurrent_max: 0, ..Settings::default() };
        let registry = registry(data.path(), Compiler::new(Place::InProcess, settings));
        for (file, content) in [("a@1.wasm", "x"), ("a@2.wasm", "y"), ("b@1.wasm", "x")] {
            fs::write(dir.path().join(file), content).unwrap();
        }
        let mut folder = Folder::new(dir.path().to_owned());
        assert!(folder.look(&registry).unwrap().is_empty());
        assert_eq!(registry.expected(), 3);
        assert!(registry.offers("a@2").is_ok() && registry.offers("a@3").is_err());
        let refusal = registry.resolve("a").map(drop).unwrap_err();
        assert!(refusal.message.contains("still being compiled"), "{refusal:?}");
        // One that is gone is not expected, whatever becomes of it.
        fs::remove_file(dir.path().join("b@1.wasm")).unwrap();
        assert!(folder.look(&registry).unwrap().is_empty());
        assert!(registry.expected() == 2 && registry.offers("b").is_err());
        registry.stop();
        assert_eq!(folder.finish(&registry).len(), 2);
        assert!(registry.expected() == 0 && registry.offers("a").is_err());
    }
}
