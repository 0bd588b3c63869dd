use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn read_often(permit: Permit<ReadFile>) {
    for _ in 0..3 {
        let _op = permit.spend();
    }
}

fn main() {}
