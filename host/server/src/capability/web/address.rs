//! Which addresses a fetch may connect to: one table, asked for every address of every hop.
//!
//! A lease speaks of names, and whoever owns a name decides what it resolves
//! to. So a granted name does not make its address reachable: whatever is not
//! the public internet is refused unless the operator names its range in
//! `net.allow`. Where an IPv6 address carries an IPv4 address, both are asked.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::Deserialize;

/// What is not the public internet, and what it is instead. The last row of a kind is the most general one.
const TABLE: [(&str, &str); 36] = [
    ("0.0.0.0/8", "this host"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by a carrier"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "for protocols"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarks"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "this host"),
    ("::1/128", "loopback"),
    ("::/96", "IPv4-compatible"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("100::/64", "discard"),
    ("100:0:0:1::/64", "discard"),
    ("2001::/32", "Teredo"),
    ("2001:2::/48", "benchmarks"),
    ("2001:10::/28", "ORCHID"),
    ("2001:20::/28", "ORCHID"),
    ("2001:db8::/32", "documentation"),
    ("2001::/23", "for protocols"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
];

/// Where clouds give their machines names, keys and roles.
///
/// Some lie in ranges that operators have reason to allow (a Tailscale net is
/// 100.64.0.0/10), and one is public. So only an entry of its own opens one.
const METADATA: [&str; 12] = [
    "168.63.129.16",   // Azure
    "169.254.169.254", // nearly all
    "169.254.169.253", // AWS, names
    "169.254.169.123", // AWS, time
    "169.254.170.2",   // AWS, containers
    "169.254.170.23",  // AWS, pods
    "169.254.42.42",   // Scaleway
    "192.0.0.192",     // Oracle
    "100.100.100.200", // Alibaba
    "fd00:ec2::254",   // AWS
    "fd20:ce::254",    // Google
    "fd00:42::42",     // Scaleway
];

/// The only IPv6 addresses that the internet routes; NAT64's own prefix is read apart.
const UNICAST: &str = "2000::/3";
const NAT64: &str = "64:ff9b::/96";

/// A block of addresses, such as `10.0.0.0/8`; one address is a block of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Range {
    first: IpAddr,
    prefix: u32,
}

impl Range {
    /// Whether the block holds an address.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && first_of(address, self.prefix) == self.first
    }

    /// Whether the block is this address and no other.
    fn is_just(&self, address: IpAddr) -> bool {
        self.prefix == width(address) && self.first == address
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no block of addresses, such as `10.0.0.0/8` or `fd00::/8`");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.map_or(Ok(width(address)), str::parse).map_err(|_| wrong())?;
        if prefix > width(address) {
            return Err(wrong());
        }
        let first = first_of(address, prefix);
        if first != address {
            return Err(format!("`{text}` does not begin at its address: write `{first}/{prefix}`"));
        }
        if first.to_canonical() != first {
            return Err(format!("`{text}` is IPv4 written as IPv6: write it as IPv4"));
        }
        Ok(Self { first, prefix })
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn first_of(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - prefix).unwrap_or(0)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)).into(),
    }
}

/// The table, and what the operator says to it.
pub(super) struct Addresses {
    table: Vec<(Range, &'static str)>,
    metadata: Vec<IpAddr>,
    unicast: Range,
    nat64: Range,
    allow: Vec<Range>,
    refuse: Vec<Range>,
}

impl Addresses {
    pub(super) fn new(allow: &[Range], refuse: &[Range]) -> Self {
        let range = |text: &str| text.parse::<Range>().expect("the table is well-formed");
        Self {
            table: TABLE.iter().map(|(text, what)| (range(text), *what)).collect(),
            metadata: METADATA.iter().map(|text| range(text).first).collect(),
            unicast: range(UNICAST),
            nat64: range(NAT64),
            allow: allow.to_vec(),
            refuse: refuse.to_vec(),
        }
    }

    /// Gives the address to connect to, in its shortest form, or says what it is instead of public.
    pub(super) fn check(&self, address: IpAddr) -> Result<IpAddr, &'static str> {
        let address = address.to_canonical();
        if self.metadata.contains(&address) && !self.allow.iter().any(|range| range.is_just(address)) {
            return Err("metadata of a cloud");
        }
        if self.refuse.iter().any(|range| range.holds(address)) {
            return Err("refused by the operator");
        }
        if let IpAddr::V6(v6) = address {
            for inside in carried(v6) {
                self.check(inside.into())?;
            }
        }
        if self.nat64.holds(address) || self.allow.iter().any(|range| range.holds(address)) {
            return Ok(address);
        }
        if let Some((_, what)) = self.table.iter().find(|(range, _)| range.holds(address)) {
            return Err(what);
        }
        if address.is_ipv6() && !self.unicast.holds(address) {
            return Err("not assigned");
        }
        Ok(address)
    }
}

