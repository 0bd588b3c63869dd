use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn open(permit: Permit<ReadFile>) -> ReadFile {
    let Permit { op } = permit;
    op
}

fn main() {}
