//! The newcomer's path: a project is started, built and run, as its own README says.

use std::{fs, path::Path, time::Duration};

use leasehold_tests::program::{Outcome, leasehold, outcome_within, run};

use crate::code;

/// How long a build may take that begins with downloads.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_new_project_builds_and_runs_as_its_readme_says() {
    let dir = tempfile::tempdir().unwrap();
    let said = call(dir.path(), &["new", "word-count"]).await.exits(code::SUCCESS).stdout;
    assert!(said.contains("cd word-count && leasehold build ."), "{said}");
    let project = dir.path().join("word-count");
    let readme = fs::read_to_string(project.join("README.md")).unwrap();

    let built = call(&project, &["build", ".", "--json"]).await.exits(code::SUCCESS).objects();
    assert_eq!((built.len(), &built[0]["agent"]), (1, &"word-count@0.1.0".into()), "{built:?}");
    assert!(project.join("agents/word-count@0.1.0.wasm").is_file());

    // The first command runs the agent under a lease that suffices, the second under one that does not.
    let commands: Vec<Vec<String>> = commands(&readme).filter(|command| command[1] == "run").collect();
    assert_eq!(commands.len(), 2, "{readme}");
    let report = call(&project, &commands[0][1..]).await.exits(code::SUCCESS);
    assert_eq!(report.json()["lines"], readme.lines().count());
    assert!(report.stderr.contains("allowed  fs.read /workspace/README.md"), "{}", report.stderr);
    let refused = call(&project, &commands[1][1..]).await.exits(code::JOB_FAILED);
    assert!(refused.stdout.is_empty(), "{}", refused.stdout);
    let _ = refused.complains("PERMISSION_DENIED: the lease grants no fs.read on /workspace/README.md");
}

#[tokio::test]
async fn a_project_is_not_written_over_another_or_under_a_bad_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("taken")).unwrap();
    fs::write(dir.path().join("taken/mine.txt"), "mine").unwrap();
    for (name, named) in [("taken", "taken"), ("Loud", "`Loud`"), ("../up", "`../up`"), ("fn", "`fn`"), ("", "``")] {
        let _ = call(dir.path(), &["new", name]).await.exits(code::USAGE).complains(named);
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["taken"]);
    assert_eq!(fs::read_dir(dir.path().join("taken")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_that_holds_no_agent_is_not_built() {
    let dir = tempfile::tempdir().unwrap();
    let _ = call(dir.path(), &["build", "."]).await.exits(code::USAGE).complains("leasehold new");
    let _ = run(["build", "/no/such/folder"]).await.exits(code::USAGE).complains("/no/such/folder");
}

/// Calls the program in a folder.
async fn call(dir: &Path, args: &[impl AsRef<str>]) -> Outcome {
    let mut command = leasehold();
    command.args(args.iter().map(AsRef::as_ref)).current_dir(dir);
    // What a project depends on is compiled once, and kept for the next run of the suite.
    command.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("projects"));
    outcome_within(BUILD_TIMEOUT, command).await
}

/// The commands of a README, as a shell would split them: it has single quotes and continued lines, no more.
fn commands(readme: &str) -> impl Iterator<Item = Vec<String>> {
    let joined = readme.replace("\\\n", " ");
    let lines: Vec<String> =
        joined.lines().filter(|line| line.starts_with("    leasehold ")).map(str::to_owned).collect();
    lines.into_iter().map(|line| {
        let mut words = Vec::new();
        for (n, part) in line.split('\'').enumerate() {
            if n % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words
    })
}
