use leasehold_core::lease::{gate::{Gate, Permit}, operation::ReadFile};

use leasehold_core::time::Timestamp;

fn read(permit: Permit<ReadFile>) {
    let _op = permit.spend();
}

fn hurry(gate: &Gate, now: Timestamp) {
    read(gate.permit(now, ReadFile::parse("/etc/passwd").unwrap()));
}

fn main() {}
