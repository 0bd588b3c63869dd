//! A lease is a lease: what is written is read again, and nobody is granted more than there is (ARCP §9.4).
#![no_main]

use std::collections::BTreeMap;

use leasehold_core::lease::{Authority, Lease};
use libfuzzer_sys::fuzz_target;

type Wire = BTreeMap<String, Vec<String>>;

fuzz_target!(|text: &str| {
    // Two leases, one a line: a parent's and what is asked of it.
    let mut leases = text.lines().filter_map(|line| serde_json::from_str::<Wire>(line).ok());
    let Some(lease) = leases.next().and_then(|wire| Lease::parse(&wire).ok()) else { return };
    let again = Lease::parse(&lease.to_wire()).expect("a lease that was read can be written and read");
    assert_eq!(again.to_wire(), lease.to_wire());
    let parent = Authority { lease, expires_at: None };
    let all = parent.delegate(parent.lease.budget(), parent.clone());
    let all = all.expect("everything is no more than everything");
    let Some(asked) = leases.next().and_then(|wire| Lease::parse(&wire).ok()) else { return };
    if let Ok(granted) = parent.delegate(parent.lease.budget(), Authority { lease: asked, expires_at: None }) {
        // What could be granted can be granted again, and from the same.
        assert!(all.delegate(parent.lease.budget(), granted).is_ok());
    }
});
