use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn main() {
    let _permit: Permit<ReadFile> = Default::default();
}
