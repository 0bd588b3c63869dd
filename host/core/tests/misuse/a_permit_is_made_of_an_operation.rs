use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn main() {
    let _permit: Permit<ReadFile> = ReadFile::parse("/etc/passwd").unwrap().into();
}
