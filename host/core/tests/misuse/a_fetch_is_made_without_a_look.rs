use leasehold_core::lease::{operation::Fetch, target::FetchUrl};

fn tunnel(url: FetchUrl) -> Fetch {
    Fetch { method: "CONNECT".into(), url }
}

fn main() {}
