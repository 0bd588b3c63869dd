//! Writes the report, in Markdown.

use crate::words::Words;

/// How many terms a line names.
const TERMS: usize = 5;

/// The heading, and the head of the table of files.
pub fn head(path: &str) -> String {
    format!("# Words in {}\n\n| file | words | frequent terms |\n|---|---:|---|\n", escape(path))
}

/// One file's row.
pub fn line(path: &str, words: &Words) -> String {
    format!("| {} | {} | {} |\n", escape(path), words.count, terms(words))
}

/// What all files have together, and why there are not more.
pub fn tail(files: usize, total: &Words, stopped: Option<&str>) -> String {
    let mut tail = format!("\n**{}** in {}", counted(total.count, "word"), counted(files as u64, "file"));
    if total.count > 0 {
        tail.push_str(&format!("; most frequent: {}", terms(total)));
    }
    tail.push_str(".\n");
    if let Some(reason) = stopped {
        tail.push_str(&format!("\n> Stopped early: {reason}.\n"));
    }
    tail
}

/// The report in one sentence or two.
pub fn summary(path: &str, files: usize, total: &Words, stopped: Option<&str>) -> String {
    let (words, files) = (counted(total.count, "word"), counted(files as u64, "file"));
    match stopped {
        None => format!("{words} in {files} under {path}."),
        Some(reason) => format!("{words} in {files} under {path}. Stopped early: {reason}."),
    }
}

fn terms(words: &Words) -> String {
    let terms: Vec<_> = words.top(TERMS).into_iter().map(|(term, count)| format!("{term} ({count})")).collect();
    terms.join(", ")
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Keeps a file's name from breaking the table it stands in.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '`' | '*' | '_' | '<' | '[' | ']' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_and_a_sentence() {
        let words = Words::of("lease gate lease");
        let report = head("/w") + &line("/w/a|b\n.txt", &words) + &tail(1, &words, Some("the budget was spent"));
        let expected = "\
# Words in /w

| file | words | frequent terms |
|---|---:|---|
| /w/a\\|b\u{fffd}.txt | 3 | lease (2), gate (1) |

**3 words** in 1 file; most frequent: lease (2), gate (1).

> Stopped early: the budget was spent.
";
        assert_eq!(report, expected);
    }

    #[test]
    fn a_summary_says_why_it_is_short() {
        for (files, text, stopped, expected) in [
            (0, "", None, "0 words in 0 files under /w."),
            (2, "one", None, "1 word in 2 files under /w."),
            (1, "a b", Some("no money"), "2 words in 1 file under /w. Stopped early: no money."),
        ] {
            assert_eq!(summary("/w", files, &Words::of(text), stopped), expected);
        }
    }
}
