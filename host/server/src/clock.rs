//! Time and fresh ids: the two things a host has to draw from outside.
//!
//! A lease ends at a moment of the wall clock (ARCP §9.5), and a wall clock can be set. The host's never goes back:
//! when the machine's is set back, it goes on at the pace of time until the machine's has caught up, so a step back
//! gives no lease a second more. When the machine's is set forward, it follows at once: a clock that was too late for
//! a while has ended leases early, which is the safe side. A host that is started anew takes the clock as it is then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use leasehold_core::{id::Ulid, time::Timestamp};
use tokio::sync::watch;

/// Where a host takes its time from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Arc<Monotone>),
    /// The hands are moved by whoever holds the sender.
    Manual(watch::Receiver<Timestamp>),
}

/// Moves the hands of a manual clock.
#[derive(Clone, Debug)]
pub struct Hands(Arc<watch::Sender<Timestamp>>);

/// A wall clock that never goes back.
#[derive(Debug)]
struct Monotone {
    begun: Instant,
    /// By how much the wall clock has been ahead of the milliseconds since the beginning, at most.
    ahead: AtomicI64,
}

impl Monotone {
    fn new() -> Self {
        Self { begun: Instant::now(), ahead: AtomicI64::new(i64::MIN) }
    }

    /// What time it is when the wall clock shows `wall`, so long after the beginning.
    fn at(&self, wall: Timestamp, since: Duration) -> Timestamp {
        let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let ahead = wall.as_millis().saturating_sub(since);
        let most = self.ahead.fetch_max(ahead, Ordering::Relaxed).max(ahead);
        Timestamp::from_millis(most.saturating_add(since))
    }

    fn now(&self) -> Timestamp {
        self.at(system_now(), self.begun.elapsed())
    }
}

impl Clock {
    /// The machine's wall clock, as long as it does not go back.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(Arc::new(Monotone::new())))
    }

    /// A clock that stands still until its hands are moved.
    #[must_use]
    pub fn manual(at: Timestamp) -> (Self, Hands) {
        let (sender, receiver) = watch::channel(at);
        (Self(Source::Manual(receiver)), Hands(Arc::new(sender)))
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System(clock) => clock.now(),
            Source::Manual(hands) => *hands.borrow(),
        }
    }

    /// Returns once `at` has come.
    pub async fn sleep_until(&self, at: Timestamp) {
        match &self.0 {
            // A timer may fire a moment early by the wall clock, so the clock has the last word.
            Source::System(clock) => loop {
                let left = at.saturating_since(clock.now());
                if left.is_zero() {
                    return;
                }
                // A wall clock that is set forward is noticed within a minute.
                tokio::time::sleep(left.min(Duration::from_secs(60))).await;
            },
            Source::Manual(hands) => {
                let mut hands = hands.clone();
                if hands.wait_for(|now| *now >= at).await.is_err() {
                    // Nobody can move the hands any more, so the moment never comes.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl Hands {
    /// Moves the clock forward and wakes whoever waited for the moments passed.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = now.saturating_add(by));
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn system_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Draws random bits from the operating system.
///
/// # Panics
///
/// If the operating system has none to give, which it documents to be impossible after boot.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// [`random`] as a number.
#[must_use]
pub fn random_u128() -> u128 {
    u128::from_le_bytes(random())
}

/// A ULID of this moment.
#[must_use]
pub fn fresh(now: Timestamp) -> Ulid {
    Ulid::from_parts(u64::try_from(now.as_millis()).unwrap_or(0), random_u128())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ARCP §9.5: a lease that has ended has ended, whatever the machine's clock is set to.
    #[test]
    fn a_wall_clock_that_is_set_back_holds_no_time_up() {
        let clock = Monotone::new();
        for (since, wall, expected, why) in [
            (0, 1_000, 1_000, "as it is"),
            (10, 1_010, 1_010, "both go on"),
            (20, 400, 1_020, "set back: the machine's own pace"),
            (500, 880, 1_500, "and it does not stand still meanwhile"),
            (510, 1_600, 1_600, "set forward: it follows"),
            (520, 1_020, 1_610, "and not back"),
            (530, 1_619, 1_620, "a little slow is set back a little"),
            (540, 1_640, 1_640, "caught up"),
        ] {
            let at = clock.at(Timestamp::from_millis(wall), Duration::from_millis(since));
            assert_eq!(at, Timestamp::from_millis(expected), "{why}");
        }
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_a_sleeper_when_its_moment_comes() {
        let (clock, hands) = Clock::manual(Timestamp::from_millis(1_000));
        let at = Timestamp::from_millis(3_000);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep_until(at).await;
                clock.now()
            }
        });
        hands.advance(Duration::from_secs(1));
        assert!(!sleeper.is_finished());
        hands.advance(Duration::from_secs(1));
        assert_eq!(sleeper.await.unwrap(), at);
    }
}
