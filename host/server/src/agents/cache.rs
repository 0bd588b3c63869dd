//! Compiled components on disk.
//!
//! Compiling takes from 30 ms to many seconds, mapping the result a fraction
//! of a millisecond. A compiled component is native code that is trusted, so
//! the folder is the host's alone (mode 0700), only what the host's own
//! compiler made is put into it, by a rename, and a file's name holds the
//! digest of the component and what the engine is compatible with. Beside it
//! stand what its audit said, and the component itself: a job goes on with the
//! one it began with, whatever has been put in its place. Of what is no agent
//! it says why, so that it is not looked into again at every start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use wasmtime::{Engine, component::Component};

use super::{
    audit::{Audit, Digest},
    compiler::{CompileError, Compiler, Source},
    worker,
};
use crate::sandbox::engine;

/// How long what was used stays at least: another host may have put it there for a start that is still to come.
const KEPT_AT_LEAST: Duration = Duration::from_secs(3600);

/// What the name of a file ends in that says why a component is no agent.
const REFUSED: &str = "refused";

/// How long the digits of a digest are.
const DIGEST_CHARS: usize = 64;

/// A folder of compiled components.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// A component that can be linked and run, and what it asks for.
#[derive(Debug)]
pub struct Ready {
    /// What it asks for.
    pub audit: Audit,
    /// Its code.
    pub component: Component,
}

/// Why a component could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The folder failed.
    #[error("the compile cache `{}`: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// Others could have put code into the folder.
    #[error("the compile cache `{}` is open to other users; it must belong to this user with mode 0700", .0.display())]
    Exposed(PathBuf),
}

/// Why a component was refused, as it stands in the folder.
#[derive(Serialize, Deserialize)]
struct Refusal {
    /// By which build of the compiler: another may know better.
    build: String,
    reason: String,
}

/// What one look for what is not needed came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// How many files were removed.
    pub removed: usize,
    /// How much is in the folder now.
    pub size_bytes: u64,
}

impl Cache {
    /// Opens the folder, making it if need be.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or if others may write to it: whoever can put a
    /// file here runs code in the host.
    pub fn open(dir: PathBuf) -> Result<Self, CacheError> {
        let io = |source| CacheError::Io { path: dir.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io)?;
        let metadata = fs::symlink_metadata(&dir).map_err(io)?;
        let ours = metadata.uid() == rustix::process::getuid().as_raw();
        if !metadata.is_dir() || !ours || metadata.permissions().mode() & 0o077 != 0 {
            return Err(CacheError::Exposed(dir));
        }
        Ok(Self { dir })
    }

    /// Maps a component that was compiled before. Blocks, for less than a millisecond.
    #[must_use]
    pub fn load(&self, engine: &Engine, digest: &Digest) -> Option<Ready> {
        let (compiled, told) = self.paths(engine, digest);
        let audit = self.audit(&told, digest)?;
        match map(engine, &compiled) {
            Ok(component) => {
                [&compiled, &told, &self.component(digest)].into_iter().for_each(|path| touch(path));
                Some(Ready { audit, component })
            }
            Err(_) if !compiled.exists() => None,
            // A file of an engine we misjudged, or one that a full disk cut short.
            Err(error) => {
                tracing::warn!(path = %compiled.display(), %error, "a compiled component is compiled anew");
                None
            }
        }
    }

    /// Why a component is no agent, if this build of the compiler has found that before. Blocks, for less than a
    /// millisecond.
    #[must_use]
    pub fn refused(&self, engine: &Engine, compiler: &Compiler, digest: &Digest) -> Option<String> {
        let path = self.path(engine, digest, REFUSED);
        let mut text = Vec::new();
        File::open(&path).ok()?.take(worker::REPORT_BYTES_MAX as u64).read_to_end(&mut text).ok()?;
        let Refusal { build, reason } = serde_json::from_slice(&text).ok()?;
        (compiler.build()? == build).then(|| {
            touch(&path);
            reason
        })
    }

