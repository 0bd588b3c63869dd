//! Counts the lines and words of a text file, and finds its longest word.

use leasehold_agent::{Error, agent, events, fs, info};
use serde::{Deserialize, Serialize};

agent!(run);

/// The `input` of a job.
#[derive(Deserialize)]
struct Input {
    path: String,
}

/// Its result.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    lines: usize,
    words: usize,
    longest: String,
}

fn run(input: Input) -> Result<Report, Error> {
    info!("reading {}", input.path);
    // The one line that needs a grant: `fs.read` on the path. Without it the
    // host answers `permission-denied`, and `?` ends the job with that.
    let text = fs::read_to_string(&input.path)?;
    events::progress(1).total(2).units("steps").message("read").emit()?;
    let report = examine(&text);
    events::progress(2).total(2).units("steps").message("counted").emit()?;
    Ok(report)
}

/// Everything that needs no host, so that `cargo test` can try it.
fn examine(text: &str) -> Report {
    let longest = text.split_whitespace().max_by_key(|word| word.chars().count()).unwrap_or_default();
    Report { lines: text.lines().count(), words: text.split_whitespace().count(), longest: longest.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_words_are_counted_and_the_longest_word_is_found() {
        for (text, lines, words, longest) in [
            ("", 0, 0, ""),
            ("one", 1, 1, "one"),
            ("one three\ntwo\n", 2, 3, "three"),
            ("größe pretty", 1, 2, "pretty"), // by characters, not by bytes
        ] {
            assert_eq!(examine(text), Report { lines, words, longest: longest.to_owned() }, "{text:?}");
        }
    }
}
