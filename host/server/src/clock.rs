//! Time and fresh ids: the two things a host has to draw from outside.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use leasehold_core::{id::Ulid, time::Timestamp};
use tokio::sync::watch;

/// Where a host takes its time from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// The hands are moved by whoever holds the sender.
    Manual(watch::Receiver<Timestamp>),
}

/// Moves the hands of a manual clock.
#[derive(Clone, Debug)]
pub struct Hands(Arc<watch::Sender<Timestamp>>);

impl Clock {
    /// The machine's wall clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
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
            Source::System => system_now(),
            Source::Manual(hands) => *hands.borrow(),
        }
    }

    /// Returns once `at` has come.
    pub async fn sleep_until(&self, at: Timestamp) {
        match &self.0 {
            // A timer may fire a moment early by the wall clock, so the clock has the last word.
            Source::System => loop {
                let left = at.saturating_since(system_now());
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
