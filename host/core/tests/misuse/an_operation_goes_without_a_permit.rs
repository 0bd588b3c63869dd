use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn read(permit: Permit<ReadFile>) {
    let _op = permit.spend();
}

fn main() {
    read(ReadFile::parse("/etc/passwd").unwrap());
}
