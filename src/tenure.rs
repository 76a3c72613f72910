//! Whether this process may write. Asked by everything that writes, just before it does: a process that was stopped for a
//! while and goes on knows nothing of that but the time.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

/// A moment by both of a machine's clocks: the one stands still while the machine sleeps, the other may be set.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// By the steady clock, as time since `start`.
    #[must_use]
    pub fn since(&self, start: &Self) -> Duration {
        self.steady.saturating_duration_since(start.steady)
    }

    /// Whether less than `most` has passed since, whichever clock is asked.
    fn is_within(&self, most: Duration, now: &Self) -> bool {
        let wall = now.wall.duration_since(self.wall).unwrap_or_default();
        now.since(self).max(wall) < most
    }
}

#[derive(Debug, Clone, Copy)]
enum Until {
    Never,
    Ever,
    After(Moment, Duration),
}

impl Until {
    fn holds(self, now: &Moment) -> bool {
        match self {
            Self::Never => false,
            Self::Ever => true,
            Self::After(from, most) => from.is_within(most, now),
        }
    }
}

/// The right of this process to write, shared by all that write.
#[derive(Debug, Clone)]
pub struct Tenure {
    until: Arc<watch::Sender<Until>>,
    connect: Duration,
}

/// To connect, where no other process waits for this one's last write to arrive.
const CONNECT: Duration = Duration::from_secs(4);

/// What a write is refused with.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("not sent: this process isn't the leader, or couldn't renew its lease in time")]
pub struct NotLeading;

impl Tenure {
    /// For a process that waits to be elected. A write takes at most `connect` to be connected.
    #[must_use]
    pub fn none(connect: Duration) -> Self {
        Self { until: Arc::new(watch::channel(Until::Never).0), connect }
    }

    /// For the only process there is.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { until: Arc::new(watch::channel(Until::Ever).0), connect: CONNECT }
    }

    /// How long a write may wait for a connection once it was let go: no longer than passes between a leader's last moment
    /// and the next one's first.
    #[must_use]
    pub fn connect(&self) -> Duration {
        self.connect
    }

    /// From now on, until `most` has passed since `from`.
    pub fn extend(&self, from: Moment, most: Duration) {
        self.until.send_replace(Until::After(from, most));
    }

    /// No longer.
    pub fn end(&self) {
        self.until.send_replace(Until::Never);
    }

    /// Whether it may write, at this very moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.until.borrow().holds(&Moment::now())
    }

    /// The same, as an answer to a request to write.
    ///
    /// # Errors
    /// Where it may not.
    pub fn check(&self) -> Result<(), NotLeading> {
        if self.holds() { Ok(()) } else { Err(NotLeading) }
    }

    /// Waits until it may.
    pub async fn begun(&self) {
        // The sender lives as long as this does.
        let _ = self.until.subscribe().wait_for(|until| until.holds(&Moment::now())).await;
    }
}

impl Default for Tenure {
    fn default() -> Self {
        Self::unlimited()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn later(from: Moment, steady: u64, wall: i64) -> Moment {
        let step = Duration::from_secs(wall.unsigned_abs());
        let wall = if wall < 0 { from.wall - step } else { from.wall + step };
        Moment { steady: from.steady + Duration::from_secs(steady), wall }
    }

    #[test]
    fn the_clock_that_shows_more_counts() {
        let from = Moment::now();
        for (steady, wall, within, why) in [
            (9, 9, true, "both agree"),
            (10, 10, false, "time is up"),
            (10, -600, false, "the wall clock was set back"),
            (1, 600, false, "the machine slept, or the wall clock was set forward"),
        ] {
            assert_eq!(from.is_within(TEN, &later(from, steady, wall)), within, "{why}");
        }
    }

    #[tokio::test]
    async fn a_tenure_begins_and_ends() {
        let tenure = Tenure::none(CONNECT);
        assert!(tenure.check().is_err());
        tenure.extend(Moment::now(), Duration::from_hours(1));
        tenure.begun().await;
        assert!(tenure.check().is_ok());
        tenure.end();
        assert!(!tenure.holds());
        assert!(Tenure::unlimited().holds());
    }
}
