//! A frame is understood or refused with a reason, and a refusal has room in a frame.
#![no_main]

use leasehold_core::{error::MESSAGE_BYTES_MAX, protocol::client};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match client::decode(text) {
        Ok(request) => {
            assert!((1..=256).contains(&request.id.len()));
            // What was understood is an object, whatever its reader allows.
            assert!(serde_json::from_str::<serde_json::Map<_, _>>(text).is_ok() || deep(text));
        }
        Err(malformed) => {
            let message = &malformed.refusal.message;
            assert!(!message.is_empty() && message.len() <= MESSAGE_BYTES_MAX + '…'.len_utf8());
        }
    }
});

/// Whether a text may be beyond what a reader of values takes: too deep, a number too large, half a character.
fn deep(text: &str) -> bool {
    text.matches(['{', '[']).count() > 100 || text.contains(['e', 'E']) || text.contains("\\u")
}
