//! Fetches that would have the host's place in the network: its loopback, its neighbours, its cloud's metadata.
//!
//! Every spelling of every address is tried as the URL itself, as what a
//! redirect leads to, and as what a granted name resolves to on the second
//! look. What counts is what the network was asked to connect to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, atomic::Ordering},
};

use leasehold::capability::web::{Request, Settings, WebError};
use leasehold_core::lease::target::FetchUrl;
use tokio::io::AsyncWriteExt as _;

use crate::web::{Outcome, PUBLIC, Refused, Site, read_head};

const V4: [&str; 36] = [
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.1",
    "10.255.255.254",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.254",
    "127.0.0.1",
    "127.0.0.53",
    "127.1.2.3",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.123",
    "169.254.169.253",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.17.0.1",
    "172.31.255.254",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.1.254",
    "198.18.0.1",
    "198.19.255.254",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.254",
    "255.255.255.255",
];

const V6: [&str; 24] = [
    "::",
    "::1",
    "::2",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2001:1::1",
    "2002::1",
    "3fff::1",
    "5f00::1",
    "64:ff9b:1::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fd00:42::42",
    "fd20:ce::254",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
];

/// The IPv6 addresses that carry an IPv4 address.
fn carriers(v4: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = v4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    vec![
        format!("::ffff:{v4}"),
        format!("::ffff:{high:x}:{low:x}"),
        format!("0:0:0:0:0:FFFF:{high:X}:{low:X}"),
        format!("::{v4}"),
        format!("::ffff:0:{v4}"),
        format!("64:ff9b::{v4}"),
        format!("64:ff9b::{high:x}:{low:x}"),
        format!("64:ff9b:1::{v4}"),
        format!("2002:{high:x}:{low:x}::1"),
        format!("2001:0:102:304::{:x}:{:x}", !high, !low),
        format!("2606:4700::5efe:{v4}"),
        format!("2606:4700::200:5efe:{v4}"),
    ]
}

/// A host or host and port, in every way in which somebody reads the address.
fn spellings(v4: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = v4.octets();
    let whole = v4.to_bits();
    let wide = |text: &str, zero: u32| -> String {
        text.chars().map(|c| c.to_digit(10).and_then(|n| char::from_u32(zero + n)).unwrap_or(c)).collect()
    };
    let dotted = v4.to_string();
    let encoded: String = dotted.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut spellings = vec![
        dotted.clone(),
        format!("{dotted}."),
        format!("{dotted}:80"),
        format!("{dotted}:8080"),
        format!("{whole}"),
        format!("{whole}."),
        format!("0x{whole:x}"),
        format!("0X{whole:08X}"),
        format!("0x0000{whole:08x}"),
        format!("0{whole:o}"),
        format!("0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("0000{a:o}.000{b:o}.{c}.{d}"),
        format!("0x{a:x}.0{b:o}.{c}.0x{d:X}"),
        format!("{a}.{}", whole & 0xff_ffff),
        format!("{a}.{b}.{}", whole & 0xffff),
        format!("0x{a:x}.{}", whole & 0xff_ffff),
        format!("0{a:o}.0x{b:x}.{}", whole & 0xffff),
        wide(&dotted, 0xff10),     // full width
        wide(&dotted, 0x1d7ce),    // bold
        wide(&dotted, 0x1d7f6),    // monospaced
        dotted.replace('.', "。"), // ideographic
        dotted.replace('.', "．"),
        dotted.replace('.', "｡"),
        dotted.replace('.', "%2e"),
        encoded,
        format!("{}\u{ad}{}", &dotted[..1], &dotted[1..]), // a soft hyphen, which IDNA drops
        format!("{}\u{200b}{}", &dotted[..1], &dotted[1..]),
        format!("site.test@{dotted}"),
        format!("site.test:80@{dotted}:80"),
        format!("{dotted}\\@site.test"),
        format!("{dotted}#@site.test"),
        format!("{dotted}?@site.test"),
        format!("{dotted}/@site.test"),
        format!(" {dotted}"),
        format!("\t{dotted}"),
        format!("{dotted}%00.site.test"),
        format!("{dotted}%0d%0a"),
        format!("[{dotted}]"),
    ];
    spellings.extend(carriers(v4).into_iter().map(|text| format!("[{text}]")));
    spellings
}

fn table() -> Vec<String> {
    let v4 = V4.iter().flat_map(|text| spellings(text.parse().expect("it is an address")));
    let v6 = V6.iter().flat_map(|text| {
        let full = text.parse::<std::net::Ipv6Addr>().expect("it is an address").segments().map(|s| format!("{s:04X}"));
        [format!("[{text}]"), format!("[{text}]:8080"), format!("[{}]", full.join(":")), format!("[{text}%25eth0]")]
    });
    v4.chain(v6).collect()
}

/// The addresses the table is about, in every form in which a resolver gives them.
fn addresses() -> Vec<IpAddr> {
    let v4 = V4.iter().flat_map(|text| {
        let v4: Ipv4Addr = text.parse().expect("it is an address");
        [text.to_string()].into_iter().chain(carriers(v4))
    });
    let all: BTreeSet<IpAddr> =
        v4.chain(V6.map(String::from)).map(|text| text.parse().expect("it is an address")).collect();
    all.into_iter().collect()
}

/// A server that redirects to wherever it was told to.
async fn redirecting(settings: Settings) -> (Site, Arc<Mutex<String>>) {
    let to = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&to);
    let site = Site::new(settings, move |mut stream| {
        let to = told.lock().expect("nobody panicked").clone();
        async move {
            read_head(&mut stream).await?;
            let answer = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await
        }
    });
    (site.await, to)
}

