use leasehold_core::lease::{Authority, gate::Gate};

fn widen(gate: &mut Gate, authority: Authority) {
    gate.authority = authority;
}

fn main() {}
