//! What commands print.

use std::io::{ErrorKind, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Prints one object a line, for programs.
pub fn line(value: &impl Serialize) {
    let text = serde_json::to_string(value).expect("what we print is JSON");
    text_line(&text);
}

/// Prints one line of text.
pub fn text_line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}

/// Puts bytes out.
///
/// A reader that has closed the pipe has read enough, so that ends the program quietly; anything else, such as a full
/// disk, ends it with an error, since what was asked for is lost.
pub fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("error: standard output: {error}");
        std::process::exit(5);
    }
}

/// Prints a table, for people.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    text_line(&table.trim_fmt());
}

/// A size in the unit people would choose.
#[must_use]
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// What agents wrote, which must not move the cursor or colour the terminal of whoever reads it.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '�' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_cannot_send_control_sequences_to_a_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\r\nc\td"), "a�[2Jb��c\td");
    }
}
