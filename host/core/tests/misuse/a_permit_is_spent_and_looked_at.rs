use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn read(permit: Permit<ReadFile>) -> String {
    let _op = permit.spend();
    permit.op().path().to_string()
}

fn main() {}
