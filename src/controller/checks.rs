//! When each repository was last checked, which ones a snapshot made suspect, and which ones were deleted.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::core::repository::{Aspect, Refusals, Step, next_check};

/// Kept in memory only: after a restart the rounds go on where they were, since turns belong to the objects.
#[derive(Debug)]
pub struct Checks {
    started: Timestamp,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: HashMap<String, Timestamp>,
    suspects: HashMap<String, Suspicion>,
    tags_seen: HashSet<String>,
    deleted: HashSet<String>,
    creating: HashMap<String, Timestamp>,
    refusals: Refusals,
}

/// What a snapshot shows other than declared.
#[derive(Debug)]
struct Suspicion {
    aspects: Vec<Aspect>,
    /// Whether a pass is looking, or has looked, since.
    looked_at: bool,
}

impl Checks {
    /// From now on.
    #[must_use]
    pub fn new(started: Timestamp) -> Self {
        Self { started, state: Mutex::default() }
    }

    /// When the object was last checked; at the start, if it wasn't since.
    pub fn last(&self, uid: &str) -> Timestamp {
        self.state().last.get(uid).copied().unwrap_or(self.started)
    }

    /// Whether it is its turn in a round of `every`.
    pub fn is_due(&self, uid: &str, every: Option<Duration>, now: Timestamp) -> bool {
        every.is_some_and(|every| next_check(self.last(uid), every, uid) <= now)
    }

    /// It was looked at.
    pub fn done(&self, uid: &str, now: Timestamp) {
        self.state().last.insert(uid.to_owned(), now);
    }

    /// A snapshot shows it other than declared, in these aspects. Returns whether that is news.
    pub fn suspect(&self, uid: &str, aspects: &[Aspect]) -> bool {
        let suspicion = Suspicion { aspects: aspects.to_vec(), looked_at: false };
        let before = self.state().suspects.insert(uid.to_owned(), suspicion);
        before.is_none_or(|before| before.looked_at || before.aspects != aspects)
    }

    /// The aspects in which it is, for a pass that is about to look at them.
    pub fn look_at_suspicion(&self, uid: &str) -> Vec<Aspect> {
        let mut state = self.state();
        let suspicion = state.suspects.get_mut(uid);
        suspicion.map_or_else(Vec::new, |suspicion| {
            suspicion.looked_at = true;
            suspicion.aspects.clone()
        })
    }

    /// Whether the last snapshot showed its tags, so that they needn't be read in its turn.
    pub fn set_tags_seen(&self, uid: &str, seen: bool) {
        let mut state = self.state();
        if seen {
            state.tags_seen.insert(uid.to_owned());
        } else {
            state.tags_seen.remove(uid);
        }
    }

    /// Whether it did.
    pub fn tags_seen(&self, uid: &str) -> bool {
        self.state().tags_seen.contains(uid)
    }

    /// The pass that looked found it as declared, or made it so. What came up meanwhile stays.
    pub fn clear_suspicion(&self, uid: &str) {
        let mut state = self.state();
        if state.suspects.get(uid).is_some_and(|suspicion| suspicion.looked_at) {
            state.suspects.remove(uid);
        }
    }

    /// ECR is asked to create its repository, and may do so whatever becomes of the answer.
    pub fn creating(&self, uid: &str, now: Timestamp) {
        self.state().creating.insert(uid.to_owned(), now);
    }

    /// ECR didn't do so.
    pub fn not_created(&self, uid: &str) {
        self.state().creating.remove(uid);
    }

    /// When ECR was last asked to create its repository, as far as that may have happened: for an object from before the
    /// start, perhaps just then.
    pub fn may_be_created_at(&self, uid: &str, object_created: Option<Timestamp>) -> Option<Timestamp> {
        let before_the_start = object_created.is_none_or(|created| created <= self.started).then_some(self.started);
        self.state().creating.get(uid).copied().or(before_the_start)
    }

    /// ECR just refused this step. Returns for how long it has been refusing that.
    pub fn refused(&self, uid: &str, step: &Step, now: Timestamp) -> SignedDuration {
        self.state().refusals.refused(uid, step, now)
    }

    /// It refuses nothing.
    pub fn accepted(&self, uid: &str) {
        self.state().refusals.forget(uid);
    }

    /// Its repository was deleted, by us.
    pub fn deleted(&self, uid: &str) {
        self.state().deleted.insert(uid.to_owned());
    }

    /// Whether it was.
    pub fn was_deleted(&self, uid: &str) -> bool {
        self.state().deleted.contains(uid)
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        let mut state = self.state();
        state.last.remove(uid);
        state.suspects.remove(uid);
        state.tags_seen.remove(uid);
        state.deleted.remove(uid);
        state.creating.remove(uid);
        state.refusals.forget(uid);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_shows_while_a_pass_looks_is_looked_at_by_the_next() {
        let checks = Checks::new(Timestamp::UNIX_EPOCH);
        assert!(checks.suspect("u", &[Aspect::Tags]));
        assert!(!checks.suspect("u", &[Aspect::Tags]), "nobody looked yet");
        assert_eq!(checks.look_at_suspicion("u"), [Aspect::Tags]);
        assert!(checks.suspect("u", &[Aspect::Tags]), "changed behind the back of the pass that looks");
        checks.clear_suspicion("u");
        assert_eq!(checks.look_at_suspicion("u"), [Aspect::Tags]);
        // A pass that failed clears nothing.
        assert_eq!(checks.look_at_suspicion("u"), [Aspect::Tags]);
        checks.clear_suspicion("u");
        assert_eq!(checks.look_at_suspicion("u"), []);
    }
}
