//! Instants as the host writes them.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// An instant, as RFC 3339 in UTC with millisecond precision.
///
/// That form has a fixed width, so instants compare as their texts do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(String);

impl Timestamp {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// Gives the text, such as `2026-05-13T19:30:00.000Z`.
    ///
    /// ```no_run
    /// use leasehold_agent::job;
    ///
    /// let end = job::expires_at().map(|at| at.as_str().to_owned());
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Converts to std's time, to reckon with; `None` for a text of another form.
    ///
    /// ```no_run
    /// use leasehold_agent::job;
    /// use std::time::SystemTime;
    ///
    /// let left = job::expires_at()
    ///     .and_then(|at| at.to_system_time())
    ///     .and_then(|at| at.duration_since(SystemTime::now()).ok());
    /// ```
    #[must_use]
    pub fn to_system_time(&self) -> Option<SystemTime> {
        let millis = millis_since_1970(&self.0)?;
        let distance = Duration::from_millis(millis.unsigned_abs());
        if millis < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads `YYYY-MM-DDThh:mm:ss.mmmZ`, the one form the host writes.
fn millis_since_1970(text: &str) -> Option<i64> {
    let form = "0000-00-00T00:00:00.000Z";
    let fits = |(byte, form): (u8, u8)| if form == b'0' { byte.is_ascii_digit() } else { byte == form };
    if text.len() != form.len() || !text.bytes().zip(form.bytes()).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // The year is taken to begin in March, so that the leap day comes last and
    // the months before any month have a length that one line can say.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + number(20, 23)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_the_host_writes_becomes_millis_and_no_other_does() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.000Z", Some(0)),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("2000-02-29T12:00:00.000Z", Some(951_825_600_000)),
            ("2000-03-01T00:00:00.000Z", Some(951_868_800_000)),
            ("2026-05-13T19:30:00.020Z", Some(1_778_700_600_020)),
            ("9999-12-31T23:59:59.999Z", Some(253_402_300_799_999)),
            ("0000-01-01T00:00:00.000Z", Some(-62_167_219_200_000)),
            ("2026-13-13T19:30:00.000Z", None),
            ("2026-05-13T19:30:00Z", None),
            ("2026-05-13T19:30:00.000é", None),
            ("", None),
        ] {
            assert_eq!(millis_since_1970(text), expected, "{text}");
        }
    }
}
