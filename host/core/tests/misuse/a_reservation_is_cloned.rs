use leasehold_core::lease::{ledger::Reservation};

fn double(reservation: &Reservation) -> Reservation {
    reservation.clone()
}

fn main() {}
