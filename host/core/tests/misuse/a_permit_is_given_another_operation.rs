use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn aim(mut permit: Permit<ReadFile>) -> Permit<ReadFile> {
    permit.op = ReadFile::parse("/etc/passwd").unwrap();
    permit
}

fn main() {}
