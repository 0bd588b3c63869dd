//! A project to begin an agent with: `leasehold new`.
//!
//! The project stands on its own. The SDKs are on no registry, so a copy of
//! the language's own and of the contract lies in the project's `leasehold`
//! folder, written from files this program carries. Nothing is fetched.

mod rust;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    agents::registry,
    project::{self, Language},
};

/// What a project can be begun in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// Rust.
    Rust,
    /// Python.
    Python,
    /// TypeScript.
    TypeScript,
    /// JavaScript.
    JavaScript,
    /// Go.
    Go,
    /// C.
    C,
}

/// Names a language by its templates, and embeds these under the paths they have in a project.
macro_rules! templates {
    ($folder:literal: $($from:literal => $to:literal),* $(,)?) => {
        &[$(($to, include_str!(concat!("../../templates/", $folder, "/", $from)))),*]
    };
}

/// The projects themselves. `{{…}}` is filled in.
const RUST: &[project::File] = templates!("rust":
    "gitignore.in" => ".gitignore",
    "Cargo.toml.in" => "Cargo.toml",
    "README.md.in" => "README.md",
    "leasehold.md.in" => "leasehold/README.md",
    "lib.rs" => "src/lib.rs",
);

const PYTHON: &[project::File] = templates!("python":
    "README.md.in" => "README.md",
    "agent.py" => "agent.py",
    "gitignore.in" => ".gitignore",
    "leasehold.md.in" => "leasehold/README.md",
    "pyproject.toml.in" => "pyproject.toml",
    "tests/__init__.py" => "tests/__init__.py",
    "tests/test_agent.py" => "tests/test_agent.py",
);

const TYPESCRIPT: &[project::File] = templates!("typescript":
    "README.md.in" => "README.md",
    "agent.ts" => "src/agent.ts",
    "gitignore.in" => ".gitignore",
    "leasehold.md.in" => "leasehold/README.md",
    "package.json.in" => "package.json",
    "report.test.ts" => "src/report.test.ts",
    "report.ts" => "src/report.ts",
    "tsconfig.json" => "tsconfig.json",
);

const JAVASCRIPT: &[project::File] = templates!("javascript":
    "README.md.in" => "README.md",
    "agent.js" => "src/agent.js",
    "gitignore.in" => ".gitignore",
    "leasehold.md.in" => "leasehold/README.md",
    "package.json.in" => "package.json",
    "report.js" => "src/report.js",
    "report.test.js" => "src/report.test.js",
    "tsconfig.json" => "tsconfig.json",
);

const GO: &[project::File] = templates!("go":
    "README.md.in" => "README.md",
    "agent.toml.in" => "agent.toml",
    "gitignore.in" => ".gitignore",
    "go.mod.in" => "go.mod",
    "leasehold.md.in" => "leasehold/README.md",
    "main.go" => "main.go",
    "main_test.go" => "main_test.go",
);

const C: &[project::File] = templates!("c":
    "Makefile" => "Makefile",
    "README.md.in" => "README.md",
    "agent.c" => "src/agent.c",
    "agent.toml.in" => "agent.toml",
    "count.c" => "src/count.c",
    "count.h" => "src/count.h",
    "gitignore.in" => ".gitignore",
    "leasehold.md.in" => "leasehold/README.md",
    "test.c" => "test/test.c",
);

impl Template {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Rust, Self::Python, Self::TypeScript, Self::JavaScript, Self::Go, Self::C];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::TypeScript => "TypeScript",
            Self::JavaScript => "JavaScript",
            Self::Go => "Go",
            Self::C => "C",
        }
    }

    /// The language whose SDK it uses and whose tools build it.
    #[must_use]
    pub fn language(self) -> Language {
        match self {
            Self::Rust => Language::Rust,
            Self::Python => Language::Python,
            Self::TypeScript | Self::JavaScript => Language::JavaScript,
            Self::Go => Language::Go,
            Self::C => Language::C,
        }
    }

    fn files(self) -> &'static [project::File] {
        match self {
            Self::Rust => RUST,
            Self::Python => PYTHON,
            Self::TypeScript => TYPESCRIPT,
            Self::JavaScript => JAVASCRIPT,
            Self::Go => GO,
            Self::C => C,
        }
    }

    /// Says why a name is no good: it is the agent's (ARCP §7.5), the folder's and the package's.
    fn check(self, name: &str) -> Result<(), &'static str> {
        if !registry::is_name(name) {
            return Err("use a-z, 0-9, `_` and `-`, beginning with a letter");
        }
        if name.len() > 64 {
            return Err("it is longer than 64 characters");
        }
        if !name.ends_with(|last: char| last.is_ascii_alphanumeric()) {
            return Err("it ends with a letter or a digit");
        }
        match self {
            Self::Rust => rust::check_name(name),
            Self::TypeScript | Self::JavaScript if ["node_modules", "favicon.ico"].contains(&name) => {
                Err("the name means something else to npm")
            }
            Self::Go if name.contains("..") => Err("a module of Go has no `..` in its path"),
            _ => Ok(()),
        }
    }
}

/// Why a project was not written.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The name cannot be an agent's, or not a package's.
    #[error("`{name}` cannot be the name of an agent in {language}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What the agent was to be written in.
        language: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is something already.
    #[error("{} is not an empty folder: choose another one, so that nothing is overwritten", .0.display())]
    Occupied(PathBuf),
    /// The operating system refused something.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Writes a project for an agent into `dir`, which is made or empty.
