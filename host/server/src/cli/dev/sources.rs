//! The sources of a project, looked at again whenever something in its folder changes.
//!
//! A change is what leaves a file another than it was at the last look: the
//! operating system tells of much more, such as each file a compiler reads.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use crate::project::Language;

/// Editors write, rename and set times: what comes so soon after another change belongs to it.
const QUIET: Duration = Duration::from_millis(80);

/// What never comes to rest is looked at after so long.
const RESTLESS: Duration = Duration::from_secs(1);

/// Folders in a project's own that hold what tools make.
const MADE: [&str; 5] = ["agents", "build", "dist", "node_modules", "target"];

/// Begins to watch the sources of a project. Each answer is a list of the files that were saved, from its folder.
///
/// # Errors
///
/// If the operating system watches no more folders.
pub fn watch(dir: &Path, language: Language) -> notify::Result<mpsc::UnboundedReceiver<Vec<String>>> {
    let (told, mut events) = mpsc::unbounded_channel();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // What is only read does not count. An error may stand for changes that were not told of.
        if event.map_or(true, |event| !event.kind.is_access()) {
            // Nobody listens any more when the program ends.
            let _ = told.send(());
        }
    })?;
    let mut sources = Sources { dir: dir.to_owned(), language, watcher, seen: BTreeMap::new() };
    sources.seen = sources.look()?;
    let (sender, saved) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while events.recv().await.is_some() {
            let restless = Instant::now() + RESTLESS;
            while let Ok(Ok(Some(()))) = timeout_at(restless, timeout(QUIET, events.recv())).await {}
            let files = sources.saved();
            if !files.is_empty() && sender.send(files).is_err() {
                return;
            }
        }
    });
    Ok(saved)
}

struct Sources {
    dir: PathBuf,
    language: Language,
    watcher: RecommendedWatcher,
    seen: BTreeMap<String, Stamp>,
}

/// What changes when a file is saved.
#[derive(PartialEq)]
struct Stamp(Option<SystemTime>, u64);

impl Sources {
    /// The files that are others than they were at the last look, or gone.
    fn saved(&mut self) -> Vec<String> {
        // A folder that cannot be watched any more is as good as unchanged, until the next event.
        let Ok(now) = self.look() else { return Vec::new() };
        let before = std::mem::replace(&mut self.seen, now);
        let changed = self.seen.iter().filter(|(path, stamp)| before.get(*path) != Some(*stamp)).map(|(path, _)| path);
        let gone = before.keys().filter(|path| !self.seen.contains_key(*path));
        changed.chain(gone).cloned().collect()
    }

    /// Goes through the folders, and watches them.
    fn look(&mut self) -> notify::Result<BTreeMap<String, Stamp>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let path = self.dir.join(&folder);
            // Before it is read: what comes into it afterwards is told of. A folder that went meanwhile is no error.
            match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
                Err(error) if folder.is_empty() || path.is_dir() => return Err(error),
                _ => {}
            }
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                let inside = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_dir() {
                    if holds_sources(&inside) && !entry.path().join("CACHEDIR.TAG").exists() {
                        folders.push(inside);
                    }
                } else if is_source(&inside, self.language) {
                    found.insert(inside, Stamp(metadata.modified().ok(), metadata.len()));
                }
            }
        }
        Ok(found)
    }
}

/// Whether a folder may hold sources: not what is hidden, and not what tools make.
fn holds_sources(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    !name.starts_with('.') && !["__pycache__", "node_modules"].contains(&name) && !MADE.contains(&path)
}

/// Whether a file is one the agent is made of: everything in `src` and in `leasehold`, manifests, and what is written
/// in the language elsewhere.
///
/// Lock files are written by builds, and what an agent writes beside its sources must not have it run for ever.
fn is_source(path: &str, language: Language) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    // Vim tries with a file of the name 4913 whether it can write.
    let of_editor = name.starts_with(['.', '#']) || name.ends_with('~') || name == "4913";
    let (_, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    if of_editor || ["swp", "swx", "tmp", "bak", "orig", "lock", "sum"].contains(&ending) || name == "package-lock.json"
    {
        return false;
    }
    if ["src", "leasehold"].contains(&folder.split('/').next().unwrap_or_default()) {
        return true;
    }
    let endings: &[&str] = match language {
        Language::Rust => &["rs", "toml"],
        Language::Python => &["py", "pyi", "toml"],
        Language::JavaScript => &["ts", "tsx", "mts", "cts", "js", "jsx", "mjs", "cjs", "json"],
        Language::Go => &["go", "mod", "s", "toml"],
        Language::C => &["c", "h", "toml"],
    };
    endings.contains(&ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_is_made_of_is_told_from_what_lies_beside_it() {
        use Language::*;
        let table = [
            ("src/lib.rs", Rust, true),
            ("build.rs", Rust, true),
            ("Cargo.toml", Rust, true),
            ("Cargo.lock", Rust, false), // written by a build
            ("src/words.txt", Rust, true),
            ("words.txt", Rust, false),
            ("src/.lib.rs.swp", Rust, false),
            ("src/lib.rs~", Rust, false),
            ("src/#lib.rs#", Rust, false),
            ("src/4913", Rust, false),
            ("leasehold/wit/world.wit", C, true),
            ("agent.py", Python, true),
            ("report/words.py", Python, true),
            ("agent.go", Python, false),
            ("package.json", JavaScript, true),
            ("package-lock.json", JavaScript, false),
            ("go.mod", Go, true),
            ("go.sum", Go, false),
            ("agent.toml", Go, true),
            ("report.md", C, false),
        ];
        for (path, language, expected) in table {
            assert_eq!(is_source(path, language), expected, "{path}");
        }
        let table = [
            ("src", true),
            ("src/agents", true),
            ("agents", false),
            ("target", false),
            (".git", false),
            (".venv", false),
            ("src/__pycache__", false),
            ("web/node_modules", false),
        ];
        for (path, expected) in table {
            assert_eq!(holds_sources(path), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn a_save_is_told_once_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        fs::write(dir.path().join("agent.py"), "").unwrap();
        let mut saved = watch(dir.path(), Language::Python).unwrap();
        fs::write(dir.path().join("target/made.py"), "1").unwrap();
        fs::write(dir.path().join("notes.md"), "1").unwrap();
        fs::write(dir.path().join("agent.py"), "1").unwrap();
        assert_eq!(saved.recv().await.unwrap(), ["agent.py"]);
        // A folder that came later, and an editor that writes beside and renames.
        fs::create_dir_all(dir.path().join("report/parts")).unwrap();
        fs::write(dir.path().join("report/parts/words.py"), "").unwrap();
        assert_eq!(saved.recv().await.unwrap(), ["report/parts/words.py"]);
        fs::write(dir.path().join("report/parts/.words.py.part"), "22").unwrap();
        fs::rename(dir.path().join("report/parts/.words.py.part"), dir.path().join("report/parts/words.py")).unwrap();
        assert_eq!(saved.recv().await.unwrap(), ["report/parts/words.py"]);
        fs::remove_file(dir.path().join("agent.py")).unwrap();
        assert_eq!(saved.recv().await.unwrap(), ["agent.py"]);
    }
}