    /// Notes why a component is no agent. Where that fails it is found out again.
    fn refuse(&self, engine: &Engine, compiler: &Compiler, digest: &Digest, reason: &str) {
        let noted = || {
            let refusal = Refusal { build: compiler.build()?, reason: reason.to_owned() };
            let mut file = NamedTempFile::new_in(&self.dir).ok()?;
            serde_json::to_writer(&mut file, &refusal).ok()?;
            put(file, &self.path(engine, digest, REFUSED)).ok()
        };
        if noted().is_none() {
            tracing::warn!(%digest, "why a component is refused cannot be kept; it is looked at again at the next start");
        }
    }

    /// Has a component audited and compiled, and maps it. Blocks, for seconds.
    ///
    /// # Errors
    ///
    /// If it cannot be compiled or the folder fails.
    pub fn add(
        &self,
        engine: &Engine,
        compiler: &Compiler,
        digest: Digest,
        wasm: &[u8],
        bytes_max: usize,
    ) -> Result<Ready, CacheError> {
        let io = |source| CacheError::Io { path: self.dir.clone(), source };
        // The component stands under a name that no host looks for until it is known to be one.
        let mut component = NamedTempFile::new_in(&self.dir).map_err(io)?;
        component.write_all(wasm).map_err(io)?;
        let mut made = NamedTempFile::new_in(&self.dir).map_err(io)?;
        let source = Source { digest, wasm, file: File::open(component.path()).map_err(io)?, bytes_max };
        let compiled = compiler.compile(source, &engine::compatibility(engine), made.as_file_mut());
        if let Err(CompileError::NoAgent(reason)) = &compiled {
            self.refuse(engine, compiler, &digest, reason);
        }
        let audit = compiled?;

        let (compiled, told) = self.paths(engine, &digest);
        let mut facts = NamedTempFile::new_in(&self.dir).map_err(io)?;
        serde_json::to_writer(&mut facts, &audit).map_err(io::Error::from).map_err(io)?;
        // Before it has a name: what is not code for this engine gets none.
        let mapped = map(engine, made.path())
            .map_err(|error| CompileError::Failed(format!("what was compiled cannot be mapped: {error:#}")))?;
        // In this order: what has code also has its facts, and a job that runs it finds its component again.
        for (file, path) in [(component, self.component(&digest)), (facts, told), (made, compiled)] {
            put(file, &path).map_err(|source| CacheError::Io { path, source })?;
        }
        Ok(Ready { audit, component: mapped })
    }

    /// Keeps a component under its digest, for jobs that outlive its place in the agents folder. Blocks.
    ///
    /// # Errors
    ///
    /// If the folder fails.
    pub fn keep(&self, digest: &Digest, wasm: &[u8]) -> Result<(), CacheError> {
        let path = self.component(digest);
        if path.metadata().is_ok_and(|kept| kept.len() == wasm.len() as u64) {
            return Ok(());
        }
        let kept = NamedTempFile::new_in(&self.dir).and_then(|mut file| {
            file.write_all(wasm)?;
            put(file, &path)
        });
        kept.map_err(|source| CacheError::Io { path, source })
    }

