use leasehold_core::lease::{operation::ReadFile, target::FilePath};

fn main() {
    let _op = ReadFile::from(FilePath("/in/../etc/passwd".into()));
}
