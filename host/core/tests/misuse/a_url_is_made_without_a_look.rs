use leasehold_core::lease::{target::FetchUrl};

fn main() {
    let _url = FetchUrl(url::Url::parse("https://user@evil.test/").unwrap());
}
