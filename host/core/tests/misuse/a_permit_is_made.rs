use leasehold_core::lease::{gate::Permit, operation::ReadFile};

fn main() {
    let _permit = Permit { op: ReadFile::parse("/etc/passwd").unwrap() };
}
