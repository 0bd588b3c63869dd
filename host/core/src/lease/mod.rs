//! Authority as arithmetic: what a job may touch, until when, and for how much (ARCP §9).
//!
//! Text from outside becomes a [`target`] or a [`pattern`] once, and is
//! compared component by component from then on: no check in this host looks
//! at the raw text of a path or URL. A [`Lease`] is a set of patterns, an
//! [`Authority`] is a lease with an end, and a [`gate::Gate`] turns an
//! [`operation`] into a [`gate::Permit`] or says why not. Money is kept in a
//! [`ledger`], in decimals that are never rounded.

/// Gives a type that parses and displays the same form in JSON, so that nothing read from outside skips the parse.
macro_rules! text_form {
    ($name:ident, $error:ident) => {
        impl std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

pub mod amount;
pub mod gate;
#[expect(
    clippy::module_inception,
    reason = "a lease is the subject of this file, and leases are the subject of the folder"
)]
mod lease;
pub mod ledger;
pub mod operation;
pub mod pattern;
pub mod target;

pub use lease::{
    Authority, BYTES_MAX, Lease, LeaseError, NAMESPACES_MAX, Namespace, NamespaceError, PATTERNS_MAX,
    PATTERNS_PER_NAMESPACE_MAX, SubsetViolation,
};

/// Cuts a text for an error message, since a client or agent may send any length, and makes control characters visible.
fn quote(text: &str) -> String {
    const CHARS_MAX: usize = 96;
    let mut quoted: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}
