//! The interface `fs`: files under `fs.read` and `fs.write` (ARCP §9.2).

use leasehold_core::{
    job::record::{Accepted, Intent},
    lease::{
        gate::{Gate, Permit},
        operation::{AppendFile, CreateDirectory, ListDirectory, ReadFile, ReadRange, Remove, Stat, WriteFile},
        target::TargetError,
    },
    protocol::json::Json,
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Asked, Effect, JobCtx, Reported, Told,
    bindings::{fs, types::Error},
    mounts::{self, Before, Call, FileError, Fingerprint, Mounts, Settled},
    truncate,
};

/// The most of a path that is shown; a longer one is refused anyway.
const SHOWN_PATH_BYTES_MAX: usize = 4096;

impl fs::Host for JobCtx {
    async fn read(&mut self, path: String) -> Result<Vec<u8>, Error> {
        let max = self.limits.file_bytes_max;
        let asked = asked("fs.read", json!({ "path": shown(&path) }));
        self.call(asked, ReadFile::parse(&path), move |mounts, permit| mounts.read(permit, max)).await
    }

    async fn read_range(&mut self, path: String, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let max = self.limits.file_bytes_max;
        let asked = asked("fs.read_range", json!({ "path": shown(&path), "offset": offset, "length": length }));
        let op = ReadRange::parse(&path, offset, length);
        self.call(asked, op, move |mounts, permit| mounts.read_range(permit, max)).await
    }

    async fn list(&mut self, path: String) -> Result<Vec<fs::Entry>, Error> {
        let max = self.limits.directory_entries_max;
        let asked = asked("fs.list", json!({ "path": shown(&path) }));
        let entries = self.call(asked, ListDirectory::parse(&path), move |mounts, permit| mounts.list(permit, max));
        let entry = |entry: mounts::Entry| fs::Entry { name: entry.name, kind: entry.kind.into(), size: entry.size };
        Ok(entries.await?.into_iter().map(entry).collect())
    }

    async fn stat(&mut self, path: String) -> Result<fs::Metadata, Error> {
        let asked = asked("fs.stat", json!({ "path": shown(&path) }));
        let stat = self.call(asked, Stat::parse(&path), Mounts::stat).await?;
        Ok(fs::Metadata { kind: stat.kind.into(), size: stat.size, modified: stat.modified.to_string() })
    }

    async fn write(&mut self, path: String, contents: Vec<u8>) -> Result<(), Error> {
        self.fits(&contents)?;
        let asked = asked("fs.write", written(&path, &contents));
        self.change(asked, WriteFile::parse(&path), contents).await
    }

    async fn append(&mut self, path: String, contents: Vec<u8>) -> Result<(), Error> {
        self.fits(&contents)?;
        let asked = asked("fs.append", written(&path, &contents));
        self.change(asked, AppendFile::parse(&path), contents).await
    }

    async fn create_dir(&mut self, path: String) -> Result<(), Error> {
        let asked = asked("fs.create_dir", json!({ "path": shown(&path) }));
        self.change(asked, CreateDirectory::parse(&path), Vec::new()).await
    }

    async fn remove(&mut self, path: String) -> Result<(), Error> {
        let asked = asked("fs.remove", json!({ "path": shown(&path) }));
        self.change(asked, Remove::parse(&path), Vec::new()).await
    }
}

impl Effect for WriteFile {
    fn perform(mounts: &Mounts, permit: Permit<Self>, call: Call, contents: &[u8]) -> Result<(), FileError> {
        mounts.write(permit, call, contents)
    }
}

impl Effect for AppendFile {
    fn perform(mounts: &Mounts, permit: Permit<Self>, _: Call, contents: &[u8]) -> Result<(), FileError> {
        mounts.append(permit, contents)
    }

    fn finish(mounts: &Mounts, permit: Permit<Self>, contents: &[u8], before: &Before) -> Result<Settled, FileError> {
        mounts.finish_append(permit, contents, before)
    }
}

impl Effect for CreateDirectory {
    fn perform(mounts: &Mounts, permit: Permit<Self>, _: Call, _: &[u8]) -> Result<(), FileError> {
        mounts.create_dir(permit)
    }
}

impl Effect for Remove {
    fn perform(mounts: &Mounts, permit: Permit<Self>, _: Call, _: &[u8]) -> Result<(), FileError> {
        mounts.remove(permit)
    }
}

/// Finds out what became of a change that was under way when its host was stopped, without what it would have written.
/// Blocks.
///
/// No job may run yet: what it did to the same file would be taken for this one's.
#[must_use]
pub fn settle(mounts: &Mounts, accepted: &Accepted, intent: &Intent) -> Settled {
    #[derive(Deserialize)]
    struct Args {
        path: String,
    }
    let args = intent.args.as_str();
    let Ok(Args { path }) = serde_json::from_str(args) else {
        return Settled::Unknown { why: "the journal does not say of what".to_owned() };
    };
    match intent.operation.as_str() {
        "fs.write" => settle_as(mounts, accepted, intent, WriteFile::parse(&path)),
        "fs.append" => settle_as(mounts, accepted, intent, AppendFile::parse(&path)),
        "fs.create_dir" => settle_as(mounts, accepted, intent, CreateDirectory::parse(&path)),
        "fs.remove" => settle_as(mounts, accepted, intent, Remove::parse(&path)),
        other => Settled::Unknown { why: format!("this host does not know `{other}`") },
    }
}

fn settle_as<Op: Effect>(
    mounts: &Mounts,
    accepted: &Accepted,
    intent: &Intent,
    op: Result<Op, TargetError>,
) -> Settled {
    let unknown = |why: &str| Settled::Unknown { why: why.to_owned() };
    let before = intent.before.as_ref().and_then(|before| serde_json::from_str::<Before>(before.as_str()).ok());
    let Some(before) = before else { return unknown("the journal does not say what was there before") };
    // As it was permitted then: what it has spent since is no reason to leave it open.
    let permit = op.ok().and_then(|op| Gate::new(accepted.authority.clone()).permit(intent.at, op).ok());
    let Some(permit) = permit else { return unknown("the lease does not cover it") };
    let call = Call { job_id: accepted.job_id, number: intent.call };
    let wanted: Option<Fingerprint> = serde_json::from_str(intent.args.as_str()).ok();
    mounts.settle(&permit, call, &before, wanted.as_ref())
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

fn asked(operation: &'static str, args: serde_json::Value) -> Asked {
    Asked { operation, args: Json::of(&args) }
}

fn shown(path: &str) -> std::borrow::Cow<'_, str> {
    truncate(path, SHOWN_PATH_BYTES_MAX)
}

/// What was written stands in the journal as its size and digest.
fn written(path: &str, contents: &[u8]) -> serde_json::Value {
    let Fingerprint { size_bytes, sha256 } = Fingerprint::of(contents);
    json!({ "path": shown(path), "size_bytes": size_bytes, "sha256": sha256 })
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