    /// Reads a component that was kept. Blocks.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn kept(&self, digest: &str) -> io::Result<Vec<u8>> {
        fs::read(self.dir.join(format!("{digest}.wasm")))
    }

    /// How much is in the folder. Blocks.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.files()?.iter().map(|file| file.size_bytes).sum())
    }

    /// Removes what was not used for longest until no more than `bytes_max` is left, and what was cut off. Blocks.
    ///
    /// What was used in the last hour stays, and so does everything that is `needed`: it is marked as used now, for
    /// other hosts that look into the same folder.
    ///
    /// # Errors
    ///
    /// If the folder fails.
    pub fn tidy(&self, engine: &Engine, needed: &BTreeSet<String>, bytes_max: u64) -> io::Result<Tidied> {
        self.tidy_after(KEPT_AT_LEAST, engine, needed, bytes_max)
    }

    fn tidy_after(
        &self,
        kept: Duration,
        engine: &Engine,
        needed: &BTreeSet<String>,
        bytes_max: u64,
    ) -> io::Result<Tidied> {
        // The time by the clock that has stamped the files.
        let now = NamedTempFile::new_in(&self.dir)?.as_file().metadata()?.modified()?;
        let files = self.files()?;
        let mut tidied = Tidied { removed: 0, size_bytes: files.iter().map(|file| file.size_bytes).sum() };
        let current = engine::compatibility(engine);
        // What belongs together goes together: the code and its facts, or a component.
        let mut parts: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for file in files {
            let (digest, is_for) = (file.digest(), file.is_for());
            // Of an agent that is needed, what this host uses stays; what it was compiled to for another does not.
            if digest.is_some_and(|digest| needed.contains(digest)) && is_for.is_none_or(|is_for| is_for == current) {
                touch(&self.dir.join(&file.name));
                continue;
            }
            parts.entry(file.stem().to_owned()).or_default().push(file);
        }
        let used = |part: &Vec<Entry>| part.iter().map(|file| file.used).max().unwrap_or(now);
        let mut parts: Vec<Vec<Entry>> = parts.into_values().collect();
        parts.sort_by_key(used);
        for part in parts {
            let age = now.duration_since(used(&part)).unwrap_or_default();
            let cut_off = part.iter().any(|file| file.digest().is_none());
            if age < kept || (!cut_off && tidied.size_bytes <= bytes_max) {
                continue;
            }
            for file in part {
                match fs::remove_file(self.dir.join(&file.name)) {
                    Ok(()) => tidied.removed += 1,
                    // Another host was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                tidied.size_bytes = tidied.size_bytes.saturating_sub(file.size_bytes);
            }
        }
        Ok(tidied)
    }

    fn files(&self) -> io::Result<Vec<Entry>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // What has gone meanwhile, or is none of ours, does not count.
            let (Ok(metadata), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
            if metadata.is_file() {
                files.push(Entry { name, size_bytes: metadata.len(), used: metadata.modified()? });
            }
        }
        Ok(files)
    }

    /// What the audit of a component said that was compiled.
    fn audit(&self, path: &Path, digest: &Digest) -> Option<Audit> {
        let mut text = Vec::new();
        File::open(path).ok()?.take(worker::REPORT_BYTES_MAX as u64).read_to_end(&mut text).ok()?;
        let audit: Audit = serde_json::from_slice(&text).ok()?;
        (audit.digest == *digest).then_some(audit)
    }

    fn component(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}.wasm"))
    }

    /// Where the code of a component for this engine is, and what its audit said.
    fn paths(&self, engine: &Engine, digest: &Digest) -> (PathBuf, PathBuf) {
        (self.path(engine, digest, "cwasm"), self.path(engine, digest, "json"))
    }

    fn path(&self, engine: &Engine, digest: &Digest, ending: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{}.{ending}", engine::compatibility(engine)))
    }
}

/// A file of the folder: `DIGEST.wasm`, `DIGEST-ENGINE.cwasm`, `DIGEST-ENGINE.json`, `DIGEST-ENGINE.refused`, or one that
/// is being written.
struct Entry {
    name: String,
    size_bytes: u64,
    used: SystemTime,
}

impl Entry {
    fn stem(&self) -> &str {
        self.name.rsplit_once('.').map_or(&self.name, |(stem, _)| stem)
    }

    fn digest(&self) -> Option<&str> {
        let digest = self.stem().get(..DIGEST_CHARS)?;
        digest.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(digest)
    }

    /// Which engines it is for, if it was compiled for one.
    fn is_for(&self) -> Option<&str> {
        self.stem().get(DIGEST_CHARS..)?.strip_prefix('-')
    }
}

