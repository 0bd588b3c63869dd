use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn aim(permit: Permit<ReadFile>) -> Permit<ReadFile> {
    *permit.op() = ReadFile::parse("/etc/passwd").unwrap();
    permit
}

fn main() {}
