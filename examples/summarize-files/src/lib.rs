//! Reads a folder and streams a report on its words.
//!
//! What an agent meets in its life is here once each: files, progress, money,
//! a refusal, a cancellation and a result that is streamed.

mod report;
mod words;

use leasehold_agent::{Error, ErrorCode, agent, events, fs, fs::Entry, info, job, metrics, output::TextWriter, warn};
use serde::Deserialize;

use crate::words::Words;

/// Larger files are seldom prose, and reading them would be most of the work.
const SIZE_MAX: u64 = 1024 * 1024;

#[derive(Deserialize)]
struct Input {
    path: String,
    #[serde(default = "max_files_default")]
    max_files: usize,
    /// A file outside the lease, read on purpose to show what a refusal is.
    try_outside: Option<String>,
    #[serde(default = "price_default")]
    price_per_file: String,
    #[serde(default = "currency_default")]
    currency: String,
}

fn max_files_default() -> usize {
    500
}

fn price_default() -> String {
    "0.0001".into()
}

fn currency_default() -> String {
    "USD".into()
}

agent!(run);

fn run(input: Input) -> Result<String, Error> {
    if let Some(path) = &input.try_outside {
        try_outside(path)?;
    }
    events::status("listing").message(&input.path).emit()?;
    let files = find(&input.path, input.max_files)?;
    info!("found {} files under {}", files.len(), input.path);

    events::status("reading").emit()?;
    let mut report = TextWriter::new();
    report.write_str(&report::head(&input.path))?;
    let mut total = Words::default();
    let mut read = 0;
    let mut folder = "";
    let mut stopped = None;
    for (done, file) in files.iter().enumerate() {
        job::check_cancelled()?;
        let parent = file.path.strip_suffix(&file.name).unwrap_or_default();
        if parent != folder {
            folder = parent;
            info!("reading {folder}");
            report.flush()?;
        }
        events::progress(done as u64).total(files.len() as u64).units("files").message(&file.path).emit()?;
        match read_text(file) {
            Ok(text) => {
                let words = Words::of(&text);
                report.write_str(&report::line(&file.path, &words))?;
                total.add(words);
                read += 1;
                metrics::cost("scan", &input.price_per_file, &input.currency)?;
            }
            // The costs so far were the last of the budget. What was read is
            // still worth a report, and streaming one costs nothing (ARCP §9.6).
            Err(error) if error.code() == ErrorCode::BudgetExhausted => {
                warn!("the budget is spent after {read} files");
                stopped = Some(format!("the budget was spent after {read} of {} files", files.len()));
                break;
            }
            Err(error) if error.code().ends_the_job() => return Err(error),
            Err(error) => warn!("skipped {}: {}", file.path, error.message()),
        }
    }
    if stopped.is_none() {
        let count = files.len() as u64;
        events::progress(count).total(count).units("files").emit()?;
    }
    report.write_str(&report::tail(read, &total, stopped.as_deref()))?;
    report.finish()?;
    Ok(report::summary(&input.path, read, &total, stopped.as_deref()))
}

/// Reads one file the lease should not cover, and reports how that went.
fn try_outside(path: &str) -> Result<(), Error> {
    match fs::read(path) {
        Ok(_) => info!("the lease covers {path}"),
        Err(error) if error.code() == ErrorCode::Cancelled => return Err(error),
        Err(error) => warn!("{path} was refused: {error}"),
    }
    Ok(())
}

/// Finds the files worth reading, at most `max_files` of them.
fn find(path: &str, max_files: usize) -> Result<Vec<Entry>, Error> {
    let mut files = Vec::new();
    let mut walk = fs::walk(path);
    let mut entered = false;
    while let Some(entry) = walk.next() {
        match entry {
            // Without the folder itself there is nothing to report on.
            Err(error) if !entered || error.code().ends_the_job() => return Err(error),
            Err(error) => warn!("skipped a folder: {}", error.message()),
            Ok(entry) if entry.is_dir() => {
                if is_skipped(&entry.name) {
                    walk.skip_dir();
                }
            }
            Ok(entry) if !entry.is_file() || is_skipped(&entry.name) => {}
            Ok(entry) if entry.size > SIZE_MAX => info!("skipped {}: {} bytes are too many", entry.path, entry.size),
            Ok(_) if files.len() >= max_files => {
                info!("there are more files, but {max_files} are enough");
                break;
            }
            Ok(entry) => files.push(entry),
        }
        entered = true;
    }
    Ok(files)
}

/// Says whether a name is one of what people hide or machines make.
fn is_skipped(name: &str) -> bool {
    name.starts_with('.') || name == "target"
}

fn read_text(file: &Entry) -> Result<String, Error> {
    let text = fs::read_to_string(&file.path)?;
    // UTF-8 allows NUL; text files do without it.
    if text.contains('\0') { Err(Error::invalid_request(format!("{} is not text", file.path))) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_and_made_things_are_skipped() {
        for (name, expected) in
            [(".git", true), (".env", true), ("target", true), ("targets.md", false), ("a.txt", false)]
        {
            assert_eq!(is_skipped(name), expected, "{name}");
        }
    }
}