/// Gives a file its name when it is whole and on the disk, so that nobody maps half of one.
fn put(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Notes that a file was used. What cannot be noted is removed a little earlier.
fn touch(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let _ = utimensat(CWD, path, &Timestamps { last_access: now, last_modification: now }, AtFlags::empty());
}

/// Maps a file that this host compiled.
#[expect(unsafe_code, reason = "mapping compiled code is the one thing that cannot be checked")]
fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file stands in a folder that only this user can write (checked when it was opened), under a name
    // that only `Cache::add` makes or gives, and was compiled for this engine by this host's compiler from a component that
    // was audited. A child that compiled it could write to nothing but the pipe from which the host made the file.
    unsafe { Component::deserialize_file(engine, path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agents::compiler::{Place, Settings},
        sandbox::{engine::Sandbox, limits::Limits},
    };

    fn component(n: usize) -> Vec<u8> {
        let text = format!(
            r#"(component (core module $m (func (export "f")) (data "{n}"))
                (core instance $i (instantiate $m)) (func (export "run") (canon lift (core func $i "f"))))"#
        );
        wat::parse_str(text).unwrap()
    }

    struct Folder {
        _dir: tempfile::TempDir,
        cache: Cache,
        sandbox: Sandbox,
    }

    impl Folder {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let cache = Cache::open(dir.path().join("compiled")).unwrap();
            Self { _dir: dir, cache, sandbox: Sandbox::new(&Limits::default(), 1).unwrap() }
        }

        fn add(&self, wasm: &[u8]) -> Digest {
            let digest = Digest::of(wasm);
            let made = self.cache.add(self.sandbox.engine(), &Compiler::default(), digest, wasm, 1 << 20).unwrap();
            assert_eq!(made.audit.digest, digest);
            digest
        }

        fn has(&self, digest: &Digest) -> bool {
            self.cache.load(self.sandbox.engine(), digest).is_some()
        }

        fn tidy(&self, kept: Duration, needed: &[&Digest], bytes_max: u64) -> Tidied {
            let needed = needed.iter().map(ToString::to_string).collect();
            self.cache.tidy_after(kept, self.sandbox.engine(), &needed, bytes_max).unwrap()
        }
    }

    #[test]
    fn what_was_compiled_is_found_with_its_facts_and_nothing_else_is() {
        let folder = Folder::new();
        let digest = folder.add(&component(1));
        let ready = folder.cache.load(folder.sandbox.engine(), &digest).unwrap();
        assert_eq!((ready.audit.digest, ready.audit.exports), (digest, vec!["run".to_owned()]));
        assert!(!folder.has(&Digest::of(b"another")));
        // Facts of another component are no facts of this one.
        let other = folder.add(&component(2));
        let (_, facts) = folder.cache.paths(folder.sandbox.engine(), &digest);
        let (_, others) = folder.cache.paths(folder.sandbox.engine(), &other);
        fs::copy(others, &facts).unwrap();
        assert!(!folder.has(&digest));
        fs::write(&facts, "{").unwrap();
        assert!(!folder.has(&digest) && folder.has(&other));
    }

    #[test]
    fn what_is_no_agent_leaves_nothing_in_the_folder_but_why_for_the_build_that_found_it() {
        let folder = Folder::new();
        let (engine, compiler) = (folder.sandbox.engine(), Compiler::default());
        let wasm = b"\0asm and nothing that follows";
        let digest = Digest::of(wasm);
        assert_eq!(folder.cache.refused(engine, &compiler, &digest), None);
        let made = folder.cache.add(engine, &compiler, digest, wasm, 1 << 20);
        let Err(CacheError::Compile(CompileError::NoAgent(why))) = made else { panic!("{made:?}") };
        let files = fs::read_dir(&folder.cache.dir).unwrap();
        let names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.len() == 1 && names[0].ends_with(".refused"), "{names:?}");
        // The next host knows it, and one of another build finds out for itself.
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("leasehold");
        fs::write(&other, "another build").unwrap();
        for (place, known) in
            [(Place::default(), Some(why)), (Place::Program(other), None), (Place::Program("/gone".into()), None)]
        {
            let next = Compiler::new(place, Settings::default());
            assert_eq!(folder.cache.refused(engine, &next, &digest), known);
        }
        folder.cache.refuse(engine, &compiler, &digest, &"x".repeat(worker::REPORT_BYTES_MAX));
        assert_eq!(folder.cache.refused(engine, &compiler, &digest), None, "half of a note is none");
    }

    #[test]
    fn what_the_machine_or_a_setting_is_to_blame_for_is_not_kept() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::new();
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("compiler");
        for script in ["exec sleep 1000", "kill -XCPU $$", "kill -SEGV $$", "kill -KILL $$"] {
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
            let settings = Settings { timeout_sec: 1, ..Settings::default() };
            let compiler = Compiler::new(Place::Program(program.clone()), settings);
            let (engine, wasm) = (folder.sandbox.engine(), component(1));
            let made = folder.cache.add(engine, &compiler, Digest::of(&wasm), &wasm, 1 << 20);
            assert!(made.is_err(), "{script}");
            assert_eq!(fs::read_dir(&folder.cache.dir).unwrap().count(), 0, "{script}");
        }
    }

    #[test]
    fn what_a_compiler_makes_that_is_no_code_gets_no_name() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::new();
        let (engine, wasm) = (folder.sandbox.engine(), component(1));
        let (report, _) = worker::compile(&wasm, 1 << 20);
        let (dir, report) = (tempfile::tempdir().unwrap(), serde_json::to_string(&report).unwrap());
        let program = dir.path().join("liar");
        fs::write(&program, format!("#!/bin/sh\necho no code\necho '{report}' >&2\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let liar = Compiler::new(Place::Program(program), Settings::default());
        let error = loop {
            let error = folder.cache.add(engine, &liar, Digest::of(&wasm), &wasm, 1 << 20).unwrap_err().to_string();
            // Another test has started a child while this one's program was being written.
            if !error.contains("Text file busy") {
                break error;
            }
        };
        assert!(error.contains("cannot be mapped"), "{error}");
        assert_eq!(fs::read_dir(&folder.cache.dir).unwrap().count(), 0);
    }

    #[test]
    fn above_the_bound_what_was_not_used_for_longest_leaves_and_what_is_needed_stays() {
        let folder = Folder::new();
        let wasms: Vec<Vec<u8>> = (0..4).map(component).collect();
        let digests: Vec<Digest> = wasms.iter().map(|wasm| folder.add(wasm)).collect();
        let all = folder.cache.size_bytes().unwrap();
        let dated = |digest: &Digest, sec: u64| {
            let (code, facts) = folder.cache.paths(folder.sandbox.engine(), digest);
            for path in [code, facts, folder.cache.component(digest)] {
                let file = File::options().append(true).open(path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(sec)).unwrap();
            }
        };
        for (digest, sec) in digests.iter().zip([1_000, 2_000, 3_000, 4_000]) {
            dated(digest, sec);
        }
        // Within the bound everything stays, and so does what was used lately.
        assert_eq!(folder.tidy(Duration::ZERO, &[], all), Tidied { removed: 0, size_bytes: all });
        assert_eq!(folder.tidy(Duration::from_secs(1 << 40), &[], 0).removed, 0);
        // Of two that were not used for long the one is needed.
        let left = folder.tidy(Duration::ZERO, &[&digests[0]], all / 2 + 100);
        assert_eq!(left.size_bytes, folder.cache.size_bytes().unwrap());
        let there: Vec<bool> = digests.iter().map(|digest| folder.has(digest)).collect();
        assert_eq!(there, [true, false, false, true], "{left:?} of {all}");
        // Whatever the bound.
        dated(&digests[0], 1_000);
        folder.tidy(Duration::ZERO, &[&digests[0]], 0);
        assert!(folder.has(&digests[0]) && !folder.has(&digests[3]));
        assert_eq!(folder.cache.kept(&digests[0].to_string()).unwrap(), wasms[0]);
    }

    #[test]
    fn what_a_host_that_was_killed_has_left_is_removed_in_time() {
        let folder = Folder::new();
        let digest = folder.add(&component(1));
        let half = folder.cache.dir.join(".tmpHalf");
        fs::write(&half, "half").unwrap();
        assert_eq!(folder.tidy(Duration::from_secs(3600), &[&digest], u64::MAX).removed, 0);
        assert_eq!(folder.tidy(Duration::ZERO, &[&digest], u64::MAX).removed, 1);
        assert!(!half.exists() && folder.has(&digest));
    }
}
