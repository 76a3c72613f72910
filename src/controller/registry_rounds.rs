//! The rounds of looks at a registry's repositories: how often, and what was found to hold for all of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;

use crate::controller::registries::Registries;
use crate::core::reason::Problem;

/// Where `driftInterval` isn't set.
const DRIFT_INTERVAL: Duration = Duration::from_mins(10);

/// By registry.
pub(super) type Rounds = Mutex<HashMap<String, Round>>;

/// Of looks at a registry's repositories.
#[derive(Debug, Default)]
pub(super) struct Round {
    scanning: Option<String>,
    every: Option<Duration>,
    counted: bool,
    next_snapshot: Option<Timestamp>,
    blindness: Option<Problem>,
}

impl Registries {
    /// How often its repositories are looked at where nothing changes.
    #[must_use]
    pub fn drift_interval(&self, name: &str) -> Duration {
        let declared = self.store.get(&ObjectRef::new(name)).and_then(|object| object.spec.drift_interval.clone());
        let parsed =
            declared.and_then(|text| text.parse::<SignedDuration>().ok()).and_then(|interval| interval.try_into().ok());
        parsed.unwrap_or(DRIFT_INTERVAL)
    }

    /// How often each of its repositories is checked; `None`: never.
    #[must_use]
    pub fn check_every(&self, name: &str) -> Option<Duration> {
        let rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        rounds
            .get(name)
            .filter(|round| round.counted)
            .map_or_else(|| Some(self.drift_interval(name)), |round| round.every)
    }

    /// Sets it.
    pub fn set_check_every(&self, name: &str, every: Option<Duration>) {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let round = rounds.entry(name.to_owned()).or_default();
        (round.every, round.counted) = (every, true);
    }

    /// How the registry's own configuration scans, if it decides.
    #[must_use]
    pub fn scanning(&self, name: &str) -> Option<String> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).get(name).and_then(|round| round.scanning.clone())
    }

    /// Sets it.
    pub fn set_scanning(&self, name: &str, how: Option<String>) {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().scanning = how;
    }

    /// Whether it is time for a snapshot of its repositories; if so, the next is an `interval` later.
    pub fn snapshot_due(&self, name: &str, interval: Duration, now: Timestamp) -> bool {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let round = rounds.entry(name.to_owned()).or_default();
        let later = now.saturating_add(SignedDuration::try_from(interval).unwrap_or_default()).ok();
        // Further away than an interval: it was made shorter.
        let due = round.next_snapshot.is_none_or(|next| next <= now || Some(next) > later);
        if due {
            round.next_snapshot = later;
        }
        due
    }

    /// Why nothing is seen of what snapshots show, if that doesn't pass by itself.
    #[must_use]
    pub fn blindness(&self, name: &str) -> Option<Problem> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).get(name).and_then(|round| round.blindness.clone())
    }

    /// Sets it.
    pub fn set_blindness(&self, name: &str, why: Option<Problem>) {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().blindness = why;
    }

    /// It is gone: another of that name may be another.
    pub fn forget(&self, name: &str) {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The snapshot couldn't be taken: the next try needn't wait for the whole interval.
    pub fn snapshot_failed(&self, name: &str) {
        let soon = Timestamp::now().saturating_add(SignedDuration::from_mins(1)).ok();
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().next_snapshot =
            soon;
    }
}
