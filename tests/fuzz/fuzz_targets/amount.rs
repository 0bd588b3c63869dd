//! Money is what it says: read, written and read again it is the same, and a sum is exact or refused (ARCP §9.6).
#![no_main]

use leasehold_core::lease::amount::{Amount, exact_add, exact_sub};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut amounts = text.lines().filter_map(|line| Amount::parse(line).ok());
    let Some(a) = amounts.next() else { return };
    let again = Amount::parse(&a.to_string()).expect("an amount that was read can be written and read");
    assert_eq!((again.currency(), again.value()), (a.currency(), a.value()));
    let Some(b) = amounts.next() else { return };
    if let Some(sum) = exact_add(a.value(), b.value()) {
        // Where both can be counted, one is the other backwards.
        assert!(exact_sub(sum, b.value()).is_none_or(|back| back == a.value()), "{a} and {b} make {sum}");
    }
});
