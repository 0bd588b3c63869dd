//! The interface `fs`: files under `fs.read` and `fs.write` (ARCP §9.2).

use leasehold_core::{
    lease::operation::{AppendFile, CreateDirectory, ListDirectory, ReadFile, ReadRange, Remove, Stat, WriteFile},
    protocol::json::Json,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    Asked, JobCtx, Reported, Told,
    bindings::{fs, types::Error},
    mounts, truncate,
};

/// The most of a path that is shown; a longer one is refused anyway.
const SHOWN_PATH_BYTES_MAX: usize = 4096;

impl fs::Host for JobCtx {
    async fn read(&mut self, path: String) -> Result<Vec<u8>, Error> {
        let max = self.limits.file_bytes_max;
        let asked = read("fs.read", json!({ "path": shown(&path) }));
        self.call(asked, ReadFile::parse(&path), move |mounts, permit| mounts.read(permit, max)).await
    }

    async fn read_range(&mut self, path: String, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let max = self.limits.file_bytes_max;
        let asked = read("fs.read_range", json!({ "path": shown(&path), "offset": offset, "length": length }));
        let op = ReadRange::parse(&path, offset, length);
        self.call(asked, op, move |mounts, permit| mounts.read_range(permit, max)).await
    }

    async fn list(&mut self, path: String) -> Result<Vec<fs::Entry>, Error> {
        let max = self.limits.directory_entries_max;
        let asked = read("fs.list", json!({ "path": shown(&path) }));
        let entries = self.call(asked, ListDirectory::parse(&path), move |mounts, permit| mounts.list(permit, max));
        let entry = |entry: mounts::Entry| fs::Entry { name: entry.name, kind: entry.kind.into(), size: entry.size };
        Ok(entries.await?.into_iter().map(entry).collect())
    }

    async fn stat(&mut self, path: String) -> Result<fs::Metadata, Error> {
        let asked = read("fs.stat", json!({ "path": shown(&path) }));
        let stat = self.call(asked, Stat::parse(&path), mounts::Mounts::stat).await?;
        Ok(fs::Metadata { kind: stat.kind.into(), size: stat.size, modified: stat.modified.to_string() })
    }

    async fn write(&mut self, path: String, contents: Vec<u8>) -> Result<(), Error> {
        self.fits(&contents)?;
        let asked = write("fs.write", written(&path, &contents));
        let call = mounts::Call { job_id: self.accepted.job_id, number: self.calls + 1 };
        let effect = move |mounts: &mounts::Mounts, permit| mounts.write(permit, call, &contents);
        self.call(asked, WriteFile::parse(&path), effect).await
    }

    async fn append(&mut self, path: String, contents: Vec<u8>) -> Result<(), Error> {
        self.fits(&contents)?;
        let asked = write("fs.append", written(&path, &contents));
        let effect = move |mounts: &mounts::Mounts, permit| mounts.append(permit, &contents);
        self.call(asked, AppendFile::parse(&path), effect).await
    }

    async fn create_dir(&mut self, path: String) -> Result<(), Error> {
        let asked = write("fs.create_dir", json!({ "path": shown(&path) }));
        self.call(asked, CreateDirectory::parse(&path), mounts::Mounts::create_dir).await
    }

    async fn remove(&mut self, path: String) -> Result<(), Error> {
        let asked = write("fs.remove", json!({ "path": shown(&path) }));
        self.call(asked, Remove::parse(&path), mounts::Mounts::remove).await
    }
}

impl JobCtx {
    fn fits(&self, contents: &[u8]) -> Result<(), Error> {
        let max = self.limits.file_bytes_max;
        if contents.len() <= max {
            return Ok(());
        }
        let message = format!("the contents are {} bytes; at most {max} are written in one call", contents.len());
        Err(Error { code: super::types::ErrorCode::TooLarge, message })
    }
}

fn read(operation: &'static str, args: serde_json::Value) -> Asked {
    Asked { operation, args: Json::of(&args), repeatable: true }
}

fn write(operation: &'static str, args: serde_json::Value) -> Asked {
    Asked { operation, args: Json::of(&args), repeatable: false }
}

fn shown(path: &str) -> std::borrow::Cow<'_, str> {
    truncate(path, SHOWN_PATH_BYTES_MAX)
}

/// What was written stands in the journal as its size and digest.
fn written(path: &str, contents: &[u8]) -> serde_json::Value {
    let sha256 = format!("{:x}", Sha256::digest(contents));
    json!({ "path": shown(path), "size_bytes": contents.len(), "sha256": sha256 })
}

impl From<mounts::Kind> for fs::Kind {
    fn from(kind: mounts::Kind) -> Self {
        match kind {
            mounts::Kind::File => Self::File,
            mounts::Kind::Directory => Self::Directory,
            mounts::Kind::Other => Self::Other,
        }
    }
}

fn kind_name(kind: mounts::Kind) -> &'static str {
    match kind {
        mounts::Kind::File => "file",
        mounts::Kind::Directory => "directory",
        mounts::Kind::Other => "other",
    }
}

fn kind_named(name: &str) -> anyhow::Result<mounts::Kind> {
    let known = [mounts::Kind::File, mounts::Kind::Directory, mounts::Kind::Other];
    let found = known.into_iter().find(|kind| kind_name(*kind) == name);
    found.ok_or_else(|| anyhow::anyhow!("`{name}` is no kind of file"))
}

impl Reported for Vec<u8> {
    fn summary(&self) -> Json {
        Json::of(&json!({ "size_bytes": self.len() }))
    }

    fn answer(&self) -> Told {
        Told::Bytes(self.clone())
    }

    fn read_back(answer: &[u8]) -> anyhow::Result<Self> {
        Ok(answer.to_vec())
    }
}

impl Reported for Vec<mounts::Entry> {
    fn summary(&self) -> Json {
        Json::of(&json!({ "entries": self.len() }))
    }

    fn answer(&self) -> Told {
        let entry = |entry: &mounts::Entry| json!([entry.name, kind_name(entry.kind), entry.size]);
        Told::Json(Json::of(&self.iter().map(entry).collect::<Vec<_>>()))
    }

    fn read_back(answer: &[u8]) -> anyhow::Result<Self> {
        let entries: Vec<(String, String, u64)> = serde_json::from_slice(answer)?;
        let entry =
            |(name, kind, size): (String, String, u64)| Ok(mounts::Entry { name, kind: kind_named(&kind)?, size });
        entries.into_iter().map(entry).collect()
    }
}

impl Reported for mounts::Metadata {
    fn summary(&self) -> Json {
        Json::of(&json!({ "kind": kind_name(self.kind), "size_bytes": self.size }))
    }

    fn answer(&self) -> Told {
        Told::Json(Json::of(&json!([kind_name(self.kind), self.size, self.modified])))
    }

    fn read_back(answer: &[u8]) -> anyhow::Result<Self> {
        let (kind, size, modified): (String, _, _) = serde_json::from_slice(answer)?;
        Ok(Self { kind: kind_named(&kind)?, size, modified })
    }
}

impl Reported for () {
    fn summary(&self) -> Json {
        Json::of(&json!({}))
    }

    fn answer(&self) -> Told {
        Told::Nothing
    }

    fn read_back(_: &[u8]) -> anyhow::Result<Self> {
        Ok(())
    }
}
