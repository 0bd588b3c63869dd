use leasehold_core::lease::{amount::Decimal, ledger::{Ledger, Reservation}};

fn both(ledger: &mut Ledger, reservation: Reservation) {
    ledger.release(reservation);
    let _ = ledger.settle(reservation, Decimal::ZERO);
}

fn main() {}