/// Whether a fetch was stopped for where it went, and not for something else.
fn is_refused(outcome: &Outcome) -> bool {
    matches!(outcome, Err(Refused::Url(_) | Refused::Web(WebError::Address { .. } | WebError::Redirect { .. })))
}

fn following() -> Request {
    Request { redirects: 3, ..Request::default() }
}

#[tokio::test]
async fn no_spelling_of_an_address_that_is_not_public_is_connected_to() {
    let table = table();
    let (site, to) = redirecting(Settings::default()).await;
    let (mut parsed, mut direct, mut redirected) = (0, 0, 0);
    for (n, host) in table.iter().enumerate() {
        let url = format!("{}://{host}/latest/meta-data", ["http", "https"][n % 2]);
        parsed += usize::from(FetchUrl::parse(&url).is_ok());
        let outcome = site.fetch("GET", &url, Request::default()).await;
        // A name is what this may be, too; then nobody has it.
        let is_name = matches!(outcome, Err(Refused::Web(WebError::Resolve { .. })));
        assert!(is_refused(&outcome) || is_name, "{url}: {outcome:?}");
        direct += 1;

        *to.lock().expect("nobody panicked") = url.clone();
        let before = site.net.public.load(Ordering::Relaxed);
        let outcome = site.fetch("GET", "http://site.test/", following()).await;
        // As a raw header, what is not ASCII or has control characters is no location at all.
        let is_name = matches!(outcome, Err(Refused::Web(WebError::Resolve { .. } | WebError::Broken { .. })));
        assert!(is_refused(&outcome) || is_name, "a redirect to {url}: {outcome:?}");
        assert_eq!(site.net.public.load(Ordering::Relaxed), before + 1, "a redirect to {url}");
        redirected += 1;
    }
    let mut rebound = 0;
    for address in addresses() {
        // The first look is what a check would see; the second is what a connection would get.
        site.net.name("rebind.test", &[&[PUBLIC], &[address]]);
        *to.lock().expect("nobody panicked") = "http://rebind.test/again".into();
        let before = site.net.public.load(Ordering::Relaxed);
        let outcome = site.fetch("GET", "http://rebind.test/", following()).await;
        assert!(is_refused(&outcome), "a name that becomes {address}: {outcome:?}");
        assert_eq!(site.net.public.load(Ordering::Relaxed), before + 1);
        // And beside one that is public, only that one is.
        site.net.name("both.test", &[&[address, PUBLIC, address]]);
        let outcome = site.fetch("GET", "http://both.test/", Request::default()).await;
        assert!(outcome.is_ok_and(|response| response.status == 302), "{address}");
        rebound += 1;
    }
    let reached = site.net.reached.lock().expect("nobody panicked").clone();
    println!("SSRF: {direct} direct ({parsed} of them URLs), {redirected} redirected, {rebound} rebound");
    println!("SSRF: {} connects", reached.len());
    assert!(parsed >= 300 && direct >= 300 && redirected >= 300 && rebound >= 300);
    assert_eq!(reached, []);
}

/// The same table connects where an operator opened everything: it is the table of addresses that stops it.
#[tokio::test]
async fn the_table_is_of_addresses_that_would_be_connected_to() {
    let allow = ["0.0.0.0/0", "::/0"].map(|text| text.parse().expect("it is a range")).to_vec();
    let (site, _) = redirecting(Settings { allow, ..Settings::default() }).await;
    for host in table() {
        // What is connected to does not answer, so every outcome is an error.
        assert!(site.fetch("GET", &format!("http://{host}/"), Request::default()).await.is_err());
    }
    let reached = site.net.reached.lock().expect("nobody panicked").len();
    println!("SSRF: {reached} connects where everything is allowed");
    assert!(reached >= 300, "{reached}");
}

/// Refused although all of IPv4 and IPv6 are allowed: an entry for a range does not open what a cloud keeps there.
#[tokio::test]
async fn metadata_is_opened_by_name_only() {
    let allow = ["0.0.0.0/0", "::/0"].map(|text| text.parse().expect("it is a range")).to_vec();
    let (site, _) = redirecting(Settings { allow, ..Settings::default() }).await;
    for host in ["169.254.169.254", "168.63.129.16", "192.0.0.192", "100.100.100.200", "[fd00:ec2::254]", "2852039166"]
    {
        let outcome = site.fetch("GET", &format!("http://{host}/"), Request::default()).await;
        assert!(is_refused(&outcome), "{host}: {outcome:?}");
    }
    assert!(site.net.reached.lock().expect("nobody panicked").is_empty());
}
