use leasehold_core::lease::{gate::Permit, operation::ReadFile};

#[deny(unused_must_use)]
fn forget(permit: Option<Permit<ReadFile>>) {
    permit.unwrap();
}

fn main() {}
