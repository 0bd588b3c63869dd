//! So many of something a second.

use std::time::Duration;

use leasehold_core::time::Timestamp;

/// A bucket of tokens that fills by so many a second, up to one second's worth.
///
/// It is told the time, so a test can choose it.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_sec: u32,
    /// In thousandths of a token: so many come in a millisecond as tokens do in a second.
    level: u64,
    at: Timestamp,
}

/// A token, as the level counts.
const TOKEN: u64 = 1000;

impl Bucket {
    /// A full bucket, of at least one token a second.
    #[must_use]
    pub fn new(per_sec: u32, now: Timestamp) -> Self {
        let per_sec = per_sec.max(1);
        Self { per_sec, level: u64::from(per_sec) * TOKEN, at: now }
    }

    /// Takes a token.
    ///
    /// # Errors
    ///
    /// When there will be one, if there is none.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let passed = u64::try_from(now.saturating_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let (rate, full) = (u64::from(self.per_sec), u64::from(self.per_sec) * TOKEN);
        self.level = self.level.saturating_add(passed.saturating_mul(rate)).min(full);
        self.at = self.at.max(now);
        match self.level.checked_sub(TOKEN) {
            Some(left) => {
                self.level = left;
                Ok(())
            }
            None => Err(self.ready_at()),
        }
    }

    /// When there is a token, which may have been a while ago.
    #[must_use]
    pub fn ready_at(&self) -> Timestamp {
        let missing = TOKEN.saturating_sub(self.level).div_ceil(u64::from(self.per_sec));
        self.at.saturating_add(Duration::from_millis(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_seconds_worth_at_once_and_then_at_its_rate() {
        let at = |millis| Timestamp::from_millis(1_000_000_i64 + millis);
        let mut bucket = Bucket::new(4, at(0));
        for (now, expected) in [
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Err(at(250))),
            (249, Err(at(250))),
            (250, Ok(())),
            (200, Err(at(500))), // a clock that was set back gives nothing
            (10_000, Ok(())),
            (10_000, Ok(())),
            (10_000, Ok(())),
            (10_000, Ok(())), // and no more than a second's worth was saved
            (10_000, Err(at(10_250))),
        ] {
            assert_eq!(bucket.take(at(now)), expected, "at {now}");
        }
    }
}
