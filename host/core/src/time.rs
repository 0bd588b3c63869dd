//! Instants as values: core is told the time and never asks for it.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant in UTC with millisecond precision.
///
/// On the wire it is RFC 3339 with `Z` and exactly three fraction digits,
/// the one form every ARCP client parses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is not an instant this host accepts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not RFC 3339 at all.
    #[error("`{0}` is not an RFC 3339 time such as 2026-05-13T19:30:00Z")]
    Malformed(String),
    /// RFC 3339, but of another zone than UTC.
    #[error("`{0}` is not in UTC: write it with `Z`")]
    NotUtc(String),
}

impl Timestamp {
    /// The instant `millis` after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The instant `duration` later, or the end of time.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long it is from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses RFC 3339 in UTC (ARCP §9.5).
    ///
    /// `+00:00` and `-00:00` count as UTC: it is how the .NET clients write it.
    ///
    /// # Errors
    ///
    /// If the text is no time, or one of another zone.
    pub fn parse_utc(text: &str) -> Result<Self, TimestampError> {
        let at = Self::parse_any_zone(text)?;
        let utc = ["Z", "z", "+00:00", "-00:00"].iter().any(|zone| text.ends_with(zone));
        if utc { Ok(at) } else { Err(TimestampError::NotUtc(shorten(text))) }
    }

    /// Parses RFC 3339 of any zone.
    ///
    /// # Errors
    ///
    /// If the text is no time.
    pub fn parse_any_zone(text: &str) -> Result<Self, TimestampError> {
        let at: jiff::Timestamp = text.parse().map_err(|_| TimestampError::Malformed(shorten(text)))?;
        Ok(Self(at.as_millisecond()))
    }
}

/// A client may send anything as a time; an error quotes only so much of it.
fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        write!(f, "{at:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_any_zone(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_written_with_z_and_three_digits() {
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(1_778_700_600_020).to_string(), "2026-05-13T19:30:00.020Z");
    }

    /// ARCP §9.5: "MUST be UTC (`Z` suffix)".
    #[test]
    fn only_utc_is_accepted_where_utc_is_asked_for() {
        let at = Ok(Timestamp::from_millis(1_778_700_600_000));
        for (text, expected) in [
            ("2026-05-13T19:30:00Z", at),
            ("2026-05-13T19:30:00.000Z", at),
            ("2026-05-13T19:30:00+00:00", at),
            ("2026-05-13T21:30:00+02:00", Err(())),
            ("2026-05-13", Err(())),
            ("tomorrow", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(Timestamp::parse_utc(text).map_err(|_| ()), expected, "{text}");
        }
    }
}
