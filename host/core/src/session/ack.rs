//! How far a client says it has come, and when it has fallen behind (ARCP §6.5).
//!
//! An acknowledgement frees nothing, because nothing is buffered. What it is
//! for is telling a client that reads slowly that it does: once, and again only
//! after it has caught up to half of what it may lag.

/// The acknowledgements of one session.
#[derive(Debug)]
pub(super) struct Acknowledged {
    /// The newest number that the client has processed.
    newest: u64,
    /// By how much it may lag; 0: by any number.
    lag_max: u64,
    /// Whether it has been told that it lags, and has not caught up since.
    told: bool,
}

impl Acknowledged {
    /// Begins with a client that has processed everything up to `newest`.
    pub(super) fn new(newest: u64, lag_max: u64) -> Self {
        Self { newest, lag_max, told: false }
    }

    /// Takes in an acknowledgement. One that goes back or names what was never sent is only advice, too.
    pub(super) fn take(&mut self, processed: u64, last_seq: u64) {
        self.newest = self.newest.max(processed.min(last_seq));
        if last_seq - self.newest <= self.lag_max / 2 {
            self.told = false;
        }
    }

    /// What the client has processed, if that is so little that it has to be told.
    pub(super) fn lags(&mut self, last_seq: u64) -> Option<u64> {
        let behind = self.lag_max > 0 && last_seq.saturating_sub(self.newest) > self.lag_max;
        (behind && !std::mem::replace(&mut self.told, true)).then_some(self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ARCP §6.5: each row is what happens to a client that may lag by 10: what it acknowledges, if it does, the newest
    /// number then, and what it is told to have processed.
    #[test]
    fn a_client_that_lags_is_told_once_and_again_after_it_has_caught_up() {
        let table = [
            (None, 10, None), // not over it
            (None, 11, Some(0)),
            (None, 12, None),
            (Some(6), 12, None), // more than half of it behind
            (None, 30, None),
            (Some(25), 30, None), // caught up
            (None, 35, None),
            (Some(3), 35, None),   // going back changes nothing
            (Some(900), 35, None), // nor does more than there is
            (None, 45, None),
            (None, 46, Some(35)),
        ];
        let mut acknowledged = Acknowledged::new(0, 10);
        for (row, (processed, last_seq, expected)) in table.into_iter().enumerate() {
            if let Some(processed) = processed {
                acknowledged.take(processed, last_seq);
            }
            assert_eq!(acknowledged.lags(last_seq), expected, "row {row}");
        }
        assert_eq!(Acknowledged::new(0, 0).lags(1_000_000), None, "0 is never");
        assert_eq!(Acknowledged::new(40, 10).lags(50), None, "a client that comes back says what it has");
    }
}
