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
    suspects: HashMap<String, Vec<Aspect>>,
    tags_seen: HashSet<String>,
    deleted: HashSet<String>,
    creating: HashMap<String, Timestamp>,
    refusals: Refusals,
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
        let before = self.state().suspects.insert(uid.to_owned(), aspects.to_vec());
        before.is_none_or(|before| before != aspects)
    }

    /// The aspects in which it is.
    pub fn suspected(&self, uid: &str) -> Option<Vec<Aspect>> {
        self.state().suspects.get(uid).cloned()
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

    /// It was looked at, and is as declared.
    pub fn clear_suspicion(&self, uid: &str) {
        self.state().suspects.remove(uid);
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
