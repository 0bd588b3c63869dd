use leasehold_core::lease::{amount::Budget, ledger::CarveOut};

fn mint(grant: Budget) -> CarveOut {
    CarveOut { grant }
}

fn main() {}
