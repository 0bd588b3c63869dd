use leasehold_core::lease::{gate::Permit, operation::ReadFile, target::FilePath};

fn aim(permit: Permit<ReadFile>) -> ReadFile {
    let mut op = permit.spend();
    op.path = FilePath::parse("/etc/passwd").unwrap();
    op
}

fn main() {}
