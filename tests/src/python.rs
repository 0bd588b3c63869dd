//! Python from PyPI, in virtual environments that are made once and kept.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

/// How long an installation may take, with whatever it has to download.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

/// Makes a virtual environment under `dir` with `packages`, or finds the one an earlier run made, and gives its Python.
///
/// # Errors
///
/// If there is no Python, or a package cannot be installed.
pub async fn environment(dir: &Path, packages: &[&str]) -> Result<PathBuf, String> {
    let dir = dir.join(packages.join("+").replace("==", "-"));
    // Test processes may run side by side; the lock goes with the file.
    let lock = File::create(dir.with_added_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let (python, installed) = (dir.join("bin/python"), dir.join("installed"));
    if !installed.exists() {
        // What an interrupted run has left is no environment.
        let _ = fs::remove_dir_all(&dir);
        call("python3", &["-m".as_ref(), "venv".as_ref(), dir.as_os_str()]).await?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let words: Vec<&OsStr> = pip.iter().chain(packages).map(OsStr::new).collect();
        call(&python, &words).await?;
        File::create(&installed).map_err(|error| error.to_string())?;
    }
    Ok(python)
}

async fn call(program: impl AsRef<Path>, args: &[&OsStr]) -> Result<(), String> {
    let program = program.as_ref();
    let output = Command::new(program).args(args).kill_on_drop(true).output();
    let output = match tokio::time::timeout(INSTALL_TIMEOUT, output).await {
        Ok(output) => output.map_err(|error| format!("{}: {error}", program.display()))?,
        Err(_) => return Err(format!("{} {args:?} took too long", program.display())),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Err(format!("{} {args:?} failed ({}):\n{said}", program.display(), output.status))
}
