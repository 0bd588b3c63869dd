use leasehold_core::lease::{amount::Budget, ledger::{CarveOut, Ledger}};

fn twice(ledger: &mut Ledger, carve_out: CarveOut, rest: &Budget) {
    ledger.return_rest(carve_out, rest);
    ledger.return_rest(carve_out, rest);
}

fn main() {}
