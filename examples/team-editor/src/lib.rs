//! Makes a report of what a reader found. It needs no grant, and it costs a little.

use leasehold_agent::{Error, agent, metrics};
use serde::Deserialize;

/// What it costs to write a report.
const PRICE: &str = "0.002";

#[derive(Deserialize)]
struct Input {
    path: String,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    path: String,
    words: usize,
    about: String,
}

agent!(run);

fn run(input: Input) -> Result<String, Error> {
    metrics::cost("editing", PRICE, "USD")?;
    Ok(report(&input))
}

fn report(Input { path, files }: &Input) -> String {
    let words: usize = files.iter().map(|file| file.words).sum();
    let mut text = format!("# {path}\n\n{words} words in {} files.\n", files.len());
    for File { path, words, about } in files {
        text.push_str(&format!("- {path} ({words} words): {about}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_every_file_and_counts_all_words() {
        let file = |name: &str, words| File { path: name.into(), words, about: "x".into() };
        let input = Input { path: "/w".into(), files: vec![file("/w/a", 2), file("/w/b", 3)] };
        let expected = "# /w\n\n5 words in 2 files.\n- /w/a (2 words): x\n- /w/b (3 words): x\n";
        assert_eq!(report(&input), expected);
    }
}
