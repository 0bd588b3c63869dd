//! What commands print.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Prints one object a line, for programs.
///
/// A reader that has closed the pipe has read enough, so a failure ends the program quietly.
pub fn line(value: &impl Serialize) {
    let text = serde_json::to_string(value).expect("what we print is JSON");
    text_line(&text);
}

/// Prints one line of text.
pub fn text_line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Prints a table, for people.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    text_line(&table.to_string());
}

/// A size in the unit people would choose.
#[must_use]
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
