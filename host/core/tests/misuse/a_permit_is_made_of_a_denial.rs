use leasehold_core::lease::{gate::{Denied, Permit}, operation::ReadFile};

fn overrule(denied: Denied) -> Permit<ReadFile> {
    Permit::from(denied)
}

fn main() {}
