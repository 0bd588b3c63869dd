//! W3C trace ids (ARCP §11).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A trace id: 32 lower-case hexadecimal digits, not all zero.
///
/// ARCP §11 says the envelope carries a `traceparent`, its examples carry the
/// bare id, and most SDKs accept only the latter. Both come in, the id goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl TraceId {
    /// Makes a trace id of random bits.
    #[must_use]
    pub fn new(random: u128) -> Self {
        // All zero is the one value that W3C Trace Context forbids.
        Self(random.max(1))
    }

    /// Reads a bare id or the id of a `traceparent`; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = match text.len() {
            32 => text,
            55 if text.as_bytes()[2] == b'-' && text.as_bytes()[35] == b'-' => text.get(3..35)?,
            _ => return None,
        };
        let hexadecimal = id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let value = u128::from_str_radix(id, 16).ok().filter(|_| hexadecimal)?;
        (value != 0).then_some(Self(value))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a trace id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ARCP §11.
    #[test]
    fn a_bare_id_and_a_traceparent_name_the_same_trace() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let zero = "0".repeat(32);
        for (text, expected) in [
            (id.to_owned(), Some(id)),
            (format!("00-{id}-00f067aa0ba902b7-01"), Some(id)),
            (id.to_uppercase(), None),
            (zero, None),
            ("abc".to_owned(), None),
            ("é".repeat(16), None),
        ] {
            assert_eq!(TraceId::parse(&text).map(|id| id.to_string()).as_deref(), expected, "{text}");
        }
    }
}
