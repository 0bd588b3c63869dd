//! Whoever says hello has a dialect, in which the answer is JSON.
#![no_main]

mod session;

use leasehold_core::{protocol::client, session::Input};
use libfuzzer_sys::fuzz_target;
use session::Driven;

fuzz_target!(|text: &str| {
    let mut driven = Driven::new();
    driven.give(Input::Frame(client::decode(text)));
    if driven.session.is_open() {
        assert!(!driven.session.dialect().name.is_empty());
        assert!(driven.sent.iter().any(|frame| frame["type"] == "session.welcome"));
    }
});
