use leasehold_core::lease::{gate::Gate};

fn double(gate: &Gate) -> Gate {
    gate.clone()
}

fn main() {}
