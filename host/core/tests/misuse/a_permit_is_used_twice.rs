use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn read(permit: Permit<ReadFile>) {
    let _op = permit.spend();
}

fn read_twice(permit: Permit<ReadFile>) {
    read(permit);
    read(permit);
}

fn main() {}
