use leasehold_core::lease::{gate::Permit, operation::{CallTool, Fetch}};

fn call(permit: Permit<CallTool>) {
    let _op = permit.spend();
}

fn misuse(permit: Permit<Fetch>) {
    call(permit);
}

fn main() {}
