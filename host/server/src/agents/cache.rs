//! Compiled components on disk.
//!
//! Compiling takes from 30 ms to many seconds, mapping the result a fraction
//! of a millisecond. A compiled component is native code that is trusted, so
//! the folder is the host's alone (mode 0700), and a file's name holds the
//! digest of the component and the engine's compatibility hash. Beside it the
//! component itself is kept: a job goes on with the one it began with, whatever
//! has been put in its place.

use std::{
    fs,
    hash::{Hash, Hasher},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use wasmtime::{Engine, component::Component};

use super::audit::Digest;

/// A folder of compiled components.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// Why a component could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The compiler refused it.
    #[error("cannot compile the component: {0}")]
    Compile(String),
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

    /// Maps the compiled component, or compiles it first. Blocks, for seconds if it compiles.
    ///
    /// # Errors
    ///
    /// If the component cannot be compiled or the folder fails.
    pub fn load(&self, engine: &Engine, digest: &Digest, wasm: &[u8]) -> Result<Component, CacheError> {
        let path = self.path(engine, digest);
        if path.exists() {
            match map(engine, &path) {
                Ok(component) => return Ok(component),
                // A file of an engine we misjudged, or one that a full disk cut short.
                Err(error) => tracing::warn!(path = %path.display(), %error, "a compiled component is compiled anew"),
            }
        }
        let compiled = engine.precompile_component(wasm).map_err(|error| CacheError::Compile(format!("{error:#}")))?;
        self.put(&path, &compiled).map_err(|source| CacheError::Io { path: path.clone(), source })?;
        map(engine, &path).map_err(|error| CacheError::Compile(format!("{error:#}")))
    }

    /// Keeps a component under its digest, for jobs that outlive its place in the agents folder. Blocks.
    ///
    /// # Errors
    ///
    /// If the folder fails.
    pub fn keep(&self, digest: &Digest, wasm: &[u8]) -> Result<(), CacheError> {
        let path = self.dir.join(format!("{digest}.wasm"));
        if path.metadata().is_ok_and(|kept| kept.len() == wasm.len() as u64) {
            return Ok(());
        }
        self.put(&path, wasm).map_err(|source| CacheError::Io { path, source })
    }

    /// Reads a component that was kept. Blocks.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn kept(&self, digest: &str) -> io::Result<Vec<u8>> {
        fs::read(self.dir.join(format!("{digest}.wasm")))
    }

    fn path(&self, engine: &Engine, digest: &Digest) -> PathBuf {
        // The hash only has to be the same for the same engine of the same build.
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.dir.join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
    }

    /// Writes beside and renames, so that nobody maps half a file.
    fn put(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        io::Write::write_all(&mut file, contents)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

/// Maps a file that this host compiled.
#[expect(unsafe_code, reason = "mapping compiled code is the one thing that cannot be checked")]
fn map(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file stands in a folder that only this user can write (checked when it was opened), under a name
    // that only `Cache::put` makes, and was compiled by this engine from a component that was audited.
    unsafe { Component::deserialize_file(engine, path) }
}
