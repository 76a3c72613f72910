//! How long watches wait after a failure.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use kube::runtime::watcher::DefaultBackoff;

/// From a second to half a minute, and up to as much again at random. It starts anew once there was no failure for two
/// minutes, and not with each success as kube's own does: a list that is about to fail begins with one.
#[derive(Default)]
pub(super) struct Patience(DefaultBackoff);

impl Patience {
    /// For how long after this failure.
    pub fn pause(&mut self) -> Duration {
        self.0.next().unwrap_or_default()
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.pause())
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use kube::runtime::WatchStreamExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_come_further_and_further_apart_though_each_attempt_begins_with_a_success() {
        let attempts = stream::iter(std::iter::repeat_n([Ok("begins"), Err("fails")], 12)).flat_map(stream::iter);
        let mut last = Instant::now();
        let mut gaps = Vec::new();
        let mut failures = std::pin::pin!(attempts.backoff(Patience::default()));
        while let Some(event) = failures.next().await {
            if event.is_ok() {
                gaps.push(last.elapsed());
                last = Instant::now();
            }
        }
        let most = Duration::from_mins(1);
        assert!(gaps[1] < Duration::from_secs(2) && gaps[4] > gaps[1], "{gaps:?}");
        assert!(gaps[8..].iter().all(|gap| (Duration::from_secs(30)..=most).contains(gap)), "{gaps:?}");
        let mut patience = Patience::default();
        let spent: Vec<_> = patience.by_ref().take(9).collect();
        assert!(spent[8] >= Duration::from_secs(30), "{spent:?}");
        tokio::time::advance(Duration::from_mins(3)).await;
        assert!(patience.pause() < Duration::from_secs(2), "all was well in between");
    }
}
