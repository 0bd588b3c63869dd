use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn copy(permit: &Permit<ReadFile>) -> Permit<ReadFile> {
    permit.clone()
}

fn main() {}
