use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn read(permit: Permit<ReadFile>) {
    let one = std::thread::spawn(move || permit.spend());
    let other = std::thread::spawn(move || permit.spend());
    let _ = (one.join(), other.join());
}

fn main() {}
