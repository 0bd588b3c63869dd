//! Reads the text files of a folder and tells how many words each has, at a price a file.

use leasehold_agent::{Error, agent, events::progress, fs, metrics};
use serde::{Deserialize, Serialize};

/// What it costs to read one file.
const PRICE: &str = "0.001";

#[derive(Deserialize)]
struct Input {
    path: String,
}

#[derive(Serialize)]
struct Output {
    path: String,
    files: Vec<File>,
}

#[derive(Debug, PartialEq, Serialize)]
struct File {
    path: String,
    words: usize,
    /// The first line that says something.
    about: String,
}

agent!(run);

fn run(Input { path }: Input) -> Result<Output, Error> {
    let mut files: Vec<fs::Entry> = fs::list(&path)?;
    files.retain(|entry| entry.is_file() && !entry.name.starts_with('.'));
    let mut read = Vec::new();
    for (done, entry) in (1..).zip(&files) {
        metrics::cost("reading", PRICE, "USD")?;
        // What is no text is nothing to read.
        if let Ok(text) = String::from_utf8(fs::read(&entry.path)?) {
            read.push(summary(&entry.path, &text));
        }
        progress(done).total(files.len() as u64).units("files").emit()?;
    }
    Ok(Output { path, files: read })
}

fn summary(path: &str, text: &str) -> File {
    let plain = |line: &str| line.trim_start_matches('#').trim().to_owned();
    let about = text.lines().map(plain).find(|line| !line.is_empty()).unwrap_or_default();
    File { path: path.to_owned(), words: text.split_whitespace().count(), about }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_about_its_first_line_that_says_something() {
        for (text, words, about) in
            [("# Notes\n\nOne two.", 4, "Notes"), ("\n\n  plain\n", 1, "plain"), ("", 0, ""), ("#\n##\nx", 3, "x")]
        {
            let expected = File { path: "/a".into(), words, about: about.into() };
            assert_eq!(summary("/a", text), expected, "{text:?}");
        }
    }
}
