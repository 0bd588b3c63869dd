use leasehold_core::lease::{gate::Permit, operation::{ReadFile, WriteFile}};

fn widen(permit: Permit<ReadFile>) -> Permit<WriteFile> {
    permit.map(|read| WriteFile::from(read.path().clone()))
}

fn main() {}