/// The IPv4 addresses that a router or a kernel may take out of an IPv6 address.
///
/// Of [RFC 8215](https://www.rfc-editor.org/rfc/rfc8215)'s prefix, only the
/// form of 96 bits is read: the others cannot be told apart.
fn carried(v6: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let [a, b, c, d, e, f, ..] = v6.segments();
    let bits = v6.to_bits();
    let at = |from_the_right: u32| {
        let bytes = (bits >> from_the_right).to_be_bytes();
        Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15])
    };
    let found = match [a, b, c, d, e, f] {
        // `::` and `::1` stand in the table themselves.
        [0, 0, 0, 0, 0, 0] if bits > 1 => [Some(at(0)), None], // IPv4-compatible
        [0, 0, 0, 0, 0xffff, 0] => [Some(at(0)), None],        // IPv4-translated
        [0x64, 0xff9b, 0, 0, 0, 0] => [Some(at(0)), None],     // NAT64
        [0x64, 0xff9b, 1, ..] => [Some(at(0)), None],          // NAT64, local
        [0x2001, 0, ..] => [Some(at(64)), Some(Ipv4Addr::from_bits(!at(0).to_bits()))], // Teredo: server, client
        [0x2002, ..] => [Some(at(80)), None],                  // 6to4
        [.., 0 | 0x0200, 0x5efe] => [Some(at(0)), None],       // ISATAP
        _ => [None, None],
    };
    found.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allow: &[&str], refuse: &[&str], address: &str) -> Result<String, &'static str> {
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let addresses = Addresses::new(&ranges(allow), &ranges(refuse));
        addresses.check(address.parse().unwrap()).map(|address| address.to_string())
    }

    #[test]
    fn what_is_not_the_public_internet_is_refused() {
        for (address, expected) in [
            ("1.1.1.1", None),
            ("93.184.216.34", None),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.128.0.0", None),
            ("126.255.255.255", None),
            ("128.0.0.0", None),
            ("169.253.255.255", None),
            ("172.15.255.255", None),
            ("172.32.0.0", None),
            ("192.0.1.0", None),
            ("198.17.255.255", None),
            ("198.20.0.0", None),
            ("223.255.255.255", None),
            ("2606:4700::1111", None),
            ("2001:200::1", None), // the first of the registries' addresses
            ("2a00::1", None),
            ("3ffe::1", None),
            ("64:ff9b::1.1.1.1", None), // NAT64 of a public address, as a net without IPv4 gets from its DNS
            ("0.0.0.0", Some("this host")),
            ("0.1.2.3", Some("this host")),
            ("10.0.0.0", Some("private")),
            ("10.255.255.255", Some("private")),
            ("100.64.0.0", Some("shared by a carrier")),
            ("100.127.255.255", Some("shared by a carrier")),
            ("127.0.0.1", Some("loopback")),
            ("127.255.255.255", Some("loopback")),
            ("169.254.0.1", Some("link-local")),
            ("172.16.0.0", Some("private")),
            ("172.31.255.255", Some("private")),
            ("192.0.0.8", Some("for protocols")),
            ("192.0.2.1", Some("documentation")),
            ("192.88.99.1", Some("6to4 relay")),
            ("192.168.1.1", Some("private")),
            ("198.18.0.0", Some("benchmarks")),
            ("198.19.255.255", Some("benchmarks")),
            ("198.51.100.1", Some("documentation")),
            ("203.0.113.1", Some("documentation")),
            ("224.0.0.1", Some("multicast")),
            ("239.255.255.255", Some("multicast")),
            ("240.0.0.1", Some("reserved")),
            ("255.255.255.255", Some("broadcast")),
            ("168.63.129.16", Some("metadata of a cloud")),
            ("169.254.169.254", Some("metadata of a cloud")),
            ("192.0.0.192", Some("metadata of a cloud")),
            ("100.100.100.200", Some("metadata of a cloud")),
            ("fd00:ec2::254", Some("metadata of a cloud")),
            ("fd20:ce::254", Some("metadata of a cloud")),
            ("::", Some("this host")),
            ("::1", Some("loopback")),
            ("::2", Some("this host")), // 0.0.0.2, IPv4-compatible
            ("::127.0.0.1", Some("loopback")),
            ("::1.1.1.1", Some("IPv4-compatible")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:169.254.169.254", Some("metadata of a cloud")),
            ("::ffff:0:127.0.0.1", Some("loopback")),
            ("::ffff:0:1.1.1.1", Some("IPv4-translated")),
            ("64:ff9b::10.0.0.1", Some("private")),
            ("64:ff9b::169.254.169.254", Some("metadata of a cloud")),
            ("64:ff9b::168.63.129.16", Some("metadata of a cloud")),
            ("64:ff9b:1::10.0.0.1", Some("private")),
            ("64:ff9b:1::1.1.1.1", Some("local NAT64")),
            ("64:ff9b:0:1::1.1.1.1", Some("not assigned")),
            ("2001::1", Some("this host")),                 // Teredo of the server 0.0.0.0
            ("2001:0:101:101::f5ff:fffe", Some("private")), // Teredo of the client 10.0.0.1
            ("2001:0:101:101::fefe:fefe", Some("Teredo")),
            ("2001:2::1", Some("benchmarks")),
            ("2001:10::1", Some("ORCHID")),
            ("2001:2f::1", Some("ORCHID")),
            ("2001:1::1", Some("for protocols")),
            ("2001:db8::1", Some("documentation")),
            ("2002:7f00:1::", Some("loopback")),
            ("2002:101:101::1", Some("6to4")),
            ("3fff::1", Some("documentation")),
            ("5f00::1", Some("segment routing")),
            ("2606:4700::5efe:10.0.0.1", Some("private")), // ISATAP
            ("2606:4700::200:5efe:192.168.0.1", Some("private")),
            ("100::1", Some("discard")),
            ("100:0:0:1::1", Some("discard")),
            ("fc00::1", Some("private")),
            ("fdff::1", Some("private")),
            ("fe80::1", Some("link-local")),
            ("febf::1", Some("link-local")),
            ("fec0::1", Some("site-local")),
            ("ff02::1", Some("multicast")),
            ("4000::1", Some("not assigned")),
            ("e000::1", Some("not assigned")),
            ("1::1", Some("not assigned")),
        ] {
            assert_eq!(check(&[], &[], address).err(), expected, "{address}");
        }
    }

    #[test]
    fn an_operator_opens_ranges_and_closes_others() {
        for (allow, refuse, address, expected) in [
            (&["10.0.0.0/8"][..], &[][..], "10.1.2.3", Ok("10.1.2.3")),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", Ok("10.1.2.3")),
            (&["10.0.0.0/8"], &[], "64:ff9b::10.1.2.3", Ok("64:ff9b::a01:203")),
            (&["10.0.0.0/8"], &[], "2002:a01:203::1", Err("6to4")),
            (&["10.0.0.0/8"], &[], "192.168.0.1", Err("private")),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", Err("refused by the operator")),
            (&["10.0.0.7"], &[], "10.0.0.7", Ok("10.0.0.7")),
            (&["10.0.0.7"], &[], "10.0.0.8", Err("private")),
            (&["0.0.0.0/0"], &[], "127.0.0.1", Ok("127.0.0.1")),
            (&["0.0.0.0/0"], &[], "::1", Err("loopback")), // another family
            (&["::1"], &[], "::1", Ok("::1")),
            (&["::/0"], &[], "2002:7f00:1::", Err("loopback")), // what it carries is asked, too
            (&["2002::/16"], &[], "2002:101:101::1", Ok("2002:101:101::1")),
            (&["0.0.0.0/0"], &[], "169.254.169.254", Err("metadata of a cloud")),
            (&["100.64.0.0/10"], &[], "100.100.100.200", Err("metadata of a cloud")),
            (&["100.64.0.0/10"], &[], "100.100.100.201", Ok("100.100.100.201")),
            (&["fd00::/8"], &[], "fd00:ec2::254", Err("metadata of a cloud")),
            (&["fd00:ec2::254"], &[], "fd00:ec2::254", Ok("fd00:ec2::254")),
            (&["168.63.129.16/32"], &[], "168.63.129.16", Ok("168.63.129.16")),
            (&[], &["1.1.1.0/24"], "1.1.1.1", Err("refused by the operator")),
            (&[], &["1.1.1.0/24"], "64:ff9b::1.1.1.1", Err("refused by the operator")),
        ] {
            assert_eq!(check(allow, refuse, address), expected.map(str::to_owned), "{allow:?} {refuse:?} {address}");
        }
    }

    #[test]
    fn a_range_that_is_not_what_it_seems_is_refused() {
        for (text, expected) in [
            ("10.0.0.0/8", Ok("10.0.0.0/8")),
            ("10.0.0.1", Ok("10.0.0.1/32")),
            ("::/0", Ok("::/0")),
            ("fd00::1", Ok("fd00::1/128")),
            ("10.0.0.1/8", Err("write `10.0.0.0/8`")),
            ("fd00::1/8", Err("write `fd00::/8`")),
            ("::ffff:10.0.0.0/104", Err("write it as IPv4")),
            ("10.0.0.0/33", Err("no block")),
            ("10.0.0.0/-1", Err("no block")),
            ("10.0.0.0/", Err("no block")),
            ("10/8", Err("no block")),
            ("a.test", Err("no block")),
            ("", Err("no block")),
        ] {
            match (text.parse::<Range>(), expected) {
                (Ok(range), Ok(expected)) => assert_eq!(range.to_string(), expected),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{text}: {error}"),
                (parsed, _) => panic!("{text}: {parsed:?}"),
            }
        }
    }
}
