use leasehold_core::lease::{gate::Permit, operation::{ReadFile, WriteFile}};

fn write(permit: Permit<WriteFile>) {
    let _op = permit.spend();
}

fn misuse(permit: Permit<ReadFile>) {
    write(permit);
}

fn main() {}