///
/// # Errors
///
/// If the name is no good (ARCP §7.5, and the language's own rules) or something
/// is in the way; then nothing is written.
pub fn new(template: Template, name: &str, dir: &Path) -> Result<(), ScaffoldError> {
    let language = template.name();
    template.check(name).map_err(|reason| ScaffoldError::Name { name: name.to_owned(), language, reason })?;
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| ScaffoldError::Io { path, source }
    };
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(ScaffoldError::Occupied(dir.to_owned()));
            }
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) if source.kind() == io::ErrorKind::NotADirectory => {
            return Err(ScaffoldError::Occupied(dir.to_owned()));
        }
        Err(source) => return Err(error(dir)(source)),
    }
    for (file, contents) in files(template, name) {
        let path = dir.join(file);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(error(folder))?;
        }
        // `create_new`, because the folder may have filled since it was looked at.
        let mut file = File::create_new(&path).map_err(error(&path))?;
        file.write_all(contents.as_bytes()).map_err(error(&path))?;
    }
    Ok(())
}

/// Every file of a project, by its path in it.
fn files(template: Template, name: &str) -> Vec<(String, String)> {
    let mut values = vec![("{{name}}", name.to_owned()), ("{{version}}", env!("CARGO_PKG_VERSION").to_owned())];
    let mut copied: Vec<project::File> = project::WIT.to_vec();
    copied.extend(template.language().sdk());
    let mut derived = Vec::new();
    if template == Template::Rust {
        values.extend(rust::values());
        derived.push((rust::SDK_MANIFEST_PATH, rust::sdk_manifest()));
    }
    let fill = |text: &str| values.iter().fold(text.to_owned(), |text, (mark, value)| text.replace(mark, value));
    let own = template.files().iter().map(|(path, text)| ((*path).to_owned(), fill(text)));
    let copied = copied.into_iter().map(|(path, contents)| (path, contents.to_owned()));
    let copied = copied.chain(derived).map(|(path, contents)| (format!("leasehold/{path}"), contents));
    own.chain(copied).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, process::Command};

    use super::*;

    fn names_below(folder: &Path, prefix: &str, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                names_below(&path, &format!("{name}/"), names);
            } else {
                names.insert(name);
            }
        }
    }

    /// A template that lies there and is not embedded would be missing in every project.
    #[test]
    fn every_template_is_embedded() {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        let of = |template: Template| match template {
            Template::Rust => "rust",
            Template::Python => "python",
            Template::TypeScript => "typescript",
            Template::JavaScript => "javascript",
            Template::Go => "go",
            Template::C => "c",
        };
        for template in Template::ALL {
            let mut found = BTreeSet::new();
            names_below(&templates.join(of(template)), "", &mut found);
            assert_eq!(found.len(), template.files().len(), "{template:?}: {found:?}");
        }
    }

    #[test]
    fn a_new_project_is_complete_and_filled_in() {
        for template in Template::ALL {
            let dir = tempfile::tempdir().unwrap();
            let project = dir.path().join("word-count");
            new(template, "word-count", &project).unwrap();
            let mut found = BTreeSet::new();
            names_below(&project, "", &mut found);
            let sdk = template.language().sdk();
            assert!(!sdk.is_empty(), "{template:?}");
            for (path, _) in project::WIT.iter().chain(sdk) {
                assert!(found.contains(&format!("leasehold/{path}")), "{template:?}: {path}");
            }
            for (path, _) in template.files() {
                let contents = fs::read_to_string(project.join(path)).unwrap();
                assert!(!contents.contains("{{"), "{template:?}: {path}: {contents}");
            }
            for path in ["README.md", ".gitignore", "leasehold/README.md"] {
                assert!(found.contains(path), "{template:?}: {path}");
            }
            let ignored = fs::read_to_string(project.join(".gitignore")).unwrap();
            assert!(ignored.lines().any(|line| line == "/agents"), "{template:?}: {ignored}");
        }
    }

    /// Cargo reads the manifests without fetching anything.
    #[test]
    fn cargo_understands_a_new_project() {
        let dir = tempfile::tempdir().unwrap();
        new(Template::Rust, "word-count", dir.path()).unwrap();
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap().iter();
        let names: BTreeSet<_> = packages.map(|package| package["name"].as_str().unwrap()).collect();
        assert_eq!(names, BTreeSet::from(["leasehold-agent", "word-count"]));
    }

    #[test]
    fn a_name_has_to_please_arcp_and_the_language() {
        let long = "w".repeat(65);
        let (all, rust) = (&Template::ALL[..], &[Template::Rust][..]);
        let npm = &[Template::TypeScript, Template::JavaScript][..];
        // name, and those it is no good for
        let table: [(&str, &[Template]); 18] = [
            ("word-count", &[]),
            ("a", &[]),
            ("word_count2", &[]),
            ("", all),
            ("Word", all),
            ("-word", all),
            ("word-", all),
            ("word count", all),
            ("../word", all),
            ("wörter", all),
            (&long, all),
            ("word.count", rust), // an agent's name, but no package's
            ("2words", rust),
            ("type", rust),
            ("serde", rust), // would depend on itself
            ("node_modules", npm),
            ("a..b", &[Template::Rust, Template::Go]),
            ("b.", all),
        ];
        for (name, bad) in table {
            for template in Template::ALL {
                let dir = tempfile::tempdir().unwrap();
                let outcome = new(template, name, &dir.path().join("project"));
                let good = !bad.contains(&template);
                assert_eq!(outcome.is_ok(), good, "{name} in {template:?}: {outcome:?}");
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), usize::from(good), "{name}");
            }
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "mine").unwrap();
        for occupied in [dir.path().to_owned(), dir.path().join("file")] {
            let error = new(Template::Rust, "word-count", &occupied).unwrap_err();
            assert!(matches!(error, ScaffoldError::Occupied(_)), "{error}");
        }
        assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
