//! Whatever is said before, in and after a handshake, a frame a line: the session ends or answers, in order.
#![no_main]

mod session;

use leasehold_core::{protocol::client, session::Input};
use libfuzzer_sys::fuzz_target;
use session::Driven;

fuzz_target!(|text: &str| {
    let mut driven = Driven::new();
    for line in text.lines().take(32) {
        let before = driven.sent.len();
        driven.give(match line {
            "alive" => Input::Alive,
            "tick" => Input::Tick,
            line => Input::Frame(client::decode(line)),
        });
        // Nobody who has not said who they are is told anything but why not.
        let told = &driven.sent[before..];
        assert!(driven.known || told.iter().all(|frame| frame["type"] == "session.error"), "{told:?}");
        assert!(!driven.closed || !driven.session.is_open());
    }
});
