use leasehold_core::lease::{gate::Gate, Lease};

fn widen(gate: &mut Gate, lease: Lease) {
    *gate.lease() = lease;
}

fn main() {}
