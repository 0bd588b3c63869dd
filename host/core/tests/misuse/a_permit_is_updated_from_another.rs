use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn refill(permit: Permit<ReadFile>) -> Permit<ReadFile> {
    Permit { ..permit }
}

fn main() {}
